//! The registry: one row for each device.

use sqlx::Row as _;

use super::Control;
use super::credential::{CodeUse, SealedCode};
use super::writer::{Write, rows};
use crate::db::{Transaction, on_db};
use crate::{DeviceId, InsertError, Secret, StoreError};

/// The most rows one [`Control::devices`] returns.
const MAX_DEVICES: i64 = 10_000;

/// A device of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRow {
    /// Our id.
    pub id: DeviceId,
    /// The external identity, unique.
    pub serial: String,
    /// The family, `osap` for example.
    pub family: String,
    /// What kind of product it is.
    pub product: Option<String>,
    /// What people call it.
    pub name: Option<String>,
    /// Where it belongs in the organisation.
    pub org: String,
    /// What people wrote on it, JSON.
    pub labels: String,
    /// How often name, place and labels were set, this time included.
    pub version: i64,
    /// When it was registered, Unix milliseconds.
    pub created: i64,
    /// Until when it may enrol again, Unix milliseconds; 0: no window was opened.
    pub enrol_until: i64,
    /// Whether an operator has shut it out.
    pub disabled: bool,
    /// Whether it has come in by a modern suite.
    pub modern: bool,
    /// Whether an operator lets it in over TLS alone.
    pub tls_only: bool,
    /// What has become of its code.
    pub code_use: CodeUse,
    /// Whether it has to show a certificate; none: as its product has to.
    pub certificate: Option<bool>,
    /// The device it is a part of.
    pub parent: Option<DeviceId>,
    /// The last failed connection fact, JSON.
    pub last_failure: Option<String>,
    /// The last known presence, JSON.
    pub presence: Option<String>,
}

impl Control {
    /// Registers a device with its verification code, which is given back sealed. A parent that does not exist is
    /// [`StoreError::UnknownDevice`].
    pub async fn insert_device(&self, row: &DeviceRow, code: &Secret) -> Result<SealedCode, InsertError> {
        let code = self.seal_code(&row.id, code);
        let sealed = SealedCode::new(&code);
        let row = Box::new(row.clone());
        match self.write(Write::Device(DeviceWrite::Insert { row, code })).await? {
            0 => Err(InsertError::SerialTaken),
            _ => Ok(sealed),
        }
    }

    /// Devices with an id beyond `after`, by id, at most `limit` (and never more than 10,000).
    pub async fn devices(&self, after: Option<DeviceId>, limit: i64) -> Result<Vec<DeviceRow>, StoreError> {
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let limit = limit.clamp(0, MAX_DEVICES);
        self.read(move |db| async move {
            on_db!(&db, pool => {
                let rows = sqlx::query(
                    "SELECT id, serial, family, product, name, created, enrol_until, last_failure, presence, disabled, \
                     parent, org, labels, version, modern, tls_only, one_time, code_spent, certificate \
                     FROM device WHERE id > $1 ORDER BY id LIMIT $2",
                )
                .bind(after)
                .bind(limit)
                .fetch_all(pool)
                .await?;
                rows.iter()
                    .map(|row| {
                        let is = |at: usize| row.try_get(at).map(|flag: i64| flag != 0);
                        let parent: Option<Vec<u8>> = row.try_get(10)?;
                        Ok(DeviceRow {
                            id: stored_id(&row.try_get::<Vec<u8>, _>(0)?)?,
                            serial: row.try_get(1)?,
                            family: row.try_get(2)?,
                            product: row.try_get(3)?,
                            name: row.try_get(4)?,
                            created: row.try_get(5)?,
                            enrol_until: row.try_get(6)?,
                            last_failure: row.try_get(7)?,
                            presence: row.try_get(8)?,
                            disabled: is(9)?,
                            parent: parent.as_deref().map(stored_id).transpose()?,
                            org: row.try_get(11)?,
                            labels: row.try_get(12)?,
                            version: row.try_get(13)?,
                            modern: is(14)?,
                            tls_only: is(15)?,
                            code_use: CodeUse::of(row.try_get(16)?, row.try_get(17)?),
                            certificate: row.try_get::<Option<i64>, _>(18)?.map(|demanded| demanded != 0),
                        })
                    })
                    .collect()
            })
        })
        .await
    }

    /// Removes a device with its credentials, its twin and its queue; false when there is none. Its records stay in the
    /// journal and in the audit until retention; its parts stay, without a parent.
    pub async fn remove_device(&self, id: DeviceId) -> Result<bool, StoreError> {
        Ok(self.write(Write::Device(DeviceWrite::Remove { id })).await? > 0)
    }

