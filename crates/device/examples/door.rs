//! A door that can be opened and locked from the platform, until ctrl-c.
//!
//! ```sh
//! cargo run -p vestibule-device --example door -- SN0000002 TESJDWYXCSPATULD osaps://127.0.0.1:8665
//! vestibule device invoke SN0000002 AccessControl/0/Door/Open '{"seconds": 5}'
//! vestibule device set SN0000002 AccessControl/0/Door/Locked false
//! ```

mod platform;

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use serde_json::json;
use vestibule_device::{Device, OperationError};

use platform::{Arguments, arguments};

/// What the operation takes.
#[derive(Deserialize)]
struct Open {
    seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { builder, .. } = arguments("door", "")?;
    let locked = Arc::new(AtomicBool::new(true));
    let (to_open, to_lock) = (Arc::clone(&locked), Arc::clone(&locked));

    let open = move |Open { seconds }: Open| {
        let locked = Arc::clone(&to_open);
        async move {
            if locked.load(Ordering::Relaxed) {
                return Err(OperationError::new(1, "the door is locked"));
            }
            println!("open for {seconds} s");
            Ok(json!({ "open": true }))
        }
    };
    let lock = move |value: bool| {
        let locked = Arc::clone(&to_lock);
        async move {
            locked.store(value, Ordering::Relaxed);
            println!("{}", if value { "locked" } else { "unlocked" });
            Ok(())
        }
    };
    let device = builder
        .device_type("Door")
        .operation("AccessControl", 0, "Door", "Open", open)
        .attribute("AccessControl", 0, "Door", "Locked", lock)
        .start()?;

    let now = locked.load(Ordering::Relaxed);
    tokio::select! {
        result = report(&device, now) => result?,
        result = tokio::signal::ctrl_c() => result?,
    }
    device.stop().await?;
    Ok(())
}

/// Says once whether the door is locked; later changes are reported by themselves.
async fn report(device: &Device, locked: bool) -> Result<(), Box<dyn Error>> {
    device.attribute("AccessControl", 0, "Door", "Locked").report(&locked).await?;
    std::future::pending::<()>().await;
    Ok(())
}
