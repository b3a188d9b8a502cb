//! What a test stands on: a directory, a database of its own, and a clock that only the test moves.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use vestibule_store::{
    DeviceId, DevicePath, Flags, Journal, Order, Position, Record, RecordKind, Scan, Store, StoreConfig,
};

/// 2026-02-03 12:00 UTC.
pub const NOON: i64 = 1_770_120_000_000;
pub const HOUR: i64 = 3_600_000;
/// After this a test that waits has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

/// Makes `#[test]` functions of async ones that take a [`Bed`], one on each database.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod on_sqlite {
            $(#[test] fn $name() { $crate::bed::run($crate::bed::Backend::Sqlite, super::$name); })+
        }
        mod on_postgres {
            $(#[test] fn $name() { $crate::bed::run($crate::bed::Backend::Postgres, super::$name); })+
        }
    };
}
pub(crate) use on_both;

/// Makes `#[test]` functions of async ones for what only one database has.
macro_rules! only_on {
    ($backend:ident: $($name:ident),+ $(,)?) => {
        mod tests {
            $(#[test] fn $name() { $crate::bed::run($crate::bed::Backend::$backend, super::$name); })+
        }
    };
}
pub(crate) use only_on;

/// Runs one test.
pub fn run<F: Future<Output = ()>>(backend: Backend, test: impl FnOnce(Bed) -> F) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bed = Bed::new(backend).await;
        test(bed).await;
    });
}

pub struct Bed {
    pub backend: Backend,
    dir: TempDir,
    pub url: Option<String>,
    clock: Arc<AtomicI64>,
    /// How far the clock was set without time passing.
    stepped: Arc<AtomicI64>,
}

impl Bed {
    pub async fn new(backend: Backend) -> Bed {
        let url = match backend {
            Backend::Sqlite => None,
            Backend::Postgres => Some(PgServer::get().new_database().await),
        };
        Bed {
            backend,
            dir: TempDir::new().unwrap(),
            url,
            clock: Arc::new(AtomicI64::new(NOON)),
            stepped: Arc::default(),
        }
    }

    /// The data directory; it does not exist before the first opening.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn now(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    pub fn advance(&self, ms: i64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    /// Sets the clock, forward or back, without time passing.
    pub fn step(&self, ms: i64) {
        self.stepped.fetch_add(ms, Ordering::SeqCst);
        self.clock.fetch_add(ms, Ordering::SeqCst);
    }

    pub fn config(&self) -> StoreConfig {
        let clock = self.clock.clone();
        let mut config = StoreConfig::new(self.dir());
        config.url = self.url.clone();
        let (now, elapsed) = (clock.clone(), self.stepped.clone());
        config.now = Arc::new(move || now.load(Ordering::SeqCst));
        config.elapsed = Arc::new(move || clock.load(Ordering::SeqCst) - elapsed.load(Ordering::SeqCst));
        config
    }

    pub async fn open(&self) -> Store {
        Store::open(self.config()).await.unwrap()
    }

    pub async fn open_with(&self, change: impl FnOnce(&mut StoreConfig)) -> Store {
        let mut config = self.config();
        change(&mut config);
        Store::open(config).await.unwrap()
    }

    /// The name of the bed's PostgreSQL database.
    pub fn database(&self) -> &str {
        let url = self.url.as_deref().unwrap();
        let (_, database) = url.split_once("127.0.0.1").and_then(|(_, rest)| rest.split_once('/')).unwrap();
        database.split('?').next().unwrap()
    }

    /// A connection beside the store's own.
    pub async fn pg(&self) -> PgConnection {
        PgConnection::connect(self.url.as_deref().unwrap()).await.unwrap()
    }

    /// An event received now.
    pub fn event(&self, device: DeviceId, id: &str) -> Record {
        let now = self.now();
        Record {
            position: Position::START,
            device,
            serial: "SERIAL-1".into(),
            kind: RecordKind::Event,
            path: path("global", "area", "name"),
            id: Some(id.into()),
            time: now,
            received: now,
            flags: Flags::NONE,
            data: r#"{"value":1}"#.into(),
        }
    }
}

pub fn path(resource: &str, area: &str, name: &str) -> Arc<DevicePath> {
    Arc::new(DevicePath { resource: resource.into(), index: "0".into(), area: area.into(), name: name.into() })
}

/// Waits until the journal is durable up to here.
pub async fn durable(journal: &Journal, position: Position) {
    let mut watch = journal.watch_durable();
    let reached = watch.wait_for(|durable| *durable >= position);
    tokio::time::timeout(PATIENCE, reached).await.expect("the journal did not become durable").unwrap();
}

