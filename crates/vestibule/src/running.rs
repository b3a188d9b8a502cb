//! A running platform: the parts and how they are put together.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use vestibule_access::{Assignment, Attempts, Das, DasNode, FailureLimits, Lbs, LbsConfig, LbsThreads, das_listener};
use vestibule_api::{Api, ApiConfig, Applications, Authorities, WebhookConfig};
use vestibule_broker::{Broker, ListenerConfig, Profile, ShardsConfig, TlsListener};
use vestibule_media::{Media, MediaConfig};
use vestibule_platform::{Platform, PlatformConfig, SystemClock, TokenFile};
use vestibule_store::{Control, Store, StoreConfig};
use vestibule_tls::ServerTls;

use self::listeners::Listeners;
use crate::config::{Config, KeyFrom};
use crate::tls::{self, Tls};

mod listeners;
mod modern;

/// How long open connections may take to end in order.
const PATIENCE: Duration = Duration::from_secs(5);
/// Devices that may wait for a key agreement at each thread of the LBS: more than a listener has places, and a second or so.
const MAX_WAITING_AGREEMENTS: usize = 4_096;
/// How often old samples of histograms are folded.
const UPKEEP: Duration = Duration::from_secs(5);

/// What the ready file says.
#[derive(Debug, Serialize)]
pub(crate) struct Ready<'a> {
    pid: u32,
    version: &'static str,
    token_file: &'a PathBuf,
    ca_file: &'a PathBuf,
    /// Where the envelope key is from.
    envelope_key: &'static str,
    listeners: &'a Listeners,
}

/// A platform with its listeners open.
pub struct Running {
    listeners: Listeners,
    token_file: PathBuf,
    ca_file: PathBuf,
    key_from: KeyFrom,
    token: zeroize::Zeroizing<String>,
    platform: Arc<Platform>,
    broker: Broker,
    lbs: LbsThreads,
    http: Vec<JoinHandle<()>>,
    webhooks: JoinHandle<()>,
    stop_http: watch::Sender<bool>,
    background: Vec<JoinHandle<()>>,
    /// What is left of tries with codes, at every LBS together.
    attempts: Arc<Attempts>,
}

impl Running {
    /// Opens the store, loads the registry, and only then opens the listeners.
    ///
    /// # Errors
    /// When the data directory cannot be used or an address is taken.
    pub async fn start(config: &Config) -> anyhow::Result<Running> {
        let metrics = metrics_handle()?;
        let of = config.clone();
        // A command may take its time to say the key, and whoever stops the platform is heard meanwhile.
        let store =
            tokio::task::spawn_blocking(move || store_config(&of)).await.context("the key was not asked for")??;
        let store = Store::open(store).await.context("the store cannot be opened")?;
        let token = TokenFile::open(&config.token_file()).context("the administrator's token cannot be used")?;
        let (token_file, secret) = (token.path().to_owned(), zeroize::Zeroizing::new(token.reveal().to_owned()));
        let platform_config = PlatformConfig {
            max_devices: config.registry.max_devices,
            requests_per_second: config.http.requests_per_second,
            audit_retention: config.store.audit_retention,
            max_webhooks: config.webhooks.max_webhooks,
            max_dead_letters: config.webhooks.max_dead_letters,
            server_names: tls::names(config),
            ..PlatformConfig::default()
        };
        let control = store.control.clone();
        let platform = Platform::open(store, platform_config, Arc::new(SystemClock), token)
            .await
            .context("the platform cannot be opened")?;
        let broker = Broker::start(&ShardsConfig::default()).context("the device runtimes cannot be started")?;
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let lbs = LbsThreads::start(threads, MAX_WAITING_AGREEMENTS).context("the LBS's threads cannot be started")?;
        let mut running = Running {
            listeners: Listeners::only_http(config.http.listen),
            token_file,
            ca_file: config.ca_file(),
            key_from: config.store.key_from(),
            token: secret,
            platform,
            broker,
            lbs,
            http: Vec::new(),
            webhooks: tokio::spawn(async {}),
            stop_http: watch::Sender::new(false),
            background: Vec::new(),
            attempts: Arc::new(Attempts::new(FailureLimits {
                per_serial: config.lbs.max_failures_per_serial,
                per_address: config.lbs.max_failures_per_address,
                per_network: config.lbs.max_failures_per_network,
            })),
        };
        if let Err(error) = running.listen(config, metrics, control).await {
            // What was opened is closed in order: the next start finds a clean directory.
            running.stop().await;
            return Err(error);
        }
        Ok(running)
    }

