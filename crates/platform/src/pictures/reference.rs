//! Pictures in the data of an event: where they are named, and how the data reads once their standing is known.

use std::collections::HashMap;
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;
use uuid::Uuid;

/// Pictures of one event that are looked at.
const MOST: usize = 16;

/// A picture that an event names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    pub(super) id: Uuid,
    /// Where in the text it is named.
    place: Range<usize>,
}

/// As a device names a picture: nothing but this, or it is something else that has an id.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named<'a> {
    id: &'a str,
    #[serde(rename = "url")]
    _url: Option<IgnoredAny>,
    #[serde(rename = "w")]
    _width: Option<IgnoredAny>,
    #[serde(rename = "h")]
    _height: Option<IgnoredAny>,
}

/// The pictures that this data names, in members of the object and in lists that are members, in the order of the text.
pub(super) fn references(data: &str) -> Vec<Reference> {
    // Nearly every event ends here.
    if !data.contains("\"id\"") {
        return Vec::new();
    }
    let members: HashMap<String, &RawValue> = serde_json::from_str(data).unwrap_or_default();
    let mut found: Vec<Reference> = Vec::new();
    for value in members.into_values() {
        if value.get().starts_with('[') {
            let elements: Vec<&RawValue> = serde_json::from_str(value.get()).unwrap_or_default();
            found.extend(elements.into_iter().filter_map(|element| reference(data, element)));
        } else {
            found.extend(reference(data, value));
        }
    }
    found.sort_unstable_by_key(|reference| reference.place.start);
    found.truncate(MOST);
    found
}

fn reference(data: &str, value: &RawValue) -> Option<Reference> {
    let text = value.get();
    let named: Named<'_> = text.starts_with('{').then(|| serde_json::from_str(text).ok())??;
    let id = Uuid::try_parse(named.id).ok().filter(|id| id.hyphenated().to_string() == named.id)?;
    // The value borrows from the data.
    let start = (text.as_ptr() as usize).checked_sub(data.as_ptr() as usize)?;
    let place = start..start + text.len();
    (data.get(place.clone()) == Some(text)).then_some(Reference { id, place })
}

/// How a picture stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It has not arrived.
    Pending,
    /// It is here, with width and height.
    Here(Option<(u32, u32)>),
    /// It had its time, or never came: nothing is said of it.
    Gone,
}

/// The data with the standing of its pictures.
pub(super) fn rewritten(data: &str, references: &[Reference], standing: impl Fn(Uuid) -> Standing) -> String {
    let mut text = String::with_capacity(data.len() + references.len() * 64);
    let mut end = 0;
    for Reference { id, place } in references {
        text.push_str(&data[end..place.start]);
        let named = &data[place.clone()];
        match standing(*id) {
            Standing::Here(size) => {
                let mut picture = json!({"id": id, "url": super::path(*id)});
                if let Some((width, height)) = size {
                    (picture["w"], picture["h"]) = (width.into(), height.into());
                }
                text.push_str(&picture.to_string());
            }
            Standing::Pending => {
                text.push_str(named.strip_suffix('}').unwrap_or(named));
                text.push_str(",\"pending\":true}");
            }
            Standing::Gone => text.push_str(named),
        }
        end = place.end;
    }
    text.push_str(&data[end..]);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0001);

    fn ids(data: &str) -> Vec<Uuid> {
        references(data).into_iter().map(|reference| reference.id).collect()
    }

    #[test]
    fn a_picture_is_named_by_its_shape() {
        for named in [
            format!(r#"{{"shot":{{"id":"{ID}"}}}}"#),
            format!(r#"{{ "level": 3, "shot" : {{ "id" : "{ID}", "w": 640, "h": 480 }}, "basic": {{"UUID": "x"}} }}"#),
            format!(r#"{{"shots":[{{"id":"{ID}","url":"/x"}}]}}"#),
        ] {
            assert_eq!(ids(&named), [ID], "{named}");
        }
        for other in [
            format!(r#"{{"id":"{ID}"}}"#),
            format!(r#"{{"holder":{{"id":"{ID}","name":"x"}}}}"#),
            format!(r#"{{"a":{{"b":{{"id":"{ID}"}}}}}}"#),
            format!(r#"{{"shot":{{"id":"{}"}}}}"#, ID.simple()),
            format!(r#"[{{"id":"{ID}"}}]"#),
            r#"{"shot":{"id":7}}"#.to_owned(),
            r#"{"shot":{"id":"door"}}"#.to_owned(),
            r#""\"id\"""#.to_owned(),
        ] {
            assert!(ids(&other).is_empty(), "{other}");
        }
        let many: Vec<_> = (0..40).map(|_| format!(r#"{{"id":"{ID}"}}"#)).collect();
        assert_eq!(ids(&format!(r#"{{"shots":[{}]}}"#, many.join(","))).len(), MOST);
    }

    #[test]
    fn the_standing_is_added_and_the_rest_is_as_it_was_sent() {
        let second = Uuid::from_u128(2);
        let data = format!(
            r#"{{"n": 1.10, "shot": {{"id":"{ID}","w":1}}, "also":[{{"id":"{second}"}}, 18446744073709551616],"z":"é"}}"#
        );
        let found = references(&data);
        let other = |standing| {
            rewritten(&data, &found, |id| if id == ID { Standing::Here(Some((640, 480))) } else { standing })
        };
        assert_eq!(
            other(Standing::Pending),
            format!(
                r#"{{"n": 1.10, "shot": {{"h":480,"id":"{ID}","url":"/media/v1/picture/{ID}","w":640}}, "also":[{{"id":"{second}","pending":true}}, 18446744073709551616],"z":"é"}}"#
            )
        );
        assert!(!other(Standing::Gone).contains("pending"), "nobody waits for it any more");
        assert_eq!(rewritten(&data, &found, |_| Standing::Gone), data);
    }
}
