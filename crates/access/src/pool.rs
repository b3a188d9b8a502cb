//! The pool for P-384: a key agreement takes longer than everything else a connection does, so it must not
//! stand in the way of the other connections of its shard.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Runs heavy work on a bounded number of threads, first come, first served.
#[derive(Clone)]
pub struct ComputePool {
    runtime: Handle,
    queue: Arc<Mutex<Queue>>,
    threads: usize,
    max_waiting: usize,
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    /// Threads that take from the queue until it is empty.
    working: usize,
}

impl ComputePool {
    /// `threads` pieces of work run at once on the runtime's blocking threads; `max_waiting` wait at most.
    pub fn new(runtime: Handle, threads: usize, max_waiting: usize) -> ComputePool {
        ComputePool { runtime, queue: Arc::default(), threads: threads.max(1), max_waiting }
    }

    /// Runs the work; `None` when too many wait already or the work panicked. Work whose caller went away while it
    /// waited is not begun.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (done, result) = oneshot::channel();
        let job = Box::new(move || {
            if !done.is_closed() {
                // The caller may have gone meanwhile.
                let _ = done.send(work());
            }
        });
        {
            let mut queue = self.queue.lock();
            if queue.jobs.len() >= self.max_waiting {
                metrics::counter!("vestibule_lbs_refused_total", "reason" => "compute_queue").increment(1);
                return None;
            }
            queue.jobs.push_back(job);
            // A thread at work takes it without being woken, which is most of what a hand-over costs.
            if queue.working < self.threads {
                queue.working += 1;
                let queue = Arc::clone(&self.queue);
                drop(self.runtime.spawn_blocking(move || work_off(&queue)));
            }
        }
        result.await.ok()
    }
}

/// Takes from the queue until it is empty.
fn work_off(queue: &Mutex<Queue>) {
    loop {
        let job = {
            let mut queue = queue.lock();
            let Some(job) = queue.jobs.pop_front() else {
                queue.working -= 1;
                return;
            };
            job
        };
        // A panic is its caller's: the result never comes.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_beyond_the_queue_is_refused_and_places_come_back() {
        let pool = ComputePool::new(Handle::current(), 1, 1);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || wait.recv().is_ok()).await }
        });
        let is_begun = || pool.queue.lock().working == 1 && pool.queue.lock().jobs.is_empty();
        while !is_begun() {
            tokio::task::yield_now().await;
        }
        let waits = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(|| 1).await }
        });
        while pool.queue.lock().jobs.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 2).await, None);
        release.send(()).expect("the work waits for it");
        assert_eq!(first.await.expect("not cancelled"), Some(true));
        assert_eq!(waits.await.expect("not cancelled"), Some(1));
        assert_eq!(pool.run(|| 3).await, Some(3));
    }

    #[tokio::test]
    async fn a_panic_costs_its_caller_only() {
        let pool = ComputePool::new(Handle::current(), 1, 8);
        assert_eq!(pool.run(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(pool.run(|| 7).await, Some(7));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_any_more_is_not_begun() {
        let pool = ComputePool::new(Handle::current(), 1, 8);
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move { pool.run(move || wait.recv().is_ok()).await }
        });
        while pool.queue.lock().working == 0 {
            tokio::task::yield_now().await;
        }
        let (begun, is_begun) = std::sync::mpsc::channel::<()>();
        {
            let abandoned = pool.run(move || begun.send(()));
            let mut abandoned = std::pin::pin!(abandoned);
            let once = poll_once(abandoned.as_mut());
            assert!(once.is_pending());
        }
        release.send(()).expect("the work waits for it");
        assert_eq!(first.await.expect("not cancelled"), Some(true));
        assert_eq!(pool.run(|| 2).await, Some(2));
        assert!(is_begun.try_recv().is_err(), "its sender is gone with the work");
    }

    fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> std::task::Poll<T> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