    async fn listen(&mut self, config: &Config, metrics: PrometheusHandle, control: Control) -> anyhow::Result<()> {
        let api = self.api(config, metrics.clone())?;
        let tls = Tls::open(config, &self.platform).await?;
        self.ca_file = tls.ca_file;
        self.background.extend(tls.tasks);
        self.listen_das(config)?;
        self.listen_mqtt(config, &api, &tls.people)?;
        self.listen_lbs(config)?;
        self.listen_modern(config)?;
        let (plain, bound) = bind_http("http.listen", config.http.listen).await?;
        self.listeners.http = bound;
        let secure = match config.http.tls_address() {
            Some(address) => {
                let (listener, bound) = bind_http("http.tls_listen", address).await?;
                self.listeners.https = Some(bound);
                // It is said once.
                let _ = tls.https.set(bound);
                Some(listener)
            }
            None => None,
        };
        let media = self.open_media(config, control).await?;
        let api = api.with_adapter(vestibule_media::router(media));
        self.webhooks = tokio::spawn(api.clone().deliver());
        let stopped = |mut stop: watch::Receiver<bool>| async move {
            // An error means that the sender is gone, which is a stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        if let Some(listener) = secure {
            let stop = stopped(self.stop_http.subscribe());
            self.http.push(tokio::spawn(vestibule_api::serve_tls(listener, tls.people.http(), api.clone(), stop)));
        }
        self.http.push(tokio::spawn(vestibule_api::serve(plain, api, stopped(self.stop_http.subscribe()))));
        self.background.push(tokio::spawn(async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                metrics.run_upkeep();
            }
        }));
        Ok(())
    }

    fn api(&self, config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Api> {
        let authorities = match &config.webhooks.ca_file {
            Some(file) => Authorities::read(file).context("webhooks.ca_file")?,
            None => Authorities::default(),
        };
        let api_config = ApiConfig {
            max_connections: config.http.max_connections,
            max_streams: config.http.max_streams,
            max_body_bytes: config.http.max_body_bytes,
            answer_timeout: config.http.request_timeout,
            trusted_proxies: config.http.trusted_proxies.clone(),
            webhooks: WebhookConfig {
                allow: config.webhooks.allow.clone(),
                authorities,
                timeout: config.webhooks.timeout,
                give_up: config.webhooks.give_up_after,
                max_deliveries: config.webhooks.max_deliveries,
            },
            ..ApiConfig::default()
        };
        // CPU, memory, threads and descriptors, under the names every exporter uses.
        let process = metrics_process::Collector::default();
        process.describe();
        let render = move || {
            process.collect();
            metrics.render()
        };
        Ok(Api::new(Arc::clone(&self.platform), api_config, Arc::new(render)))
    }

    /// Opens pictures and files; the routes that are made of it keep it.
    async fn open_media(&mut self, config: &Config, control: Control) -> anyhow::Result<Arc<Media>> {
        let media = &config.media;
        let (plain_url, device_url) = self.listeners.urls(config);
        if media.url == "auto" && plain_url.starts_with("http://localhost:") {
            tracing::warn!(
                "who asks without TLS is told to send pictures to {plain_url}, which is his own machine: set das.advertise, tls.names \
                 or media.url"
            );
        }
        if media.url == "auto" && device_url.starts_with("https://localhost:") {
            tracing::warn!(
                "devices are told to send pictures to {device_url}, which is their own machine: set das.advertise or tls.names to a name \
                 of this one that is not in tls.acme.names, or media.url"
            );
        }
        let max_bytes = media.max_bytes.resolve(existing(&config.data));
        let limits = MediaConfig {
            retention: media.retention,
            max_bytes: max_bytes.context("media.max_bytes: the volume's size is not known")?,
            device_max_bytes: media.device_max_bytes as u64,
            picture_max_bytes: media.picture_max_bytes as u64,
            picture_max_pixels: media.picture_max_pixels,
            file_max_bytes: media.file_max_bytes as u64,
            max_uploads: media.max_uploads,
            upload_ttl: media.upload_ttl,
            s3: media.s3.read()?,
            url: (media.url != "auto").then(|| media.url.clone()),
            device_url,
            ..MediaConfig::new(config.data.join("media"), plain_url)
        };
        let (media, keeper) = Media::open(limits, Arc::clone(&self.platform), control)
            .await
            .context("pictures and files cannot be kept")?;
        self.background.push(keeper);
        Ok(media)
    }

    fn listen_das(&mut self, config: &Config) -> anyhow::Result<()> {
        let Some(address) = config.das.legacy_listen else { return Ok(()) };
        let listener = ListenerConfig {
            max_connections: config.das.max_connections,
            max_frame: config.das.max_frame_bytes,
            max_out: config.das.max_queue_bytes,
            ..das_listener("das_legacy")
        };
        let das = Das::new(Arc::clone(&self.platform), Handle::current(), config.das.time());
        let bound = self
            .broker
            .listen(address, listener, das)
            .map_err(|error| not_listening("das.legacy_listen", address, error))?;
        self.listeners.das_legacy = Some(bound);
        Ok(())
    }

    fn listen_lbs(&mut self, config: &Config) -> anyhow::Result<()> {
        let Some(address) = config.lbs.legacy_listen else { return Ok(()) };
        let assignment = match self.listeners.das_legacy {
            Some(bound) => Assignment::single(das_node(config, bound)),
            None => Assignment::none(),
        };
        let places = config.lbs.max_connections;
        let limits = LbsConfig {
            run_timeout: config.lbs.run_timeout,
            max_frame: config.lbs.max_frame_bytes,
            g0: config.lbs.g0,
            // Some places are for those who come in while others leave. Half of all stay for others, however many one network
            // takes.
            max_connections: (places - places / 16).min(places.saturating_sub(1)).max(1),
            max_per_address: (places / 4).max(1),
            max_per_network: (places / 2).max(1),
            attempts: Arc::clone(&self.attempts),
            ..LbsConfig::default()
        };
        let lbs = Lbs::new(Arc::clone(&self.platform), Arc::new(assignment), limits);
        let serve = move |stream, peer, agreements| Arc::clone(&lbs).serve(stream, peer, agreements);
        let bound = self
            .lbs
            .listen(address, places, "lbs_legacy", serve)
            .map_err(|error| not_listening("lbs.legacy_listen", address, error))?;
        self.listeners.lbs_legacy = Some(bound);
        Ok(())
    }

    fn listen_mqtt(&mut self, config: &Config, api: &Api, tls: &ServerTls) -> anyhow::Result<()> {
        // Whatever holds acknowledgements looks again when something has become durable.
        let mut durable = self.platform.journal().watch_durable();
        let shards = Arc::clone(self.broker.shards());
        self.background.push(tokio::spawn(async move {
            while durable.changed().await.is_ok() {
                shards.durable_advanced();
            }
        }));
        let applications = Applications::new(api);
        let open = |key: &str, address: Option<SocketAddr>, name: &'static str, tls: Option<TlsListener>| {
            let Some(address) = address else { return Ok(None) };
            let listener = ListenerConfig {
                max_connections: config.mqtt.max_connections,
                max_frame: config.mqtt.max_frame_bytes,
                max_out: config.mqtt.max_queue_bytes,
                tls,
                ..ListenerConfig::new(name, Profile::Strict)
            };
            let bound = self.broker.listen(address, listener, Arc::clone(&applications));
            bound.map(Some).map_err(|error| not_listening(key, address, error))
        };
        self.listeners.mqtt = open("mqtt.listen", config.mqtt.listen, "mqtt", None)?;
        let secure = TlsListener::new(tls.mqtt());
        self.listeners.mqtts = open("mqtt.tls_listen", config.mqtt.tls_listen, "mqtts", Some(secure))?;
        Ok(())
    }

    /// The addresses in use.
    pub fn listeners(&self) -> &Listeners {
        &self.listeners
    }

    /// The platform, for what runs beside it in the same process.
    pub fn platform(&self) -> &Arc<Platform> {
        &self.platform
    }

    /// Where the administrator's token is kept.
    pub fn token_file(&self) -> &PathBuf {
        &self.token_file
    }

    /// Where the roots are kept that clients are to trust.
    pub fn ca_file(&self) -> &PathBuf {
        &self.ca_file
    }

    /// Where the API is: over TLS, where that is on.
    pub fn url(&self) -> String {
        match self.listeners.https {
            Some(address) => format!("https://{address}"),
            None => format!("http://{}", self.listeners.http),
        }
    }

    /// The live page with its token, for the owner of the data directory only.
    pub fn console_url(&self) -> String {
        format!("{}/#token={}", self.url(), self.token.as_str())
    }

    pub(crate) fn ready(&self) -> Ready<'_> {
        Ready {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION"),
            token_file: &self.token_file,
            ca_file: &self.ca_file,
            envelope_key: self.key_from.as_str(),
            listeners: &self.listeners,
        }
    }

    /// One line for each listener: where it is, or how it is opened.
    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, address: Option<SocketAddr>, key: &str, usual: &str| match address {
            Some(address) => format!("{name}: {address}"),
            None => format!("{name}: off; --set {key}={usual} opens it"),
        };
        let listeners = &self.listeners;
        vec![
            format!("HTTP API and live page: http://{} (token in {})", listeners.http, self.token_file.display()),
            match listeners.https {
                Some(address) => format!("the same over TLS: https://{address} (root in {})", self.ca_file.display()),
                None => "HTTP over TLS: off; --set http.tls_listen=127.0.0.1:8443 opens it".to_owned(),
            },
            line("LBS over TLS", listeners.lbs, "lbs.listen", "0.0.0.0:8665"),
            line("DAS over TLS", listeners.das, "das.listen", "0.0.0.0:8667"),
            line("LBS, modern suites over plain TCP", listeners.lbs_plain, "lbs.plain_listen", "0.0.0.0:8669"),
            line("DAS, modern suites over plain TCP", listeners.das_plain, "das.plain_listen", "0.0.0.0:8670"),
            line("LBS, legacy suites (not confidential)", listeners.lbs_legacy, "lbs.legacy_listen", "127.0.0.1:8666"),
            line("DAS, legacy suites (not confidential)", listeners.das_legacy, "das.legacy_listen", "127.0.0.1:8668"),
            line("MQTT for applications", listeners.mqtt, "mqtt.listen", "127.0.0.1:1883"),
            line("MQTT for applications, over TLS", listeners.mqtts, "mqtt.tls_listen", "0.0.0.0:8883"),
        ]
    }

    /// Stops accepting, ends what is open in order, writes what is in memory.
    pub async fn stop(self) {
        self.stop_http.send_replace(true);
        tokio::join!(self.lbs.shut_down(PATIENCE), self.broker.shut_down(PATIENCE));
        for task in self.http.into_iter().chain([self.webhooks]) {
            let abort = task.abort_handle();
            if tokio::time::timeout(2 * PATIENCE, task).await.is_err() {
                abort.abort();
            }
        }
        let (lbs, broker) = (self.lbs, self.broker);
        // Joining the device threads blocks.
        let stop = move || {
            lbs.stop();
            broker.shards().stop();
        };
        if tokio::task::spawn_blocking(stop).await.is_err() {
            tracing::error!("the device runtimes did not end in order");
        }
        for task in self.background {
            task.abort();
        }
        self.platform.close().await;
    }
}

