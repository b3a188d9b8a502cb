//! The topic index: who gets a message.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;
use vestibule_mqtt_codec::QoS;

use crate::link::{Link, SendError};

/// Levels a filter with wildcards may have. The wildcard tree is walked by recursion, so its depth is bounded.
pub(crate) const MAX_LEVELS: usize = 128;
/// Subscribers a publisher remembers. Past it, asking the index costs little beside the delivery.
const REMEMBERED: usize = 1_024;

/// One subscription as the index holds it.
#[derive(Clone)]
struct Subscriber {
    link: Arc<Link>,
    qos: QoS,
}

/// A level of the wildcard tree. `+` and `#` are children like any other; levels never contain them otherwise.
#[derive(Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    subscribers: Vec<Subscriber>,
}

#[derive(Default)]
struct Index {
    /// Filters without wildcards, which nearly all are.
    exact: HashMap<Box<str>, Vec<Subscriber>>,
    wild: Node,
}

/// A publisher's memory of its last topic's subscribers, so that the steady path asks the index nothing.
#[derive(Default)]
pub(crate) struct RouteCache {
    generation: u64,
    topic: Box<str>,
    subscribers: Box<[(Arc<Link>, QoS)]>,
}

/// Subscriptions of all connections, shared by all shards.
#[derive(Default)]
pub struct Router {
    index: RwLock<Index>,
    /// Moves with every change of the index. Starts at 0; caches start there too but hold no subscriber.
    generation: AtomicU64,
}

impl Router {
    pub(crate) fn subscribe(&self, filter: &str, qos: QoS, link: &Arc<Link>) {
        let mut index = self.index.write();
        let subscribers = index.entry(filter);
        match subscribers.iter_mut().find(|held| Arc::ptr_eq(&held.link, link)) {
            // A new subscription to the same filter replaces the old one (MQTT-3.8.4-3).
            Some(held) => held.qos = qos,
            None => subscribers.push(Subscriber { link: Arc::clone(link), qos }),
        }
        self.generation.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn unsubscribe(&self, filter: &str, link: &Arc<Link>) {
        self.index.write().remove(filter, link);
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Delivers a message to all subscribers. A subscriber that cannot take it loses it, counted by reason;
    /// nobody else waits for it. True when a subscriber that takes what it is given should have its turn before
    /// more is published.
    pub(crate) fn publish(&self, cache: &mut RouteCache, topic: &str, qos: QoS, payload: &[u8]) -> bool {
        let generation = self.generation.load(Ordering::Acquire);
        if cache.generation != generation || &*cache.topic != topic {
            *cache =
                RouteCache { generation, topic: topic.into(), subscribers: self.index.read().matching(topic).into() };
        }
        let mut pressed = false;
        for (link, granted) in &cache.subscribers {
            pressed |= deliver(link, topic, qos.min(*granted), payload);
        }
        if cache.subscribers.len() > REMEMBERED {
            *cache = RouteCache::default();
        }
        pressed
    }

    /// Delivers a message that the server itself has to say, such as a will.
    pub fn send(&self, topic: &str, qos: QoS, payload: &[u8]) {
        self.publish(&mut RouteCache::default(), topic, qos, payload);
    }
}

fn deliver(link: &Link, topic: &str, qos: QoS, payload: &[u8]) -> bool {
    match link.append(topic, qos, payload.len(), |out| out.extend_from_slice(payload)) {
        Ok(appended) => return appended.pressed,
        Err(SendError::Ending) => {}
        Err(error) => {
            metrics::counter!("vestibule_messages_dropped_total", "reason" => error.as_str()).increment(1);
        }
    }
    false
}

/// Whether the index can hold a filter.
pub(crate) fn is_indexable(filter: &str) -> bool {
    !is_wild(filter) || filter.split('/').nth(MAX_LEVELS).is_none()
}

impl Index {
    fn entry(&mut self, filter: &str) -> &mut Vec<Subscriber> {
        if !is_wild(filter) {
            return self.exact.entry(filter.into()).or_default();
        }
        let mut node = &mut self.wild;
        for level in filter.split('/') {
            node = node.children.entry(level.into()).or_default();
        }
        &mut node.subscribers
    }

    fn remove(&mut self, filter: &str, link: &Arc<Link>) {
        if is_wild(filter) {
            remove_wild(&mut self.wild, filter, link);
        } else if let Some(subscribers) = self.exact.get_mut(filter) {
            subscribers.retain(|held| !Arc::ptr_eq(&held.link, link));
            if subscribers.is_empty() {
                self.exact.remove(filter);
            }
        }
    }

    /// Each matching connection once, with the highest QoS of its subscriptions (MQTT-3.3.5-1).
    fn matching(&self, topic: &str) -> Vec<(Arc<Link>, QoS)> {
        let mut found: Vec<(Arc<Link>, QoS)> = Vec::new();
        let mut lists = 0;
        let mut add = |subscribers: &[Subscriber]| {
            if !subscribers.is_empty() {
                lists += 1;
                found.extend(subscribers.iter().map(|held| (Arc::clone(&held.link), held.qos)));
            }
        };
        if let Some(subscribers) = self.exact.get(topic) {
            add(subscribers);
        }
        match_wild(&self.wild, topic, true, &mut add);
        // Nobody is twice on one list.
        if lists > 1 {
            found.sort_unstable_by_key(|(link, qos)| (Arc::as_ptr(link), std::cmp::Reverse(*qos)));
            found.dedup_by(|(later, _), (earlier, _)| Arc::ptr_eq(later, earlier));
        }
        found
    }
}

fn is_wild(filter: &str) -> bool {
    filter.contains(['+', '#'])
}

fn match_wild(node: &Node, rest: &str, first: bool, add: &mut impl FnMut(&[Subscriber])) {
    // Wildcards in the first level do not match topics that begin with '$' (MQTT-4.7.2-1).
    let hidden = first && rest.starts_with('$');
    if !hidden && let Some(all) = node.children.get("#") {
        add(&all.subscribers);
    }
    let (level, below) = match rest.split_once('/') {
        Some((level, below)) => (level, Some(below)),
        None => (rest, None),
    };
    let mut descend = |child: &Node| match below {
        Some(below) => match_wild(child, below, false, add),
        None => {
            add(&child.subscribers);
            // "sport/#" matches "sport" as well (4.7.1.2).
            if let Some(all) = child.children.get("#") {
                add(&all.subscribers);
            }
        }
    };
    if let Some(child) = node.children.get(level) {
        descend(child);
    }
    if !hidden && let Some(child) = node.children.get("+") {
        descend(child);
    }
}

/// Removes and prunes; true when the node is empty now.
fn remove_wild(node: &mut Node, rest: &str, link: &Arc<Link>) -> bool {
    let (level, below) = match rest.split_once('/') {
        Some((level, below)) => (level, Some(below)),
        None => (rest, None),
    };
    if let Some(child) = node.children.get_mut(level) {
        let empty = match below {
            Some(below) => remove_wild(child, below, link),
            None => {
                child.subscribers.retain(|held| !Arc::ptr_eq(&held.link, link));
                child.subscribers.is_empty() && child.children.is_empty()
            }
        };
        if empty {
            node.children.remove(level);
        }
    }
    node.subscribers.is_empty() && node.children.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use vestibule_mqtt_codec::topic::{filter_matches, valid_filter};

    #[test]
    fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
        let router = Router::default();
        let link = Link::for_test();
        router.subscribe("a/b", QoS::AtMostOnce, &link);
        router.subscribe("a/+", QoS::AtLeastOnce, &link);
        router.subscribe("#", QoS::AtMostOnce, &link);
        let found = router.index.read().matching("a/b");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, QoS::AtLeastOnce);
    }

