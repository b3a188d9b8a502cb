//! By which root of the platform each device knows it, as far as it has said so.

use super::Control;
use super::device::stored_id;
use super::writer::{Write, rows};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, StoreError};

/// What is stored of a device that needs no root.
const PLAIN: &str = "-";
/// Rows of one answer at most.
const MAX_ROWS: i64 = 1_001;

/// By what a device knows the platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// A root, its SHA-256 in hexadecimal.
    Root(String),
    /// It comes over TLS and has not said by what.
    Untold,
    /// It comes without TLS.
    Plain,
}

impl KnownBy {
    fn stored(&self) -> &str {
        match self {
            KnownBy::Root(root) => root,
            KnownBy::Untold => "",
            KnownBy::Plain => PLAIN,
        }
    }
}

/// A device that does not know the platform by a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverdueRow {
    /// The device.
    pub device: DeviceId,
    /// Its serial.
    pub serial: String,
    /// The root it knows instead, SHA-256 in hexadecimal.
    pub root: Option<String>,
    /// Since when that is so, Unix milliseconds; `None`: it was not in since devices are asked.
    pub since: Option<i64>,
}

impl Control {
    /// Notes by what a device knows the platform, durably when this returns; since `now`, unless it was so before. One visit
    /// without TLS says nothing against what is known of a device that comes over TLS. False when nothing was new, or there is no
    /// such device.
    pub async fn note_root(&self, device: DeviceId, known: &KnownBy, now: i64) -> Result<bool, StoreError> {
        let write = RootWrite { device, root: known.stored().to_owned(), now };
        match self.write(Write::Root(write)).await {
            Ok(touched) => Ok(touched > 0),
            Err(StoreError::UnknownDevice) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Devices that come over TLS and do not know this root, SHA-256 in hexadecimal; by their serials, beyond `after`, at most
    /// `limit` and never more than 1,001. Also those that were not in since devices are asked, unless they never come by a
    /// modern suite.
    pub async fn overdue_roots(&self, root: &str, after: &str, limit: i64) -> Result<Vec<OverdueRow>, StoreError> {
        let (root, after) = (root.to_owned(), after.to_owned());
        type Columns = (Vec<u8>, String, Option<String>, Option<i64>);
        let rows: Vec<Columns> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => sqlx::query_as(
                    "SELECT device.id, device.serial, known.root, known.since FROM device \
                     LEFT JOIN device_root AS known ON known.device = device.id \
                     WHERE device.modern = 1 AND device.serial > $1 AND (known.root IS NULL OR known.root NOT IN ($2, $3)) \
                     ORDER BY device.serial LIMIT $4",
                )
                .bind(after)
                .bind(root)
                .bind(PLAIN)
                .bind(limit.clamp(0, MAX_ROWS))
                .fetch_all(pool)
                .await?))
            })
            .await?;
        let row = |(device, serial, root, since): Columns| {
            let root = root.filter(|root| !root.is_empty());
            Ok(OverdueRow { device: stored_id(&device)?, serial, root, since })
        };
        rows.into_iter().map(row).collect()
    }

    /// How many devices [`Control::overdue_roots`] would list.
    pub async fn count_overdue_roots(&self, root: &str) -> Result<u64, StoreError> {
        let root = root.to_owned();
        let count: i64 = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => sqlx::query_scalar(
                    "SELECT COUNT(*) FROM device LEFT JOIN device_root AS known ON known.device = device.id \
                     WHERE device.modern = 1 AND (known.root IS NULL OR known.root NOT IN ($1, $2))",
                )
                .bind(root)
                .bind(PLAIN)
                .fetch_one(pool)
                .await?))
            })
            .await?;
        Ok(count.unsigned_abs())
    }

    /// How many devices that come in by themselves have never done so: nothing tells by which root their programs know the
    /// platform.
    pub async fn count_unseen_devices(&self) -> Result<u64, StoreError> {
        let count: i64 = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => sqlx::query_scalar(
                    "SELECT COUNT(*) FROM device WHERE committed IS NULL AND candidate IS NULL AND tickets IS NULL \
                     AND modern = 0 AND parent IS NULL",
                )
                .fetch_one(pool)
                .await?))
            })
            .await?;
        Ok(count.unsigned_abs())
    }

    /// How many certificates of devices this issuer has made that are neither revoked nor ended.
    pub async fn count_certificates_of(&self, issuer: &str, now: i64) -> Result<u64, StoreError> {
        let issuer = issuer.to_owned();
        let count: i64 = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => sqlx::query_scalar(
                    "SELECT COUNT(*) FROM device_certificate WHERE issuer = $1 AND revoked IS NULL AND ends >= $2",
                )
                .bind(issuer)
                .bind(now)
                .fetch_one(pool)
                .await?))
            })
            .await?;
        Ok(count.unsigned_abs())
    }
}

/// A note of what a device knows.
pub(super) struct RootWrite {
    device: DeviceId,
    root: String,
    now: i64,
}

impl RootWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        rows!(
            transaction,
            "INSERT INTO device_root (device, root, since) VALUES ($1, $2, $3) \
             ON CONFLICT (device) DO UPDATE SET root = excluded.root, since = excluded.since \
             WHERE device_root.root <> excluded.root AND excluded.root <> $4",
            self.device.as_bytes().to_vec(),
            &self.root,
            self.now,
            PLAIN
        )
    }
}
