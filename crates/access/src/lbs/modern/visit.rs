//! One device's visit at the LBS under a modern suite: what the machine asks for, and how it ended.

use std::sync::Arc;

use osap::lbs::Standing;
use osap::modern::message::MAX_ENTRY;
use osap::modern::server::{Attempt, CloseReason, EXPORTER_LABEL, Output, Record, Server};
use osap::modern::ticket::{Held, Stage, Used};
use osap::suite::Suite;
use osap::{Code, Random, ResultCode, Serial};
use serde_json::json;
use tokio::time::Instant;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier as _;
use vestibule_platform::{Caller, CodeUse, Credentials, Device, Platform, UpdateError};

use super::ModernLbs;
use crate::agreements::{Agreements, NotDone};
use crate::attempts::{Claim, Spent};
use crate::crowd::Place;
use crate::epochs::Epochs;
use crate::lbs::connection::{Connection, Failure, Stream};
use crate::origin::Origin;
use crate::tickets::{Modern, Outrun};
use crate::{explain, tickets};

/// The longest a window is open for short codes (osap-wire 13.3).
const SHORT_CODES_MS: i64 = 15 * 60 * 1_000;

/// One device's visit at the LBS.
pub(super) struct Visit<'a> {
    lbs: &'a ModernLbs,
    place: &'a Place<'a>,
    origin: Origin,
    agreements: &'a Arc<Agreements>,
    is_noted: bool,
    device: Option<Arc<Device>>,
    certificate: Option<Shown>,
    suite: Option<Suite>,
    used: Option<Used>,
    spent: Option<Spent>,
    /// The device has to show a certificate, as the run began.
    demanded: bool,
    /// It came without one, and was issued one.
    granted: bool,
    /// Why it was issued none.
    ungranted: Option<String>,
}

