//! Authorities beside the public ones that receivers' certificates may be of.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};

/// Certificates of authorities.
#[derive(Debug, Clone, Default)]
pub struct Authorities(pub(super) Vec<CertificateDer<'static>>);

/// Why a file of authorities cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It cannot be read, or is no PEM.
    #[error("{path} cannot be read as PEM: {source}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: pem::Error,
    },
    /// It holds something that is no certificate of an authority, or nothing.
    #[error("{0} must hold certificates of authorities, and nothing else that is called one")]
    NoCertificate(PathBuf),
}

impl Authorities {
    /// Reads a PEM file of certificates.
    ///
    /// # Errors
    /// When it cannot be read, or holds none, or one that cannot be understood.
    pub fn read(path: &Path) -> Result<Authorities, AuthoritiesError> {
        let wrong = |source| AuthoritiesError::Pem { path: path.to_owned(), source };
        let read = CertificateDer::pem_file_iter(path).map_err(wrong)?.collect::<Result<Vec<_>, _>>().map_err(wrong)?;
        let (_, ignored) = RootCertStore::empty().add_parsable_certificates(read.iter().cloned());
        if read.is_empty() || ignored > 0 {
            return Err(AuthoritiesError::NoCertificate(path.to_owned()));
        }
        Ok(Authorities(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("ca.pem");
        assert!(matches!(Authorities::read(&path), Err(AuthoritiesError::Pem { .. })));
        std::fs::write(&path, "nothing").expect("written");
        assert!(matches!(Authorities::read(&path), Err(AuthoritiesError::NoCertificate(_))));
        std::fs::write(&path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").expect("written");
        assert!(matches!(Authorities::read(&path), Err(AuthoritiesError::NoCertificate(_))));
    }
}
