//! What a certificate says of itself.

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use webpki::EndEntityCert;
use yasna::models::ObjectIdentifier;
use yasna::tags::{TAG_GENERALIZEDTIME, TAG_UTCTIME};
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader, Tag};

/// Bytes that are no certificate, or text that is no PEM.
#[derive(Debug, Error)]
#[error("not a certificate: {0}")]
pub struct Unreadable(String);

/// The parts of a certificate that people look at. Nothing of it is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateFacts {
    /// The serial number as it stands in the certificate, big-endian.
    pub serial: Vec<u8>,
    /// The common name of whom it is for; empty when it has none.
    pub subject: String,
    /// The common name of who issued it; empty when that has none.
    pub issuer: String,
    /// Valid from, Unix milliseconds.
    pub not_before: i64,
    /// Valid to, Unix milliseconds.
    pub not_after: i64,
    /// Its DNS names.
    pub dns_names: Vec<String>,
}

impl CertificateFacts {
    /// Reads them.
    ///
    /// # Errors
    /// The bytes are no X.509 certificate of version 3.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<CertificateFacts, Unreadable> {
        let entity = EndEntityCert::try_from(certificate).map_err(|error| Unreadable(error.to_string()))?;
        let (issuer, not_before, not_after, subject) =
            yasna::parse_der(certificate, certificate_fields).map_err(|error| Unreadable(error.to_string()))?;
        Ok(CertificateFacts {
            serial: entity.serial().to_vec(),
            subject,
            issuer,
            not_before,
            not_after,
            dns_names: entity.valid_dns_names().map(str::to_owned).collect(),
        })
    }

    /// The serial number in hexadecimal digits.
    pub fn serial_hex(&self) -> String {
        self.serial.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Whether a certificate may be shown under this name, a host name or an address.
pub fn covers(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(entity) = EndEntityCert::try_from(certificate) else { return false };
    ServerName::try_from(name).is_ok_and(|name| entity.verify_is_valid_for_subject_name(&name).is_ok())
}

/// SHA-256 of a certificate's SubjectPublicKeyInfo, the whole DER element: what a device pins (osap-wire 13.3, TLS
/// profile 4).
///
/// # Errors
/// The bytes are no certificate.
pub fn spki_sha256(certificate: &CertificateDer<'_>) -> Result<[u8; 32], Unreadable> {
    let entity = EndEntityCert::try_from(certificate).map_err(|error| Unreadable(error.to_string()))?;
    let mut sum = [0; 32];
    sum.copy_from_slice(digest(&SHA256, &entity.subject_public_key_info()).as_ref());
    Ok(sum)
}

/// The PEM text of certificates, in their order.
pub fn pem<'a>(certificates: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    let config = ::pem::EncodeConfig::new().set_line_ending(::pem::LineEnding::LF);
    let one = |der: &CertificateDer<'_>| ::pem::encode_config(&::pem::Pem::new("CERTIFICATE", der.to_vec()), config);
    certificates.into_iter().map(one).collect()
}

/// The certificates of a PEM text, in their order; what else is in it is passed over.
///
/// # Errors
/// The text is broken, or has no certificate.
pub fn read_pem(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, Unreadable> {
    let read = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let certificates = read.map_err(|error| Unreadable(error.to_string()))?;
    if certificates.is_empty() {
        return Err(Unreadable("the text holds none".to_owned()));
    }
    Ok(certificates)
}

/// Issuer, begin, end and subject (RFC 5280, 4.1).
fn certificate_fields(reader: BERReader<'_, '_>) -> ASN1Result<(String, i64, i64, String)> {
    reader.read_sequence(|reader| {
        let fields = reader.next().read_sequence(|reader| {
            // Version, serial number and the algorithm of the signature.
            reader.next().read_tagged(Tag::context(0), |reader| reader.read_der())?;
            reader.next().read_der()?;
            reader.next().read_der()?;
            let issuer = reader.next().read_der()?;
            let (begin, end) =
                reader.next().read_sequence(|reader| Ok((read_time(reader.next())?, read_time(reader.next())?)))?;
            let subject = reader.next().read_der()?;
            rest(reader)?;
            Ok((common_name(&issuer), begin, end, common_name(&subject)))
        })?;
        rest(reader)?;
        Ok(fields)
    })
}

/// Passes over what is left of a sequence.
fn rest(reader: &mut yasna::BERReaderSeq<'_, '_>) -> ASN1Result<()> {
    while reader.read_optional(|reader| reader.read_der())?.is_some() {}
    Ok(())
}

fn read_time(reader: BERReader<'_, '_>) -> ASN1Result<i64> {
    let time = match reader.lookahead_tag()? {
        TAG_UTCTIME => *reader.read_utctime()?.datetime(),
        TAG_GENERALIZEDTIME => *reader.read_generalized_time()?.datetime(),
        _ => return Err(ASN1Error::new(ASN1ErrorKind::Invalid)),
    };
    Ok(time.unix_timestamp().saturating_mul(1_000))
}

/// The common name in a distinguished name; empty when there is none or it cannot be read.
pub(crate) fn common_name(name: &[u8]) -> String {
    let oid = ObjectIdentifier::from_slice(&[2, 5, 4, 3]);
    let mut found = String::new();
    let read = yasna::parse_der(name, |reader| {
        reader.read_sequence_of(|reader| {
            reader.read_set_of(|reader| {
                reader.read_sequence(|reader| {
                    let kind = reader.next().read_oid()?;
                    let value = reader.next().read_tagged_der()?;
                    if kind == oid {
                        found = String::from_utf8_lossy(value.value()).into_owned();
                    }
                    Ok(())
                })
            })
        })
    });
    read.map_or_else(|_| String::new(), |()| found)
}
