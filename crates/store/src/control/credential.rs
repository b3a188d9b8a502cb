//! What devices authenticate with: verification codes and credentials, sealed before they reach the database.

mod encoding;

use std::fmt;
use std::sync::LazyLock;

use super::Control;
use super::device::stored_id;
use super::statements::Statements;
use super::writer::{Write, rows};
use crate::db::{Connection, Transaction, on_db};
use crate::envelope::{Place, Sealed};
use crate::{DeviceId, Secret, StoreError};

/// Credentials of one statement at most; a power of two.
const TOGETHER: usize = 64;

const CODE: Sealed = Sealed::DeviceCode;
const COMMITTED: Sealed = Sealed::DeviceCommitted;
const CANDIDATE: Sealed = Sealed::DeviceCandidate;
const TICKETS: Sealed = Sealed::DeviceTickets;

/// A device's verification code as it is stored: sealed, and of use to [`Control::open_code`] only.
#[derive(Clone)]
pub struct SealedCode(Box<[u8]>);

impl fmt::Debug for SealedCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealedCode(..)")
    }
}

impl SealedCode {
    pub(super) fn new(sealed: &[u8]) -> SealedCode {
        SealedCode(sealed.into())
    }
}

/// How often a device may enrol with its code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CodeUse {
    /// As often as it may enrol.
    #[default]
    Lasting,
    /// Once, and it has not done so yet.
    OneTime,
    /// Once, and it did so at this time, Unix milliseconds.
    Spent(i64),
}

impl CodeUse {
    /// What becomes of it when the device has enrolled.
    #[must_use]
    pub fn spend(self, now: i64) -> CodeUse {
        match self {
            CodeUse::OneTime => CodeUse::Spent(now),
            other => other,
        }
    }

    pub(super) fn columns(self) -> (i64, Option<i64>) {
        match self {
            CodeUse::Lasting => (0, None),
            CodeUse::OneTime => (1, None),
            CodeUse::Spent(at) => (1, Some(at)),
        }
    }

    pub(super) fn of(one_time: i64, spent: Option<i64>) -> CodeUse {
        match (one_time, spent) {
            (0, _) => CodeUse::Lasting,
            (_, None) => CodeUse::OneTime,
            (_, Some(at)) => CodeUse::Spent(at),
        }
    }
}

/// What a device authenticates with after a first authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The suite it was agreed in.
    pub suite: String,
    /// Which first authentication of the device this is from.
    pub epoch: i64,
    /// The id the device was given.
    pub dev_id: String,
    /// The master key.
    pub master_key: Secret,
    /// The session key, once there is one.
    pub session_key: Option<Secret>,
    /// When its session key was made, or else the credential, Unix milliseconds.
    pub created: i64,
    /// Whether the device hashes its code in lower case.
    pub code_case_lower: bool,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("suite", &self.suite).field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// The credentials of a device: those in force and those on trial.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// Proven by the device.
    pub committed: Option<Credential>,
    /// Given to the device, not proven by it yet.
    pub candidate: Option<Credential>,
    /// What was agreed with the device under a modern suite, as its adapter encodes it.
    pub tickets: Option<Secret>,
    /// The device has come in by a modern suite: the legacy ones are closed to it (osap-wire 13.4).
    pub modern: bool,
    /// What has become of its code. What is written can use a code up, and nothing else.
    pub code: CodeUse,
}

impl Control {
    /// The verification code of a device; `None` when there is no such device.
    pub async fn code(&self, id: DeviceId) -> Result<Option<Secret>, StoreError> {
        Ok(self.secrets(id).await?.0)
    }

    /// The credentials of a device; none for a device that has none or does not exist.
    pub async fn credentials(&self, id: DeviceId) -> Result<Credentials, StoreError> {
        Ok(self.secrets(id).await?.1)
    }

    /// The codes of the devices that nothing was agreed with yet.
    pub async fn new_codes(&self) -> Result<Vec<(DeviceId, SealedCode)>, StoreError> {
        self.read(move |db| async move {
            let rows: Vec<(Vec<u8>, Vec<u8>)> = on_db!(&db, pool => sqlx::query_as(
                "SELECT id, code FROM device \
                 WHERE committed IS NULL AND candidate IS NULL AND tickets IS NULL AND modern = 0",
            )
            .fetch_all(pool)
            .await?);
            rows.iter().map(|(id, code)| Ok((stored_id(id)?, SealedCode::new(code)))).collect()
        })
        .await
    }

    /// Opens a code that was sealed for this device.
    pub fn open_code(&self, id: DeviceId, code: &SealedCode) -> Result<Secret, StoreError> {
        self.0.envelope.open_sealed(&code.0, &place(&id, CODE))
    }

