//! A device and an LBS of the modern suites in one test: a platform with its store and its memory of nonces, a device with
//! its flash, and between them a link on which somebody may stand.

use std::collections::{BTreeMap, VecDeque};

use osap::lbs::{DasInfo, Standing};
use osap::modern::client::{self, Advice, Attempt, Client, Failure, Identity, Success};
use osap::modern::message::{Das, MAX_ANSWER, next_frame};
use osap::modern::server::{self, Policy, Record, Server};
use osap::modern::slots::{Has, Slot, Way};
use osap::modern::ticket::Stage;
use osap::modern::{Exporter, Psk, Slots, Ticket, TicketId, Tickets};
use osap::{Code, DevId, Random, Suite};

use super::vectors::{Seeded, dev_id, serial};

/// A code that nobody guesses.
pub const LONG_CODE: &str = "ABCDEFGHJKMNP";

/// How many nonces of a ticket the platform remembers (osap-wire 13.3).
const NONCES: usize = 64;

/// The platform: what is durable, what is remembered, and what it was asked for.
pub struct Platform {
    pub policy: Policy,
    /// By serial.
    pub records: BTreeMap<String, Record>,
    pub nonces: BTreeMap<TicketId, VecDeque<[u8; 32]>>,
    /// The serial of the certificate that the TLS handshake has verified.
    pub certificate: Option<String>,
    /// Whether it issues certificates.
    pub certifies: bool,
    pub das: Option<Das>,
    pub now: i64,
    pub store_is_up: bool,
    /// What is said of a code that is about to be looked at.
    pub attempt: server::Attempt,
    /// CA certificates that devices are told of which take them.
    pub anchors: Vec<Vec<u8>>,
    /// What the last device has said that it knows the platform by.
    pub known_by: Option<Vec<[u8; 32]>>,
    /// How often an agreement was asked for.
    pub agreements: u32,
    /// What was made durable.
    pub stages: Vec<Stage>,
    pub random: Seeded,
}

pub fn das() -> Das {
    let info = DasInfo {
        address: "127.0.0.1".into(),
        port: 8883,
        udp_port: 8884,
        domain: "das.local".into(),
        server_id: "das1".into(),
    };
    Das { info, tls_port: None, bind: false, expires_in: 86_400 }
}

impl Platform {
    pub fn new(suites: &[Suite], record: Record, seed: u64) -> Self {
        Self {
            policy: Policy { suites: suites.to_vec(), ticket_lifetime_s: 86_400 },
            records: BTreeMap::from([(serial().as_str().to_owned(), record)]),
            nonces: BTreeMap::new(),
            certificate: None,
            certifies: true,
            das: Some(das()),
            now: 1_000_000,
            store_is_up: true,
            attempt: server::Attempt::Go,
            anchors: Vec::new(),
            known_by: None,
            agreements: 0,
            stages: Vec::new(),
            random: Seeded::new(seed),
        }
    }

    /// The record of the device of the vectors.
    pub fn record(&mut self) -> &mut Record {
        self.records.get_mut(serial().as_str()).expect("the device is registered")
    }

    pub fn tickets(&self) -> &Tickets {
        &self.records[serial().as_str()].tickets
    }

    /// Does what the machine asks for; gives it back when it is something to be read or sent, or the end.
    pub fn answer(&mut self, server: &mut Server, exporter: &Exporter) -> Option<server::Output> {
        match server.poll() {
            server::Output::Lookup(_) | server::Output::Stage(_) if !self.store_is_up => server.handle_unavailable(),
            server::Output::Lookup(name) => {
                let nobody = || Record { standing: Standing::Unknown, ..Record::default() };
                let record = self.records.get(name.as_str()).cloned().unwrap_or_else(nobody);
                server.handle_record(record, self.now, &mut self.random);
            }
            server::Output::Fresh { ticket, nonce } => {
                let seen = self.nonces.entry(ticket).or_default();
                let fresh = !seen.contains(&nonce);
                seen.push_back(nonce);
                if seen.len() > NONCES {
                    seen.pop_front();
                }
                server.handle_fresh(fresh, &mut self.random);
            }
            server::Output::Compute => {
                self.agreements += 1;
                server.compute(&mut self.random);
            }
            server::Output::Export(_) => server.handle_exporter(exporter),
            server::Output::Attempt { .. } => server.handle_attempt(self.attempt),
            server::Output::Certify(csr) => {
                server.handle_certificate(if self.certifies { vec![csr] } else { Vec::new() });
            }
            server::Output::Assign => {
                self.known_by = server.held_anchors().map(<[_]>::to_vec);
                if self.known_by.is_some() {
                    server.tell_anchors(self.anchors.clone());
                }
                server.handle_das(self.das.clone(), &mut self.random);
            }
            server::Output::Stage(stage) => {
                if self.apply(&stage, server.serial().expect("it is known").as_str()) {
                    server.handle_staged();
                } else {
                    server.handle_outrun();
                }
            }
            other => return Some(other),
        }
        None
    }

