//! A radar: tells all the time how far its target is and how fast, and seldom that one has entered.

use serde_json::json;
use vestibule_device::Builder;

use super::{Dice, Habits, Happening, Order, Place, Profile, Rates, Reading, refused, rounded};

/// How far it sees, in metres.
const RANGE: f64 = 200.0;

pub(crate) const RADAR: Profile = Profile {
    habits: Habits {
        name: "radar",
        rates: Rates { events_per_minute: 0.5, reports_per_minute: 60.0, operations_per_minute: 0.0 },
        first: || vec![Reading { place: at("Range"), value: json!(RANGE) }],
        event: |dice| Happening {
            place: at("Entered"),
            data: json!({ "distance": distance(dice), "speed": speed(dice) }),
        },
        reading: |dice| match dice.within(0..=1) {
            0 => Reading { place: at("Distance"), value: json!(distance(dice)) },
            _ => Reading { place: at("Speed"), value: json!(speed(dice)) },
        },
        order: |dice| Order { place: at("Calibrate"), input: json!(dice.within(1..=10)) },
    },
    abilities,
    child: None,
};

const fn at(name: &'static str) -> Place {
    Place { resource: "Radar", index: 0, area: "Target", name }
}

/// Metres.
fn distance(dice: &mut Dice) -> f64 {
    rounded(dice.unit() * RANGE)
}

/// Metres a second, away from the radar or towards it.
fn speed(dice: &mut Dice) -> f64 {
    rounded(dice.unit() * 60.0 - 30.0)
}

fn abilities(builder: Builder) -> Builder {
    let range = async |metres: f64| {
        if (1.0..=RANGE).contains(&metres) { Ok(()) } else { Err(refused("the range is 1 to 200 metres")) }
    };
    let builder = builder.attribute("Radar", 0, "Target", "Range", range);
    builder.operation("Radar", 0, "Target", "Calibrate", async |seconds: u64| match seconds {
        1..=60 => Ok(json!({ "calibrated": true })),
        _ => Err(refused("a calibration takes 1 to 60 seconds")),
    })
}
