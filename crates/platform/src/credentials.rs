//! A device's secrets: read once, kept in memory, changed under a lock of the device's own.

use std::sync::Arc;

use vestibule_store::{Credentials, Secret, StoreError};

use crate::device::Device;
use crate::platform::{Platform, to_the_end};

/// What proves a device's identity.
pub struct Secrets {
    /// The verification code; `None` when it is known to exist but cannot be read.
    pub code: Option<Secret>,
    /// What was agreed with the device: the committed record and, beside it, a candidate (osap-wire 5.5).
    pub credentials: Credentials,
}

/// Why credentials were not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError<E> {
    /// The caller's rule refused the change.
    #[error("{0}")]
    Refused(E),
    /// The device was removed meanwhile.
    #[error("the device was removed")]
    Removed,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Platform {
    /// The device's secrets.
    pub async fn secrets(&self, device: &Device) -> Result<Arc<Secrets>, StoreError> {
        let mut cached = device.secrets.lock().await;
        self.load_secrets(device, &mut cached).await
    }

    /// Changes the device's credentials: `change` gets the present ones and returns the new ones. Changes of one
    /// device run one after another; the new ones are durable when this returns.
    pub async fn update_credentials<E>(
        &self,
        device: &Device,
        change: impl FnOnce(&Credentials) -> Result<Credentials, E>,
    ) -> Result<(), UpdateError<E>> {
        let mut cached = Arc::clone(&device.secrets).lock_owned().await;
        if device.is_removed() {
            return Err(UpdateError::Removed);
        }
        let present = self.load_secrets(device, &mut cached).await?;
        let credentials = change(&present.credentials).map_err(UpdateError::Refused)?;
        let (control, id) = (self.control().clone(), device.id);
        to_the_end(async move {
            // Read again next time, unless it is known what is stored now.
            *cached = None;
            control.put_credentials(id, credentials.clone()).await?;
            *cached = Some(Arc::new(Secrets { code: present.code.clone(), credentials }));
            Ok(())
        })
        .await
        .map_err(UpdateError::Store)
    }

    async fn load_secrets(
        &self,
        device: &Device,
        cached: &mut Option<Arc<Secrets>>,
    ) -> Result<Arc<Secrets>, StoreError> {
        if let Some(secrets) = cached {
            return Ok(Arc::clone(secrets));
        }
        let (code, credentials) = self.control().secrets(device.id).await?;
        let secrets = Arc::new(Secrets { code, credentials });
        *cached = Some(Arc::clone(&secrets));
        Ok(secrets)
    }
}
