//! Connection facts: what happened to a device lately, in words a technician understands.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;
use vestibule_store::DeviceId;

use crate::device::Device;
use crate::platform::Platform;

/// How many facts are kept for each device.
const RING: usize = 32;
/// How many of its uploads, beside them: a camera that sends a picture a minute tells nothing else away.
const UPLOADS: usize = 24;

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
    /// An operation the device was asked for.
    Operation,
    /// The connection itself: lost, replaced, ended.
    Connection,
    /// Sending a picture or a file.
    Upload,
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
    pub reason: Cow<'static, str>,
    /// One sentence for people: what happened and what to do.
    pub text: Cow<'static, str>,
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
    ring: VecDeque<Kept>,
    /// Steps of uploads, each with its object; most devices send nothing.
    uploads: Option<Box<Uploads>>,
    last_failure: Option<Box<Fact>>,
}

/// Steps of uploads, each with its object.
#[derive(Default)]
struct Uploads(VecDeque<(Uuid, Fact)>);

/// A fact as the ring keeps it: every idle device has some, so the words of the program are kept as pointers to it.
struct Kept {
    at: i64,
    words: Words,
    count: u32,
    peer: Option<IpAddr>,
    step: Step,
    ok: bool,
}

/// Reason and text of a fact.
enum Words {
    Fixed(&'static str, &'static str),
    Composed(Box<(Cow<'static, str>, Cow<'static, str>)>),
}

impl Kept {
    fn new(fact: &Fact) -> Kept {
        let words = match (&fact.reason, &fact.text) {
            (&Cow::Borrowed(reason), &Cow::Borrowed(text)) => Words::Fixed(reason, text),
            (reason, text) => Words::Composed(Box::new((reason.clone(), text.clone()))),
        };
        Kept { at: fact.at, words, count: fact.count, peer: fact.peer, step: fact.step, ok: fact.ok }
    }

    fn reason(&self) -> &str {
        match &self.words {
            Words::Fixed(reason, _) => reason,
            Words::Composed(words) => &words.0,
        }
    }

    fn fact(&self) -> Fact {
        let (reason, text) = match &self.words {
            Words::Fixed(reason, text) => (Cow::Borrowed(*reason), Cow::Borrowed(*text)),
            Words::Composed(words) => (**words).clone(),
        };
        Fact { at: self.at, step: self.step, ok: self.ok, reason, text, peer: self.peer, count: self.count }
    }
}

impl Facts {
    pub(crate) fn restore(last_failure: Option<&str>) -> Facts {
        let last_failure = last_failure.and_then(|json| serde_json::from_str(json).ok()).map(Box::new);
        Facts { last_failure, ..Facts::default() }
    }

    pub(crate) fn push(&mut self, fact: Fact) {
        let mut fact = fact;
        match self.ring.back_mut() {
            Some(last) if last.step == fact.step && last.reason() == fact.reason && last.peer == fact.peer => {
                fact.count = last.count.saturating_add(1);
                // The text may tell more than the reason does: the latest counts.
                *last = Kept::new(&fact);
            }
            _ => {
                if self.ring.len() == RING {
                    self.ring.pop_front();
                } else if self.ring.len() == self.ring.capacity() {
                    // Most devices have five to seven facts, and never the room for as many again.
                    self.ring.reserve_exact(2);
                }
                self.ring.push_back(Kept::new(&fact));
            }
        }
        self.note_failure(fact);
    }

    /// Adds a step of an object's upload. The same step of the same object in a row is counted.
    pub(crate) fn push_upload(&mut self, object: Uuid, mut fact: Fact) {
        let Uploads(uploads) = &mut **self.uploads.get_or_insert_default();
        match uploads.back_mut() {
            Some((of, last)) if *of == object && last.reason == fact.reason => {
                fact.count = last.count.saturating_add(1);
                *last = fact.clone();
            }
            _ => {
                if uploads.len() == UPLOADS {
                    uploads.pop_front();
                }
                uploads.push_back((object, fact.clone()));
            }
        }
        self.note_failure(fact);
    }

    fn note_failure(&mut self, fact: Fact) {
        if !fact.ok {
            match &mut self.last_failure {
                Some(last) => **last = fact,
                none => *none = Some(Box::new(fact)),
            }
        }
    }

    /// All of them, oldest first.
    pub(crate) fn recent(&self) -> Vec<Fact> {
        let mut recent: Vec<Fact> = self.ring.iter().map(Kept::fact).collect();
        if let Some(uploads) = &self.uploads {
            recent.extend(uploads.0.iter().map(|(_, fact)| fact.clone()));
            recent.sort_by_key(|fact| fact.at);
        }
        recent
    }

    pub(crate) fn last_failure(&self) -> Option<Fact> {
        self.last_failure.as_deref().cloned()
    }
}

impl Platform {
    /// Adds a fact to the device's ring, stamped with the present time. A failure is kept durably as well.
    pub fn fact(&self, device: &Arc<Device>, mut fact: Fact) {
        fact.at = self.clock().now_ms();
        let failed = !fact.ok;
        device.facts.lock().push(fact);
        if failed {
            self.notebook().note(device);
        }
    }

    /// Adds a step of an upload to the device's facts, stamped with the present time. A failure is kept durably as well; a device
    /// that was removed meanwhile has none.
    pub fn upload_fact(&self, device: DeviceId, object: Uuid, mut fact: Fact) {
        let Some(device) = self.registry().by_id(device) else { return };
        fact.at = self.clock().now_ms();
        let failed = !fact.ok;
        device.facts.lock().push_upload(object, fact);
        if failed {
            self.notebook().note(&device);
        }
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
    fn a_kept_fact_is_small_and_loses_nothing() {
        assert!(size_of::<Kept>() <= 64, "{} bytes", size_of::<Kept>());
        let mut facts = Facts::default();
        let composed = Fact { text: "composed".to_owned().into(), peer: Some([10, 0, 0, 1].into()), ..fact("bad") };
        facts.push(composed.clone());
        facts.push(fact("fixed"));
        assert_eq!(facts.recent(), [composed, fact("fixed")]);
    }

    #[test]
    fn uploads_push_nothing_else_out_and_each_has_its_own_story() {
        let mut facts = Facts::default();
        facts.push(Fact { at: 5, ..fact("came") });
        let step = |at, reason| Fact { at, ..Fact::ok(Step::Upload, reason, "", None) };
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (object, fact) in [(one, step(1, "begun")), (one, step(2, "resumed")), (one, step(3, "resumed"))] {
            facts.push_upload(object, fact);
        }
        facts.push_upload(other, step(6, "resumed"));
        let story: Vec<_> = facts.recent().into_iter().map(|fact| (fact.at, fact.reason, fact.count)).collect();
        let story: Vec<_> = story.iter().map(|(at, reason, count)| (*at, &**reason, *count)).collect();
        assert_eq!(story, [(1, "begun", 1), (3, "resumed", 2), (5, "came", 1), (6, "resumed", 1)]);
        for object in 0..1_000 {
            facts.push_upload(Uuid::from_u128(object), step(7, "begun"));
        }
        assert_eq!(facts.recent().len(), 1 + UPLOADS);
        assert_eq!(facts.recent()[0].reason, "came");
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