/// A device certificate that was verified in the handshake.
#[derive(Clone)]
pub(super) struct Shown {
    /// The serial it was issued to.
    pub(super) serial: String,
    /// Leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

/// What became of what a run wanted to be durable.
enum Staged {
    Done,
    Outrun,
    Unavailable,
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        lbs: &'a ModernLbs,
        place: &'a Place<'a>,
        origin: Origin,
        agreements: &'a Arc<Agreements>,
    ) -> Visit<'a> {
        Visit {
            lbs,
            place,
            origin,
            agreements,
            is_noted: false,
            device: None,
            certificate: None,
            suite: None,
            used: None,
            spent: None,
            demanded: false,
            granted: false,
            ungranted: None,
        }
    }

    /// `certificate` is what the TLS handshake has verified.
    pub(super) async fn run<S: Stream>(
        &mut self,
        connection: &mut Connection<S>,
        certificate: Option<Shown>,
    ) -> Result<(), Failure> {
        let patience = self.lbs.config.frame_timeout;
        let owner = certificate.as_ref().map(|shown| shown.serial.clone());
        self.certificate = certificate;
        let mut server = Server::new(self.lbs.config.policy(), owner);
        let mut random = (self.lbs.random)();
        let mut asked = Instant::now();
        let mut next = None;
        loop {
            self.suite = server.suite().or(self.suite);
            self.used = server.used().or(self.used);
            if server.is_proven() {
                self.place.keep();
            }
            match next.take().unwrap_or_else(|| server.poll()) {
                Output::Read => {
                    let frame = connection.read_frame(server.max_frame().min(MAX_ENTRY), patience).await?;
                    asked = Instant::now();
                    let len = frame.len();
                    server.handle_frame(frame, &mut *random);
                    self.advance();
                    connection.forget(len);
                }
                Output::Lookup(serial) => self.look_up(&mut server, &serial, &mut *random).await,
                Output::Fresh { nonce, .. } => {
                    // A device has a new ticket after each run: its nonces are remembered for all of them together.
                    let device = self.device.as_ref();
                    let fresh = device.is_some_and(|device| self.lbs.nonces.is_fresh(device.id, &nonce));
                    server.handle_fresh(fresh, &mut *random);
                }
                Output::Compute => match self.agreements.run(self.origin, || server.compute(&mut *random)).await {
                    Ok(()) => {}
                    Err(NotDone::Crowded) => server.handle_unavailable(),
                    Err(NotDone::Panicked) => return Err(Failure::Panicked),
                },
                Output::Export(serial) => {
                    let context = serial.as_str().as_bytes();
                    let exporter = connection.stream().export(EXPORTER_LABEL, context);
                    server.handle_exporter(&exporter.ok_or(Failure::Below("exporter"))?);
                }
                Output::Attempt { short } => self.attempt(&mut server, short),
                Output::Certify(request) => server.handle_certificate(self.certify(request).await),
                Output::Assign => {
                    // It is let in.
                    if let Some(das) = &self.lbs.config.das_tls {
                        das.vouch(self.origin.address);
                    }
                    self.trade_roots(&mut server).await;
                    let das = self.lbs.choose(|| connection.local().unwrap_or(self.origin.address));
                    server.handle_das(das, &mut *random);
                }
                Output::Stage(stage) => match self.stage(stage).await {
                    Staged::Done => server.handle_staged(),
                    Staged::Outrun => server.handle_outrun(),
                    Staged::Unavailable => server.handle_unavailable(),
                },
                Output::Send(bytes) => {
                    // What is read of a known serial from the disk, or found in memory, does not show to who has proven nothing.
                    if !server.is_proven() {
                        tokio::time::sleep_until(asked + self.lbs.config.stranger_pace).await;
                    }
                    let then = server.poll();
                    if matches!(then, Output::Done) {
                        // Here, because it may be at its DAS before this thread goes on.
                        self.note(Ok(()));
                    }
                    connection.write(&bytes, patience).await?;
                    next = Some(then);
                }
                Output::Done => return Ok(()),
                Output::Close(reason) => return Err(Failure::ModernClosed(reason)),
            }
        }
    }

    /// The device has got a step further.
    pub(super) fn advance(&self) {
        self.place.advance();
    }

    async fn look_up(&mut self, server: &mut Server, serial: &Serial, random: &mut (dyn Random + Send)) {
        let clock = self.lbs.platform.clock();
        self.device = self.lbs.platform.device_by_serial(serial.as_str());
        if self.device.is_none() {
            let suite = server.suite().map_or("unknown", Suite::as_str);
            self.lbs.platform.stranger_asked(serial.as_str(), self.origin.address, suite);
        }
        let record = match &self.device {
            Some(device) => match self.lbs.platform.secrets(device).await {
                Ok(secrets) => {
                    self.demanded = self.lbs.platform.demands_certificate(device);
                    Some(tickets::record(&secrets, device, self.demanded, clock.steady_ms()))
                }
                Err(error) => {
                    tracing::warn!(%serial, %error, "the credentials cannot be read");
                    None
                }
            },
            // A stranger waits for the store as a known one does, and is told the same while it does not answer.
            None => self.lbs.platform.store_answers().await.then(|| self.stranger(serial)),
        };
        match record {
            Some(record) => server.handle_record(record, clock.now_ms(), random),
            None => server.handle_unavailable(),
        }
    }

    /// The record of a serial that nobody has registered: that of a device with a long code, which most have.
    fn stranger(&self, serial: &Serial) -> Record {
        let letters = self.lbs.decoy.record(serial).code;
        let long =
            letters.and_then(|code| Code::new([code.as_bytes(), code.as_bytes(), code.as_bytes()].concat()).ok());
        Record { standing: Standing::Unknown, code: long, ..Record::default() }
    }

    /// A code is about to be looked at. Only a wrong one counts.
    fn attempt(&mut self, server: &mut Server, short: bool) {
        let (platform, attempts) = (&self.lbs.platform, &self.lbs.config.attempts);
        let steady = platform.clock().steady_ms();
        // In every branch the same budgets, and first: who is told nothing else learns nothing by them.
        let attempt = match attempts.begin_long(self.origin, steady) {
            Ok(attempt) => attempt,
            Err(spent) => {
                self.spent = Some(spent);
                return server.handle_attempt(Attempt::Spent);
            }
        };
        let window = if short { self.short_window(steady) } else { None };
        let verdict = match (short, &window) {
            (true, None) => Attempt::Closed,
            _ => Attempt::Go,
        };
        server.handle_attempt(verdict);
        if server.refusal() == Some(ResultCode::CodeRefused) {
            attempt.failed();
        }
        let Some((device, claim)) = window else { return };
        if !is_wrong(server) {
            attempts.give_back(&claim, steady);
        } else if self.lbs.short_code_failed(steady) {
            tracing::warn!("100 short codes were wrong within an hour: none is looked at for now");
            metrics::counter!("vestibule_lbs_short_codes_closed_total").increment(1);
            platform.misdeed(&device, "device.guessed", json!({"short_codes": "closed for an hour"}));
        }
    }

    /// The device whose short code may be looked at, with the try that this takes from its window; `None` outside of one, and
    /// when the window has had its five wrong ones.
    fn short_window(&mut self, steady: i64) -> Option<(Arc<Device>, Claim)> {
        let device = self.device.clone()?;
        if !device.may_enrol_shortly(steady, SHORT_CODES_MS) || !self.lbs.takes_short_codes(steady) {
            return None;
        }
        let claim = Claim::of(&device.serial, Some(&device));
        if !self.lbs.config.attempts.take(&claim, steady) {
            self.spent = Some(Spent::Serial);
            return None;
        }
        Some((device, claim))
    }

    /// Notes by which roots the device knows the platform, and has it told of the newest where it does not know that one. Who
    /// says nothing of it, a device that others made, is told nothing.
    async fn trade_roots(&self, server: &mut Server) {
        let Some(device) = &self.device else { return };
        let known = server.held_anchors().map(<[_]>::to_vec);
        let over_tls = self.suite == Some(Suite::Tls);
        if let Some(known) = known.as_deref().filter(|_| over_tls)
            && let Some(root) = self.lbs.platform.certificates().root_to_tell(known)
        {
            metrics::counter!("vestibule_lbs_roots_told_total").increment(1);
            server.tell_anchors(vec![root]);
        }
        self.lbs.platform.note_roots(device, over_tls.then(|| known.as_deref().unwrap_or_default())).await;
    }

    /// A certificate for the device; without one it goes on with its ticket, and why shows in the log.
    async fn certify(&mut self, request: Vec<u8>) -> Vec<Vec<u8>> {
        let Some(device) = &self.device else { return Vec::new() };
        if !holds(self.certificate.as_ref(), &self.lbs.platform) {
            return Vec::new();
        }
        let request = CertificateSigningRequestDer::from(request);
        let (life, by) = (self.lbs.config.certificate_life, Caller::program());
        // Who has to show one and comes without has asked rightly (13.3), and may have lost any number on the way.
        let has_asked = self.demanded && self.certificate.is_none();
        let issued = if has_asked {
            self.lbs.platform.issue_demanded_certificate(device, &request, life).await
        } else {
            self.lbs.platform.issue_certificate(device, &request, life, &by).await
        };
        match issued {
            Ok(issued) => {
                self.granted = has_asked;
                issued.chain.iter().map(|certificate| certificate.to_vec()).collect()
            }
            Err(error) => {
                metrics::counter!("vestibule_lbs_certificates_refused_total").increment(1);
                tracing::warn!(serial = %device.serial, %error, "the device is given no certificate");
                self.ungranted = Some(error.to_string());
                Vec::new()
            }
        }
    }

    /// Makes durable what the run wants, if no other run came between. Once begun it goes on to its end, also when the
    /// connection does not.
    async fn stage(&self, stage: Stage) -> Staged {
        let (Some(device), Some(suite)) = (self.device.clone(), self.suite) else { return Staged::Unavailable };
        let (platform, epochs) = (Arc::clone(&self.lbs.platform), Arc::clone(&self.lbs.epochs));
        let (certificate, granted) = (self.certificate.clone(), self.granted);
        let staged =
            tokio::spawn(async move { keep(&platform, &epochs, &device, suite, certificate, granted, stage).await });
        staged.await.unwrap_or(Staged::Unavailable)
    }

    /// Counts and tells how the visit ended, once.
    pub(super) fn note(&mut self, outcome: Result<(), Failure>) {
        if std::mem::replace(&mut self.is_noted, true) {
            return;
        }
        let platform = &self.lbs.platform;
        let peer = self.origin.address;
        let suite = self.suite.map_or("unknown", Suite::as_str);
        let (result, detail) = match &outcome {
            Ok(()) => ("ok", String::new()),
            Err(Failure::ModernClosed(reason)) => (reason.as_str(), reason.to_string()),
            Err(Failure::Below(what)) => (*what, "there was no conversation".to_owned()),
            Err(Failure::Closed(reason)) => (reason.as_str(), reason.to_string()),
            Err(Failure::Lost) => ("connection_lost", "the peer closed the connection".to_owned()),
            Err(Failure::TimedOut) => ("timeout", "the peer was too slow".to_owned()),
            Err(Failure::MadeRoom) => ("made_room", "the peer made room for another".to_owned()),
            Err(Failure::Panicked) => ("panicked", "the key agreement panicked".to_owned()),
        };
        let labels = [("suite", suite), ("result", result)];
        metrics::counter!("vestibule_lbs_modern_runs_total", &labels).increment(1);
        let serial = self.device.as_ref().map_or("", |device| &device.serial);
        tracing::debug!(%peer, serial, suite, result, detail, "LBS run ended");
        let Some(device) = &self.device else { return };
        let ip = Some(peer);
        let fact = match outcome {
            Ok(()) => explain::authenticated_modern(self.used, ip),
            Err(_) if let Some(spent) = self.spent => {
                if spent == Spent::Serial {
                    platform.misdeed(device, "device.guessed", json!({"address": peer.to_string()}));
                }
                explain::too_many_attempts(spent)
            }
            Err(Failure::ModernClosed(CloseReason::Disabled)) => explain::disabled(None, ip),
            Err(Failure::ModernClosed(CloseReason::WrongCode)) if let CodeUse::Spent(at) = device.code_use() => {
                explain::code_spent(at, ip)
            }
            Err(Failure::ModernClosed(CloseReason::CertificateRequired)) => match &self.ungranted {
                Some(why) => explain::certificate_ungranted(why, ip),
                None => explain::certificate_demanded(ip),
            },
            Err(Failure::ModernClosed(reason)) => {
                if reason == (CloseReason::Ticket { dropped: true }) {
                    // Its secret is gone, so that nothing proves who shows it: over plain TCP anybody may have heard its name. One
                    // row an hour says so.
                    let detail = json!({"address": peer.to_string(), "proven": false});
                    platform.misdeed(device, "device.old_ticket", detail);
                }
                explain::modern_refusal(&reason, ip)
            }
            Err(Failure::Closed(reason)) => explain::lbs_refusal(None, &reason, ip),
            Err(Failure::Below(what)) => explain::lbs_broken(None, what, ip),
            Err(Failure::Lost) => explain::lbs_broken(None, "connection_lost", ip),
            Err(Failure::MadeRoom) => explain::lbs_broken(None, "made_room", ip),
            Err(Failure::TimedOut) => explain::lbs_broken(None, "timeout", ip),
            Err(Failure::Panicked) => explain::lbs_broken(None, "panicked", ip),
        };
        platform.fact(device, fact);
    }
}

