//! The platform's certificates: its authorities, what its listeners show, and what proves devices.
//!
//! Everything is durable before it is used. What has to be renewed is renewed here, long before its end.

mod acquired;
mod issue;
mod kept;
mod roots;
mod show;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock as Now;
use tokio::sync::{RwLock, watch};
use vestibule_store::{Control, DeviceCertificateQuery, Secret, StoreError};
use vestibule_tls::rustls::pki_types::{CertificateDer, UnixTime};
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::{
    Authority, Ca, DeviceVerifier, Identity, IdentityError, IssueError, Key, Purpose, Resolver, ServerTls,
    VerifierError,
};

use crate::clock::Clock;
pub use acquired::Acquired;
pub use issue::{IssuedCertificate, LONGEST_CERTIFICATE};
pub use roots::OverdueRoots;
use roots::Roots;
pub use show::{AuthorityView, CertificateView};

/// How often it is looked whether something has to be renewed.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// Revoked certificates that are read at once.
const REVOKED_PAGE: i64 = 10_000;
/// Names under which every platform is reached.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];
/// No clock that is right says less: 2026-01-01, Unix milliseconds.
const EARLIEST: i64 = 1_767_225_600_000;

/// Why certificates are not as they should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificatesError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A certificate was not issued; its text says whose fault that is.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// What was kept does not fit together.
    #[error("a certificate that was kept cannot be used: {0}")]
    Kept(String),
    /// The caller: there is no such device or certificate (any more).
    #[error("there is no such certificate")]
    Unknown,
    /// The caller: the device has as many as it may have.
    #[error("the device has {0} certificates that are valid; revoke some")]
    Full(usize),
    /// The caller: so many were issued to the device, and revoked, that the next one is a while off.
    #[error(
        "the device was issued {0} certificates that have not ended yet, revoked ones among them; the next one is issued later"
    )]
    Spent(usize),
    /// The caller: without the older root these devices could not come in any more.
    #[error(
        "{devices} devices do not know the newest root yet, and {unseen} have never been in: those of them whose firmware names \
         an older root could not come in any more"
    )]
    Overdue {
        /// Devices that come over TLS and have not said that they know it.
        devices: u64,
        /// Devices that have never been in: by which root their programs know the platform nobody can tell.
        unseen: u64,
    },
    /// The newest root does not issue yet: the older ones cannot go, whoever insists.
    #[error("the newest root begins later than now: the clock was ahead when it was made, or is behind now")]
    Early,
    /// The caller: certificates of devices hang on the older root.
    #[error("{0} certificates of devices that are valid were issued below an older root")]
    Dependent(u64),
}

impl From<IdentityError> for CertificatesError {
    fn from(error: IdentityError) -> CertificatesError {
        CertificatesError::Kept(error.to_string())
    }
}

impl From<VerifierError> for CertificatesError {
    fn from(error: VerifierError) -> CertificatesError {
        CertificatesError::Kept(error.to_string())
    }
}

/// The platform's certificates.
pub struct Certificates {
    control: Control,
    clock: Arc<dyn Clock>,
    /// What the server's certificate says.
    names: Vec<String>,
    /// Read while something is issued, over its commit; written when roots or intermediates change.
    held: RwLock<Held>,
    /// The roots of servers, for whoever only asks for those.
    roots: Now<Arc<Roots>>,
    resolver: Arc<Resolver>,
    verifier: Arc<DeviceVerifier>,
    changes: watch::Sender<u64>,
    trouble: parking_lot::Mutex<Option<String>>,
}

/// What is in force. Changed after what is durable.
struct Held {
    servers: Authority,
    devices: Authority,
    /// The server's own, kept over renewals: devices may have pinned it.
    key: Key,
    chain: Vec<CertificateDer<'static>>,
}

impl Held {
    fn of(&self, purpose: Purpose) -> &Authority {
        match purpose {
            Purpose::Servers => &self.servers,
            Purpose::Devices => &self.devices,
        }
    }

