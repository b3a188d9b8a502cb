//! Events to many who follow them: server-sent events, and a webhook.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use super::{Figure, micros};
use crate::device::{self, Plan};
use crate::fleet::Fleet;
use crate::server::Server;

/// Devices that report to those who follow.
const REPORTERS: usize = 4;
/// How long everybody may take to get everything.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(10);

/// Has so many follow the events of all devices, and some devices report; what a delivery costs.
///
/// # Errors
/// When somebody does not get each event once.
pub fn streams(server: &Server, subscribers: usize, events: u64) -> anyhow::Result<Figure> {
    let names: Vec<_> = (0..REPORTERS).map(|number| (device::serial(number), device::CODE)).collect();
    server.http().register(&names)?;
    let (mut fleet, lbs) = (Fleet::new(0..REPORTERS)?, server.lbs()?);
    fleet.each(REPORTERS, async move |device| device.come_in(lbs).await.map(|_| ()))?;
    let begun = Arc::new(AtomicUsize::new(0));
    let following = {
        let (address, begun) = (server.http().address(), Arc::clone(&begun));
        let head = format!(
            "GET /v1/events/stream HTTP/1.1\r\nhost: {address}\r\nauthorization: {}\r\n\r\n",
            server.http().bearer()
        );
        std::thread::spawn(move || follow(address, &head, subscribers, events, &begun))
    };
    let waiting = Instant::now();
    while begun.load(Ordering::SeqCst) < subscribers {
        if following.is_finished() || waiting.elapsed() > PATIENCE {
            return Err(ended(following).err().unwrap_or_else(|| anyhow::anyhow!("not everybody may follow")));
        }
        std::thread::sleep(LOOK);
    }
    server.cpu().settle()?;
    let (before, sent) = (server.cpu().read()?, Instant::now());
    let plan = Rc::new(Plan::new(events, PATIENCE, 8));
    let reported = Rc::clone(&plan);
    fleet.each(REPORTERS, async move |device| device.report(&reported).await)?;
    if plan.acknowledged() != events {
        bail!("{} of {events} events were acknowledged", plan.acknowledged());
    }
    ended(following)?;
    let waited = sent.elapsed();
    let spent = server.cpu().since(&before)?;
    Ok(Figure { units: subscribers as u64 * events, cpu_us: micros(spent.cpu), wall_ms: waited.as_secs_f64() * 1e3 })
}

fn ended(following: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    following.join().unwrap_or_else(|_| bail!("the thread of those who follow broke off"))
}

/// All who follow, on one thread, until each has got all.
fn follow(
    address: SocketAddr,
    head: &str,
    subscribers: usize,
    events: u64,
    begun: &Arc<AtomicUsize>,
) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("a runtime for those who follow")?;
    runtime.block_on(async {
        let mut all = JoinSet::new();
        for _ in 0..subscribers {
            all.spawn(subscriber(address, head.to_owned(), events, Arc::clone(begun)));
        }
        while let Some(done) = all.join_next().await {
            done.context("somebody who follows broke off")??;
        }
        Ok(())
    })
}

async fn subscriber(address: SocketAddr, head: String, events: u64, begun: Arc<AtomicUsize>) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await.context("a stream cannot be opened")?;
    stream.write_all(head.as_bytes()).await.context("a stream cannot be asked for")?;
    let (mut lines, mut line, mut seen, mut has_begun) = (BufReader::new(stream), Vec::new(), 0, false);
    while seen < events {
        line.clear();
        let read = tokio::time::timeout(PATIENCE, lines.read_until(b'\n', &mut line)).await;
        match read.context("a stream is silent")?.context("a stream broke")? {
            0 => bail!("a stream ended after {seen} of {events} events"),
            // The first id says that it has begun.
            _ if line.starts_with(b"id: ") && !has_begun => {
                has_begun = true;
                begun.fetch_add(1, Ordering::SeqCst);
            }
            _ if line.starts_with(b"event: event\n") => seen += 1,
            _ if line.starts_with(b"HTTP/1.1 ") && !line.starts_with(b"HTTP/1.1 200") => {
                bail!("a stream is refused: {}", String::from_utf8_lossy(&line).trim())
            }
            _ => {}
        }
    }
    Ok(())
}

/// Has a webhook told what the journal has, for so long; what a delivery costs. The receiver takes each at once.
///
/// # Errors
/// When nothing is delivered.
pub fn webhook(server: &Server, time: Duration) -> anyhow::Result<Figure> {
    let taken = Arc::new(AtomicU64::new(0));
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the receiver has no port")?;
    let address = listener.local_addr().context("the receiver has no port")?;
    listener.set_nonblocking(true).context("the receiver's port")?;
    let receiver = Arc::clone(&taken);
    // It ends with this process.
    std::thread::spawn(move || receive(listener, receiver));
    server.cpu().settle()?;
    let (before, begun) = (server.cpu().read()?, Instant::now());
    let added = server.http().post("/v1/webhooks", &json!({"url": format!("http://{address}/"), "after": "0"}))?;
    let id = added["id"].as_str().context("the webhook has no id")?;
    std::thread::sleep(time);
    let (delivered, waited) = (taken.load(Ordering::SeqCst), begun.elapsed());
    let spent = server.cpu().since(&before)?;
    server.http().delete(&format!("/v1/webhooks/{id}"))?;
    if delivered == 0 {
        bail!("nothing was delivered");
    }
    Ok(Figure { units: delivered, cpu_us: micros(spent.cpu), wall_ms: waited.as_secs_f64() * 1e3 })
}

fn receive(listener: std::net::TcpListener, taken: Arc<AtomicU64>) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("a runtime for the receiver")?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).context("the receiver's port")?;
        loop {
            let (stream, _) = listener.accept().await.context("the receiver's port")?;
            let taken = Arc::clone(&taken);
            // A connection that breaks is the platform's to make again.
            tokio::spawn(async move { deliveries(stream, &taken).await });
        }
    })
}

/// The deliveries of one connection.
async fn deliveries(stream: TcpStream, taken: &AtomicU64) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut body = Vec::new();
    loop {
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let header = line.trim_end().split_once(':');
            match header {
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap_or(0);
                }
                None if line == "\r\n" => break,
                _ => {}
            }
        }
        body.resize(length, 0);
        stream.read_exact(&mut body).await?;
        taken.fetch_add(1, Ordering::SeqCst);
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
    }
}