    /// Makes a stage durable; `false` when another run came first.
    pub fn apply(&mut self, stage: &Stage, serial: &str) -> bool {
        let record = self.records.get_mut(serial).expect("only a registered device gets as far");
        let applied = match stage.clone() {
            Stage::Issue { rev, over, used, dev_id, ticket } => record.tickets.issue(rev, over, used, dev_id, ticket),
            Stage::Confirm { ticket, .. } => record.tickets.confirm(ticket),
            Stage::Session { rev, .. } => record.tickets.rev == rev,
        };
        if applied {
            self.stages.push(stage.clone());
        }
        applied
    }
}

/// The device: who it is, and what is in its flash.
pub struct Device {
    pub identity: Identity,
    pub flash: Slots,
    pub has: Has,
    pub csr: Option<Vec<u8>>,
    /// What it says that it knows the platform by.
    pub known_by: Option<Vec<[u8; 32]>>,
    /// CA certificates it was told of.
    pub told: Vec<Vec<u8>>,
    pub flash_works: bool,
    pub random: Seeded,
}

impl Device {
    pub fn new(suites: &[Suite], seed: u64) -> Self {
        Self {
            identity: Identity { serial: serial(), code: None, suites: suites.to_vec() },
            flash: Slots::default(),
            has: Has::default(),
            csr: None,
            known_by: None,
            told: Vec::new(),
            flash_works: true,
            random: Seeded::new(seed ^ 0xD15C),
        }
    }

    pub fn attempt(&self, suite: Suite, way: Way) -> Attempt {
        Attempt { suite, way, csr: self.csr.clone() }
    }
}

/// One frame on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// From the device.
    pub up: bool,
    pub bytes: Vec<u8>,
}

/// What whoever stands on the link does with a frame.
pub enum Deal {
    Pass,
    /// These bytes arrive in its place.
    Instead(Vec<u8>),
    /// It goes back to whom it came from.
    Reflect,
    Lose,
}

/// What can be seen when a frame is first dealt with otherwise than by passing it on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Touched {
    pub tickets: Tickets,
    pub flash: Slots,
    /// How many frames both ends had sent.
    pub sent: usize,
}

/// How one connection ended.
pub struct Ending {
    /// What the device made of it; `None` when it waits, or was cut off.
    pub device: Option<Result<Success, Failure>>,
    /// What the server was at.
    pub server: server::Output,
    /// Whether the server counts the device as proven.
    pub proven: bool,
    /// Everything both ends sent, in order.
    pub sent: Vec<Frame>,
    pub touched: Option<Touched>,
}

impl Ending {
    pub fn is_done(&self) -> bool {
        matches!(self.device, Some(Ok(_)))
    }

    /// Why the server closed.
    pub fn reason(&self) -> Option<server::CloseReason> {
        match self.server {
            server::Output::Close(reason) => Some(reason),
            _ => None,
        }
    }

    pub fn failure(&self) -> &Failure {
        match &self.device {
            Some(Err(failure)) => failure,
            other => panic!("the attempt did not fail: {other:?}"),
        }
    }

    pub fn first_bytes(&self) -> Vec<u8> {
        self.sent.iter().map(|frame| frame.bytes[0]).collect()
    }
}

/// One connection over a link on which nobody stands.
pub fn connect(platform: &mut Platform, device: &mut Device, attempt: Attempt) -> Ending {
    connect_through(platform, device, attempt, &mut |_, _| Deal::Pass)
}

/// One connection; `deal` is asked for every frame when it is about to arrive, numbered from 0 over both directions.
pub fn connect_through(
    platform: &mut Platform,
    device: &mut Device,
    attempt: Attempt,
    deal: &mut dyn FnMut(usize, &Frame) -> Deal,
) -> Ending {
    let exporter = exporter(&mut platform.random);
    connect_between(platform, device, attempt, (&exporter, &exporter), deal)
}

pub fn exporter(random: &mut dyn Random) -> Exporter {
    let mut bytes = [0; 48];
    random.fill(&mut bytes);
    Exporter::from_bytes(&bytes).unwrap()
}

