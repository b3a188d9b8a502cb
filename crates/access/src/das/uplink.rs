//! What devices publish (osap-wire 9.6 to 9.8, 10.1 to 10.3).

use std::sync::Arc;

use osap::das::envelope::Opened;
use osap::das::pass::Pass;
use osap::das::pending::Take;
use osap::das::reply::Reply;
use osap::das::shadow::{self, State};
use osap::das::topic::method;
use osap::das::{BodyError, attribute, envelope, event, ota};
use osap::modern::receipt::Receipt;
use serde_json::json;
use vestibule_broker::{Disposition, Ticket};
use vestibule_platform::{Answer, Device, DevicePath, Platform, RecordKind, Report, ReportError, SetOutcome};

use super::grant::{Channel, Place, Shadow};
use super::link::{Kind, Waiting};
use super::own::OwnOperation;
use super::sealing::Sealing;
use super::{Das, DasSession, Grant, Speaker};
use crate::explain;

impl Das {
    pub(super) fn take(&self, session: &mut DasSession, grant: &Grant, topic: &str, payload: &mut [u8]) -> Disposition {
        let line = Arc::clone(&session.own.line);
        let text = match line.sealing() {
            // What is not served is not opened either.
            Sealing::Legacy(_) if grant.channel.is_not_handled() => {
                self.dropped(&session.own, "not_handled");
                return Disposition::Done;
            }
            Sealing::Legacy(cipher) => match cipher.open(payload) {
                Ok(text) => text,
                Err(_) => return self.not_opened(session, "envelope"),
            },
            Sealing::Modern(_) => match self.open_modern(session, topic, payload) {
                Ok(text) => text,
                Err(disposition) => return disposition,
            },
        };
        if grant.channel.is_not_handled() {
            // Opened all the same: its number is counted.
            self.dropped(&session.own, "not_handled");
            return Disposition::Done;
        }
        let Ok(Opened { general, application }) = envelope::read(text) else {
            return self.not_opened(session, "envelope");
        };
        let seq = general.seq;
        let taken = match &grant.channel {
            Channel::Command(command) => self.command(session, *command, seq, application),
            Channel::Receipt => {
                match (&session.modern, Receipt::decode(application)) {
                    (Some(modern), Some(receipt)) => {
                        modern.receipt_heard(self.platform.clock().steady_ms());
                        session.own.line.received(receipt.down);
                        Das::children_received(session, receipt.down);
                    }
                    _ => self.dropped(&session.own, "not_handled"),
                }
                Ok(Disposition::Done)
            }
            channel => {
                let is_new = !is_report(channel) || session.key.is_new(seq);
                match self.speaker(session, grant) {
                    Ok(speaker) if is_new => self.said(speaker, channel, seq, application),
                    Ok(_) => Ok(self.repeated()),
                    Err(reason) => {
                        self.dropped(&session.own, reason);
                        Ok(Disposition::Done)
                    }
                }
            }
        };
        taken.unwrap_or_else(|_| self.not_opened(session, "body"))
    }

