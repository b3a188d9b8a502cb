//! What people see of the certificates.

use serde::Serialize;
use vestibule_store::{DeviceCertificateQuery, DeviceCertificateRow, StoreError};
use vestibule_tls::rustls::pki_types::CertificateDer;
use vestibule_tls::{CertificateFacts, Purpose, pem, spki_sha256};

use super::{Certificates, CertificatesError, Held, kept};

/// A certificate of the platform's own.
#[derive(Debug, Clone, Serialize)]
pub struct CertificateView {
    /// `servers/root`, `servers/intermediate`, `servers/cross`, `devices/root`, `devices/intermediate` or `server`.
    pub kind: String,
    /// Its serial number, hexadecimal.
    pub serial: String,
    /// The common name of whom it is for.
    pub subject: String,
    /// The common name of who issued it.
    pub issuer: String,
    /// Valid from, Unix milliseconds.
    pub not_before: i64,
    /// Valid to, Unix milliseconds.
    pub not_after: i64,
    /// SHA-256 of its SubjectPublicKeyInfo, hexadecimal: what devices pin (osap-wire 13.3).
    pub spki_sha256: String,
    /// The certificate, PEM.
    pub pem: String,
}

/// The platform's certificates as they are now.
#[derive(Debug, Clone, Serialize)]
pub struct AuthorityView {
    /// The names of the platform's own certificate.
    pub names: Vec<String>,
    /// What the listeners show.
    pub server: CertificateView,
    /// Roots and intermediates, newest first, those of servers before those of devices.
    pub authorities: Vec<CertificateView>,
}

impl Certificates {
    /// The roots of servers, PEM, newest first: what clients are to trust, the content of `ca.pem`.
    pub async fn anchors_pem(&self, purpose: Purpose) -> String {
        pem(&self.held.read().await.of(purpose).anchors(self.now()))
    }

    /// The certificates as they are now.
    ///
    /// # Errors
    /// What is in force cannot be read, which its use has shown not to be so.
    pub async fn view(&self) -> Result<AuthorityView, CertificatesError> {
        let held = self.held.read().await;
        let mut authorities = Vec::new();
        for purpose in [Purpose::Servers, Purpose::Devices] {
            for ca in held.of(purpose).kept() {
                authorities.push(view(kept::kind(purpose, ca.rank()), ca.certificate())?);
            }
        }
        let leaf =
            held.chain.first().ok_or_else(|| CertificatesError::Kept("there is none for the server".to_owned()))?;
        Ok(AuthorityView { names: self.names.clone(), server: view("server", leaf)?, authorities })
    }

    /// Certificates that were issued to devices.
    ///
    /// # Errors
    /// The store failed.
    pub async fn issued(&self, query: DeviceCertificateQuery) -> Result<Vec<DeviceCertificateRow>, StoreError> {
        self.control.device_certificates(query).await
    }

    /// Says in the metrics when what is in force ends.
    pub(super) fn tell_ends(&self, held: &Held) {
        let tell = |kind: &'static str, not_after: i64| {
            let seconds = not_after / 1_000;
            metrics::gauge!("vestibule_certificate_ends_seconds", "kind" => kind).set(seconds as f64);
        };
        if let Some(Ok(facts)) = held.chain.first().map(CertificateFacts::read) {
            tell("server", facts.not_after);
        }
        for purpose in [Purpose::Servers, Purpose::Devices] {
            // Of each kind the newest, which is what issues: oldest first, so that it is said last.
            for ca in held.of(purpose).kept().iter().rev() {
                tell(kept::kind(purpose, ca.rank()), ca.facts().not_after);
            }
        }
    }
}

fn view(kind: &str, certificate: &CertificateDer<'static>) -> Result<CertificateView, CertificatesError> {
    let facts = CertificateFacts::read(certificate).map_err(|error| CertificatesError::Kept(error.to_string()))?;
    let digest = spki_sha256(certificate).map_err(|error| CertificatesError::Kept(error.to_string()))?;
    Ok(CertificateView {
        kind: kind.to_owned(),
        serial: facts.serial_hex(),
        spki_sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        pem: pem([certificate]),
        subject: facts.subject,
        issuer: facts.issuer,
        not_before: facts.not_before,
        not_after: facts.not_after,
    })
}
