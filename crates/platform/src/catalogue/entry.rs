//! What the catalogue notes of one device.

use std::fmt::Write as _;
use std::sync::Arc;

use uuid::Uuid;
use vestibule_store::DeviceId;

use crate::device::{Device, Family};
use crate::find::DeviceOrder;
use crate::org::OrgPath;
use crate::presence::{Presence, PresenceState};

/// Something that several devices may have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trait {
    Presence(PresenceState),
    Suite(Box<str>),
    Product(Box<str>),
    Family(Family),
    Disabled(bool),
    Parent(DeviceId),
    /// At this place in the organisation, or below.
    At(OrgPath),
    Label(Box<str>),
    LabelValue(Box<str>, Box<str>),
}

impl Trait {
    /// From where to where the devices with this presence lie among those seen last.
    pub(super) fn stretch(&self) -> Option<(Place, Place)> {
        let Trait::Presence(state) = self else { return None };
        let first = |rank| Place { key: Key::Seen(rank, i64::MIN), id: Uuid::nil().into() };
        Some((first(rank(*state)), first(rank(*state) + 1)))
    }
}

/// What an order goes by. Two of one order are alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// The id says it all.
    Added,
    Text(Arc<str>),
    /// Who is there was seen right now; then comes who was there once; and since when.
    Seen(u8, i64),
}

/// Where a device stands in an order: what the order goes by, and then the id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) key: Key,
    pub(crate) id: DeviceId,
}

fn rank(state: PresenceState) -> u8 {
    match state {
        PresenceState::NeverSeen => 0,
        PresenceState::Offline => 1,
        PresenceState::Online => 2,
    }
}

/// Whether a device is there, as it was noted.
#[derive(Clone)]
pub(super) struct Seen {
    presence: Arc<Trait>,
    suite: Option<Arc<Trait>>,
    rank: u8,
    since: i64,
}

impl Seen {
    /// As it is now; `known` as for [`Entry::of`].
    pub(super) fn of(presence: &Presence, known: impl Fn(Trait) -> Arc<Trait>) -> Seen {
        Seen {
            presence: known(Trait::Presence(presence.state)),
            suite: presence.suite.as_deref().map(|suite| known(Trait::Suite(suite.into()))),
            rank: rank(presence.state),
            since: presence.since,
        }
    }

    pub(super) fn traits(&self) -> impl Iterator<Item = &Arc<Trait>> {
        std::iter::once(&self.presence).chain(&self.suite)
    }

    /// Where the device stands among those seen last.
    pub(super) fn place(&self, id: DeviceId) -> Place {
        Place { key: Key::Seen(self.rank, self.since), id }
    }
}

/// One device as it was noted.
pub(super) struct Entry {
    pub(super) device: Arc<Device>,
    pub(super) seen: Seen,
    /// Those that presence does not change.
    traits: Box<[Arc<Trait>]>,
    /// Serial, name, product and labels, folded, a line for each.
    pub(super) text: Box<str>,
    name: Arc<str>,
}

impl Entry {
    /// The device as it is now; `known` gives a trait that other devices have already, so that each is kept once.
    pub(super) fn of(device: &Arc<Device>, known: impl Fn(Trait) -> Arc<Trait>) -> Entry {
        let description = device.description();
        let mut traits = vec![Trait::Family(device.family), Trait::Disabled(device.is_disabled())];
        traits.extend(device.product.as_deref().map(|product| Trait::Product(product.into())));
        traits.extend(device.parent().map(Trait::Parent));
        traits.extend(description.org.with_those_above().map(Trait::At));
        let mut text = folded(&device.serial);
        for part in [description.name.as_deref(), device.product.as_deref()].into_iter().flatten() {
            // Into memory, which takes everything.
            let _ = write!(text, "\n{}", folded(part));
        }
        for (name, value) in &description.labels {
            traits.push(Trait::Label(name.as_str().into()));
            traits.push(Trait::LabelValue(name.as_str().into(), value.as_str().into()));
            let _ = write!(text, "\n{}\n{}", folded(name), folded(value));
        }
        Entry {
            device: Arc::clone(device),
            seen: Seen::of(&device.presence(), &known),
            traits: traits.into_iter().map(known).collect(),
            text: text.into(),
            name: folded(description.name.as_deref().unwrap_or_default()).into(),
        }
    }

    pub(super) fn traits(&self) -> impl Iterator<Item = &Arc<Trait>> {
        self.seen.traits().chain(&self.traits)
    }

    /// Where the device stands in an order.
    pub(super) fn place(&self, id: DeviceId, order: DeviceOrder) -> Place {
        let key = match order {
            DeviceOrder::Added => Key::Added,
            DeviceOrder::Serial => Key::Text(Arc::clone(&self.device.serial)),
            DeviceOrder::Name => Key::Text(Arc::clone(&self.name)),
            DeviceOrder::Seen => return self.seen.place(id),
        };
        Place { key, id }
    }
}

/// Text with upper and lower case made equal.
pub(crate) fn folded(text: &str) -> String {
    text.to_lowercase()
}
