//! One device's visit at the LBS: what the machine asks for, and how it ended.

use std::sync::Arc;

use osap::lbs::server::{CloseReason, Output, Server, ServerPolicy};
use osap::lbs::{Record, Run, Slot, Stage};
use osap::suite::{Generation, Suite};
use osap::{Random, ResultCode, Serial};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use vestibule_platform::{CodeUse, Credentials, Device, UpdateError};

use super::Lbs;
use super::connection::{Connection, Failure};
use crate::agreements::{Agreements, NotDone};
use crate::attempts::{Claim, Spent};
use crate::crowd::Place;
use crate::origin::Origin;
use crate::{explain, record};

/// One device's visit at the LBS.
pub(super) struct Visit<'a> {
    lbs: &'a Lbs,
    place: &'a Place<'a>,
    origin: Origin,
    agreements: &'a Arc<Agreements>,
    is_noted: bool,
    device: Option<Arc<Device>>,
    /// Who it says it is, once its authentication was looked at: then a failure counts.
    claim: Option<Claim>,
    /// A property of this run alone: what the device is given is the same in all generations.
    generation: Option<Generation>,
    run: Option<Run>,
    /// It has shown the same public key before.
    repeats: bool,
    /// Why it is to come again.
    refusal: Option<Refusal>,
}

/// Why the LBS has no time for an authentication.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Too many have failed.
    Spent(Spent),
    /// Too many key agreements wait.
    Crowded,
}

impl Refusal {
    fn as_str(self) -> &'static str {
        match self {
            Refusal::Spent(spent) => spent.as_str(),
            Refusal::Crowded => "overloaded",
        }
    }
}

