//! One conversation with the LBS under the legacy suite.

use std::io::{self, ErrorKind};
use std::time::Duration;

use osap::lbs::backoff;
use osap::lbs::client::{Client, Failure, Identity, MAX_FRAME, Output, Reaction, Stored, Trouble};
use osap::lbs::frame::frame_len;
use osap::{CodeCase, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::session::{Access, Denied, Grant, Secret};
use crate::shared::Shared;
use crate::socket;
use crate::state::Reason;
use crate::storage::LegacyCredentials;

/// For each frame, in either direction (osap-wire 3.4).
const TIMEOUT: Duration = Duration::from_secs(5);

/// Runs one attempt at the LBS `host`. The key agreement runs on this task: a device does one at a time, in a
/// fraction of a millisecond.
pub(crate) async fn authenticate(
    shared: &Shared,
    host: &str,
    identity: &Identity,
    stored: Stored,
    case: CodeCase,
) -> Result<Grant, Denied> {
    let profile = &shared.profile;
    let mut client = Client::new(identity.clone(), stored, case);
    let mut stream = socket::connect(&*shared.dial, host, profile.lbs_port).await.map_err(unreachable)?;
    let mut buffer = Vec::new();
    loop {
        match client.poll() {
            Output::Compute => client.compute(&mut SystemRandom),
            Output::Send(frame) => {
                let written = timeout(TIMEOUT, stream.write_all(&frame)).await;
                written.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(|e| unreachable(e.kind()))?;
            }
            Output::Read => {
                let len = match timeout(TIMEOUT, read_frame(&mut stream, &mut buffer)).await {
                    Ok(Ok(len)) => len,
                    Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => return Err(nonsense()),
                    Ok(Err(error)) => return Err(unreachable(error.kind())),
                    Err(_) => return Err(unreachable(ErrorKind::TimedOut)),
                };
                client.handle_frame(buffer.get(..len).unwrap_or_default());
                buffer.drain(..len);
            }
            Output::Done(success) => {
                let (dev_id, master_key) = (success.dev_id, success.master_key);
                let access = Access {
                    dev_id,
                    secret: Secret::Legacy(success.session_key),
                    address: success.das.address.into(),
                    port: success.das.port,
                };
                return Ok(Grant { access, legacy: Some((LegacyCredentials { dev_id, master_key }, success.case)) });
            }
            Output::Failed(failure) => {
                tracing::debug!(serial = %profile.serial, %failure, "authentication failed");
                return Err(denied(&failure));
            }
        }
    }
}

/// Reads until a frame stands at the front of `buffer`, and gives its length.
async fn read_frame(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        let len = frame_len(buffer, MAX_FRAME).map_err(|_| ErrorKind::InvalidData)?;
        if let Some(len) = len.filter(|&len| len <= buffer.len()) {
            return Ok(len);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

fn unreachable(kind: ErrorKind) -> Denied {
    Denied { reason: Reason::LbsUnreachable(kind), reaction: Reaction::BackOff, delay: backoff::Trouble::Unreached }
}

fn nonsense() -> Denied {
    Denied { reason: Reason::LbsAnswer, reaction: Reaction::BackOff, delay: backoff::Trouble::Failed }
}

fn denied(failure: &Failure) -> Denied {
    let reason = match failure.trouble {
        Trouble::Refused(code) => Reason::Refused(code),
        Trouble::Mismatch { protocol_type, .. } => Reason::SuiteMismatch(protocol_type),
        _ => Reason::LbsAnswer,
    };
    Denied { reason, reaction: failure.reaction, delay: failure.delay_kind() }
}
