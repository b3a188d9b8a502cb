//! A camera that enrols and reports a motion every few seconds, with a picture when it is given one, until ctrl-c.
//!
//! ```sh
//! cargo run -p vestibule-device --example camera -- SN0000001 XSHQNNGGFCFUXEYR osaps://127.0.0.1:8665 yard.jpg
//! ```

mod platform;

use std::error::Error;
use std::time::Duration;

use serde_json::json;
use vestibule_device::{Device, Picture, ReportError};

use platform::{Arguments, arguments};

/// Time between two motions.
const EVERY: Duration = Duration::from_secs(3);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { builder, rest } = arguments("camera", " [PICTURE.jpg]")?;
    let picture = rest.first().map(std::fs::read).transpose()?;
    let device = builder.device_type("Camera").start()?;

    tokio::select! {
        result = watch(&device) => result?,
        result = report(&device, picture) => result?,
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

/// Reports a motion every few seconds. The picture follows its event by itself.
async fn report(device: &Device, picture: Option<Vec<u8>>) -> Result<(), Box<dyn Error>> {
    let mut ticks = tokio::time::interval(EVERY);
    for level in (1..=5).cycle() {
        ticks.tick().await;
        let mut motion = device.event("Camera", 0, "Detection", "Motion");
        if let Some(picture) = &picture {
            motion = motion.picture("shot", Picture::jpeg(picture.clone()));
        }
        match motion.report(&json!({ "level": level })).await {
            Ok(receipt) => println!("motion {level} is stored as {}", receipt.id),
            Err(ReportError::Stopped) => break,
            Err(error) => println!("motion {level} is not reported: {error}"),
        }
    }
    Ok(())
}
