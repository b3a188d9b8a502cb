//! What is stored of a device that speaks a modern suite: its tickets, and its session at the DAS (osap-wire 13.3).
//!
//! The platform keeps it as one sealed value. `format (1) | rev (8) | epoch (8) | flags (1) | dev_id | current | next | base |
//! dropped | session`: numbers are big-endian, of the flags bit 0 is confirmed and bit 1 certified, each of the others is a
//! length (2) and that many bytes, none where there is nothing.

use std::sync::Arc;

use osap::id::DevId;
use osap::key::Code;
use osap::lbs::Standing;
use osap::modern::server::Record;
use osap::modern::ticket::Stage;
use osap::modern::{Node, Psk, Ticket, TicketId, Tickets};
use osap::suite::Suite;
use vestibule_platform::{Credentials, Device, Secret, Secrets};
use zeroize::Zeroizing;

const FORMAT: u8 = 1;
const SECRET: usize = 48;

/// The session at a DAS that the last run has opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) suite: Suite,
    pub(crate) node: Node,
    /// Whether its logins are bound to their TLS connections.
    pub(crate) bind: bool,
    /// Unix ms.
    pub(crate) expires: i64,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Modern {
    pub(crate) tickets: Tickets,
    /// Counts the sessions of the device, and what has ended them all: higher is newer.
    pub(crate) epoch: u64,
    pub(crate) session: Option<Session>,
    /// It has shown a certificate.
    pub(crate) certified: bool,
}

/// Why a run's wish was not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outrun;

impl Modern {
    /// What is stored of a device. What cannot be read counts as nothing: the device gets in by the way that is left to it.
    pub(crate) fn of(credentials: &Credentials) -> Modern {
        credentials.tickets.as_ref().and_then(|stored| decode(stored.expose())).unwrap_or_default()
    }

    /// The value to be stored.
    pub(crate) fn encode(&self) -> Secret {
        let Tickets { dev_id, current, next, base, rev, confirmed, dropped } = &self.tickets;
        let mut out = Zeroizing::new(Vec::with_capacity(768));
        out.push(FORMAT);
        out.extend_from_slice(&rev.to_be_bytes());
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.push(u8::from(*confirmed) | u8::from(self.certified) << 1);
        field(&mut out, dev_id.as_ref().map_or(&[], |id| id.as_bytes()));
        for ticket in [current, next, base] {
            let bytes = ticket.as_ref().map(|Ticket { id, psk, expires }| {
                let end = expires.unwrap_or(i64::MAX).to_be_bytes();
                Zeroizing::new([&id.as_bytes()[..], psk.as_bytes(), &end].concat())
            });
            field(&mut out, bytes.as_ref().map_or(&[], |bytes| bytes));
        }
        let names: Vec<u8> = dropped.iter().flat_map(|id| *id.as_bytes()).collect();
        field(&mut out, &names);
        let session = self.session.as_ref().map(|session| {
            let flags = [session.suite.protocol_type(), u8::from(session.bind)];
            Zeroizing::new([&flags[..], session.node.as_bytes(), &session.expires.to_be_bytes()].concat())
        });
        field(&mut out, session.as_ref().map_or(&[], |bytes| bytes));
        Secret::new(out.as_slice())
    }

    /// Makes what a run wants kept part of it; `now` in Unix ms. [`Outrun`]: another run came first, nothing is changed.
    pub(crate) fn apply(&mut self, stage: Stage, suite: Suite, now: i64) -> Result<(), Outrun> {
        match stage {
            Stage::Issue { rev, over, used, dev_id, ticket } => {
                if !self.tickets.issue(rev, over, used, dev_id, ticket) {
                    return Err(Outrun);
                }
            }
            Stage::Confirm { ticket, .. } => {
                if !self.tickets.confirm(ticket) {
                    return Err(Outrun);
                }
            }
            Stage::Session { rev, node, bind, expires_in, .. } => {
                if self.tickets.rev != rev {
                    return Err(Outrun);
                }
                let expires = now.saturating_add(i64::from(expires_in) * 1_000);
                self.epoch += 1;
                self.session = Some(Session { suite, node, bind, expires });
            }
        }
        Ok(())
    }

    /// Nothing counts any more by which the device comes back, nor any session it has. Also when it has neither: a run that
    /// has read that is outrun.
    pub(crate) fn void(&mut self) {
        self.tickets.revoke();
        self.epoch += 1;
        self.session = None;
    }
}

/// The record of a device as the LBS machine reads it; `steady` is the steady clock's,
/// whether it has to show a certificate is `demanded`.
pub(crate) fn record(secrets: &Secrets, device: &Arc<Device>, demanded: bool, steady: i64) -> Record {
    let Modern { tickets, certified, .. } = Modern::of(&secrets.credentials);
    Record {
        standing: if device.is_disabled() { Standing::Disabled } else { Standing::Known },
        code: secrets.code.as_ref().and_then(|code| Code::new(code.expose()).ok()),
        tickets,
        window: device.may_enrol_again(steady),
        may_enrol_again: false,
        certificate_required: demanded,
        certified,
        tls_only: device.is_tls_only(),
    }
}

