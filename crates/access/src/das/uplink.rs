//! What devices publish (osap-wire 9.6 to 9.8, 10.1).

use std::sync::Arc;

use osap::das::envelope::Opened;
use osap::das::pending::Take;
use osap::das::reply::Reply;
use osap::das::shadow::{self, State};
use osap::das::topic::{Topic, method};
use osap::das::{BodyError, attribute, envelope, event};
use vestibule_broker::{Disposition, Ticket};
use vestibule_platform::{Answer, Device, DevicePath, Platform, RecordKind, Report};

use super::link::{Kind, Waiting};
use super::{Das, DasSession};
use crate::explain;

/// What a topic is for, found out once for each topic of a connection.
#[derive(Debug, Clone)]
pub enum Grant {
    /// An event of this part of the device.
    Event(Arc<DevicePath>),
    /// The value of this attribute.
    Attribute(Arc<DevicePath>),
    /// The answer to this operation.
    OperateReply(Arc<DevicePath>),
    /// The answer to a value set through the model.
    SetReply(Arc<DevicePath>),
    /// State synchronisation (10.2) of this part of the device, and which message of it.
    Shadow(Arc<Place>, Shadow),
    /// A channel of the protocol that is acknowledged and not served.
    NotHandled,
}

/// A resource and which one of it.
#[derive(Debug, PartialEq, Eq)]
pub struct Place {
    resource: Box<str>,
    index: Box<str>,
}

/// A message of state synchronisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shadow {
    /// The value of an attribute.
    Report,
    /// What is desired?
    Query,
    /// The answer to a value that was set.
    SetReply,
}

impl Grant {
    /// May a device with this serial publish here, and what is it (13.2.7)?
    pub(super) fn of(topic: &str, serial: &str) -> Result<Grant, &'static str> {
        match Topic::parse(topic).map_err(|_| "bad_topic")? {
            Topic::Model { serial: named, .. } | Topic::Module { serial: named, .. } if named != serial => {
                Err("foreign_serial")
            }
            Topic::Model { sub, .. } | Topic::Module { sub, .. } if sub != "global" => Err("unknown_child"),
            Topic::Model { index, resource, method, msg_type, area, name, .. } => {
                let path = || {
                    let (resource, index, area, name) = (resource.into(), index.into(), area.into(), name.into());
                    Arc::new(DevicePath { resource, index, area, name })
                };
                match (method, msg_type) {
                    (method::EVENT, "report") => Ok(Grant::Event(path())),
                    (method::ATTRIBUTE, "report") => Ok(Grant::Attribute(path())),
                    (method::ATTRIBUTE, "set_reply") => Ok(Grant::SetReply(path())),
                    (method::SERVICE, "operate_reply") => Ok(Grant::OperateReply(path())),
                    _ => Ok(Grant::NotHandled),
                }
            }
            Topic::Module { index, resource, module: shadow::MODULE, method: shadow::METHOD, msg_type, .. } => {
                let place = || Arc::new(Place { resource: resource.into(), index: index.into() });
                match msg_type {
                    "report" => Ok(Grant::Shadow(place(), Shadow::Report)),
                    "query" => Ok(Grant::Shadow(place(), Shadow::Query)),
                    "set_reply" => Ok(Grant::Shadow(place(), Shadow::SetReply)),
                    _ => Ok(Grant::NotHandled),
                }
            }
            // The uplink form carries no identity: it is the connection's (9.7).
            Topic::Command { serial: None, .. } | Topic::Module { .. } => Ok(Grant::NotHandled),
            Topic::Command { serial: Some(_), .. } => Err("bad_topic"),
        }
    }
}

impl Das {
    pub(super) fn take(&self, session: &mut DasSession, grant: &Grant, payload: &mut [u8]) -> Disposition {
        if let Grant::NotHandled = grant {
            self.dropped(session, "not_handled");
            return Disposition::Done;
        }
        let cipher = session.line.cipher();
        let Ok(Opened { general, application }) = envelope::open(&cipher, payload) else {
            return self.not_opened(session, "envelope");
        };
        let seq = general.seq;
        let taken = match grant {
            Grant::Event(path) => event::EventBody::parse(application).map(|body| {
                let (path, id, time) = (Arc::clone(path), body.uuid, body.time_ms);
                self.report(session, seq, Report { kind: RecordKind::Event, path, id, time, data: body.json })
            }),
            Grant::Attribute(path) => attribute::parse_report(application).map(|value| {
                if session.line.is_to_be_told() {
                    self.runtime.spawn(send_pending(Arc::clone(&self.platform), Arc::clone(&session.device)));
                }
                self.attribute(session, seq, Arc::clone(path), value)
            }),
            Grant::OperateReply(path) => Reply::parse(application).map(|reply| {
                self.answered(session, seq, reply, |waiting| waiting.kind == Kind::Operate && waiting.path == **path)
            }),
            Grant::SetReply(path) => Reply::parse(application).map(|reply| {
                self.answered(session, seq, reply, |waiting| waiting.kind == Kind::Set && waiting.path == **path)
            }),
            Grant::Shadow(place, message) => self.shadow(session, seq, place, *message, application),
            Grant::NotHandled => Ok(Disposition::Done),
        };
        taken.unwrap_or_else(|_| self.not_opened(session, "body"))
    }