    /// Sets what people say of the device: its name, its place in the organisation and what they wrote on it.
    pub async fn describe(
        &self,
        id: DeviceId,
        name: Option<&str>,
        org: &str,
        labels: &str,
        version: i64,
    ) -> Result<(), StoreError> {
        let (name, org, labels) = (name.map(str::to_owned), org.to_owned(), labels.to_owned());
        self.update(Write::Device(DeviceWrite::Describe { id, name, org, labels, version })).await
    }

    /// Makes the device a part of another, or of none. [`StoreError::UnknownDevice`] is said of either.
    pub async fn set_parent(&self, id: DeviceId, parent: Option<DeviceId>) -> Result<(), StoreError> {
        self.update(Write::Device(DeviceWrite::Parent { id, parent })).await
    }

    /// Sets until when the device may enrol again, Unix milliseconds; 0 closes the window.
    pub async fn set_enrol_until(&self, id: DeviceId, until: i64) -> Result<(), StoreError> {
        self.update(Write::Device(DeviceWrite::EnrolUntil { id, until })).await
    }

    /// Gives the device another verification code and forgets what was agreed with it and which hub it is
    /// behind, at once; `tickets` is what is left of those of the modern suites.
    pub async fn rotate(
        &self,
        id: DeviceId,
        code: &Secret,
        one_time: bool,
        tickets: Option<Secret>,
    ) -> Result<(), StoreError> {
        let code = self.seal_code(&id, code);
        let tickets = tickets.map(|tickets| self.seal_tickets(&id, &tickets));
        self.update(Write::Device(DeviceWrite::Rotate { id, code, one_time, tickets })).await
    }

    /// Lets a code that was used up work once more.
    pub async fn rearm(&self, id: DeviceId) -> Result<(), StoreError> {
        self.update(Write::Device(DeviceWrite::Rearm { id })).await
    }

    /// Sets whether the device has to show a certificate; none: as its product has to.
    pub async fn demand_certificate(&self, id: DeviceId, demanded: Option<bool>) -> Result<(), StoreError> {
        self.update(Write::Device(DeviceWrite::Certificate { id, demanded })).await
    }

    /// The products whose devices have to show a certificate, or have not: by name, at most `limit`.
    pub async fn product_rules(&self, limit: i64) -> Result<Vec<(String, bool)>, StoreError> {
        let rows: Vec<(String, i64)> = self
            .read(move |db| async move {
                Ok(on_db!(&db, pool => {
                    sqlx::query_as("SELECT product, certificate FROM product_rule ORDER BY product LIMIT $1")
                        .bind(limit)
                        .fetch_all(pool)
                        .await?
                }))
            })
            .await?;
        Ok(rows.into_iter().map(|(product, certificate)| (product, certificate != 0)).collect())
    }

    /// Sets whether the devices of a product have to show a certificate; none: nothing is said of it any more.
    pub async fn set_product_rule(&self, product: &str, certificate: Option<bool>) -> Result<(), StoreError> {
        let product = product.to_owned();
        self.write(Write::Device(DeviceWrite::Product { product, certificate })).await.map(drop)
    }

    /// Shuts the device out, or lets it in again.
    pub async fn set_disabled(&self, id: DeviceId, disabled: bool) -> Result<(), StoreError> {
        self.update(Write::Device(DeviceWrite::Disabled { id, disabled })).await
    }

    /// Sets which suites are open to the device (osap-wire 13.4): the legacy ones are not to a `modern` one, and those over
    /// plain TCP are not to one that is `tls_only`.
    pub async fn set_suites(&self, id: DeviceId, modern: bool, tls_only: bool) -> Result<(), StoreError> {
        self.update(Write::Device(DeviceWrite::Suites { id, modern, tls_only })).await
    }
}

/// The id of a device as a row has it.
pub(super) fn stored_id(bytes: &[u8]) -> Result<DeviceId, StoreError> {
    DeviceId::from_stored(bytes).ok_or(StoreError::Corrupt("device id"))
}

/// The statement that registers a device, with this end.
macro_rules! insert_device {
    ($end:literal) => {
        concat!(
            "INSERT INTO device (id, serial, family, product, name, created, enrol_until, last_failure, presence, \
             code, disabled, parent, org, labels, version, modern, tls_only, one_time, code_spent, certificate) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
            $end
        )
    };
}
pub(super) use insert_device;