    #[test]
    fn an_unsubscribed_filter_leaves_nothing_behind() {
        let router = Router::default();
        let link = Link::for_test();
        for filter in ["a", "a/+/c", "a/#", "+"] {
            router.subscribe(filter, QoS::AtMostOnce, &link);
        }
        for filter in ["a", "a/+/c", "a/#", "+"] {
            router.unsubscribe(filter, &link);
        }
        let index = router.index.read();
        assert!(index.exact.is_empty() && index.wild.children.is_empty());
    }

    #[test]
    fn a_filter_deeper_than_the_tree_may_be_is_not_indexable() {
        let deep = |levels: usize| vec!["+"; levels].join("/");
        assert!(is_indexable(&deep(MAX_LEVELS)));
        assert!(!is_indexable(&deep(MAX_LEVELS + 1)));
        assert!(is_indexable(&vec!["a"; 30_000].join("/")), "without wildcards it is one key");
    }

    #[test]
    fn a_topic_deeper_than_every_filter_is_matched_without_a_deep_walk() {
        let router = Router::default();
        let link = Link::for_test();
        router.subscribe("a/#", QoS::AtMostOnce, &link);
        router.subscribe("+/+", QoS::AtMostOnce, &link);
        assert_eq!(router.index.read().matching(&vec!["a"; 30_000].join("/")).len(), 1);
    }

    fn levels() -> impl Strategy<Value = Vec<&'static str>> {
        proptest::collection::vec(proptest::sample::select(vec!["a", "b", "", "$x", "+", "#"]), 1..5)
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_the_definition(filters in proptest::collection::vec(levels(), 1..8), topic in levels()) {
            let topic = topic.join("/").replace(['+', '#'], "c");
            prop_assume!(!topic.is_empty());
            let router = Router::default();
            for filter in filters.iter().map(|levels| levels.join("/")).filter(|filter| valid_filter(filter)) {
                let link = Link::for_test();
                router.subscribe(&filter, QoS::AtMostOnce, &link);
                let found = router.index.read().matching(&topic).iter().any(|(held, _)| Arc::ptr_eq(held, &link));
                prop_assert_eq!(found, filter_matches(&filter, &topic), "{} {}", filter, topic);
            }
        }
    }
}
