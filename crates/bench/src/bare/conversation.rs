//! A conversation of three frames each way over a connection of its own, with nothing in it.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use super::{Bare, thread_seconds};
use crate::affinity::{self, Cores};
use crate::spread::Spread;

/// The median of so many batches: a batch that was disturbed falls out.
const BATCHES: usize = 21;
/// Conversations of one batch: enough for the lanes to come and go independently of each other.
const BATCH: usize = 256;
/// Frames of a first authentication and of the question for the DAS, and their answers, are about as long.
const FRAME: usize = 160;
/// Frames in each direction: 0x1A, 0x72 and 0xA0, and what answers them.
const FRAMES: usize = 3;
/// No conversation takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Measures what a program pays that does of the LBS nothing but this: it accepts a connection, reads a frame and answers it
/// three times, each with a deadline, and closes. So many clients at once come from the other core, as in the measurement of
/// the platform; they answer at once, so that more of them come together, and the figure is a lower bound.
pub(super) fn measure(cores: Option<Cores>, lanes: usize) -> anyhow::Result<Bare> {
    let (ready, address) = mpsc::channel();
    let server = std::thread::spawn(move || {
        cores.map_or(Ok(()), |cores| affinity::pin(cores.server))?;
        serve(&ready)
    });
    // Without an address the server says why.
    let called = match address.recv() {
        Err(_) => Ok(Ok(())),
        Ok(address) => {
            let client = std::thread::spawn(move || {
                cores.map_or(Ok(()), |cores| affinity::pin(cores.generator))?;
                call(address, lanes).context("a client of the bare conversation")
            });
            client.join()
        }
    };
    let served = server.join().ok().context("the server of the bare conversation broke off")?;
    // Where one has failed the other has too, as a consequence: both say why.
    match (served, called.ok().context("the clients of the bare conversation broke off")?) {
        (served, Ok(())) => served,
        (Ok(_), Err(error)) => Err(error),
        (Err(served), Err(called)) => Err(called.context(format!("{served:#}"))),
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("a runtime for the bare conversation")
}

/// Answers all conversations, batch by batch, and says what one has cost.
fn serve(ready: &mpsc::Sender<SocketAddr>) -> anyhow::Result<Bare> {
    let serve = async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        ready.send(listener.local_addr()?)?;
        let mut batches = [0.0; BATCHES];
        for batch in &mut batches {
            let before = thread_seconds();
            let mut open = JoinSet::new();
            for _ in 0..BATCH {
                let (stream, _) = timeout(PATIENCE, listener.accept()).await??;
                open.spawn_local(answer(stream));
            }
            while let Some(ended) = open.join_next().await {
                ended??;
            }
            *batch = (thread_seconds() - before) * 1e6 / BATCH as f64;
        }
        let us = Spread::of(batches).context("there was no conversation")?.median;
        anyhow::Ok(Bare { what: "conversation".to_owned(), us })
    };
    runtime()?.block_on(LocalSet::new().run_until(serve)).context("the server of the bare conversation")
}

async fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut frame = [0; FRAME];
    for _ in 0..FRAMES {
        timeout(PATIENCE, stream.read_exact(&mut frame)).await??;
        timeout(PATIENCE, stream.write_all(&frame)).await??;
    }
    Ok(())
}

/// Has as many conversations as the server waits for.
fn call(address: SocketAddr, lanes: usize) -> anyhow::Result<()> {
    let left = Rc::new(Cell::new(BATCHES * BATCH));
    let call = async {
        let mut lane = JoinSet::new();
        for _ in 0..lanes {
            let left = Rc::clone(&left);
            lane.spawn_local(async move {
                while let Some(less) = left.get().checked_sub(1) {
                    left.set(less);
                    timeout(PATIENCE, ask(address)).await??;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = lane.join_next().await {
            ended??;
        }
        Ok(())
    };
    runtime()?.block_on(LocalSet::new().run_until(call))
}

async fn ask(address: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let mut frame = [0; FRAME];
    for _ in 0..FRAMES {
        stream.write_all(&frame).await?;
        stream.read_exact(&mut frame).await?;
    }
    ensure!(stream.read(&mut frame).await? == 0, "the bare conversation goes on");
    Ok(())
}