/// One connection whose ends, device and server, have these exporters: the same ones unless somebody ends TLS between them.
pub fn connect_between(
    platform: &mut Platform,
    device: &mut Device,
    attempt: Attempt,
    exporters: (&Exporter, &Exporter),
    deal: &mut dyn FnMut(usize, &Frame) -> Deal,
) -> Ending {
    let mut client = Client::new(device.identity.clone(), device.flash.clone(), attempt);
    if let Some(known_by) = &device.known_by {
        client.tell_anchors(known_by.clone());
    }
    let mut server = Server::new(platform.policy.clone(), platform.certificate.clone());
    let mut wire = Wire::new(deal);
    let (mut ended, mut closed): (Option<_>, Option<server::Output>) = (None, None);
    // The longest run has some fifteen steps on each side, and what is sent again is at most doubled.
    for _ in 0..200 {
        let mut moved = false;
        if ended.is_none() {
            moved = true;
            match client.poll() {
                client::Output::Compute => client.compute(&mut device.random),
                client::Output::Export => client.handle_exporter(exporters.0),
                client::Output::Send(bytes) => wire.send(true, &bytes),
                client::Output::Store(slots) => {
                    if device.flash_works {
                        device.flash = *slots;
                        device.told = client.granted_anchors().to_vec();
                    }
                    client.handle_stored(device.flash_works);
                }
                client::Output::Read => match wire.read(false, MAX_ANSWER, || snapshot(platform, device)) {
                    Read::Frame(bytes) => client.handle_frame(&bytes),
                    Read::Nothing => moved = false,
                    Read::Broken => ended = Some(None),
                },
                client::Output::Done(success) => ended = Some(Some(Ok(*success))),
                client::Output::Failed(failure) => ended = Some(Some(Err(failure))),
            }
        }
        if closed.is_none() {
            match platform.answer(&mut server, exporters.1) {
                None => moved = true,
                Some(server::Output::Send(bytes)) => {
                    moved = true;
                    wire.send(false, &bytes);
                }
                Some(server::Output::Read) => {
                    match wire.read(true, server.max_frame(), || snapshot(platform, device)) {
                        Read::Frame(bytes) => {
                            moved = true;
                            server.handle_frame(&bytes, &mut platform.random);
                        }
                        Read::Nothing => {}
                        Read::Broken => closed = Some(server::Output::Read),
                    }
                }
                Some(end) => closed = Some(end),
            }
        }
        if !moved {
            let server_output = closed.unwrap_or_else(|| server.poll());
            return Ending {
                device: ended.flatten(),
                server: server_output,
                proven: server.is_proven(),
                sent: wire.sent,
                touched: wire.touched,
            };
        }
    }
    panic!("the two machines never come to an end");
}

fn snapshot(platform: &Platform, device: &Device) -> (Tickets, Slots) {
    (platform.tickets().clone(), device.flash.clone())
}

/// Two byte streams with somebody between.
struct Wire<'a> {
    deal: &'a mut dyn FnMut(usize, &Frame) -> Deal,
    sent: Vec<Frame>,
    on_the_way: [VecDeque<(usize, Frame)>; 2],
    arrived: [Vec<u8>; 2],
    touched: Option<Touched>,
}

enum Read {
    Frame(Vec<u8>),
    Nothing,
    Broken,
}

impl<'a> Wire<'a> {
    fn new(deal: &'a mut dyn FnMut(usize, &Frame) -> Deal) -> Self {
        Self { deal, sent: Vec::new(), on_the_way: Default::default(), arrived: Default::default(), touched: None }
    }

    /// What is written in one piece may be two frames.
    fn send(&mut self, up: bool, mut bytes: &[u8]) {
        while let Some(len) = next_frame(bytes, usize::MAX).expect("only frames are sent") {
            let (frame, rest) = bytes.split_at(len);
            let frame = Frame { up, bytes: frame.to_vec() };
            self.on_the_way[usize::from(up)].push_back((self.sent.len(), frame.clone()));
            self.sent.push(frame);
            bytes = rest;
        }
        assert!(bytes.is_empty(), "only whole frames are sent");
    }

