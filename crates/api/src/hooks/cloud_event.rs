//! Records as CloudEvents 1.0, structured, in JSON.

use std::borrow::Cow;

use axum::body::Bytes;
use serde::Serialize;
use vestibule_platform::{Flags, Record, RecordKind};

use crate::operations::OperationShape;
use crate::pass::PassedShape;
use crate::shapes::{EventShape, ReportShape, rfc3339};

/// The media type of a delivery.
pub(crate) const MEDIA_TYPE: &str = "application/cloudevents+json";

/// What tells a receiver that it is heard, on demand.
const TEST: &str = "vestibule.webhook.test";

#[derive(Serialize)]
struct CloudEvent<'a, D> {
    specversion: &'static str,
    id: Cow<'a, str>,
    source: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    time: String,
    datacontenttype: &'static str,
    data: D,
}

impl<D: Serialize> CloudEvent<'_, D> {
    fn text(&self) -> Bytes {
        // Shapes are strings, numbers and checked JSON: they always have a JSON text.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// A record. Its `id` is its position, which is never given twice, and its `source` the device: together they name it for
/// ever, so that a receiver drops what it has seen. The data is what the API shows of it.
pub(crate) fn of(record: &Record) -> Bytes {
    match record.kind {
        RecordKind::Event => event(record, "vestibule.device.event", EventShape::from(record)),
        RecordKind::Attribute => event(record, "vestibule.device.attribute", ReportShape::from(record)),
        RecordKind::Operation => event(record, "vestibule.device.operation", OperationShape::from(record)),
        RecordKind::Amendment => event(record, "vestibule.device.amendment", EventShape::from(record)),
        RecordKind::Pass => event(record, "vestibule.device.pass", PassedShape::from(record)),
    }
}

fn event(record: &Record, kind: &'static str, data: impl Serialize) -> Bytes {
    let path = &record.path;
    // A device whose clock was never set may name years that RFC 3339 does not have.
    let time = if record.flags.contains(Flags::CLOCK_SUSPECT) { record.received } else { record.time };
    CloudEvent {
        specversion: "1.0",
        id: record.position.to_string().into(),
        source: format!("urn:uuid:{}", record.device),
        kind,
        subject: Some(format!("{}/{}/{}/{}", path.resource, path.index, path.area, path.name)),
        time: rfc3339(time),
        datacontenttype: "application/json",
        data,
    }
    .text()
}

/// What a test sends.
pub(crate) fn test(id: &str, webhook: uuid::Uuid, now: i64) -> Bytes {
    CloudEvent {
        specversion: "1.0",
        id: id.into(),
        source: format!("urn:uuid:{webhook}"),
        kind: TEST,
        subject: None,
        time: rfc3339(now),
        datacontenttype: "application/json",
        data: serde_json::json!({ "webhook": webhook }),
    }
    .text()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};
    use vestibule_platform::{DeviceId, DevicePath, Position};

    use super::*;

    fn record(kind: RecordKind, data: &str) -> Record {
        Record {
            position: Position::new(7),
            device: DeviceId::from(uuid::Uuid::from_u128(1)),
            serial: "SN-1".into(),
            kind,
            path: Arc::new(DevicePath {
                resource: "Lamp".into(),
                index: "0".into(),
                area: "Alarm".into(),
                name: "Smoke".into(),
            }),
            id: Some("e-1".into()),
            time: 1_767_225_600_000,
            received: 1_767_225_601_000,
            flags: Flags::NONE,
            data: data.into(),
        }
    }

    fn shown(record: &Record) -> Value {
        serde_json::from_slice(&of(record)).expect("JSON")
    }

    #[test]
    fn an_event_is_a_cloud_event() {
        let device = "00000000-0000-0000-0000-000000000001";
        assert_eq!(
            shown(&record(RecordKind::Event, r#"{"level":3}"#)),
            json!({
                "specversion": "1.0", "id": "7", "source": format!("urn:uuid:{device}"),
                "type": "vestibule.device.event", "subject": "Lamp/0/Alarm/Smoke", "time": "2026-01-01T00:00:00.000Z",
                "datacontenttype": "application/json",
                "data": {
                    "position": 7, "id": "e-1", "device": {"id": device, "serial": "SN-1"}, "resource": "Lamp",
                    "index": "0", "area": "Alarm", "name": "Smoke", "time": "2026-01-01T00:00:00.000Z",
                    "received": "2026-01-01T00:00:01.000Z", "data": {"level": 3}, "flags": [],
                },
            })
        );
    }

    #[test]
    fn each_kind_has_a_type_and_the_shape_of_the_api() {
        let attribute = shown(&record(RecordKind::Attribute, "21"));
        assert_eq!(
            (&attribute["type"], &attribute["data"]["value"]),
            (&json!("vestibule.device.attribute"), &json!(21))
        );
        let ended = r#"{"by":"administrator","outcome":"done","took_ms":5}"#;
        let operation = shown(&record(RecordKind::Operation, ended));
        assert_eq!(operation["type"], "vestibule.device.operation");
        assert_eq!(operation["data"]["outcome"], "done");
        let amendment = shown(&record(RecordKind::Amendment, r#"{"amends":{"position":6}}"#));
        assert_eq!(amendment["type"], "vestibule.device.amendment");
        assert_eq!(amendment["data"]["data"]["amends"]["position"], 6);
        assert_eq!(shown(&record(RecordKind::Pass, "{}"))["type"], "vestibule.device.pass");
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_the_time_of_an_event() {
        let mut odd = record(RecordKind::Event, "{}");
        (odd.time, odd.flags) = (i64::MIN, Flags::CLOCK_SUSPECT);
        assert_eq!(shown(&odd)["time"], "2026-01-01T00:00:01.000Z");
    }
}
