//! Many devices registered at once: all of them, or none.

use super::audit::AuditWrite;
use super::device::{insert, insert_device};
use super::job::JobWrite;
use super::writer::Write;
use super::{Control, DeviceRow, JobRow, NewAudit, SealedCode};
use crate::db::Transaction;
use crate::{InsertError, Secret, StoreError};

/// The most devices one [`Control::enlist`] takes.
const MAX_DEVICES: usize = 1_000;

impl Control {
    /// Registers devices with their verification codes, which are given back sealed, in one transaction with what the audit
    /// says of them and how far the job is whose devices they are. The first 1,000 are taken.
    ///
    /// # Errors
    /// Nothing was done. A serial that is taken, or a parent that does not exist ([`StoreError::UnknownDevice`]), fails all of them.
    pub async fn enlist(
        &self,
        devices: &[(DeviceRow, Secret)],
        audits: Vec<NewAudit>,
        job: Option<JobRow>,
    ) -> Result<Vec<SealedCode>, InsertError> {
        let some = &devices[..devices.len().min(MAX_DEVICES)];
        let rows: Vec<_> = some.iter().map(|(row, code)| (row.clone(), self.seal_code(&row.id, code))).collect();
        let sealed = rows.iter().map(|(_, code)| SealedCode::new(code)).collect();
        let audits = audits.into_iter().map(|audit| AuditWrite::Add(Box::new(audit))).collect();
        let job = job.map(|job| JobWrite::Put(Box::new(job)));
        match self.write(Write::Enlist(EnlistWrite { rows, audits, job })).await {
            Ok(_) => Ok(sealed),
            // Ids are minted, so that it is a serial.
            Err(StoreError::Database(error)) if is_taken(&error) => Err(InsertError::SerialTaken),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

/// Devices to be registered, with their sealed codes, and what is written down of that.
pub(super) struct EnlistWrite {
    rows: Vec<(DeviceRow, Vec<u8>)>,
    audits: Vec<AuditWrite>,
    job: Option<JobWrite>,
}

impl EnlistWrite {
    pub(super) async fn apply(&self, transaction: &mut Transaction<'_>) -> Result<i64, sqlx::Error> {
        for (row, code) in &self.rows {
            insert(transaction, row, code, insert_device!("")).await?;
        }
        for audit in &self.audits {
            audit.apply(transaction).await?;
        }
        if let Some(job) = &self.job {
            job.apply(transaction).await?;
        }
        Ok(i64::try_from(self.rows.len()).unwrap_or(i64::MAX))
    }

    /// How many rows it touches.
    pub(super) fn weight(&self) -> usize {
        self.rows.len() + self.audits.len() + 1
    }
}
