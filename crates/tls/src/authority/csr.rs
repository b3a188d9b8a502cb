//! A request for a certificate (PKCS #10, RFC 2986), of which the key alone is kept.

use rcgen::{CertificateParams, PublicKeyData, SignatureAlgorithm};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateSigningRequestDer, alg_id};
use thiserror::Error;
use yasna::tags::TAG_SEQUENCE;
use yasna::{ASN1Error, ASN1ErrorKind, ASN1Result, BERReader};

use super::IssueError;
use crate::Key;

/// The longest request that is looked at.
pub const MAX_CSR: usize = 8 * 1024;

/// Why a request for a certificate is refused: the fault of who sent it.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CsrError {
    /// More than [`MAX_CSR`] bytes.
    #[error("the request is longer than {MAX_CSR} bytes")]
    TooLong,
    /// Not a PKCS #10 request.
    #[error("not a certificate request (PKCS #10)")]
    Malformed,
    /// A key or signature of another kind.
    #[error("the key is none of P-256, P-384, Ed25519 and RSA, or is signed with another algorithm")]
    Algorithm,
    /// Who asks does not hold the key.
    #[error("the request is not signed with its own key")]
    Signature,
}

/// A request for a certificate of this key, DER. It names nobody: who gets the certificate is for its issuer to say.
///
/// # Errors
/// The crypto library cannot sign.
pub fn certificate_request(key: &Key) -> Result<Vec<u8>, IssueError> {
    let request = CertificateParams::default().serialize_request(key).map_err(IssueError::library)?;
    Ok(request.der().to_vec())
}

/// A request for a certificate of this key for a server under these names, hosts and addresses, DER.
///
/// # Errors
/// A name is none, or the crypto library cannot sign.
pub fn server_request(key: &Key, names: &[String]) -> Result<Vec<u8>, IssueError> {
    let mut params = CertificateParams::default();
    // Nobody's name: what counts are those below.
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = names.iter().map(|name| super::server_name(name)).collect::<Result<_, _>>()?;
    Ok(params.serialize_request(key).map_err(IssueError::library)?.der().to_vec())
}

/// The public key of a request that was signed with it.
pub(crate) struct RequestedKey {
    bits: Vec<u8>,
    algorithm: &'static SignatureAlgorithm,
}

impl RequestedKey {
    pub(crate) fn read(request: &CertificateSigningRequestDer<'_>) -> Result<RequestedKey, CsrError> {
        if request.len() > MAX_CSR {
            return Err(CsrError::TooLong);
        }
        let parts = Parts::read(request).map_err(|_| CsrError::Malformed)?;
        let algorithm = match parts.key_algorithm.as_slice() {
            id if id == alg_id::ECDSA_P256.as_ref() => &rcgen::PKCS_ECDSA_P256_SHA256,
            id if id == alg_id::ECDSA_P384.as_ref() => &rcgen::PKCS_ECDSA_P384_SHA384,
            id if id == alg_id::ED25519.as_ref() => &rcgen::PKCS_ED25519,
            id if id == alg_id::RSA_ENCRYPTION.as_ref() => &rcgen::PKCS_RSA_SHA256,
            _ => return Err(CsrError::Algorithm),
        };
        let verifiers = default_provider().signature_verification_algorithms.all;
        let mut fitting = verifiers.iter().filter(|verifier| {
            verifier.public_key_alg_id().as_ref() == parts.key_algorithm
                && verifier.signature_alg_id().as_ref() == parts.signature_algorithm
        });
        let Some(verifier) = fitting.next() else { return Err(CsrError::Algorithm) };
        match verifier.verify_signature(&parts.key, &parts.signed, &parts.signature) {
            Ok(()) => Ok(RequestedKey { bits: parts.key, algorithm }),
            Err(_) => Err(CsrError::Signature),
        }
    }
}

impl PublicKeyData for RequestedKey {
    fn der_bytes(&self) -> &[u8] {
        &self.bits
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.algorithm
    }
}

/// The parts of a request that matter.
struct Parts {
    /// What the signature is over.
    signed: Vec<u8>,
    /// The content of the key's AlgorithmIdentifier.
    key_algorithm: Vec<u8>,
    key: Vec<u8>,
    /// The content of the signature's AlgorithmIdentifier.
    signature_algorithm: Vec<u8>,
    signature: Vec<u8>,
}

impl Parts {
    fn read(request: &[u8]) -> ASN1Result<Parts> {
        let (signed, signature_algorithm, signature) = yasna::parse_der(request, |reader| {
            reader.read_sequence(|reader| {
                let signed = reader.next().read_der()?;
                let algorithm = content(reader.next())?;
                let signature = whole_bytes(reader.next())?;
                Ok((signed, algorithm, signature))
            })
        })?;
        let (key_algorithm, key) = yasna::parse_der(&signed, |reader| {
            reader.read_sequence(|reader| {
                reader.next().read_i64()?;
                // The name asked for: who gets the certificate is not for the requester to say.
                reader.next().read_der()?;
                let key = reader.next().read_sequence(|reader| {
                    let algorithm = content(reader.next())?;
                    let key = whole_bytes(reader.next())?;
                    Ok((algorithm, key))
                })?;
                // Attributes, which some leave out.
                reader.read_optional(|reader| reader.read_der())?;
                Ok(key)
            })
        })?;
        Ok(Parts { signed, key_algorithm, key, signature_algorithm, signature })
    }
}

/// A bit string that is one of bytes, as keys and signatures are.
fn whole_bytes(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    let (bytes, bits) = reader.read_bitvec_bytes()?;
    if bits == bytes.len() * 8 { Ok(bytes) } else { Err(ASN1Error::new(ASN1ErrorKind::Invalid)) }
}

/// What is inside an AlgorithmIdentifier.
fn content(reader: BERReader<'_, '_>) -> ASN1Result<Vec<u8>> {
    let value = reader.read_tagged_der()?;
    if value.tag() == TAG_SEQUENCE { Ok(value.value().to_vec()) } else { Err(ASN1Error::new(ASN1ErrorKind::Invalid)) }
}
