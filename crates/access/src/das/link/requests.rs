//! What was sent to a device and not answered yet.

use std::time::{Duration, Instant};

use osap::das::envelope::General;
use osap::das::pending::{Pending, Take};
use vestibule_platform::{Answer, DevicePath, NotSent, Reply};

use super::OsapLink;
use crate::das::own::OwnOperation;

/// Operations of one device under way at the same time.
pub(super) const OPERATIONS: usize = 64;
/// How much longer than its caller a request is kept: who waits decides when it is too late, and given up here first it
/// would look like a lost connection.
pub(super) const GRACE: Duration = Duration::from_secs(1);

/// What was sent and not answered.
pub(super) enum Operations {
    /// Nothing so far: most devices are asked nothing.
    None,
    Some(Box<Pending<Waiting>>),
    /// The connection is over.
    Closed,
}

/// A request that waits for its answer.
pub(in crate::das) struct Waiting {
    pub(in crate::das) kind: Kind,
    pub(in crate::das) path: DevicePath,
    /// What an operation of the protocol itself was given.
    pub(in crate::das) input: Option<Box<str>>,
    pub(in crate::das) reply: Reply,
}

/// Which answer a request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::das) enum Kind {
    /// What says that a message that is passed through has arrived.
    Delivery,
    /// The reply to an operation.
    Operate,
    /// The answer to an operation of the protocol itself.
    Own(OwnOperation),
    /// The reply to a value set through the model.
    Set,
    /// The reply to a value set through the shadow. It does not say of which attribute it speaks.
    Shadow,
}

impl Waiting {
    /// False: the answer is late.
    pub(in crate::das) fn answer(self, answer: Answer) -> bool {
        self.reply.answer(answer)
    }
}

impl Operations {
    /// What waits, for something more.
    pub(super) fn open(&mut self) -> Result<&mut Pending<Waiting>, NotSent> {
        if let Operations::None = self {
            *self = Operations::Some(Box::new(Pending::new(OPERATIONS)));
        }
        let Operations::Some(pending) = self else { return Err(NotSent::Ending) };
        // Those who waited for these have given up.
        drop(pending.expire(Instant::now()));
        Ok(pending)
    }
}

impl OsapLink {
    /// The request that a reply with this number belongs to, if it fits.
    pub(in crate::das) fn take(&self, seq: u64, fits: impl FnOnce(&Waiting) -> bool) -> Take<Waiting> {
        match &mut *self.operations.lock() {
            Operations::Some(pending) => {
                // First, so that what is late is known as such.
                drop(pending.expire(Instant::now()));
                pending.take(seq, fits)
            }
            Operations::None | Operations::Closed => Take::Unknown,
        }
    }

    /// Sends a request that is answered.
    pub(super) fn request(
        &self,
        waiting: Waiting,
        ttl: Duration,
        topic: &str,
        version: &str,
        body: &[u8],
    ) -> Result<(), NotSent> {
        let seq = self.enter(waiting, ttl)?;
        // Entered first: the answer may be faster than we are.
        match self.send(topic, &General::request(seq, version), body) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.withdraw(seq);
                Err(error)
            }
        }
    }

    /// The connection is over: nobody can know what became of what was not answered.
    pub(in crate::das) fn lost(&self) {
        let operations = std::mem::replace(&mut *self.operations.lock(), Operations::Closed);
        // Not under the lock: whoever waits is woken.
        drop(operations);
    }

    fn enter(&self, waiting: Waiting, ttl: Duration) -> Result<u64, NotSent> {
        let mut operations = self.operations.lock();
        let pending = operations.open()?;
        let seq = self.key.next_seq();
        pending.enter(seq, Instant::now() + ttl + GRACE, waiting).map_err(|_| NotSent::Busy)?;
        Ok(seq)
    }

    fn withdraw(&self, seq: u64) {
        if let Operations::Some(pending) = &mut *self.operations.lock() {
            drop(pending.withdraw(seq));
        }
    }
}
