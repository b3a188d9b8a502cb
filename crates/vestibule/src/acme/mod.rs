//! A certificate for people and applications from an ACME server (RFC 8555), such as Let's Encrypt: ordered, renewed at two
//! thirds of its life, and shown to who asks for one of its names.

mod challenge;
mod order;
mod transport;

use std::fs;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use osap::{Random as _, SystemRandom};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use vestibule_platform::{Acquired, Certificates, Secret};
use vestibule_tls::{CertificateFacts, Identity, IdentityError, Key, Resolver, read_pem};

use self::challenge::Challenges;
use self::transport::Transport;
use crate::config::Acme;

/// What the certificate is kept as.
const CERTIFICATE: &str = "acme-server";
/// It is looked at this often at least: a clock may be set.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// After a first failure, and after many; each is between half and all of that.
const PAUSE: Duration = Duration::from_secs(60);
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);

/// Characters of a server's words in the log.
const MAX_WORDS: usize = 300;

/// Shows the certificate that was kept to who asks for one of its names, the platform's own to everybody else and until there is
/// one, and keeps it renewed.
///
/// # Errors
/// The configuration cannot be used, or the listener for challenges not be opened.
pub(crate) async fn open(
    config: &Acme,
    certificates: &Arc<Certificates>,
    https: Arc<OnceLock<SocketAddr>>,
) -> anyhow::Result<(Arc<Resolver>, Vec<JoinHandle<()>>)> {
    let roots = config.ca_file.as_ref().map(|file| {
        let text = fs::read(file).with_context(|| format!("tls.acme.ca_file {} cannot be read", file.display()))?;
        read_pem(&text).with_context(|| format!("tls.acme.ca_file {} cannot be used", file.display()))
    });
    let roots = roots.transpose()?;
    let transport = Transport::new(roots).context("tls.acme.ca_file")?;
    let listen = config.challenge_listen;
    let listener = TcpListener::bind(listen).await;
    let listener = listener.with_context(|| format!("tls.acme.challenge_listen: {listen} cannot be listened on"))?;
    let challenges = Challenges::default();
    let kept = Shown::kept(certificates, config).await.unwrap_or_else(|error| {
        tracing::error!(
            error = format!("{error:#}"),
            "the certificate of the ACME server that was kept cannot be used"
        );
        None
    });
    let own = certificates.server_tls();
    let resolver = Resolver::beside(own.resolver());
    let keeper = Keeper {
        config: config.clone(),
        transport,
        certificates: Arc::clone(certificates),
        challenges: challenges.clone(),
        resolver: Arc::clone(&resolver),
        shown: kept,
        failures: 0,
    };
    keeper.show()?;
    let tasks = vec![tokio::spawn(challenge::serve(listener, challenges, https)), tokio::spawn(keeper.keep())];
    Ok((resolver, tasks))
}

/// A certificate of the ACME server.
struct Shown {
    identity: Identity,
    facts: CertificateFacts,
}

impl Shown {
    /// What was kept, if it is of the server that is asked now: that of another one may be for trials only.
    async fn kept(certificates: &Certificates, config: &Acme) -> anyhow::Result<Option<Shown>> {
        let Some(Acquired { text, key }) = certificates.acquired(CERTIFICATE).await? else { return Ok(None) };
        let Some((of, chain)) = text.split_once('\n') else { return Ok(None) };
        if config.directory.as_deref() != Some(of) {
            return Ok(None);
        }
        Shown::new(chain, &Key::from_pkcs8(key.expose())?).map(Some)
    }

    fn new(chain: &str, key: &Key) -> anyhow::Result<Shown> {
        let identity = Identity::new(read_pem(chain.as_bytes())?, key)?;
        let facts = CertificateFacts::read(identity.leaf())?;
        Ok(Shown { identity, facts })
    }

    /// When it is to be renewed, Unix milliseconds: at two thirds of its life, and at once for another name.
    fn due(&self, names: &[String]) -> i64 {
        if !names.iter().all(|name| vestibule_tls::covers(self.identity.leaf(), name)) {
            return i64::MIN;
        }
        due(&self.facts)
    }
}

fn due(facts: &CertificateFacts) -> i64 {
    facts.not_before.saturating_add(facts.not_after.saturating_sub(facts.not_before) / 3 * 2)
}

/// Renews the certificate.
struct Keeper {
    config: Acme,
    transport: Transport,
    certificates: Arc<Certificates>,
    challenges: Challenges,
    resolver: Arc<Resolver>,
    shown: Option<Shown>,
    /// In a row.
    failures: u32,
}

