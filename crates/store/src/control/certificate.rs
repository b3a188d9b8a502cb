//! Certificates: the platform's own with their keys, and those that were issued to devices.

use super::Control;
use super::writer::{EXPIRED, Write, rows};
use crate::db::{Transaction, on_db};
use crate::envelope::{Place, Sealed};
use crate::{Secret, StoreError};

/// The column that keys are sealed for.
const KEY: Sealed = Sealed::CertificateKey;
/// The most rows of the platform's own.
const MAX_OWN: i64 = 1_000;
/// The most rows one list of devices' certificates returns.
const MAX_ROWS: i64 = 100_000;

/// A certificate of the platform's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateRow {
    /// What it is called; one of the same name takes its place.
    pub id: String,
    /// What it is for; the platform's to say.
    pub kind: String,
    /// The certificate and those above it, PEM.
    pub chain: String,
    /// Its private key, PKCS #8, when it has one of its own.
    pub key: Option<Secret>,
}

/// A certificate that was issued to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCertificateRow {
    /// The certificate's serial number.
    pub serial: Vec<u8>,
    /// Common name of who issued it.
    pub issuer: String,
    /// The serial of the device.
    pub device: String,
    /// When it was issued, Unix milliseconds.
    pub made: i64,
    /// When it ends, Unix milliseconds.
    pub ends: i64,
    /// Since when it is revoked, Unix milliseconds.
    pub revoked: Option<i64>,
}

/// Which certificates of devices to list.
#[derive(Clone, Debug, Default)]
pub struct DeviceCertificateQuery {
    /// Of this device only.
    pub device: Option<String>,
    /// That end at this time or before and are not revoked; of each device the newest only.
    pub ending: Option<i64>,
    /// Those that are revoked only.
    pub revoked: bool,
    /// That end at this time or later.
    pub lasting: Option<i64>,
    /// Beyond this certificate's serial number.
    pub after: Option<Vec<u8>>,
    /// At most so many; never more than 100,000.
    pub limit: i64,
}

type Columns = (Vec<u8>, String, String, i64, i64, Option<i64>);

impl Control {
    /// The platform's own certificates, 1,000 at most.
    pub async fn certificates(&self) -> Result<Vec<CertificateRow>, StoreError> {
        let rows: Vec<(String, String, String, Option<Vec<u8>>)> = self
            .read(|db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT id, kind, chain, sealed FROM certificate ORDER BY id LIMIT $1")
                        .bind(MAX_OWN)
                        .fetch_all(pool)
                        .await?
                }))
            })
            .await?;
        rows.into_iter()
            .map(|(id, kind, chain, sealed)| {
                let place = Place { column: KEY, row: id.as_bytes() };
                let key = sealed.map(|sealed| self.0.envelope.open_sealed(&sealed, &place)).transpose()?;
                Ok(CertificateRow { id, kind, chain, key })
            })
            .collect()
    }

    /// Keeps certificates of the platform's own, all of them or none, durably when this returns.
    pub async fn put_certificates(&self, rows: Vec<CertificateRow>) -> Result<(), StoreError> {
        self.replace_certificates(Vec::new(), rows).await
    }

    /// Removes certificates of the platform's own and keeps others, all of that or nothing, durably when this returns.
    pub async fn replace_certificates(&self, gone: Vec<String>, rows: Vec<CertificateRow>) -> Result<(), StoreError> {
        let sealed = |row: CertificateRow| {
            let place = Place { column: KEY, row: row.id.as_bytes() };
            let sealed = row.key.as_ref().map(|key| self.0.envelope.seal(key, &place));
            (row.id, row.kind, row.chain, sealed)
        };
        let rows = rows.into_iter().map(sealed).collect();
        self.write(Write::Certificate(CertificateWrite::Replace { gone, rows })).await.map(drop)
    }

    /// Keeps a certificate that was issued to a device, durably when this returns.
    pub async fn add_device_certificate(&self, row: DeviceCertificateRow) -> Result<(), StoreError> {
        self.write(Write::Certificate(CertificateWrite::Issued(Box::new(row)))).await.map(drop)
    }

    /// Certificates of devices by their serial number.
    pub async fn device_certificates(
        &self,
        query: DeviceCertificateQuery,
    ) -> Result<Vec<DeviceCertificateRow>, StoreError> {
        self.read(move |db| async move {
            let rows: Vec<Columns> = on_db!(&db, pool => sqlx::query_as(
                "SELECT serial, issuer, device, made, ends, revoked FROM device_certificate AS one \
                 WHERE serial > $1 AND ($2 OR device = $3) AND (revoked IS NOT NULL OR NOT $4) \
                 AND ($5 OR (ends <= $6 AND revoked IS NULL AND NOT EXISTS (SELECT 1 FROM device_certificate AS newer \
                 WHERE newer.device = one.device AND newer.revoked IS NULL AND newer.ends > one.ends))) \
                 AND ends >= $7 ORDER BY serial LIMIT $8",
            )
            .bind(query.after.unwrap_or_default())
            .bind(query.device.is_none())
            .bind(query.device.unwrap_or_default())
            .bind(query.revoked)
            .bind(query.ending.is_none())
            .bind(query.ending.unwrap_or_default())
            .bind(query.lasting.unwrap_or(i64::MIN))
            .bind(query.limit.clamp(0, MAX_ROWS))
            .fetch_all(pool)
            .await?);
            let row = |(serial, issuer, device, made, ends, revoked)| DeviceCertificateRow {
                serial,
                issuer,
                device,
                made,
                ends,
                revoked,
            };
            Ok(rows.into_iter().map(row).collect())
        })
        .await
    }

    /// Revokes a certificate of a device, durably when this returns; false when there is none that is not revoked.
    pub async fn revoke_certificate(&self, serial: &[u8], now: i64) -> Result<bool, StoreError> {
        let serial = serial.to_vec();
        Ok(self.write(Write::Certificate(CertificateWrite::Revoke { serial, now })).await? > 0)
    }

    /// Revokes every certificate of a device, durably when this returns; returns how many there were.
    pub async fn revoke_certificates_of(&self, device: &str, now: i64) -> Result<u64, StoreError> {
        let device = device.to_owned();
        let revoked = self.write(Write::Certificate(CertificateWrite::RevokeAll { device, now })).await?;
        Ok(revoked.unsigned_abs())
    }

    /// Who has issued certificates of devices, common names, 1,000 at most.
    pub async fn device_issuers(&self) -> Result<Vec<String>, StoreError> {
        self.read(|db| async move {
            Ok(on_db!(&db, pool => {
                sqlx::query_scalar("SELECT DISTINCT issuer FROM device_certificate LIMIT $1")
                    .bind(MAX_OWN)
                    .fetch_all(pool)
                    .await?
            }))
        })
        .await
    }

    /// Removes certificates of devices that this issuer has made and that ended before `now`; returns how many there were.
    pub async fn expire_certificates(&self, issuer: &str, now: i64) -> Result<u64, StoreError> {
        self.expire(|| Write::Certificate(CertificateWrite::Expire { issuer: issuer.to_owned(), now })).await
    }
}

