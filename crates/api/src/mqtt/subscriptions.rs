//! What one application listens to of what the platform says.

use vestibule_broker::codec::QoS;
use vestibule_platform::{Caller, Kinds, Position};

use super::topic::{Class, Filter, Topic};

/// Most filters of one connection.
const MOST: usize = 64;

/// One subscription.
#[derive(Debug, Clone)]
struct Subscription {
    filter: Filter,
    qos: QoS,
    /// How many were asked for on this connection when it came, itself included; and when it was asked for last.
    number: u64,
    renewed: u64,
    /// What was durable when it was asked for: records from then on are said.
    since: Position,
}

/// The first so many subscriptions have all records up to this position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Served {
    pub(crate) asked: u64,
    pub(crate) to: Position,
}

/// The subscriptions of one connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subscriptions {
    all: Vec<Subscription>,
    asked: u64,
}

impl Subscriptions {
    /// Adds one, in the place of one of the same filter (MQTT-3.8.4-3); false when there are as many as may be.
    pub(crate) fn add(&mut self, filter: Filter, qos: QoS, since: Position) -> bool {
        // Another QoS for the same filter goes on with the same records; presence is said anew.
        if let Some(held) = self.all.iter_mut().find(|held| held.filter == filter) {
            held.qos = qos;
            held.renewed = self.asked + 1;
            self.asked += 1;
            return true;
        }
        if self.all.len() >= MOST {
            return false;
        }
        self.asked += 1;
        self.all.push(Subscription { filter, qos, number: self.asked, renewed: self.asked, since });
        true
    }

    /// Takes one away; false when it was none of these.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let before = self.all.len();
        self.all.retain(|held| held.filter.text() != filter);
        self.all.len() < before
    }

    /// How many were asked for so far.
    pub(crate) fn asked(&self) -> u64 {
        self.asked
    }

    /// Where the oldest of those about records began that were asked for after so many others.
    pub(crate) fn since(&self, asked: u64) -> Option<Position> {
        let of_records = |held: &&Subscription| {
            let classes = [Class::Events, Class::Amendments, Class::Attributes];
            held.number > asked && classes.into_iter().any(|class| held.filter.may_meet(class))
        };
        self.all.iter().filter(of_records).map(|held| held.since).min()
    }

    /// Filters of presence that were asked for after so many others.
    pub(crate) fn new_of_presence(&self, asked: u64) -> impl Iterator<Item = &Filter> {
        let new = self.all.iter().filter(move |held| held.renewed > asked && held.filter.may_meet(Class::Presence));
        new.map(|held| &held.filter)
    }

    /// The kinds of records that matter, as far as the caller may hear them.
    pub(crate) fn kinds(&self, caller: &Caller) -> Kinds {
        let classes = Class::ALL.into_iter().filter(|class| class.is_for(caller) && self.may_meet(*class));
        classes.filter_map(Class::record).collect()
    }

    /// Whether devices themselves matter.
    pub(crate) fn devices(&self, caller: &Caller) -> bool {
        [Class::Presence, Class::Removed].into_iter().any(|class| class.is_for(caller) && self.may_meet(class))
    }

    fn may_meet(&self, class: Class) -> bool {
        self.all.iter().any(|held| held.filter.may_meet(class))
    }

    /// At which QoS something is said, once however many filters match it (MQTT-3.3.5-1); `None`: not at all.
    pub(crate) fn qos(&self, topic: &Topic<'_>) -> Option<QoS> {
        self.all.iter().filter(|held| held.filter.matches(topic)).map(|held| held.qos).max()
    }

    /// The same of a record with this position: it is for those that have begun by then, and have not been served with it.
    pub(crate) fn qos_of_record(&self, topic: &Topic<'_>, position: Position, served: Served) -> Option<QoS> {
        let begun =
            |held: &&Subscription| position > held.since && (held.number > served.asked || position > served.to);
        self.all.iter().filter(begun).filter(|held| held.filter.matches(topic)).map(|held| held.qos).max()
    }

    /// Whether what is removed matters.
    pub(crate) fn removals(&self) -> bool {
        self.may_meet(Class::Removed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(subscriptions: &mut Subscriptions, filter: &str, qos: QoS, since: i64) -> bool {
        subscriptions.add(Filter::parse(filter).expect("a filter"), qos, Position::new(since))
    }

    #[test]
    fn the_highest_qos_of_those_that_match_and_have_begun_counts() {
        let mut subscriptions = Subscriptions::default();
        assert!(add(&mut subscriptions, "/v1/devices/#", QoS::AtMostOnce, 5));
        assert!(add(&mut subscriptions, "/v1/devices/SN1/#", QoS::AtLeastOnce, 9));
        let topic = Topic::of_device(Class::Presence, "SN1");
        let nobody = Served { asked: 0, to: Position::START };
        let at = |subscriptions: &Subscriptions, position, served| {
            subscriptions.qos_of_record(&topic, Position::new(position), served)
        };
        assert_eq!(at(&subscriptions, 5, nobody), None);
        assert_eq!(at(&subscriptions, 6, nobody), Some(QoS::AtMostOnce));
        assert_eq!(at(&subscriptions, 10, nobody), Some(QoS::AtLeastOnce));
        let first = Served { asked: 1, to: Position::new(12) };
        assert_eq!(at(&subscriptions, 8, first), None, "the first has it, the second did not want it");
        assert_eq!(at(&subscriptions, 10, first), Some(QoS::AtLeastOnce));
        assert_eq!((subscriptions.since(0), subscriptions.since(1)), (Some(Position::new(5)), Some(Position::new(9))));
        assert_eq!(subscriptions.qos(&Topic::of_device(Class::Presence, "SN2")), Some(QoS::AtMostOnce));
        assert!(add(&mut subscriptions, "/v1/devices/#", QoS::AtLeastOnce, 20));
        assert_eq!(at(&subscriptions, 6, nobody), Some(QoS::AtLeastOnce), "the same filter goes on");
        assert!(subscriptions.remove("/v1/devices/#") && !subscriptions.remove("/v1/devices/#"));
        assert_eq!(at(&subscriptions, 6, nobody), None);
        assert_eq!(subscriptions.new_of_presence(1).count(), 1);
        assert_eq!(subscriptions.new_of_presence(subscriptions.asked()).count(), 0);
        assert!(subscriptions.removals());
    }

    #[test]
    fn there_are_no_more_than_may_be() {
        let mut subscriptions = Subscriptions::default();
        for number in 0..MOST {
            assert!(add(&mut subscriptions, &format!("/v1/devices/{number}/#"), QoS::AtMostOnce, 0));
        }
        assert!(!add(&mut subscriptions, "/v1/devices/more/#", QoS::AtMostOnce, 0));
        assert!(add(&mut subscriptions, "/v1/devices/1/#", QoS::AtLeastOnce, 0), "instead of the same");
    }
}
