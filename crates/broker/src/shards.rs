//! The runtimes: one thread and one single-threaded tokio runtime for each core.

use std::fs::File;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};

use crate::link::Link;
use crate::session::count_panic;
use crate::timer::{REACH, Tick, Wheel};

const BACKLOG: i32 = 4_096;
const TICK: Duration = Duration::from_secs(1);
/// Pause after a failed accept, which mostly means that the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many shards there are, and what they are called.
#[derive(Debug, Clone)]
pub struct ShardsConfig {
    /// Threads; at least one.
    pub shards: usize,
    /// What the threads are called; each has its number behind it.
    pub name: &'static str,
}

impl Default for ShardsConfig {
    fn default() -> Self {
        ShardsConfig { shards: std::thread::available_parallelism().map_or(1, usize::from), name: "shard" }
    }
}

/// What the connections of one thread share.
pub struct Shard {
    number: usize,
    handle: Handle,
    wheel: Mutex<Wheel>,
    now: AtomicU32,
    /// Connections that wait for the durable mark or for room.
    waiting: Mutex<Vec<Arc<Link>>>,
    advanced: Notify,
    closing: watch::Receiver<bool>,
}

impl Shard {
    /// Which it is, from 0.
    pub fn number(&self) -> usize {
        self.number
    }

    /// The shard's runtime.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Seconds since the shard started.
    pub(crate) fn now(&self) -> Tick {
        self.now.load(Ordering::Relaxed)
    }

    /// Has the link's deadline kept.
    pub(crate) fn watch(&self, link: &Arc<Link>) {
        self.wheel.lock().insert(link, self.now());
    }

    /// Has a watched link looked at in time although its deadline has come nearer than the wheel's next visit.
    pub(crate) fn watch_sooner(&self, link: &Arc<Link>) {
        if (1..self.now() + REACH).contains(&link.deadline()) {
            self.watch(link);
        }
    }

    /// Ends when the shards stop accepting: open connections of other protocols finish what they are doing.
    pub async fn closing(&self) {
        // An error means that the owner is gone, which is an end as well.
        let _ = self.closing.clone().wait_for(|closing| *closing).await;
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Has the link woken when the durable mark moves. It is on the list once, however often it asks.
    pub(crate) fn wait_for_advance(&self, link: &Arc<Link>) {
        if link.enlist() {
            self.waiting.lock().push(Arc::clone(link));
        }
    }

    /// Wakes those who wait. One wake crosses the threads for each commit; the others stay on the shard.
    async fn wake_waiting(self: Arc<Self>) {
        loop {
            self.advanced.notified().await;
            let waiting = std::mem::take(&mut *self.waiting.lock());
            for link in waiting {
                link.wake_waiting();
            }
        }
    }

    async fn turn_wheel(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
            let expired = self.wheel.lock().tick(now);
            for link in expired {
                link.expire();
            }
        }
    }
}

/// The shards that share a task: those of MQTT, or of another protocol.
pub struct Shards {
    name: &'static str,
    shards: Vec<Arc<Shard>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    closing: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    live: Arc<Live>,
}

/// The open connections of all listeners.
#[derive(Default)]
struct Live {
    count: AtomicUsize,
    /// Told when the last one has ended.
    none: Notify,
}

impl Shards {
    /// Starts the threads.
    pub fn start(config: &ShardsConfig) -> io::Result<Shards> {
        let (stop, _) = watch::channel(false);
        let (closing, _) = watch::channel(false);
        let mut shards = Vec::new();
        let mut threads = Vec::new();
        for number in 0..config.shards.max(1) {
            let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
            let shard = Arc::new(Shard {
                number,
                handle: runtime.handle().clone(),
                wheel: Mutex::new(Wheel::default()),
                now: AtomicU32::new(1),
                waiting: Mutex::new(Vec::new()),
                advanced: Notify::new(),
                closing: closing.subscribe(),
            });
            let mut stopped = stop.subscribe();
            let worker = Arc::clone(&shard);
            let thread = std::thread::Builder::new().name(format!("{}-{number}", config.name)).spawn(move || {
                runtime.block_on(async move {
                    tokio::spawn(Arc::clone(&worker).wake_waiting());
                    tokio::spawn(Arc::clone(&worker).turn_wheel());
                    // An error means that the owner is gone, which is a stop as well.
                    let _ = stopped.wait_for(|stop| *stop).await;
                });
            })?;
            shards.push(shard);
            threads.push(thread);
        }
        Ok(Shards { name: config.name, shards, threads: Mutex::new(threads), closing, stop, live: Arc::default() })
    }