    /// The next frame of one direction, from what has arrived or what is on its way.
    fn read(&mut self, up: bool, max: usize, state: impl Fn() -> (Tickets, Slots)) -> Read {
        loop {
            match next_frame(&self.arrived[usize::from(up)], max) {
                Ok(Some(len)) => return Read::Frame(self.arrived[usize::from(up)].drain(..len).collect()),
                Ok(None) => {}
                Err(_) => return Read::Broken,
            }
            let Some((number, frame)) = self.on_the_way[usize::from(up)].pop_front() else { return Read::Nothing };
            let deal = (self.deal)(number, &frame);
            if !matches!(deal, Deal::Pass) && self.touched.is_none() {
                let (tickets, flash) = state();
                self.touched = Some(Touched { tickets, flash, sent: self.sent.len() });
            }
            match deal {
                Deal::Pass => self.arrived[usize::from(up)].extend(frame.bytes),
                Deal::Instead(bytes) => self.arrived[usize::from(up)].extend(bytes),
                Deal::Reflect => self.arrived[usize::from(!up)].extend(frame.bytes),
                Deal::Lose => {}
            }
        }
    }
}

/// A device that was here before: it holds two tickets, the platform has both.
pub fn known(suite: Suite, seed: u64) -> (Platform, Device) {
    let mut random = Seeded::new(seed ^ 0x7E57);
    let [older, newest] = [(); 2].map(|()| Slot { ticket: TicketId::draw(&mut random), psk: Psk::draw(&mut random) });
    let ticket = |slot: &Slot| Some(Ticket { id: slot.ticket, psk: slot.psk.clone(), expires: None });
    let tickets = Tickets {
        dev_id: Some(dev_id()),
        current: ticket(&older),
        next: ticket(&newest),
        rev: 2,
        confirmed: true,
        ..Tickets::default()
    };
    let mut device = Device::new(&[suite], seed);
    device.flash = Slots { dev_id: Some(dev_id()), newest: Some(newest), older: Some(older), base: None };
    (Platform::new(&[suite], Record { tickets, ..Record::default() }, seed), device)
}

/// A device that was never here, with this code.
pub fn new_device(code: &str, seed: u64) -> (Platform, Device) {
    let code = Code::new(code).unwrap();
    let record = Record { code: Some(code.clone()), ..Record::default() };
    let mut device = Device::new(&[Suite::Tls], seed);
    device.identity.code = Some(code);
    device.has.code = true;
    (Platform::new(&[Suite::Tls], record, seed), device)
}

/// Everything a device does until it is in or waits: the ways in their order, as the advice says. Gives the way that led
/// in.
pub fn come_in(platform: &mut Platform, device: &mut Device) -> Option<Way> {
    let mut suite = device.identity.suites[0];
    let mut way = device.flash.next_way(None, device.has);
    for _ in 0..12 {
        let attempt = device.attempt(suite, way?);
        match connect(platform, device, attempt).device? {
            Ok(_) => return way,
            Err(failure) => match failure.advice() {
                Advice::NextWay => way = device.flash.next_way(way, device.has),
                Advice::Offer(other) => suite = other,
                Advice::Enrol | Advice::Wait => return None,
            },
        }
    }
    None
}

/// Who the device of the harness is at the platform.
pub fn its_dev_id(device: &Device) -> DevId {
    device.flash.dev_id.expect("it has one")
}

#[test]
fn a_whole_link_has_the_frames_of_the_specification() {
    for suite in Suite::MODERN {
        let (mut platform, mut device) = known(suite, 1);
        let attempt = device.attempt(suite, Way::Newest);
        let ending = connect(&mut platform, &mut device, attempt);
        assert!(ending.is_done(), "{suite}: {:?}", ending.device);
        assert_eq!(ending.server, server::Output::Done);
        assert_eq!(ending.first_bytes(), [0x1A, 0x2A, 0x42, 0x62, 0x92, 0xA2, 0xB2]);
        assert_eq!(
            device.flash.newest.as_ref().map(|slot| slot.ticket),
            platform.tickets().next.as_ref().map(|t| t.id)
        );
        assert_eq!(platform.agreements, u32::from(suite != Suite::Tls));
    }
    let (mut platform, mut device) = new_device(LONG_CODE, 2);
    let attempt = device.attempt(Suite::Tls, Way::Code);
    let ending = connect(&mut platform, &mut device, attempt);
    assert!(ending.is_done());
    assert_eq!(ending.first_bytes(), [0x1A, 0x2A, 0x72, 0x82, 0x92, 0xA2, 0xB2]);
    assert!(platform.tickets().confirmed);
    assert_eq!(Some(its_dev_id(&device)), platform.tickets().dev_id);
    assert_eq!(come_in(&mut platform, &mut device), Some(Way::Newest));
}
