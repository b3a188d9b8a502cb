//! Certificates of devices: issued and revoked.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestibule_store::{DeviceCertificateQuery, DeviceCertificateRow};
use vestibule_tls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use vestibule_tls::{CertificateFacts, IssueError};

use super::{Certificates, CertificatesError};
use crate::caller::Caller;
use crate::device::Device;
use crate::platform::{Platform, to_the_end};

/// The longest life of a device's certificate: two years.
pub const LONGEST_CERTIFICATE: Duration = Duration::from_secs(730 * 24 * 60 * 60);
/// Valid certificates of one device: the present one, its successor, and what came to grief.
const MAX_OF_DEVICE: usize = 8;
/// Certificates of one device that have not ended, revoked ones among them: what is revoked stays known, so that issuing is
/// what has a limit, and revoking has none. Beyond it one more is issued in each [`TURNS`]th of a certificate's life: what is
/// kept stays bounded, and no device is out for longer than that.
const MAX_KEPT: usize = 128;
const TURNS: i64 = 1_024;
/// More of a device than have not ended.
const LASTING: i64 = 4_096;
/// Of a device all that were ever issued to it: as many as one list of the store may have.
const ALL: i64 = 100_000;

/// A certificate that was issued to a device.
#[derive(Debug, Clone)]
pub struct IssuedCertificate {
    /// The certificate and the one above it, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What is known of it.
    pub row: DeviceCertificateRow,
}

impl Certificates {
    /// Issues a certificate. With `makes_room` the oldest valid one of the device gives way where there is no room.
    async fn issue(
        &self,
        device: &Device,
        request: &CertificateSigningRequestDer<'_>,
        life: Duration,
        makes_room: bool,
    ) -> Result<IssuedCertificate, CertificatesError> {
        let now = self.now();
        let life = i64::try_from(life.min(LONGEST_CERTIFICATE).as_millis()).unwrap_or(i64::MAX);
        // The caller holds the device's secrets: two requests of one device do not both find the last place. Held to the end:
        // no authority is taken away under what it issues.
        let held = self.held.read().await;
        let (of, lasting) = (Some(device.serial.to_string()), Some(now));
        let query = DeviceCertificateQuery { device: of, lasting, limit: LASTING, ..Default::default() };
        let present = self.control.device_certificates(query).await?;
        let kept = || present.iter().filter(|row| row.ends >= now);
        let mut valid: Vec<&DeviceCertificateRow> = kept().filter(|row| row.revoked.is_none()).collect();
        valid.sort_by_key(|row| row.made);
        let excess = (valid.len() + 1).saturating_sub(MAX_OF_DEVICE);
        if excess > 0 && !makes_room {
            return Err(CertificatesError::Full(MAX_OF_DEVICE));
        }
        let last = kept().map(|row| row.made).filter(|made| *made <= now).max().unwrap_or(i64::MIN);
        if kept().count() >= MAX_KEPT && now.saturating_sub(last) < life / TURNS {
            return Err(CertificatesError::Spent(MAX_KEPT));
        }
        let chain = held.devices.device_certificate(request, &device.serial, life, now)?;
        let leaf = chain.first().ok_or(IssueError::Certificate)?;
        let facts = CertificateFacts::read(leaf).map_err(|_| IssueError::Certificate)?;
        let row = DeviceCertificateRow {
            serial: facts.serial,
            issuer: facts.issuer,
            device: device.serial.to_string(),
            made: now,
            ends: facts.not_after,
            revoked: None,
        };
        for gone in valid.into_iter().take(excess) {
            self.control.revoke_certificate(&gone.serial, now).await?;
            self.verifier.revoke([gone.serial.clone()]);
        }
        self.control.add_device_certificate(row.clone()).await?;
        Ok(IssuedCertificate { chain, row })
    }

    /// Revokes certificates of a device: the one with this serial number, or all of them. How many there were.
    pub(crate) async fn revoke(&self, device: &str, serial: Option<&[u8]>) -> Result<u64, CertificatesError> {
        let now = self.now();
        let revoked = match serial {
            Some(serial) => u64::from(self.control.revoke_certificate(serial, now).await?),
            None => self.control.revoke_certificates_of(device, now).await?,
        };
        // All that are, also where nothing is new: a caller who asks again may have been cut off here before.
        let mut query = DeviceCertificateQuery { device: Some(device.to_owned()), ..Default::default() };
        (query.revoked, query.limit) = (true, ALL);
        let rows = self.control.device_certificates(query).await?;
        self.verifier.revoke(rows.into_iter().map(|row| row.serial));
        Ok(revoked)
    }
}

