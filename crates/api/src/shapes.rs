//! The shapes things have in JSON. What is null is there nevertheless: every field is always present.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use vestibule_platform::{
    Caller, CodeUse, Device, DeviceId, Fact, Platform, Presence, PresenceState, Record, RecordKind, Step,
};

use crate::suites::SuitesShape;

/// A device and what is known of it right now.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
pub(crate) struct DeviceShape {
    /// Our identity of the device; never changes.
    #[schema(format = Uuid)]
    id: String,
    /// The protocol family it speaks.
    #[schema(example = "osap")]
    family: &'static str,
    /// The device's own identity.
    #[schema(value_type = String, example = "SN-0001")]
    serial: Arc<str>,
    /// The product it is an instance of.
    #[schema(required = true)]
    product: Option<String>,
    /// A name for people.
    #[schema(required = true)]
    name: Option<String>,
    /// Where it belongs in the organisation.
    #[schema(example = "/plant-1/hall-2")]
    org: String,
    /// What people wrote on it.
    labels: BTreeMap<String, String>,
    /// Grows when name, place or labels are changed; the ETag.
    #[schema(minimum = 1)]
    pub(crate) version: i64,
    /// Whether it is there.
    presence: PresenceShape,
    /// Security suite of the present or last session; null when it never logged in.
    #[schema(required = true, example = "legacy")]
    suite: Option<String>,
    /// Whether that suite keeps what is said confidential; null when it never logged in.
    #[schema(required = true)]
    confidential: Option<bool>,
    /// A label to show wherever the device shows, when its suite is not confidential.
    #[schema(required = true, example = "legacy, not confidential")]
    security: Option<String>,
    /// Whether an operator has shut it out.
    disabled: bool,
    /// Which suites are open to it.
    suites: SuitesShape,
    /// How often its verification code enrols it.
    code: CodeShape,
    /// Id of the device this one is reached through, a hub or a gateway; null when it comes by itself, or through one that
    /// you do not see.
    #[schema(required = true, format = Uuid)]
    parent: Option<String>,
    /// How many devices that you see are reached through this one.
    #[schema(minimum = 0)]
    children: usize,
    /// When it was registered.
    #[schema(format = DateTime)]
    created: String,
}

/// What is to be said of a verification code, which itself is never shown.
#[derive(Serialize, ToSchema)]
#[schema(as = CodeState)]
pub(crate) struct CodeShape {
    /// Whether it enrols the device once only.
    one_time: bool,
    /// When that has happened: it is refused since, until it is armed anew or another takes its place.
    #[schema(required = true, format = DateTime)]
    spent: Option<String>,
}

impl CodeShape {
    fn of(code: CodeUse) -> CodeShape {
        let spent = match code {
            CodeUse::Spent(at) => Some(rfc3339(at)),
            CodeUse::Lasting | CodeUse::OneTime => None,
        };
        CodeShape { one_time: code != CodeUse::Lasting, spent }
    }
}

/// Presence of a device.
#[derive(Serialize, ToSchema)]
#[schema(as = Presence)]
pub(crate) struct PresenceShape {
    /// `online`; `offline`: was online once; `never_seen`: registered only.
    #[schema(value_type = String, pattern = "^(online|offline|never_seen)$", example = "online")]
    state: PresenceState,
    /// Since when; null when it was never seen.
    #[schema(required = true, format = DateTime)]
    since: Option<String>,
    /// Why the state is what it is, a short code.
    #[schema(example = "login")]
    reason: String,
    /// Address and port of the present or last connection.
    #[schema(required = true, example = "192.0.2.7:51000")]
    peer: Option<String>,
}

impl From<Presence> for PresenceShape {
    fn from(presence: Presence) -> PresenceShape {
        PresenceShape {
            state: presence.state,
            since: (presence.state != PresenceState::NeverSeen).then(|| rfc3339(presence.since)),
            reason: presence.reason.into_owned(),
            peer: presence.peer.map(|peer| peer.to_string()),
        }
    }
}

