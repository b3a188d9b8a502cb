//! The pool for P-384: a key agreement takes longer than everything else a connection does, so it must not
//! stand in the way of the other connections of its shard.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::fair::FairQueue;
use crate::origin::Origin;

/// Runs heavy work on a bounded number of threads. Of the work that waits, that of each network has its turn, so that
/// somebody who asks for much waits for himself.
#[derive(Clone)]
pub struct ComputePool {
    runtime: Handle,
    queue: Arc<Mutex<Queue>>,
    threads: usize,
}

/// Results that are handed over together at most: the first of them waits for the key agreements of the others, some 2 ms.
const TOGETHER: usize = 8;

type Job = Box<dyn FnOnce(Fate) -> Option<Answer> + Send>;

struct Queue {
    jobs: FairQueue<Job>,
    /// Threads that take from the queue until it is empty.
    working: usize,
}

/// The result of a piece of work, on its way to who asked for it.
struct Answer {
    /// Where he waits.
    home: Handle,
    tell: Box<dyn FnOnce() + Send>,
}

impl Answer {
    /// What panics here is the caller's, too: the others are told theirs.
    fn give(self) {
        let _ = catch_unwind(AssertUnwindSafe(self.tell));
    }
}

/// What becomes of a piece of work.
enum Fate {
    Done,
    Refused,
}

/// Why work was not done.
#[derive(Debug, PartialEq, Eq)]
pub enum NotDone<T> {
    /// Too much waits, most of it from where this came from; what it was to be done on.
    Crowded(T),
    /// It panicked.
    Panicked,
}

impl ComputePool {
    /// `threads` pieces of work run at once on the runtime's blocking threads; `max_waiting` wait at most.
    pub fn new(runtime: Handle, threads: usize, max_waiting: usize) -> ComputePool {
        let queue = Queue { jobs: FairQueue::new(max_waiting), working: 0 };
        ComputePool { runtime, queue: Arc::new(Mutex::new(queue)), threads: threads.max(1) }
    }

    /// How much waits.
    pub fn waiting(&self) -> usize {
        self.queue.lock().jobs.len()
    }

    /// Does the work on `subject` for a peer from there. Work whose caller went away while it waited is not begun. Results may
    /// wait for each other, so work must not wait for the result of other work.
    ///
    /// # Errors
    /// [`NotDone`], also when it has waited already and others need its place more.
    pub async fn run<T: Send + 'static>(
        &self,
        origin: Origin,
        subject: T,
        work: impl FnOnce(&mut T) + Send + 'static,
    ) -> Result<T, NotDone<T>> {
        let (answer, result) = oneshot::channel();
        let home = Handle::try_current().unwrap_or_else(|_| self.runtime.clone());
        let job: Job = Box::new(move |fate| {
            let told = match fate {
                _ if answer.is_closed() => return None,
                Fate::Done => {
                    let mut subject = subject;
                    work(&mut subject);
                    Ok(subject)
                }
                Fate::Refused => Err(NotDone::Crowded(subject)),
            };
            // The caller may go at any moment.
            Some(Answer { home, tell: Box::new(move || drop(answer.send(told))) })
        });
        let refused = {
            let mut queue = self.queue.lock();
            let refused = queue.jobs.push(origin, job);
            // A thread at work takes it without being woken, which is most of what a hand-over costs.
            if queue.working < self.threads && !queue.jobs.is_empty() {
                queue.working += 1;
                let queue = Arc::clone(&self.queue);
                drop(self.runtime.spawn_blocking(move || work_off(&queue)));
            }
            refused
        };
        if let Some(refused) = refused {
            metrics::counter!("vestibule_lbs_refused_total", "reason" => "compute_queue").increment(1);
            hand_over(&mut refused(Fate::Refused).into_iter().collect());
        }
        result.await.unwrap_or(Err(NotDone::Panicked))
    }
}

