//! The audit: who did what, when, and whether it worked.

use sqlx::{Database, Encode, QueryBuilder, Type};

use super::Control;
use super::device::stored_id;
use super::writer::{EXPIRED, Write, rows};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, StoreError};

/// The most rows one [`Control::audits`] returns.
const MAX_AUDITS: usize = 1_000;

/// What somebody did, to be written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAudit {
    /// When, Unix milliseconds.
    pub time: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To which device.
    pub device: Option<DeviceId>,
    /// That device's external identity at the time.
    pub serial: Option<String>,
    /// Where what it is about belonged in the organisation at the time; none: to the whole.
    pub org: Option<String>,
    /// With what, JSON.
    pub detail: String,
    /// Whether it worked.
    pub ok: bool,
}

/// What somebody did, as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRow {
    /// Grows with every row.
    pub id: i64,
    /// When, Unix milliseconds.
    pub time: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// To which device; it may be gone.
    pub device: Option<DeviceId>,
    /// That device's external identity at the time.
    pub serial: Option<String>,
    /// With what, JSON.
    pub detail: String,
    /// Whether it worked.
    pub ok: bool,
}

/// Which rows [`Control::audits`] returns: all that match every given part, newest first, at most `limit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only of this device.
    pub device: Option<DeviceId>,
    /// Only by this one.
    pub actor: Option<String>,
    /// Only this.
    pub action: Option<String>,
    /// At or after this, Unix milliseconds.
    pub from: Option<i64>,
    /// Before this, Unix milliseconds.
    pub to: Option<i64>,
    /// Only of what belongs to this place in the organisation, or below: now, for a device that is there; at the time, for
    /// all else.
    pub subtree: Option<String>,
    /// Only what comes after the row with this id in the list; nothing when that row has expired.
    pub before: Option<i64>,
    /// How many at most; above 1,000 it is taken as that.
    pub limit: usize,
}

/// Writes down what somebody did, with whatever else the transaction does.
pub(crate) async fn add_audit(transaction: &mut Transaction<'_>, audit: NewAudit) -> Result<(), sqlx::Error> {
    AuditWrite::Add(Box::new(audit)).apply(transaction).await.map(drop)
}

impl Control {
    /// Writes a row, durably when this returns, and says which id it was given.
    pub async fn add_audit(&self, audit: NewAudit) -> Result<i64, StoreError> {
        self.write(Write::Audit(AuditWrite::Add(Box::new(audit)))).await
    }

    /// Reads the audit, by time and then by id, newest first.
    pub async fn audits(&self, query: &AuditQuery) -> Result<Vec<AuditRow>, StoreError> {
        type Row = (i64, i64, String, String, Option<Vec<u8>>, Option<String>, String, i64);
        let query = query.clone();
        self.read(|db| async move {
            let rows: Vec<Row> = on_db!(&db, pool => select(&query).build_query_as().fetch_all(pool).await?);
            rows.into_iter()
                .map(|(id, time, actor, action, device, serial, detail, ok)| {
                    let device = device.as_deref().map(stored_id).transpose()?;
                    Ok(AuditRow { id, time, actor, action, device, serial, detail, ok: ok != 0 })
                })
                .collect()
        })
        .await
    }

    /// Removes the rows before this time, Unix milliseconds; returns how many there were.
    pub async fn expire_audits(&self, before_ms: i64) -> Result<u64, StoreError> {
        self.expire(|| Write::Audit(AuditWrite::Expire { before: before_ms })).await
    }
}

/// The query; each filter has an index in the order of the list.
fn select<DB>(audit: &AuditQuery) -> QueryBuilder<DB>
where
    DB: Database,
    i32: Encode<'static, DB> + Type<DB>,
    i64: Encode<'static, DB> + Type<DB>,
    Vec<u8>: Encode<'static, DB> + Type<DB>,
    String: Encode<'static, DB> + Type<DB>,
{
    let mut query =
        QueryBuilder::new("SELECT id, time, actor, action, device, serial, detail, ok FROM audit WHERE 1 = 1");
    if let Some(device) = &audit.device {
        query.push(" AND device = ").push_bind(device.as_bytes().to_vec());
    }
    for (column, value) in [(" AND actor = ", &audit.actor), (" AND action = ", &audit.action)] {
        if let Some(value) = value {
            query.push(column).push_bind(storable(value));
        }
    }
    if let Some(from) = audit.from {
        query.push(" AND time >= ").push_bind(from);
    }
    if let Some(to) = audit.to {
        query.push(" AND time < ").push_bind(to);
    }
    if let Some(subtree) = &audit.subtree {
        const ORG: &str = "COALESCE((SELECT org FROM device WHERE device.id = audit.device), audit.org)";
        let below = format!("{subtree}/");
        let length = i32::try_from(below.chars().count()).unwrap_or(i32::MAX);
        query.push(format!(" AND ({ORG} = ")).push_bind(subtree.clone());
        query.push(format!(" OR substr({ORG}, 1, ")).push_bind(length).push(") = ").push_bind(below).push(")");
    }
    if let Some(before) = audit.before {
        query.push(" AND (time, id) < (SELECT time, id FROM audit WHERE id = ").push_bind(before).push(")");
    }
    query.push(" ORDER BY time DESC, id DESC LIMIT ");
    query.push_bind(i64::try_from(audit.limit.min(MAX_AUDITS)).unwrap_or(i64::MAX));
    query
}

/// PostgreSQL takes no U+0000 in text, and what somebody tried must be written down all the same.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

/// A change of the audit.
pub(super) enum AuditWrite {
    Add(Box<NewAudit>),
    Expire { before: i64 },
}

impl AuditWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            AuditWrite::Add(audit) => on_db!(Transaction, transaction, transaction => sqlx::query_scalar(
                "INSERT INTO audit (time, actor, action, device, serial, detail, ok, org) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
            )
            .bind(audit.time)
            .bind(storable(&audit.actor))
            .bind(storable(&audit.action))
            .bind(audit.device.as_ref().map(|device| device.as_bytes().to_vec()))
            .bind(audit.serial.as_deref().map(storable))
            .bind(storable(&audit.detail))
            .bind(i64::from(audit.ok))
            .bind(audit.org.as_deref().map(storable))
            .fetch_one(&mut **transaction)
            .await),
            AuditWrite::Expire { before } => rows!(
                transaction,
                "DELETE FROM audit WHERE id IN (SELECT id FROM audit WHERE time < $1 ORDER BY time, id LIMIT $2)",
                before,
                EXPIRED
            ),
        }
    }
}
