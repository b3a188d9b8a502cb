//! The device's machine, met by anybody and by an LBS that knows every secret of the run.

use super::{Counting, chunk, code, exporter, slots, suite};
use crate::Suite;
use crate::modern::Psk;
use crate::modern::client::{Advice, Attempt, Client, Identity, Output};
use crate::modern::message::{self, AuthI, AuthIi, MAX_ANSWER, first};
use crate::modern::schedule::{Early, Fresh, Schedule};
use crate::modern::seal::Direction;
use crate::modern::share::ShareKey;
use crate::modern::slots::Way;

/// The first byte chooses the suite, the way the device comes in and who speaks to it: below 0x80 a stream of bytes from
/// anybody, from 0x80 on an LBS that knows every secret of the run and seals the texts that follow for their place.
///
/// # Panics
/// When the device runs on, gives up the ticket that led it in, is sent where it cannot go, or enrols anew because of what
/// anybody could have said.
pub fn client(data: &[u8]) {
    let Some((&choice, mut stream)) = data.split_first() else { return };
    let suite = suite(choice);
    let way = match (choice >> 2 & 3, suite) {
        (0, Suite::Tls) => Way::Code,
        (1, Suite::Tls) => Way::Certificate,
        (2, _) => Way::Older,
        _ => Way::Newest,
    };
    let identity = Identity { serial: crate::fuzz::serial(), code: Some(code()), suites: vec![suite] };
    let slots = slots();
    let mut client = Client::new(identity, slots.clone(), Attempt { suite, way, csr: None });
    let mut lbs = (choice >= 0x80).then(|| Lbs::new(suite, slots.slot(way).map(|slot| slot.psk.clone())));
    let mut random = Counting(0);
    for _ in 0..32 {
        match client.poll() {
            Output::Compute => client.compute(&mut random),
            Output::Export => client.handle_exporter(&exporter()),
            Output::Send(bytes) => {
                if let Some(lbs) = &mut lbs {
                    lbs.heard(&bytes);
                }
            }
            Output::Read => match &mut lbs {
                None => match crate::fuzz::next_frame(&mut stream, MAX_ANSWER) {
                    Some(frame) => client.handle_frame(frame),
                    None => return,
                },
                Some(lbs) => match lbs.says(&mut stream) {
                    Some(frame) => client.handle_frame(&frame),
                    None => return,
                },
            },
            Output::Store(new) => {
                let kept = if way == Way::Older { &slots.older } else { &slots.newest };
                assert_eq!(&new.older, kept, "the slot that the run has used stays");
                client.handle_stored(true);
            }
            Output::Done(success) => {
                success.das.encode().expect("a device is only sent where it can go");
                assert!(success.das.tls_port.is_some() || !success.das.bind);
                return;
            }
            Output::Failed(failure) => {
                if lbs.is_none() {
                    assert_ne!(failure.advice(), Advice::Enrol, "nothing unsealed makes a device enrol anew");
                }
                if let Advice::Offer(other) = failure.advice() {
                    panic!("{other} is none of what the device may run");
                }
                assert_eq!(client.poll(), Output::Failed(failure));
                return;
            }
        }
    }
    panic!("the client machine runs on");
}

/// An LBS that knows the secrets and keeps to no other rule.
struct Lbs {
    suite: Suite,
    psk: Option<Psk>,
    hello: Vec<u8>,
    entry: u8,
    schedule: Option<Schedule>,
}

impl Lbs {
    fn new(suite: Suite, psk: Option<Psk>) -> Self {
        Self { suite, psk, hello: Vec::new(), entry: 0, schedule: None }
    }

    fn heard(&mut self, bytes: &[u8]) {
        match bytes.first() {
            Some(&first::AUTH_I) => self.hello = bytes.to_vec(),
            first => self.entry = first.copied().unwrap_or_default(),
        }
    }

    /// AUTH-II is one that is right; after it each text is read from the stream.
    fn says(&mut self, stream: &mut &[u8]) -> Option<Vec<u8>> {
        let Some(schedule) = &self.schedule else {
            let auth = AuthI::decode(&self.hello).expect("the device sends what can be read");
            let key = ShareKey::draw(self.suite, &mut Counting(0x30));
            let early = match &key {
                Some(key) => {
                    let shared = key.agree(&auth.share).expect("the share of the device is one");
                    Early::new(self.psk.as_ref(), &Fresh::Shared(&shared))
                }
                None => Early::new(self.psk.as_ref(), &Fresh::Exporter(&exporter())),
            };
            let share = key.as_ref().map(|key| key.public().to_vec()).unwrap_or_default();
            let mut answer = AuthIi::Accepted { nonce: [0xC0; 32], share, mac: [0; 48] }.encode(self.suite);
            let mac = early.server_mac(&self.hello, &answer);
            let at = answer.len() - mac.len();
            answer[at..].copy_from_slice(&mac);
            self.schedule = Some(early.complete(&self.hello, &answer));
            return Some(answer);
        };
        let (&how, rest) = stream.split_first()?;
        *stream = rest;
        let text = chunk(stream)?;
        let (kind, counter) = match self.entry {
            first::RETURN => (first::RETURNED, 0),
            first::APPLY => (first::APPLIED, 0),
            _ => (first::SERVICE_ANSWER, 1),
        };
        let result = if how & 0x80 == 0 { 0 } else { how & 0x7F };
        // After a code the proof of the LBS belongs between the ticket and the grant; the text is cut there for it.
        let mut whole = text.to_vec();
        if how & 0x40 != 0 && counter == 0 && how & 0x80 == 0 && whole.len() > 54 {
            let proof = schedule.proof_s(&code());
            whole.splice(54..55, std::iter::once(48).chain(proof));
        }
        let head: [&[u8]; 2] = [&message::VERSION, &[result]];
        Some(message::seal(kind, &head, &schedule.record_key(Direction::Down), counter, &whole))
    }
}
