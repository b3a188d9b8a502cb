//! What a topic is for: found out once for each topic of a connection, before the payload is touched.

use std::sync::Arc;

use osap::das::command::{Command, Direction};
use osap::das::topic::{GLOBAL, Topic, method};
use osap::das::{ota, pass, shadow, storage};
use vestibule_platform::DevicePath;

/// What a topic is for.
#[derive(Debug, Clone)]
pub(super) enum Channel {
    /// An event of this part of the device.
    Event(Arc<DevicePath>),
    /// The value of this attribute.
    Attribute(Arc<DevicePath>),
    /// A question for the value of this attribute.
    AttributeQuery(Arc<DevicePath>),
    /// An operation that the device wants of us.
    Operate(Arc<DevicePath>),
    /// The answer to this operation.
    OperateReply(Arc<DevicePath>),
    /// The answer to a value set through the model.
    SetReply(Arc<DevicePath>),
    /// State synchronisation (10.2) of this part of the device, and which message of it.
    Shadow(Arc<Place>, Shadow),
    /// A message through this part of the device.
    Pass(Arc<DevicePath>),
    /// Which firmware the device runs (10.3).
    Inform,
    /// How an update goes on (10.3).
    Progress,
    /// The answer to an order to update (10.3).
    UpgradeReply,
    /// Where objects are put and got (10.7), and which message of it.
    Storage(Arc<Place>, Storage),
    /// What the device says is durable there, over plain TCP (13.3).
    Receipt,
    /// A command of the older form (9.7).
    Command(Command),
    /// A topic that the device may not use: what comes there is opened for its number, and dropped.
    Denied,
    /// A channel of the protocol that is acknowledged and not served.
    NotHandled,
}

/// A resource and which one of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) resource: Box<str>,
    pub(super) index: Box<str>,
}

/// A message of state synchronisation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shadow {
    /// The value of an attribute.
    Report,
    /// What is desired?
    Query,
    /// The answer to a value that was set.
    SetReply,
}

/// A message of object storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// Where may these be put?
    Upload,
    /// Where are these got?
    Download,
    /// How it went.
    Result,
}

impl Channel {
    /// Whether nothing is done with its messages.
    pub(super) fn is_not_handled(&self) -> bool {
        matches!(self, Channel::NotHandled | Channel::Denied)
    }

    /// What a topic is for, and the sub-device it speaks for, if it does. `serial` is the connection's own (13.2.7).
    pub(super) fn of<'a>(topic: &'a str, serial: &str) -> Result<(Option<&'a str>, Channel), &'static str> {
        let topic = Topic::parse(topic).map_err(|_| "bad_topic")?;
        let sub = match topic {
            Topic::Model { serial: named, .. } | Topic::Module { serial: named, .. } if named != serial => {
                return Err("foreign_serial");
            }
            Topic::Model { sub, .. } | Topic::Module { sub, .. } => Some(sub).filter(|sub| *sub != GLOBAL),
            // The uplink form carries no identity: it is the connection's (9.7).
            Topic::Command { serial: None, .. } => None,
            Topic::Command { serial: Some(_), .. } => return Err("bad_topic"),
        };
        Ok((sub, Channel::of_known(&topic)))
    }

    fn of_known(topic: &Topic<'_>) -> Channel {
        if let Some(pass::Place { index, resource, area, name, msg_type: pass::REPORT, .. }) = pass::Place::of(topic) {
            return Channel::Pass(path(resource, index, area, name));
        }
        match *topic {
            Topic::Model { index, resource, method, msg_type, area, name, .. } => {
                let path = || path(resource, index, area, name);
                match (method, msg_type) {
                    (method::EVENT, "report") => Channel::Event(path()),
                    (method::ATTRIBUTE, "report") => Channel::Attribute(path()),
                    (method::ATTRIBUTE, "query") => Channel::AttributeQuery(path()),
                    (method::ATTRIBUTE, "set_reply") => Channel::SetReply(path()),
                    (method::SERVICE, "operate") => Channel::Operate(path()),
                    (method::SERVICE, "operate_reply") => Channel::OperateReply(path()),
                    _ => Channel::NotHandled,
                }
            }
            Topic::Module { index, resource, module: shadow::MODULE, method: shadow::METHOD, msg_type, .. } => {
                let place = || Arc::new(Place { resource: resource.into(), index: index.into() });
                match msg_type {
                    "report" => Channel::Shadow(place(), Shadow::Report),
                    "query" => Channel::Shadow(place(), Shadow::Query),
                    "set_reply" => Channel::Shadow(place(), Shadow::SetReply),
                    _ => Channel::NotHandled,
                }
            }
            Topic::Module { module: ota::MODULE, method: ota::INFORM, msg_type: "report", .. } => Channel::Inform,
            Topic::Module { module: ota::MODULE, method: ota::PROGRESS, msg_type: "report", .. } => Channel::Progress,
            Topic::Module { module: ota::MODULE, method: ota::UPGRADE, msg_type: "operate_reply", .. } => {
                Channel::UpgradeReply
            }
            Topic::Module { index, resource, module: storage::MODULE, method, msg_type, .. } => {
                let place = || Arc::new(Place { resource: resource.into(), index: index.into() });
                match (method, msg_type) {
                    (storage::UPLOAD, "query") => Channel::Storage(place(), Storage::Upload),
                    (storage::DOWNLOAD, "query") => Channel::Storage(place(), Storage::Download),
                    (storage::RESULT, "report") => Channel::Storage(place(), Storage::Result),
                    _ => Channel::NotHandled,
                }
            }
            Topic::Module { sub: GLOBAL, module: "basic", method: "login", msg_type: "receipt", .. } => {
                Channel::Receipt
            }
            Topic::Module { .. } => Channel::NotHandled,
            Topic::Command { domain, command, .. } => match Command::lookup(domain, command) {
                // Answered under its own number (9.8).
                Some(Command::BindingChanged) => Channel::Command(Command::BindingChanged),
                Some(command) if command.direction() == Direction::Up => Channel::Command(command),
                _ => Channel::NotHandled,
            },
        }
    }
}

