//! Memory of idle connections: logs thousands of clients in, each with one subscription, and prints by how much
//! the process grew, for each of them.
//!
//! `cargo run --release -p vestibule-broker --example idle [CONNECTIONS] [--tls]`
//!
//! The clients live in a second process, this program called again, so that only the broker is measured. The
//! figure is PSS: the user memory of the process, without what the kernel holds for its sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mimalloc::MiMalloc;
use vestibule_broker::codec::{Connect, QoS, encode};
use vestibule_broker::{
    Admitted, Broker, Denied, Disposition, EndReason, Inbound, ListenerConfig, Login, Profile, Refused, Service,
    SessionId, ShardsConfig, Subscription, TlsListener,
};
use vestibule_tls::rustls::pki_types::UnixTime;
use vestibule_tls::rustls::time_provider::TimeProvider;
use vestibule_tls::rustls::{self, ClientConnection, ServerConfig};
use vestibule_tls::{Anchor, Authority, ClientTls, Identity, Key, Purpose, Resolver, ServerTls, pem, read_pem};

/// As the platform has it.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Lets everybody in and routes everything.
struct Open;

impl Service for Open {
    type Session = Arc<str>;
    type Grant = ();

    async fn connect(&self, login: Login<'_>) -> Result<Admitted<Arc<str>>, Refused> {
        let name = login.connect.client_id;
        Ok(Admitted { id: SessionId { realm: "mqtt", principal: name.into() }, session: name.into(), guest: None })
    }

    fn authorize(&self, _: &mut Arc<str>, _: &str) -> Result<(), Denied> {
        Ok(())
    }

    fn publish(&self, _: &mut Arc<str>, _: &(), _: Inbound<'_>) -> Disposition {
        Disposition::Route
    }

    fn subscribe(&self, _: &mut Arc<str>, _: &str, qos: QoS) -> Subscription {
        Subscription::Routed(qos)
    }

    fn ended(&self, _: Arc<str>, _: EndReason) {}
}

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [role, address, count, ca @ ..] if role == "clients" => clients(address.parse()?, count.parse()?, ca),
        [] => measure(4_000, false),
        [count] => measure(count.parse()?, false),
        [count, tls] if tls == "--tls" => measure(count.parse()?, true),
        _ => Err("the number of connections, and --tls for TLS".into()),
    }
}

fn measure(count: usize, over_tls: bool) -> Result<(), Failure> {
    let broker = Broker::start(&ShardsConfig::default())?;
    let mut config = ListenerConfig::new("idle", Profile::Strict);
    config.max_connections = count + 100;
    let mut anchor = None;
    if over_tls {
        let (tls, root) = certified()?;
        config.tls = Some(TlsListener::new(tls));
        anchor = Some(root);
    }
    let address = broker.listen(SocketAddr::from(([127, 0, 0, 1], 0)), config, Arc::new(Open))?;
    // A first round fills what is kept for good: buffers of the threads, pools of the allocator.
    round(&broker, address, 100, anchor.as_ref())?;
    let before = pss()?;
    let after = round(&broker, address, count, anchor.as_ref())?;
    println!(
        "{count} idle connections: {} B each ({before} KiB before, {after} KiB with them)",
        (after.saturating_sub(before)) * 1024 / count
    );
    Ok(())
}

/// Has so many clients come, stay and go; returns the memory while they stayed, in KiB.
fn round(broker: &Broker, address: SocketAddr, count: usize, anchor: Option<&String>) -> Result<usize, Failure> {
    let mut clients = Command::new(std::env::current_exe()?)
        .args(["clients", &address.to_string(), &count.to_string()])
        .args(anchor)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(clients.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    if line.trim() != "ready" || broker.shards().connections() != count {
        return Err(format!("{} of {count} clients came", broker.shards().connections()).into());
    }
    let memory = pss()?;
    drop(clients.stdin.take());
    clients.wait()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), broker.shards().idle()).await })?;
    Ok(memory)
}

/// The clients: they stay until their input ends.
fn clients(address: SocketAddr, count: usize, ca: &[String]) -> Result<(), Failure> {
    let tls = ca.first().map(|pem| {
        let anchor = Anchor::Ca(read_pem(pem.as_bytes())?.remove(0));
        Ok::<_, Failure>(ClientTls::new([anchor], Arc::new(Now))?.mqtt())
    });
    let tls = tls.transpose()?;
    let mut open = Vec::new();
    for number in 0..count {
        let name = format!("device-{number:06}");
        let mut bytes = Vec::new();
        let connect =
            Connect { clean_session: true, keep_alive: 600, client_id: &name, will: None, user: None, password: None };
        encode::connect(&connect, &mut bytes)?;
        let filter = format!("site/{name}/set");
        encode::subscribe(1, [(filter.as_str(), QoS::AtLeastOnce)], &mut bytes)?;
        let mut stream = TcpStream::connect(address)?;
        let mut tls = match &tls {
            Some(config) => Some(ClientConnection::new(Arc::clone(config), "localhost".try_into()?)?),
            None => None,
        };
        match &mut tls {
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut stream);
                stream.write_all(&bytes)?;
                stream.read_exact(&mut [0; 4 + 5])?;
            }
            None => {
                stream.write_all(&bytes)?;
                stream.read_exact(&mut [0; 4 + 5])?;
            }
        }
        open.push((stream, tls));
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// A configuration for the listener, and the root below its certificate, in PEM.
fn certified() -> Result<(Arc<ServerConfig>, String), Failure> {
    let now = i64::try_from(UnixTime::now().as_secs())? * 1_000;
    let mut authority = Authority::new(Purpose::Servers, []);
    authority.due(now)?.into_iter().for_each(|ca| authority.add(ca));
    let key = Key::generate()?;
    let chain = authority.server_certificate(&key, &["localhost".to_owned()], now)?;
    let tls = ServerTls::new(Resolver::new(&Identity::new(chain, &key)?)?, Arc::new(Now));
    Ok((tls.mqtt(), pem(&authority.anchors(now))))
}

#[derive(Debug)]
struct Now;

impl TimeProvider for Now {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::now())
    }
}

fn pss() -> Result<usize, Failure> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).ok_or("no Pss line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}