fn field(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u16::try_from(bytes.len()).expect("each of them is bounded far below 64 KiB");
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
}

fn decode(bytes: &[u8]) -> Option<Modern> {
    let (&[format], rest) = bytes.split_first_chunk()?;
    let (rev, rest) = rest.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let (&[flags], mut rest) = rest.split_first_chunk()?;
    if format != FORMAT || flags > 3 {
        return None;
    }
    let mut field = || {
        let (len, tail) = rest.split_first_chunk()?;
        let (field, tail) = tail.split_at_checked(u16::from_be_bytes(*len).into())?;
        rest = tail;
        Some(field)
    };
    let dev_id = match field()? {
        [] => None,
        bytes => Some(DevId::parse(bytes).ok()?),
    };
    let mut tickets = [None, None, None];
    for ticket in &mut tickets {
        *ticket = match field()? {
            [] => None,
            bytes => Some(decode_ticket(bytes)?),
        };
    }
    let [current, next, base] = tickets;
    let (names, []) = field()?.as_chunks::<{ TicketId::LEN }>() else { return None };
    let dropped = names.iter().map(|name| TicketId::new(*name)).collect();
    let session = match field()? {
        [] => None,
        bytes => Some(decode_session(bytes)?),
    };
    let tickets =
        Tickets { dev_id, current, next, base, rev: u64::from_be_bytes(*rev), confirmed: flags & 1 != 0, dropped };
    let certified = flags & 2 != 0;
    rest.is_empty().then_some(Modern { tickets, epoch: u64::from_be_bytes(*epoch), session, certified })
}

fn decode_ticket(bytes: &[u8]) -> Option<Ticket> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (psk, end) = rest.split_first_chunk::<SECRET>()?;
    let end = i64::from_be_bytes(end.try_into().ok()?);
    let expires = Some(end).filter(|end| *end != i64::MAX);
    Some(Ticket { id: TicketId::new(*id), psk: Psk::from_bytes(psk).ok()?, expires })
}

fn decode_session(bytes: &[u8]) -> Option<Session> {
    let (&[suite, bind], rest) = bytes.split_first_chunk()?;
    let (node, end) = rest.split_first_chunk::<SECRET>()?;
    Some(Session {
        suite: Suite::from_protocol_type(suite)?,
        node: Node::from_bytes(node).ok()?,
        bind: bind == 1,
        expires: i64::from_be_bytes(end.try_into().ok()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(n: u8, expires: Option<i64>) -> Ticket {
        Ticket { id: TicketId::new([n; 16]), psk: Psk::from_bytes(&[n; 48]).unwrap(), expires }
    }

    fn whole() -> Modern {
        Modern {
            tickets: Tickets {
                dev_id: Some(DevId::parse(&[b'd'; 32]).unwrap()),
                current: Some(ticket(1, Some(7))),
                next: Some(ticket(2, None)),
                base: Some(ticket(3, None)),
                rev: 9,
                confirmed: true,
                dropped: vec![TicketId::new([4; 16]), TicketId::new([5; 16])],
            },
            epoch: 3,
            session: Some(Session {
                suite: Suite::Tls,
                node: Node::from_bytes(&[6; 48]).unwrap(),
                bind: true,
                expires: 1_800_000_000_000,
            }),
            certified: true,
        }
    }

    #[test]
    fn what_was_stored_comes_back_and_nothing_else_does() {
        for modern in [whole(), Modern::default(), Modern { session: None, certified: false, ..whole() }] {
            let stored = modern.encode();
            assert_eq!(decode(stored.expose()), Some(modern));
            for len in 0..stored.expose().len() {
                assert_eq!(decode(&stored.expose()[..len]), None, "{len}");
            }
            assert_eq!(decode(&[stored.expose(), b"x"].concat()), None);
        }
    }

    #[test]
    fn a_session_belongs_to_the_run_that_wrote_last() {
        let mut modern = whole();
        let stage = |rev| Stage::Session {
            rev,
            server_id: "das1".into(),
            node: Node::from_bytes(&[8; 48]).unwrap(),
            bind: true,
            expires_in: 60,
        };
        assert_eq!(modern.apply(stage(8), Suite::Tls, 0), Err(Outrun));
        assert_eq!(modern, whole());
        assert_eq!(modern.apply(stage(9), Suite::Tls, 1_000), Ok(()));
        assert_eq!((modern.epoch, modern.session.as_ref().unwrap().expires), (4, 61_000));
        modern.void();
        assert_eq!((modern.epoch, &modern.session, &modern.tickets.next), (5, &None, &None), "it counts on");
    }
}
