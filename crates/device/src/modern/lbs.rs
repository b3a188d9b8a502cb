//! Conversations with an LBS under the modern suites.

use std::io::{self, ErrorKind};
use std::time::Duration;

use osap::lbs::backoff;
use osap::lbs::client::Reaction;
use osap::modern::client::{Attempt, Client, Failure, Output, Success, Trouble};
use osap::modern::message::{MAX_ANSWER, next_frame};
use osap::modern::server::EXPORTER_LABEL;
use osap::modern::slots::{Has, Way};
use osap::modern::{Exporter, Slots};
use osap::{Suite, SystemRandom};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;
use vestibule_tls::rustls::pki_types::CertificateDer;
use vestibule_tls::{ALPN_LBS, CertificateFacts, Identity, Key, certificate_request, spki_sha256};
use zeroize::Zeroizing;

use super::learn::Met;
use super::plan::{Plan, Step};
use super::{Admission, Modern, tls};
use crate::driver::now;
use crate::keyring::Run;
use crate::session::{Denied, Grant};
use crate::shared::Shared;
use crate::socket;
use crate::state::{Reason, TlsFault};
use crate::storage::{IssuedCertificate, ModernCredentials};

/// For each frame, in either direction (osap-wire 3.4).
const TIMEOUT: Duration = Duration::from_secs(5);

/// How an attempt ended that did not lead in.
enum Ended {
    /// The machine says so.
    Failed(Failure),
    /// The connection did.
    Broken(Reason),
    /// The server does not like the device's certificate.
    CertificateRefused,
}

/// What is stored beside the tickets.
#[derive(Debug, Clone, Default)]
struct Beside {
    pin: Option<[u8; 32]>,
    known_time_ms: Option<i64>,
    /// Who has answered, over TLS.
    met: Option<Met>,
}

impl Modern {
    /// Tries one way after the other at the LBS `host`, until one leads in or it is time to wait.
    pub(crate) async fn authenticate(&self, shared: &Shared, host: &str) -> Result<Grant, Denied> {
        let (run, mut kept) = self.keyring.begin();
        let identity = self.trust.as_ref().and_then(|_| identity(&kept));
        let has = Has { certificate: identity.is_some(), code: self.trust.is_some() && self.identity.code.is_some() };
        let mut plan = Plan::new(&self.identity.suites, has);
        if self.trust.as_ref().is_some_and(|trust| trust.is_first_use(&kept)) {
            plan = plan.first_use();
        }
        let mut reason = Reason::NoCredential;
        while let Some(step) = plan.next(&kept.slots) {
            let identity = identity.as_ref().filter(|_| step.certificate);
            match Box::pin(self.attempt(shared, host, run, &kept, step, identity)).await {
                Ok(success) => {
                    let access = Admission::access(now(), *success, &mut SystemRandom);
                    return access.map(Grant::modern).map_err(|fault| denied(Reason::DasTls(fault)));
                }
                Err(Ended::Failed(failure)) => {
                    tracing::debug!(serial = %shared.profile.serial, way = ?failure.way, %failure, "not let in");
                    reason = reason_of(&failure);
                    if !plan.handle_failure(&failure) {
                        break;
                    }
                    // It may have failed after something was stored.
                    kept = self.keyring.modern();
                }
                Err(Ended::CertificateRefused) => {
                    tracing::warn!(serial = %shared.profile.serial, "the LBS refuses the certificate of the device");
                    reason = Reason::LbsTls(TlsFault::Refused);
                    plan.handle_certificate_refused();
                }
                Err(Ended::Broken(broken)) => {
                    reason = broken;
                    break;
                }
            }
        }
        Err(denied(reason))
    }

