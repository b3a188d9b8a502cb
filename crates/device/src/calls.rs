//! Operations under way: handed to the program, answered when it is done.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use osap::das::executor::{Executor, Limits, Offer};
use osap::das::ota;
use osap::das::reply::{FAILED, Reply};
use osap::das::seq::SeqWindow;
use osap::das::shadow;
use tokio::task::{self, JoinSet};

use crate::attribute::{self, Wishes};
use crate::clock::Clock;
use crate::firmware;
use crate::link::Epoch;
use crate::operation::{self, OperationPath};
use crate::query::Place;
use crate::shared::Shared;

/// An operation, or an attribute to be set, as it arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub seq: u64,
    pub path: OperationPath,
    /// It sets an attribute, and the input is its value.
    pub sets: bool,
    pub reply: Option<ReplyTo>,
    pub input: Option<Box<str>>,
    pub ttl_ms: Option<u64>,
}

/// Where an answer goes, and in which of two shapes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplyTo {
    pub topic: Box<str>,
    /// As the shadow answers (osap-wire 10.2), not as the model does.
    pub shadow: bool,
}

impl ReplyTo {
    fn answer(self, seq: u64, body: Box<[u8]>) -> Answer {
        Answer { topic: self.topic, seq, body }
    }

    /// What goes over the wire for what a handler gave.
    fn body(&self, body: &[u8], clock: &dyn Clock) -> Box<[u8]> {
        if !self.shadow {
            return body.into();
        }
        let mut out = Vec::new();
        shadow::write_set_reply(code(body), clock.now_ms(), &mut out);
        out.into()
    }
}

/// The code in what a handler gave.
fn code(body: &[u8]) -> i64 {
    Reply::parse(body).map_or(FAILED, |reply| reply.code)
}

/// An answer on its way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub topic: Box<str>,
    pub seq: u64,
    pub body: Box<[u8]>,
}

/// The operations of one epoch: a session key, or a login under a modern suite.
pub(crate) struct Calls {
    epoch: Epoch,
    executor: Executor<Call>,
    /// Orders to upgrade. Each ends with its answer: what it begins is no concern of the platform's patience.
    upgrades: Executor<()>,
    tasks: JoinSet<Box<[u8]>>,
    running: HashMap<task::Id, Running>,
    /// Counts the connections: an answer goes out on the one its operation came in on, or never.
    connection: u32,
    own_seq: u64,
    /// Pass-through that was delivered.
    passed: SeqWindow,
}

/// Where the numbers begin that are our own.
const OWN: u64 = 1 << 40;

struct Running {
    seq: u64,
    reply: Option<ReplyTo>,
    connection: u32,
    /// The attribute that is set, and its value.
    sets: Option<(OperationPath, Box<str>)>,
}

/// An operation has ended, or an attribute is set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// What is answered, if anything.
    pub answer: Option<Answer>,
    /// The attribute that has a new value now.
    pub set: Option<(OperationPath, Box<str>)>,
}

impl Calls {
    pub(crate) fn new(epoch: Epoch) -> Self {
        let executor = Executor::new(Limits::DEFAULT);
        Self {
            epoch,
            executor,
            upgrades: Executor::new(Limits::DEFAULT),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            connection: 0,
            own_seq: 0,
            passed: SeqWindow::new(),
        }
    }

    /// A connection begins. In another epoch nothing that was sent before can come again; what runs goes on
    /// unanswered.
    pub(crate) fn begin_connection(&mut self, epoch: Epoch, shared: &Shared) {
        let dropped = self.executor.connection_lost();
        shared.count_many(|count| &count.operations_dropped, dropped);
        self.connection = self.connection.wrapping_add(1);
        if self.epoch != epoch {
            self.tasks.detach_all();
            *self = Self { connection: self.connection, own_seq: self.own_seq, ..Self::new(epoch) };
        }
    }

