//! Which questions to the platform wait for an answer (osap-wire 10.2).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::operation::OperationPath;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often a question is asked again.
const REPETITIONS: u8 = 3;

/// A resource of the device or of a child: what one question is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub sub: Box<str>,
    pub resource: Box<str>,
    pub index: Box<str>,
}

impl Place {
    pub(crate) fn of(path: &OperationPath) -> Self {
        Self { sub: path.sub.clone(), resource: path.resource.clone(), index: path.index.clone() }
    }
}

/// The questions that were not answered.
#[derive(Debug, Default)]
pub(crate) struct Queries {
    waiting: BTreeMap<Place, Waiting>,
}

#[derive(Debug)]
struct Waiting {
    again_at: Instant,
    left: u8,
}

impl Queries {
    /// A question is asked for the first time.
    pub(crate) fn asked(&mut self, now: Instant, place: Place) {
        self.waiting.insert(place, Waiting { again_at: now + PATIENCE, left: REPETITIONS });
    }

    /// The answer has come.
    pub(crate) fn answered(&mut self, place: &Place) {
        self.waiting.remove(place);
    }

    /// Nothing of the device, or of this child, is waited for any more.
    pub(crate) fn forget(&mut self, sub: &str) {
        self.waiting.retain(|place, _| &*place.sub != sub);
    }

    /// What has to be asked again now. A question that was asked often enough is given up.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Place> {
        let mut due = Vec::new();
        self.waiting.retain(|place, waiting| {
            if waiting.again_at > now {
                return true;
            }
            let Some(left) = waiting.left.checked_sub(1) else { return false };
            *waiting = Waiting { again_at: now + PATIENCE, left };
            due.push(place.clone());
            true
        });
        due
    }

    /// When something is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.waiting.values().map(|waiting| waiting.again_at).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn osap_10_2_an_unanswered_query_is_repeated_three_times() {
        let start = Instant::now();
        let place = |sub: &str| Place { sub: sub.into(), resource: "Lamp".into(), index: "0".into() };
        let mut queries = Queries::default();
        assert_eq!(queries.deadline(), None);
        queries.asked(start, place("global"));
        queries.asked(start, place("SUB1"));
        queries.answered(&place("SUB1"));
        let mut now = start;
        for _ in 0..3 {
            assert_eq!(queries.deadline(), Some(now + Duration::from_secs(30)));
            assert_eq!(queries.due(now + Duration::from_secs(29)), []);
            now += Duration::from_secs(30);
            assert_eq!(queries.due(now), [place("global")]);
        }
        assert_eq!(queries.due(now + Duration::from_secs(30)), []);
        assert_eq!(queries.deadline(), None);
        queries.asked(now, place("SUB1"));
        queries.forget("SUB1");
        assert_eq!(queries.deadline(), None);
    }
}
