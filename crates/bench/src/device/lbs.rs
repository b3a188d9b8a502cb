//! One run at the LBS under the legacy suite.

use anyhow::{Context as _, bail};
use osap::lbs::client::{Client, Identity, MAX_FRAME, Output, Stored, Success};
use osap::lbs::frame::frame_len;
use osap::{CodeCase, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Carries one run over a connection. The device's half of a key agreement runs here, on the generator's core.
pub(super) async fn run(mut stream: TcpStream, identity: Identity, stored: Stored) -> anyhow::Result<Success> {
    let mut client = Client::new(identity, stored, CodeCase::Upper);
    let (mut received, mut waiting) = (Vec::new(), Vec::new());
    loop {
        match client.poll() {
            Output::Compute => client.compute(&mut SystemRandom),
            // Frames that follow one another without a pause leave together.
            Output::Send(frame) => waiting.extend_from_slice(&frame),
            Output::Read => {
                if !waiting.is_empty() {
                    stream.write_all(&waiting).await?;
                    waiting.clear();
                }
                let len = loop {
                    let len = frame_len(&received, MAX_FRAME).context("the answer is no frame")?;
                    if let Some(len) = len.filter(|&len| len <= received.len()) {
                        break len;
                    }
                    if stream.read_buf(&mut received).await? == 0 {
                        bail!("the LBS closed the connection");
                    }
                };
                client.handle_frame(received.get(..len).unwrap_or_default());
                received.drain(..len);
            }
            Output::Done(success) => return Ok(success),
            Output::Failed(failure) => bail!("refused: {}", failure.trouble),
        }
    }
}

/// The first frame of a first authentication.
pub(super) fn auth_i(identity: Identity) -> anyhow::Result<Vec<u8>> {
    let mut client = Client::new(identity, Stored::Nothing, CodeCase::Upper);
    loop {
        match client.poll() {
            Output::Compute => client.compute(&mut SystemRandom),
            Output::Send(frame) => return Ok(frame),
            _ => bail!("a first authentication begins with AUTH-I"),
        }
    }
}