/// A change of the certificates.
pub(super) enum CertificateWrite {
    Replace {
        gone: Vec<String>,
        /// Id, kind, chain and sealed key.
        rows: Vec<(String, String, String, Option<Vec<u8>>)>,
    },
    Issued(Box<DeviceCertificateRow>),
    Revoke {
        serial: Vec<u8>,
        now: i64,
    },
    RevokeAll {
        device: String,
        now: i64,
    },
    Expire {
        issuer: String,
        now: i64,
    },
}

impl CertificateWrite {
    pub(super) fn weight(&self) -> usize {
        match self {
            CertificateWrite::Replace { gone, rows } => gone.len() + rows.len(),
            CertificateWrite::Expire { .. } => EXPIRED as usize,
            _ => 1,
        }
    }

    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        match self {
            CertificateWrite::Replace { gone, rows } => {
                let mut touched = 0;
                for id in gone {
                    touched += rows!(transaction, "DELETE FROM certificate WHERE id = $1", id)?;
                }
                for (id, kind, chain, sealed) in rows {
                    touched += rows!(
                        transaction,
                        "INSERT INTO certificate (id, kind, chain, sealed) VALUES ($1, $2, $3, $4) \
                         ON CONFLICT (id) DO UPDATE SET kind = excluded.kind, chain = excluded.chain, \
                         sealed = excluded.sealed",
                        id,
                        kind,
                        chain,
                        sealed
                    )?;
                }
                Ok(touched)
            }
            CertificateWrite::Issued(row) => rows!(
                transaction,
                "INSERT INTO device_certificate (serial, issuer, device, made, ends, revoked) \
                 VALUES ($1, $2, $3, $4, $5, $6)",
                &row.serial,
                &row.issuer,
                &row.device,
                row.made,
                row.ends,
                row.revoked
            ),
            CertificateWrite::Revoke { serial, now } => rows!(
                transaction,
                "UPDATE device_certificate SET revoked = $1 WHERE serial = $2 AND revoked IS NULL",
                now,
                serial
            ),
            CertificateWrite::RevokeAll { device, now } => rows!(
                transaction,
                "UPDATE device_certificate SET revoked = $1 WHERE device = $2 AND revoked IS NULL",
                now,
                device
            ),
            CertificateWrite::Expire { issuer, now } => rows!(
                transaction,
                "DELETE FROM device_certificate WHERE serial IN \
                 (SELECT serial FROM device_certificate WHERE issuer = $1 AND ends < $2 LIMIT $3)",
                issuer,
                now,
                EXPIRED
            ),
        }
    }
}
