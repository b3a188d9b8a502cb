//! A TCP proxy that stands for a bad network: it delays, cuts into pieces, slows down, breaks connections at any byte, and
//! makes them half-open, as its seed says. For the tests of every crate, which include this file by its path.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What the network does to connections. The default is a good one.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// Each piece is late by up to so much.
    pub delay: Duration,
    /// What is sent at once comes in pieces of one to so many bytes; 0 leaves it whole.
    pub pieces: usize,
    /// Bytes a second in each direction; 0 for no limit.
    pub bandwidth: u64,
    /// Each connection breaks when so many bytes have passed in both directions; drawn for each.
    pub breaks_after: Option<Range<u64>>,
    /// One in so many of those that break is not closed but half-open: nothing passes any more, and nobody is told. 0 for
    /// none.
    pub half_open: u64,
}

/// A proxy that runs. Everything ends when it is dropped.
pub struct FaultProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: Mutex<Option<SocketAddr>>,
    faults: Mutex<Faults>,
    /// For the end of each connection, and for what happens on the way there.
    ends: Mutex<Dice>,
    pieces: Mutex<Dice>,
    lines: Mutex<Vec<Arc<Line>>>,
    over: AtomicBool,
    connections: AtomicUsize,
    cut: AtomicUsize,
    half_open: AtomicUsize,
}

/// One connection.
struct Line {
    near: TcpStream,
    far: TcpStream,
    /// Bytes that may still pass, in both directions together.
    left: AtomicU64,
    /// What happens then.
    end: End,
    /// Nothing passes any more.
    dead: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Cut,
    HalfOpen,
}

/// Repeatable pseudo-random numbers (xorshift64*).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Dice {
        Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % end.max(1)
    }
}

impl FaultProxy {
    /// Listens on a free port. Connections are closed until the proxy leads somewhere.
    pub fn start(seed: u64, faults: Faults) -> FaultProxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("a port");
        let shared = Arc::new(Shared {
            target: Mutex::default(),
            faults: Mutex::new(faults),
            ends: Mutex::new(Dice::new(seed)),
            pieces: Mutex::new(Dice::new(!seed)),
            lines: Mutex::default(),
            over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            cut: AtomicUsize::new(0),
            half_open: AtomicUsize::new(0),
        });
        let acceptor = Arc::clone(&shared);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                if acceptor.over.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(near) = near {
                    acceptor.connect(near);
                }
            }
        });
        FaultProxy { address, shared }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has new connections lead there.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = Some(target);
    }

    /// Connections so far; those that were cut; those that were made half-open.
    pub fn counts(&self) -> (usize, usize, usize) {
        let [connections, cut, half_open] = [&self.shared.connections, &self.shared.cut, &self.shared.half_open]
            .map(|count| count.load(Ordering::Acquire));
        (connections, cut, half_open)
    }

    /// Makes it a good network. What was open under the bad one is cut.
    pub fn heal(&self) {
        *lock(&self.shared.faults) = Faults::default();
        self.cut();
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        lock(&self.shared.lines).drain(..).for_each(|line| line.close());
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.cut();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, near: TcpStream) {
        let target = *lock(&self.target);
        let Some(far) = target.and_then(|target| TcpStream::connect(target).ok()) else { return };
        let Faults { breaks_after, half_open, .. } = lock(&self.faults).clone();
        let mut dice = lock(&self.ends);
        let left = breaks_after.map_or(u64::MAX, |range| range.start + dice.below(range.end - range.start));
        let end = if half_open > 0 && dice.below(half_open) == 0 { End::HalfOpen } else { End::Cut };
        drop(dice);
        // Small pieces must not be joined again.
        if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
            return;
        }
        let (left, dead) = (AtomicU64::new(left), AtomicBool::new(false));
        let line = Arc::new(Line { near, far, left, end, dead });
        self.connections.fetch_add(1, Ordering::AcqRel);
        let mut lines = lock(&self.lines);
        lines.retain(|line| line.end == End::HalfOpen || !line.dead.load(Ordering::Acquire));
        lines.push(Arc::clone(&line));
        drop(lines);
        for up in [true, false] {
            let (shared, line) = (Arc::clone(self), Arc::clone(&line));
            std::thread::spawn(move || shared.carry(&line, up));
        }
    }

    /// Carries one direction to its end.
    fn carry(&self, line: &Line, up: bool) {
        let (mut from, mut to) = if up { (&line.near, &line.far) } else { (&line.far, &line.near) };
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut chunk) {
            let mut rest = &chunk[..count];
            // What comes into a half-open connection is gone.
            while !rest.is_empty() && !line.dead.load(Ordering::Acquire) {
                let piece = self.wait_for_piece(rest.len());
                let passes = line.pass(piece as u64) as usize;
                if to.write_all(&rest[..passes]).is_err() {
                    return line.close();
                }
                if passes < piece {
                    self.end(line);
                }
                rest = &rest[piece..];
            }
        }
        // The end of a half-open connection does not pass either: its other side stays.
        if !line.dead.load(Ordering::Acquire) {
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    /// How much of these bytes is the next piece, once it is due.
    fn wait_for_piece(&self, available: usize) -> usize {
        let Faults { delay, pieces, bandwidth, .. } = lock(&self.faults).clone();
        let mut dice = lock(&self.pieces);
        let piece = if pieces == 0 { available } else { available.min(1 + dice.below(pieces as u64) as usize) };
        let late = Duration::from_micros(dice.below(delay.as_micros() as u64 + 1));
        drop(dice);
        let slow = (piece as u64 * 1_000_000).checked_div(bandwidth).map_or(Duration::ZERO, Duration::from_micros);
        std::thread::sleep(late + slow);
        piece
    }

    /// The connection has had its bytes.
    fn end(&self, line: &Line) {
        if line.dead.swap(true, Ordering::AcqRel) {
            return;
        }
        match line.end {
            End::HalfOpen => {
                self.half_open.fetch_add(1, Ordering::AcqRel);
            }
            End::Cut => {
                self.cut.fetch_add(1, Ordering::AcqRel);
                line.close();
            }
        }
    }
}

impl Line {
    /// How many of these bytes may pass.
    fn pass(&self, bytes: u64) -> u64 {
        let taken = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| {
            Some(if left == u64::MAX { left } else { left.saturating_sub(bytes) })
        });
        taken.unwrap_or(0).min(bytes)
    }

    fn close(&self) {
        self.dead.store(true, Ordering::Release);
        for end in [&self.near, &self.far] {
            // It may be closed already.
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