/// Appends records and waits until all are durable.
pub async fn commit(journal: &Journal, records: impl IntoIterator<Item = Record>) -> Vec<Position> {
    let positions: Vec<Position> = records.into_iter().map(|record| journal.append(record)).collect();
    if let Some(last) = positions.last() {
        durable(journal, *last).await;
    }
    positions
}

/// Waits for a state that announces itself nowhere.
pub async fn eventually(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Every record, page by page.
pub async fn everything(journal: &Journal) -> Vec<Arc<Record>> {
    let mut all: Vec<Arc<Record>> = Vec::new();
    loop {
        let after = all.last().map_or(Position::START, |record| record.position);
        let scan = Scan { after, order: Order::Oldest, limit: 1_000, ..Scan::default() };
        let page = journal.scan(&scan).await.unwrap();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

pub fn ids(records: &[Arc<Record>]) -> Vec<String> {
    records.iter().filter_map(|record| record.id.as_deref().map(str::to_owned)).collect()
}

pub fn positions(records: &[Arc<Record>]) -> Vec<i64> {
    records.iter().map(|record| record.position.get()).collect()
}

/// A throw-away PostgreSQL cluster of this test process.
pub struct PgServer {
    pub port: u16,
    /// Holds `ca.pem`, the authority over the server's certificate for `localhost`, and `other.pem`, which is not.
    pub dir: PathBuf,
    databases: AtomicU32,
    /// The shell that stops the server and removes its files when its input ends, however this process ends.
    _keeper: Child,
    _input: ChildStdin,
}

const KEEPER: &str = r#"
set -e
bin=$1 port=$2
cd /
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30"
{
    openssl req -x509 $key -keyout "$dir/ca.key" -out "$dir/ca.pem" -subj "/CN=authority"
    openssl req -x509 $key -keyout "$dir/other.key" -out "$dir/other.pem" -subj "/CN=another authority"
    openssl req $key -keyout "$dir/server.key" -out "$dir/server.csr" -subj "/CN=server"
    echo "subjectAltName=DNS:localhost" >"$dir/server.ext"
    openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.pem" -CAkey "$dir/ca.key" -CAcreateserial -days 30 \
        -extfile "$dir/server.ext" -out "$dir/server.pem"
    chmod 600 "$dir/server.key"
} >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
"$bin/initdb" -D "$dir/data" -U postgres --auth=trust --encoding=UTF8 --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; exit 1; }
"$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 120 -o "-h 127.0.0.1 -p $port -c unix_socket_directories='' -c fsync=off -c max_connections=300 -c shared_buffers=64MB -c ssl=on -c ssl_cert_file=$dir/server.pem -c ssl_key_file=$dir/server.key" start >/dev/null 2>&1 </dev/null \
    || { cat "$dir/log" >&2; exit 1; }
echo "ready $dir"
read -r _ || true
"$bin/pg_ctl" -D "$dir/data" -m immediate stop >/dev/null 2>&1
"#;

impl PgServer {
    pub fn get() -> &'static PgServer {
        static SERVER: OnceLock<PgServer> = OnceLock::new();
        SERVER.get_or_init(PgServer::start)
    }

    fn start() -> PgServer {
        let bin = binaries().expect(
            "the store tests need PostgreSQL: initdb and pg_ctl were found neither in /usr/lib/postgresql/*/bin nor in PATH",
        );
        // The port may be taken between the look and the start; then another one is.
        for _ in 0..5 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut command = if rustix::process::geteuid().is_root() {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", "postgres", "--regid", "postgres", "--init-groups", "sh"]);
                command
            } else {
                Command::new("sh")
            };
            let mut keeper = command
                .args(["-c", KEEPER, "sh"])
                .arg(&bin)
                .arg(port.to_string())
                .env("TMPDIR", "/tmp")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("a shell for the PostgreSQL server");
            let input = keeper.stdin.take().unwrap();
            let mut line = String::new();
            BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if let Some(dir) = line.trim().strip_prefix("ready ") {
                let databases = AtomicU32::new(0);
                return PgServer { port, dir: dir.into(), databases, _keeper: keeper, _input: input };
            }
            let _ = keeper.wait();
        }
        panic!("PostgreSQL in {} does not start; its log is above", bin.display());
    }

    async fn new_database(&self) -> String {
        let name = format!("t{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let url = |database: &str| format!("postgres://postgres@127.0.0.1:{}/{database}?sslmode=disable", self.port);
        let mut connection = PgConnection::connect(&url("postgres")).await.unwrap();
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        url(&name)
    }
}

/// Where the newest PostgreSQL server is.
fn binaries() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut dirs: Vec<PathBuf> = versions.map(|entry| entry.path().join("bin")).collect();
    dirs.sort_by_key(|dir| {
        let version = dir.parent().and_then(|parent| parent.file_name()?.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    dirs.into_iter().find(|dir| dir.join("initdb").is_file() && dir.join("pg_ctl").is_file())
}
