//! Walking the members of a JSON object.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The text is not a JSON object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotAnObject;

/// Calls `member` with the name and the raw value of every member of the object `text`, in their
/// order and with repetitions: device firmware repeats names (osap-wire 9.2).
pub(crate) fn for_each_member<'a>(text: &'a [u8], member: impl FnMut(&str, &'a RawValue)) -> Result<(), NotAnObject> {
    struct Walk<F>(F);

    impl<'de, F: FnMut(&str, &'de RawValue)> Visitor<'de> for Walk<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(Name(name)) = map.next_key::<Name<'de>>()? {
                let value: &'de RawValue = map.next_value().map_err(A::Error::custom)?;
                (self.0)(&name, value);
            }
            Ok(())
        }
    }

    let mut parser = serde_json::Deserializer::from_slice(text);
    parser.deserialize_map(Walk(member)).map_err(|_| NotAnObject)?;
    parser.end().map_err(|_| NotAnObject)
}

/// A member name, borrowed unless it contains an escape.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

/// The text of a JSON string value, or `None` for any other value.
pub(crate) fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(value.get()).ok().map(|name| name.0)
}

/// A JSON integer, or `None` for any other value.
pub(crate) fn integer(value: &RawValue) -> Option<i64> {
    serde_json::from_str(value.get()).ok()
}

/// How deeply arrays and objects nest in a text that is known to be JSON.
pub(crate) fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Vec<(String, String)>, NotAnObject> {
        let mut found = Vec::new();
        for_each_member(text.as_bytes(), |name, value| {
            found.push((name.to_owned(), value.get().to_owned()));
        })?;
        Ok(found)
    }

    #[test]
    fn members_come_in_order_and_may_repeat() {
        let found = members(r#" {"a":1, "\u0062":[{}], "a" : "x"} "#).unwrap();
        let expected = [("a", "1"), ("b", "[{}]"), ("a", "\"x\"")];
        assert_eq!(found, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn anything_but_one_object_is_refused() {
        for bad in ["", "[]", "1", "{", "{}x", "{\"a\"}", "{\"a\":}", "{1:2}", "null", "{\"a\":1,}"] {
            assert_eq!(members(bad), Err(NotAnObject), "{bad}");
        }
        assert!(for_each_member(b"{\"a\":\"\xff\"}", |_, _| {}).is_err());
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        for (json, expected) in [("1", 0), ("{}", 1), (r#"{"[[":"]{\"["}"#, 1), ("[[],[[]]]", 3)] {
            assert_eq!(depth(json), expected, "{json}");
        }
    }

    #[test]
    fn deep_nesting_does_not_exhaust_the_stack() {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        if let Ok(found) = members(&text) {
            assert_eq!(depth(&found[0].1), 100_000);
        }
    }
}
