//! A device and an LBS in one test, on a virtual clock, with a link that cuts and loses.
//!
//! The site keeps the record of its one device as a platform has to: what a run stages is
//! applied, the first CONNECT under the candidate commits it and is answered 11, and the device
//! comes back with a plain refresh (osap-wire 5.5, 13.2.2). The device behaves as osap-wire 5.11
//! and 5.12 describe: nothing of a run that failed is kept.

use std::time::Duration;

use osap::das::login::{self, LoginRecord};
use osap::lbs::backoff;
use osap::lbs::client::{self, Client, Identity, Reaction, Stored, Success, Trouble};
use osap::lbs::server::{self, CloseReason, Server, ServerPolicy};
use osap::lbs::{Record, Run, Slot};
use osap::{CodeCase, ResultCode};

use crate::vectors::{Seeded, code, das, nobody, registered, serial};

/// What the link does to the frames of one connection; counted from 0 over both directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Delivers everything.
    Whole,
    /// Delivers `after` frames, then both ends see the connection close.
    Cut { after: usize },
    /// Loses the frame of that number; the reader gives up waiting for it.
    Lose { frame: usize },
}

/// How one connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    /// What the device got out of it; `None` when the link failed.
    pub device: Option<Result<Success, client::Failure>>,
    /// Why the server closed, if it did.
    pub server: Option<CloseReason>,
    /// The first byte of every frame that was sent, in order.
    pub frames: Vec<u8>,
}

/// A device, its LBS and DAS, and the clock they share.
pub struct Pair {
    pub now: Duration,
    pub record: Record,
    pub identity: Identity,
    pub stored: Stored,
    pub case: CodeCase,
    pub session: Option<Success>,
    pub failures: u32,
    /// Whether the store and the DAS are there.
    pub store_is_up: bool,
    pub das_is_up: bool,
    random: Seeded,
}

impl Pair {
    pub fn new(seed: u64) -> Self {
        Self {
            now: Duration::ZERO,
            record: registered(),
            identity: Identity::new(serial(), code()),
            stored: Stored::Nothing,
            case: CodeCase::Upper,
            session: None,
            failures: 0,
            store_is_up: true,
            das_is_up: true,
            random: Seeded::new(seed),
        }
    }

    /// One connection over `link`, then the device draws its conclusions and waits.
    pub fn attempt(&mut self, link: Link) -> Ending {
        let started = self.now;
        let ending = self.connect(link);
        let delay = match &ending.device {
            Some(Ok(success)) => {
                self.stored = Stored::Both { dev_id: success.dev_id, master_key: success.master_key.clone() };
                self.case = success.case;
                self.session = Some(success.clone());
                self.failures = 0;
                Duration::ZERO
            }
            Some(Err(failure)) => {
                self.failures += 1;
                self.react(failure)
            }
            None => {
                self.failures += 1;
                self.case = CodeCase::Upper;
                backoff::delay(backoff::Trouble::Failed, self.failures)
            }
        };
        self.now = self.now.max(started + delay);
        ending
    }

    fn react(&mut self, failure: &client::Failure) -> Duration {
        let mut case = CodeCase::Upper;
        match failure.reaction {
            Reaction::ForgetDevId => self.stored = Stored::Nothing,
            Reaction::ForgetMasterKey => {
                if let Stored::Both { dev_id, .. } = self.stored {
                    self.stored = Stored::DevId(dev_id);
                }
            }
            Reaction::RetryLowerCase => case = CodeCase::Lower,
            Reaction::Rematch(_) | Reaction::BackOff => {}
        }
        self.case = case;
        match failure.reaction {
            Reaction::RetryLowerCase => Duration::ZERO,
            _ => backoff::delay(failure.delay_kind(), self.failures),
        }
    }

    /// Tries until the device has a session key, at most `limit` times over a whole link. Gives
    /// the number of attempts it took.
    pub fn get_in(&mut self, limit: usize) -> Option<usize> {
        (1..=limit).find(|_| matches!(self.attempt(Link::Whole).device, Some(Ok(_))))
    }

    /// The device's CONNECT: 0 or 11. The record of its session key has to be the site's; a
    /// candidate that is shown is committed and its session key forgotten.
    pub fn log_in(&mut self) -> u8 {
        use osap::das::connack::{ACCEPTED, SESSION_UNKNOWN};
        let Some(session) = &self.session else { return SESSION_UNKNOWN };
        let will = LoginRecord::short(&serial(), &session.dev_id).seal(&session.session_key);
        let held = Slot::BOTH.into_iter().find(|slot| {
            let Some(credential) = self.record.credential(*slot) else { return false };
            let Some(key) = &credential.session_key else { return false };
            login::check(serial().as_str(), &will, key, &credential.dev_id).is_ok()
        });
        match held {
            Some(Slot::Committed) => ACCEPTED,
            Some(Slot::Candidate) => {
                self.record.commit_candidate();
                if let Some(committed) = &mut self.record.committed {
                    committed.session_key = None;
                }
                self.session = None;
                SESSION_UNKNOWN
            }
            None => {
                self.session = None;
                SESSION_UNKNOWN
            }
        }
    }

