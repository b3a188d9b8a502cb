//! A recorder of 32 channels, which are its resource `Channel` with the indexes 0 to 31.

use serde_json::json;
use vestibule_device::Builder;

use super::{Dice, Habits, Happening, Order, Place, Profile, Rates, Reading};

const CHANNELS: u16 = 32;

pub(crate) const NVR: Profile = Profile {
    habits: Habits {
        name: "nvr",
        rates: Rates { events_per_minute: 60.0, reports_per_minute: 16.0, operations_per_minute: 0.0 },
        first: || {
            (0..CHANNELS).map(|index| Reading { place: at(index, "Video", "Recording"), value: json!(true) }).collect()
        },
        event: |dice| Happening {
            place: at(channel(dice), "Detection", dice.pick(["Motion", "Motion", "Motion", "VideoLoss"])),
            data: json!({ "level": dice.within(1..=5) }),
        },
        reading: |dice| Reading {
            place: at(channel(dice), "Video", "Bitrate"),
            value: json!(dice.within(512_000..=8_192_000)),
        },
        order: |dice| Order { place: at(channel(dice), "Video", "Snapshot"), input: json!(null) },
    },
    abilities,
    child: None,
};

const fn at(index: u16, area: &'static str, name: &'static str) -> Place {
    Place { resource: "Channel", index, area, name }
}

fn channel(dice: &mut Dice) -> u16 {
    u16::try_from(dice.within(0..=u64::from(CHANNELS) - 1)).unwrap_or(0)
}

fn abilities(builder: Builder) -> Builder {
    (0..CHANNELS).fold(builder, |builder, index| {
        let builder = builder.attribute("Channel", index, "Video", "Recording", async |_: bool| Ok(()));
        builder.operation("Channel", index, "Video", "Snapshot", move |(): ()| {
            std::future::ready(Ok(json!({ "channel": index, "width": 1280, "height": 720 })))
        })
    })
}