/// Registers a device with its sealed code by this statement, one of [`insert_device`].
pub(super) async fn insert(
    transaction: &mut Transaction<'_>,
    row: &DeviceRow,
    code: &[u8],
    statement: &'static str,
) -> Result<i64, sqlx::Error> {
    let stored = |id: &DeviceId| id.as_bytes().to_vec();
    let (one_time, spent) = row.code_use.columns();
    rows!(
        transaction,
        statement,
        stored(&row.id),
        &row.serial,
        &row.family,
        &row.product,
        &row.name,
        row.created,
        row.enrol_until,
        &row.last_failure,
        &row.presence,
        code.to_vec(),
        i64::from(row.disabled),
        row.parent.as_ref().map(stored),
        &row.org,
        &row.labels,
        row.version,
        i64::from(row.modern),
        i64::from(row.tls_only),
        one_time,
        spent,
        row.certificate.map(i64::from)
    )
}

/// A change of the registry. The code is sealed already.
pub(super) enum DeviceWrite {
    Insert { row: Box<DeviceRow>, code: Vec<u8> },
    Remove { id: DeviceId },
    Describe { id: DeviceId, name: Option<String>, org: String, labels: String, version: i64 },
    Parent { id: DeviceId, parent: Option<DeviceId> },
    EnrolUntil { id: DeviceId, until: i64 },
    Disabled { id: DeviceId, disabled: bool },
    Suites { id: DeviceId, modern: bool, tls_only: bool },
    Rotate { id: DeviceId, code: Vec<u8>, one_time: bool, tickets: Option<Vec<u8>> },
    Rearm { id: DeviceId },
    Certificate { id: DeviceId, demanded: Option<bool> },
    Product { product: String, certificate: Option<bool> },
}

impl DeviceWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        let stored = |id: &DeviceId| id.as_bytes().to_vec();
        match self {
            DeviceWrite::Insert { row, code } => {
                insert(transaction, row, code, insert_device!(" ON CONFLICT (serial) DO NOTHING")).await
            }
            DeviceWrite::Remove { id } => rows!(transaction, "DELETE FROM device WHERE id = $1", stored(id)),
            DeviceWrite::Describe { id, name, org, labels, version } => rows!(
                transaction,
                "UPDATE device SET name = $1, org = $2, labels = $3, version = $4 WHERE id = $5",
                name,
                org,
                labels,
                version,
                stored(id)
            ),
            DeviceWrite::Parent { id, parent } => rows!(
                transaction,
                "UPDATE device SET parent = $1 WHERE id = $2",
                parent.as_ref().map(stored),
                stored(id)
            ),
            DeviceWrite::EnrolUntil { id, until } => {
                rows!(transaction, "UPDATE device SET enrol_until = $1 WHERE id = $2", until, stored(id))
            }
            DeviceWrite::Rotate { id, code, one_time, tickets } => rows!(
                transaction,
                "UPDATE device SET code = $1, committed = NULL, candidate = NULL, tickets = $2, enrol_until = 0, \
                 parent = NULL, one_time = $3, code_spent = NULL WHERE id = $4",
                code,
                tickets,
                i64::from(*one_time),
                stored(id)
            ),
            DeviceWrite::Rearm { id } => {
                rows!(transaction, "UPDATE device SET code_spent = NULL WHERE id = $1", stored(id))
            }
            DeviceWrite::Certificate { id, demanded } => rows!(
                transaction,
                "UPDATE device SET certificate = $1 WHERE id = $2",
                demanded.map(i64::from),
                stored(id)
            ),
            DeviceWrite::Product { product, certificate: Some(certificate) } => rows!(
                transaction,
                "INSERT INTO product_rule (product, certificate) VALUES ($1, $2) \
                 ON CONFLICT (product) DO UPDATE SET certificate = excluded.certificate",
                product,
                i64::from(*certificate)
            ),
            DeviceWrite::Product { product, certificate: None } => {
                rows!(transaction, "DELETE FROM product_rule WHERE product = $1", product)
            }
            DeviceWrite::Disabled { id, disabled } => {
                rows!(transaction, "UPDATE device SET disabled = $1 WHERE id = $2", i64::from(*disabled), stored(id))
            }
            DeviceWrite::Suites { id, modern, tls_only } => rows!(
                transaction,
                "UPDATE device SET modern = $1, tls_only = $2 WHERE id = $3",
                i64::from(*modern),
                i64::from(*tls_only),
                stored(id)
            ),
        }
    }
}
