//! Pass-through: bytes that an application and the program exchange, and the platform carries.

use osap::Serial;
use osap::das::BodyError;
use osap::das::pass::{Pass, Place, REPORT};
use osap::das::topic::GLOBAL;

use crate::attribute::Message;
use crate::event::{InvalidEvent, MAX_EVENT};
use crate::operation::OperationPath;

/// What an application sent to the device or to one of its children.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PassThrough {
    /// The serial of the child it is for; `None` for the device itself.
    pub child: Option<String>,
    /// Resource type.
    pub resource: String,
    /// Which of several resources of the same type.
    pub index: String,
    /// Area.
    pub area: String,
    /// Name.
    pub name: String,
    /// What the bytes are, a media type of RFC 9110.
    pub media_type: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl PassThrough {
    /// Reads what came in at that place.
    pub(crate) fn parse(place: &Place<'_>, body: &[u8]) -> Option<Self> {
        let Pass { media_type, bytes } = Pass::parse(body).ok()?;
        Some(Self {
            child: (place.sub != GLOBAL).then(|| place.sub.to_owned()),
            resource: place.resource.to_owned(),
            index: place.index.to_owned(),
            area: place.area.to_owned(),
            name: place.name.to_owned(),
            media_type: media_type.to_owned(),
            bytes: bytes.to_vec(),
        })
    }
}

/// What goes out to an application.
pub(crate) fn message(
    serial: &Serial,
    path: &OperationPath,
    media_type: &str,
    bytes: &[u8],
) -> Result<Message, InvalidEvent> {
    let OperationPath { sub, resource, index, area, name } = path;
    let place = Place { serial: serial.as_str(), sub, index, resource, area, name, msg_type: REPORT };
    let topic = place.topic()?.into();
    let mut body = Vec::new();
    match (Pass { media_type, bytes }).write(&mut body) {
        Ok(()) if body.len() <= MAX_EVENT => Ok(Message { topic, body: body.into() }),
        Ok(()) | Err(BodyError::TooLong) => Err(InvalidEvent::TooLarge(1 + media_type.len() + bytes.len())),
        Err(BodyError::Unacceptable(_)) => Err(InvalidEvent::MediaType),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_passed_is_the_programs_error() {
        let serial = Serial::new("SN0000001").expect("a serial");
        let path = |area: &str| OperationPath::new("SUB1", "Lamp", 0, area, "Raw");
        let passed = message(&serial, &path("Light"), "a/b", b"\0").expect("valid");
        assert_eq!(&*passed.topic, "/iot/SN0000001/SUB1/0-Lamp/pass/Light/Raw/report");
        assert_eq!(&*passed.body, b"\x03a/b\0");
        assert!(matches!(message(&serial, &path("Light"), "text", b""), Err(InvalidEvent::MediaType)));
        assert!(matches!(message(&serial, &path("a/b"), "a/b", b""), Err(InvalidEvent::Path(_))));
        let long = vec![0; MAX_EVENT - 3];
        assert!(matches!(message(&serial, &path("Light"), "a/b", &long), Err(InvalidEvent::TooLarge(_))));
        assert!(message(&serial, &path("Light"), "a/b", &long[1..]).is_ok());
    }
}