impl DeviceShape {
    pub(crate) fn of(platform: &Platform, device: &Device, by: &Caller) -> DeviceShape {
        let description = device.description();
        let presence = device.presence();
        let seen = presence.suite.is_some();
        let security = presence.suite.as_deref().filter(|_| !presence.confidential);
        DeviceShape {
            id: device.id.to_string(),
            family: device.family.as_str(),
            serial: Arc::clone(&device.serial),
            product: device.product.clone(),
            name: description.name.clone(),
            org: description.org.as_str().to_owned(),
            labels: description.labels.clone(),
            version: description.version,
            security: security.map(|suite| format!("{suite}, not confidential")),
            suite: presence.suite.as_deref().map(str::to_owned),
            confidential: seen.then_some(presence.confidential),
            presence: PresenceShape::from(presence),
            disabled: device.is_disabled(),
            suites: SuitesShape::of(platform, device),
            code: CodeShape::of(device.code_use()),
            parent: platform.parent_seen(device, by).map(|parent| parent.to_string()),
            children: platform.children_seen(device, by).len(),
            created: rfc3339(device.created),
        }
    }
}

/// One page of devices.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceList {
    /// The devices.
    pub(crate) items: Vec<DeviceShape>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    pub(crate) next: Option<String>,
}

/// Which device something is about.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceRef<'a> {
    /// Our identity of the device.
    #[schema(format = Uuid)]
    pub(crate) id: String,
    /// The device's own identity.
    pub(crate) serial: &'a str,
}

impl<'a> DeviceRef<'a> {
    pub(crate) fn new(id: DeviceId, serial: &'a str) -> DeviceRef<'a> {
        DeviceRef { id: id.to_string(), serial }
    }
}

/// Something a device reported.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(crate) struct EventShape<'a> {
    /// Where it stands in the order of receipt; the `id` of the event stream.
    #[schema(minimum = 1)]
    position: i64,
    /// The device's own identity of the event; null when it sends none.
    #[schema(required = true)]
    id: Option<&'a str>,
    /// Who reported it.
    device: DeviceRef<'a>,
    /// The part of the device; `global` for the device itself.
    #[schema(example = "global")]
    resource: &'a str,
    /// Which of several such parts.
    #[schema(example = "0")]
    index: &'a str,
    /// The functional area.
    area: &'a str,
    /// The event's name.
    #[schema(example = "Smoke")]
    name: &'a str,
    /// The device's time, as sent; the time of receipt when it sends none (flag `no_time`).
    #[schema(format = DateTime)]
    time: String,
    /// When the platform received it.
    #[schema(format = DateTime)]
    received: String,
    /// What the device sent, any JSON.
    #[schema(value_type = serde_json::Value)]
    data: &'a RawValue,
    /// `clock_suspect`: the device's time cannot be right; `no_time`: it sends none; `at_least_once`: it sends
    /// no event id, so a repetition is recognised inside one session only.
    flags: Vec<&'static str>,
}

impl<'a> From<&'a Record> for EventShape<'a> {
    fn from(record: &'a Record) -> EventShape<'a> {
        EventShape {
            position: record.position.get(),
            // That of an amendment is the platform's own business: the device has sent none.
            id: record.id.as_deref().filter(|_| record.kind != RecordKind::Amendment),
            device: DeviceRef::new(record.device, &record.serial),
            resource: &record.path.resource,
            index: &record.path.index,
            area: &record.path.area,
            name: &record.path.name,
            time: rfc3339(record.time),
            received: rfc3339(record.received),
            // The adapter has parsed the text before it was stored.
            data: serde_json::from_str(&record.data).unwrap_or(RawValue::NULL),
            flags: record.flags.names().collect(),
        }
    }
}