/// A listener for HTTP, and the address it really has.
async fn bind_http(key: &str, address: SocketAddr) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await.map_err(|error| not_listening(key, address, error))?;
    let bound = listener.local_addr().with_context(|| key.to_owned())?;
    Ok((listener, bound))
}

/// Why an address cannot be listened on, and what to do about it.
fn not_listening(key: &str, address: SocketAddr, error: io::Error) -> anyhow::Error {
    let cure = match error.kind() {
        ErrorKind::AddrInUse => "another program listens there; stop it, or choose another address",
        ErrorKind::AddrNotAvailable => "this machine does not have it; choose an address it has",
        _ => "choose another address",
    };
    anyhow::Error::new(error).context(format!("{key}: {address} cannot be listened on ({cure})"))
}

pub(crate) fn store_config(config: &Config) -> anyhow::Result<StoreConfig> {
    let store = &config.store;
    Ok(StoreConfig {
        url: store.url.as_ref().map(|url| url.expose().to_owned()),
        envelope_key: store.key()?,
        retention: store.retention,
        max_bytes: Some(
            store
                .max_bytes
                .resolve(existing(&config.data))
                .context("store.max_bytes: the volume's size is not known")?,
        ),
        segment_rows: store.segment_rows,
        queue_records: store.queue_records,
        queue_bytes: store.queue_bytes,
        commit_records: store.commit_records,
        commit_delay: store.commit_delay,
        tail_records: store.tail_records,
        ..StoreConfig::new(&config.data)
    })
}

