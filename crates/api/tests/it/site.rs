//! A platform over SQLite in a temporary directory, with its API on a port of its own.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use vestibule_api::{Api, ApiConfig, serve, serve_tls};
use vestibule_platform::{
    Caller, Clock, Device, DevicePath, NewDevice, Platform, PlatformConfig, Position, RecordKind, Report, Secret,
    TokenFile,
};
use vestibule_store::{Store, StoreConfig};

/// The moment at which all tests play: 2026-01-01T00:00:00Z.
pub const NOW: i64 = 1_767_225_600_000;

/// A clock that stands until it is moved.
struct Hands(Arc<AtomicI64>);

impl Clock for Hands {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Site {
    pub platform: Arc<Platform>,
    pub address: SocketAddr,
    pub token: String,
    clock: Arc<AtomicI64>,
    runtime: Runtime,
    api: Api,
    stop: Option<oneshot::Sender<()>>,
    served: Option<tokio::task::JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// Checks that this is the problem document of this status and kind; returns it.
    #[track_caller]
    pub fn problem(&self, status: u16, kind: &str) -> Value {
        assert_eq!(self.status, status, "{}\n{}", self.head, self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        assert!(problem["title"].is_string() && problem["detail"].as_str().is_some_and(|text| !text.is_empty()));
        problem
    }
}

impl Site {
    pub fn new() -> Site {
        Site::with(ApiConfig::default())
    }

    pub fn with(config: ApiConfig) -> Site {
        Site::storing(config, |_| {})
    }

    /// One whose store is configured otherwise.
    pub fn storing(config: ApiConfig, configure: impl FnOnce(&mut StoreConfig)) -> Site {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let token = TokenFile::open(&dir.path().join("token")).expect("a token");
        let presented = token.reveal().to_owned();
        let clock = Arc::new(AtomicI64::new(NOW));
        let hands = Arc::new(Hands(Arc::clone(&clock)));
        let mut store = StoreConfig::new(dir.path().join("data"));
        let now = Arc::clone(&clock);
        store.now = Arc::new(move || now.load(Ordering::SeqCst));
        store.elapsed = Arc::clone(&store.now);
        configure(&mut store);
        let (platform, listener) = runtime.block_on(async {
            let store = Store::open(store).await.expect("a store");
            let platform = Platform::open(store, PlatformConfig::default(), hands, token).await.expect("a platform");
            (platform, TcpListener::bind("127.0.0.1:0").await.expect("a port"))
        });
        let address = listener.local_addr().expect("an address");
        let api = Api::new(Arc::clone(&platform), config, Arc::new(|| "vestibule_up 1\n".to_owned()));
        let (stop, stopped) = oneshot::channel();
        let served = runtime.spawn(serve(listener, api.clone(), async {
            let _ = stopped.await;
        }));
        Site {
            platform,
            address,
            token: presented,
            clock,
            runtime,
            api,
            stop: Some(stop),
            served: Some(served),
            _dir: dir,
        }
    }

    /// Opens a listener over TLS beside the other; it goes with the site.
    pub fn secure(&self) -> SocketAddr {
        let listener = self.wait(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        let tls = self.platform.certificates().server_tls().http();
        self.runtime.spawn(serve_tls(listener, tls, self.api.clone(), std::future::pending()));
        address
    }

    pub fn advance(&self, by: Duration) {
        self.clock.fetch_add(i64::try_from(by.as_millis()).expect("not for ever"), Ordering::SeqCst);
    }

    /// Runs what is asynchronous to its end.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        stream
    }

    /// Sends bytes as they are and reads the one answer; the connection is closed by the server.
    pub fn raw(&self, bytes: &[u8]) -> Answer {
        let mut stream = self.connect();
        // The server may answer and stop reading before all is written.
        let _ = stream.write_all(bytes);
        read_answer(stream)
    }

    /// A request with these headers, each ended by CRLF.
    pub fn request(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        self.raw(
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}{length}\r\n{body}")
                .as_bytes(),
        )
    }

    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &self.bearer(), "")
    }

    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.request("POST", path, &format!("{}content-type: application/json\r\n", self.bearer()), body)
    }

    pub fn bearer(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.token)
    }

    pub fn add(&self, serial: &str) -> Arc<Device> {
        let new = NewDevice {
            serial: serial.into(),
            code: Secret::new(*b"ABCDEF"),
            one_time: false,
            product: None,
            name: None,
            parent: None,
            org: None,
            labels: Default::default(),
        };
        self.runtime.block_on(self.platform.add_device(new, &Caller::program())).expect("registered")
    }

    /// Appends an event at this device time; it may not be durable yet.
    pub fn append(
        &self,
        device: &Arc<Device>,
        area: &str,
        name: &str,
        id: Option<&str>,
        time: i64,
        data: &str,
    ) -> Position {
        let path = DevicePath { resource: "global".into(), index: "0".into(), area: area.into(), name: name.into() };
        let report = Report { kind: RecordKind::Event, path: Arc::new(path), id, time: Some(time), data };
        self.platform.report(device, report).expect("taken")
    }

    pub fn durable(&self, position: Position) {
        let mut durable = self.platform.journal().watch_durable();
        let reached = self.runtime.block_on(durable.wait_for(|durable| *durable >= position));
        assert!(reached.is_ok());
    }

    /// Shuts the server down and waits for its end.
    pub fn stop(&mut self) {
        self.stop.take().map(|stop| stop.send(()));
        if let Some(served) = self.served.take() {
            self.runtime.block_on(served).expect("served to the end");
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
            self.runtime.block_on(self.platform.close());
        }
    }
}

/// Waits until something is so that comes about by itself.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads until the server closes the connection.
pub fn read_answer(mut stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer and the end of the connection");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status =
        head.get(9..12).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {text:?}"));
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Answer { status, head: head.to_owned(), body }
}

fn unchunk(mut rest: &str) -> String {
    let mut whole = String::new();
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a size");
        whole.push_str(&tail[..size]);
        rest = tail[size..].strip_prefix("\r\n").expect("the end of a chunk");
    }
    whole
}
