//! The one task that writes to the control database: what is queued shares a transaction.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::audit::AuditWrite;
use super::certificate::CertificateWrite;
use super::credential::{CredentialsWrite, put_together};
use super::device::DeviceWrite;
use super::enlist::EnlistWrite;
use super::idempotency::KeyWrite;
use super::job::JobWrite;
use super::media::MediaWrite;
use super::note::NotesWrite;
use super::principal::PrincipalWrite;
use super::queue::QueueWrite;
use super::root::RootWrite;
use super::session::SessionWrite;
use super::twin::LeavesWrite;
use super::view::ViewWrite;
use super::webhook::WebhookWrite;
use crate::StoreError;
use crate::db::{Connection, Db, Transaction};

/// Rows of one transaction from which on it takes no more writes.
const GROUP: usize = 1_000;
/// How long credentials wait for others while a fleet comes in: a commit costs what many rows do, and a device that waits for
/// one has been waiting for its turn anyway. At 1,500 a second a dozen meet in this time.
const GATHER: Duration = Duration::from_millis(8);
/// Credentials, of one commit or in the queue, from which on none waits for more: what the commit costs beside its rows is then
/// next to nothing for each of them.
const GATHERED: usize = 32;
/// How long after a commit of several credentials one that comes alone is still taken for one of a fleet.
const FLEET: Duration = Duration::from_millis(100);
/// Rows that a write which removes what has expired removes at most.
pub(super) const EXPIRED: i64 = 1_000;

/// What the writer is asked.
pub(super) enum Job {
    /// A write, and where to say that it is durable and what it answers.
    Write(Write, Reply),
    /// End after what was queued before.
    Stop,
}

/// What a write answers.
type Answer = Result<i64, StoreError>;

/// Where to say what a write answers.
pub(super) struct Reply {
    answer: oneshot::Sender<Answer>,
    /// Where its caller waits.
    home: Handle,
}

impl Reply {
    /// To who calls this, on its runtime if it has one, or else on that of the store.
    pub(super) fn new(of_store: &Handle) -> (Reply, oneshot::Receiver<Answer>) {
        let (answer, told) = oneshot::channel();
        (Reply { answer, home: Handle::try_current().unwrap_or_else(|_| of_store.clone()) }, told)
    }

    fn tell(self, answer: Answer) {
        // A caller that no longer waits does not need it.
        let _ = self.answer.send(answer);
    }
}

/// One write. It answers how many rows it touched, where that says something; a new row of the audit, which id it was given.
pub(super) enum Write {
    Device(DeviceWrite),
    Credentials(CredentialsWrite),
    Leaves(LeavesWrite),
    Queue(QueueWrite),
    Key(KeyWrite),
    Audit(AuditWrite),
    Principal(PrincipalWrite),
    Webhook(WebhookWrite),
    Session(SessionWrite),
    Enlist(EnlistWrite),
    Job(JobWrite),
    Media(MediaWrite),
    Notes(NotesWrite),
    View(ViewWrite),
    Certificate(CertificateWrite),
    Root(RootWrite),
}

impl Write {
    /// How many rows it touches at most, nearly.
    fn weight(&self) -> usize {
        match self {
            Write::Leaves(leaves) => leaves.weight(),
            Write::Notes(notes) => notes.weight(),
            Write::Principal(principals) => principals.weight(),
            Write::Webhook(webhook) => webhook.weight(),
            Write::Enlist(devices) => devices.weight(),
            Write::Certificate(certificates) => certificates.weight(),
            Write::Session(SessionWrite::Expire { .. })
            | Write::Key(KeyWrite::Expire { .. })
            | Write::Audit(AuditWrite::Expire { .. }) => EXPIRED as usize,
            _ => 1,
        }
    }

    async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            Write::Device(write) => write.apply(transaction).await,
            Write::Credentials(write) => write.apply(transaction).await,
            Write::Leaves(write) => write.apply(transaction).await,
            Write::Queue(write) => write.apply(transaction).await,
            Write::Key(write) => write.apply(transaction).await,
            Write::Audit(write) => write.apply(transaction).await,
            Write::Principal(write) => write.apply(transaction).await,
            Write::Webhook(write) => write.apply(transaction).await,
            Write::Session(write) => write.apply(transaction).await,
            Write::Enlist(write) => write.apply(transaction).await,
            Write::Job(write) => write.apply(transaction).await,
            Write::Media(write) => write.apply(transaction).await,
            Write::Notes(write) => write.apply(transaction).await,
            Write::View(write) => write.apply(transaction).await,
            Write::Certificate(write) => write.apply(transaction).await,
            Write::Root(write) => write.apply(transaction).await,
        }
    }
}