/// Whether the code that was looked at is wrong.
fn is_wrong(server: &Server) -> bool {
    matches!(server.close_reason(), Some(CloseReason::WrongCode | CloseReason::UnknownSerial))
}

/// Writes what a run wants to be durable.
async fn keep(
    platform: &Arc<Platform>,
    epochs: &Epochs,
    device: &Arc<Device>,
    suite: Suite,
    certificate: Option<Shown>,
    granted: bool,
    stage: Stage,
) -> Staged {
    let now = platform.clock().now_ms();
    let confirms = matches!(stage, Stage::Confirm { .. });
    // Who only comes back leaves a window open for whom it was opened.
    let ends_window = match &stage {
        Stage::Confirm { used, .. } => !matches!(used, Used::Ticket(Held::Current | Held::Next)),
        _ => false,
    };
    let (mut epoch, mut used_window) = (None, ends_window);
    let updated = platform.update_credentials(device, |present| {
        let mut modern = Modern::of(present);
        let opens = matches!(stage, Stage::Session { .. });
        // A certificate that was revoked since the handshake proves nothing: who revokes one voids the tickets after it, so
        // that what is written before that is void as well (13.3, TLS profile 6).
        if !holds(certificate.as_ref(), platform) {
            return Err(Outrun);
        }
        let by_code = matches!(stage, Stage::Issue { used: Used::Code, .. });
        if by_code && matches!(present.code, CodeUse::Spent(_)) {
            // Another run has used the code up since this one looked at it.
            return Err(Outrun);
        }
        // Who enrols uses its code up, whatever it comes with until that is confirmed (ticket rule 4). Who is in and only
        // comes back leaves one that was armed anew for whom that was done, like the window.
        let spends = confirms && (ends_window || !modern.tickets.confirmed);
        modern.apply(stage, suite, now)?;
        epoch = opens.then_some(modern.epoch);
        // A modern device has no use for what it agreed on before, and others might (13.4).
        let legacy = Credentials { modern: true, ..Credentials::default() };
        let kept = if confirms { legacy } else { present.clone() };
        // Who has shown one before was let ask for another by a window.
        used_window |= confirms && granted && modern.certified;
        modern.certified |= confirms && certificate.is_some();
        let code = if spends { present.code.spend(now) } else { present.code };
        Ok::<_, Outrun>(Credentials { tickets: Some(modern.encode()), code, ..kept })
    });
    match updated.await {
        Ok(()) => {
            if let Some(epoch) = epoch {
                epochs.raise(device.id, epoch);
            }
            if used_window {
                platform.enrolled(device).await;
            }
            Staged::Done
        }
        Err(UpdateError::Refused(Outrun) | UpdateError::Removed) => Staged::Outrun,
        Err(UpdateError::Store(error)) => {
            tracing::warn!(serial = %device.serial, %error, "the credentials cannot be written");
            Staged::Unavailable
        }
    }
}

/// Whether the certificate that the handshake has verified, if there was one, is good still.
fn holds(certificate: Option<&Shown>, platform: &Arc<Platform>) -> bool {
    let Some(Shown { chain, .. }) = certificate else { return true };
    let Some((leaf, above)) = chain.split_first() else { return false };
    let certificates = platform.certificates();
    let now = certificates.time().current_time();
    now.is_some_and(|now| certificates.verifier().verify_client_cert(leaf, above, now).is_ok())
}
