//! The roots of servers and who knows which: a new one is told to devices, and an older one goes when nobody needs it.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use vestibule_store::{KnownBy, OverdueRow, StoreError};
use vestibule_tls::rustls::pki_types::CertificateDer;
use vestibule_tls::{Authority, Identity, Purpose, Rank};

use super::issue::hex;
use super::{Certificates, CertificatesError, Held, kept};
use crate::caller::Caller;
use crate::device::Device;
use crate::platform::{Platform, to_the_end};

/// SHA-256 of a root, DER.
type RootId = [u8; 32];

/// The roots of servers, first the newest that has begun.
pub(super) struct Roots(Vec<(RootId, CertificateDer<'static>)>);

impl Roots {
    pub(super) fn of(servers: &Authority, now: i64) -> Roots {
        let id = |der: &CertificateDer<'_>| digest(&SHA256, der).as_ref().try_into().expect("a SHA-256 has 32 bytes");
        Roots(servers.anchors(now).into_iter().map(|der| (id(&der), der)).collect())
    }

    fn newest(&self) -> String {
        self.0.first().map(|(id, _)| hex(id)).unwrap_or_default()
    }

    /// What a device is to be told that knows these: the newest, where it lacks that one or knows one that is retired.
    fn to_tell(&self, known: &[RootId]) -> Option<&CertificateDer<'static>> {
        let (newest, der) = self.0.first()?;
        let is_ours = |id: &RootId| self.0.iter().any(|(ours, _)| ours == id);
        (!known.contains(newest) || !known.iter().all(is_ours)).then_some(der)
    }

    /// The newest of ours that is among these.
    fn best_of(&self, known: &[RootId]) -> Option<&RootId> {
        self.0.iter().map(|(id, _)| id).find(|id| known.contains(id))
    }
}

/// Devices that do not know the newest root of servers.
#[derive(Debug, Clone)]
pub struct OverdueRoots {
    /// SHA-256 of the newest root, hexadecimal.
    pub newest: String,
    /// How many devices there are.
    pub total: u64,
    /// Some of them, by their serials.
    pub rows: Vec<OverdueRow>,
}

impl Certificates {
    /// The root, DER, that a device is to be told of which says that it knows the platform by these, SHA-256 each; none where
    /// all is well.
    pub fn root_to_tell(&self, known: &[RootId]) -> Option<Vec<u8>> {
        self.roots.read().to_tell(known).map(|der| der.to_vec())
    }

    /// Devices that come over TLS and have not said that they know the newest root of servers, beyond the serial `after`.
    ///
    /// # Errors
    /// The store failed.
    pub async fn overdue_roots(&self, after: &str, limit: i64) -> Result<OverdueRoots, StoreError> {
        let newest = self.roots.read().newest();
        let rows = self.control.overdue_roots(&newest, after, limit).await?;
        let total = self.control.count_overdue_roots(&newest).await?;
        Ok(OverdueRoots { newest, total, rows })
    }

    /// Says in the metrics how many devices do not know the newest root.
    pub(super) async fn count_overdue(&self) {
        let newest = self.roots.read().newest();
        match self.control.count_overdue_roots(&newest).await {
            Ok(count) => metrics::gauge!("vestibule_authority_overdue_devices").set(count as f64),
            Err(error) => tracing::warn!(%error, "devices that do not know the newest root are not counted"),
        }
    }

    /// Whether the older roots can go without leaving anybody behind.
    pub(super) async fn dispensable(&self, held: &Held, purpose: Purpose, now: i64) -> Result<(), CertificatesError> {
        match purpose {
            Purpose::Servers => {
                let newest = self.roots.read().newest();
                let devices = self.control.count_overdue_roots(&newest).await?;
                let unseen = self.control.count_unseen_devices().await?;
                if devices == 0 && unseen == 0 { Ok(()) } else { Err(CertificatesError::Overdue { devices, unseen }) }
            }
            Purpose::Devices => {
                let retiring = held.devices.retiring();
                let issuing = held.devices.kept().iter().filter(|ca| ca.rank() == Rank::Intermediate);
                let mut count = 0;
                for ca in issuing.filter(|ca| retiring.contains(&ca.facts().serial_hex())) {
                    count += self.control.count_certificates_of(&ca.facts().subject, now).await?;
                }
                if count == 0 { Ok(()) } else { Err(CertificatesError::Dependent(count)) }
            }
        }
    }

    /// Takes the older roots away, with what hangs on them. How many certificates of the authority that were.
    async fn retire(&self, purpose: Purpose, force: bool) -> Result<usize, CertificatesError> {
        let now = self.now();
        let mut held = self.held.write().await;
        let retiring = held.of(purpose).retiring();
        if retiring.is_empty() {
            return Ok(0);
        }
        if !held.of(purpose).newest_issues(now) {
            return Err(CertificatesError::Early);
        }
        if !force {
            self.dispensable(&held, purpose, now).await?;
        }
        let gone = held.of_mut(purpose).remove(&retiring);
        if let Err(error) = self.do_without(&mut held, purpose, retiring.clone(), now).await {
            // It is durable still, and in use.
            gone.into_iter().for_each(|ca| held.of_mut(purpose).add(ca));
            return Err(error);
        }
        self.show_roots(&held, now)?;
        self.changes.send_modify(|count| *count += 1);
        Ok(retiring.len())
    }

    /// Removes what `held` has no more; in the same step the server gets a certificate without what the older roots vouched with.
    async fn do_without(
        &self,
        held: &mut Held,
        purpose: Purpose,
        gone: Vec<String>,
        now: i64,
    ) -> Result<(), CertificatesError> {
        if purpose == Purpose::Devices {
            return Ok(self.control.replace_certificates(gone, Vec::new()).await?);
        }
        let chain = held.servers.server_certificate(&held.key, &self.names, now)?;
        let identity = Identity::new(chain.clone(), &held.key)?;
        self.control.replace_certificates(gone, vec![kept::server_row(&chain, &held.key)]).await?;
        self.resolver.replace(&identity)?;
        held.chain = chain;
        Ok(())
    }
}

impl Platform {
    /// Takes note of the CA certificates, SHA-256 each, by which a device knows the platform; `None`: it comes without TLS. What
    /// cannot be noted is in the log: the device says it again with its next run.
    pub async fn note_roots(&self, device: &Device, known: Option<&[RootId]>) {
        let certificates = self.certificates();
        let known = match known {
            None => KnownBy::Plain,
            Some(known) => {
                let best = certificates.roots.read().best_of(known).map(|id| hex(id));
                best.map_or(KnownBy::Untold, KnownBy::Root)
            }
        };
        if device.knows_already(&known) {
            return;
        }
        match self.control().note_root(device.id, &known, self.clock().now_ms()).await {
            Ok(_) => device.set_knows(&known),
            Err(error) => tracing::warn!(serial = %device.serial, %error, "the root a device knows was not noted"),
        }
    }

    /// Makes a new root for servers or devices; the older one stays trusted until it ends or is retired. With as many roots as
    /// there may be the oldest goes, which `force` does also while it is needed. Durable, and in the audit, when this returns.
    ///
    /// # Errors
    /// The oldest is still needed, or the store or the library failed.
    pub async fn roll_authority(
        self: &Arc<Self>,
        purpose: Purpose,
        force: bool,
        by: &Caller,
    ) -> Result<(), CertificatesError> {
        let (platform, by) = (Arc::clone(self), by.clone());
        to_the_end(async move {
            let rolled = platform.certificates().roll(purpose, force).await;
            platform.certificates().count_overdue().await;
            let detail = json!({"purpose": purpose.as_str(), "force": force});
            let (auditor, ok) = (platform.auditor(), rolled.is_ok());
            auditor.note(by.name(), "authority.roll", by.subtree(), detail, ok).await;
            rolled
        })
        .await
    }

    /// Takes the older roots of servers or devices away: who knows the platform by one of those alone, or has a certificate
    /// below one, comes in no more. Without `force` that is refused while there are any. How many certificates of the authority
    /// were taken away; durable, and in the audit, when this returns.
    ///
    /// # Errors
    /// Somebody needs them still, or the store or the library failed.
    pub async fn retire_authority(
        self: &Arc<Self>,
        purpose: Purpose,
        force: bool,
        by: &Caller,
    ) -> Result<usize, CertificatesError> {
        let (platform, by) = (Arc::clone(self), by.clone());
        to_the_end(async move {
            let retired = platform.certificates().retire(purpose, force).await;
            let count = retired.as_ref().ok();
            let detail = json!({"purpose": purpose.as_str(), "force": force, "count": count});
            let (auditor, ok) = (platform.auditor(), retired.is_ok());
            auditor.note(by.name(), "authority.retire", by.subtree(), detail, ok).await;
            retired
        })
        .await
    }
}
