//! Either side crashes between any two of its steps, and the device gets in again by itself (osap-wire 5.5, 5.12, 5.13).
//!
//! A device that crashes keeps what it has stored, which it writes after a whole run; a server that crashes keeps the
//! record as it was committed. What the crashed side had sent may still arrive, or not. Every such state of every run is
//! visited, and pairs of them one after the other.

use std::collections::VecDeque;

use osap::das::connack::{ACCEPTED, SESSION_UNKNOWN};
use osap::das::login::{self, LoginRecord};
use osap::lbs::client::{self, Client, Identity, Stored};
use osap::lbs::server::{self, Server, ServerPolicy};
use osap::lbs::{Record, Run, Slot, Stage};
use osap::suite::Generation;
use osap::{CodeCase, ResultCode};

use crate::old_device::{Gained, OldDevice};
use crate::vectors::{Seeded, code, das, registered, serial};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Device,
    Server,
}

/// A crash before the step of that number, counted over both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Crash {
    before: usize,
    side: Side,
    /// Whether what the side had sent arrives.
    arrives: bool,
}

/// What outlives crashes, and what a device that runs has in memory.
#[derive(Clone)]
struct World {
    generation: Generation,
    /// On the server's disk.
    record: Record,
    /// On the device's flash.
    stored: Stored,
    /// In the device's memory.
    session: Option<Gained>,
    random: Seeded,
}

/// How a connection went.
struct Trip {
    got_in: bool,
    /// Steps of both sides.
    steps: usize,
    frames: Vec<u8>,
}

enum Device {
    Now(Client),
    Old(OldDevice),
}

/// What one side has done.
enum Step {
    Moved,
    Waits,
    Over,
}

/// One end of a connection: frames that have arrived, and whether it is still there.
#[derive(Default)]
struct End {
    inbox: VecDeque<Vec<u8>>,
    gone: bool,
}

/// One connection.
struct Connection {
    device: Device,
    server: Server,
    at_device: End,
    at_server: End,
    /// The stage is on the disk and the machine has not been told.
    staged: Option<bool>,
    frames: Vec<u8>,
    got_in: bool,
}

impl World {
    fn new(generation: Generation, seed: u64) -> Self {
        let random = Seeded::new(seed);
        Self { generation, record: registered(), stored: Stored::Nothing, session: None, random }
    }

    /// A device that is logged in.
    fn online(generation: Generation, seed: u64) -> Self {
        let mut world = Self::new(generation, seed);
        assert!(world.comes_online(3));
        world
    }

    /// One visit to the LBS, with a crash or without.
    fn visit(&mut self, crash: Option<Crash>) -> Trip {
        let old = |dev_id| Device::Old(OldDevice::new(self.generation, dev_id));
        let device = match (&self.stored, self.generation) {
            (Stored::Nothing, Generation::G1 | Generation::G0) => old(None),
            (Stored::DevId(dev_id), Generation::G1 | Generation::G0) => old(Some(*dev_id)),
            _ => Device::Now(Client::new(Identity::new(serial(), code()), self.stored.clone(), CodeCase::Upper)),
        };
        let mut policy = ServerPolicy::legacy();
        policy.g0 = true;
        let mut it = Connection {
            device,
            server: Server::new(policy),
            at_device: End::default(),
            at_server: End::default(),
            staged: None,
            frames: Vec::new(),
            got_in: false,
        };
        let mut steps = 0;
        let mut turn = Side::Device;
        let mut waited = false;
        loop {
            if let Some(crash) = crash.filter(|crash| crash.before == steps && !it.crashed(crash.side)) {
                it.crash(crash);
                if crash.side == Side::Device {
                    self.session = None;
                }
            }
            let step = match turn {
                Side::Device if it.at_device.gone => Step::Over,
                Side::Device => self.device_step(&mut it),
                Side::Server if it.at_server.gone => Step::Over,
                Side::Server => self.server_step(&mut it),
            };
            match step {
                Step::Moved => {
                    steps += 1;
                    waited = false;
                }
                // Both wait for something that does not come, or are gone.
                Step::Waits | Step::Over if waited => break,
                Step::Waits | Step::Over => {
                    waited = true;
                    turn = if turn == Side::Device { Side::Server } else { Side::Device };
                }
            }
        }
        Trip { got_in: it.got_in && self.session.is_some(), steps, frames: it.frames }
    }

