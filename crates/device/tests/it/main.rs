//! A device against a platform in the same process, over real sockets.

mod cache;
mod children;
mod corpus;
#[path = "../../../../tests/shared/fault_proxy.rs"]
mod fault_proxy;
mod firmware;
mod life;
mod modern;
mod network;
mod owner;
mod passing;
mod server;
mod steered;
mod trouble;

use std::time::Duration;

use vestibule_device::{Device, State};

/// Nothing here takes longer, or it hangs.
pub async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(30), future).await.expect("it takes too long")
}

/// Waits for a state.
pub async fn reach(device: &Device, wanted: impl FnMut(&State) -> bool) -> State {
    let mut states = device.watch_state();
    soon(states.wait_for(wanted)).await.unwrap().clone()
}