impl Platform {
    /// The platform's certificates.
    pub fn certificates(&self) -> &Arc<Certificates> {
        self.certificates_kept()
    }

    /// Issues a certificate to a device whose request this is, for as long as `life` and never more than
    /// [`LONGEST_CERTIFICATE`]; durable, and in the audit, when this returns.
    ///
    /// # Errors
    /// The request is refused, or something failed.
    pub async fn issue_certificate(
        self: &Arc<Self>,
        device: &Arc<Device>,
        request: &CertificateSigningRequestDer<'_>,
        life: Duration,
        by: &Caller,
    ) -> Result<IssuedCertificate, CertificatesError> {
        by.still_sees(device)?;
        self.issued(device, request, life, by, false).await
    }

    /// Issues a certificate to a device that came without one and has to show one, as
    /// [`issue_certificate`](Platform::issue_certificate) does. Those that it was issued before have not reached it: where it
    /// has as many as it may, the oldest gives way and is revoked. What was agreed with the device stays: it comes in with the
    /// new one.
    ///
    /// # Errors
    /// As [`issue_certificate`](Platform::issue_certificate), but never for want of room. That there are refusals is in the
    /// audit once an hour.
    pub async fn issue_demanded_certificate(
        self: &Arc<Self>,
        device: &Arc<Device>,
        request: &CertificateSigningRequestDer<'_>,
        life: Duration,
    ) -> Result<IssuedCertificate, CertificatesError> {
        self.issued(device, request, life, &Caller::program(), true).await
    }

    async fn issued(
        self: &Arc<Self>,
        device: &Arc<Device>,
        request: &CertificateSigningRequestDer<'_>,
        life: Duration,
        by: &Caller,
        makes_room: bool,
    ) -> Result<IssuedCertificate, CertificatesError> {
        let (platform, device, by) = (Arc::clone(self), Arc::clone(device), by.clone());
        let request = CertificateSigningRequestDer::from(request.to_vec());
        to_the_end(async move {
            // Who removes a device revokes what it has: not between the look and the row.
            let secrets = device.secrets.lock().await;
            if device.is_removed() {
                return Err(CertificatesError::Unknown);
            }
            let issued = platform.certificates().issue(&device, &request, life, makes_room).await;
            drop(secrets);
            let detail = match &issued {
                Ok(issued) => json!({"serial": hex(&issued.row.serial), "ends": issued.row.ends}),
                Err(error) => json!({"error": error.to_string()}),
            };
            if makes_room && issued.is_err() {
                platform.misdeed(&device, "certificate.issue", detail);
            } else {
                platform.audited(by.name(), "certificate.issue", &device, detail, issued.is_ok()).await;
            }
            issued
        })
        .await
    }

    /// Revokes the certificate of a device with this serial number, or all that it has, and ends its session: the next
    /// handshake with one of them fails. How many there were.
    ///
    /// # Errors
    /// The device has no such certificate that is not revoked, or something failed.
    pub async fn revoke_certificates(
        self: &Arc<Self>,
        device: &Arc<Device>,
        serial: Option<&[u8]>,
        by: &Caller,
    ) -> Result<u64, CertificatesError> {
        by.still_sees(device)?;
        let (platform, device, by) = (Arc::clone(self), Arc::clone(device), by.clone());
        let serial = serial.map(<[u8]>::to_vec);
        to_the_end(async move {
            let certificates = platform.certificates();
            if let Some(serial) = &serial {
                let of_device = Some(device.serial.to_string());
                let query = DeviceCertificateQuery { device: of_device, limit: ALL, ..Default::default() };
                if !certificates.issued(query).await?.iter().any(|row| &row.serial == serial) {
                    return Err(CertificatesError::Unknown);
                }
            }
            let revoked = certificates.revoke(&device.serial, serial.as_deref()).await;
            let detail = json!({"serial": serial.as_deref().map(hex), "count": revoked.as_ref().ok()});
            let done = revoked.as_ref().is_ok_and(|count| *count > 0);
            platform.audited(by.name(), "certificate.revoke", &device, detail, done).await;
            // Also when it was revoked before: what follows may have failed then.
            if revoked.is_ok() {
                platform.void_credentials(&device).await?;
            }
            match revoked? {
                0 if serial.is_some() => Err(CertificatesError::Unknown),
                count => Ok(count),
            }
        })
        .await
    }
}

pub(super) fn hex(serial: &[u8]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}
