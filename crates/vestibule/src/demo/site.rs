//! The simulated site: a few devices made with the device SDK, over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use vestibule_device::{Builder, Device, FileStorage, OperationError};
use vestibule_platform::{AddDeviceError, Caller, NewDevice, Platform, Secret};

/// One simulated device: what it is, what it keeps saying and what it can do.
struct Plan {
    serial: &'static str,
    code: &'static str,
    name: &'static str,
    product: &'static str,
    resource: &'static str,
    area: &'static str,
    event: &'static str,
    every: Duration,
    data: fn(u64) -> Value,
    abilities: fn(Builder) -> Builder,
    /// Area, name and first value of its attribute.
    attribute: (&'static str, &'static str, fn() -> Value),
}

/// How long a door stays open.
#[derive(Deserialize)]
struct Open {
    seconds: u64,
}

/// A door opens for up to a minute, and is locked or not.
fn door(builder: Builder) -> Builder {
    let builder = builder.attribute("AccessControl", 0, "Door", "Locked", async |_: bool| Ok(()));
    builder.operation("AccessControl", 0, "Door", "Open", async |Open { seconds }| match seconds {
        1..=60 => Ok(json!({ "open": true, "seconds": seconds })),
        _ => Err(OperationError::new(22, "a door opens for 1 to 60 seconds")),
    })
}

/// A camera turns to one of its positions, and has a name in its picture.
fn camera(builder: Builder) -> Builder {
    let title = async |title: String| match title.chars().count() {
        0..=32 => Ok(()),
        _ => Err(OperationError::new(22, "a title has up to 32 characters")),
    };
    builder.attribute("Camera", 0, "Overlay", "Title", title).operation(
        "Camera",
        0,
        "Control",
        "Turn",
        async |position: u8| match position {
            1..=8 => Ok(json!({ "position": position })),
            _ => Err(OperationError::new(22, "there are the positions 1 to 8")),
        },
    )
}

const PLANS: [Plan; 3] = [
    Plan {
        serial: "CAM-ENTRANCE",
        code: "ENTRAN",
        name: "Entrance camera",
        product: "demo-camera",
        resource: "Camera",
        area: "Detection",
        event: "Motion",
        every: Duration::from_secs(3),
        data: |n| json!({ "level": 1 + n % 5, "zone": pick(n, ["gate", "steps", "street"]) }),
        abilities: camera,
        attribute: ("Overlay", "Title", || json!("Vestibule")),
    },
    Plan {
        serial: "CAM-YARD",
        code: "YARDCA",
        name: "Yard camera",
        product: "demo-camera",
        resource: "Camera",
        area: "Detection",
        event: "Vehicle",
        every: Duration::from_secs(5),
        data: |n| json!({ "direction": if n % 2 == 0 { "in" } else { "out" }, "confidence": 90 + n % 10 }),
        abilities: camera,
        attribute: ("Overlay", "Title", || json!("Vestibule")),
    },
    Plan {
        serial: "DOOR-MAIN",
        code: "DOORMN",
        name: "Main door",
        product: "demo-door",
        resource: "AccessControl",
        area: "Door",
        event: "Opened",
        every: Duration::from_secs(4),
        data: |n| json!({ "door": 1, "by": pick(n, ["card", "button", "face"]) }),
        abilities: door,
        attribute: ("Door", "Locked", || json!(true)),
    },
];

fn pick(n: u64, from: [&str; 3]) -> &str {
    from[usize::try_from(n % 3).unwrap_or(0)]
}

/// The devices that run.
pub(super) struct Site {
    devices: Vec<(Device, JoinHandle<()>)>,
}

impl Site {
    /// Registers the devices where they are not, and starts them. What they are given is kept beside the platform's
    /// data, so that they come back as themselves.
    pub(super) async fn start(platform: &Arc<Platform>, lbs: SocketAddr, data: &Path) -> anyhow::Result<Site> {
        let state = data.join("demo-site");
        let mut devices = Vec::new();
        for plan in &PLANS {
            let new = NewDevice {
                serial: plan.serial.to_owned(),
                code: Secret::new(plan.code.as_bytes()),
                product: Some(plan.product.to_owned()),
                name: Some(plan.name.to_owned()),
                parent: None,
            };
            match platform.add_device(new, &Caller::program()).await {
                Ok(_) | Err(AddDeviceError::SerialTaken) => {}
                Err(error) => return Err(error).context("a simulated device cannot be registered"),
            }
            let storage = FileStorage::new(state.join(plan.serial)).context("a simulated device has no storage")?;
            let builder =
                Device::builder(plan.serial, plan.code).lbs(lbs.to_string()).storage(storage).device_type(plan.product);
            let device = (plan.abilities)(builder).start().context("a simulated device cannot start")?;
            let reporting = tokio::spawn(report(device.clone(), plan));
            devices.push((device, reporting));
        }
        Ok(Site { devices })
    }

    pub(super) fn len(&self) -> usize {
        self.devices.len()
    }

    /// Has every device leave in order.
    pub(super) async fn stop(self) {
        for (device, reporting) in self.devices {
            reporting.abort();
            if let Err(error) = device.stop().await {
                tracing::debug!(%error, "a simulated device did not leave in order");
            }
        }
    }
}

async fn report(device: Device, plan: &'static Plan) {
    let (area, name, value) = plan.attribute;
    if let Err(error) = device.attribute(plan.resource, 0, area, name).report(&value()).await {
        tracing::warn!(serial = plan.serial, %error, "a simulated attribute was not reported");
    }
    let mut ticks = tokio::time::interval(plan.every);
    for number in 0.. {
        ticks.tick().await;
        let event = device.event(plan.resource, 0, plan.area, plan.event);
        if let Err(error) = event.report(&(plan.data)(number)).await {
            tracing::warn!(serial = plan.serial, %error, "a simulated event was not reported");
        }
    }
}
