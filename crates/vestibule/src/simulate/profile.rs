//! The kinds of devices that can be simulated.
//!
//! A kind is a row of [`PROFILES`]: what its devices can do, what they report, and how often. Everything it says at
//! random it draws from the dice it is given.

mod camera;
mod door;
mod hub;
mod nvr;
mod radar;

use serde_json::Value;
use vestibule_device::{Builder, ChildBuilder, OperationError};

use super::dice::Dice;
use super::schedule::Rates;

/// The devices' own code for a value they cannot take.
const OUT_OF_RANGE: i64 = 22;

/// Where something is on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub resource: &'static str,
    pub index: u16,
    pub area: &'static str,
    pub name: &'static str,
}

/// An event to be reported.
#[derive(Debug, PartialEq)]
pub(crate) struct Happening {
    pub place: Place,
    /// A JSON object.
    pub data: Value,
}

/// The value of an attribute.
#[derive(Debug, PartialEq)]
pub(crate) struct Reading {
    pub place: Place,
    pub value: Value,
}

/// An operation to ask for.
#[derive(Debug, PartialEq)]
pub(crate) struct Order {
    pub place: Place,
    pub input: Value,
}

/// What the devices of a kind do, on their own or behind a hub.
pub(crate) struct Habits {
    /// The name of the kind.
    pub name: &'static str,
    /// How often its devices do something unless somebody says otherwise.
    pub rates: Rates,
    /// What is reported as soon as the device is in.
    pub first: fn() -> Vec<Reading>,
    /// Something has happened.
    pub event: fn(&mut Dice) -> Happening,
    /// Something has changed.
    pub reading: fn(&mut Dice) -> Reading,
    /// What its devices can be asked for.
    pub order: fn(&mut Dice) -> Order,
}

/// A kind of device; on the command line by its name.
pub(crate) struct Profile {
    pub habits: Habits,
    /// Adds what the platform may ask for and may set.
    pub abilities: fn(Builder) -> Builder,
    /// What hangs on its devices, if they are hubs.
    pub child: Option<&'static ChildProfile>,
}

/// A kind of device that is reached through a hub.
pub(crate) struct ChildProfile {
    pub habits: Habits,
    /// Adds what the platform may ask for and may set.
    pub abilities: fn(ChildBuilder) -> ChildBuilder,
}

/// The product of simulated devices begins with this, by which those of an earlier run are known.
pub(crate) const PRODUCT: &str = "simulated-";

impl Habits {
    /// The product its devices are registered as.
    pub(crate) fn product(&self) -> String {
        format!("{PRODUCT}{}", self.name)
    }
}

impl std::fmt::Debug for Profile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.habits.name)
    }
}

pub(crate) use camera::CAMERA;
pub(crate) use door::DOOR;
pub(crate) use hub::HUB;
use nvr::NVR;
use radar::RADAR;

/// All kinds.
pub(crate) const PROFILES: [&Profile; 5] = [&CAMERA, &NVR, &DOOR, &RADAR, &HUB];

/// A site as one finds it: mostly cameras, some doors, a radar, a recorder and a hub.
const MIX: [&Profile; 10] = [&CAMERA, &DOOR, &CAMERA, &RADAR, &CAMERA, &HUB, &NVR, &CAMERA, &DOOR, &CAMERA];

/// Which devices a fleet is made of.
#[derive(Debug, Clone, Copy)]
pub struct Fleet(&'static [&'static Profile]);

/// The name of the fleet that has all kinds.
const MIXED: &str = "mix";

impl Fleet {
    /// The names that [`Fleet::named`] knows.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.iter().map(|profile| profile.habits.name).chain([MIXED])
    }

    /// The fleet with this name.
    pub fn named(name: &str) -> Option<Fleet> {
        if name == MIXED {
            return Some(Fleet(&MIX));
        }
        const ALONE: [[&Profile; 1]; PROFILES.len()] = {
            let mut alone = [[&CAMERA]; PROFILES.len()];
            let mut index = 0;
            while index < PROFILES.len() {
                alone[index] = [PROFILES[index]];
                index += 1;
            }
            alone
        };
        const { &ALONE }.iter().find(|alone| alone[0].habits.name == name).map(|alone| Fleet(alone))
    }

    /// What the device with this number is.
    pub(crate) fn profile(&self, number: u32) -> &'static Profile {
        // No fleet is empty.
        self.0[number as usize % self.0.len()]
    }
}

/// A value is refused with this sentence.
fn refused(sentence: &str) -> OperationError {
    OperationError::new(OUT_OF_RANGE, sentence)
}

/// Two digits behind the point.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use vestibule_device::{Child, Device, MemoryStorage};

    use super::*;

    /// Of every kind, those behind hubs included.
    fn habits() -> impl Iterator<Item = &'static Habits> {
        PROFILES.iter().flat_map(|profile| [Some(&profile.habits), profile.child.map(|child| &child.habits)]).flatten()
    }

    #[tokio::test]
    async fn every_kind_can_be_addressed() {
        for profile in PROFILES {
            let builder = Device::builder("SIM-1", "ABCDEF").lbs("127.0.0.1:9").legacy().storage(MemoryStorage::new());
            let builder = (profile.abilities)(builder).device_type(profile.habits.product());
            let builder = match profile.child {
                Some(child) => builder.child((child.abilities)(Child::builder("SIM-1-1", "ABCDEF"))),
                None => builder,
            };
            let device = builder.start().expect(profile.habits.name);
            assert_eq!(device.children().len(), usize::from(profile.child.is_some()));
            assert!(device.stop().await.is_ok());
        }
    }

    #[test]
    fn every_kind_reports_what_the_protocol_carries() {
        for habits in habits() {
            let mut dice = Dice::new(1, 0, 0);
            for _ in 0..50 {
                let Happening { place, data } = (habits.event)(&mut dice);
                assert!(data.is_object() && data.get("basic").is_none(), "{place:?}: {data}");
                let Reading { value, .. } = (habits.reading)(&mut dice);
                assert!(!value.is_null());
            }
            assert!(!(habits.first)().is_empty(), "{}", habits.name);
        }
        assert!(habits().count() > PROFILES.len(), "something is behind a hub");
    }

    #[test]
    fn chance_repeats_itself() {
        for habits in habits() {
            let draw = |seed| {
                let mut dice = Dice::new(seed, 0, 0);
                ((habits.event)(&mut dice), (habits.reading)(&mut dice), (habits.order)(&mut dice))
            };
            assert_eq!(draw(4), draw(4));
        }
    }

    #[test]
    fn a_fleet_is_of_one_kind_or_of_all() {
        for name in Fleet::names().filter(|name| *name != MIXED) {
            let fleet = Fleet::named(name).expect(name);
            assert!((0..20).all(|number| fleet.profile(number).habits.name == name));
        }
        let mix = Fleet::named(MIXED).expect(MIXED);
        for profile in PROFILES {
            assert!((0..10).any(|number| mix.profile(number).habits.name == profile.habits.name), "{profile:?}");
        }
        assert!(Fleet::named("toaster").is_none());
    }
}
