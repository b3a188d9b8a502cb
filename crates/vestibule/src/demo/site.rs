//! The simulated site: a few devices made with the device SDK, over real sockets.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use vestibule_device::{Child, Device, FileStorage};
use vestibule_platform::{AddDeviceError, Caller, NewDevice, Platform, Secret};

use crate::simulate::{CAMERA, DOOR, Dice, HUB, Habits, Happening, Profile, Voice};

/// One simulated device.
struct Plan {
    serial: &'static str,
    code: &'static str,
    name: &'static str,
    profile: &'static Profile,
    /// How often it reports an event.
    every: Duration,
    /// What hangs on it, of the kind that its profile names.
    children: &'static [Plug],
}

/// A sub-device of a hub.
struct Plug {
    serial: &'static str,
    code: &'static str,
    name: &'static str,
    /// How often it reports an event.
    every: Duration,
}

const PLANS: [Plan; 4] = [
    Plan {
        serial: "CAM-ENTRANCE",
        code: "ENTRAN",
        name: "Entrance camera",
        profile: &CAMERA,
        every: Duration::from_secs(3),
        children: &[],
    },
    Plan {
        serial: "CAM-YARD",
        code: "YARDCA",
        name: "Yard camera",
        profile: &CAMERA,
        every: Duration::from_secs(5),
        children: &[],
    },
    Plan {
        serial: "DOOR-MAIN",
        code: "DOORMN",
        name: "Main door",
        profile: &DOOR,
        every: Duration::from_secs(4),
        children: &[],
    },
    Plan {
        serial: "HUB-HALL",
        code: "HUBHAL",
        name: "Hall hub",
        profile: &HUB,
        every: Duration::from_secs(20),
        children: &[
            Plug { serial: "PLUG-LAMP", code: "PLUGLA", name: "Lamp plug", every: Duration::from_secs(7) },
            Plug { serial: "PLUG-FAN", code: "PLUGFA", name: "Fan plug", every: Duration::from_secs(11) },
        ],
    },
];

/// The devices that run.
pub(super) struct Site {
    devices: Vec<Device>,
    reporting: JoinSet<()>,
    children: usize,
}

impl Site {
    /// Registers the devices where they are not, and starts them. What they are given is kept beside the platform's
    /// data, so that they come back as themselves. Whose the plugs are, their hub proves.
    pub(super) async fn start(platform: &Arc<Platform>, lbs: SocketAddr, data: &Path) -> anyhow::Result<Site> {
        let state = data.join("demo-site");
        let mut site = Site { devices: Vec::new(), reporting: JoinSet::new(), children: 0 };
        // Each has dice of its own.
        let mut numbers = 0..;
        let mut dice = || Dice::new(0, numbers.next().unwrap_or(0), 0);
        for plan in &PLANS {
            let Plan { serial, code, name, profile, every, children } = plan;
            register(platform, serial, code, name, &profile.habits).await?;
            let storage = FileStorage::new(state.join(serial)).context("a simulated device has no storage")?;
            let builder = Device::builder(serial, code).lbs(lbs.to_string()).legacy().storage(storage);
            let mut builder = (profile.abilities)(builder.device_type(profile.habits.product()));
            let children: Vec<_> = children.iter().zip(profile.child.into_iter().cycle()).collect();
            for (plug, kind) in &children {
                register(platform, plug.serial, plug.code, plug.name, &kind.habits).await?;
                let child = Child::builder(plug.serial, plug.code).product(kind.habits.product());
                builder = builder.child((kind.abilities)(child));
            }
            let device = builder.start().context("a simulated device cannot start")?;
            site.reporting.spawn(report(Voice::Device(device.clone()), &profile.habits, *every, dice()));
            for (plug, kind) in children {
                let child = device.child(plug.serial).context("a simulated hub lacks a child")?;
                site.reporting.spawn(report(Voice::Child(child), &kind.habits, plug.every, dice()));
                site.children += 1;
            }
            site.devices.push(device);
        }
        Ok(site)
    }

    /// How many devices there are, and how many sub-devices.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.devices.len(), self.children)
    }

    /// Has every device leave in order.
    pub(super) async fn stop(mut self) {
        self.reporting.abort_all();
        for device in self.devices {
            if let Err(error) = device.stop().await {
                tracing::debug!(%error, "a simulated device did not leave in order");
            }
        }
    }
}

async fn register(
    platform: &Arc<Platform>,
    serial: &str,
    code: &str,
    name: &str,
    habits: &Habits,
) -> anyhow::Result<()> {
    let new = NewDevice {
        serial: serial.to_owned(),
        code: Secret::new(code.as_bytes()),
        product: Some(habits.product()),
        name: Some(name.to_owned()),
        parent: None,
        org: None,
        labels: Default::default(),
    };
    match platform.add_device(new, &Caller::program()).await {
        Ok(_) | Err(AddDeviceError::SerialTaken) => Ok(()),
        Err(error) => Err(error).context("a simulated device cannot be registered"),
    }
}

async fn report(voice: Voice, habits: &'static Habits, every: Duration, mut dice: Dice) {
    for reading in (habits.first)() {
        if let Err(error) = voice.attribute(&reading).await {
            tracing::warn!(serial = voice.serial(), %error, "a simulated attribute was not reported");
        }
    }
    let mut ticks = tokio::time::interval(every);
    loop {
        ticks.tick().await;
        let Happening { place, data } = (habits.event)(&mut dice);
        if let Err(error) = voice.event(place, &data).await {
            tracing::warn!(serial = voice.serial(), %error, "a simulated event was not reported");
        }
    }
}
