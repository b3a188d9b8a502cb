//! What a client trusts.

use rustls::pki_types::CertificateDer;

/// What a client trusts to prove a server (osap-wire 13.3, TLS profile 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// A CA certificate: ordinary chain, dates and name.
    Ca(CertificateDer<'static>),
    /// SHA-256 of the SubjectPublicKeyInfo of the server's own certificate: its key decides, name and dates do not.
    Pin([u8; 32]),
}
