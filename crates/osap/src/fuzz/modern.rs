//! The modern suites (osap-wire 13.3): each machine alone, both with somebody between them, and the envelope.

mod client;
mod envelope;
mod exchange;
mod seeds;
mod server;

pub use client::client;
pub use envelope::envelope;
pub use exchange::exchange;
pub use seeds::seeds;
pub use server::server;

use crate::lbs::{DasInfo, Standing};
use crate::modern::message::{Das, MAX_ANSWER};
use crate::modern::server::{Attempt, Output, Policy, Record};
use crate::modern::slots::Slot;
use crate::modern::ticket::Stage;
use crate::modern::{Exporter, Psk, Server, Slots, Ticket, TicketId, Tickets};
use crate::random::Random;
use crate::{Code, Suite};

/// Counts, and is the same in each run.
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, out: &mut [u8]) {
        for byte in out {
            *byte = self.0;
            self.0 = self.0.wrapping_add(1);
        }
    }
}

const OLDER: u8 = 0x10;
const NEWEST: u8 = 0x11;

fn slot(n: u8) -> Slot {
    Slot {
        ticket: TicketId::new([n; 16]),
        psk: Psk::from_bytes(&std::array::from_fn::<u8, 48, _>(|at| 0x80 + at as u8)).expect("48 bytes are a secret"),
    }
}

fn ticket(n: u8) -> Option<Ticket> {
    let Slot { ticket: id, psk } = slot(n);
    Some(Ticket { id, psk, expires: None })
}

fn exporter() -> Exporter {
    Exporter::from_bytes(&std::array::from_fn::<u8, 48, _>(|at| 0x40 + at as u8)).expect("48 bytes are a secret")
}

fn code() -> Code {
    Code::new("ABCDEFGHJKMNP").expect("the code of the vectors is one")
}

fn das() -> Das {
    let info = DasInfo {
        address: "127.0.0.1".into(),
        port: 8883,
        udp_port: 8884,
        domain: "das.local".into(),
        server_id: "das1".into(),
    };
    Das { info, tls_port: None, bind: false, expires_in: 86_400 }
}

/// The suite that a byte chooses.
fn suite(choice: u8) -> Suite {
    Suite::MODERN[usize::from(choice) % Suite::MODERN.len()]
}

/// What the device keeps.
fn slots() -> Slots {
    Slots { dev_id: Some(super::dev_id()), newest: Some(slot(NEWEST)), older: Some(slot(OLDER)), base: None }
}

fn policy(suite: Suite) -> Policy {
    Policy { suites: vec![suite], ticket_lifetime_s: 86_400 }
}

/// What the platform keeps of the device.
struct Platform {
    record: Record,
    staged: usize,
    random: Counting,
}

impl Platform {
    fn new() -> Self {
        let dev_id = Some(super::dev_id());
        let tickets = Tickets {
            dev_id,
            current: ticket(OLDER),
            next: ticket(NEWEST),
            rev: 2,
            confirmed: true,
            ..Tickets::default()
        };
        let record = Record { code: Some(code()), may_enrol_again: true, tickets, ..Record::default() };
        Self { record, staged: 0, random: Counting(0xC0) }
    }

    /// The ticket that was handed out last.
    fn issued(&self) -> Option<TicketId> {
        self.record.tickets.next.as_ref().map(|next| next.id)
    }

    /// Answers everything but a wish to read, to send and to end.
    fn answer(&mut self, server: &mut Server) -> Option<Output> {
        match server.poll() {
            Output::Lookup(serial) => {
                let nobody = || Record { standing: Standing::Unknown, ..Record::default() };
                let record = if serial == super::serial() { self.record.clone() } else { nobody() };
                server.handle_record(record, 0, &mut self.random);
            }
            Output::Fresh { .. } => server.handle_fresh(true, &mut self.random),
            Output::Compute => server.compute(&mut self.random),
            Output::Export(_) => server.handle_exporter(&exporter()),
            Output::Attempt { .. } => server.handle_attempt(Attempt::Go),
            Output::Certify(csr) => server.handle_certificate(vec![csr]),
            Output::Assign => server.handle_das(Some(das()), &mut self.random),
            Output::Stage(stage) => {
                self.staged += 1;
                let tickets = &mut self.record.tickets;
                let staged = match stage {
                    Stage::Issue { rev, over, used, dev_id, ticket } => tickets.issue(rev, over, used, dev_id, ticket),
                    Stage::Confirm { ticket, .. } => tickets.confirm(ticket),
                    Stage::Session { rev, .. } => tickets.rev == rev,
                };
                assert!(staged, "what is staged fits the record it came from");
                server.handle_staged();
            }
            other => return Some(other),
        }
        None
    }

    /// Takes what the server sends or how it ends; `None` when it wants to read.
    fn end(&mut self, server: &mut Server) -> Option<Result<Vec<u8>, Output>> {
        // Between two frames lie at most the lookup, the nonce, the agreement, or the code, certificate, DAS and store.
        for _ in 0..8 {
            match self.answer(server) {
                None => {}
                Some(Output::Read) => return None,
                Some(Output::Send(bytes)) => {
                    assert!(bytes.len() <= MAX_ANSWER, "a device could not read it");
                    return Some(Ok(bytes));
                }
                Some(output) => {
                    check_end(server, &output);
                    return Some(Err(output));
                }
            }
        }
        panic!("the server machine runs on");
    }
}

fn check_end(server: &mut Server, output: &Output) {
    assert_eq!(&server.poll(), output, "an end is one");
    match output {
        Output::Done => assert_eq!(server.refusal(), None),
        Output::Close(reason) => assert_eq!(server.refusal(), reason.result()),
        other => panic!("{other:?} is no end"),
    }
}

/// Takes one frame off a stream whose frames are written as `u16 length | bytes`; what is missing is cut off.
fn chunk<'a>(stream: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = stream.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len)) % 2_400;
    let (chunk, rest) = rest.split_at(len.min(rest.len()));
    *stream = rest;
    Some(chunk)
}