    /// Listens on an address, one socket for each shard, and calls `serve` on the shard for each connection.
    /// Port 0 picks a free one. Returns the address in use.
    pub fn listen<F, Fut>(
        &self,
        address: SocketAddr,
        max_connections: usize,
        name: &'static str,
        serve: F,
    ) -> io::Result<SocketAddr>
    where
        F: Fn(TcpStream, SocketAddr, Arc<Shard>) -> Fut + Clone + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut address = address;
        if address.port() != 0 {
            // With SO_REUSEPORT alone, a second process would silently take half of the connections.
            drop(bind(address, false)?);
        }
        let mut listeners = Vec::new();
        for _ in &self.shards {
            let listener = bind(address, true)?;
            address = listener.local_addr()?;
            listeners.push(listener);
        }
        let places =
            Places { open: AtomicUsize::new(0), live: Arc::clone(&self.live), max: max_connections, listener: name };
        let places = Arc::new(places);
        for (shard, listener) in self.shards.iter().zip(listeners) {
            let acceptor = Acceptor { shard: Arc::clone(shard), places: Arc::clone(&places) };
            let serve = serve.clone();
            shard.handle.spawn(async move {
                match TcpListener::from_std(listener) {
                    Ok(listener) => acceptor.run(listener, serve).await,
                    Err(error) => {
                        tracing::error!(listener = name, %error, "the listening socket was not taken by the runtime")
                    }
                }
            });
        }
        Ok(address)
    }

    /// To be called after a service's durable mark has moved: wakes connections that hold acknowledgements.
    pub fn durable_advanced(&self) {
        for shard in &self.shards {
            shard.advanced.notify_one();
        }
    }

    /// How many there are.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.shards.len()
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.live.count.load(Ordering::Acquire)
    }

    /// Ends when no connection is open.
    pub async fn idle(&self) {
        loop {
            let mut none = std::pin::pin!(self.live.none.notified());
            // Before the look, or the last end could fall between the two.
            none.as_mut().enable();
            if self.connections() == 0 {
                return;
            }
            none.await;
        }
    }

    /// Stops accepting; open connections go on.
    pub fn close_listeners(&self) {
        self.closing.send_replace(true);
    }

    /// Stops accepting and waits for the connections that are open, until the deadline. Those left after it are cut by
    /// [`Shards::stop`].
    pub async fn shut_down(&self, patience: Duration) {
        self.close_listeners();
        if tokio::time::timeout(patience, self.idle()).await.is_err() {
            let (threads, open) = (self.name, self.connections());
            tracing::warn!(threads, open, "connections are cut at the end of the shutdown deadline");
        }
    }

    /// Ends the threads. Connections still open are cut.
    pub fn stop(&self) {
        self.close_listeners();
        self.stop.send_replace(true);
        for thread in self.threads.lock().drain(..) {
            if thread.join().is_err() {
                tracing::error!("a shard ended with a panic");
            }
        }
    }

    /// Visits the links of all MQTT connections, whether or not they are sessions yet.
    pub(crate) fn for_each_link(&self, mut visit: impl FnMut(&Link)) {
        for shard in &self.shards {
            shard.wheel.lock().for_each(&mut visit);
        }
    }
}

