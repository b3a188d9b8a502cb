//! One certificate of an authority.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;

use super::{IssueError, Purpose};
use crate::Key;
use crate::certificate::CertificateFacts;

/// What a certificate of an authority is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rank {
    /// Signed by itself; what others trust.
    Root,
    /// Signed by a root; it signs what is shown.
    Intermediate,
    /// A newer root, signed by an older one: who still trusts the older one reaches the newer over it. It has no key of
    /// its own.
    Cross,
}

/// One certificate of an authority, with its key unless it is a [`Rank::Cross`]. No Debug: keys are never printed.
pub struct Ca {
    rank: Rank,
    purpose: Purpose,
    certificate: CertificateDer<'static>,
    facts: CertificateFacts,
    key: Option<Key>,
}

impl Ca {
    /// Reads back what was kept of it: certificate (DER) and key ([`Ca::key`]).
    ///
    /// # Errors
    /// They cannot be read.
    pub fn load(purpose: Purpose, rank: Rank, certificate: Vec<u8>, key: Option<&[u8]>) -> Result<Ca, IssueError> {
        let key = key.map(Key::from_pkcs8).transpose()?;
        Ca::new(purpose, rank, certificate.into(), key)
    }

    pub(super) fn new(
        purpose: Purpose,
        rank: Rank,
        certificate: CertificateDer<'static>,
        key: Option<Key>,
    ) -> Result<Ca, IssueError> {
        let facts = CertificateFacts::read(&certificate).map_err(|_| IssueError::Certificate)?;
        if key.is_none() && rank != Rank::Cross {
            return Err(IssueError::Key);
        }
        Ok(Ca { rank, purpose, certificate, facts, key })
    }

    /// What it is.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The certificate.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What it says of itself.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The private key as PKCS #8, DER: a secret, to be sealed by whoever keeps it. `None` for a [`Rank::Cross`].
    pub fn key(&self) -> Option<&[u8]> {
        self.key.as_ref().map(Key::pkcs8)
    }

    pub(super) fn is_valid(&self, now: i64) -> bool {
        (self.facts.not_before..=self.facts.not_after).contains(&now)
    }

    /// A new root.
    pub(super) fn root(purpose: Purpose, now: i64) -> Result<Ca, IssueError> {
        let key = Key::generate()?;
        let (params, _) = ca_params(purpose, "root", None, now, purpose.root_life())?;
        let certificate = params.self_signed(&key).map_err(IssueError::library)?;
        Ca::new(purpose, Rank::Root, certificate.into(), Some(key))
    }

    /// A new intermediate below this root.
    pub(super) fn intermediate(&self, now: i64) -> Result<Ca, IssueError> {
        let key = Key::generate()?;
        let (mut params, end) = ca_params(self.purpose, "issuing", Some(0), now, self.purpose.intermediate_life())?;
        params.not_after = moment(end.min(self.facts.not_after));
        let certificate = self.sign(&params, &key)?;
        Ca::new(self.purpose, Rank::Intermediate, certificate, Some(key))
    }

    /// The newer root `other`, signed by this one.
    pub(super) fn cross(&self, other: &Ca, now: i64) -> Result<Ca, IssueError> {
        let Some(key) = &other.key else { return Err(IssueError::Key) };
        let (mut params, _) = ca_params(self.purpose, "root", None, now, 0)?;
        params.distinguished_name = named(&other.facts.subject);
        params.not_after = moment(self.facts.not_after.min(other.facts.not_after));
        Ca::new(self.purpose, Rank::Cross, self.sign(&params, key)?, None)
    }

    /// A certificate for who holds the key: `names` and usage are ours to write.
    pub(super) fn leaf(
        &self,
        key: &impl PublicKeyData,
        subject: &str,
        names: Vec<SanType>,
        now: i64,
        end: i64,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let mut params = CertificateParams::default();
        params.not_before = moment(now.saturating_sub(super::BACKDATED));
        params.not_after = moment(end.min(self.facts.not_after));
        params.serial_number = Some(random_serial()?);
        params.subject_alt_names = names;
        params.distinguished_name = named(subject);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match self.purpose {
            Purpose::Servers => ExtendedKeyUsagePurpose::ServerAuth,
            Purpose::Devices => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        self.sign(&params, key)
    }

    fn sign(
        &self,
        params: &CertificateParams,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, IssueError> {
        let certificate = params.signed_by(key, &self.issuer()?).map_err(IssueError::library)?;
        Ok(certificate.into())
    }

    fn issuer(&self) -> Result<Issuer<'static, &Key>, IssueError> {
        let Some(key) = &self.key else { return Err(IssueError::Key) };
        let mut params = CertificateParams::default();
        params.distinguished_name = named(&self.facts.subject);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Issuer::new(params, key))
    }
}

/// A CA certificate of ours, and its end. Its name carries its serial number, so that two of them never share one: a
/// verifier finds an issuer by its name.
fn ca_params(
    purpose: Purpose,
    what: &str,
    path: Option<u8>,
    now: i64,
    life: i64,
) -> Result<(CertificateParams, i64), IssueError> {
    let serial = random_serial()?;
    let digits: String = serial.as_ref().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let end = now.saturating_add(life);
    let mut params = CertificateParams::default();
    params.not_before = moment(now.saturating_sub(super::BACKDATED));
    params.not_after = moment(end);
    params.serial_number = Some(serial);
    params.distinguished_name = named(&format!("Vestibule {} {what} {digits}", purpose.as_str()));
    params.is_ca = IsCa::Ca(path.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok((params, end))
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

/// 127 random bits: positive, and as long as every other.
fn random_serial() -> Result<SerialNumber, IssueError> {
    let mut bytes = [0u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| IssueError::Library("no random bytes".to_owned()))?;
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

/// A point in time for a certificate, in whole seconds; what lies outside 1970 to 9999 is moved to the edge.
fn moment(unix_ms: i64) -> time::OffsetDateTime {
    const LAST: i64 = 253_402_300_799;
    let seconds = unix_ms.div_euclid(1_000).clamp(0, LAST);
    time::OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}
