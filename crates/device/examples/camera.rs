//! A camera that enrols and reports a motion every few seconds, until ctrl-c.
//!
//! ```sh
//! cargo run -p vestibule-device --example camera -- SN0000001 ABCDEF 127.0.0.1:8666
//! ```

use std::error::Error;
use std::time::Duration;

use serde_json::json;
use vestibule_device::{Device, FileStorage, ReportError};

/// Time between two motions.
const EVERY: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [serial, code, lbs] = arguments.as_slice() else {
        eprintln!("usage: camera SERIAL CODE LBS_HOST:PORT");
        std::process::exit(2);
    };
    let device =
        Device::builder(serial, code).lbs(lbs).storage(FileStorage::new("state")?).device_type("Camera").start()?;

    tokio::select! {
        result = watch(&device) => result?,
        result = report(&device) => result?,
        result = tokio::signal::ctrl_c() => result?,
    }
    device.stop().await?;
    println!("stopped");
    Ok(())
}

/// Prints what the device is doing, until it stops by itself.
async fn watch(device: &Device) -> Result<(), Box<dyn Error>> {
    let mut states = device.watch_state();
    loop {
        println!("{}", *states.borrow_and_update());
        states.changed().await?;
    }
}

/// Reports a motion every few seconds.
async fn report(device: &Device) -> Result<(), Box<dyn Error>> {
    let motion = device.event("Camera", 0, "Detection", "Motion");
    let mut ticks = tokio::time::interval(EVERY);
    for level in (1..=5).cycle() {
        ticks.tick().await;
        match motion.report(&json!({ "level": level })).await {
            Ok(receipt) => println!("motion {level} is stored as {}", receipt.id),
            Err(ReportError::Stopped) => break,
            Err(error) => println!("motion {level} is not reported: {error}"),
        }
    }
    Ok(())
}
