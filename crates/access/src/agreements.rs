//! The key agreements of one thread. One takes longer than everything else a connection does, so they are done a few at
//! a time, in turns of who asks, and then the thread looks after its other connections.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::fair::FairQueue;
use crate::origin::Origin;

/// The key agreements of one thread. Of those who wait for theirs, each network has its turn, so that somebody who asks
/// for much waits for himself.
pub struct Agreements {
    queue: Mutex<Queue>,
}

struct Queue {
    waiting: FairQueue<oneshot::Sender<Turn>>,
    /// How many have a turn.
    taken: usize,
}

/// Why a key agreement was not done.
#[derive(Debug, PartialEq, Eq)]
pub enum NotDone {
    /// Too many wait, most of them from where this came from.
    Crowded,
    /// It panicked.
    Panicked,
}

/// Leave to do a key agreement now. Who is next has one when this is dropped.
pub struct Turn {
    of: Arc<Agreements>,
}

impl Agreements {
    /// How many are done between two looks at the sockets, where that many wait: a device that asks for little waits a
    /// millisecond or so for them, and where very many ask for little, these still get on.
    pub const AT_ONCE: usize = 4;

    /// `max_waiting` wait for their turn at most.
    pub fn new(max_waiting: usize) -> Arc<Agreements> {
        let queue = Queue { waiting: FairQueue::new(max_waiting), taken: 0 };
        Arc::new(Agreements { queue: Mutex::new(queue) })
    }

    /// How many wait for their turn.
    pub fn waiting(&self) -> usize {
        self.queue.lock().waiting.len()
    }

    /// Waits for its turn and does the work, on this thread. The turn goes on when the runtime has looked at its sockets and
    /// timers; that it does so before it comes back to who yields is how tokio's runtime of a single thread works.
    ///
    /// # Errors
    /// [`NotDone`], also when it has waited already and others need its place more.
    pub async fn run<T>(self: &Arc<Self>, origin: Origin, work: impl FnOnce() -> T) -> Result<T, NotDone> {
        let turn = self.turn(origin).await?;
        let done = catch_unwind(AssertUnwindSafe(work)).map_err(|_| NotDone::Panicked);
        tokio::task::yield_now().await;
        drop(turn);
        done
    }

    /// Waits for leave to do a key agreement for a peer from there.
    ///
    /// # Errors
    /// [`NotDone::Crowded`], also when it has waited already and others need its place more.
    pub async fn turn(self: &Arc<Self>, origin: Origin) -> Result<Turn, NotDone> {
        let (given, refused) = {
            let mut queue = self.queue.lock();
            if queue.taken < Self::AT_ONCE {
                queue.taken += 1;
                return Ok(Turn { of: Arc::clone(self) });
            }
            let (give, given) = oneshot::channel();
            (given, queue.waiting.push(origin, give))
        };
        if refused.is_some() {
            metrics::counter!("vestibule_lbs_refused_total", "reason" => "compute_queue").increment(1);
        }
        // Who is refused learns it by this, himself or another.
        drop(refused);
        given.await.map_err(|_| NotDone::Crowded)
    }