    fn of_mut(&mut self, purpose: Purpose) -> &mut Authority {
        match purpose {
            Purpose::Servers => &mut self.servers,
            Purpose::Devices => &mut self.devices,
        }
    }
}

impl Certificates {
    /// Reads what was kept and makes what is missing or due. The server's certificate has these names beside those of this
    /// machine.
    pub(crate) async fn open(
        control: Control,
        clock: Arc<dyn Clock>,
        names: &[String],
    ) -> Result<Arc<Certificates>, CertificatesError> {
        let mut all: Vec<String> = LOCAL.iter().map(|&name| name.to_owned()).collect();
        all.extend(names.iter().filter(|name| !LOCAL.contains(&name.as_str())).cloned());
        let now = clock.now_ms().max(EARLIEST);
        let mut held = kept::load(control.certificates().await?)?;
        let mut rows = Vec::new();
        for purpose in [Purpose::Servers, Purpose::Devices] {
            for ca in held.of(purpose).due(now)? {
                rows.push(kept::row(purpose, &ca));
                held.of_mut(purpose).add(ca);
            }
        }
        if held.servers.server_certificate_is_due(&held.chain, &all, now) {
            held.chain = held.servers.server_certificate(&held.key, &all, now)?;
            rows.push(kept::server_row(&held.chain, &held.key));
        }
        if !rows.is_empty() {
            control.put_certificates(rows).await?;
        }
        let resolver = Resolver::new(&Identity::new(held.chain.clone(), &held.key)?)?;
        let verifier = DeviceVerifier::new(held.devices.anchors(now), [])?;
        let mut after = Vec::new();
        loop {
            let query =
                DeviceCertificateQuery { revoked: true, after: Some(after), limit: REVOKED_PAGE, ..Default::default() };
            let page = control.device_certificates(query).await?;
            let Some(last) = page.last() else { break };
            after = last.serial.clone();
            verifier.revoke(page.into_iter().map(|row| row.serial));
        }
        let certificates = Certificates {
            control,
            clock,
            names: all,
            roots: Now::new(Arc::new(Roots::of(&held.servers, now))),
            held: RwLock::new(held),
            resolver,
            verifier,
            changes: watch::Sender::new(0),
            trouble: parking_lot::Mutex::default(),
        };
        Ok(Arc::new(certificates))
    }

    /// Makes configurations of listeners that show the platform's own certificate.
    pub fn server_tls(&self) -> ServerTls {
        ServerTls::new(Arc::clone(&self.resolver), self.time())
    }

    /// What verifies the certificates of devices.
    pub fn verifier(&self) -> &Arc<DeviceVerifier> {
        &self.verifier
    }

    /// The platform's clock, as TLS asks for it.
    pub fn time(&self) -> Arc<dyn TimeProvider> {
        Arc::new(Time(Arc::clone(&self.clock)))
    }

    /// The names that the platform's own certificate has.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Marked as changed whenever the roots of servers, or what is shown, change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Renews what is due; true when something was.
    ///
    /// # Errors
    /// The store or the library failed; what is in force stays.
    pub async fn renew(&self) -> Result<bool, CertificatesError> {
        let now = self.now();
        let mut held = self.held.write().await;
        let mut made = Vec::new();
        for purpose in [Purpose::Servers, Purpose::Devices] {
            made.extend(held.of(purpose).due(now)?.into_iter().map(|ca| (purpose, ca)));
        }
        let changed = self.take(&mut held, made, now).await?;
        // A root that began later may have begun.
        *self.roots.write() = Arc::new(Roots::of(&held.servers, now));
        self.tell_ends(&held);
        Ok(changed)
    }

