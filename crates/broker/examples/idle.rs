//! Memory of idle connections: logs thousands of clients in, each with one subscription, and prints by how much
//! the process grew, for each of them.
//!
//! `cargo run --release -p vestibule-broker --example idle [CONNECTIONS]`
//!
//! The clients live in a second process, this program called again, so that only the broker is measured. The
//! figure is PSS: the user memory of the process, without what the kernel holds for its sockets.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use vestibule_broker::codec::{Connect, QoS, encode};
use vestibule_broker::{
    Admitted, Broker, Denied, Disposition, EndReason, Inbound, ListenerConfig, Login, Profile, Refused, Service,
    SessionId, ShardsConfig, Subscription,
};

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
        [role, address, count] if role == "clients" => clients(address.parse()?, count.parse()?),
        [] => measure(4_000),
        [count] => measure(count.parse()?),
        _ => Err("one argument: the number of connections".into()),
    }
}

fn measure(count: usize) -> Result<(), Failure> {
    let broker = Broker::start(&ShardsConfig::default())?;
    let mut config = ListenerConfig::new("idle", Profile::Strict);
    config.max_connections = count + 100;
    let address = broker.listen(SocketAddr::from(([127, 0, 0, 1], 0)), config, Arc::new(Open))?;
    // A first round fills what is kept for good: buffers of the threads, pools of the allocator.
    round(&broker, address, 100)?;
    let before = pss()?;
    let after = round(&broker, address, count)?;
    println!(
        "{count} idle connections: {} B each ({before} KiB before, {after} KiB with them)",
        (after.saturating_sub(before)) * 1024 / count
    );
    Ok(())
}

/// Has so many clients come, stay and go; returns the memory while they stayed, in KiB.
fn round(broker: &Broker, address: SocketAddr, count: usize) -> Result<usize, Failure> {
    let mut clients = Command::new(std::env::current_exe()?)
        .args(["clients", &address.to_string(), &count.to_string()])
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
fn clients(address: SocketAddr, count: usize) -> Result<(), Failure> {
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
        stream.write_all(&bytes)?;
        stream.read_exact(&mut [0; 4 + 5])?;
        open.push(stream);
    }
    println!("ready");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn pss() -> Result<usize, Failure> {
    let rollup = std::fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).ok_or("no Pss line")?;
    Ok(line.split_whitespace().nth(1).ok_or("no figure")?.parse()?)
}
