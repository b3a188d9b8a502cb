//! The one task that writes to the control database: what is queued shares a transaction.

use std::time::Duration;

use metrics::counter;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
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
/// How long credentials wait for others while a fleet comes in. A commit costs what many rows do, and in a first
/// authentication this is the smaller part of the time.
const GATHER: Duration = Duration::from_millis(4);
/// Credentials of one commit from which on none waits for more.
const GATHERED: usize = 32;
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
    /// To who calls this; what it is told comes there.
    pub(super) fn new() -> (Reply, oneshot::Receiver<Answer>) {
        let (answer, told) = oneshot::channel();
        (Reply { answer, home: Handle::current() }, told)
    }

    fn tell(self, answer: Answer) {
        // A caller that no longer waits does not need it.
        let _ = self.answer.send(answer);
    }
}

/// One write. It answers how many rows it touched; a new row of the audit, which id it was given.
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

/// Serves the queue until asked to stop or nobody can ask any more.
pub(super) async fn run(db: Db, mut jobs: mpsc::Receiver<Job>) {
    let mut link = Link { db, kept: None };
    let mut group = Group::default();
    let mut stop = false;
    while !stop && let Some(job) = jobs.recv().await {
        // Who comes alone waits for nobody: the last commit was one of several, or this one is.
        let crowded = group.gathered > 1;
        stop = group.gather(job, &mut jobs, crowded).await;
        serve(&mut link, &mut group.writes).await;
    }
    jobs.close();
}

/// The writes of one commit.
#[derive(Default)]
struct Group {
    writes: Vec<(Write, Reply)>,
    /// How many there were, also when they are served.
    gathered: usize,
    rows: usize,
}

impl Group {
    /// Takes what is queued, and of a crowd that brings credentials what comes within [`GATHER`]; true when the writer is to
    /// stop.
    async fn gather(&mut self, first: Job, jobs: &mut mpsc::Receiver<Job>, crowded: bool) -> bool {
        (self.gathered, self.rows) = (0, 0);
        let end = Instant::now() + GATHER;
        let mut only_credentials = true;
        let mut job = first;
        loop {
            let Job::Write(write, reply) = job else { return true };
            only_credentials &= matches!(write, Write::Credentials(_));
            self.rows += write.weight();
            self.gathered += 1;
            self.writes.push((write, reply));
            if self.rows >= GROUP {
                return false;
            }
            let waits = only_credentials && (crowded || self.gathered > 1) && self.gathered < GATHERED;
            job = match jobs.try_recv() {
                Ok(next) => next,
                Err(_) if waits => match timeout_at(end, jobs.recv()).await {
                    Ok(Some(next)) => next,
                    Ok(None) | Err(_) => return false,
                },
                Err(_) => return false,
            };
        }
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
fn is_of_one_write(error: &sqlx::Error) -> bool {
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
mod tests {
    use super::*;
    use crate::DeviceId;
    use crate::control::device::DeviceWrite;

    fn job(write: Write) -> Job {
        Job::Write(write, Reply::new().0)
    }

    fn credentials() -> Job {
        job(Write::Credentials(CredentialsWrite::none(DeviceId::mint())))
    }

    fn other() -> Job {
        job(Write::Device(DeviceWrite::Remove { id: DeviceId::mint() }))
    }

    /// How many writes come into the commit that begins with credentials, and how long they wait.
    async fn gathered(crowded: bool, later: Vec<(u64, Job)>) -> (usize, Duration) {
        let (writes, mut jobs) = mpsc::channel(100);
        let begun = Instant::now();
        tokio::spawn(async move {
            for (at, job) in later {
                tokio::time::sleep_until(begun + Duration::from_millis(at)).await;
                writes.send(job).await.expect("the test takes it");
            }
            std::future::pending::<()>().await;
        });
        let mut group = Group::default();
        assert!(!group.gather(credentials(), &mut jobs, crowded).await);
        assert_eq!(group.writes.len(), group.gathered);
        (group.gathered, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_alone_waits_for_nobody() {
        assert_eq!(gathered(false, vec![(1, credentials())]).await, (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn credentials_of_a_crowd_wait_for_each_other_and_no_longer_than_said() {
        let later = || vec![(1, credentials()), (3, credentials()), (9, credentials())];
        assert_eq!(gathered(true, later()).await, (3, GATHER));
        let many = (0..100).map(|_| (1, credentials())).collect();
        assert_eq!(gathered(true, many).await.1, Duration::from_millis(1), "enough of them wait for no more");
    }

    #[tokio::test(start_paused = true)]
    async fn another_write_is_kept_waiting_by_no_credentials() {
        let later = vec![(1, credentials()), (2, other()), (3, credentials())];
        assert_eq!(gathered(true, later).await, (3, Duration::from_millis(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_kept_waiting_by_nobody() {
        let (writes, mut jobs) = mpsc::channel(100);
        writes.send(credentials()).await.expect("there is room");
        writes.send(Job::Stop).await.expect("there is room");
        let begun = Instant::now();
        let mut group = Group::default();
        assert!(group.gather(credentials(), &mut jobs, true).await);
        assert_eq!((group.gathered, begun.elapsed()), (2, Duration::ZERO), "what came before it is served");
    }
}