    /// Forgets certificates of devices that have ended and whose issuer is not kept any more; how many there were. By the clock
    /// alone nothing is forgotten: one that was ahead would have made revoked certificates good again once it is set.
    ///
    /// # Errors
    /// The store failed.
    pub async fn forget_ended(&self) -> Result<u64, StoreError> {
        let held = self.held.read().await;
        let is_kept = |issuer: &String| held.devices.kept().iter().any(|ca| ca.facts().subject == *issuer);
        let mut forgotten = 0;
        for issuer in self.control.device_issuers().await?.iter().filter(|issuer| !is_kept(issuer)) {
            forgotten += self.control.expire_certificates(issuer, self.now()).await?;
        }
        Ok(forgotten)
    }

    /// Renews what is due, now and then, for as long as it runs.
    pub(crate) async fn keep(self: Arc<Certificates>) {
        // Issuers go once in years: a look at each start will do.
        if let Err(error) = self.forget_ended().await {
            tracing::warn!(%error, "certificates of devices whose issuer is gone stay listed");
        }
        loop {
            match self.renew().await {
                Ok(true) => tracing::info!("certificates were renewed"),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(%error, "certificates could not be renewed; it is tried again in an hour")
                }
            }
            self.count_overdue().await;
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A new root for servers or devices beside the older one, and whatever is below it. Where it takes the place of the
    /// oldest, that one is not to be needed any more, unless the caller insists.
    async fn roll(&self, purpose: Purpose, force: bool) -> Result<(), CertificatesError> {
        let now = self.now();
        let mut held = self.held.write().await;
        if held.of(purpose).is_full() && !force {
            self.dispensable(&held, purpose, now).await?;
        }
        let made = held.of(purpose).roll(now)?.into_iter().map(|ca| (purpose, ca)).collect();
        self.take(&mut held, made, now).await?;
        Ok(())
    }

    /// Keeps what was made, durably, and has it used from now on; true when anything has changed.
    async fn take(&self, held: &mut Held, made: Vec<(Purpose, Ca)>, now: i64) -> Result<bool, CertificatesError> {
        let rows = made.iter().map(|(purpose, ca)| kept::row(*purpose, ca)).collect::<Vec<_>>();
        let any = !rows.is_empty();
        if any {
            self.control.put_certificates(rows).await?;
        }
        for (purpose, ca) in made {
            held.of_mut(purpose).add(ca);
        }
        for purpose in [Purpose::Servers, Purpose::Devices] {
            let superseded = held.of(purpose).superseded();
            if !superseded.is_empty() {
                self.control.replace_certificates(superseded.clone(), Vec::new()).await?;
                held.of_mut(purpose).remove(&superseded);
            }
        }
        if any {
            self.show_roots(held, now)?;
        }
        let due = held.servers.server_certificate_is_due(&held.chain, &self.names, now);
        if due {
            self.certify_server(held, now).await?;
        }
        if any || due {
            self.changes.send_modify(|count| *count += 1);
        }
        Ok(any || due)
    }

    /// Has the server show another certificate, below the root that is the newest now.
    async fn certify_server(&self, held: &mut Held, now: i64) -> Result<(), CertificatesError> {
        let chain = held.servers.server_certificate(&held.key, &self.names, now)?;
        self.control.put_certificates(vec![kept::server_row(&chain, &held.key)]).await?;
        self.resolver.replace(&Identity::new(chain.clone(), &held.key)?)?;
        held.chain = chain;
        Ok(())
    }

    /// Has devices verified by the present roots, and told of the newest one of servers.
    fn show_roots(&self, held: &Held, now: i64) -> Result<(), CertificatesError> {
        self.verifier.replace(held.devices.anchors(now))?;
        *self.roots.write() = Arc::new(Roots::of(&held.servers, now));
        Ok(())
    }

    fn now(&self) -> i64 {
        self.clock.now_ms().max(EARLIEST)
    }
}

fn secret(key: &[u8]) -> Secret {
    Secret::new(key)
}

/// The platform's clock for TLS.
struct Time(Arc<dyn Clock>);

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        let ms = u64::try_from(self.0.now_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(ms)))
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the platform's clock")
    }
}