    async fn attempt(
        &self,
        shared: &Shared,
        host: &str,
        run: Run,
        kept: &ModernCredentials,
        step: Step,
        identity: Option<&Identity>,
    ) -> Result<Box<Success>, Ended> {
        let unreachable = |kind| Ended::Broken(Reason::LbsUnreachable(kind));
        let mut tcp = socket::connect(&*shared.dial, host, shared.profile.lbs_port).await.map_err(unreachable)?;
        let now_ms = shared.clock.now_ms();
        let asks = self.wants_certificate && self.trust.is_some() && is_due(kept.certificate.as_ref(), now_ms);
        let mut talk = Talk { modern: self, run, way: step.way, suite: step.suite, asks, answered: false };
        let Some(trust) = &self.trust else {
            return talk.converse(&mut tcp, step.slots, None, Beside::default()).await;
        };
        let tls_fault = |fault| match fault {
            TlsFault::Refused if identity.is_some() => Ended::CertificateRefused,
            fault => Ended::Broken(Reason::LbsTls(fault)),
        };
        let judged = trust.lbs(kept, now_ms, identity).map_err(tls_fault)?;
        let mut stream = tls::secure(tcp, judged.config, host, ALPN_LBS).await.map_err(|end| match end {
            tls::End::Io(kind) => unreachable(kind),
            tls::End::Tls(fault) => tls_fault(fault),
        })?;
        let (_, connection) = stream.get_ref();
        let exporter = tls::export(connection, EXPORTER_LABEL, self.identity.serial.as_str().as_bytes());
        let exporter = exporter.map_err(tls_fault)?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let pin = match chain.first().filter(|_| judged.first_use) {
            Some(leaf) => Some(spki_sha256(leaf).map_err(|_| tls_fault(TlsFault::Untrusted))?),
            None => None,
        };
        let met = trust.meet(kept, chain, host, now_ms);
        let beside = Beside { pin, known_time_ms: trust.known_time_ms(kept, now_ms), met };
        let end = talk.converse(&mut stream, step.slots, Some(&exporter), beside).await;
        if let Ok(_) | Err(Ended::Failed(_)) = end {
            // So that nobody takes the end for one that somebody cut.
            let _ = timeout(TIMEOUT, stream.shutdown()).await;
        }
        match end {
            // In TLS 1.3 a server looks at the certificate after the client's part is over, and what it says of it may be
            // lost when it closes at once.
            Err(Ended::Broken(reason)) if identity.is_some() && !talk.answered && may_be_refusal(reason) => {
                Err(Ended::CertificateRefused)
            }
            end => end,
        }
    }
}

/// Whether a connection that broke before the server said anything may have been one whose certificate it refused.
fn may_be_refusal(reason: Reason) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match reason {
        Reason::LbsTls(TlsFault::Refused) => true,
        Reason::LbsUnreachable(kind) => {
            matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        }
        _ => false,
    }
}

/// One conversation.
struct Talk<'a> {
    modern: &'a Modern,
    run: Run,
    way: Way,
    suite: Suite,
    /// For a certificate.
    asks: bool,
    /// The server has said something.
    answered: bool,
}