    /// Takes an operation or a value; gives the answer when there is one already.
    pub(crate) fn take(&mut self, now: Instant, call: Call, shared: &Shared) -> Option<Answer> {
        let (seq, reply) = (call.seq, call.reply.clone());
        let answer = |body: Box<[u8]>| {
            let reply = reply.clone()?;
            let body = reply.body(&body, &*shared.clock);
            Some(reply.answer(seq, body))
        };
        if !shared.operations_of(&call.path.sub).is_some_and(|known| known.knows(&call.path, call.sets)) {
            shared.count(|count| &count.operations_refused);
            return answer(operation::unknown());
        }
        let until = call.ttl_ms.and_then(|ttl| now.checked_add(Duration::from_millis(ttl)));
        match self.executor.offer(seq, until, call) {
            Offer::Begin(call) => self.begin(call, shared),
            Offer::Wait => {}
            // Remembered as it was sent.
            Offer::Repeated(body) => return body.zip(reply).map(|(body, reply)| reply.answer(seq, body)),
            Offer::Busy(_) => {
                shared.count(|count| &count.operations_refused);
                return answer(operation::busy());
            }
        }
        None
    }

    /// Takes what the platform wishes. Each wish of an answer to a query has a number of its own, beyond those of the
    /// platform, which have 31 bits.
    pub(crate) fn take_wishes(&mut self, now: Instant, wishes: Wishes, shared: &Shared) -> Vec<Answer> {
        let Wishes { place, seq, wishes } = wishes;
        let mut answers = Vec::new();
        for (area, name, value) in wishes {
            let Place { sub, resource, index } = place.clone();
            let path = OperationPath { sub, resource, index, area, name };
            let topic = attribute::topic_of(&shared.profile.serial, &place, "set_reply");
            let reply = seq.and_then(|_| Some(ReplyTo { topic: topic.ok()?, shadow: true }));
            self.own_seq += 1;
            let seq = seq.unwrap_or(OWN + self.own_seq);
            answers.extend(self.take(
                now,
                Call { seq, path, sets: true, reply, input: Some(value), ttl_ms: None },
                shared,
            ));
        }
        answers
    }

    /// Takes an order to upgrade; gives the answer. The same order again gets the same answer, and begins nothing.
    pub(crate) fn take_upgrade(&mut self, now: Instant, seq: u64, body: &[u8], shared: &Arc<Shared>) -> Option<Answer> {
        let body = match self.upgrades.offer(seq, None, ()) {
            Offer::Begin(()) => {
                let (upgrading, reply) = firmware::take(shared, body);
                if let Some(upgrading) = upgrading {
                    self.tasks.spawn(upgrading);
                }
                self.upgrades.finish(now, seq, reply.clone());
                reply
            }
            Offer::Repeated(reply) => reply?,
            // None is under way when the next one comes.
            Offer::Wait | Offer::Busy(()) => return None,
        };
        let topic = firmware::topic(&shared.profile.serial, ota::UPGRADE, "operate_reply").ok()?;
        Some(Answer { topic, seq, body })
    }

    /// Whether a pass-through comes for the first time in this epoch.
    pub(crate) fn is_new_pass(&mut self, seq: u64) -> bool {
        self.passed.accept(seq)
    }

    fn begin(&mut self, call: Call, shared: &Shared) {
        shared.count(|count| &count.operations);
        let Call { seq, path, sets, reply, input, .. } = call;
        let operations = shared.operations_of(&path.sub);
        let begun = operations.and_then(|operations| operations.begin(&path, sets, input.clone()));
        let task = self.tasks.spawn(async move {
            match begun {
                Some(running) => running.await,
                None => operation::unknown(),
            }
        });
        let sets = input.filter(|_| sets).map(|value| (path, value));
        self.running.insert(task.id(), Running { seq, reply, connection: self.connection, sets });
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
    pub(crate) fn finish(&mut self, now: Instant, id: task::Id, body: Box<[u8]>, shared: &Shared) -> Ended {
        let Some(Running { seq, reply, connection, sets }) = self.running.remove(&id) else { return Ended::default() };
        let set = sets.filter(|_| code(&body) == 0);
        let body = reply.as_ref().map_or_else(Box::default, |reply| reply.body(&body, &*shared.clock));
        let next = self.executor.finish(now, seq, body.clone());
        shared.count_many(|count| &count.operations_dropped, next.expired);
        if let Some((call, _)) = next.begin {
            self.begin(call, shared);
        }
        let answer = reply.filter(|_| connection == self.connection).map(|reply| reply.answer(seq, body));
        Ended { answer, set }
    }
}