    /// What one device, the one that is connected or one behind it, has said.
    fn said(
        &self,
        speaker: &mut Speaker,
        channel: &Channel,
        seq: u64,
        application: &[u8],
    ) -> Result<Disposition, BodyError> {
        Ok(match channel {
            Channel::Event(path) => {
                let body = event::EventBody::parse(application)?;
                let (path, id, time) = (Arc::clone(path), body.uuid, body.time_ms);
                self.report(speaker, Report { kind: RecordKind::Event, path, id, time, data: body.json })
            }
            Channel::Attribute(path) => {
                let value = attribute::parse_report(application)?;
                if speaker.line.is_to_be_told() {
                    self.runtime.spawn(send_pending(Arc::clone(&self.platform), Arc::clone(&speaker.device)));
                }
                self.attribute(speaker, Arc::clone(path), value)
            }
            Channel::AttributeQuery(path) => self.answer_value(speaker, seq, path),
            Channel::Operate(path) => self.answer_operation(speaker, seq, path),
            Channel::OperateReply(path) => {
                let reply = Reply::parse(application)?;
                let fits = |waiting: &Waiting| waiting.kind == Kind::Operate && waiting.path == **path;
                self.answered(speaker, seq, reply, Some(path), fits)
            }
            Channel::SetReply(path) => {
                let reply = Reply::parse(application)?;
                self.answered(speaker, seq, reply, None, |waiting| waiting.kind == Kind::Set && waiting.path == **path)
            }
            Channel::Shadow(place, message) => self.shadow(speaker, seq, place, *message, application)?,
            Channel::Storage(place, message) => self.storage(speaker, seq, place, *message, application)?,
            Channel::Pass(path) => {
                let Pass { media_type, bytes } = Pass::parse(application)?;
                let taken = self.platform.passed(&speaker.device, path, media_type, bytes);
                self.taken(speaker, taken)
            }
            Channel::Inform => {
                let ota::Inform { modules, version } = ota::Inform::parse(application)?;
                for module in modules {
                    let value = json!({"version": module.version, "index": module.index, "whole": version});
                    self.firmware(speaker, "ota", module.name, &value);
                }
                Disposition::After(Ticket(self.platform.journal().appended().get()))
            }
            Channel::Progress => {
                let ota::Progress { module, status, percent, code, message } = ota::Progress::parse(application)?;
                let (status, code) = (status.number(), code.number());
                let value = json!({"status": status, "percent": percent, "code": code, "message": message});
                self.firmware(speaker, "ota_progress", module, &value)
            }
            Channel::UpgradeReply => {
                let ota::UpgradeReply { code, message } = ota::UpgradeReply::parse(application)?;
                let reply = Reply { code: code.into(), message: Some(message.into()), data: None };
                self.answered(speaker, seq, reply, None, |waiting| waiting.kind == Kind::Own(OwnOperation::Upgrade))
            }
            Channel::Command(_) | Channel::Receipt | Channel::Denied | Channel::NotHandled => Disposition::Done,
        })
    }

    fn attribute(&self, speaker: &mut Speaker, path: Arc<DevicePath>, value: &str) -> Disposition {
        self.report(speaker, Report { kind: RecordKind::Attribute, path, id: None, time: None, data: value })
    }

    /// What a device says of its firmware is an attribute of the device itself, by the name of the module.
    fn firmware(&self, speaker: &mut Speaker, area: &str, module: String, value: &serde_json::Value) -> Disposition {
        if module.contains(['/', '+', '#']) {
            // As a name it could not be asked for.
            self.dropped(speaker, "report_bad_path");
            return Disposition::Done;
        }
        let (resource, index) = ("global".into(), "0".into());
        let path = DevicePath { resource, index, area: area.into(), name: module.into() };
        self.attribute(speaker, Arc::new(path), &value.to_string())
    }

    /// A message whose number was seen before: acknowledged once the original is durable, which lies at or before the
    /// last position given out.
    pub(super) fn repeated(&self) -> Disposition {
        metrics::counter!("vestibule_das_messages_dropped_total", "reason" => "repeated").increment(1);
        Disposition::After(Ticket(self.platform.journal().appended().get()))
    }

    pub(super) fn report(&self, speaker: &mut Speaker, report: Report<'_>) -> Disposition {
        let taken = self.platform.report(&speaker.device, report);
        self.taken(speaker, taken)
    }

    fn taken(&self, speaker: &mut Speaker, taken: Result<vestibule_platform::Position, ReportError>) -> Disposition {
        match taken {
            Ok(position) => {
                if !speaker.reporting {
                    speaker.reporting = true;
                    self.platform.fact(&speaker.device, explain::reporting(speaker.peer()));
                }
                Disposition::After(Ticket(position.get()))
            }
            Err(error) => {
                self.dropped(speaker, error.as_str());
                Disposition::Done
            }
        }
    }

    /// State synchronisation (10.2).
    fn shadow(
        &self,
        speaker: &mut Speaker,
        seq: u64,
        place: &Place,
        message: Shadow,
        application: &[u8],
    ) -> Result<Disposition, BodyError> {
        speaker.line.set_shadow();
        let Place { resource, index } = place;
        match message {
            Shadow::Report => {
                let State { area, name, value } = shadow::parse_report(application)?.state;
                let (resource, index) = (resource.clone(), index.clone());
                let path = DevicePath { resource, index, area: area.into(), name: name.into() };
                Ok(self.attribute(speaker, Arc::new(path), value))
            }
            Shadow::Query => {
                let window = shadow::parse_query(application)?.unwrap_or(usize::MAX);
                let desired = self.platform.desired(&speaker.device);
                if let Err(error) = speaker.line.answer_query(seq, (resource, index), &desired, window) {
                    // The device asks again (10.2).
                    tracing::debug!(serial = %speaker.device.serial, %error, "a query of the shadow is not answered");
                }
                Ok(Disposition::Done)
            }
            Shadow::SetReply => {
                let code = shadow::parse_set_reply(application)?;
                let reply = Reply { code, message: None, data: None };
                Ok(self.answered(speaker, seq, reply, None, |waiting| {
                    let path = &waiting.path;
                    waiting.kind == Kind::Shadow && path.resource == *resource && path.index == *index
                }))
            }
        }
    }

