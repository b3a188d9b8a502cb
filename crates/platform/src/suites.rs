//! Which suites are open to a device, and what it is given to come in by one without its code (osap-wire 13.3, 13.4).

use std::sync::Arc;

use serde_json::json;
use vestibule_store::{Credentials, DeviceId, KnownBy, Secret, StoreError};

use crate::audit::Deed;
use crate::caller::Caller;
use crate::credentials::Held;
use crate::device::Device;
use crate::platform::{Platform, to_the_end};
use crate::presence::{announce, close_link};

/// Makes credentials for a device. The adapter whose they are enters itself with [`Platform::set_provisioner`]: what is in
/// them only it knows.
pub trait Provisioner: Send + Sync + 'static {
    /// What is to be stored in place of `present`, and what the device is to be given.
    fn provision(&self, device: DeviceId, present: &Credentials) -> (Credentials, Provisioned);

    /// Whether a device with these credentials has come in and comes back by itself, without its code.
    fn is_in(&self, present: &Credentials) -> bool;

    /// What is left of `present` when nothing counts any more by which the device comes back: neither tickets nor sessions.
    /// It stays who it is, and `may_enrol` says whether it may enrol with its code as if for the first time.
    fn void(&self, device: DeviceId, present: &Credentials, may_enrol: bool) -> Credentials;
}

/// What a device is given by whoever makes or installs it: all it needs to come in over plain TCP. Shown once.
pub struct Provisioned {
    /// The identity of the device, which is no secret.
    pub dev_id: String,
    /// The name of its ticket, which is no secret either.
    pub ticket: Vec<u8>,
    /// The secret that goes with it.
    pub psk: Secret,
}

/// Why a device was not provisioned.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// Nobody here makes such credentials.
    #[error("devices are not provisioned here")]
    Off,
    /// The store failed, or the caller does not see the device any more.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which suites are to be open to a device; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suites {
    /// The legacy ones.
    pub legacy: Option<bool>,
    /// Those over plain TCP.
    pub plain: Option<bool>,
    /// Whether the device has to show a certificate.
    pub certificate: Option<Demand>,
}

/// Whether a device has to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// As its product has to.
    AsProduct,
    /// It has to.
    Demanded,
    /// It has not, whatever is said of its product.
    Optional,
}

impl Demand {
    /// What was said of a device.
    pub fn of(device: &Device) -> Demand {
        match device.certificate() {
            None => Demand::AsProduct,
            Some(true) => Demand::Demanded,
            Some(false) => Demand::Optional,
        }
    }

    fn stored(self) -> Option<bool> {
        match self {
            Demand::AsProduct => None,
            Demand::Demanded => Some(true),
            Demand::Optional => Some(false),
        }
    }
}

impl Platform {
    /// Enters who makes credentials for devices; the first one counts.
    pub fn set_provisioner(&self, provisioner: Arc<dyn Provisioner>) {
        let _ = self.provisioner().set(provisioner);
    }

    /// Gives a device what it needs to come in without its code, durably. What was agreed with it is void and its connection
    /// ends.
    pub async fn provision(&self, device: &Device, by: &Caller) -> Result<Provisioned, ProvisionError> {
        let provisioner = Arc::clone(self.provisioner().get().ok_or(ProvisionError::Off)?);
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, auditor, by) = (self.control().clone(), self.auditor(), by.clone());
        let clock = self.clock_handle();
        to_the_end(async move {
            // Holding the credentials' lock keeps a running handshake from writing the old ones again.
            let mut secrets = device.secrets.lock().await;
            by.still_sees(&device)?;
            *secrets = Held::Stored;
            let present = control.credentials(device.id).await?;
            let (credentials, provisioned) = provisioner.provision(device.id, &present);
            let modern = credentials.modern;
            control.put_credentials(device.id, &credentials).await?;
            device.set_suites(modern, device.is_tls_only());
            // It is going to come without TLS; where it does not, it says so.
            control.note_root(device.id, &KnownBy::Plain, clock.now_ms()).await?;
            device.set_knows(&KnownBy::Plain);
            device.pardon();
            close_link(&device, "provisioned");
            drop(secrets);
            let (actor, device_of, detail) = (by.name(), Some(&*device), json!({}));
            auditor.write(Deed { actor, action: "device.provision", device: device_of, detail, ok: true }).await;
            Ok(provisioned)
        })
        .await
    }

    /// Forgets by what a device comes back, durably, and ends its connection: its certificate was revoked (osap-wire 13.3, TLS
    /// profile 6).
    pub(crate) async fn void_credentials(&self, device: &Device) -> Result<(), StoreError> {
        // First: what follows may fail, and can be repeated.
        close_link(device, "certificate_revoked");
        if let Some(provisioner) = self.provisioner().get() {
            let mut secrets = device.secrets.lock().await;
            *secrets = Held::Stored;
            let present = self.control().credentials(device.id).await?;
            self.control().put_credentials(device.id, &provisioner.void(device.id, &present, false)).await?;
            // Whoever came in between.
            close_link(device, "certificate_revoked");
        }
        Ok(())
    }

    /// Opens suites to a device, or closes them; and says whether it has to show a certificate, which counts from its next run
    /// at the LBS, and by the legacy suites from its next login. The legacy ones are closed by themselves once it has come in by a modern one.
    pub async fn set_suites(&self, device: &Device, suites: Suites, by: &Caller) -> Result<(), StoreError> {
        let device = self.registry().by_id(device.id).ok_or(StoreError::UnknownDevice)?;
        let (control, changes) = (self.control().clone(), self.presence_sender().clone());
        let (auditor, by) = (self.auditor(), by.clone());
        to_the_end(async move {
            let mut secrets = device.secrets.lock().await;
            by.still_sees(&device)?;
            let modern = suites.legacy.map_or_else(|| device.is_modern(), |open| !open);
            let tls_only = suites.plain.map_or_else(|| device.is_tls_only(), |open| !open);
            // Read again next time: whether it is a modern device is among them.
            *secrets = Held::Stored;
            control.set_suites(device.id, modern, tls_only).await?;
            device.set_suites(modern, tls_only);
            // The suites count by now, and what follows from them is done whatever becomes of the rest.
            let demanded = match suites.certificate {
                Some(demand) => control.demand_certificate(device.id, demand.stored()).await,
                None => Ok(()),
            };
            if let (Some(demand), Ok(())) = (suites.certificate, &demanded) {
                device.set_certificate(demand.stored());
            }
            let live = device.presence().suite;
            let is_closed = match live.as_deref() {
                Some("legacy") => modern,
                Some("tls") | None => false,
                Some(_) => tls_only,
            };
            if is_closed {
                close_link(&device, "suite_closed");
            }
            announce(&changes, &device);
            drop(secrets);
            let certificate = device.certificate();
            let detail = json!({"legacy": !modern, "plain": !tls_only, "certificate": certificate});
            let (actor, device_of) = (by.name(), Some(&*device));
            auditor
                .write(Deed { actor, action: "device.suites", device: device_of, detail, ok: demanded.is_ok() })
                .await;
            demanded
        })
        .await
    }
}
