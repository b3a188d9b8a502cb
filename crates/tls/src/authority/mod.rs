//! The authority: who issues certificates for servers, or for devices.

mod ca;
mod csr;

use std::net::IpAddr;

use rcgen::SanType;
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use thiserror::Error;

pub use ca::{Ca, Rank};
pub use csr::{CsrError, MAX_CSR, certificate_request, server_request};

use crate::Key;
use crate::device::device_uri;

const SECOND: i64 = 1_000;
const HOUR: i64 = 60 * 60 * SECOND;
const DAY: i64 = 24 * HOUR;
/// Certificates are valid from a little before they are made: clocks differ.
const BACKDATED: i64 = HOUR;
/// A certificate of a server is valid for this long.
const SERVER_LIFE: i64 = 90 * DAY;
/// A server's certificate is renewed when less than this is left of it.
const SERVER_RENEWAL: i64 = 30 * DAY;
/// A certificate of a device is valid for this long at most.
const DEVICE_LIFE: i64 = 730 * DAY;

/// Roots that are kept: the newest, and older ones that clients may still know.
const MAX_ROOTS: usize = 4;
/// Intermediates that are kept below each root. By the time there are more, the oldest has long ended.
const MAX_INTERMEDIATES: usize = 8;

/// Whom certificates are for. The two never share a key or a root: what proves a device proves no server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The platform's own listeners.
    Servers,
    /// Devices (osap-wire 13.3, TLS profile 6).
    Devices,
}

impl Purpose {
    /// `servers` or `devices`.
    pub fn as_str(self) -> &'static str {
        match self {
            Purpose::Servers => "servers",
            Purpose::Devices => "devices",
        }
    }

    fn root_life(self) -> i64 {
        20 * 365 * DAY
    }

    /// An intermediate outlives what it issues.
    fn intermediate_life(self) -> i64 {
        match self {
            Purpose::Servers => 365 * DAY,
            Purpose::Devices => 5 * 365 * DAY,
        }
    }

    /// The longest life of what is issued.
    fn leaf_life(self) -> i64 {
        match self {
            Purpose::Servers => SERVER_LIFE,
            Purpose::Devices => DEVICE_LIFE,
        }
    }
}

/// Why a certificate was not issued.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The request for it is at fault.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// Servers are certified by the authority of servers, devices by that of devices.
    #[error("an authority of {} was asked", .0.as_str())]
    Purpose(Purpose),
    /// Nobody can be certified under this name.
    #[error("{0:?} is neither a host name nor an address")]
    Name(String),
    /// A serial number that no certificate can name.
    #[error("a serial number of a device is 1 to 255 bytes long")]
    Serial,
    /// A key that was kept cannot be read, or is missing.
    #[error("a private key of the authority cannot be read")]
    Key,
    /// A certificate that was kept cannot be read.
    #[error("a certificate of the authority cannot be read")]
    Certificate,
    /// Nothing valid is there to sign with: the clock is wrong, or renewal was not tried for years.
    #[error("no certificate of the authority is valid now")]
    NoIssuer,
    /// The crypto library failed.
    #[error("the crypto library failed: {0}")]
    Library(String),
}

impl IssueError {
    pub(crate) fn library(error: rcgen::Error) -> IssueError {
        IssueError::Library(error.to_string())
    }
}

/// The certificates of one purpose: roots, and below the newest of them intermediates that issue. Has no clock and no
/// disk: what is new is returned, made durable by the owner, and given back with [`Authority::add`].
pub struct Authority {
    purpose: Purpose,
    /// Newest first.
    kept: Vec<Ca>,
}

impl Authority {
    /// What was kept of it, in any order.
    pub fn new(purpose: Purpose, kept: impl IntoIterator<Item = Ca>) -> Authority {
        let mut authority = Authority { purpose, kept: Vec::new() };
        kept.into_iter().for_each(|ca| authority.add(ca));
        authority
    }

    /// Whom it is for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// Takes in what is durable.
    pub fn add(&mut self, ca: Ca) {
        let at = self.kept.iter().position(|held| held.facts().not_before <= ca.facts().not_before);
        self.kept.insert(at.unwrap_or(self.kept.len()), ca);
    }

    /// Everything, newest first.
    pub fn kept(&self) -> &[Ca] {
        &self.kept
    }

