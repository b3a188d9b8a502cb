//! The certificates that listeners show: the platform's own, or one of the operator's.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use vestibule_platform::{Certificates, Platform, Purpose};
use vestibule_tls::{OwnFiles, Resolver, ServerTls};

use crate::acme;
use crate::config::Config;

/// How often the operator's files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// What listeners for people and applications show.
pub(crate) struct Tls {
    /// Makes their configurations.
    pub(crate) people: ServerTls,
    /// The roots of the platform's own certificates, for clients.
    pub(crate) ca_file: PathBuf,
    /// Where HTTPS is, once it listens: others are sent there.
    pub(crate) https: Arc<OnceLock<SocketAddr>>,
    /// What keeps both as they should be.
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Tls {
    /// Reads the operator's certificate, where there is one, and writes the platform's roots for clients.
    ///
    /// # Errors
    /// The certificate cannot be used, or the file not be written.
    pub(crate) async fn open(config: &Config, platform: &Platform) -> anyhow::Result<Tls> {
        let certificates = platform.certificates();
        let ca_file = config.ca_file();
        // Before it is read: a change meanwhile is one that is seen.
        let changes = certificates.changes();
        write_roots(certificates, &ca_file).await?;
        let mut tasks = vec![tokio::spawn(keep_roots(Arc::clone(certificates), ca_file.clone(), changes))];
        let https = Arc::default();
        let people = match config.tls.own() {
            None if config.tls.acme.directory.is_some() => {
                let (resolver, keeping) = acme::open(&config.tls.acme, certificates, Arc::clone(&https)).await?;
                tasks.extend(keeping);
                ServerTls::new(resolver, certificates.time())
            }
            None => certificates.server_tls(),
            Some((certificate, key)) => {
                let mut files = OwnFiles::new(certificate.clone(), key.clone());
                let resolver = Resolver::new(&files.load().context("tls.certificate_file, tls.key_file")?)
                    .context("tls.certificate_file, tls.key_file")?;
                // Caught from here on: it asks for another look and is no reason to end.
                let hangups = signal(SignalKind::hangup()).context("SIGHUP cannot be caught")?;
                tasks.push(tokio::spawn(watch(files, Arc::clone(&resolver), hangups)));
                ServerTls::new(resolver, certificates.time())
            }
        };
        Ok(Tls { people, ca_file, https, tasks })
    }
}

/// The names of the platform's own certificate: those of the configuration, and the addresses that others are told.
pub(crate) fn names(config: &Config) -> Vec<String> {
    let mut names = config.tls.names.clone();
    names.extend(config.das.advertise.as_ref().map(|told| told.host().to_owned()));
    let listeners = [config.http.tls_address(), config.mqtt.tls_listen];
    let addresses = listeners.into_iter().flatten().map(|address| address.ip()).filter(|ip| !ip.is_unspecified());
    names.extend(addresses.map(|ip| ip.to_string()));
    names.retain(|name| vestibule_tls::is_name(name));
    names.sort();
    names.dedup();
    names
}

/// Writes the roots anew whenever they change.
async fn keep_roots(certificates: Arc<Certificates>, file: PathBuf, mut changes: tokio::sync::watch::Receiver<u64>) {
    while changes.changed().await.is_ok() {
        if let Err(error) = write_roots(&certificates, &file).await {
            tracing::error!(error = format!("{error:#}"), "clients are not told of the new root");
        }
    }
}

/// Readers find the file whole. It is public.
async fn write_roots(certificates: &Certificates, file: &Path) -> anyhow::Result<()> {
    let pem = certificates.anchors_pem(Purpose::Servers).await;
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || {
        let part = file.with_extension("pem.part");
        let write = || -> io::Result<()> {
            fs::write(&part, &pem)?;
            fs::rename(&part, &file)
        };
        write().with_context(|| format!("{} cannot be written", file.display()))
    })
    .await
    .context("the roots were not written")?
}

/// Shows the operator's certificate anew when its files have changed, and at SIGHUP.
async fn watch(mut files: OwnFiles, resolver: Arc<Resolver>, mut hangups: tokio::signal::unix::Signal) {
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        let asked = tokio::select! {
            _ = ticks.tick() => false,
            _ = hangups.recv() => true,
        };
        let resolver = Arc::clone(&resolver);
        let looked = tokio::task::spawn_blocking(move || {
            if asked || files.changed() {
                renew(&mut files, &resolver);
            }
            files
        });
        match looked.await {
            Ok(looked) => files = looked,
            // The runtime is being shut down.
            Err(_) => return,
        }
    }
}

fn renew(files: &mut OwnFiles, resolver: &Resolver) {
    let result = files.load().map_err(anyhow::Error::from).and_then(|identity| {
        resolver.replace(&identity)?;
        Ok(())
    });
    let counted = if result.is_ok() { "ok" } else { "error" };
    metrics::counter!("vestibule_tls_certificate_reloads_total", "result" => counted).increment(1);
    match result {
        Ok(()) => tracing::info!("the certificate of tls.certificate_file was read again"),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "the certificate of tls.certificate_file cannot be used; the former stays in use"
            );
        }
    }
}
