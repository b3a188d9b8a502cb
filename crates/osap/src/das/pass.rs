//! Pass-through: bytes of an application that the platform carries and does not read (the draft's transparent
//! transmission). A ruling of ours, because the wire of the vendor is not known.
//!
//! ```text
//! topic = /iot/<serial>/<sub>/<index>-<resource>/pass/<area>/<name>/report     from the device
//!         /iot/<serial>/<sub>/<index>-<resource>/pass/<area>/<name>/deliver    to it
//! body  = u8 n | media type [n] | bytes
//! ```

use super::topic::{MAX_NAME, Topic, TopicError};
use super::{BodyError, MAX_BODY};

/// The module of the topics.
pub const MODULE: &str = "pass";
/// The message type from the device.
pub const REPORT: &str = "report";
/// The message type to the device.
pub const DELIVER: &str = "deliver";
/// The longest media type, in bytes.
pub const MAX_MEDIA_TYPE: usize = 127;

/// Bytes and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass<'a> {
    /// Media type of RFC 9110 8.3.1, with parameters if there are some; 1 to [`MAX_MEDIA_TYPE`] bytes of ASCII.
    pub media_type: &'a str,
    /// The bytes; with the media type at most [`MAX_BODY`] less one.
    pub bytes: &'a [u8],
}

impl<'a> Pass<'a> {
    /// Reads the application part of a pass-through.
    ///
    /// # Errors
    /// [`BodyError`] when the body is too long or does not begin with a media type.
    pub fn parse(body: &'a [u8]) -> Result<Self, BodyError> {
        if body.len() > MAX_BODY {
            return Err(BodyError::TooLong);
        }
        let (len, rest) = body.split_first().ok_or(BodyError::Missing("media type"))?;
        let (media_type, bytes) = rest.split_at_checked(usize::from(*len)).ok_or(BodyError::Malformed)?;
        let media_type = std::str::from_utf8(media_type).ok().filter(|text| is_media_type(text));
        Ok(Self { media_type: media_type.ok_or(BodyError::Unacceptable("media type"))?, bytes })
    }

    /// Appends the body to `out`.
    ///
    /// # Errors
    /// [`BodyError`] when the media type is none or the whole is too long; `out` is as before then.
    pub fn write(&self, out: &mut Vec<u8>) -> Result<(), BodyError> {
        let len = u8::try_from(self.media_type.len()).ok().filter(|_| is_media_type(self.media_type));
        let len = len.ok_or(BodyError::Unacceptable("media type"))?;
        if 1 + self.media_type.len() + self.bytes.len() > MAX_BODY {
            return Err(BodyError::TooLong);
        }
        out.push(len);
        out.extend_from_slice(self.media_type.as_bytes());
        out.extend_from_slice(self.bytes);
        Ok(())
    }
}

/// The place of a pass-through, borrowed from its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place<'a> {
    /// The device that is connected.
    pub serial: &'a str,
    /// The sub-device it speaks for, or [`super::topic::GLOBAL`].
    pub sub: &'a str,
    /// Which of several resources of the same type; without `-`.
    pub index: &'a str,
    /// Resource type.
    pub resource: &'a str,
    /// Area ("domain").
    pub area: &'a str,
    /// Name ("identifier").
    pub name: &'a str,
    /// [`REPORT`] or [`DELIVER`].
    pub msg_type: &'a str,
}

impl<'a> Place<'a> {
    /// The place a topic names; `None` when it is not one of a pass-through.
    #[must_use]
    pub fn of(topic: &Topic<'a>) -> Option<Self> {
        let &Topic::Module { serial, sub, index, resource, module: MODULE, method, msg_type } = topic else {
            return None;
        };
        let (area, name) = method.split_once('/')?;
        let fits = |level: &str| level.len() <= MAX_NAME && !level.contains('/');
        let known = matches!(msg_type, REPORT | DELIVER) && fits(area) && fits(name);
        known.then_some(Self { serial, sub, index, resource, area, name, msg_type })
    }

    /// The topic of the place.
    ///
    /// # Errors
    /// [`TopicError`] when a level would not survive the way to a device.
    pub fn topic(&self) -> Result<String, TopicError> {
        let &Self { serial, sub, index, resource, area, name, msg_type } = self;
        let method = format!("{area}/{name}");
        let topic = Topic::Module { serial, sub, index, resource, module: MODULE, method: &method, msg_type };
        let text = topic.encode()?;
        if Place::of(&topic) == Some(*self) { Ok(text) } else { Err(TopicError::Form) }
    }
}

/// Whether a text is a media type: `type/subtype` and parameters (RFC 9110 8.3.1), at most [`MAX_MEDIA_TYPE`] bytes.
#[must_use]
pub fn is_media_type(text: &str) -> bool {
    if text.len() > MAX_MEDIA_TYPE {
        return false;
    }
    let Some((kind, rest)) = text.split_once('/') else { return false };
    let end = rest.find(|c| !token_char(c)).unwrap_or(rest.len());
    let (subtype, parameters) = rest.split_at(end);
    token(kind) && token(subtype) && are_parameters(parameters)
}

