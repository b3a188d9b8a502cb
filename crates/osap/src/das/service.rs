//! The body of an operation (osap-wire 10.1); the wire calls it service.

use serde::Serialize;
use serde_json::value::RawValue;

use super::reply::append;
use super::{BodyError, object};
use crate::json;

/// An operation to be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Operate<'a> {
    /// The input, JSON text of one value; `None` where the operation was sent without one.
    pub input: Option<&'a str>,
    /// For how many milliseconds after its arrival the operation may still be begun. Our own
    /// devices are told; the vendor's know no such member.
    pub ttl_ms: Option<u64>,
}

impl<'a> Operate<'a> {
    /// Reads the application part of an operation. An empty one, or one without `data`, is an
    /// operation without input; when `data` has a member `Value`, that is the input.
    ///
    /// # Errors
    /// [`BodyError`] when the body is neither empty nor one JSON object within the limits.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        if body.is_empty() {
            return Ok(Self { input: None, ttl_ms: None });
        }
        let text = object(body)?;
        let (mut input, mut ttl_ms) = (None, None);
        json::for_each_member(text.as_bytes(), |name, value| match name {
            "data" => input = Some(value.get()),
            "ttl_ms" => ttl_ms = serde_json::from_str(value.get()).ok(),
            _ => {}
        })
        .map_err(|_| BodyError::Malformed)?;
        Ok(Self { input: input.map(unwrapped), ttl_ms })
    }

    /// Appends the operation to `out`.
    ///
    /// An input that is an object with a member `Value` is put into a `Value` of its own: the device
    /// would take the member for the whole.
    ///
    /// # Errors
    /// [`BodyError`] when the input is not one JSON value within the limits; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<Data<'a>>,
            #[serde(skip_serializing_if = "Option::is_none")]
            ttl_ms: Option<u64>,
        }
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Data<'a> {
            Plain(&'a RawValue),
            Wrapped {
                #[serde(rename = "Value")]
                value: &'a RawValue,
            },
        }
        let input: Option<&RawValue> =
            self.input.map(serde_json::from_str).transpose().map_err(|_| BodyError::Malformed)?;
        let data = input.map(|value| match unwrapped(value.get()).len() == value.get().len() {
            true => Data::Plain(value),
            false => Data::Wrapped { value },
        });
        append(out, &Shape { data, ttl_ms: self.ttl_ms })
    }
}

/// The member `Value` of an object that has one, otherwise the value itself.
fn unwrapped(data: &str) -> &str {
    let mut value = data;
    // Not an object: that is the input.
    let _ = json::for_each_member(data.as_bytes(), |name, member| {
        if name == "Value" {
            value = member.get();
        }
    });
    value
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_input_may_be_missing_plain_or_wrapped() {
        let input = |body: &'static str| Operate::parse(body.as_bytes()).map(|operate| operate.input);
        assert_eq!(input(""), Ok(None));
        assert_eq!(input("{}"), Ok(None));
        assert_eq!(input(r#"{"data":{"count":3}}"#), Ok(Some(r#"{"count":3}"#)));
        assert_eq!(input(r#"{"data":{"Value":3}}"#), Ok(Some("3")));
        assert_eq!(input(r#"{"data":7}"#), Ok(Some("7")));
        for bad in ["7", "[]", "{", "\u{0}"] {
            assert!(input(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_body_of_the_vectors_is_written() {
        let mut out = Vec::new();
        Operate { input: Some(r#"{"count":3}"#), ttl_ms: None }.write(&mut out).expect("valid");
        assert_eq!(out, br#"{"data":{"count":3}}"#);
    }

    proptest! {
        #[test]
        fn every_input_survives_the_way(
            input in prop_oneof![
                Just(None),
                any::<i64>().prop_map(|n| Some(n.to_string())),
                any::<i64>().prop_map(|n| Some(format!(r#"{{"Value":{n}}}"#))),
                any::<i64>().prop_map(|n| Some(format!(r#"{{"Value":{{"Value":{n}}},"x":[]}}"#))),
                ".*".prop_map(|text| Some(serde_json::to_string(&text).expect("a string"))),
            ],
            ttl_ms in any::<Option<u64>>(),
        ) {
            let operate = Operate { input: input.as_deref(), ttl_ms };
            let mut out = Vec::new();
            operate.write(&mut out).expect("valid");
            prop_assert_eq!(Operate::parse(&out), Ok(operate));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Operate::parse(&bytes);
            let _ = super::super::reply::Reply::parse(&bytes);
        }
    }
}
