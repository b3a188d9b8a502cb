//! The pool for P-384: a key agreement takes longer than everything else a connection does, so it must not
//! stand in the way of the other connections of its shard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Runs heavy work on a bounded number of threads, first come, first served.
#[derive(Clone)]
pub struct ComputePool {
    runtime: Handle,
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    max_waiting: usize,
}

impl ComputePool {
    /// `threads` pieces of work run at once on the runtime's blocking threads; `max_waiting` wait at most.
    pub fn new(runtime: Handle, threads: usize, max_waiting: usize) -> ComputePool {
        let permits = Arc::new(Semaphore::new(threads.max(1)));
        ComputePool { runtime, permits, waiting: Arc::default(), max_waiting }
    }

    /// Runs the work; `None` when too many wait already or the work panicked.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let _place = Place::take(&self.waiting, self.max_waiting)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let done = self.runtime.spawn_blocking(move || {
            // Held by the work itself: a caller that goes away must not let in more than the threads there are.
            let _permit = permit;
            work()
        });
        done.await.ok()
    }
}

/// A place in the queue; free again when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(waiting: &Arc<AtomicUsize>, max: usize) -> Option<Place> {
        let place = Place(Arc::clone(waiting));
        if waiting.fetch_add(1, Ordering::AcqRel) >= max {
            metrics::counter!("vestibule_lbs_refused_total", "reason" => "compute_queue").increment(1);
            return None;
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
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
        while pool.waiting.load(Ordering::Acquire) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.run(|| 1).await, None);
        release.send(()).expect("the work waits for it");
        assert_eq!(first.await.expect("not cancelled"), Some(true));
        assert_eq!(pool.run(|| 2).await, Some(2));
    }

    #[tokio::test]
    async fn a_panic_costs_its_caller_only() {
        let pool = ComputePool::new(Handle::current(), 1, 8);
        assert_eq!(pool.run(|| -> u8 { panic!("on purpose") }).await, None);
        assert_eq!(pool.run(|| 7).await, Some(7));
    }
}