    fn device_step(&mut self, it: &mut Connection) -> Step {
        let gained = match &mut it.device {
            Device::Old(device) => {
                let sent = if let Some(gained) = device.gained() {
                    Ok(gained.clone())
                } else if device.waits() {
                    let Some(frame) = it.at_device.inbox.pop_front() else { return Step::Waits };
                    Err(device.handle_frame(&frame, &mut self.random))
                } else if it.frames.is_empty() {
                    Err(Some(device.begin(&mut self.random)))
                } else {
                    return Step::Over;
                };
                match sent {
                    Ok(gained) => gained,
                    Err(sent) => {
                        sent.into_iter().for_each(|frame| it.send(Side::Device, frame));
                        return Step::Moved;
                    }
                }
            }
            Device::Now(client) => match client.poll() {
                client::Output::Compute => {
                    client.compute(&mut self.random);
                    return Step::Moved;
                }
                client::Output::Send(frame) => {
                    it.send(Side::Device, frame);
                    return Step::Moved;
                }
                client::Output::Read => {
                    let Some(frame) = it.at_device.inbox.pop_front() else { return Step::Waits };
                    client.handle_frame(&frame);
                    return Step::Moved;
                }
                client::Output::Done(success) => {
                    Gained { dev_id: success.dev_id, master_key: success.master_key, session_key: success.session_key }
                }
                client::Output::Failed(failure) => {
                    assert_ne!(failure.result(), Some(ResultCode::Refused), "an operator is needed");
                    return Step::Over;
                }
            },
        };
        if it.got_in {
            return Step::Over;
        }
        // First the flash, then the login.
        let stored = Stored::Both { dev_id: gained.dev_id, master_key: gained.master_key.clone() };
        if self.stored != stored {
            self.stored = stored;
        } else {
            self.session = Some(gained);
            it.got_in = true;
        }
        Step::Moved
    }

    fn server_step(&mut self, it: &mut Connection) -> Step {
        match it.server.poll() {
            server::Output::Read => {
                let Some(frame) = it.at_server.inbox.pop_front() else { return Step::Waits };
                it.server.handle_frame(&frame);
            }
            server::Output::Lookup(_) => it.server.handle_record(self.record.clone(), &mut self.random),
            server::Output::Compute => it.server.compute(&mut self.random),
            server::Output::Assign => it.server.handle_das(Some(das())),
            server::Output::Stage(stage) => match it.staged.take() {
                None => it.staged = Some(self.commit(stage)),
                Some(true) => it.server.handle_staged(),
                Some(false) => it.server.handle_unavailable(),
            },
            server::Output::Send(frame) => it.send(Side::Server, frame),
            server::Output::Done | server::Output::Close(_) => return Step::Over,
        }
        Step::Moved
    }

    fn commit(&mut self, stage: Stage) -> bool {
        let commits = matches!(stage, Stage::Refreshed { from: Slot::Candidate, .. });
        let applied = self.record.apply(stage);
        self.record.may_enrol_again &= !(applied && commits);
        applied
    }

    /// The device's CONNECT. The server writes first and answers then.
    fn log_in(&mut self) -> u8 {
        let Some(session) = &self.session else { return SESSION_UNKNOWN };
        let will = LoginRecord::short(&serial(), &session.dev_id).seal(&session.session_key);
        let shown = Slot::BOTH.into_iter().find(|slot| {
            let Some(credential) = self.record.credential(*slot) else { return false };
            let Some(key) = &credential.session_key else { return false };
            login::check(serial().as_str(), &will, key, &credential.dev_id).is_ok()
        });
        if shown == Some(Slot::Committed) {
            return ACCEPTED;
        }
        if shown == Some(Slot::Candidate) {
            self.record.commit_candidate();
            self.record.committed.as_mut().expect("committed just now").session_key = None;
            self.record.may_enrol_again = false;
        }
        SESSION_UNKNOWN
    }

    /// Everything up to a CONNECT that is answered 0, without a fault; at most so many visits to the LBS.
    fn comes_online(&mut self, visits: usize) -> bool {
        for visit in 0..=visits {
            if self.session.is_some() {
                if self.log_in() == ACCEPTED {
                    return true;
                }
                self.session = None;
            }
            if visit < visits && !self.visit(None).got_in {
                return false;
            }
        }
        false
    }
}

impl Connection {
    fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::Device => &mut self.at_device,
            Side::Server => &mut self.at_server,
        }
    }

    fn crashed(&self, side: Side) -> bool {
        match side {
            Side::Device => self.at_device.gone,
            Side::Server => self.at_server.gone,
        }
    }

    fn send(&mut self, from: Side, frame: Vec<u8>) {
        self.frames.push(frame[0]);
        let to = if from == Side::Device { Side::Server } else { Side::Device };
        self.end(to).inbox.push_back(frame);
    }

    fn crash(&mut self, crash: Crash) {
        let other = if crash.side == Side::Device { Side::Server } else { Side::Device };
        *self.end(crash.side) = End { inbox: VecDeque::new(), gone: true };
        if !crash.arrives {
            self.end(other).inbox.clear();
        }
    }
}

