//! What others have issued to the platform, and what it needs for that: kept beside its own certificates, sealed like them.

use vestibule_store::{CertificateRow, Secret, StoreError};

use super::Certificates;

/// What such a row is called.
const KIND: &str = "acquired";

/// Something acquired: a text that is no secret, and a private key, PKCS #8.
pub struct Acquired {
    /// A chain of certificates, PEM, leaf first; or whatever else goes with the key.
    pub text: String,
    /// The key.
    pub key: Secret,
}

pub(super) fn is_kind(kind: &str) -> bool {
    kind == KIND
}

impl Certificates {
    /// What is kept under this name.
    ///
    /// # Errors
    /// The store failed.
    pub async fn acquired(&self, name: &str) -> Result<Option<Acquired>, StoreError> {
        let rows = self.control.certificates().await?;
        let row = rows.into_iter().find(|row| is_kind(&row.kind) && row.id == name);
        Ok(row.and_then(|row| Some(Acquired { text: row.chain, key: row.key? })))
    }

    /// Keeps it under this name, in place of what was there; durable when this returns.
    ///
    /// # Errors
    /// The store failed.
    pub async fn keep_acquired(&self, name: &str, acquired: Acquired) -> Result<(), StoreError> {
        let Acquired { text, key } = acquired;
        let row = CertificateRow { id: name.to_owned(), kind: KIND.to_owned(), chain: text, key: Some(key) };
        self.control.put_certificates(vec![row]).await
    }

    /// The platform's clock, Unix milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    /// What keeps a certificate from being acquired, a sentence, which `/readyz` tells; `None`: nothing does any more.
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock() = trouble;
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}
