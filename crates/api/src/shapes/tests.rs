use super::*;
use vestibule_platform::{DevicePath, Flags, Position, RecordKind};

#[test]
fn moments_have_milliseconds_and_never_fail() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(1_752_000_000_120), "2025-07-08T18:40:00.120Z");
    assert!(rfc3339(i64::MAX).starts_with("9999-12-3"));
    assert!(rfc3339(i64::MIN).starts_with("-009999-01-"));
}

#[test]
fn an_event_embeds_what_the_device_sent() {
    let record = Record {
        position: Position::new(7),
        device: DeviceId::mint(),
        serial: "A".into(),
        kind: RecordKind::Event,
        path: Arc::new(DevicePath {
            resource: "global".into(),
            index: "0".into(),
            area: "Fire".into(),
            name: "Smoke".into(),
        }),
        id: Some("e1".into()),
        time: 1,
        received: 2,
        flags: Flags::CLOCK_SUSPECT,
        data: r#"{"level": 1.50}"#.into(),
    };
    let text = serde_json::to_string(&EventShape::from(&record)).expect("JSON");
    assert!(text.starts_with(r#"{"position":7,"id":"e1","device":{"id":""#), "{text}");
    assert!(
        text.contains(
            r#""resource":"global","index":"0","area":"Fire","name":"Smoke","time":"1970-01-01T00:00:00.001Z""#
        )
    );
    assert!(text.ends_with(r#""data":{"level": 1.50},"flags":["clock_suspect"]}"#), "{text}");
}