/// Where a run of each kind begins, and its frames.
fn starts() -> Vec<(String, World, Vec<u8>)> {
    let mut starts = Vec::new();
    for (generation, first, again) in [
        (Generation::G2, [0x1A, 0x2A, 0x72, 0x82], [0x1A, 0x2A, 0x42, 0x62]),
        (Generation::G1, [0x12, 0x22, 0x72, 0x82], [0x12, 0x22, 0x42, 0x62]),
        (Generation::G0, [0x10, 0x20, 0x40, 0x60], [0x10, 0x20, 0x30, 0x50]),
    ] {
        let mut start = |run: Run, note: &str, world: World, frames: &[u8]| {
            let frames = [frames, &[0xA0, 0xB0]].concat();
            starts.push((format!("{} {}{note}", generation.as_str(), run.as_str()), world, frames));
        };
        start(Run::First, "", World::new(generation, 1), &first);
        let online = || World { session: None, ..World::online(generation, 2) };
        start(Run::PlainRefresh, "", online(), &[0x70, 0x80, 0x90]);
        let mut world = online();
        let Stored::Both { dev_id, .. } = world.stored else { panic!("stored by the run") };
        world.stored = Stored::DevId(dev_id);
        start(Run::EcdhRefresh, "", world, &again);
        let mut world = online();
        world.stored = Stored::Nothing;
        world.record.may_enrol_again = true;
        start(Run::First, " in a window", world, &first);
        // The candidate was given out and not shown: the refresh that shows it may be cut, too.
        let mut world = World::new(generation, 3);
        assert!(world.visit(None).got_in);
        world.session = None;
        start(Run::PlainRefresh, " of a candidate", world, &[0x70, 0x80, 0x90]);
    }
    starts
}

/// Every crash of a run of so many steps.
fn crashes(steps: usize) -> impl Iterator<Item = Crash> {
    (0..=steps).flat_map(|before| {
        [Side::Device, Side::Server]
            .into_iter()
            .flat_map(move |side| [true, false].map(|arrives| Crash { before, side, arrives }))
    })
}

#[test]
fn every_run_has_the_frames_of_the_specification() {
    for (name, mut world, frames) in starts() {
        let trip = world.visit(None);
        assert!(trip.got_in && trip.frames == frames, "{name}: {:02x?}", trip.frames);
        assert!(world.comes_online(1), "{name}");
    }
}

#[test]
fn osap_5_5_after_a_crash_of_either_side_anywhere_the_next_attempt_gets_in() {
    let mut states = 0;
    for (name, start, _) in starts() {
        let steps = start.clone().visit(None).steps;
        let before = states;
        for crash in crashes(steps) {
            states += 1;
            let mut world = start.clone();
            world.visit(Some(crash));
            if world.session.is_none() {
                assert!(world.visit(None).got_in, "{name}: {crash:?}");
            }
            assert!(world.comes_online(2), "{name}: {crash:?}");
        }
        println!("{name}: {steps} steps, {} states", states - before);
    }
    println!("{states} states in all");
    assert!(states > 1_000);
}

/// The CONNECT that shows a candidate: the server writes, and its answer is lost with either side.
#[test]
fn osap_5_5_a_crash_around_the_first_login_locks_nobody_out() {
    for (name, start, _) in starts() {
        for written in [true, false] {
            for device_crashes in [true, false] {
                let mut world = start.clone();
                assert!(world.visit(None).got_in, "{name}");
                if written {
                    world.log_in();
                }
                if device_crashes {
                    world.session = None;
                }
                assert!(world.comes_online(2), "{name}: written {written}, device {device_crashes}");
            }
        }
    }
}

/// The attempt that follows a crash is cut by another one. One pair in three: every state occurs first and second.
#[test]
fn osap_5_5_after_two_crashes_in_a_row_the_next_attempt_gets_in() {
    let mut states = 0;
    for (name, start, _) in starts() {
        let steps = start.clone().visit(None).steps;
        for one in crashes(steps).filter(|crash| crash.arrives) {
            let mut after = start.clone();
            after.visit(Some(one));
            after.session = None;
            let steps = after.clone().visit(None).steps;
            for other in crashes(steps).filter(|crash| crash.arrives && crash.before % 3 == one.before % 3) {
                states += 1;
                let mut world = after.clone();
                world.visit(Some(other));
                if world.session.is_none() {
                    assert!(world.visit(None).got_in, "{name}: {one:?}, {other:?}");
                }
                assert!(world.comes_online(2), "{name}: {one:?}, {other:?}");
            }
        }
    }
    println!("{states} pairs of states");
}
