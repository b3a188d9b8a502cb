//! A camera: sees motion, takes pictures, can be made brighter, takes other firmware.

use serde::Deserialize;
use serde_json::json;
use vestibule_device::{Builder, Upgrade, UpgradeCode, UpgradeError, UpgradeProgress, UpgradeStatus};

use super::{Dice, Habits, Happening, Order, Place, Profile, Rates, Reading, refused, rounded};

pub(crate) const CAMERA: Profile = Profile {
    habits: Habits {
        name: "camera",
        rates: Rates { events_per_minute: 6.0, reports_per_minute: 1.0, operations_per_minute: 0.0 },
        first: || vec![Reading { place: at("Image", "Brightness"), value: json!(50) }],
        event,
        reading: |dice| Reading { place: at("Image", "Illuminance"), value: json!(rounded(dice.unit() * 2_000.0)) },
        order: |dice| Order { place: at("Image", "Snapshot"), input: json!({ "quality": dice.within(10..=100) }) },
    },
    abilities,
    child: None,
};

const fn at(area: &'static str, name: &'static str) -> Place {
    Place { resource: "Camera", index: 0, area, name }
}

/// How good the picture shall be, in percent.
#[derive(Deserialize)]
struct Snapshot {
    quality: u8,
}

fn abilities(builder: Builder) -> Builder {
    let brightness = async |percent: u8| match percent {
        0..=100 => Ok(()),
        _ => Err(refused("the brightness is 0 to 100 percent")),
    };
    let snapshot = async |Snapshot { quality }| match quality {
        1..=100 => Ok(json!({ "width": 1920, "height": 1080, "bytes": 4_000 * u32::from(quality) })),
        _ => Err(refused("the quality is 1 to 100 percent")),
    };
    let builder = builder.attribute("Camera", 0, "Image", "Brightness", brightness);
    let builder = builder.operation("Camera", 0, "Image", "Snapshot", snapshot);
    builder.firmware_module(FIRMWARE, env!("CARGO_PKG_VERSION")).on_upgrade(upgrade)
}

/// The module of its firmware.
const FIRMWARE: &str = "main";

/// The steps of an upgrade, with how much of each is done.
const STEPS: [(UpgradeStatus, u8); 8] = [
    (UpgradeStatus::Ready, 0),
    (UpgradeStatus::Starting, 0),
    (UpgradeStatus::Downloading, 50),
    (UpgradeStatus::Downloaded, 100),
    (UpgradeStatus::Burning, 50),
    (UpgradeStatus::Burnt, 100),
    (UpgradeStatus::Rebooting, 0),
    (UpgradeStatus::Succeeded, 100),
];

/// Says what an upgrade says. There is no file to be fetched and nothing to be written, and after the next start it is as it
/// was.
async fn upgrade(upgrade: Upgrade, progress: UpgradeProgress) -> Result<(), UpgradeError> {
    for file in &upgrade.files {
        for (status, percent) in STEPS {
            let reported = progress.report(&file.module, status, percent).await;
            reported.map_err(|error| UpgradeError::new(UpgradeCode::Unknown, error.to_string()))?;
        }
    }
    Ok(())
}

fn event(dice: &mut Dice) -> Happening {
    match dice.within(0..=3) {
        0 => Happening {
            place: at("Detection", "Vehicle"),
            data: json!({ "direction": dice.pick(["in", "out"]), "confidence": dice.within(70..=99) }),
        },
        _ => Happening {
            place: at("Detection", "Motion"),
            data: json!({ "level": dice.within(1..=5), "zone": dice.pick(["gate", "steps", "street"]) }),
        },
    }
}
