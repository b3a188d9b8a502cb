//! What the API shows, in words for people.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use super::table::Table;
use crate::client::Followed;

/// Replaces what could steer a terminal or fake another line: control characters (C0, DEL, C1) and the marks that turn the direction of text.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    let steers = |c: char| {
        c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if text.contains(steers) { Cow::Owned(text.replace(steers, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// A member as text: nothing for null or a missing one, JSON for what has parts.
pub(super) fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// A member as a time, RFC 3339: the API gives text, or milliseconds since 1970.
pub(super) fn time(value: &Value, pointer: &str) -> String {
    let ms = value.pointer(pointer).and_then(Value::as_i64);
    match ms.map(Timestamp::from_millisecond) {
        Some(Ok(time)) => time.to_string(),
        _ => text(value, pointer),
    }
}

/// The suite of a device. The platform gives what is not confidential a label that says so, which shows in its place.
pub(super) fn suite(device: &Value) -> String {
    let label = text(device, "/security");
    if label.is_empty() { text(device, "/suite") } else { label }
}

/// What is open to a device, in words; nothing where the platform does not say.
pub(super) fn suites(device: &Value) -> String {
    let suites = &device["suites"];
    if !suites.is_object() {
        return String::new();
    }
    let state = |name: &str| if suites[name] == true { "open" } else { "closed" };
    let certificate = if suites["certificate_demanded"] == true { "demanded" } else { "not demanded" };
    format!("legacy suites {}, plain TCP {}, certificate {certificate}", state("legacy"), state("plain"))
}

/// Presence: `online`, `never seen`.
pub(super) fn state(device: &Value) -> String {
    text(device, "/presence/state").replace('_', " ")
}

/// Why the presence is what it is, in brackets after a space; nothing where that only says the state again.
pub(super) fn reason(device: &Value) -> String {
    match text(device, "/presence/reason") {
        reason if reason.is_empty() || reason == text(device, "/presence/state") => String::new(),
        reason => format!(" ({})", reason.replace('_', " ")),
    }
}

/// Presence in words: `offline since 2026-01-01T00:00:00Z (keep alive)`.
pub(super) fn presence(device: &Value) -> String {
    let since = match time(device, "/presence/since") {
        since if since.is_empty() => since,
        since => format!(" since {since}"),
    };
    printable(&format!("{}{since}{}", state(device), reason(device))).into_owned()
}

/// One line for one event: when, who, what, and with which data.
pub(super) fn event(event: &Value) -> String {
    report(event, "  ", "/data")
}

/// One line for what has become known of an event: when, who, which event, and the picture that has arrived.
pub(super) fn amendment(amendment: &Value) -> String {
    let place: Vec<String> =
        ["/resource", "/index", "/area", "/name"].iter().map(|member| text(amendment, member)).collect();
    let of = |member: &str| text(amendment, &format!("/data{member}"));
    let event = match of("/amends/id") {
        id if id.is_empty() => format!("event at position {}", of("/amends/position")),
        id => format!("event {id} (position {})", of("/amends/position")),
    };
    let picture = format!(
        "picture {} has arrived, {}, {} bytes, {}",
        of("/picture/id"),
        of("/picture/type"),
        of("/picture/bytes"),
        of("/picture/url")
    );
    let (at, who) = (time(amendment, "/time"), text(amendment, "/device/serial"));
    printable(&format!("{at}  {who}  {}  {event}: {picture}", place.join("/"))).into_owned()
}

/// One line for one attribute as it was reported: when, who, which, and its value.
pub(super) fn attribute(attribute: &Value) -> String {
    report(attribute, " = ", "/value")
}

fn report(event: &Value, between: &str, value: &str) -> String {
    let place: Vec<String> =
        ["/resource", "/index", "/area", "/name"].iter().map(|member| text(event, member)).collect();
    let mut line = format!(
        "{}  {}  {}{between}{}",
        time(event, "/time"),
        text(event, "/device/serial"),
        place.join("/"),
        text(event, value)
    );
    let flags: Vec<&str> =
        event.pointer("/flags").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    if !flags.is_empty() {
        line.push_str(&format!("  [{}]", flags.join(", ")));
    }
    printable(&line).into_owned()
}

/// What happened to a stream itself, for standard error.
pub(super) fn notice(followed: &Followed) -> Option<String> {
    match followed {
        Followed::Missed { resume } => {
            Some(format!("what was reported up to position {resume} is gone (retention); going on after it"))
        }
        Followed::Reconnected => Some("connected again".to_owned()),
        Followed::Lost { reason, pause } => Some(format!("{reason}; trying again in {} s", pause.as_secs())),
        _ => None,
    }
}

/// Devices as a table.
pub(super) fn devices<'a>(devices: impl IntoIterator<Item = &'a Value>) -> Table {
    let mut table = Table::new(&["SERIAL", "NAME", "PRODUCT", "PRESENCE", "SINCE", "SUITE", "ID"]);
    for device in devices {
        table.row([
            text(device, "/serial"),
            text(device, "/name"),
            text(device, "/product"),
            state(device),
            time(device, "/presence/since"),
            suite(device),
            text(device, "/id"),
        ]);
    }
    table
}

/// All members of a device, the ones people look for first.
pub(super) fn device(device: &Value) -> Vec<(String, String)> {
    let mut members: Vec<(String, String)> = ["serial", "id", "name", "product", "family"]
        .into_iter()
        .map(|name| (name.to_owned(), text(device, &format!("/{name}"))))
        .collect();
    members.push(("presence".to_owned(), presence(device)));
    members.push(("suite".to_owned(), suite(device)));
    members.push(("suites".to_owned(), suites(device)));
    let code = &device["code"];
    let code = match code["one_time"].as_bool() {
        Some(true) if code["spent"].is_string() => format!("one-time, spent at {}", text(code, "/spent")),
        Some(true) => "one-time".to_owned(),
        // It says nothing that is not so of most.
        _ => String::new(),
    };
    members.push(("code".to_owned(), code));
    for (name, value) in device.as_object().into_iter().flatten() {
        // The label of the suite says these.
        let said = matches!(name.as_str(), "security" | "confidential");
        if !said && !members.iter().any(|(known, _)| known == name) {
            let shown = match value {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                Value::Number(_) if matches!(name.as_str(), "created" | "enrol_until") => {
                    time(device, &format!("/{name}"))
                }
                other => other.to_string(),
            };
            members.push((name.clone(), shown));
        }
    }
    members.retain(|(_, value)| !value.is_empty());
    members.iter_mut().for_each(|(_, value)| *value = printable(value).into_owned());
    members
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_is_one_harmless_line() {
        let shown = event(&json!({
            "position": 7, "id": "e1", "device": {"id": "d", "serial": "SN-1"}, "resource": "door", "index": "0", "area": "alarm",
            "name": "opened", "time": "2026-01-02T03:04:05Z", "received": "x", "data": {"by": "\u{1b}]0;pwned\u{7}\u{9b}"},
            "flags": ["clock_suspect", "at_least_once"]
        }));
        assert_eq!(
            shown,
            "2026-01-02T03:04:05Z  SN-1  door/0/alarm/opened  {\"by\":\"\\u001b]0;pwned\\u0007\u{fffd}\"}  [clock_suspect, at_least_once]"
        );
    }

    #[test]
    fn an_attribute_is_a_line_that_says_its_value() {
        let shown = attribute(&json!({
            "position": 7, "device": {"id": "d", "serial": "SN-1"}, "resource": "Lamp", "index": "0", "area": "Light",
            "name": "Power", "time": "2026-01-02T03:04:05Z", "received": "x", "value": true, "flags": []
        }));
        assert_eq!(shown, "2026-01-02T03:04:05Z  SN-1  Lamp/0/Light/Power = true");
    }

    #[test]
    fn times_are_rfc_3339_from_either_notation() {
        let value = json!({"ms": 1_767_225_600_000_i64, "text": "2026-01-01T00:00:00Z", "none": null});
        assert_eq!(time(&value, "/ms"), "2026-01-01T00:00:00Z");
        assert_eq!(time(&value, "/text"), "2026-01-01T00:00:00Z");
        assert_eq!(time(&value, "/none"), "");
    }

    #[test]
    fn a_device_shows_what_people_look_for_first_and_leaves_nothing_out() {
        let shown = device(&json!({
            "id": "d", "family": "osap", "serial": "SN-1", "product": null, "suite": "legacy", "confidential": false,
            "security": "legacy, not confidential", "parent": null, "zone": "north",
            "suites": {"legacy": true, "plain": false, "certificate": "product", "certificate_demanded": true},
            "presence": {"state": "never_seen", "since": null, "reason": "never_seen"}
        }));
        let shown: Vec<(&str, &str)> = shown.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            shown,
            [
                ("serial", "SN-1"),
                ("id", "d"),
                ("family", "osap"),
                ("presence", "never seen"),
                ("suite", "legacy, not confidential"),
                ("suites", "legacy suites open, plain TCP closed, certificate demanded"),
                ("zone", "north")
            ]
        );
    }

    #[test]
    fn presence_is_a_sentence() {
        let offline =
            json!({"presence": {"state": "offline", "since": "2026-01-01T00:00:00Z", "reason": "keep_alive"}});
        assert_eq!(presence(&offline), "offline since 2026-01-01T00:00:00Z (keep alive)");
    }
}