    /// A device asks what one of its attributes is: as it is wished to be, or as it was last reported.
    fn answer_value(&self, speaker: &Speaker, seq: u64, path: &DevicePath) -> Disposition {
        let leaf = self.platform.attribute(&speaker.device, path);
        let (desired, reported) = leaf.map_or((None, None), |leaf| (leaf.desired, leaf.reported));
        let wished = desired.filter(|desired| desired.outcome == SetOutcome::Pending).map(|desired| desired.value);
        let value = wished.or_else(|| reported.map(|reported| reported.value));
        let mut body = Vec::new();
        let written = match &value {
            Some(value) => {
                let data = format!("{{\"Value\":{}}}", value.get());
                Reply { code: 0, message: None, data: Some(&data) }.write_to_device(&mut body)
            }
            None => NOT_SERVED.write_to_device(&mut body),
        };
        self.answer_model(speaker, seq, path, (method::ATTRIBUTE, "query_reply"), written.map(|()| body))
    }

    /// A device wants an operation of us. Nobody serves any, and it is told so.
    fn answer_operation(&self, speaker: &Speaker, seq: u64, path: &DevicePath) -> Disposition {
        self.dropped(speaker, "operation_not_served");
        let mut body = Vec::new();
        let written = NOT_SERVED.write_to_device(&mut body);
        self.answer_model(speaker, seq, path, (method::SERVICE, "operate_reply"), written.map(|()| body))
    }

    fn answer_model(
        &self,
        speaker: &Speaker,
        seq: u64,
        path: &DevicePath,
        reply: (&str, &str),
        body: Result<Vec<u8>, BodyError>,
    ) -> Disposition {
        let sent = body.map(|body| speaker.line.answer_model(seq, path, reply, &body));
        if !matches!(sent, Ok(Ok(()))) {
            tracing::debug!(serial = %speaker.device.serial, "a question of a device is not answered");
        }
        Disposition::Done
    }

    /// A reply belongs to the request whose number it repeats, if that was for the same part of the device (9.8); what
    /// belongs to none is dropped. `late` is which operation it answers, where its topic says so.
    pub(super) fn answered(
        &self,
        speaker: &Speaker,
        seq: u64,
        reply: Reply<'_>,
        late: Option<&Arc<DevicePath>>,
        fits: impl FnOnce(&Waiting) -> bool,
    ) -> Disposition {
        let code = reply.code;
        match speaker.line.take(seq, fits) {
            Take::Found(waiting) => {
                let is_operation = matches!(waiting.kind, Kind::Operate | Kind::Own(_));
                if reply.is_ok() && waiting.kind == Kind::Own(OwnOperation::Bind) {
                    self.bound(speaker, waiting.input.as_deref());
                }
                let answer = match reply.is_ok() {
                    true => Answer::Done(reply.data.map(Into::into)),
                    false => Answer::Failed { code, message: reply.message.map(|words| words.as_ref().into()) },
                };
                let Waiting { path, reply, .. } = waiting;
                if !reply.answer(answer) && is_operation {
                    self.platform.late_answer(&speaker.device, Some(&Arc::new(path)), code);
                }
            }
            Take::Late => self.platform.late_answer(&speaker.device, late, code),
            Take::Unknown => self.dropped(speaker, "reply_to_nothing"),
        }
        Disposition::Done
    }
}

/// Whether repetitions of it are recognised by its number (13.2.6): what is kept is kept once. Questions may be repeated.
fn is_report(channel: &Channel) -> bool {
    matches!(
        channel,
        Channel::Event(_)
            | Channel::Attribute(_)
            | Channel::Shadow(_, Shadow::Report)
            | Channel::Pass(_)
            | Channel::Inform
            | Channel::Progress
    )
}

const NOT_SERVED: Reply<'_> =
    Reply { code: 404, message: Some(std::borrow::Cow::Borrowed("nothing serves this here")), data: None };

/// Sends what is pending, from a runtime that may wait for the answers.
pub(super) async fn send_pending(platform: Arc<Platform>, device: Arc<Device>) {
    platform.send_pending(&device);
}
