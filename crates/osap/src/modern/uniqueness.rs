//! No pair of key and nonce ever seals twice (osap-wire 13.7.6): both machines and the login at the DAS over runs, cuts,
//! restored stores and broken sources of randomness, with every sealing noted.

use std::collections::HashSet;

use proptest::prelude::*;

use super::client::{self, Attempt, Identity};
use super::envelope::Sealer;
use super::login;
use super::message::{Das, next_frame};
use super::schedule::expand;
use super::seal::{Direction, observer};
use super::server::{self, Policy, Record};
use super::slots::{Has, Slot};
use super::ticket::Stage;
use super::{Client, Exporter, Node, Psk, Server, Slots, Ticket, TicketId, Tickets};
use crate::lbs::DasInfo;
use crate::{DevId, Random, Serial, Suite};

/// A source that never repeats itself, or one that gives the same for ever.
struct Source {
    counter: u64,
    stuck: bool,
}

impl Random for Source {
    fn fill(&mut self, out: &mut [u8]) {
        self.counter += u64::from(!self.stuck);
        let mut seed = [0x42; 48];
        seed[..8].copy_from_slice(&self.counter.to_le_bytes());
        for (n, chunk) in out.chunks_mut(48).enumerate() {
            chunk.copy_from_slice(&expand::<48>(&seed, "test", &n.to_le_bytes())[..chunk.len()]);
        }
    }
}

#[derive(Debug, Clone)]
enum Event {
    /// The device comes in by its ways; each connection is cut after so many steps.
    Run { cut: u8 },
    /// The store, or the flash, is set back to what it was so many writes ago.
    Restore { store: bool, back: u8 },
    /// The device logs in at the DAS with the session of so many runs ago, both ends send, and somebody repeats the CONNECT.
    Login { back: u8, sent: u8, repeated: bool },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..40_u8).prop_map(|cut| Event::Run { cut }),
        1 => (any::<bool>(), 1..4_u8).prop_map(|(store, back)| Event::Restore { store, back }),
        3 => (0..3_u8, 0..6_u8, any::<bool>()).prop_map(|(back, sent, repeated)| Event::Login { back, sent, repeated }),
    ]
}

struct Site {
    suite: Suite,
    device: Source,
    platform: Source,
    connections: Source,
    store: Vec<Tickets>,
    flash: Vec<Slots>,
    sessions: Vec<Node>,
}

fn serial() -> Serial {
    Serial::new("SN0000001").unwrap()
}

fn das() -> Das {
    let info = DasInfo { address: "a".into(), port: 1, udp_port: 1, domain: "d".into(), server_id: "das1".into() };
    Das { info, tls_port: None, bind: false, expires_in: 60 }
}

