//! The simulated site: a few devices made with the device SDK, over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;
use vestibule_device::{Device, FileStorage};
use vestibule_platform::{AddDeviceError, Caller, NewDevice, Platform, Secret};

use crate::simulate::{CAMERA, DOOR, Dice, Happening, Place, Profile, Reading};

/// One simulated device.
struct Plan {
    serial: &'static str,
    code: &'static str,
    name: &'static str,
    profile: &'static Profile,
    /// How often it reports an event.
    every: Duration,
}

const PLANS: [Plan; 3] = [
    Plan {
        serial: "CAM-ENTRANCE",
        code: "ENTRAN",
        name: "Entrance camera",
        profile: &CAMERA,
        every: Duration::from_secs(3),
    },
    Plan { serial: "CAM-YARD", code: "YARDCA", name: "Yard camera", profile: &CAMERA, every: Duration::from_secs(5) },
    Plan { serial: "DOOR-MAIN", code: "DOORMN", name: "Main door", profile: &DOOR, every: Duration::from_secs(4) },
];

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
        for (number, plan) in (0..).zip(&PLANS) {
            let new = NewDevice {
                serial: plan.serial.to_owned(),
                code: Secret::new(plan.code.as_bytes()),
                product: Some(plan.profile.product()),
                name: Some(plan.name.to_owned()),
                parent: None,
            };
            match platform.add_device(new, &Caller::program()).await {
                Ok(_) | Err(AddDeviceError::SerialTaken) => {}
                Err(error) => return Err(error).context("a simulated device cannot be registered"),
            }
            let storage = FileStorage::new(state.join(plan.serial)).context("a simulated device has no storage")?;
            let builder = Device::builder(plan.serial, plan.code).lbs(lbs.to_string()).storage(storage);
            let builder = (plan.profile.abilities)(builder.device_type(plan.profile.product()));
            let device = builder.start().context("a simulated device cannot start")?;
            let reporting = tokio::spawn(report(device.clone(), plan, Dice::new(0, number, 0)));
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

async fn report(device: Device, plan: &'static Plan, mut dice: Dice) {
    let serial = plan.serial;
    for Reading { place, value } in (plan.profile.first)() {
        let Place { resource, index, area, name } = place;
        if let Err(error) = device.attribute(resource, index, area, name).report(&value).await {
            tracing::warn!(serial, %error, "a simulated attribute was not reported");
        }
    }
    let mut ticks = tokio::time::interval(plan.every);
    loop {
        ticks.tick().await;
        let Happening { place, data } = (plan.profile.event)(&mut dice);
        let Place { resource, index, area, name } = place;
        if let Err(error) = device.event(resource, index, area, name).report(&data).await {
            tracing::warn!(serial, %error, "a simulated event was not reported");
        }
    }
}