    /// What has to be made by now, in the order in which it is to be added: a first root and intermediate, and each anew
    /// long before its end. Nothing when all is well.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn due(&self, now: i64) -> Result<Vec<Ca>, IssueError> {
        // What it issues never outlives an issuer: both are replaced while they can still cover a whole life.
        let root_covers = now + self.purpose.intermediate_life();
        let covers = now + self.purpose.leaf_life() + SERVER_RENEWAL;
        match self.root(now) {
            // The clock is behind, as it is on a machine without one of its own until somebody has told it the time.
            None if self.kept.iter().any(|ca| ca.rank() == Rank::Root && ca.facts().not_before > now) => Ok(Vec::new()),
            None => self.roll(now),
            Some(root) if root.facts().not_after < root_covers => self.roll(now),
            Some(root) => match self.issuing(now) {
                Some(issuing) if issuing.facts().not_after >= covers => Ok(Vec::new()),
                _ => Ok(vec![root.intermediate(now)?]),
            },
        }
    }

    /// A new root and what issues below it. The older roots stay trusted ([`Authority::anchors`]) until they end or are
    /// taken away; for servers the older one vouches for the newer, so that clients which know the older one alone go on.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn roll(&self, now: i64) -> Result<Vec<Ca>, IssueError> {
        // The newest is who begins last, which a restart has to see as well: certificates tell whole seconds.
        let newest = self.roots(now).next().map(|root| root.facts().not_before);
        let begin = newest.map_or(now, |newest| now.max(newest + BACKDATED + SECOND));
        let root = Ca::root(self.purpose, begin)?;
        let intermediate = root.intermediate(now)?;
        let mut made = Vec::new();
        if self.purpose == Purpose::Servers {
            for older in self.roots(now) {
                made.push(older.cross(&root, now)?);
            }
        }
        made.push(root);
        made.push(intermediate);
        Ok(made)
    }

    /// The serial numbers, hexadecimal, of what is one too many: below the four newest roots, eight intermediates each are kept.
    /// Goes by their number and not by the clock: one that is set takes nothing away.
    pub fn superseded(&self) -> Vec<String> {
        self.beyond(MAX_ROOTS)
    }

    /// The serial numbers, hexadecimal, of everything that hangs on an older root than the newest one: what goes when the older
    /// ones are retired.
    pub fn retiring(&self) -> Vec<String> {
        self.beyond(1)
    }

    /// Whether one more root takes the place of the oldest.
    pub fn is_full(&self) -> bool {
        self.ranked(Rank::Root).count() >= MAX_ROOTS
    }

    /// Whether the newest root is who issues: it has begun, and something is below it. Otherwise a clock was ahead when it was
    /// made, or is behind now.
    pub fn newest_issues(&self, now: i64) -> bool {
        let newest = self.ranked(Rank::Root).next();
        newest.is_some_and(|newest| self.issuing(now).is_some_and(|ca| ca.facts().issuer == newest.facts().subject))
    }

    fn beyond(&self, kept: usize) -> Vec<String> {
        let roots: Vec<&str> = self.ranked(Rank::Root).take(kept).map(|root| root.facts().subject.as_str()).collect();
        let is_kept = |name: &str| roots.contains(&name);
        let mut below = vec![0; roots.len()];
        let mut superseded = Vec::new();
        for ca in &self.kept {
            let facts = ca.facts();
            let stays = match ca.rank() {
                Rank::Root => is_kept(&facts.subject),
                Rank::Cross => is_kept(&facts.subject) && is_kept(&facts.issuer),
                Rank::Intermediate => roots.iter().position(|root| *root == facts.issuer).is_some_and(|at| {
                    below[at] += 1;
                    below[at] <= MAX_INTERMEDIATES
                }),
            };
            if !stays {
                superseded.push(facts.serial_hex());
            }
        }
        superseded
    }

    /// Forgets the certificates with these serial numbers, hexadecimal, and returns them.
    pub fn remove(&mut self, serials: &[String]) -> Vec<Ca> {
        self.kept.extract_if(.., |ca| serials.contains(&ca.facts().serial_hex())).collect()
    }

    fn ranked(&self, rank: Rank) -> impl Iterator<Item = &Ca> {
        self.kept.iter().filter(move |ca| ca.rank() == rank)
    }

    /// The roots to trust: what `ca.pem` holds, and what proves devices. Those that have not ended, newest first, but the one that
    /// issues before those that begin later. Those are among them, since a clock that is behind is no reason to trust nobody.
    pub fn anchors(&self, now: i64) -> Vec<CertificateDer<'static>> {
        let roots = || self.ranked(Rank::Root);
        let mut anchors: Vec<_> = roots().filter(|root| root.facts().not_after >= now).collect();
        if anchors.is_empty() {
            anchors.extend(roots().next());
        }
        anchors.sort_by_key(|root| root.facts().not_before > now);
        anchors.into_iter().map(|root| root.certificate().clone()).collect()
    }

    /// A certificate for a server under these names, hosts and addresses, for 90 days, with its chain, leaf first.
    ///
    /// # Errors
    /// A name is none, or see [`IssueError`].
    pub fn server_certificate(
        &self,
        key: &Key,
        names: &[String],
        now: i64,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        self.is_for(Purpose::Servers)?;
        let names = names.iter().map(|name| server_name(name)).collect::<Result<Vec<_>, _>>()?;
        let issuing = self.issuing(now).ok_or(IssueError::NoIssuer)?;
        let leaf = issuing.leaf(key, "Vestibule", names, now, now.saturating_add(SERVER_LIFE))?;
        let mut chain = vec![leaf, issuing.certificate().clone()];
        let crosses = self.of(Rank::Cross, now).filter(|cross| cross.facts().subject == issuing.facts().issuer);
        chain.extend(crosses.map(|cross| cross.certificate().clone()));
        Ok(chain)
    }

    /// Whether a server's certificate is to be made anew: little is left of it, it was issued below another root, or it
    /// lacks one of the names.
    pub fn server_certificate_is_due(&self, chain: &[CertificateDer<'static>], names: &[String], now: i64) -> bool {
        let Some(leaf) = chain.first() else { return true };
        let Ok(facts) = crate::CertificateFacts::read(leaf) else { return true };
        if self.issuing(now).is_none() {
            // Nothing better can be made.
            return false;
        }
        let current = self.issuing(now).is_some_and(|issuing| issuing.facts().subject == facts.issuer);
        facts.not_before > now
            || facts.not_after < now + SERVER_RENEWAL
            || !current
            || !names.iter().all(|name| crate::covers(leaf, name))
    }

    /// A certificate for the device that holds the key of this request, valid for `life` milliseconds and never for more
    /// than two years, with its chain, leaf first. Of the request its key alone is kept (osap-wire 13.3).
    ///
    /// # Errors
    /// The request is refused, or see [`IssueError`].
    pub fn device_certificate(
        &self,
        request: &CertificateSigningRequestDer<'_>,
        serial: &str,
        life: i64,
        now: i64,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        self.is_for(Purpose::Devices)?;
        if serial.is_empty() || serial.len() > 255 {
            return Err(IssueError::Serial);
        }
        let key = csr::RequestedKey::read(request)?;
        let uri = device_uri(serial).try_into().map_err(|_| IssueError::Serial)?;
        let issuing = self.issuing(now).ok_or(IssueError::NoIssuer)?;
        let end = now.saturating_add(life.clamp(0, DEVICE_LIFE));
        let leaf = issuing.leaf(&key, "Vestibule device", vec![SanType::URI(uri)], now, end)?;
        Ok(vec![leaf, issuing.certificate().clone()])
    }

    fn is_for(&self, purpose: Purpose) -> Result<(), IssueError> {
        if self.purpose == purpose { Ok(()) } else { Err(IssueError::Purpose(self.purpose)) }
    }

    /// The root that new intermediates come from.
    fn root(&self, now: i64) -> Option<&Ca> {
        self.roots(now).next()
    }

    fn roots(&self, now: i64) -> impl Iterator<Item = &Ca> {
        self.of(Rank::Root, now)
    }

    /// The intermediate that issues: the newest below the newest root.
    fn issuing(&self, now: i64) -> Option<&Ca> {
        let root = self.root(now)?;
        self.of(Rank::Intermediate, now).find(|ca| ca.facts().issuer == root.facts().subject)
    }

    fn of(&self, rank: Rank, now: i64) -> impl Iterator<Item = &Ca> {
        self.ranked(rank).filter(move |ca| ca.is_valid(now))
    }
}

/// Whether a server can be certified under this name: a host, also `*.` and one, or an address.
pub fn is_name(name: &str) -> bool {
    server_name(name).is_ok()
}

fn server_name(name: &str) -> Result<SanType, IssueError> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    // The rules for names of hosts are the verifier's: a certificate that it would not accept is none.
    let bare = name.strip_prefix("*.").unwrap_or(name);
    let valid = rustls::pki_types::DnsName::try_from(bare).is_ok();
    match name.try_into() {
        Ok(text) if valid => Ok(SanType::DnsName(text)),
        _ => Err(IssueError::Name(name.to_owned())),
    }
}
