//! What devices publish (osap-wire 9.6 to 9.8, 10.1).

use std::sync::Arc;

use osap::das::pending::Take;
use osap::das::reply::Reply;
use osap::das::topic::{Topic, method};
use osap::das::{attribute, envelope, event};
use vestibule_broker::{Disposition, Ticket};
use vestibule_platform::{Answer, DevicePath, RecordKind, Report};

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
    /// A channel of the protocol that is acknowledged and not served.
    NotHandled,
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
                    (method::SERVICE, "operate_reply") => Ok(Grant::OperateReply(path())),
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
        let (kind, path) = match grant {
            Grant::Event(path) => (RecordKind::Event, path),
            Grant::Attribute(path) => (RecordKind::Attribute, path),
            Grant::OperateReply(path) => return self.operation_answered(session, path, payload),
            Grant::NotHandled => {
                self.dropped(session, "not_handled");
                return Disposition::Done;
            }
        };
        let opened = match envelope::open(&session.line.cipher(), payload) {
            Ok(opened) => opened,
            Err(_) => return self.not_opened(session, "envelope"),
        };
        let (id, time, data) = match kind {
            RecordKind::Event => match event::EventBody::parse(opened.application) {
                Ok(body) => (body.uuid, body.time_ms, body.json),
                Err(_) => return self.not_opened(session, "body"),
            },
            _ => match attribute::parse_report(opened.application) {
                Ok(value) => (None, None, value),
                Err(_) => return self.not_opened(session, "body"),
            },
        };
        if !session.key.is_new(opened.general.seq) {
            metrics::counter!("vestibule_das_messages_dropped_total", "reason" => "repeated").increment(1);
            // Acknowledged once the original is durable, which lies at or before the last position given out.
            return Disposition::After(Ticket(self.platform.journal().appended().get()));
        }
        let report = Report { kind, path: Arc::clone(path), id, time, data };
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
}

impl Das {
    /// A reply to an operation. It belongs to the request whose number it repeats, if that was for the same operation
    /// (9.8); what belongs to none is dropped.
    fn operation_answered(&self, session: &DasSession, path: &DevicePath, payload: &mut [u8]) -> Disposition {
        let Ok(opened) = envelope::open(&session.line.cipher(), payload) else {
            return self.not_opened(session, "envelope");
        };
        let Ok(reply) = Reply::parse(opened.application) else { return self.not_opened(session, "body") };
        let code = reply.code;
        match session.line.take(opened.general.seq, path) {
            Take::Found(waiting) => {
                let answer = match reply.is_ok() {
                    true => Answer::Done(reply.data.map(Into::into)),
                    false => Answer::Failed { code, message: reply.message.map(|words| words.as_ref().into()) },
                };
                if !waiting.answer(answer) {
                    self.platform.late_answer(&session.device, code);
                }
            }
            Take::Late => self.platform.late_answer(&session.device, code),
            Take::Unknown => self.dropped(session, "reply_to_nothing"),
        }
        Disposition::Done
    }
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
