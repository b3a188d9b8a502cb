//! A hub with two plugs behind it, each of which can be switched from the platform, until ctrl-c.
//!
//! ```sh
//! cargo run -p vestibule-device --example hub -- SN0000003 CCAQLHSKJHVMRLMW osaps://127.0.0.1:8665
//! vestibule device invoke SUB000001 Plug/0/Power/Switch '{"on": true}'
//! ```
//!
//! The plugs are SUB000001 and SUB000002, both with the code ZXCVBN; the platform has to know them.

mod platform;

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use vestibule_device::{Child, ChildBuilder, ReportError};

use platform::{Arguments, arguments};

/// Time between two measurements.
const EVERY: Duration = Duration::from_secs(5);

/// Time until the platform is asked again about a plug that it refused.
const AGAIN: Duration = Duration::from_secs(60);

/// What the operation takes.
#[derive(Deserialize)]
struct Switch {
    on: bool,
}

/// A plug, as a radio would find it.
fn plug(serial: &'static str) -> ChildBuilder {
    Child::builder(serial, "ZXCVBN").product("Plug").version("1.0.0").operation(
        "Plug",
        0,
        "Power",
        "Switch",
        move |Switch { on }: Switch| async move {
            println!("{serial} is switched {}", if on { "on" } else { "off" });
            Ok(json!({ "on": on }))
        },
    )
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { builder, .. } = arguments("hub", "")?;
    let device = builder.device_type("Hub").child(plug("SUB000001")).start()?;
    // Another one, found while the hub runs.
    device.add_child(plug("SUB000002"))?;

    let [first, second] = device.children().try_into().map_err(|_| "a plug is missing")?;
    tokio::select! {
        result = measure(first) => result?,
        result = measure(second) => result?,
        result = tokio::signal::ctrl_c() => result?,
    }
    device.stop().await?;
    Ok(())
}

/// Reports what a plug draws, and goes on although the platform may not want to hear of it.
async fn measure(plug: Child) -> Result<(), Box<dyn Error>> {
    let mut ticks = tokio::time::interval(EVERY);
    for watts in (40..60).cycle() {
        ticks.tick().await;
        match plug.attribute("Plug", 0, "Power", "Watts").report(&watts).await {
            Ok(()) => println!("{} draws {watts} W", plug.serial()),
            Err(ReportError::NoChild) => {
                println!("the platform does not accept {}", plug.serial());
                tokio::time::sleep(AGAIN).await;
                plug.retry();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
