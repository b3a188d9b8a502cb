//! Both machines with somebody between them.

use super::{Counting, Platform, code, exporter, policy, slots, suite};
use crate::Suite;
use crate::modern::client::{Advice, Attempt, Client, Identity, Output};
use crate::modern::message::{self, MAX_ENTRY};
use crate::modern::server::{self, Server};
use crate::modern::slots::Way;

/// A whole run with somebody between: the first byte chooses suite and way, and each two bytes that follow what is done to
/// the next frame, and where.
///
/// # Panics
/// When a device gets in by a frame that was altered, or either end changes what is durable because of one.
pub fn exchange(data: &[u8]) {
    let Some((&choice, steps)) = data.split_first() else { return };
    let suite = suite(choice);
    let way = match choice >> 2 & 3 {
        0 if suite == Suite::Tls => Way::Code,
        1 => Way::Older,
        _ => Way::Newest,
    };
    let identity = Identity { serial: crate::fuzz::serial(), code: Some(code()), suites: vec![suite] };
    let mut client = Client::new(identity, slots(), Attempt { suite, way, csr: None });
    let mut platform = Platform::new();
    let mut server = Server::new(policy(suite), None);
    let mut link = Link { steps: steps.iter().copied(), seen: Vec::new(), is_touched: false };
    let mut random = Counting(0);
    let mut up: Vec<u8> = Vec::new();
    for _ in 0..64 {
        match client.poll() {
            Output::Compute => client.compute(&mut random),
            Output::Export => client.handle_exporter(&exporter()),
            Output::Send(bytes) => up.extend(bytes),
            Output::Store(stored) => {
                assert!(!link.is_touched, "a frame that was altered has changed the flash");
                assert_eq!(stored.newest.as_ref().map(|slot| slot.ticket), platform.issued(), "both hold the same");
                client.handle_stored(true);
            }
            Output::Done(_) => {
                assert!(!link.is_touched, "a device got in by a frame that was altered");
                assert!(platform.record.tickets.confirmed);
                break;
            }
            Output::Failed(failure) => {
                assert!(link.is_touched, "nobody has touched a frame: {failure:?}");
                assert!(matches!(failure.advice(), Advice::NextWay | Advice::Wait));
                break;
            }
            Output::Read => {
                let Some(answer) = exchange_up(&mut platform, &mut server, &mut link, &mut up) else { break };
                let answer = link.pass(answer);
                client.handle_frame(&answer);
            }
        }
    }
}

/// Gives the server the next frames until it answers.
fn exchange_up(
    platform: &mut Platform,
    server: &mut Server,
    link: &mut Link<impl Iterator<Item = u8>>,
    up: &mut Vec<u8>,
) -> Option<Vec<u8>> {
    loop {
        match platform.end(server) {
            Some(Ok(answer)) => return Some(answer),
            Some(Err(_)) => return None,
            None => {
                let len = message::next_frame(up, MAX_ENTRY).expect("the device sends frames")?;
                let frame = link.pass(up.drain(..len).collect());
                let state = (platform.staged, platform.record.tickets.rev);
                server.handle_frame(&frame, &mut platform.random);
                if link.is_touched && platform.staged > 0 {
                    // From 0x92 on a refused frame has no answer but the end, and stages nothing.
                    assert!(matches!(server.poll(), server::Output::Close(_)), "a frame that was altered was taken");
                    assert_eq!((platform.staged, platform.record.tickets.rev), state);
                }
            }
        }
    }
}

/// Somebody between the ends.
struct Link<S> {
    steps: S,
    seen: Vec<Vec<u8>>,
    is_touched: bool,
}

impl<S: Iterator<Item = u8>> Link<S> {
    /// What arrives in place of a frame.
    fn pass(&mut self, frame: Vec<u8>) -> Vec<u8> {
        let (what, at) = (self.steps.next().unwrap_or(0), usize::from(self.steps.next().unwrap_or(0)));
        let mut arrives = frame.clone();
        match what % 16 {
            8 | 9 => {
                let at = (at | usize::from(what >> 4) << 8) % arrives.len();
                arrives[at] ^= 1 << (what & 7);
            }
            10 => arrives.truncate(at % frame.len()),
            11 => arrives.extend(std::iter::repeat_n(what, at + 1)),
            12 => {
                if let Some(old) = self.seen.get(at % self.seen.len().max(1)) {
                    arrives.clone_from(old);
                }
            }
            13 => {
                let at = at % arrives.len();
                arrives.remove(at);
            }
            14 => {
                let middle = at % arrives.len();
                arrives.rotate_left(middle);
            }
            15 => arrives[0] = at as u8,
            _ => {}
        }
        self.seen.push(frame.clone());
        self.is_touched |= arrives != frame;
        arrives
    }
}
