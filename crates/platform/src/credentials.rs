//! A device's secrets: read once, kept in memory while it comes in, changed under a lock of the device's own.

use std::sync::Arc;
use std::time::Instant;

use vestibule_store::{CodeUse, Control, Credentials, DeviceId, SealedCode, Secret, StoreError};

use crate::device::Device;
use crate::platform::{Platform, to_the_end};

/// What proves a device's identity.
pub struct Secrets {
    /// The verification code; `None` when it is known to exist but cannot be read. One that is used up is another here, which
    /// nobody knows: so it is refused exactly like a wrong one, whatever asks for it.
    pub code: Option<Secret>,
    /// What was agreed with the device: the committed record and, beside it, a candidate (osap-wire 5.5).
    pub credentials: Credentials,
}

impl Secrets {
    fn of(code: Option<Secret>, credentials: Credentials) -> Secrets {
        let code = match credentials.code {
            CodeUse::Spent(_) => code.map(|_| Secret::random_code()),
            CodeUse::Lasting | CodeUse::OneTime => code,
        };
        Secrets { code, credentials }
    }
}

/// What is in memory of a device's secrets.
#[derive(Default)]
pub(crate) enum Held {
    /// Nothing: they are in the store.
    #[default]
    Stored,
    /// Nothing was agreed with the device yet, and this is its code: who comes in for the first time need not wait for
    /// the store before the key agreement.
    New(SealedCode),
    /// All of them, as the store has them.
    Read(Arc<Secrets>),
}

/// Whether the store answers, asked for by many at once: one question is under way at any time, and who comes while it is
/// shares the next one. So strangers who have it asked cannot crowd out devices.
#[derive(Default)]
pub(crate) struct Answering(tokio::sync::Mutex<Option<Asked>>);

struct Asked {
    begun: Instant,
    answered: bool,
}

impl Answering {
    async fn ask(&self, control: &Control) -> bool {
        let came = Instant::now();
        let mut last = self.0.lock().await;
        match &*last {
            Some(asked) if asked.begun >= came => asked.answered,
            _ => {
                let begun = Instant::now();
                // Nobody's: no device has this id.
                let answered = control.secrets(DeviceId::mint()).await.is_ok();
                *last = Some(Asked { begun, answered });
                answered
            }
        }
    }
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
        let mut held = device.secrets.lock().await;
        self.load_secrets(device, &mut held).await
    }

    /// The device's secrets as the store has them now, whatever is in memory.
    pub async fn stored_secrets(&self, device: &Device) -> Result<Arc<Secrets>, StoreError> {
        let mut held = device.secrets.lock().await;
        *held = Held::Stored;
        self.load_secrets(device, &mut held).await
    }

    /// Whether the secrets of a device could be read now. It is asked on behalf of serials that nobody has registered and of
    /// devices whose secrets are in memory: while the store is down they get the answer of one that has to be read, or the
    /// answers tell who exists (osap-wire 13.2.3).
    pub async fn store_answers(&self) -> bool {
        self.answering().ask(self.control()).await
    }

    /// Changes the device's credentials: `change` gets the present ones and returns the new ones. Changes of one
    /// device run one after another; the new ones are durable when this returns.
    pub async fn update_credentials<E>(
        &self,
        device: &Device,
        change: impl FnOnce(&Credentials) -> Result<Credentials, E>,
    ) -> Result<(), UpdateError<E>> {
        let mut held = Arc::clone(&device.secrets).lock_owned().await;
        if device.is_removed() {
            return Err(UpdateError::Removed);
        }
        let present = self.load_secrets(device, &mut held).await?;
        let mut credentials = change(&present.credentials).map_err(UpdateError::Refused)?;
        // It can be used up, and nothing else becomes of a code here.
        credentials.code = match (present.credentials.code, credentials.code) {
            (CodeUse::OneTime, spent @ CodeUse::Spent(_)) => spent,
            (present, _) => present,
        };
        let (control, id) = (self.control().clone(), device.id);
        let owner = self.registry().by_id(id).ok_or(UpdateError::Removed)?;
        to_the_end(async move {
            // Read again next time, unless it is known what is stored now.
            *held = Held::Stored;
            control.put_credentials(id, &credentials).await?;
            owner.set_suites(credentials.modern, owner.is_tls_only());
            owner.set_code_use(credentials.code);
            *held = Held::Read(Arc::new(Secrets::of(present.code.clone(), credentials)));
            Ok(())
        })
        .await
        .map_err(UpdateError::Store)
    }

    async fn load_secrets(&self, device: &Device, held: &mut Held) -> Result<Arc<Secrets>, StoreError> {
        let (code, credentials) = match held {
            Held::Read(secrets) => return Ok(Arc::clone(secrets)),
            Held::New(code) => {
                let credentials = Credentials { code: device.code_use(), ..Credentials::default() };
                (Some(self.control().open_code(device.id, code)?), credentials)
            }
            Held::Stored => self.control().secrets(device.id).await?,
        };
        let secrets = Arc::new(Secrets::of(code, credentials));
        if matches!(held, Held::Stored) {
            *held = Held::Read(Arc::clone(&secrets));
        }
        Ok(secrets)
    }
}