/// The directory, or the nearest one above it that exists already: the same volume in nearly every case, and on the
/// next start in all.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("."))
}

/// The node devices are sent to: the advertised address, else the listener's, else the one they reached the LBS at.
fn das_node(config: &Config, bound: SocketAddr) -> DasNode {
    let (host, port) = config.das.advertised(bound);
    let everywhere = config.das.advertise.is_none() && bound.ip().is_unspecified();
    DasNode { host: (!everywhere).then_some(host), port, server_id: "das1".to_owned() }
}

/// The process's metrics; installed once, however often a platform is started.
fn metrics_handle() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let seconds = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &seconds)
        .and_then(PrometheusBuilder::install_recorder)
        .context("metrics cannot be collected")?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_says_what_to_do_and_keeps_its_cause() {
        let address = SocketAddr::from(([127, 0, 0, 1], 8666));
        let error = not_listening("lbs.legacy_listen", address, ErrorKind::AddrInUse.into());
        let text = format!("{error:#}");
        assert!(text.starts_with("lbs.legacy_listen: 127.0.0.1:8666 cannot be listened on"), "{text}");
        assert!(text.contains("another program"), "{text}");
        let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
        assert_eq!(cause.map(io::Error::kind), Some(ErrorKind::AddrInUse));
    }
}