impl Keeper {
    async fn keep(mut self) {
        loop {
            if let Err(error) = self.show() {
                tracing::error!(%error, "the certificate of the ACME server cannot be shown");
            }
            let now = self.certificates.now_ms();
            let wait = match &self.shown {
                Some(shown) => shown.due(&self.config.names).saturating_sub(now),
                None => 0,
            };
            if wait > 0 {
                tokio::time::sleep(Duration::from_millis(wait.unsigned_abs()).min(LOOK)).await;
                continue;
            }
            let ordered = self.renew().await;
            self.challenges.clear();
            let result = if ordered.is_ok() { "ok" } else { "error" };
            metrics::counter!("vestibule_acme_orders_total", "result" => result).increment(1);
            match ordered {
                Ok(()) => {
                    self.failures = 0;
                    self.certificates.set_trouble(None);
                    tracing::info!("a certificate was ordered from the ACME server, and is shown");
                }
                Err(error) => {
                    self.failed(&format!("{error:#}"));
                    tokio::time::sleep(pause(self.failures, draw())).await;
                }
            }
        }
    }

    async fn renew(&mut self) -> anyhow::Result<()> {
        let transport = || self.transport.clone();
        let issued = order::order(&self.config, transport, &self.certificates, &self.challenges).await?;
        let shown = Shown::new(&issued.chain, &issued.key).context("the certificate that was issued")?;
        let key = Secret::new(issued.key.pkcs8());
        let directory = self.config.directory.as_deref().unwrap_or_default();
        let text = format!("{directory}\n{}", issued.chain);
        // Durable before it is shown.
        self.certificates.keep_acquired(CERTIFICATE, Acquired { text, key }).await?;
        let due = shown.due(&self.config.names);
        self.shown = Some(shown);
        self.show()?;
        // The next order would be the next thing to do, and so on without end.
        ensure!(due > self.certificates.now_ms(), "what was issued is already due: is the clock right?");
        Ok(())
    }

    /// Has the certificate shown as long as it is good, and says when it ends.
    fn show(&self) -> Result<(), IdentityError> {
        if let Some(shown) = &self.shown {
            let ends = shown.facts.not_after / 1_000;
            metrics::gauge!("vestibule_certificate_ends_seconds", "kind" => "acme").set(ends as f64);
        }
        let now = self.certificates.now_ms();
        let good = self.shown.as_ref().filter(|shown| shown.facts.not_after >= now);
        self.resolver.show_by_name(good.map(|shown| &shown.identity))
    }

    /// The former certificate stays in use for as long as it is good, and the platform's own follows it.
    fn failed(&mut self, error: &str) {
        self.failures = self.failures.saturating_add(1);
        let now = self.certificates.now_ms();
        let left = self.shown.as_ref().map(|shown| shown.facts.not_after.saturating_sub(now)).filter(|left| *left > 0);
        let then = match left {
            Some(left) => format!("the former one is good for {} more hours", left / 3_600_000),
            None => "the platform's own is shown, which the public does not know".to_owned(),
        };
        let error: String = error.chars().take(MAX_WORDS).collect();
        tracing::error!(error, "no certificate was ordered from the ACME server; {then}");
        // Whoever asks may read it: without the words of the server.
        let told = format!(
            "tls.acme: no certificate could be ordered, the log says why; {then}. It is tried again by itself."
        );
        self.certificates.set_trouble(Some(told));
    }
}

/// Any of 256.
fn draw() -> u8 {
    let mut byte = [0];
    SystemRandom.fill(&mut byte);
    byte[0]
}

/// How long nothing is tried after so many failures in a row, with this draw.
fn pause(failures: u32, draw: u8) -> Duration {
    let doubled = PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    doubled.mul_f64(0.5 + f64::from(draw) / 510.0)
}

#[cfg(test)]
mod tests {
    use vestibule_tls::{Authority, Purpose};

    use super::*;

    const NOW: i64 = 1_800_000_000_000;
    const DAY: i64 = 86_400_000;

    #[test]
    fn a_certificate_is_renewed_at_two_thirds_of_its_life_and_for_another_name() {
        let mut authority = Authority::new(Purpose::Servers, []);
        authority.due(NOW).expect("made").into_iter().for_each(|ca| authority.add(ca));
        let key = Key::generate().expect("a key");
        let names = ["hall.example".to_owned()];
        let chain = authority.server_certificate(&key, &names, NOW).expect("issued");
        let shown = Shown::new(&vestibule_tls::pem(&chain), &key).expect("a pair");
        let due = shown.due(&names);
        assert!((NOW + 59 * DAY..=NOW + 60 * DAY).contains(&due), "{}", due - NOW);
        assert!(shown.due(&["other.example".to_owned()]) < NOW);
        assert!(Shown::new(&vestibule_tls::pem(&chain), &Key::generate().expect("a key")).is_err());
    }

    #[test]
    fn failures_are_followed_by_longer_and_longer_pauses_none_of_them_the_same_for_all() {
        assert_eq!((pause(1, 255), pause(1, 0)), (PAUSE, PAUSE / 2));
        assert_eq!(pause(3, 255), PAUSE * 4);
        assert_eq!(pause(u32::MAX, 255), LONGEST_PAUSE);
    }
}