impl Site {
    fn new(suite: Suite, stuck: Option<bool>) -> Self {
        let source = |at: u64, stuck| Source { counter: at << 32, stuck };
        let dev_id = Some(DevId::parse(&[b'd'; 32]).unwrap());
        let (id, psk) = (TicketId::new([1; 16]), Psk::from_bytes(&[1; 48]).unwrap());
        let next = Some(Ticket { id, psk: psk.clone(), expires: None });
        Self {
            suite,
            device: source(1, stuck == Some(true)),
            platform: source(2, stuck == Some(false)),
            connections: source(3, false),
            store: vec![Tickets { dev_id, next, rev: 1, confirmed: true, ..Tickets::default() }],
            flash: vec![Slots { dev_id, newest: Some(Slot { ticket: id, psk }), ..Slots::default() }],
            sessions: Vec::new(),
        }
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Run { cut } => {
                let mut way = self.flash[self.flash.len() - 1].next_way(None, Has::default());
                while let Some(next) = way {
                    way = match self.connect(next, *cut) {
                        Some(client::Advice::NextWay) => {
                            self.flash[self.flash.len() - 1].next_way(Some(next), Has::default())
                        }
                        _ => None,
                    };
                }
            }
            Event::Restore { store: true, back } => {
                let keep = self.store.len().saturating_sub((*back).into()).max(1);
                self.store.truncate(keep);
            }
            Event::Restore { store: false, back } => {
                let keep = self.flash.len().saturating_sub((*back).into()).max(1);
                self.flash.truncate(keep);
            }
            Event::Login { back, sent, repeated } => {
                let at = self.sessions.len().checked_sub(1 + usize::from(*back));
                let Some(node) = at.map(|at| self.sessions[at].clone()) else { return };
                self.log_in(&node, *sent, *repeated);
            }
        }
    }

    /// One connection to the LBS; gives what the device does next when it was refused.
    fn connect(&mut self, way: super::slots::Way, cut: u8) -> Option<client::Advice> {
        let mut bytes = [0; 48];
        self.connections.fill(&mut bytes);
        let exporter = Exporter::from_bytes(&bytes).unwrap();
        let identity = Identity { serial: serial(), code: None, suites: vec![self.suite] };
        let flash = self.flash[self.flash.len() - 1].clone();
        let mut client = Client::new(identity, flash, Attempt { suite: self.suite, way, csr: None });
        let policy = Policy { suites: vec![self.suite], ticket_lifetime_s: 0 };
        let mut server = Server::new(policy, None);
        let mut up = Vec::new();
        for _ in 0..cut {
            match client.poll() {
                client::Output::Compute => client.compute(&mut self.device),
                client::Output::Export => client.handle_exporter(&exporter),
                client::Output::Send(bytes) => up.extend(bytes),
                client::Output::Store(slots) => {
                    self.flash.push(*slots);
                    client.handle_stored(true);
                }
                client::Output::Done(success) => {
                    self.sessions.push(success.node);
                    return None;
                }
                client::Output::Failed(failure) => return Some(failure.advice()),
                client::Output::Read => match server.poll() {
                    server::Output::Read => {
                        let len = next_frame(&up, 4_096).unwrap().expect("the device speaks first");
                        let frame: Vec<u8> = up.drain(..len).collect();
                        server.handle_frame(&frame, &mut self.platform);
                    }
                    server::Output::Lookup(_) => {
                        let tickets = self.store[self.store.len() - 1].clone();
                        server.handle_record(Record { tickets, ..Record::default() }, 0, &mut self.platform);
                    }
                    // Two servers on one store do not share what they remember.
                    server::Output::Fresh { .. } => server.handle_fresh(true, &mut self.platform),
                    server::Output::Compute => server.compute(&mut self.platform),
                    server::Output::Export(_) => server.handle_exporter(&exporter),
                    server::Output::Assign => server.handle_das(Some(das()), &mut self.platform),
                    server::Output::Stage(stage) => {
                        if self.apply(stage) {
                            server.handle_staged();
                        } else {
                            server.handle_outrun();
                        }
                    }
                    server::Output::Send(bytes) => client.handle_frame(&bytes),
                    _ => return None,
                },
            }
        }
        None
    }

    fn apply(&mut self, stage: Stage) -> bool {
        let mut tickets = self.store[self.store.len() - 1].clone();
        let applied = match stage {
            Stage::Issue { rev, over, used, dev_id, ticket } => tickets.issue(rev, over, used, dev_id, ticket),
            Stage::Confirm { ticket, .. } => tickets.confirm(ticket),
            Stage::Session { .. } => true,
        };
        if applied {
            self.store.push(tickets);
        }
        applied
    }

    fn log_in(&mut self, node: &Node, sent: u8, repeated: bool) {
        let mut nonce = [0; 32];
        self.device.fill(&mut nonce);
        let login_hash = login::login_hash(None, &DevId::parse(&[b'd'; 32]).unwrap(), &nonce);
        // A DAS whose source repeats itself is saved by its memory: it closes on a nonce that it has seen.
        for guest in 0..1 + u8::from(repeated && !self.platform.stuck) {
            let mut hello_nonce = [0; 32];
            self.platform.fill(&mut hello_nonce);
            let hello = login::hello_hash(&login_hash, &hello_nonce);
            // Whoever repeats a CONNECT has no key to seal with; the DAS would have one.
            let ends = if guest == 0 { &[Direction::Up, Direction::Down][..] } else { &[Direction::Down] };
            for direction in ends {
                let mut sealer = Sealer::new(self.suite, *direction, login::record_key(node, &hello, *direction));
                for _ in 0..sent {
                    sealer.seal_tail("/iot/SN0000001/x", &mut b"body".to_vec(), 0).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn osap_13_7_6_no_key_seals_twice_under_one_nonce(
        events in proptest::collection::vec(event(), 1..24),
        suite in prop_oneof![Just(Suite::Tls), Just(Suite::X25519)],
        // Whose source of randomness repeats itself: that of the device, of the platform, or none.
        stuck in prop_oneof![Just(None), Just(Some(true)), Just(Some(false))],
    ) {
        observer::take();
        let mut site = Site::new(suite, stuck);
        events.iter().for_each(|event| site.happen(event));
        let mut seen = HashSet::new();
        for pair in observer::take() {
            prop_assert!(seen.insert(pair), "a key has sealed twice under one nonce");
        }
    }
}

#[test]
fn the_observer_sees_what_is_sealed_and_a_repetition() {
    observer::take();
    let mut site = Site::new(Suite::Tls, None);
    for event in [Event::Run { cut: 60 }, Event::Login { back: 0, sent: 2, repeated: true }] {
        site.happen(&event);
    }
    assert_eq!(site.sessions.len(), 1);
    let sealed = observer::take();
    // 0x42, 0x62, 0x92, 0xA2, 0xB2; two messages each way, and two that nobody can read.
    assert_eq!(sealed.len(), 5 + 6);
    assert_eq!(sealed.iter().collect::<HashSet<_>>().len(), sealed.len());
    // Where both ends repeat themselves nothing helps.
    let mut site = Site::new(Suite::X25519, Some(true));
    site.platform.stuck = true;
    for event in [
        Event::Run { cut: 60 },
        Event::Restore { store: true, back: 9 },
        Event::Restore { store: false, back: 9 },
        Event::Run { cut: 60 },
    ] {
        site.happen(&event);
    }
    let sealed = observer::take();
    assert!(sealed.iter().collect::<HashSet<_>>().len() < sealed.len(), "the test can fail");
}
