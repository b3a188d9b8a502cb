//! What the tests share: a platform in a process of its own, and clients for each of its listeners.

mod browser;
mod bucket;
#[path = "../../../../../tests/shared/fault_proxy.rs"]
mod fault_proxy;
mod http;
mod load;
mod platform;
mod program;
mod python;
mod wire;

use std::time::{Duration, Instant};

pub use browser::Browser;
pub use bucket::Bucket;
pub use fault_proxy::{FaultProxy, Faults};
pub use load::Load;
pub use platform::{Listener, Platform, vestibule};
pub use program::{Done, Program, run, wait};
pub use python::{SecondDevice, python};
pub use vestibule_mqtt_codec::QoS;
pub use wire::{Das, authenticate, connect, enrol};

/// How long something may take to show that nobody can be told of.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until something shows of which the outside is not told, and answers with it.
#[track_caller]
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(begun.elapsed() < PATIENCE, "{what}: not seen within {} s", PATIENCE.as_secs());
        std::thread::sleep(PAUSE);
    }
}

/// An identifier nobody else has, short enough for a serial.
pub fn minted(prefix: &str) -> String {
    format!("{prefix}-{}", &uuid::Uuid::new_v4().simple().to_string()[..12])
}