    /// Code and credentials of a device in one question: a device that comes in for the first time waits for both.
    pub async fn secrets(&self, id: DeviceId) -> Result<(Option<Secret>, Credentials), StoreError> {
        type Sealed = Option<Vec<u8>>;
        type Row = (Vec<u8>, Sealed, Sealed, Sealed, i64, i64, Option<i64>);
        let row: Option<Row> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as(
                        "SELECT code, committed, candidate, tickets, modern, one_time, code_spent FROM device \
                         WHERE id = $1",
                    )
                    .bind(id.as_bytes().to_vec())
                    .fetch_optional(pool)
                    .await?
                }))
            })
            .await?;
        let Some((code, committed, candidate, tickets, modern, one_time, spent)) = row else {
            return Ok((None, Credentials::default()));
        };
        let open = |sealed: Vec<u8>, column| self.0.envelope.open_sealed(&sealed, &place(&id, column));
        let credential = |sealed: Option<Vec<u8>>, column| {
            let Some(sealed) = sealed else { return Ok(None) };
            let stored = open(sealed, column)?;
            encoding::decode(stored.expose()).map(Some).ok_or(StoreError::Corrupt("credential"))
        };
        let credentials = Credentials {
            committed: credential(committed, COMMITTED)?,
            candidate: credential(candidate, CANDIDATE)?,
            tickets: tickets.map(|sealed| open(sealed, TICKETS)).transpose()?,
            modern: modern != 0,
            code: CodeUse::of(one_time, spent),
        };
        Ok((Some(open(code, CODE)?), credentials))
    }

    /// Replaces the credentials of a device; a slot that is None is emptied. Returns when durable; callers at the same
    /// time share a transaction.
    pub async fn put_credentials(&self, id: DeviceId, credentials: &Credentials) -> Result<(), StoreError> {
        let seal = |credential: &Option<Credential>, column| {
            let credential = credential.as_ref()?;
            Some(self.0.envelope.seal(&encoding::encode(credential), &place(&id, column)))
        };
        let committed = seal(&credentials.committed, COMMITTED);
        let candidate = seal(&credentials.candidate, CANDIDATE);
        let tickets = credentials.tickets.as_ref().map(|tickets| self.seal_tickets(&id, tickets));
        let (modern, (_, spent)) = (credentials.modern, credentials.code.columns());
        self.update(Write::Credentials(CredentialsWrite { id, committed, candidate, tickets, modern, spent })).await
    }

    pub(super) fn seal_tickets(&self, id: &DeviceId, tickets: &Secret) -> Vec<u8> {
        self.0.envelope.seal(tickets, &place(id, TICKETS))
    }

    pub(super) fn seal_code(&self, id: &DeviceId, code: &Secret) -> Vec<u8> {
        self.0.envelope.seal(code, &place(id, CODE))
    }
}

fn place<'a>(id: &'a DeviceId, column: Sealed) -> Place<'a> {
    Place { column, row: id.as_bytes() }
}

/// The sealed credentials of a device, to be written.
pub(super) struct CredentialsWrite {
    id: DeviceId,
    committed: Option<Vec<u8>>,
    candidate: Option<Vec<u8>>,
    tickets: Option<Vec<u8>>,
    modern: bool,
    spent: Option<i64>,
}

impl CredentialsWrite {
    /// That nothing is agreed with the device.
    #[cfg(test)]
    pub(super) fn none(id: DeviceId) -> CredentialsWrite {
        CredentialsWrite { id, committed: None, candidate: None, tickets: None, modern: false, spent: None }
    }

    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        rows!(
            transaction,
            "UPDATE device SET committed = $1, candidate = $2, tickets = $3, modern = $4, \
             code_spent = COALESCE(code_spent, $5) WHERE id = $6",
            &self.committed,
            &self.candidate,
            &self.tickets,
            i64::from(self.modern),
            self.spent,
            self.id.as_bytes().to_vec()
        )
    }
}

/// The statements that write credentials together.
static STATEMENTS: LazyLock<Statements<TOGETHER>> = LazyLock::new(|| {
    Statements::new(6, |rows| {
        format!(
            "UPDATE device SET committed = given.column2, candidate = given.column3, tickets = given.column4, \
             modern = given.column5, code_spent = COALESCE(device.code_spent, given.column6) \
             FROM (VALUES {rows}) AS given WHERE device.id = given.column1"
        )
    })
});

/// Writes credentials with as few statements as possible, each a commit of its own; false when some device does not exist
/// or occurs twice, and then nothing is known of any of them. They may be written again.
///
/// Fleets that enrol wait for this: each statement of a transaction is a trip to the database and back, and so are its
/// beginning and its end.
pub(super) async fn put_together(
    connection: &mut Connection,
    credentials: &[&CredentialsWrite],
) -> Result<bool, sqlx::Error> {
    for some in credentials.chunks(TOGETHER) {
        // Rows without an id fill it up.
        let (statement, rows) = STATEMENTS.of(connection.dialect(), some.len());
        let written = on_db!(Connection, &mut *connection, connection => {
            let mut query = sqlx::query(statement);
            for write in some {
                query = query
                    .bind(write.id.as_bytes().to_vec())
                    .bind(&write.committed)
                    .bind(&write.candidate)
                    .bind(&write.tickets)
                    .bind(i64::from(write.modern))
                    .bind(write.spent);
            }
            for _ in some.len()..rows {
                query = query
                    .bind(None::<Vec<u8>>)
                    .bind(None::<Vec<u8>>)
                    .bind(None::<Vec<u8>>)
                    .bind(None::<Vec<u8>>)
                    .bind(None::<i64>)
                    .bind(None::<i64>);
            }
            query.execute(&mut **connection).await?.rows_affected()
        });
        if written != some.len() as u64 {
            return Ok(false);
        }
    }
    Ok(true)
}
