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
    /// How many there were before it on this connection.
    number: u64,
    /// What was durable when it was asked for: records from then on are said.
    since: Position,
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
        // Another QoS for the same filter goes on with the same records.
        let known = self.all.iter().position(|held| held.filter == filter);
        let since = known.map_or(since, |at| self.all.swap_remove(at).since);
        if self.all.len() >= MOST {
            return false;
        }
        self.asked += 1;
        self.all.push(Subscription { filter, qos, number: self.asked, since });
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

    /// Filters of presence that were asked for after so many others.
    pub(crate) fn new_of_presence(&self, asked: u64) -> impl Iterator<Item = &Filter> {
        let new = self.all.iter().filter(move |held| held.number > asked && held.filter.may_meet(Class::Presence));
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

    /// Where the oldest of those about records began.
    pub(crate) fn since(&self) -> Option<Position> {
        let of_records = |held: &&Subscription| {
            [Class::Events, Class::Attributes].into_iter().any(|class| held.filter.may_meet(class))
        };
        self.all.iter().filter(of_records).map(|held| held.since).min()
    }

    fn may_meet(&self, class: Class) -> bool {
        self.all.iter().any(|held| held.filter.may_meet(class))
    }

    /// At which QoS something is said, once however many filters match it (MQTT-3.3.5-1); `None`: not at all. A record with
    /// its position.
    pub(crate) fn qos(&self, topic: &Topic<'_>, position: Option<Position>) -> Option<QoS> {
        let begun = |held: &&Subscription| position.is_none_or(|position| position > held.since);
        self.all.iter().filter(begun).filter(|held| held.filter.matches(topic)).map(|held| held.qos).max()
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
        let at = |subscriptions: &Subscriptions, position| subscriptions.qos(&topic, Some(Position::new(position)));
        assert_eq!(at(&subscriptions, 5), None);
        assert_eq!(at(&subscriptions, 6), Some(QoS::AtMostOnce));
        assert_eq!(at(&subscriptions, 10), Some(QoS::AtLeastOnce));
        assert_eq!(subscriptions.qos(&Topic::of_device(Class::Presence, "SN2"), None), Some(QoS::AtMostOnce));
        assert!(add(&mut subscriptions, "/v1/devices/#", QoS::AtLeastOnce, 20));
        assert_eq!(at(&subscriptions, 6), Some(QoS::AtLeastOnce), "the same filter goes on");
        assert_eq!(subscriptions.since(), Some(Position::new(5)));
        assert!(subscriptions.remove("/v1/devices/#") && !subscriptions.remove("/v1/devices/#"));
        assert_eq!(at(&subscriptions, 6), None);
        assert_eq!(subscriptions.new_of_presence(1).count(), 1);
        assert_eq!(subscriptions.new_of_presence(subscriptions.asked()).count(), 0);
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
