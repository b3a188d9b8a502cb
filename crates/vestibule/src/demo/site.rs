//! The simulated site: a few devices made with the device SDK, over real sockets.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use vestibule_device::{Anchor, Child, Device, FileStorage};
use vestibule_platform::{AddDeviceError, Caller, NewDevice, Platform, Secret};
use zeroize::Zeroizing;

use crate::simulate::{CAMERA, DOOR, Dice, HUB, Habits, Happening, Profile, Voice};

/// One simulated device.
struct Plan {
    serial: &'static str,
    name: &'static str,
    profile: &'static Profile,
    /// Whether it speaks the legacy suite, as firmware that is out there does; the others come in over TLS.
    is_legacy: bool,
    /// How often it reports an event.
    every: Duration,
    /// What hangs on it, of the kind that its profile names.
    children: &'static [Plug],
}

/// A sub-device of a hub.
struct Plug {
    serial: &'static str,
    name: &'static str,
    /// How often it reports an event.
    every: Duration,
}

const PLANS: [Plan; 4] = [
    Plan {
        serial: "CAM-ENTRANCE",
        name: "Entrance camera",
        profile: &CAMERA,
        is_legacy: false,
        every: Duration::from_secs(3),
        children: &[],
    },
    Plan {
        serial: "CAM-YARD",
        name: "Yard camera",
        profile: &CAMERA,
        is_legacy: true,
        every: Duration::from_secs(5),
        children: &[],
    },
    Plan {
        serial: "DOOR-MAIN",
        name: "Main door",
        profile: &DOOR,
        is_legacy: false,
        every: Duration::from_secs(4),
        children: &[],
    },
    Plan {
        serial: "HUB-HALL",
        name: "Hall hub",
        profile: &HUB,
        is_legacy: false,
        every: Duration::from_secs(20),
        children: &[
            Plug { serial: "PLUG-LAMP", name: "Lamp plug", every: Duration::from_secs(7) },
            Plug { serial: "PLUG-FAN", name: "Fan plug", every: Duration::from_secs(11) },
        ],
    },
];

/// Where the devices knock, and by what those that come in over TLS know the platform.
pub(super) struct Entrance {
    pub(super) tls: SocketAddr,
    pub(super) legacy: SocketAddr,
    pub(super) anchors: Vec<Anchor>,
}

/// The devices that run.
pub(super) struct Site {
    devices: Vec<Device>,
    reporting: JoinSet<()>,
    children: usize,
}

impl Site {
    /// Registers the devices where they are not, and starts them. What they are given is kept beside the platform's
    /// data, so that they come back as themselves. Whose the plugs are, their hub proves.
    pub(super) async fn start(platform: &Arc<Platform>, entrance: &Entrance, data: &Path) -> anyhow::Result<Site> {
        let state = data.join("demo-site");
        std::fs::create_dir_all(&state).with_context(|| state.display().to_string())?;
        let mut site = Site { devices: Vec::new(), reporting: JoinSet::new(), children: 0 };
        // Each has dice of its own.
        let mut numbers = 0..;
        let mut dice = || Dice::new(0, numbers.next().unwrap_or(0), 0);
        for plan in &PLANS {
            let Plan { serial, name, profile, is_legacy, every, children } = plan;
            let code = register(platform, &state, serial, name, &profile.habits).await?;
            let storage = FileStorage::new(state.join(serial)).context("a simulated device has no storage")?;
            let builder = Device::builder(serial, &code).storage(storage);
            let builder = if *is_legacy {
                builder.lbs(entrance.legacy.to_string()).legacy()
            } else {
                builder.lbs(format!("osaps://{}", entrance.tls)).anchors(entrance.anchors.iter().cloned())
            };
            let mut builder = (profile.abilities)(builder.device_type(profile.habits.product()));
            let children: Vec<_> = children.iter().zip(profile.child.into_iter().cycle()).collect();
            for (plug, kind) in &children {
                let code = register(platform, &state, plug.serial, plug.name, &kind.habits).await?;
                let child = Child::builder(plug.serial, &code).product(kind.habits.product());
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

/// Registers a device where it is not, and gives its verification code.
async fn register(
    platform: &Arc<Platform>,
    state: &Path,
    serial: &str,
    name: &str,
    habits: &Habits,
) -> anyhow::Result<Zeroizing<String>> {
    let file = state.join(serial).with_extension("code");
    let in_file = || format!("the code of a simulated device in {}", file.display());
    let Code { text, is_new } = Code::of(&file).with_context(in_file)?;
    let code = || Secret::new(text.as_bytes());
    let new = NewDevice {
        serial: serial.to_owned(),
        code: code(),
        one_time: false,
        product: Some(habits.product()),
        name: Some(name.to_owned()),
        parent: None,
        org: None,
        labels: Default::default(),
    };
    let registered = match platform.add_device(new, &Caller::program()).await {
        Err(AddDeviceError::SerialTaken) if is_new => {
            // The directory has it, but nobody knows its code any more.
            let device = platform.device(serial, &Caller::program()).context("a simulated device is gone again")?;
            platform.rotate_device(&device, code(), false, &Caller::program()).await
        }
        Ok(_) | Err(AddDeviceError::SerialTaken) => Ok(()),
        Err(error) => Err(error),
    };
    registered.context("a simulated device cannot be registered")?;
    if is_new {
        // Only now: the platform knows every code that is in a file. One that is lost in between is exchanged at the next start.
        keep(&file, &text).with_context(in_file)?;
    }
    Ok(text)
}

/// What would be printed on a device.
struct Code {
    text: Zeroizing<String>,
    is_new: bool,
}

impl Code {
    /// The one in the file, or a new one.
    fn of(file: &Path) -> io::Result<Code> {
        match fs::read_to_string(file) {
            // An empty one was cut off as it was written.
            Ok(text) if !text.is_empty() => return Ok(Code { text: Zeroizing::new(text), is_new: false }),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let code = Secret::random_code();
        Ok(Code { text: Zeroizing::new(String::from_utf8_lossy(code.expose()).into_owned()), is_new: true })
    }
}

/// Writes a code to a file, for its owner alone, all of it or nothing.
fn keep(file: &Path, code: &str) -> io::Result<()> {
    let partial = file.with_extension("code.partial");
    let mut written = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
    written.write_all(code.as_bytes())?;
    written.sync_all()?;
    fs::rename(&partial, file)
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
