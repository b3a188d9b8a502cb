use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};

use tokio::sync::oneshot::Receiver;

use super::*;
use crate::DeviceId;
use crate::control::device::DeviceWrite;

fn job(write: Write) -> (Job, Receiver<Answer>) {
    let (reply, told) = Reply::new(&Handle::current());
    (Job::Write(write, reply), told)
}

fn credentials() -> (Job, Receiver<Answer>) {
    job(Write::Credentials(CredentialsWrite::none(DeviceId::mint())))
}

fn other() -> (Job, Receiver<Answer>) {
    job(Write::Device(DeviceWrite::Remove { id: DeviceId::mint() }))
}

/// A writer that takes no time to write.
fn writer() -> Requests {
    let (writer, mut groups) = queue(100);
    tokio::spawn(async move {
        let mut group = Vec::new();
        while groups.next(&mut group).await {
            group.drain(..).for_each(|(_, reply): (Write, Reply)| reply.tell(Ok(1)));
        }
    });
    writer
}

/// Asks for writes, each so long after the one before it, and says how long after the first each was answered.
async fn answered(writer: &Requests, jobs: Vec<(u64, (Job, Receiver<Answer>))>) -> Vec<u128> {
    let begun = Instant::now();
    let mut answers = Vec::new();
    for (after, (job, told)) in jobs {
        if after > 0 {
            tokio::time::sleep(Duration::from_millis(after)).await;
        }
        writer.send(job).await.expect("it runs");
        answers.push(tokio::spawn(async move {
            told.await.expect("answered").expect("written");
            begun.elapsed().as_millis()
        }));
    }
    let mut times = Vec::new();
    for answer in answers {
        times.push(answer.await.expect("no panic"));
    }
    times
}

/// How long credentials of a fleet wait, in milliseconds.
const WAIT: u128 = GATHER.as_millis();

/// Two at once, which is a fleet.
async fn come_together(writer: &Requests) {
    assert_eq!(answered(writer, vec![(0, credentials()), (0, credentials())]).await, [WAIT, WAIT]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_alone_waits_for_nobody() {
    let writer = writer();
    assert_eq!(answered(&writer, vec![(0, credentials())]).await, [0]);
    assert_eq!(answered(&writer, vec![(0, other()), (0, other())]).await, [0, 0], "these are no fleet");
    assert_eq!(answered(&writer, vec![(0, credentials())]).await, [0]);
    come_together(&writer).await;
    tokio::time::sleep(FLEET + Duration::from_millis(1)).await;
    assert_eq!(answered(&writer, vec![(0, credentials())]).await, [0], "the fleet has come long ago");
}

#[tokio::test(start_paused = true)]
async fn credentials_of_a_fleet_wait_for_each_other_and_no_longer_than_said() {
    let writer = writer();
    come_together(&writer).await;
    let late = GATHER.as_millis() as u64;
    let apart = vec![(0, credentials()), (1, credentials()), (2, credentials()), (late, credentials())];
    assert_eq!(answered(&writer, apart).await, [WAIT, WAIT, WAIT, 3 + 2 * WAIT], "the last one has missed the commit");
}

#[tokio::test(start_paused = true)]
async fn enough_of_them_wait_for_no_more() {
    let writer = writer();
    let many = (0..GATHERED).map(|_| (0, credentials())).collect();
    assert_eq!(answered(&writer, many).await, [0; GATHERED]);
}

/// Counts how often whoever waits is woken.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_of_a_fleet_do_not_each_wake_the_writer() {
    let (writer, mut groups) = queue(100);
    let mut told = Vec::new();
    let mut ask = async || {
        let (job, answer) = credentials();
        writer.send(job).await.expect("there is room");
        told.push(answer);
    };
    ask().await;
    ask().await;
    let mut group = Vec::new();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let mut next = Box::pin(groups.next(&mut group));
    assert!(next.as_mut().poll(&mut context).is_pending());
    for _ in 2..GATHERED - 1 {
        ask().await;
    }
    assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    tokio::time::advance(GATHER).await;
    assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    assert!(next.as_mut().poll(&mut context).is_ready());
    drop(next);
    assert_eq!(group.len(), told.len());
}

#[tokio::test(start_paused = true)]
async fn enough_of_them_end_the_wait_of_those_before_them() {
    let writer = writer();
    come_together(&writer).await;
    let many = std::iter::once(0).chain([1]).chain(std::iter::repeat_n(0, GATHERED - 1));
    let jobs: Vec<_> = many.map(|after| (after, credentials())).collect();
    assert_eq!(answered(&writer, jobs).await, [1; GATHERED + 1]);
}

#[tokio::test(start_paused = true)]
async fn another_write_is_kept_waiting_by_no_credentials() {
    let writer = writer();
    come_together(&writer).await;
    assert_eq!(answered(&writer, vec![(0, credentials()), (2, other())]).await, [2, 2]);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_kept_waiting_by_nobody_and_what_came_before_it_is_served() {
    let writer = writer();
    come_together(&writer).await;
    let begun = Instant::now();
    let (last, told) = credentials();
    writer.send(last).await.expect("it runs");
    writer.send(Job::Stop).await.expect("it runs");
    told.await.expect("answered").expect("written");
    writer.jobs.closed().await;
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn answers_of_one_runtime_cost_one_wake() {
    let elsewhere = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime");
    let here = Handle::current();
    let reply = |home: &Handle| {
        let (answer, told) = oneshot::channel();
        (Reply { answer, home: home.clone() }, told)
    };
    let ((first, mut told_first), (second, mut told_second)) = (reply(&here), reply(&here));
    let (alone, mut told_alone) = reply(elsewhere.handle());
    let before = here.metrics().num_alive_tasks();
    tell_all(vec![(first, 1), (alone, 2), (second, 3)]);
    assert!(matches!(told_alone.try_recv(), Ok(Ok(2))), "one alone needs no task");
    assert!(told_first.try_recv().is_err() && told_second.try_recv().is_err());
    assert_eq!(here.metrics().num_alive_tasks(), before + 1);
    tokio::task::yield_now().await;
    assert!(matches!((told_first.try_recv(), told_second.try_recv()), (Ok(Ok(1)), Ok(Ok(3)))));
    elsewhere.shutdown_background();
}