    fn attribute(&self, session: &mut DasSession, seq: u64, path: Arc<DevicePath>, value: &str) -> Disposition {
        self.report(session, seq, Report { kind: RecordKind::Attribute, path, id: None, time: None, data: value })
    }

    fn report(&self, session: &mut DasSession, seq: u64, report: Report<'_>) -> Disposition {
        if !session.key.is_new(seq) {
            metrics::counter!("vestibule_das_messages_dropped_total", "reason" => "repeated").increment(1);
            // Acknowledged once the original is durable, which lies at or before the last position given out.
            return Disposition::After(Ticket(self.platform.journal().appended().get()));
        }
        match self.platform.report(&session.device, report) {
            Ok(position) => {
                if !session.reporting {
                    session.reporting = true;
                    self.platform.fact(&session.device, explain::reporting(session.peer()));
                }
                Disposition::After(Ticket(position.get()))
            }
            Err(error) => {
                self.dropped(session, error.as_str());
                Disposition::Done
            }
        }
    }

    /// State synchronisation (10.2).
    fn shadow(
        &self,
        session: &mut DasSession,
        seq: u64,
        place: &Place,
        message: Shadow,
        application: &[u8],
    ) -> Result<Disposition, BodyError> {
        session.key.set_shadow();
        let Place { resource, index } = place;
        match message {
            Shadow::Report => {
                let State { area, name, value } = shadow::parse_report(application)?.state;
                let (resource, index) = (resource.clone(), index.clone());
                let path = DevicePath { resource, index, area: area.into(), name: name.into() };
                Ok(self.attribute(session, seq, Arc::new(path), value))
            }
            Shadow::Query => {
                let window = shadow::parse_query(application)?.unwrap_or(usize::MAX);
                let desired = self.platform.desired(&session.device);
                if let Err(error) = session.line.answer_query(seq, (resource, index), &desired, window) {
                    // The device asks again (10.2).
                    tracing::debug!(serial = %session.device.serial, %error, "a query of the shadow is not answered");
                }
                Ok(Disposition::Done)
            }
            Shadow::SetReply => {
                let code = shadow::parse_set_reply(application)?;
                let reply = Reply { code, message: None, data: None };
                Ok(self.answered(session, seq, reply, |waiting| {
                    let path = &waiting.path;
                    waiting.kind == Kind::Shadow && path.resource == *resource && path.index == *index
                }))
            }
        }
    }

    /// A reply belongs to the request whose number it repeats, if that was for the same part of the device (9.8); what
    /// belongs to none is dropped.
    fn answered(
        &self,
        session: &DasSession,
        seq: u64,
        reply: Reply<'_>,
        fits: impl FnOnce(&Waiting) -> bool,
    ) -> Disposition {
        let code = reply.code;
        match session.line.take(seq, fits) {
            Take::Found(waiting) => {
                let is_operation = waiting.kind == Kind::Operate;
                let answer = match reply.is_ok() {
                    true => Answer::Done(reply.data.map(Into::into)),
                    false => Answer::Failed { code, message: reply.message.map(|words| words.as_ref().into()) },
                };
                if !waiting.answer(answer) && is_operation {
                    self.platform.late_answer(&session.device, code);
                }
            }
            Take::Late => self.platform.late_answer(&session.device, code),
            Take::Unknown => self.dropped(session, "reply_to_nothing"),
        }
        Disposition::Done
    }
}

/// Sends what is pending, from a runtime that may wait for the answers.
pub(super) async fn send_pending(platform: Arc<Platform>, device: Arc<Device>) {
    platform.send_pending(&device);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(topic: &str) -> Result<Grant, &'static str> {
        Grant::of(topic, "SN0000001")
    }

    #[test]
    fn an_event_topic_names_a_part_of_the_device() {
        let Ok(Grant::Event(path)) = grant("/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke") else {
            panic!("an event");
        };
        assert_eq!((&*path.resource, &*path.index, &*path.area, &*path.name), ("Lamp", "0", "Alarm", "Smoke"));
    }

    #[test]
    fn osap_13_2_7_a_foreign_serial_or_child_is_refused() {
        let foreign = grant("/iot/SN0000002/global/0-Lamp/model/event/report/Alarm/Smoke");
        assert_eq!(foreign.err(), Some("foreign_serial"));
        let child = grant("/iot/SN0000001/SUB000001/0-Lamp/model/event/report/Alarm/Smoke");
        assert_eq!(child.err(), Some("unknown_child"));
        assert_eq!(grant("/oneM2M/req/a/b/json").err(), Some("bad_topic"));
    }

    #[test]
    fn channels_that_are_not_served_are_known() {
        for topic in ["/1100/14448", "/iot/SN0000001/global/0-global/ota/inform/report"] {
            assert!(matches!(grant(topic), Ok(Grant::NotHandled)), "{topic}");
        }
    }
}
