//! Devices that prove themselves with a certificate (osap-wire 13.3, TLS profile 6).

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DistinguishedName, Error, RootCertStore};
use thiserror::Error;
use webpki::EndEntityCert;

use crate::provider;

const PREFIX: &str = "urn:osap:device:";

/// The name of a device in its certificate: every byte of the serial that is not one of `A-Z a-z 0-9 - . _ ~ :` as %XX.
pub fn device_uri(serial: &str) -> String {
    let mut uri = PREFIX.to_owned();
    for byte in serial.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri
}

/// A certificate that is not a device's.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the certificate does not name exactly one device")]
pub struct NotADevice;

/// The serial of the device that a certificate names: it has exactly one URI, in the one form that [`device_uri`] writes.
/// Nothing else of the certificate is looked at: that it can be trusted was seen in the handshake.
///
/// # Errors
/// It names no device, or more than one.
pub fn device_serial(certificate: &CertificateDer<'_>) -> Result<String, NotADevice> {
    let entity = EndEntityCert::try_from(certificate).map_err(|_| NotADevice)?;
    let mut names = entity.valid_uri_names();
    let (Some(uri), None) = (names.next(), names.next()) else { return Err(NotADevice) };
    let escaped = uri.strip_prefix(PREFIX).filter(|escaped| !escaped.is_empty()).ok_or(NotADevice)?;
    let serial = unescape(escaped).ok_or(NotADevice)?;
    // One device has one name: another spelling of it is nobody's.
    if device_uri(&serial) == uri { Ok(serial) } else { Err(NotADevice) }
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => hex(rest.next()?)? << 4 | hex(rest.next()?)?,
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// Roots that cannot be used.
#[derive(Debug, Error)]
#[error("device certificates cannot be verified with this: {0}")]
pub struct VerifierError(String);

/// Verifies device certificates in the handshake: against the device CA alone, and that they were not revoked. A device
/// may come without one. What it goes by is exchanged between two handshakes.
///
/// Revoked certificates are known by their serial numbers, all of them, and are not forgotten when they have ended, which a
/// clock says that may be set: there is no list of them that could be cut, or be older than the last revocation.
pub struct DeviceVerifier {
    provider: Arc<CryptoProvider>,
    present: ArcSwap<Present>,
    /// Serial numbers.
    revoked: RwLock<HashSet<Box<[u8]>>>,
}

struct Present(Arc<dyn ClientCertVerifier>);

impl DeviceVerifier {
    /// Verifies against these roots; `revoked` are serial numbers.
    ///
    /// # Errors
    /// There is no root, or one cannot be read.
    pub fn new(
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
        revoked: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Arc<DeviceVerifier>, VerifierError> {
        let provider = provider::osap();
        let present = ArcSwap::from_pointee(Present::new(&provider, roots)?);
        let verifier = DeviceVerifier { provider, present, revoked: RwLock::default() };
        verifier.revoke(revoked);
        Ok(Arc::new(verifier))
    }

    /// Goes by other roots from the next handshake on.
    ///
    /// # Errors
    /// As [`DeviceVerifier::new`]; the former ones stay.
    pub fn replace(&self, roots: impl IntoIterator<Item = CertificateDer<'static>>) -> Result<(), VerifierError> {
        self.present.store(Arc::new(Present::new(&self.provider, roots)?));
        Ok(())
    }

    /// Refuses certificates with these serial numbers from the next handshake on.
    pub fn revoke(&self, serials: impl IntoIterator<Item = Vec<u8>>) {
        self.revoked.write().extend(serials.into_iter().map(Vec::into_boxed_slice));
    }

    /// How many revoked certificates are known.
    pub fn revoked(&self) -> usize {
        self.revoked.read().len()
    }
}

impl Present {
    fn new(
        provider: &Arc<CryptoProvider>,
        roots: impl IntoIterator<Item = CertificateDer<'static>>,
    ) -> Result<Present, VerifierError> {
        let mut store = RootCertStore::empty();
        for root in roots {
            store.add(root).map_err(|error| VerifierError(error.to_string()))?;
        }
        WebPkiClientVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
            .allow_unauthenticated()
            .clear_root_hint_subjects()
            .build()
            .map(Present)
            .map_err(|error| VerifierError(error.to_string()))
    }
}

impl fmt::Debug for DeviceVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceVerifier")
    }
}

impl ClientCertVerifier for DeviceVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a device has one certificate, and the roots change under a configuration.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.present.load().0.verify_client_cert(end_entity, intermediates, now)?;
        let certificate = EndEntityCert::try_from(end_entity).map_err(|_| CertificateError::BadEncoding)?;
        if self.revoked.read().contains(certificate.serial()) {
            return Err(CertificateError::Revoked.into());
        }
        match device_serial(end_entity) {
            Ok(_) => Ok(verified),
            Err(NotADevice) => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    crate::signatures::checked_by_its_provider!();
}