impl<'a> Visit<'a> {
    pub(super) fn new(
        lbs: &'a Lbs,
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
            claim: None,
            generation: None,
            run: None,
            repeats: false,
            refusal: None,
        }
    }

    pub(super) async fn run(&mut self, connection: &mut Connection<TcpStream>) -> Result<(), Failure> {
        let mut policy = ServerPolicy::legacy();
        policy.max_frame = self.lbs.config.max_frame;
        policy.g0 = self.lbs.config.g0;
        let mut server = Server::new(policy);
        let mut random = (self.lbs.random)();
        let mut asked = Instant::now();
        let mut next = None;
        loop {
            self.run = server.run().or(self.run);
            self.generation = server.generation().or(self.generation);
            match next.take().unwrap_or_else(|| server.poll()) {
                Output::Read => {
                    let frame = connection.read_frame(server.max_frame(), self.lbs.config.frame_timeout).await?;
                    asked = Instant::now();
                    let len = frame.len();
                    server.handle_frame(frame);
                    if server.is_proven() {
                        self.place.keep();
                    } else {
                        self.place.advance();
                    }
                    connection.forget(len);
                }
                Output::Lookup(serial) => {
                    self.device = self.lbs.platform.device_by_serial(serial.as_str());
                    if self.device.is_none() {
                        let (name, suite) = (serial.as_str(), Suite::Legacy.as_str());
                        self.lbs.platform.stranger_asked(name, self.origin.address, suite);
                    }
                    if server.run().is_none() {
                        self.look_at(&mut server, &serial, &mut *random).await;
                    } else {
                        match self.record(&serial).await {
                            Some(record) => self.judge(&mut server, record, &mut *random).await,
                            None => server.handle_unavailable(),
                        }
                    }
                }
                Output::Compute => {
                    if let (Some(device), Some(key)) = (&self.device, server.device_key()) {
                        self.repeats = self.lbs.repeats.has_shown(device.id, key);
                    }
                    match self.agreements.run(self.origin, || server.compute(&mut *random)).await {
                        Ok(()) => {}
                        Err(NotDone::Crowded) => {
                            self.refusal = Some(Refusal::Crowded);
                            server.handle_unavailable();
                        }
                        Err(NotDone::Panicked) => return Err(Failure::Panicked),
                    }
                }
                Output::Assign => {
                    let local = || connection.local().unwrap_or(self.origin.address);
                    server.handle_das(self.lbs.assignment.choose(local));
                }
                Output::Stage(stage) => {
                    if self.stage(stage).await {
                        server.handle_staged()
                    } else {
                        server.handle_unavailable()
                    }
                }
                Output::Send(bytes) => {
                    // Nothing was computed for who is to come again because too many have failed or wait.
                    let looked_at = self.refusal.is_none();
                    if looked_at && matches!(server.refusal(), Some(ResultCode::CodeRefused | ResultCode::Unavailable))
                    {
                        tokio::time::sleep_until(asked + self.lbs.config.refusal_pace).await;
                    }
                    let then = server.poll();
                    if matches!(then, Output::Done) {
                        // Here, because it may be at its DAS before this thread goes on.
                        self.note(Ok(()));
                    }
                    connection.write(&bytes, self.lbs.config.frame_timeout).await?;
                    next = Some(then);
                }
                Output::Done => return Ok(()),
                Output::Close(reason) => {
                    if self.device.is_none() {
                        // A generation that is not served named its serial all the same: its owner wants to know why.
                        let serial = server.serial();
                        self.device = serial.and_then(|serial| self.lbs.platform.device_by_serial(serial.as_str()));
                    }
                    return Err(Failure::Closed(reason));
                }
            }
        }
    }

    /// Looks at an authentication, unless too many have failed (osap-wire 13.2.3). A refresh never comes here: who holds a
    /// master key cannot be locked out by strangers.
    async fn look_at(&mut self, server: &mut Server, serial: &Serial, random: &mut (dyn Random + Send)) {
        let (attempts, clock) = (&self.lbs.config.attempts, self.lbs.platform.clock());
        let claim = Claim::of(serial.as_str(), self.device.as_deref());
        // Before anything is done for it.
        if let Some(spent) = attempts.spent(&claim, self.origin, clock.steady_ms()) {
            self.refusal = Some(Refusal::Spent(spent));
            return server.handle_unavailable();
        }
        let record = self.record(serial).await;
        // Again, and now it counts: others may have come while the record was read.
        let attempt = match attempts.begin(&claim, self.origin, clock.steady_ms()) {
            Ok(attempt) => attempt,
            Err(spent) => {
                self.refusal = Some(Refusal::Spent(spent));
                return server.handle_unavailable();
            }
        };
        match record {
            Some(record) => self.judge(server, record, random).await,
            None => server.handle_unavailable(),
        }
        if server.refusal() == Some(ResultCode::CodeRefused) {
            attempt.failed();
        } else {
            drop(attempt);
            self.claim = Some(claim);
        }
    }

    /// Has the record looked at. Nobody is refused while the store is down, known or not: who had to be read is told to come
    /// again then, and the others would show by their refusal that they need not be, or do not exist (osap-wire 13.2.3).
    async fn judge(&self, server: &mut Server, record: Record, random: &mut (dyn Random + Send)) {
        server.handle_record(record, random);
        if server.refusal().is_some() && !self.lbs.platform.store_answers().await {
            server.withhold_refusal();
        }
    }

    /// The record of the device, or a stranger's decoy; `None` when it cannot be read.
    async fn record(&self, serial: &Serial) -> Option<Record> {
        let Some(device) = &self.device else { return Some(self.lbs.decoy.record(serial)) };
        match self.lbs.platform.secrets(device).await {
            Ok(secrets) => {
                let mut record = record::of(&secrets, device, self.lbs.platform.clock().steady_ms());
                // None of these suites has one.
                record.modern |= self.lbs.platform.demands_certificate(device);
                Some(record)
            }
            Err(error) => {
                tracing::warn!(%serial, %error, "the credentials cannot be read");
                None
            }
        }
    }

    /// Makes what the run handed out durable, before the device is told where to go (osap-wire 5.5).
    async fn stage(&self, stage: Stage) -> bool {
        let Some(device) = &self.device else { return false };
        let confirmed = matches!(stage, Stage::Confirmed { .. });
        let commits = confirmed || matches!(stage, Stage::Refreshed { from: Slot::Candidate, .. });
        let (now, steady) = (self.lbs.platform.clock().now_ms(), self.lbs.platform.clock().steady_ms());
        let updated = self.lbs.platform.update_credentials(device, |present| {
            let mut record = record::credentials(present);
            record.may_enrol_again = device.may_enrol_again(steady);
            // A code that works once was used up by another run meanwhile.
            let is_spent = enrols(&stage) && matches!(present.code, CodeUse::Spent(_));
            if is_spent || !still_allowed(&record, &stage) || !record.apply(stage) {
                return Err("another run of the device came first");
            }
            if confirmed && let Some(committed) = &mut record.committed {
                // This session key travelled under the reused nonce (13.2.2): the first CONNECT is answered 11 and
                // the device comes back for one that did not.
                committed.session_key = None;
            }
            let stored = record::stored(&record, present, now);
            Ok(if commits { Credentials { code: present.code.spend(now), ..stored } } else { stored })
        });
        match updated.await {
            Ok(()) => {
                if commits {
                    // Its enrolment is over: who has the code may not use the window again (13.2.4).
                    self.lbs.platform.enrolled(device).await;
                }
                true
            }
            Err(UpdateError::Refused(reason)) => {
                tracing::debug!(serial = %device.serial, reason, "the run was not kept");
                false
            }
            Err(UpdateError::Removed) => false,
            Err(UpdateError::Store(error)) => {
                tracing::warn!(serial = %device.serial, %error, "the credentials cannot be written");
                false
            }
        }
    }

    /// Counts a failure behind an AUTH-I that looked well.
    pub(super) fn charge(&self, outcome: &Result<(), Failure>) {
        if let (Err(Failure::Closed(CloseReason::Signature | CloseReason::Point)), Some(claim)) = (outcome, &self.claim)
        {
            self.lbs.config.attempts.failed(claim, self.origin, self.lbs.platform.clock().steady_ms());
        }
    }

    /// Counts and tells how the visit ended, once.
    pub(super) fn note(&mut self, outcome: Result<(), Failure>) {
        if std::mem::replace(&mut self.is_noted, true) {
            return;
        }
        let platform = &self.lbs.platform;
        let peer = self.origin.address;
        let run = self.run.map_or("unknown", Run::as_str);
        let generation = self.generation.map_or("unknown", Generation::as_str);
        let (result, detail) = match &outcome {
            Ok(()) => ("ok", String::new()),
            Err(_) if let Some(refusal) = self.refusal => (refusal.as_str(), "it is to come again".to_owned()),
            Err(Failure::Closed(reason)) => (reason.as_str(), reason.to_string()),
            Err(Failure::ModernClosed(reason)) => (reason.as_str(), reason.to_string()),
            Err(Failure::Below(what)) => (*what, "there was no conversation".to_owned()),
            Err(Failure::Lost) => ("connection_lost", "the peer closed the connection".to_owned()),
            Err(Failure::TimedOut) => ("timeout", "the peer was too slow".to_owned()),
            Err(Failure::MadeRoom) => {
                ("made_room", "the peer had not proven who it is, and made room for another".to_owned())
            }
            Err(Failure::Panicked) => ("panicked", "the key agreement panicked".to_owned()),
        };
        let labels = [("run", run), ("generation", generation), ("result", result)];
        metrics::counter!("vestibule_lbs_runs_total", &labels).increment(1);
        let serial = self.device.as_ref().map_or("", |device| &device.serial);
        tracing::debug!(%peer, serial, run, generation, result, detail, "LBS run ended");
        if self.repeats {
            metrics::counter!("vestibule_lbs_repeated_keys_total").increment(1);
        }
        if let Some(Refusal::Spent(spent)) = self.refusal {
            metrics::counter!("vestibule_lbs_refused_total", "reason" => spent.as_str()).increment(1);
        }
        let Some(device) = &self.device else { return };
        let ip = Some(peer);
        let fact = match outcome {
            Ok(()) => explain::authenticated(self.run, self.generation, self.repeats, ip),
            Err(_) if let Some(Refusal::Spent(spent)) = self.refusal => {
                if spent == Spent::Serial {
                    platform.misdeed(device, "device.guessed", json!({"address": peer.to_string()}));
                }
                explain::too_many_attempts(spent)
            }
            Err(_) if self.refusal == Some(Refusal::Crowded) => explain::lbs_broken(self.run, "overloaded", ip),
            Err(Failure::Closed(CloseReason::Disabled | CloseReason::ShutOut)) => explain::disabled(self.run, ip),
            Err(Failure::Closed(CloseReason::WrongCode)) if let CodeUse::Spent(at) = device.code_use() => {
                explain::code_spent(at, ip)
            }
            Err(Failure::Closed(CloseReason::ModernDevice)) if !device.is_modern() => explain::certificate_demanded(ip),
            Err(Failure::Closed(reason)) => {
                if reason == CloseReason::ModernDevice {
                    platform.misdeed(device, "device.downgrade", json!({"address": peer.to_string()}));
                }
                explain::lbs_refusal(self.run, &reason, ip)
            }
            Err(Failure::ModernClosed(reason)) => explain::modern_refusal(&reason, ip),
            Err(Failure::Below(what)) => explain::lbs_broken(self.run, what, ip),
            Err(Failure::Lost) => explain::lbs_broken(self.run, "connection_lost", ip),
            Err(Failure::MadeRoom) => explain::lbs_broken(self.run, "made_room", ip),
            Err(Failure::TimedOut) => explain::lbs_broken(self.run, "timeout", ip),
            Err(Failure::Panicked) => explain::lbs_broken(self.run, "panicked", ip),
        };
        platform.fact(device, fact);
    }
}

/// Whether this is what a run gives that the device began with its code.
fn enrols(stage: &Stage) -> bool {
    matches!(stage, Stage::Candidate { .. } | Stage::Confirmed { .. })
}

/// Whether what the lookup allowed holds still: another run of the device may have come first, or the enrolment
/// window may have closed, while this one took its time.
fn still_allowed(record: &Record, stage: &Stage) -> bool {
    match stage {
        Stage::Candidate { run, credential, .. } | Stage::Confirmed { run, credential, .. } => match run {
            Run::First => record.may_enrol(),
            _ => record.own_dev_id(credential.dev_id.as_bytes()).is_some(),
        },
        // Checked against the slot's master key when it is applied.
        Stage::Refreshed { .. } => true,
    }
}
