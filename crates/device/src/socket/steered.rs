//! A connection under the orders of the platform: what children and program have to say, and where to go.

use std::sync::Arc;
use std::time::Instant;

use osap::das::topic::GLOBAL;

use super::Talk;
use crate::calls::Calls;
use crate::driver::now;
use crate::hub::Told;
use crate::link::Note;
use crate::moving::Moving;
use crate::pass::PassThrough;
use crate::session::Grant;
use crate::steering::{Steer, guarded};

impl Talk<'_> {
    /// What the children, the program and unanswered questions have to say by now.
    pub(super) fn collect(&mut self) {
        if !self.link.is_online() {
            return;
        }
        let now = now();
        self.renew(now);
        self.shared.ask_again(now);
        let (mut notes, questions) = {
            let mut steering = self.shared.steering.lock();
            (steering.take_notes(), steering.asking.as_mut().map(|asking| asking.take_questions()))
        };
        for question in questions.into_iter().flatten() {
            self.link.answer(question);
        }
        let mut told = Vec::new();
        if let Some(hub) = &mut *self.shared.hub.lock() {
            notes.extend(std::iter::from_fn(|| hub.poll(now)));
            told = hub.take_told();
            // Nothing goes out before the notes do.
            let mut outbox = self.shared.outbox.lock();
            told.iter().for_each(|told| outbox.open_lane(told.lane));
        }
        if let Some(cache) = self.shared.cache.as_ref().filter(|_| !told.is_empty()) {
            cache.handle_room();
        }
        for note in notes {
            self.note(note);
        }
        for Told { serial, .. } in told.into_iter().filter(|told| told.report) {
            self.shared.report_all(now, &serial);
        }
    }

    /// When [`collect`](Self::collect) has something to do without anything else happening.
    pub(super) fn other_deadline(&self) -> Option<Instant> {
        if !self.link.is_online() {
            return None;
        }
        let children = self.shared.hub.lock().as_ref().and_then(|hub| hub.deadline(now()));
        let renewal = self.session.renew_at().filter(|_| self.moving.is_none());
        [self.shared.attributes.lock().queries.deadline(), children, renewal].into_iter().flatten().min()
    }

    /// Sends a command, unless the platform forbade it (osap-wire 10.5).
    pub(super) fn note(&mut self, note: Note) {
        let (domain, number) = (note.command.domain(), note.command.number());
        if self.shared.steering.lock().risk.forbids(domain, number) {
            self.shared.count(|count| &count.forbidden);
            tracing::debug!(serial = %self.shared.profile.serial, command = note.command.name(), "forbidden");
        } else {
            self.link.note(note);
        }
    }

    pub(super) fn steer(&mut self, steer: Steer) {
        match steer {
            Steer::Done => {}
            Steer::Answer(note) => self.note(note),
            Steer::KeepAlive(seconds) => {
                self.link.set_keep_alive(seconds);
                self.session.handle_keep_alive(seconds);
            }
            Steer::Leave => {
                self.forced = true;
                self.link.leave(now());
            }
            Steer::Move(host) => self.begin_move(host),
            Steer::Verdict { serial, accepted } => {
                let mut hub = self.shared.hub.lock();
                match hub.as_mut().and_then(|hub| hub.handle_verdict(now(), &serial, accepted)) {
                    Some(None) => {}
                    Some(Some(lane)) => {
                        tracing::warn!(hub = %self.shared.profile.serial, child = %serial, "the child is refused");
                        self.shared.give_up(&serial, lane);
                    }
                    None => self.shared.count(|count| &count.ignored),
                }
            }
        }
    }

    /// Hands bytes of an application to the program, once.
    pub(super) fn pass(&mut self, seq: u64, pass: PassThrough) {
        let calls = self.calls.get_or_insert_with(|| Box::new(Calls::new(self.link.epoch())));
        let operations = self.shared.operations_of(pass.child.as_deref().unwrap_or(GLOBAL));
        match operations.as_ref().and_then(|operations| operations.pass()) {
            Some(handler) if calls.is_new_pass(seq) => {
                self.shared.count(|count| &count.passed);
                guarded(self.shared, || handler(pass));
            }
            _ => self.shared.count(|count| &count.ignored),
        }
    }

    /// The platform sends the device to another LBS. The present connection goes on until that one has taken it.
    fn begin_move(&mut self, host: Box<str>) {
        let profile = &self.shared.profile;
        let present = self.session.lbs_host().unwrap_or(&profile.lbs_host);
        let under_way = self.moving.as_ref().is_some_and(|moving| moving.host == host);
        if *host == *present || under_way {
            return;
        }
        let Some(start) = self.session.start_elsewhere() else { return };
        tracing::info!(serial = %profile.serial, %host, "sent to another LBS");
        self.moving = Some(Moving::new(Arc::clone(self.shared), Arc::clone(self.entrance), host, start));
    }

    /// Renews the session if it is time for that, unless the device is on its way to another LBS.
    fn renew(&mut self, now: Instant) {
        if self.moving.is_some() || self.session.renew_at().is_none_or(|at| at > now) {
            return;
        }
        let host = self.session.lbs_host().unwrap_or(&self.shared.profile.lbs_host).into();
        tracing::debug!(serial = %self.shared.profile.serial, "the session is renewed");
        self.moving = Some(Moving::renewal(Arc::clone(self.shared), Arc::clone(self.entrance), host));
    }

    /// The attempts at an LBS are over.
    pub(super) fn moved(&mut self, host: Box<str>, grant: Option<Grant>) {
        self.moving = None;
        if let Some(grant) = grant {
            self.shared.count(|count| &count.authentications);
            let host = (host != self.shared.profile.lbs_host).then_some(host);
            self.session.handle_moved(host, grant);
            self.link.handle_stop(now());
        }
    }
}

/// Waits for the end of the attempts at another LBS; for ever when there are none.
pub(super) async fn moved(moving: &mut Option<Moving>) -> (Box<str>, Option<Grant>) {
    match moving {
        Some(moving) => {
            let grant = moving.ended().await;
            (moving.host.clone(), grant)
        }
        None => std::future::pending().await,
    }
}
