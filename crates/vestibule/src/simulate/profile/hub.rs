//! A hub for plugs: what it hears of its radio, and plugs that are switched, draw power, or too much of it.

use serde::Deserialize;
use serde_json::json;

use super::{ChildProfile, Dice, Habits, Happening, Order, Place, Profile, Rates, Reading, refused, rounded};

pub(crate) const HUB: Profile = Profile {
    habits: Habits {
        name: "hub",
        rates: Rates { events_per_minute: 1.0, reports_per_minute: 1.0, operations_per_minute: 0.0 },
        first: || vec![Reading { place: radio("Channel"), value: json!(15) }],
        event: |dice| Happening {
            place: radio("Interference"),
            data: json!({ "channel": dice.within(11..=26), "level": dice.within(1..=5) }),
        },
        reading: |dice| Reading { place: radio("Noise"), value: json!(rounded(-95.0 + dice.unit() * 30.0)) },
        order: |dice| Order { place: radio("Scan"), input: json!({ "channels": dice.within(1..=16) }) },
    },
    abilities: |builder| {
        builder.operation("Hub", 0, "Radio", "Scan", async |Scan { channels }| match channels {
            1..=16 => Ok(json!({ "scanned": channels })),
            _ => Err(refused("a radio has 1 to 16 channels")),
        })
    },
    child: Some(&PLUG),
};

const PLUG: ChildProfile = ChildProfile {
    habits: Habits {
        name: "plug",
        rates: Rates { events_per_minute: 2.0, reports_per_minute: 2.0, operations_per_minute: 0.0 },
        first: || vec![Reading { place: power("On"), value: json!(true) }],
        event,
        reading: |dice| Reading { place: power("Watts"), value: json!(rounded(dice.unit() * 2_300.0)) },
        order: |dice| Order { place: power("Switch"), input: json!({ "on": dice.pick([true, false]) }) },
    },
    abilities: |builder| {
        let builder = builder.attribute("Plug", 0, "Power", "On", async |_: bool| Ok(()));
        builder.operation("Plug", 0, "Power", "Switch", async |Switch { on }| Ok(json!({ "on": on })))
    },
};

const fn radio(name: &'static str) -> Place {
    Place { resource: "Hub", index: 0, area: "Radio", name }
}

const fn power(name: &'static str) -> Place {
    Place { resource: "Plug", index: 0, area: "Power", name }
}

/// How many channels are listened to.
#[derive(Deserialize)]
struct Scan {
    channels: u64,
}

/// What the plug is to be.
#[derive(Deserialize)]
struct Switch {
    on: bool,
}

fn event(dice: &mut Dice) -> Happening {
    match dice.within(0..=9) {
        0 => Happening { place: power("Overload"), data: json!({ "watts": dice.within(2_301..=3_600) }) },
        _ => Happening {
            place: power("Switched"),
            data: json!({ "on": dice.pick([true, false]), "by": dice.pick(["button", "timer"]) }),
        },
    }
}