    /// Who has the turn next; those who went away while they waited are passed over.
    fn next(&self) -> Option<oneshot::Sender<Turn>> {
        let mut queue = self.queue.lock();
        loop {
            match queue.waiting.pop() {
                Some(next) if next.is_closed() => {}
                Some(next) => return Some(next),
                None => {
                    queue.taken -= 1;
                    return None;
                }
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(next) = self.of.next() {
            // Whoever goes away at this moment passes it on by dropping it.
            drop(next.send(Turn { of: Arc::clone(&self.of) }));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn origin(network: u8) -> Origin {
        Origin::from(std::net::IpAddr::from([10, 0, network, 1]))
    }

    /// All turns, which keeps everybody waiting.
    async fn occupy(agreements: &Arc<Agreements>) -> Vec<Turn> {
        let mut turns = Vec::new();
        for _ in 0..Agreements::AT_ONCE {
            turns.push(agreements.turn(origin(0)).await.expect("nobody has it"));
        }
        turns
    }

    #[tokio::test]
    async fn work_beyond_the_queue_is_refused_and_places_come_back() {
        let agreements = Agreements::new(1);
        let turns = occupy(&agreements).await;
        let mut waits = Box::pin(agreements.run(origin(1), || 1));
        assert!(poll_once(waits.as_mut()).is_pending());
        assert_eq!(agreements.run(origin(1), || 2).await, Err(NotDone::Crowded));
        drop(turns);
        assert_eq!(waits.await, Ok(1));
        assert_eq!(agreements.run(origin(1), || 3).await, Ok(3));
    }

    /// Who came later from elsewhere takes the place of somebody who has many.
    #[tokio::test]
    async fn osap_13_2_a_flood_from_one_network_pushes_out_itself() {
        let agreements = Agreements::new(10);
        let turns = occupy(&agreements).await;
        let (mut flood, mut good) = (Vec::new(), Vec::new());
        for (network, number) in (0..100).map(|number| (1, number)).chain((0..5).map(|number| (2, number))) {
            let mut asked = Box::pin(agreements.run(origin(network), move || number));
            match poll_once(asked.as_mut()) {
                Poll::Ready(told) => assert_eq!((told, network), (Err(NotDone::Crowded), 1)),
                Poll::Pending if network == 1 => flood.push(asked),
                Poll::Pending => good.push(asked),
            }
        }
        assert_eq!((flood.len(), good.len(), agreements.waiting()), (10, 5, 10));
        drop(turns);
        let done: Vec<_> = futures(good.into_iter().chain(flood).collect()).await;
        let expected: Vec<_> = (0..5).chain(0..5).map(Ok).chain((0..5).map(|_| Err(NotDone::Crowded))).collect();
        assert_eq!(done, expected, "the newest of the flood went");
    }

    /// All of them, each polled when another has been.
    async fn futures<F: Future>(mut asked: Vec<Pin<Box<F>>>) -> Vec<F::Output> {
        let mut done: Vec<Option<F::Output>> = asked.iter().map(|_| None).collect();
        std::future::poll_fn(|context| {
            for (asked, done) in asked.iter_mut().zip(&mut done) {
                if done.is_none()
                    && let Poll::Ready(output) = asked.as_mut().poll(context)
                {
                    *done = Some(output);
                }
            }
            if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        done.into_iter().flatten().collect()
    }

    /// Another task of the thread, which waits for its socket, is served before one more agreement is done.
    #[tokio::test]
    async fn after_a_few_agreements_the_sockets_are_looked_at() {
        use std::io::Write as _;
        use tokio::io::AsyncReadExt as _;

        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let client = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (peer, _) = listener.accept().expect("accepted");
        let same_peer = peer.try_clone().expect("a descriptor");
        peer.set_nonblocking(true).expect("set");
        let mut peer = tokio::net::TcpStream::from_std(peer).expect("a runtime");
        let (agreements, told) = (Agreements::new(10), Arc::new(Mutex::new(Vec::new())));
        let tell = |what| {
            let told = Arc::clone(&told);
            move || told.lock().push(what)
        };
        let (tell_read, tell_first, tell_last) = (tell("read"), tell("first"), tell("last"));
        let reads = async move {
            peer.read_u8().await.expect("a byte");
            tell_read();
        };
        let ask = |network, work: Box<dyn FnOnce() + Send>| {
            let agreements = Arc::clone(&agreements);
            async move { assert_eq!(agreements.run(origin(network), work).await, Ok(())) }
        };
        let first = ask(
            1,
            Box::new(move || {
                tell_first();
                (&client).write_all(&[1]).expect("sent");
                while same_peer.peek(&mut [0]).is_err() {
                    std::thread::yield_now();
                }
            }),
        );
        let mut tasks = vec![tokio::spawn(reads), tokio::spawn(first)];
        for _ in 1..Agreements::AT_ONCE {
            tasks.push(tokio::spawn(ask(1, Box::new(tell("another")))));
        }
        tasks.push(tokio::spawn(ask(1, Box::new(tell_last))));
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(*told.lock(), ["first", "another", "another", "another", "read", "last"]);
    }

    #[tokio::test]
    async fn a_panic_costs_its_caller_only() {
        let agreements = Agreements::new(8);
        let panicked: Result<(), _> = agreements.run(origin(1), || panic!("on purpose")).await;
        assert_eq!(panicked, Err(NotDone::Panicked));
        assert_eq!(agreements.run(origin(1), || 7).await, Ok(7));
    }

    fn never() {
        panic!("nobody asks any more");
    }

    #[tokio::test]
    async fn who_went_away_is_passed_over_whenever_he_went() {
        let agreements = Agreements::new(8);
        let mut turns = occupy(&agreements).await;
        let mut gone: Vec<_> = (0..3).map(|_| Box::pin(agreements.run(origin(1), never))).collect();
        for gone in &mut gone {
            assert!(poll_once(gone.as_mut()).is_pending());
        }
        let mut waits = Box::pin(agreements.run(origin(1), || 2));
        assert!(poll_once(waits.as_mut()).is_pending());
        // Two while they wait, one when the turn is his already.
        drop(gone.drain(..2));
        let others = turns.split_off(1);
        drop(turns);
        assert!(poll_once(waits.as_mut()).is_pending(), "the third has it");
        drop(gone);
        assert_eq!(waits.await, Ok(2));
        drop(others);
        assert_eq!(agreements.queue.lock().taken, 0);
    }

    fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }
}
