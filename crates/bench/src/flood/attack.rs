//! The strangers.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use osap::{Random as _, ResultCode, SystemRandom};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{MissedTickBehavior, interval, timeout};

/// From one handful of connections to the next.
const TICK_MS: u64 = 5;
const TICK: Duration = Duration::from_millis(TICK_MS);
/// Tag and sealed public key of an AUTH-I.
const SEALED: usize = 16 + 97;
/// For an answer, or the end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections open at once. When the platform is slower than the flood, the rest is not sent and counted.
const OPEN: usize = 2_048;

/// What is to be done.
pub(super) struct Plan {
    pub(super) lbs: SocketAddr,
    /// An AUTH-I that opens.
    pub(super) recorded: Vec<u8>,
    /// Serials whose codes are tried; every second one is of nobody.
    pub(super) serials: Vec<String>,
    pub(super) replays: u32,
    pub(super) codes: u32,
    pub(super) addresses: u32,
}

/// How the connections of one kind ended.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Ends {
    /// The request was looked at: AUTH-II, or result 1 for a wrong code.
    pub(super) looked_at: u64,
    /// Result 6.
    pub(super) told_to_come_again: u64,
    /// Closed without an answer, or not accepted.
    pub(super) closed: u64,
    /// Not sent, because too many were open.
    pub(super) not_sent: u64,
}

/// What the strangers got.
#[derive(Debug, Default, Clone, Copy, Serialize)]
pub(super) struct Strangers {
    pub(super) replays: Ends,
    pub(super) codes: Ends,
}

/// A flood that runs, on a thread of its own.
pub(super) struct Attack {
    over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<Strangers>>,
}

impl Attack {
    pub(super) fn start(plan: Plan) -> anyhow::Result<Attack> {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::Builder::new().name("flood".to_owned()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.context("a runtime for the flood")?;
            Ok(LocalSet::new().block_on(&runtime, flow(Rc::new(plan), &until)))
        });
        Ok(Attack { over, thread: thread.context("a thread for the flood")? })
    }

    /// Ends it.
    pub(super) fn stop(self) -> anyhow::Result<Strangers> {
        self.over.store(true, Ordering::Release);
        self.thread.join().map_err(|_| anyhow::anyhow!("the flood broke off"))?
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Replay,
    Code,
}

async fn flow(plan: Rc<Plan>, over: &AtomicBool) -> Strangers {
    let places = Arc::new(Semaphore::new(OPEN));
    let kinds = [(Kind::Replay, plan.replays), (Kind::Code, plan.codes)];
    let ends: [Rc<Cell<Ends>>; 2] = Default::default();
    let mut sent = [0; 2];
    let mut ticks = interval(TICK);
    // A generator that was late makes up for it.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut milliseconds = 0;
    while !over.load(Ordering::Acquire) {
        ticks.tick().await;
        milliseconds += TICK_MS;
        for ((kind, rate), (sent, ends)) in kinds.into_iter().zip(sent.iter_mut().zip(&ends)) {
            let due = milliseconds * u64::from(rate) / 1_000;
            while *sent < due {
                let number = *sent;
                *sent += 1;
                let (plan, ends) = (Rc::clone(&plan), Rc::clone(ends));
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                    count(&ends, |ends| &mut ends.not_sent);
                    continue;
                };
                spawn_local(async move {
                    let _place = place;
                    match plan.knock(kind, number).await {
                        Some(ResultCode::Success | ResultCode::CodeRefused) => count(&ends, |ends| &mut ends.looked_at),
                        Some(ResultCode::Unavailable) => count(&ends, |ends| &mut ends.told_to_come_again),
                        _ => count(&ends, |ends| &mut ends.closed),
                    }
                });
            }
        }
    }
    // Those under way; the semaphore is never closed.
    let _ = places.acquire_many(OPEN as u32).await;
    let [replays, codes] = ends;
    Strangers { replays: replays.get(), codes: codes.get() }
}

fn count(ends: &Cell<Ends>, which: impl FnOnce(&mut Ends) -> &mut u64) {
    let mut counted = ends.get();
    *which(&mut counted) += 1;
    ends.set(counted);
}

impl Plan {
    /// One connection: a frame, and the result it gets, if any.
    async fn knock(&self, kind: Kind, number: u64) -> Option<ResultCode> {
        let frame = match kind {
            Kind::Replay => self.recorded.clone(),
            Kind::Code => auth_i(&self.guessed(number)),
        };
        let from = source(kind, number % u64::from(self.addresses));
        let exchange = async {
            let socket = TcpSocket::new_v4()?;
            // A reset at the end, or the ports of the strangers would run out.
            socket.set_zero_linger()?;
            socket.bind((from, 0).into())?;
            let mut stream = socket.connect(self.lbs).await?;
            stream.write_all(&frame).await?;
            let mut answer = [0; 256];
            let count = stream.read(&mut answer).await?;
            // First byte, length, type, version, result (osap-wire 5.2).
            std::io::Result::Ok(answer.get(..count).and_then(|answer| answer.get(6)).copied())
        };
        timeout(PATIENCE, exchange).await.ok()?.ok()?.map(ResultCode::from)
    }

    /// Whose code is tried: one serial that exists, one that does not, and so on.
    fn guessed(&self, number: u64) -> String {
        let known =
            usize::try_from(number / 2).ok().and_then(|half| self.serials.get(half % self.serials.len().max(1)));
        match known {
            Some(serial) if number.is_multiple_of(2) => serial.clone(),
            _ => format!("NOBODY{number:010}"),
        }
    }
}

/// An AUTH-I that opens under no code (osap-wire 5.1).
fn auth_i(serial: &str) -> Vec<u8> {
    let mut body = vec![1, 1, 1, 1, 2, 0, 0];
    body.extend(u8::try_from(serial.len()));
    body.extend_from_slice(serial.as_bytes());
    let sealed = body.len();
    body.resize(sealed + SEALED, 0);
    SystemRandom.fill(body.get_mut(sealed..).unwrap_or_default());
    // The length takes two bytes above 127.
    let mut frame = vec![0x1A];
    let (low, high) = ((body.len() & 0x7F) as u8, (body.len() >> 7) as u8);
    if high == 0 {
        frame.push(low)
    } else {
        frame.extend_from_slice(&[low | 0x80, high])
    }
    frame.append(&mut body);
    frame
}

/// The address with this number, ten to a network. Who replays and who tries codes are different people: the budgets of the
/// latter do not stop the former.
fn source(kind: Kind, number: u64) -> Ipv4Addr {
    let net = u8::try_from(number / 10).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 200 + kind as u8, net, 1 + (number % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_is_an_auth_i_of_that_serial() {
        use osap::lbs::frame::{Frame, frame_len};
        use osap::lbs::message::AuthI;
        for serial in ["SN1", "NOBODY0000000001"] {
            let frame = auth_i(serial);
            assert_eq!(frame_len(&frame, 1_024).expect("a frame"), Some(frame.len()));
            let auth = AuthI::decode(&Frame::decode(&frame).expect("a frame")).expect("an AUTH-I");
            assert_eq!(auth.serial.as_str(), serial);
        }
    }

    #[test]
    fn addresses_come_in_networks_of_ten() {
        assert_eq!(source(Kind::Replay, 0), Ipv4Addr::new(127, 200, 0, 1));
        assert_eq!(source(Kind::Code, 99), Ipv4Addr::new(127, 201, 9, 10));
        assert_eq!(source(Kind::Code, 2_549), Ipv4Addr::new(127, 201, 254, 10));
    }
}
