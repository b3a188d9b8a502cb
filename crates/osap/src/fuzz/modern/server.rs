//! The server's machine, met by anybody and by a device that knows every secret of its run.

use super::{Counting, NEWEST, Platform, chunk, code, exporter, policy, slot, suite};
use crate::Suite;
use crate::lbs::message::Group;
use crate::modern::message::{self, AuthI, AuthIi, MAX_AUTH_I, MAX_ENTRY, first};
use crate::modern::schedule::{Early, Fresh, Schedule};
use crate::modern::seal::Direction;
use crate::modern::server::Server;
use crate::modern::share::ShareKey;
use crate::modern::slots::Slot;

/// The first byte chooses the suite and how the server meets the rest. Below 0x80: as a stream of bytes from anybody.
/// From 0x80 on: as texts of a device that knows every secret of the run and keeps to no other rule; each is sealed for the
/// place it comes at.
///
/// # Panics
/// When the server runs on, sends what a device cannot read, or stages what does not fit.
pub fn server(data: &[u8]) {
    let Some((&choice, mut stream)) = data.split_first() else { return };
    let suite = suite(choice);
    let mut platform = Platform::new();
    let certificate = (choice & 0x40 != 0 && suite == Suite::Tls).then(|| crate::fuzz::serial().as_str().to_owned());
    let mut server = Server::new(policy(suite), certificate);
    if choice >= 0x80 {
        return insider(&mut platform, &mut server, suite, choice & 0x20 != 0, stream);
    }
    let mut read = 0;
    loop {
        match platform.end(&mut server) {
            None => {
                assert!(server.max_frame() == MAX_AUTH_I || server.max_frame() == MAX_ENTRY);
                let Some(frame) = crate::fuzz::next_frame(&mut stream, server.max_frame()) else { return };
                read += 1;
                assert!(read <= 4, "a run has four frames of the device");
                server.handle_frame(frame, &mut platform.random);
            }
            Some(Ok(_)) => {}
            Some(Err(_)) => return,
        }
    }
}

/// A device of this suite beyond AUTH-II.
fn meet(platform: &mut Platform, server: &mut Server, suite: Suite, bound: bool) -> Schedule {
    let mut random = Counting(0);
    let key = ShareKey::draw(suite, &mut random);
    let auth = AuthI {
        protocol_type: suite.protocol_type(),
        group: Group::new(&[suite.protocol_type()]).expect("one type is a group"),
        nonce: [0xA0; 32],
        serial: crate::fuzz::serial(),
        share: key.as_ref().map(|key| key.public().to_vec()).unwrap_or_default(),
        bound: None,
    };
    let Slot { ticket, psk } = slot(NEWEST);
    let frame = if bound { auth.encode_bound(ticket, &psk) } else { auth.encode() };
    server.handle_frame(&frame, &mut platform.random);
    let Some(Ok(answer)) = platform.end(server) else { panic!("the device is let in") };
    let Ok(AuthIi::Accepted { share, .. }) = AuthIi::decode(&answer, suite) else { panic!("it is an acceptance") };
    let psk = bound.then_some(&psk);
    let early = match &key {
        Some(key) => Early::new(psk, &Fresh::Shared(&key.agree(&share).expect("the share of the server is one"))),
        None => Early::new(psk, &Fresh::Exporter(&exporter())),
    };
    early.complete(&frame, &answer)
}

fn insider(platform: &mut Platform, server: &mut Server, suite: Suite, bound: bool, mut stream: &[u8]) {
    let bound = bound || suite != Suite::Tls;
    let schedule = meet(platform, server, suite, bound);
    let places = [(0, first::APPLY), (1, first::CONFIRM), (2, first::SERVICE)];
    for (counter, usual) in places {
        let Some((&how, rest)) = stream.split_first() else { return };
        stream = rest;
        let Some(text) = chunk(&mut stream) else { return };
        // The usual frame of the place, or another one; the text as it is, or behind the proof of the run.
        let kind = match (how % 4, counter) {
            (1, 0) => first::RETURN,
            (2, 1) => first::SERVICE,
            (3, _) => first::APPLIED,
            _ => usual,
        };
        let mut whole = Vec::new();
        if counter == 0 && how & 0x80 != 0 {
            whole.extend_from_slice(&schedule.mac_d());
            match how >> 5 & 3 {
                0 => {}
                1 => whole.push(0),
                2 => {
                    whole.push(48);
                    whole.extend_from_slice(&schedule.proof_d(&code()));
                }
                _ => {
                    whole.push(32);
                    whole.extend_from_slice(crate::fuzz::dev_id().as_bytes());
                }
            }
        }
        whole.extend_from_slice(text);
        let position = if kind == first::SERVICE { 2 } else { counter };
        let frame = message::seal(kind, &[&message::VERSION], &schedule.record_key(Direction::Up), position, &whole);
        let (staged, rev) = (platform.staged, platform.record.tickets.rev);
        server.handle_frame(&frame, &mut platform.random);
        match platform.end(server) {
            Some(Err(_)) => {
                assert_eq!((platform.staged, platform.record.tickets.rev), (staged, rev), "it was refused");
                return;
            }
            Some(Ok(answer)) if answer[5..].len() == 17 => {
                // A sealed refusal: what follows is the end.
                let refused =
                    message::open(&answer, answer[0], Direction::Down, &schedule.record_key(Direction::Down), {
                        u64::from(answer[0] == first::SERVICE_ANSWER)
                    });
                assert!(refused.is_ok(), "a refusal is sealed for its place");
            }
            _ => {}
        }
    }
}