    /// Everything a device does until its CONNECT is answered 0. `false` when it does not succeed
    /// within `limit` connections.
    pub fn come_online(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            if self.session.is_some() && self.log_in() == osap::das::connack::ACCEPTED {
                return true;
            }
            self.attempt(Link::Whole);
        }
        false
    }

    fn connect(&mut self, link: Link) -> Ending {
        let mut client = Client::new(self.identity.clone(), self.stored.clone(), self.case);
        let mut server = Server::new(ServerPolicy::legacy());
        let mut frames = Vec::new();
        let (mut up, mut down) = (Vec::<Vec<u8>>::new(), Vec::<Vec<u8>>::new());
        let mut served = None;
        // The longest run has twelve steps on each side.
        for _ in 0..64 {
            let mut moved = false;
            match client.poll() {
                client::Output::Compute => {
                    client.compute(&mut self.random);
                    moved = true;
                }
                client::Output::Send(bytes) => {
                    if deliver(link, &mut frames, bytes, &mut up) == Fate::Cut {
                        return Ending { device: None, server: served, frames };
                    }
                    moved = true;
                }
                client::Output::Read if !down.is_empty() => {
                    client.handle_frame(&down.remove(0));
                    moved = true;
                }
                client::Output::Read => {}
                client::Output::Done(success) => {
                    return Ending { device: Some(Ok(success)), server: served, frames };
                }
                client::Output::Failed(failure) => {
                    return Ending { device: Some(Err(failure)), server: served, frames };
                }
            }
            match server.poll() {
                server::Output::Read if !up.is_empty() => server.handle_frame(&up.remove(0)),
                server::Output::Lookup(_) | server::Output::Stage(_) if !self.store_is_up => {
                    server.handle_unavailable();
                }
                server::Output::Lookup(name) => {
                    let record = if name == serial() { self.record.clone() } else { nobody() };
                    server.handle_record(record, &mut self.random);
                }
                server::Output::Compute => server.compute(&mut self.random),
                server::Output::Assign => server.handle_das(self.das_is_up.then(das)),
                server::Output::Stage(stage) => {
                    if self.record.apply(stage) {
                        server.handle_staged();
                    } else {
                        server.handle_unavailable();
                    }
                }
                server::Output::Send(bytes) => {
                    let fate = deliver(link, &mut frames, bytes, &mut down);
                    if fate == Fate::Cut {
                        return Ending { device: None, server: served, frames };
                    }
                }
                server::Output::Close(reason) if served.is_none() => served = Some(reason),
                _ if !moved => break,
                _ => {}
            }
        }
        // Both wait: what they wait for was lost, or the server has closed. The device notices
        // after its five seconds.
        self.now += Duration::from_secs(5);
        Ending { device: None, server: served, frames }
    }
}

#[derive(PartialEq, Eq)]
enum Fate {
    Goes,
    Cut,
}

fn deliver(link: Link, frames: &mut Vec<u8>, bytes: Vec<u8>, queue: &mut Vec<Vec<u8>>) -> Fate {
    let number = frames.len();
    if link == (Link::Cut { after: number }) {
        return Fate::Cut;
    }
    frames.push(bytes[0]);
    if link != (Link::Lose { frame: number }) {
        queue.push(bytes);
    }
    Fate::Goes
}

#[test]
fn a_whole_link_has_the_frames_of_the_specification() {
    let mut pair = Pair::new(1);
    let first = pair.attempt(Link::Whole);
    assert_eq!(first.frames, [0x1A, 0x2A, 0x72, 0x82, 0xA0, 0xB0]);
    assert!(matches!(first.device, Some(Ok(ref success)) if success.run == Run::First));
    let plain = pair.attempt(Link::Whole);
    assert_eq!(plain.frames, [0x70, 0x80, 0x90, 0xA0, 0xB0]);
    let Stored::Both { dev_id, .. } = pair.stored else { panic!("stored after success") };
    pair.stored = Stored::DevId(dev_id);
    let refresh = pair.attempt(Link::Whole);
    assert_eq!(refresh.frames, [0x1A, 0x2A, 0x42, 0x62, 0xA0, 0xB0]);
    assert!(matches!(refresh.device, Some(Ok(ref success)) if success.dev_id == dev_id));
}

#[test]
fn a_refused_device_reports_the_result_and_waits_longer() {
    let mut pair = Pair::new(2);
    pair.store_is_up = false;
    for failures in 1..4_u32 {
        let before = pair.now;
        let ending = pair.attempt(Link::Whole);
        let Some(Err(failure)) = ending.device else { panic!("the store is down") };
        assert_eq!(failure.trouble, Trouble::Refused(ResultCode::Unavailable));
        assert_eq!(pair.now - before, Duration::from_secs(2) * failures);
    }
}