/// The queue of the writer, and what is queued there; a caller beyond `capacity` waits for room.
pub(super) fn queue(capacity: usize) -> (Requests, Groups) {
    let (sender, jobs) = mpsc::channel(capacity);
    let pressing = Arc::new(Notify::new());
    let groups = Groups { jobs, pressing: Arc::clone(&pressing), credentials: 0, fleet: None, stopped: false };
    (Requests { jobs: sender, pressing }, groups)
}

/// Where the writer is asked.
pub(super) struct Requests {
    jobs: mpsc::Sender<Job>,
    /// Told of what ends the wait for credentials.
    pressing: Arc<Notify>,
}

impl Requests {
    /// Queues the job.
    ///
    /// # Errors
    /// [`StoreError::Closed`].
    pub(super) async fn send(&self, job: Job) -> Result<(), StoreError> {
        let may_wait = matches!(job, Job::Write(Write::Credentials(_), _));
        self.jobs.send(job).await.map_err(|_| StoreError::Closed)?;
        let queued = self.jobs.max_capacity() - self.jobs.capacity();
        // A writer that waits for more credentials is not woken by each: the wake would cost about what the shared commit saves.
        if !may_wait || queued >= GATHERED {
            self.pressing.notify_waiters();
        }
        Ok(())
    }
}

/// Serves the queue until asked to stop or nobody can ask any more.
pub(super) async fn run(db: Db, mut groups: Groups) {
    let mut link = Link { db, kept: None };
    let mut group = Vec::new();
    while groups.next(&mut group).await {
        serve(&mut link, &mut group).await;
    }
    groups.jobs.close();
}

/// What is queued, in groups each of which becomes a commit.
pub(super) struct Groups {
    jobs: mpsc::Receiver<Job>,
    pressing: Arc<Notify>,
    /// Credentials of the last group.
    credentials: usize,
    /// When the last group with several credentials was served.
    fleet: Option<Instant>,
    stopped: bool,
}

impl Groups {
    /// Puts the next group into `group`, which is empty, when the last one has been served; false when there is none any more.
    async fn next(&mut self, group: &mut Vec<(Write, Reply)>) -> bool {
        if self.credentials > 1 {
            self.fleet = Some(Instant::now());
        }
        self.credentials = 0;
        if !self.stopped
            && let Some(first) = self.jobs.recv().await
        {
            self.gather(first, group).await;
        }
        !group.is_empty()
    }

    /// Takes what is queued and, where it is nothing but credentials of a fleet, what comes within [`GATHER`]. Who comes alone
    /// waits for nobody.
    async fn gather(&mut self, first: Job, group: &mut Vec<(Write, Reply)>) {
        let begun = Instant::now();
        let is_fleet = self.fleet.is_some_and(|last| begun.duration_since(last) <= FLEET);
        let mut rows = 0;
        let mut job = first;
        loop {
            let Job::Write(write, reply) = job else {
                self.stopped = true;
                return;
            };
            self.credentials += usize::from(matches!(write, Write::Credentials(_)));
            rows += write.weight();
            group.push((write, reply));
            if rows >= GROUP {
                return;
            }
            let count = self.credentials;
            let waits = count == group.len() && (is_fleet || count > 1) && count < GATHERED;
            job = match self.jobs.try_recv() {
                Ok(next) => next,
                Err(_) if waits => match self.wait(begun + GATHER).await {
                    Some(next) => next,
                    None => return,
                },
                Err(_) => return,
            };
        }
    }

    /// What is queued at the end of the wait for credentials, or before when something presses.
    async fn wait(&mut self, end: Instant) -> Option<Job> {
        // Before the look, or what is queued between the two would press in vain.
        let pressing = self.pressing.notified();
        if let Ok(next) = self.jobs.try_recv() {
            return Some(next);
        }
        // However it ends.
        let _ = timeout_at(end, pressing).await;
        self.jobs.try_recv().ok()
    }
}

/// The writer's way to the database.
struct Link {
    db: Db,
    /// The connection to SQLite of the last commit. Another one would first have to read what this one has in its cache.
    /// A server may hang up, so the pool is asked for each commit there.
    kept: Option<Connection>,
}

impl Link {
    async fn take(&mut self) -> Result<Connection, sqlx::Error> {
        match self.kept.take() {
            Some(connection) => Ok(connection),
            None => self.db.connection().await,
        }
    }