impl Talk<'_> {
    async fn converse<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut S,
        slots: Slots,
        exporter: Option<&Exporter>,
        beside: Beside,
    ) -> Result<Box<Success>, Ended> {
        // Whatever comes of it, the next run makes another key.
        let key = if self.asks { Key::generate().ok() } else { None };
        let csr = key.as_ref().and_then(|key| certificate_request(key).ok());
        let attempt = Attempt { suite: self.suite, way: self.way, csr };
        let mut client = Client::new(self.modern.identity.clone(), slots, attempt);
        if let Some(met) = &beside.met {
            client.tell_anchors(met.known_by());
        }
        let mut buffer = Vec::new();
        loop {
            match client.poll() {
                Output::Compute => client.compute(&mut SystemRandom),
                Output::Export => match exporter {
                    Some(exporter) => client.handle_exporter(exporter),
                    // Type 4 is offered over TLS alone.
                    None => return Err(Ended::Broken(Reason::LbsTls(TlsFault::Missing))),
                },
                Output::Send(bytes) => {
                    let bytes = Zeroizing::new(bytes);
                    let write = async {
                        stream.write_all(&bytes).await?;
                        stream.flush().await
                    };
                    let written = timeout(TIMEOUT, write).await;
                    written.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into())).map_err(|error| broken(&error))?;
                }
                Output::Read => {
                    let read = timeout(TIMEOUT, read_frame(stream, &mut buffer)).await;
                    let len = read.unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()));
                    let len = len.map_err(|error| broken(&error))?;
                    self.answered = true;
                    client.handle_frame(buffer.get(..len).unwrap_or_default());
                    buffer.drain(..len);
                }
                Output::Store(slots) => {
                    let Beside { pin, known_time_ms, .. } = beside;
                    // Sealed, and by an LBS that has proven itself: nothing else changes whom the device believes.
                    let learned = beside.met.as_ref().map(|met| met.learn(client.granted_anchors()));
                    let change = move |kept: &mut ModernCredentials| {
                        kept.pin = pin.or(kept.pin);
                        kept.known_time_ms = kept.known_time_ms.max(known_time_ms);
                        if let Some(learned) = learned {
                            learned.keep(kept);
                        }
                    };
                    let stored = self.modern.keyring.store_modern(self.run, *slots, change).await;
                    client.handle_stored(stored);
                }
                Output::Done(success) => {
                    if let Some(certificate) = certificate_of(&success.certificate, key) {
                        let change = |kept: &mut ModernCredentials| kept.certificate = Some(certificate);
                        // The device is in; without the certificate it asks again the next time.
                        self.modern.keyring.store_modern(self.run, success.slots.clone(), change).await;
                    }
                    return Ok(success);
                }
                Output::Failed(failure) => return Err(Ended::Failed(failure)),
            }
        }
    }
}

/// Reads until a frame stands at the front of `buffer`, and gives its length.
async fn read_frame(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        if let Some(len) = next_frame(buffer, MAX_ANSWER).map_err(|_| ErrorKind::InvalidData)? {
            return Ok(len);
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

/// The certificate of the device, if it has one that can be used.
fn identity(kept: &ModernCredentials) -> Option<Identity> {
    let IssuedCertificate { chain, key } = kept.certificate.as_ref()?;
    let key = Key::from_pkcs8(key).ok()?;
    Identity::new(chain.iter().map(|der| der.clone().into()).collect(), &key).ok()
}

/// Whether it is time to ask for a certificate: there is none, or two thirds of its life are over.
fn is_due(issued: Option<&IssuedCertificate>, now_ms: i64) -> bool {
    let leaf = issued.and_then(|issued| issued.chain.first()).map(|der| CertificateDer::from(der.as_slice()));
    let Some(facts) = leaf.and_then(|leaf| CertificateFacts::read(&leaf).ok()) else { return true };
    let life = facts.not_after.saturating_sub(facts.not_before);
    now_ms > facts.not_before.saturating_add(life / 3 * 2)
}

/// What was issued for this key, if it was.
fn certificate_of(chain: &[Vec<u8>], key: Option<Key>) -> Option<IssuedCertificate> {
    let key = key?;
    Identity::new(chain.iter().map(|der| der.clone().into()).collect(), &key).ok()?;
    Some(IssuedCertificate { chain: chain.to_vec(), key: key.pkcs8().to_vec() })
}

fn broken(error: &io::Error) -> Ended {
    Ended::Broken(match tls::fault_of(error) {
        Some(fault) => Reason::LbsTls(fault),
        None if error.kind() == ErrorKind::InvalidData => Reason::LbsAnswer,
        None => Reason::LbsUnreachable(error.kind()),
    })
}

fn denied(reason: Reason) -> Denied {
    Denied { reason, reaction: Reaction::BackOff, delay: backoff::Trouble::Failed }
}

fn reason_of(failure: &Failure) -> Reason {
    match &failure.trouble {
        Trouble::Hint(code) | Trouble::Refused(code) => Reason::Refused(*code),
        Trouble::Mismatch { instead: Some(suite) } => Reason::SuiteMismatch(suite.protocol_type()),
        Trouble::Mismatch { instead: None } => Reason::NothingInCommon,
        Trouble::Unusable => Reason::NoCredential,
        Trouble::Storage => Reason::Storage,
        _ => Reason::LbsAnswer,
    }
}
