//! Operations the simulation asks for: over the HTTP API, as an application would, through the platform and back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::latency::{Latencies, Quantiles};
use super::profile::Order;
use crate::client::{Client, Route};

/// Operations that are under way at once.
const CLERKS: usize = 32;
/// Operations that may wait for their turn; what comes beyond is not asked for, and counted.
const QUEUE: usize = 1_024;
/// How long a device may take.
const DEADLINE: Duration = Duration::from_secs(5);

/// What became of the operations.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    done: AtomicU64,
    failed: AtomicU64,
    timed_out: AtomicU64,
    offline: AtomicU64,
    unknown: AtomicU64,
    refused: AtomicU64,
    skipped: AtomicU64,
    took: Latencies,
}

/// The same as figures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct OperationFigures {
    /// Asked for: the sum of the six that follow.
    pub sent: u64,
    pub done: u64,
    pub failed: u64,
    pub timed_out: u64,
    pub offline: u64,
    pub unknown: u64,
    /// The platform did not take the request, or did not answer it.
    pub refused: u64,
    /// Not asked for, because too many waited already.
    pub skipped: u64,
    /// Of those that were done: from the request to its answer.
    pub latency_ms: Option<Quantiles>,
}

impl Ends {
    /// How many have ended well so far.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Relaxed)
    }

    pub(crate) fn figures(&self) -> OperationFigures {
        let [done, failed, timed_out, offline, unknown, refused] =
            [&self.done, &self.failed, &self.timed_out, &self.offline, &self.unknown, &self.refused]
                .map(|count| count.load(Relaxed));
        OperationFigures {
            sent: done + failed + timed_out + offline + unknown + refused,
            done,
            failed,
            timed_out,
            offline,
            unknown,
            refused,
            skipped: self.skipped.load(Relaxed),
            latency_ms: self.took.quantiles(),
        }
    }

    fn count(&self, outcome: Option<&str>, took: Duration) {
        let count = match outcome {
            Some("done") => {
                self.took.record(took);
                &self.done
            }
            Some("failed") => &self.failed,
            Some("timed_out") => &self.timed_out,
            Some("offline") => &self.offline,
            Some("unknown") => &self.unknown,
            _ => &self.refused,
        };
        count.fetch_add(1, Relaxed);
    }
}

/// What a clerk does next.
enum Request {
    /// Has the device with this id carry the order out.
    Ask(Arc<str>, Order),
    /// Goes home.
    Close,
}

/// Takes operations to be asked for; never waits.
#[derive(Clone)]
pub(crate) struct Counter {
    queue: SyncSender<Request>,
    ends: Arc<Ends>,
    closed: Arc<AtomicBool>,
}

impl Counter {
    /// Has the device with this id carry the order out, soon; not at all once the counter is closed.
    pub(crate) fn ask(&self, device: &Arc<str>, order: Order) {
        if self.closed.load(Relaxed) {
            return;
        }
        if self.queue.try_send(Request::Ask(Arc::clone(device), order)).is_err() {
            self.ends.skipped.fetch_add(1, Relaxed);
        }
    }
}

/// The threads that ask. HTTP requests block, each for as long as its device takes.
pub(crate) struct Clerks {
    threads: Vec<JoinHandle<()>>,
    counter: Counter,
}

impl Clerks {
    /// Starts them.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(client: &Arc<Client>, devices: usize, ends: &Arc<Ends>) -> std::io::Result<(Counter, Clerks)> {
        let (queue, requests) = sync_channel(QUEUE);
        let requests = Arc::new(Mutex::new(requests));
        let closed = Arc::<AtomicBool>::default();
        let counter = Counter { queue, ends: Arc::clone(ends), closed: Arc::clone(&closed) };
        let number = CLERKS.min(devices).max(1);
        let clerk = |_| {
            let (client, requests, ends) = (Arc::clone(client), Arc::clone(&requests), Arc::clone(ends));
            let closed = Arc::clone(&closed);
            let work = move || work(&client, &requests, &ends, &closed);
            std::thread::Builder::new().name("operations".to_owned()).spawn(work)
        };
        let threads = (0..number).map(clerk).collect::<Result<_, _>>()?;
        Ok((counter.clone(), Clerks { threads, counter }))
    }

    /// Closes the counter, and waits until every request that is under way has its answer. What still waits for its turn
    /// is not asked for.
    pub(crate) fn finish(self) {
        self.counter.closed.store(true, Relaxed);
        for _ in &self.threads {
            // An error says that nobody is there any more.
            let _ = self.counter.queue.send(Request::Close);
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a thread that asks for operations failed");
            }
        }
    }
}