/// `*( OWS ";" OWS [ name "=" value ] )`
fn are_parameters(mut rest: &str) -> bool {
    while !rest.is_empty() {
        let Some(next) = rest.trim_start_matches([' ', '\t']).strip_prefix(';') else { return false };
        let next = next.trim_start_matches([' ', '\t']);
        if next.is_empty() || next.starts_with(';') {
            rest = next;
            continue;
        }
        let Some((name, value)) = next.split_once('=') else { return false };
        if !token(name) {
            return false;
        }
        let end = match value.strip_prefix('"') {
            Some(quoted) => quoted_end(quoted).map(|end| end + 1),
            None => Some(value.find(|c| !token_char(c)).unwrap_or(value.len())).filter(|end| *end > 0),
        };
        let Some(after) = end.and_then(|end| value.get(end..)) else { return false };
        rest = after;
    }
    true
}

/// The length of a quoted string behind its first quote, its last one included.
fn quoted_end(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'\t' | b' '..=b'~' if escaped => escaped = false,
            b'"' => return Some(at + 1),
            b'\\' => escaped = true,
            b'\t' | b' '..=b'~' => {}
            _ => return None,
        }
    }
    None
}

fn token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(token_char)
}

fn token_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn media_types_are_those_of_the_standard() {
        let long = format!("a/{}", "b".repeat(125));
        for good in [
            "application/octet-stream",
            "text/html;charset=utf-8",
            "text/html; charset=\"utf-8\"",
            "text/html ;\ta=b ; c=\"d \\\" ;/e\"",
            "application/vnd.x+json",
            "a/b;",
            "a/b;;a=b",
            &long,
        ] {
            assert!(is_media_type(good), "{good}");
        }
        let long = format!("a/{}", "b".repeat(126));
        for bad in [
            "",
            "/",
            "a",
            "a/",
            "/b",
            "a b/c",
            "a/b c",
            "a/b;c",
            "a/b;=d",
            "a/b;c=",
            "a/b;c=\"d",
            "a/b;c=\"d\"e",
            "a/b,",
            "a/b;c=d e",
            "é/b",
            "a/b;c=\"é\"",
            "a/b;c=\"\n\"",
            " a/b",
            &long,
        ] {
            assert!(!is_media_type(bad), "{bad}");
        }
    }

    #[test]
    fn a_body_begins_with_its_media_type() {
        let pass = Pass { media_type: "a/b", bytes: b"\0\xff" };
        let mut out = b"x".to_vec();
        pass.write(&mut out).expect("short");
        assert_eq!(out, b"x\x03a/b\0\xff");
        assert_eq!(Pass::parse(&out[1..]), Ok(pass));
        assert_eq!(Pass::parse(b"\x03a/b"), Ok(Pass { media_type: "a/b", bytes: b"" }));
        assert_eq!(Pass::parse(b""), Err(BodyError::Missing("media type")));
        assert_eq!(Pass::parse(b"\x04a/b"), Err(BodyError::Malformed));
        assert_eq!(Pass::parse(b"\0a/b"), Err(BodyError::Unacceptable("media type")));
        assert_eq!(Pass::parse(b"\x03a\xff/"), Err(BodyError::Unacceptable("media type")));
        let bytes = vec![0; MAX_BODY - 4];
        let mut out = Vec::new();
        Pass { media_type: "a/b", bytes: &bytes }.write(&mut out).expect("it just fits");
        assert!(Pass::parse(&out).is_ok());
        out.push(0);
        assert_eq!(Pass::parse(&out), Err(BodyError::TooLong));
        let bytes = vec![0; MAX_BODY - 3];
        let mut out = b"x".to_vec();
        assert_eq!(Pass { media_type: "a/b", bytes: &bytes }.write(&mut out), Err(BodyError::TooLong));
        assert_eq!(Pass { media_type: "a", bytes: b"" }.write(&mut out), Err(BodyError::Unacceptable("media type")));
        assert_eq!(out, b"x");
    }

    #[test]
    fn a_place_is_a_topic_of_the_module() {
        let text = "/iot/SN/SUB1/0-Lamp/pass/Light/Raw/deliver";
        let topic = Topic::parse(text).expect("a topic");
        let place = Place::of(&topic).expect("a place");
        assert_eq!((place.sub, place.area, place.name, place.msg_type), ("SUB1", "Light", "Raw", DELIVER));
        assert_eq!(place.topic().as_deref(), Ok(text));
        for other in [
            "/iot/SN/global/0-Lamp/pass/Light/deliver",
            "/iot/SN/global/0-Lamp/pass/a/b/c/deliver",
            "/iot/SN/global/0-Lamp/pass/Light/Raw/operate",
            "/iot/SN/global/0-Lamp/pass/Light/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx/report",
            "/iot/SN/global/0-Lamp/ota/Light/Raw/report",
            "/iot/SN/global/0-Lamp/model/pass/report/Light/Raw",
            "/1100/1",
        ] {
            assert_eq!(Place::of(&Topic::parse(other).expect("a topic")), None, "{other}");
        }
        assert!(Place { name: "a/b", ..place }.topic().is_err());
        assert!(Place { area: "", ..place }.topic().is_err());
        assert!(Place { area: &"x".repeat(32), ..place }.topic().is_err());
        assert!(Place { msg_type: "set", ..place }.topic().is_err());
    }

    proptest! {
        #[test]
        fn every_body_survives_the_way(
            media_type in "[a-z]{1,20}/[a-z.+-]{1,20}(; ?[a-z]{1,9}=([a-z0-9]{1,9}|\"[ -!#-\\[\\]-~]{0,9}\")){0,2}",
            bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        ) {
            let pass = Pass { media_type: &media_type, bytes: &bytes };
            let mut out = Vec::new();
            pass.write(&mut out).expect("short");
            prop_assert_eq!(Pass::parse(&out), Ok(pass));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Pass::parse(&bytes);
        }
    }
}