fn path(resource: &str, index: &str, area: &str, name: &str) -> Arc<DevicePath> {
    Arc::new(DevicePath { resource: resource.into(), index: index.into(), area: area.into(), name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(topic: &str) -> Result<Channel, &'static str> {
        Channel::of(topic, "SN0000001").map(|(_, channel)| channel)
    }

    #[test]
    fn an_event_topic_names_a_part_of_the_device() {
        let Ok(Channel::Event(path)) = channel("/iot/SN0000001/global/0-Lamp/model/event/report/Alarm/Smoke") else {
            panic!("an event");
        };
        assert_eq!((&*path.resource, &*path.index, &*path.area, &*path.name), ("Lamp", "0", "Alarm", "Smoke"));
    }

    #[test]
    fn osap_13_2_7_a_foreign_serial_is_refused_and_a_child_is_named() {
        let foreign = channel("/iot/SN0000002/global/0-Lamp/model/event/report/Alarm/Smoke");
        assert_eq!(foreign.err(), Some("foreign_serial"));
        assert_eq!(channel("/oneM2M/req/a/b/json").err(), Some("bad_topic"));
        let child = Channel::of("/iot/SN0000001/SUB1/0-Lamp/model/event/report/Alarm/Smoke", "SN0000001");
        assert_eq!(child.expect("a topic").0, Some("SUB1"));
    }

    #[test]
    fn every_channel_is_known_by_its_topic() {
        let is = |topic: &str, wanted: fn(&Channel) -> bool| {
            let channel = channel(topic).unwrap_or_else(|error| panic!("{topic}: {error}"));
            assert!(wanted(&channel), "{topic}: {channel:?}");
        };
        let at = |rest: &str| format!("/iot/SN0000001/global/0-global/{rest}");
        is(
            &at("pass/Meter/Serial/report"),
            |c| matches!(c, Channel::Pass(p) if &*p.area == "Meter" && &*p.name == "Serial"),
        );
        is(&at("pass/Meter/Serial/deliver"), |c| matches!(c, Channel::NotHandled));
        is(&at("ota/inform/report"), |c| matches!(c, Channel::Inform));
        is(&at("ota/progress/report"), |c| matches!(c, Channel::Progress));
        is(&at("ota/upgrade/operate_reply"), |c| matches!(c, Channel::UpgradeReply));
        is("/1100/18759", |c| matches!(c, Channel::Command(Command::BindingChanged)));
        is(&at("storage/upload/url/query"), |c| matches!(c, Channel::Storage(_, Storage::Upload)));
        is(&at("storage/download/url/query"), |c| matches!(c, Channel::Storage(_, Storage::Download)));
        is(&at("storage/upload/result/report"), |c| matches!(c, Channel::Storage(_, Storage::Result)));
        is(&at("storage/upload/url/query_reply"), |c| matches!(c, Channel::NotHandled));
        is(&at("model/service/operate/Area/Name"), |c| matches!(c, Channel::Operate(_)));
        is(&at("model/attribute/query/Area/Name"), |c| matches!(c, Channel::AttributeQuery(_)));
        is("/7002/16", |c| matches!(c, Channel::Command(Command::ChildAuth)));
        is("/1100/14448", |c| matches!(c, Channel::Command(Command::ProfileQuery)));
        // What only the platform sends, and what nobody knows.
        is("/1000/1", |c| matches!(c, Channel::NotHandled));
        is("/1100/9", |c| matches!(c, Channel::NotHandled));
    }
}