fn work(client: &Client, requests: &Mutex<Receiver<Request>>, ends: &Ends, closed: &AtomicBool) {
    loop {
        // Bound first, so that the others may take their turn while this one asks.
        let request = requests.lock().recv();
        let Ok(Request::Ask(device, order)) = request else { return };
        if closed.load(Relaxed) {
            continue;
        }
        let begun = Instant::now();
        let outcome = invoke(client, &device, &order);
        ends.count(outcome.as_deref(), begun.elapsed());
    }
}

#[derive(Deserialize)]
struct End {
    outcome: String,
}

/// Asks once; `None` when the platform did not say how it ended.
fn invoke(client: &Client, device: &str, order: &Order) -> Option<String> {
    let Order { place, input } = order;
    let route = Route::new("/v1/devices").segment(device).segment("operations").segment(place.resource);
    let route = route.segment(&place.index.to_string()).segment(place.area).segment(place.name);
    let deadline = u64::try_from(DEADLINE.as_millis()).unwrap_or(u64::MAX);
    match client.post::<End>(&route, &json!({ "input": input, "deadline_ms": deadline })) {
        Ok(End { outcome }) => Some(outcome),
        Err(error) => {
            tracing::debug!(device, %error, "an operation was not taken");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_has_its_figure() {
        let ends = Ends::default();
        for outcome in ["done", "done", "failed", "timed_out", "offline", "unknown", "what?"] {
            ends.count(Some(outcome), Duration::from_millis(4));
        }
        ends.count(None, Duration::from_secs(9));
        let figures = ends.figures();
        assert_eq!((figures.sent, figures.done, figures.refused, ends.done()), (8, 2, 2, 2));
        assert_eq!([figures.failed, figures.timed_out, figures.offline, figures.unknown], [1; 4]);
        assert_eq!(figures.latency_ms.expect("two were done").max, 4.0);
    }

    #[test]
    fn what_finds_no_room_is_counted_and_not_asked_for() {
        let (queue, requests) = sync_channel(1);
        let counter = Counter { queue, ends: Arc::default(), closed: Arc::default() };
        let mut dice = super::super::dice::Dice::new(1, 0, 0);
        let mut ask = || counter.ask(&"d".into(), (super::super::profile::DOOR.habits.order)(&mut dice));
        ask();
        ask();
        assert_eq!(counter.ends.figures().skipped, 1);
        drop(requests);
        ask();
        assert_eq!((counter.ends.figures().skipped, counter.ends.figures().sent), (2, 0));
        counter.closed.store(true, Relaxed);
        ask();
        assert_eq!(counter.ends.figures().skipped, 2, "after the end nobody is asked");
    }

    #[test]
    fn clerks_go_home_when_the_counter_closes() {
        let token = crate::client::Token::new("secret").expect("a token");
        // Nobody listens there.
        let client = Arc::new(Client::new("http://127.0.0.1:1", token).expect("an address"));
        let ends = Arc::<Ends>::default();
        let (counter, clerks) = Clerks::start(&client, 3, &ends).expect("threads");
        let mut dice = super::super::dice::Dice::new(1, 0, 0);
        counter.ask(&"d".into(), (super::super::profile::DOOR.habits.order)(&mut dice));
        while ends.figures().refused == 0 {
            std::thread::yield_now();
        }
        clerks.finish();
        counter.ask(&"d".into(), (super::super::profile::DOOR.habits.order)(&mut dice));
        assert_eq!((ends.figures().sent, ends.figures().skipped), (1, 0));
    }
}
