//! A door controller: opens, is locked or not, tells who came and who was turned away.

use serde::Deserialize;
use serde_json::json;
use vestibule_device::Builder;

use super::{Dice, Habits, Happening, Order, Place, Profile, Rates, Reading, refused, rounded};

pub(crate) const DOOR: Profile = Profile {
    habits: Habits {
        name: "door",
        rates: Rates { events_per_minute: 4.0, reports_per_minute: 0.5, operations_per_minute: 0.0 },
        first: || vec![Reading { place: at("Locked"), value: json!(true) }],
        event,
        reading: |dice| Reading { place: at("Battery"), value: json!(rounded(20.0 + dice.unit() * 80.0)) },
        order: |dice| Order { place: at("Open"), input: json!({ "seconds": dice.within(1..=10) }) },
    },
    abilities,
    child: None,
};

const fn at(name: &'static str) -> Place {
    Place { resource: "AccessControl", index: 0, area: "Door", name }
}

/// How long the door stays open.
#[derive(Deserialize)]
struct Open {
    seconds: u64,
}

fn abilities(builder: Builder) -> Builder {
    let builder = builder.attribute("AccessControl", 0, "Door", "Locked", async |_: bool| Ok(()));
    builder.operation("AccessControl", 0, "Door", "Open", async |Open { seconds }| match seconds {
        1..=60 => Ok(json!({ "open": true, "seconds": seconds })),
        _ => Err(refused("a door opens for 1 to 60 seconds")),
    })
}

fn event(dice: &mut Dice) -> Happening {
    match dice.within(0..=7) {
        0 => Happening {
            place: at("Denied"),
            data: json!({ "door": 1, "by": dice.pick(["card", "face"]), "reason": dice.pick(["unknown", "expired"]) }),
        },
        _ => Happening {
            place: at("Opened"),
            data: json!({ "door": 1, "by": dice.pick(["card", "button", "face"]), "person": dice.within(1..=500) }),
        },
    }
}
