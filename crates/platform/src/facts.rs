//! Connection facts: what happened to a device lately, in words a technician understands.

use std::collections::VecDeque;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// How many facts are kept for each device.
const RING: usize = 32;

/// The step of a device's way in that a fact is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// First authentication, or re-authentication with a new key agreement.
    Authentication,
    /// Re-authentication with the stored key.
    Refresh,
    /// Being sent to an access node.
    Assignment,
    /// Login at the access node.
    Login,
    /// A report of an event or an attribute.
    Report,
    /// The connection itself: lost, replaced, ended.
    Connection,
}

/// One thing that happened on a device's way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// When, in milliseconds since 1970; of the latest repetition where `count` is above 1.
    pub at: i64,
    /// At which step.
    pub step: Step,
    /// Whether the step went well.
    pub ok: bool,
    /// Short code, snake_case, for programs.
    pub reason: std::borrow::Cow<'static, str>,
    /// One sentence for people: what happened and what to do.
    pub text: std::borrow::Cow<'static, str>,
    /// Where the device came from.
    pub peer: Option<IpAddr>,
    /// How often the same thing happened in a row.
    pub count: u32,
}

impl Fact {
    /// A step that went well.
    pub fn ok(step: Step, reason: &'static str, text: &'static str, peer: Option<IpAddr>) -> Fact {
        Fact { at: 0, step, ok: true, reason: reason.into(), text: text.into(), peer, count: 1 }
    }

    /// A refusal or failure.
    pub fn failure(step: Step, reason: &'static str, text: &'static str, peer: Option<IpAddr>) -> Fact {
        Fact { ok: false, ..Fact::ok(step, reason, text, peer) }
    }
}

/// The ring of one device. Repetitions are counted, so that one failing step cannot push the story out.
#[derive(Default)]
pub(crate) struct Facts {
    ring: VecDeque<Fact>,
    last_failure: Option<Box<Fact>>,
}

impl Facts {
    pub(crate) fn restore(last_failure: Option<&str>) -> Facts {
        let last_failure = last_failure.and_then(|json| serde_json::from_str(json).ok()).map(Box::new);
        Facts { ring: VecDeque::new(), last_failure }
    }

    pub(crate) fn push(&mut self, fact: Fact) {
        let mut fact = fact;
        match self.ring.back_mut() {
            Some(last) if last.step == fact.step && last.reason == fact.reason && last.peer == fact.peer => {
                fact.count = last.count.saturating_add(1);
                // The text may tell more than the reason does: the latest counts.
                *last = fact.clone();
            }
            _ => {
                if self.ring.len() == RING {
                    self.ring.pop_front();
                }
                self.ring.push_back(fact.clone());
            }
        }
        if !fact.ok {
            self.last_failure = Some(Box::new(fact));
        }
    }

    pub(crate) fn recent(&self) -> Vec<Fact> {
        self.ring.iter().cloned().collect()
    }

    pub(crate) fn last_failure(&self) -> Option<Fact> {
        self.last_failure.as_deref().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fact(reason: &'static str) -> Fact {
        Fact::failure(Step::Login, reason, "text", None)
    }

    #[test]
    fn a_repetition_is_counted_and_does_not_push_others_out() {
        let mut facts = Facts::default();
        facts.push(fact("first"));
        for at in 0..1_000 {
            facts.push(Fact { at, ..fact("again") });
        }
        let recent = facts.recent();
        assert_eq!(recent.len(), 2);
        assert_eq!((recent[1].count, recent[1].at), (1_000, 999));
        assert_eq!(facts.last_failure().as_ref(), Some(&recent[1]));
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let mut facts = Facts::default();
        for n in 0..100u16 {
            let peer = Some(IpAddr::from([10, 0, 0, n as u8]));
            facts.push(Fact { peer, ..fact("x") });
        }
        let recent = facts.recent();
        assert_eq!(recent.len(), RING);
        assert_eq!(recent[RING - 1].peer, Some(IpAddr::from([10, 0, 0, 99])));
    }

    #[test]
    fn the_last_failure_survives_a_restart() {
        let mut facts = Facts::default();
        facts.push(fact("bad"));
        facts.push(Fact::ok(Step::Login, "accepted", "fine", None));
        let stored = serde_json::to_string(&facts.last_failure()).expect("a fact is JSON");
        assert_eq!(Facts::restore(Some(&stored)).last_failure().map(|f| f.reason), Some("bad".into()));
    }
}