impl Drop for Shards {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Accepts the connections of one listener on one shard.
struct Acceptor {
    shard: Arc<Shard>,
    places: Arc<Places>,
}

/// How many connections a listener has, and may have; shared by its shards and its connections.
struct Places {
    open: AtomicUsize,
    live: Arc<Live>,
    max: usize,
    listener: &'static str,
}

impl Acceptor {
    async fn run<F, Fut>(self, listener: TcpListener, serve: F)
    where
        F: Fn(TcpStream, SocketAddr, Arc<Shard>) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut closing = std::pin::pin!(self.shard.closing());
        let mut spare = spare();
        let Places { open, live, max, listener: name } = &*self.places;
        let (max, name) = (*max, *name);
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut closing => return,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    metrics::counter!("vestibule_accept_errors_total", "listener" => name).increment(1);
                    tracing::warn!(listener = name, %error, "accept failed");
                    if is_out_of_descriptors(&error) {
                        self.refuse_one(&listener, &mut spare);
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if open.fetch_add(1, Ordering::AcqRel) >= max {
                open.fetch_sub(1, Ordering::AcqRel);
                metrics::counter!("vestibule_connections_refused_total", "listener" => name, "reason" => "limit")
                    .increment(1);
                tracing::debug!(listener = name, %peer, limit = max, "connection refused: too many");
                continue;
            }
            metrics::counter!("vestibule_connections_total", "listener" => name).increment(1);
            live.count.fetch_add(1, Ordering::AcqRel);
            let slot = Slot(Arc::clone(&self.places));
            // Not awaited by an async block: a future that is moved into one takes its room twice.
            tokio::spawn(serve(stream, peer, Arc::clone(&self.shard)).map(move |()| drop(slot)));
            if open.load(Ordering::Acquire) >= max - max / 16 {
                // The newcomer may have others make room for it, who need their turn to go.
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Acceptor {
    /// Takes one waiting connection with the descriptor that is kept for this, and closes it: its peer knows at once, and
    /// tries again later.
    fn refuse_one(&self, listener: &TcpListener, kept: &mut Option<File>) {
        drop(kept.take());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        if let std::task::Poll::Ready(Ok((stream, peer))) = listener.poll_accept(&mut context) {
            drop(stream);
            let name = self.places.listener;
            metrics::counter!("vestibule_connections_refused_total", "listener" => name, "reason" => "descriptors")
                .increment(1);
            tracing::debug!(listener = name, %peer, "connection refused: out of descriptors");
        }
        *kept = spare();
    }
}

/// A descriptor to have one when there is none.
fn spare() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Whether the process, or the machine, has as many open files as it may have.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    // EMFILE and ENFILE, which are the same numbers on every Linux.
    matches!(error.raw_os_error(), Some(24 | 23))
}

/// A place among the open connections; free again when dropped, also by a panic.
struct Slot(Arc<Places>);

impl Drop for Slot {
    fn drop(&mut self) {
        let Places { open, live, listener, .. } = &*self.0;
        if std::thread::panicking() {
            count_panic(listener);
        }
        open.fetch_sub(1, Ordering::AcqRel);
        if live.count.fetch_sub(1, Ordering::AcqRel) == 1 {
            live.none.notify_waiters();
        }
    }
}

fn bind(address: SocketAddr, share: bool) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if share {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    // One write is one packet for devices that cannot join two (osap-wire 9.10). Connections have it from their listener.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn an_occupied_port_is_an_error() {
        let taken = StdListener::bind("127.0.0.1:0").expect("a port");
        let shards = Shards::start(&ShardsConfig { shards: 2, name: "test" }).expect("started");
        let address = taken.local_addr().expect("bound");
        let refused = shards.listen(address, 10, "test", |_, _, _| async {});
        assert_eq!(refused.expect_err("occupied").kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_link_waits_once_however_often_it_asks_and_may_wait_again_after_it_was_woken() {
        let shards = Shards::start(&ShardsConfig { shards: 1, name: "test" }).expect("started");
        let shard = &shards.shards[0];
        // Nothing is told to advance, so the list is touched here only.
        let link = Link::for_test();
        for _ in 0..1_000 {
            shard.wait_for_advance(&link);
        }
        assert_eq!(std::mem::take(&mut *shard.waiting.lock()).len(), 1);
        link.wake_waiting();
        shard.wait_for_advance(&link);
        assert_eq!(shard.waiting.lock().len(), 1);
    }

    #[test]
    fn osap_9_10_connections_send_each_write_at_once() {
        let shards = Shards::start(&ShardsConfig { shards: 2, name: "test" }).expect("started");
        let (sender, seen) = std::sync::mpsc::channel();
        let address = shards.listen("127.0.0.1:0".parse().expect("an address"), 2, "test", move |stream, _, _| {
            let sender = sender.clone();
            async move { sender.send(stream.nodelay()).expect("the test waits") }
        });
        let _connection = std::net::TcpStream::connect(address.expect("listening")).expect("connected");
        assert!(seen.recv().expect("a connection").expect("a socket"));
    }

    #[test]
    fn more_than_the_limit_are_closed_at_once() {
        let shards = Shards::start(&ShardsConfig { shards: 2, name: "test" }).expect("started");
        let address = shards
            .listen("127.0.0.1:0".parse().expect("an address"), 2, "test", |stream, _, _| async move {
                let _stream = stream;
                std::future::pending::<()>().await;
            })
            .expect("listening");
        let kept: Vec<_> = (0..2).map(|_| std::net::TcpStream::connect(address).expect("connected")).collect();
        while shards.connections() < 2 {
            std::thread::yield_now();
        }
        let mut third = std::net::TcpStream::connect(address).expect("accepted by the kernel");
        assert!(matches!(third.read(&mut [0u8; 1]), Ok(0) | Err(_)), "closed without a byte");
        drop(kept);
    }
}