/// Takes from the queue until it is empty.
fn work_off(queue: &Mutex<Queue>) {
    let mut answers = Vec::new();
    loop {
        let job = {
            let mut queue = queue.lock();
            let job = queue.jobs.pop();
            if job.is_none() && answers.is_empty() {
                queue.working -= 1;
                return;
            }
            job
        };
        let is_last = job.is_none();
        if let Some(job) = job {
            // A panic is its caller's: the result never comes.
            answers.extend(catch_unwind(AssertUnwindSafe(|| job(Fate::Done))).ok().flatten());
        }
        if is_last || answers.len() == TOGETHER {
            hand_over(&mut answers);
        }
    }
}

/// Hands results over. Those of one runtime are told by a task there, so that one wake crosses the threads for all of them:
/// where a device waits for nothing but a key agreement, waking its connection costs a good part of everything else.
fn hand_over(answers: &mut Vec<Answer>) {
    while let Some(home) = answers.first().map(|answer| answer.home.clone()) {
        let mut of_home: Vec<Answer> = answers.extract_if(.., |answer| answer.home.id() == home.id()).collect();
        if of_home.len() == 1 {
            of_home.drain(..).for_each(Answer::give);
        } else {
            home.spawn(async move { of_home.into_iter().for_each(Answer::give) });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::Poll;

    use super::*;

    fn origin(network: u8) -> Origin {
        Origin::from(std::net::IpAddr::from([10, 0, network, 1]))
    }

    /// Work that begins and does not end before the sender is dropped.
    async fn occupy(pool: &ComputePool) -> (mpsc::Sender<()>, tokio::task::JoinHandle<Result<(), NotDone<()>>>) {
        let (release, wait) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(origin(0), (), move |()| assert!(wait.recv().is_err())).await }
        });
        while pool.queue.lock().working == 0 || !pool.queue.lock().jobs.is_empty() {
            tokio::task::yield_now().await;
        }
        (release, running)
    }

    fn ask(pool: &ComputePool, network: u8, number: u32) -> tokio::task::JoinHandle<Result<u32, NotDone<u32>>> {
        let pool = pool.clone();
        tokio::spawn(async move { pool.run(origin(network), number, |number| *number += 100).await })
    }

    #[tokio::test]
    async fn work_beyond_the_queue_is_refused_and_places_come_back() {
        let pool = ComputePool::new(Handle::current(), 1, 1);
        let (release, first) = occupy(&pool).await;
        let waits = ask(&pool, 1, 1);
        while pool.queue.lock().jobs.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(origin(1), 2, |_| {}).await, Err(NotDone::Crowded(2)));
        drop(release);
        assert_eq!(first.await.expect("not cancelled"), Ok(()));
        assert_eq!(waits.await.expect("not cancelled"), Ok(101));
        assert_eq!(pool.run(origin(1), 3, |_| {}).await, Ok(3));
    }

    /// Who came later from elsewhere takes the place of somebody who has many.
    #[tokio::test]
    async fn osap_13_2_a_flood_from_one_network_pushes_out_itself() {
        let pool = ComputePool::new(Handle::current(), 1, 10);
        let (release, _first) = occupy(&pool).await;
        let (mut flood, mut good) = (Vec::new(), Vec::new());
        for (network, number) in (0..100).map(|number| (1, number)).chain((0..5).map(|number| (2, number))) {
            let mut asked = Box::pin(pool.run(origin(network), number, |number| *number += 100));
            match poll_once(asked.as_mut()) {
                Poll::Ready(told) => assert_eq!((told, network), (Err(NotDone::Crowded(number)), 1)),
                Poll::Pending if network == 1 => flood.push(asked),
                Poll::Pending => good.push(asked),
            }
        }
        assert_eq!((flood.len(), good.len(), pool.waiting()), (10, 5, 10));
        drop(release);
        for (number, good) in (100..).zip(good) {
            assert_eq!(good.await, Ok(number));
        }
        for (number, flood) in (0..).zip(flood) {
            let expected = if number < 5 { Ok(number + 100) } else { Err(NotDone::Crowded(number)) };
            assert_eq!(flood.await, expected, "its newest went");
        }
    }

    /// The work of the ninth ends only when the others have been told.
    #[tokio::test]
    async fn a_result_waits_for_no_more_than_seven_others() {
        let pool = ComputePool::new(Handle::current(), 1, 100);
        let (release, first) = occupy(&pool).await;
        let others = TOGETHER as u8 - 1;
        let mut asked: Vec<_> = (0..others).map(|n| Box::pin(pool.run(origin(n), n, |n| *n += 100))).collect();
        for asked in &mut asked {
            assert!(poll_once(asked.as_mut()).is_pending());
        }
        let (go_on, wait) = mpsc::channel::<()>();
        let mut ninth = Box::pin(pool.run(origin(others), (), move |()| wait.recv().expect("told to go on")));
        assert!(poll_once(ninth.as_mut()).is_pending());
        drop(release);
        assert_eq!(first.await.expect("not cancelled"), Ok(()));
        for (n, asked) in (100..).zip(asked) {
            assert_eq!(asked.await, Ok(n));
        }
        go_on.send(()).expect("it waits");
        assert_eq!(ninth.await, Ok(()));
    }

    #[tokio::test]
    async fn who_cannot_be_told_keeps_nobody_else_from_being_told() {
        let (told, is_told) = mpsc::channel();
        let (second, third) = (told.clone(), told);
        let tells: [Box<dyn FnOnce() + Send>; 3] = [
            Box::new(|| panic!("on purpose")),
            Box::new(move || second.send(2).expect("the test waits")),
            Box::new(move || third.send(3).expect("the test waits")),
        ];
        hand_over(&mut tells.into_iter().map(|tell| Answer { home: Handle::current(), tell }).collect());
        hand_over(&mut vec![Answer { home: Handle::current(), tell: Box::new(|| panic!("on purpose")) }]);
        tokio::task::yield_now().await;
        assert_eq!(is_told.try_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[tokio::test]
    async fn results_of_one_runtime_cost_one_wake() {
        let other = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
        let (told, is_told) = mpsc::channel();
        let answer = |home: &Handle, n: u8| {
            let told = told.clone();
            Answer { home: home.clone(), tell: Box::new(move || told.send(n).expect("the test waits")) }
        };
        let here = Handle::current();
        let tasks = || here.metrics().num_alive_tasks();
        let before = tasks();
        hand_over(&mut vec![answer(&here, 1), answer(other.handle(), 2), answer(&here, 3)]);
        assert_eq!(is_told.recv(), Ok(2), "one alone needs no task");
        assert_eq!((tasks(), is_told.try_recv().ok()), (before + 1, None));
        tokio::task::yield_now().await;
        assert_eq!((tasks(), is_told.try_iter().collect()), (before, vec![1, 3]));
        other.shutdown_background();
    }

    #[tokio::test]
    async fn a_panic_costs_its_caller_only() {
        let pool = ComputePool::new(Handle::current(), 1, 8);
        assert_eq!(pool.run(origin(1), 0, |_| panic!("on purpose")).await, Err(NotDone::Panicked));
        assert_eq!(pool.run(origin(1), 7, |_| {}).await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_not_begun() {
        let pool = ComputePool::new(Handle::current(), 1, 8);
        let (release, first) = occupy(&pool).await;
        let (begun, is_begun) = mpsc::channel::<()>();
        {
            let abandoned = pool.run(origin(1), begun, |begun| begun.send(()).expect("the test waits"));
            let mut abandoned = std::pin::pin!(abandoned);
            let once = poll_once(abandoned.as_mut());
            assert!(once.is_pending());
        }
        drop(release);
        assert_eq!(first.await.expect("not cancelled"), Ok(()));
        assert_eq!(pool.run(origin(1), 2, |_| {}).await, Ok(2));
        assert!(is_begun.try_recv().is_err(), "its sender is gone with the work");
    }

    fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
