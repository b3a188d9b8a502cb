//! Operations under way: handed to the program, answered when it is done.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use osap::SessionKey;
use osap::das::executor::{Executor, Limits, Offer};
use tokio::task::{self, JoinSet};

use crate::operation::{self, OperationPath};
use crate::shared::Shared;

/// An operation as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub seq: u64,
    pub path: OperationPath,
    pub reply_topic: Box<str>,
    pub input: Option<Box<str>>,
    pub ttl_ms: Option<u64>,
}

/// An answer on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub topic: Box<str>,
    pub seq: u64,
    pub body: Box<[u8]>,
}

/// The operations of one session key.
pub(crate) struct Calls {
    key: SessionKey,
    executor: Executor<Call>,
    tasks: JoinSet<Box<[u8]>>,
    running: HashMap<task::Id, Running>,
    /// Counts the connections: an answer goes out on the one its operation came in on, or never.
    connection: u32,
}

struct Running {
    seq: u64,
    topic: Box<str>,
    connection: u32,
}

impl Calls {
    pub(crate) fn new(key: SessionKey) -> Self {
        let executor = Executor::new(Limits::DEFAULT);
        Self { key, executor, tasks: JoinSet::new(), running: HashMap::new(), connection: 0 }
    }

    /// A connection begins. Under another key nothing that was sent before can come again; what runs goes on
    /// unanswered.
    pub(crate) fn begin_connection(&mut self, key: &SessionKey, shared: &Shared) {
        let dropped = self.executor.connection_lost();
        shared.count_many(|count| &count.operations_dropped, dropped);
        self.connection = self.connection.wrapping_add(1);
        if self.key != *key {
            self.tasks.detach_all();
            *self = Self { connection: self.connection, ..Self::new(key.clone()) };
        }
    }

    /// Takes an operation; gives the answer when there is one already.
    pub(crate) fn take(&mut self, now: Instant, call: Call, shared: &Shared) -> Option<Answer> {
        let (seq, topic) = (call.seq, call.reply_topic.clone());
        let answer = |body| Some(Answer { topic, seq, body });
        if !shared.operations.knows(&call.path) {
            shared.count(|count| &count.operations_refused);
            return answer(operation::unknown());
        }
        let until = call.ttl_ms.and_then(|ttl| now.checked_add(Duration::from_millis(ttl)));
        match self.executor.offer(seq, until, call) {
            Offer::Begin(call) => self.begin(call, shared),
            Offer::Wait => {}
            Offer::Repeated(body) => return body.and_then(answer),
            Offer::Busy(_) => {
                shared.count(|count| &count.operations_refused);
                return answer(operation::busy());
            }
        }
        None
    }

    fn begin(&mut self, call: Call, shared: &Shared) {
        shared.count(|count| &count.operations);
        let Call { seq, path, reply_topic: topic, input, .. } = call;
        let begun = shared.operations.begin(&path, input);
        let task = self.tasks.spawn(async move {
            match begun {
                Some(running) => running.await,
                None => operation::unknown(),
            }
        });
        self.running.insert(task.id(), Running { seq, topic, connection: self.connection });
    }

    /// Waits until an operation has ended; for ever when none is under way. Cancel safe.
    pub(crate) async fn ended(&mut self) -> (task::Id, Box<[u8]>) {
        match self.tasks.join_next_with_id().await {
            Some(Ok(ended)) => ended,
            Some(Err(panicked)) => (panicked.id(), operation::crashed()),
            None => std::future::pending().await,
        }
    }

    /// Takes what [`Calls::ended`] gave. The answer goes out unless its connection is gone.
    pub(crate) fn finish(&mut self, now: Instant, id: task::Id, body: Box<[u8]>, shared: &Shared) -> Option<Answer> {
        let Running { seq, topic, connection } = self.running.remove(&id)?;
        let next = self.executor.finish(now, seq, body.clone());
        shared.count_many(|count| &count.operations_dropped, next.expired);
        if let Some((call, _)) = next.begin {
            self.begin(call, shared);
        }
        (connection == self.connection).then_some(Answer { topic, seq, body })
    }
}
