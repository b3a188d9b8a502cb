//! The answer to an operation or to a written attribute (osap-wire 10.1).
//!
//! Two client libraries answer in two shapes: a number as `code`, or a text `0x…` beside `status`.
//! The platform reads both; it tries the number first.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::{BodyError, object};
use crate::json;

/// The code of a device that gives no reason (osap-wire 10.1, 10.2).
pub const FAILED: i64 = -1;

/// What a device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply<'a> {
    /// 0 is success; anything else is the device's own code.
    pub code: i64,
    /// Words of the device, where it sends some.
    pub message: Option<Cow<'a, str>>,
    /// The output, JSON text of one value; `None` without one.
    pub data: Option<&'a str>,
}

impl<'a> Reply<'a> {
    /// Whether the device did what it was asked.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.code == 0
    }

    /// Reads the application part of a reply in either shape.
    ///
    /// A text code of zero with a `status` other than 200 is a failure under that status: the
    /// library sets both, and only together they mean success.
    ///
    /// # Errors
    /// [`BodyError`] when the body is not one JSON object within the limits or has no usable code.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        let text = object(body)?;
        let (mut code, mut status, mut message, mut data) = (None, None, None, None);
        json::for_each_member(text.as_bytes(), |name, value| match name {
            "code" => code = json::integer(value).or_else(|| hexadecimal(&json::string(value)?)),
            "status" => status = json::integer(value),
            "errorMsg" => message = json::string(value).filter(|words| !words.is_empty()),
            "data" => data = Some(value.get()),
            _ => {}
        })
        .map_err(|_| BodyError::Malformed)?;
        let code = match (code.ok_or(BodyError::Missing("code"))?, status) {
            (0, Some(status)) if status != 200 => status,
            (code, _) => code,
        };
        Ok(Self { code, message, data })
    }

    /// Appends the reply to `out` in the shape of the 2.0.x library: a number as code, `data` only
    /// where there is an output.
    ///
    /// # Errors
    /// [`BodyError`] when `data` is not one JSON value within the limits; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            code: i64,
            #[serde(rename = "errorMsg", skip_serializing_if = "Option::is_none")]
            message: Option<&'a str>,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a RawValue>,
        }
        let data = self.data.map(serde_json::from_str).transpose().map_err(|_| BodyError::Malformed)?;
        append(out, &Shape { code: self.code, message: self.message.as_deref(), data })
    }
}

impl Reply<'_> {
    /// Appends the reply to `out` in the shape that devices know which ask something of the platform: a text code beside a
    /// status (osap-wire 10.1).
    ///
    /// # Errors
    /// [`BodyError`] when `data` is not one JSON value within the limits; `out` is as before then.
    pub fn write_to_device(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        #[derive(Serialize)]
        struct Shape<'a> {
            status: i64,
            code: &'static str,
            #[serde(rename = "errorMsg")]
            message: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            data: Option<&'a RawValue>,
        }
        let data = self.data.map(serde_json::from_str).transpose().map_err(|_| BodyError::Malformed)?;
        let (status, code, otherwise) =
            if self.is_ok() { (200, "0x0", "success") } else { (self.code, "0x1", "failed") };
        append(out, &Shape { status, code, message: self.message.as_deref().unwrap_or(otherwise), data })
    }
}

/// Appends `body` as JSON, unless a receiver would refuse it.
pub(super) fn append(out: &mut Vec<u8>, body: &impl Serialize) -> Result<(), BodyError> {
    let start = out.len();
    serde_json::to_writer(&mut *out, body).map_err(|_| BodyError::Malformed)?;
    let wrong = match object(&out[start..]) {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    out.truncate(start);
    Err(wrong)
}

/// `0x…`; firmware writes the prefix twice at times (osap-wire 10.3).
pub(super) fn hexadecimal(text: &str) -> Option<i64> {
    let mut digits = text.trim();
    while let Some(rest) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        digits = rest;
    }
    let plain = !digits.is_empty() && digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    plain.then(|| i64::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(i64, Option<String>, Option<&str>), BodyError> {
        Reply::parse(text.as_bytes()).map(|reply| (reply.code, reply.message.map(Cow::into_owned), reply.data))
    }

    #[test]
    fn a_device_that_asks_is_answered_in_its_own_shape() {
        let written = |reply: Reply<'_>| {
            let mut out = Vec::new();
            reply.write_to_device(&mut out).expect("written");
            String::from_utf8(out).expect("text")
        };
        let ok = Reply { code: 0, message: None, data: Some(r#"{"Value":7}"#) };
        assert_eq!(written(ok), r#"{"status":200,"code":"0x0","errorMsg":"success","data":{"Value":7}}"#);
        let refused = Reply { code: 404, message: Some("no".into()), data: None };
        assert_eq!(written(refused), r#"{"status":404,"code":"0x1","errorMsg":"no"}"#);
    }

    #[test]
    fn both_libraries_are_understood() {
        assert_eq!(parse(r#"{"code":0,"data":{"done":true}}"#), Ok((0, None, Some(r#"{"done":true}"#))));
        assert_eq!(parse(r#"{"code":-1}"#), Ok((FAILED, None, None)));
        let long = r#"{"status":200,"code":"0x0","errorMsg":"success","data":{"Value":3}}"#;
        assert_eq!(parse(long), Ok((0, Some("success".to_owned()), Some(r#"{"Value":3}"#))));
        assert_eq!(parse(r#"{"code":"0x0050003A"}"#), Ok((0x0050_003A, None, None)));
        assert_eq!(parse(r#"{"code":"0x0xffffffff","errorMsg":""}"#), Ok((0xffff_ffff, None, None)));
    }

    #[test]
    fn success_needs_code_and_status_to_agree() {
        assert_eq!(parse(r#"{"status":500,"code":"0x0"}"#).map(|reply| reply.0), Ok(500));
        assert_eq!(parse(r#"{"status":500,"code":"0x7"}"#).map(|reply| reply.0), Ok(7));
    }

    #[test]
    fn a_reply_without_a_usable_code_is_none() {
        for bad in
            ["{}", r#"{"code":null}"#, r#"{"code":"fine"}"#, r#"{"code":"0x"}"#, r#"{"code":"0x123456789"}"#, "[0]", ""]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let replies = [
            Reply { code: 0, message: None, data: None },
            Reply { code: 0, message: None, data: Some("[1,{\"a\":null}]") },
            Reply { code: -7, message: Some("it is \"stuck\"".into()), data: None },
        ];
        for reply in replies {
            let mut out = b"before".to_vec();
            reply.write(&mut out).expect("valid");
            assert_eq!(Reply::parse(&out[6..]), Ok(reply));
        }
        let mut out = b"before".to_vec();
        assert!(Reply { code: 0, message: None, data: Some("1,2") }.write(&mut out).is_err());
        assert_eq!(out, b"before");
    }
}