/// An attribute as a device reported it once.
#[derive(Serialize, ToSchema)]
#[schema(as = AttributeReport)]
pub(crate) struct ReportShape<'a> {
    /// Where it stands in the order of receipt; the `id` of the stream.
    #[schema(minimum = 1)]
    position: i64,
    /// Who reported it.
    device: DeviceRef<'a>,
    /// The part of the device; `global` for the device itself.
    #[schema(example = "global")]
    resource: &'a str,
    /// Which of several such parts.
    #[schema(example = "0")]
    index: &'a str,
    /// The functional area.
    area: &'a str,
    /// The attribute's name.
    name: &'a str,
    /// The device's time, as sent; the time of receipt when it sends none (flag `no_time`).
    #[schema(format = DateTime)]
    time: String,
    /// When the platform received it.
    #[schema(format = DateTime)]
    received: String,
    /// Any JSON.
    #[schema(value_type = serde_json::Value)]
    value: &'a RawValue,
    /// As of an event.
    flags: Vec<&'static str>,
}

impl<'a> From<&'a Record> for ReportShape<'a> {
    fn from(record: &'a Record) -> ReportShape<'a> {
        let EventShape { position, id: _, device, resource, index, area, name, time, received, data: value, flags } =
            EventShape::from(record);
        ReportShape { position, device, resource, index, area, name, time, received, value, flags }
    }
}

/// One page of events, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct EventList<'a> {
    /// The events.
    pub(crate) items: Vec<EventShape<'a>>,
    /// The cursor of the next page; null on the last.
    #[schema(required = true)]
    pub(crate) next: Option<String>,
}

/// The last connection facts of a device.
#[derive(Serialize, ToSchema)]
pub(crate) struct Why<'a> {
    /// The device.
    pub(crate) device: DeviceRef<'a>,
    /// Whether it is there.
    pub(crate) presence: PresenceShape,
    /// End of the last window in which it may enrol again; null when none was opened.
    #[schema(required = true, format = DateTime)]
    pub(crate) enrol_until: Option<String>,
    /// The last steps and refusals, oldest first; forgotten at a restart.
    pub(crate) facts: Vec<FactShape>,
    /// The last refusal or failure; survives a restart.
    #[schema(required = true)]
    pub(crate) last_failure: Option<FactShape>,
}

impl<'a> From<&'a Device> for Why<'a> {
    fn from(device: &'a Device) -> Why<'a> {
        let until = device.enrol_until();
        Why {
            device: DeviceRef::new(device.id, &device.serial),
            presence: PresenceShape::from(device.presence()),
            enrol_until: (until != 0).then(|| rfc3339(until)),
            facts: device.facts().into_iter().map(FactShape::from).collect(),
            last_failure: device.last_failure().map(FactShape::from),
        }
    }
}

/// One thing that happened on a device's way in.
#[derive(Serialize, ToSchema)]
#[schema(as = Fact)]
pub(crate) struct FactShape {
    /// When; of the latest repetition where `count` is above 1.
    #[schema(format = DateTime)]
    at: String,
    /// `authentication`, `refresh`, `assignment`, `login`, `report`, `operation`, `connection` or `upload`.
    #[schema(value_type = String, example = "login")]
    step: Step,
    /// Whether the step went well.
    ok: bool,
    /// A short code, for programs.
    #[schema(value_type = String)]
    reason: Cow<'static, str>,
    /// What happened and what to do, for people.
    #[schema(value_type = String)]
    text: Cow<'static, str>,
    /// Address the device came from.
    #[schema(required = true)]
    peer: Option<String>,
    /// How often the same happened in a row.
    #[schema(minimum = 1)]
    count: u32,
}

impl From<Fact> for FactShape {
    fn from(fact: Fact) -> FactShape {
        FactShape {
            at: rfc3339(fact.at),
            step: fact.step,
            ok: fact.ok,
            reason: fact.reason,
            text: fact.text,
            peer: fact.peer.map(|peer| peer.to_string()),
            count: fact.count,
        }
    }
}

/// A moment as RFC 3339 in UTC with milliseconds. What lies outside the years -9999 to 9999 (a device may send
/// any number) is shown as the nearest moment inside.
pub(crate) fn rfc3339(ms: i64) -> String {
    let nearest = if ms < 0 { Timestamp::MIN } else { Timestamp::MAX };
    format!("{:.3}", Timestamp::from_millisecond(ms).unwrap_or(nearest))
}

#[cfg(test)]
mod tests;