    /// After a commit that worked; any other connection goes back to the pool, which checks it.
    fn keep(&mut self, connection: Connection) {
        if matches!(connection, Connection::Sqlite(_)) {
            self.kept = Some(connection);
        }
    }
}

/// Commits the group and answers everybody.
async fn serve(link: &mut Link, group: &mut Vec<(Write, Reply)>) {
    match commit(link, group.iter().map(|(write, _)| write)).await {
        Ok(answers) => {
            tell_all(group.drain(..).map(|(_, reply)| reply).zip(answers).collect());
        }
        // One write that the database does not take must not fail its neighbours: each by itself.
        Err(error) if group.len() > 1 && is_of_one_write(&error) => {
            for (write, reply) in group.drain(..) {
                let result = commit(link, [&write].into_iter()).await;
                reply.tell(result.map(|answers| answers.into_iter().sum()).map_err(refused));
            }
        }
        Err(error) => {
            if !is_of_one_write(&error) {
                tracing::error!(error = %error, writes = group.len(), "the control database refused a commit");
            }
            let error = refused(error);
            for (_, reply) in group.drain(..) {
                reply.tell(Err(error.clone()));
            }
        }
    }
}

/// Tells everybody that his write is durable. Those of one runtime are told by a task there, so that one wake crosses the
/// threads for all of them.
fn tell_all(mut replies: Vec<(Reply, i64)>) {
    while let Some(home) = replies.first().map(|(reply, _)| reply.home.clone()) {
        let mut of_home: Vec<_> = replies.extract_if(.., |(reply, _)| reply.home.id() == home.id()).collect();
        if of_home.len() == 1 {
            of_home.drain(..).for_each(|(reply, answer)| reply.tell(Ok(answer)));
        } else {
            home.spawn(async move { of_home.into_iter().for_each(|(reply, answer)| reply.tell(Ok(answer))) });
        }
    }
}

/// Whether the error is about the values of one write: they break a constraint, or PostgreSQL cannot hold them (data
/// exception, program limit exceeded).
pub(super) fn is_of_one_write(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        let state = error.code().filter(|code| code.len() == 5);
        error.is_unique_violation()
            || error.is_foreign_key_violation()
            || error.is_check_violation()
            || state.is_some_and(|state| state.starts_with("22") || state.starts_with("54"))
    })
}

fn refused(error: sqlx::Error) -> StoreError {
    match error.as_database_error() {
        // Whatever refers to another row refers to a device.
        Some(violation) if violation.is_foreign_key_violation() => StoreError::UnknownDevice,
        _ => error.into(),
    }
}

/// Commits the writes; returns what each answers.
async fn commit<'a>(
    link: &mut Link,
    writes: impl ExactSizeIterator<Item = &'a Write> + Clone,
) -> Result<Vec<i64>, sqlx::Error> {
    let count = writes.len();
    let mut connection = link.take().await?;
    let together = match only_credentials(writes.clone()) {
        Some(credentials) => put_together(&mut connection, &credentials).await?,
        None => false,
    };
    let answers = if together { vec![1; count] } else { one_by_one(&mut connection, writes).await? };
    link.keep(connection);
    counter!("vestibule_control_commits_total").increment(1);
    counter!("vestibule_control_writes_total").increment(count as u64);
    Ok(answers)
}

/// What the group writes when it writes nothing but credentials.
fn only_credentials<'a>(writes: impl Iterator<Item = &'a Write>) -> Option<Vec<&'a CredentialsWrite>> {
    writes
        .map(|write| match write {
            Write::Credentials(credentials) => Some(credentials),
            _ => None,
        })
        .collect()
}

/// One transaction with a statement or more for each write.
async fn one_by_one<'a>(
    connection: &mut Connection,
    writes: impl ExactSizeIterator<Item = &'a Write>,
) -> Result<Vec<i64>, sqlx::Error> {
    let mut answers = Vec::with_capacity(writes.len());
    let mut transaction = connection.begin().await?;
    for write in writes {
        answers.push(write.apply(&mut transaction).await?);
    }
    transaction.commit().await?;
    Ok(answers)
}

/// Executes one statement of a transaction and says how many rows it touched.
macro_rules! rows {
    ($transaction:expr, $sql:expr $(, $bind:expr)* $(,)?) => {
        $crate::db::on_db!(Transaction, $transaction, transaction => {
            let done = sqlx::query($sql)$(.bind($bind))*.execute(&mut **transaction).await;
            done.map(|done| i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
        })
    };
}
pub(super) use rows;

#[cfg(test)]
mod tests;
