//! What the journal holds: one record for each event, attribute report and operation.

use std::fmt;
use std::sync::Arc;

use crate::DeviceId;

/// The longest event id that is kept as sent, in bytes; a longer one is replaced by its digest.
pub const MAX_EVENT_ID: usize = 255;

/// A place in the journal: our receive order. The first record has 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(i64);

impl Position {
    /// Before everything.
    pub const START: Position = Position(0);

    /// The position with this number; a negative one means [`Position::START`].
    pub const fn new(number: i64) -> Position {
        Position(if number < 0 { 0 } else { number })
    }

    /// The number, 0 for [`Position::START`].
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where in a device something happened: `/{resource}/{index}/{area}/…/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DevicePath {
    /// The resource, `global` for the device itself.
    pub resource: Box<str>,
    /// Which one of the resource, `0` for the device itself.
    pub index: Box<str>,
    /// The functional area.
    pub area: Box<str>,
    /// The name of the event, attribute or operation.
    pub name: Box<str>,
}

/// What a record reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKind {
    /// Something that happened.
    Event,
    /// The value of an attribute.
    Attribute,
    /// How an operation ended: the platform's own record, not the device's.
    Operation,
    /// A message in the device's own format, in either direction, as it went through.
    Pass,
    /// What has become known of an event since: the platform's own record, not the device's.
    Amendment,
}

impl RecordKind {
    /// The name for people and APIs, snake case.
    pub const fn as_str(self) -> &'static str {
        match self {
            RecordKind::Event => "event",
            RecordKind::Attribute => "attribute",
            RecordKind::Operation => "operation",
            RecordKind::Pass => "pass",
            RecordKind::Amendment => "amendment",
        }
    }

    pub(crate) const fn stored(self) -> i16 {
        match self {
            RecordKind::Event => 1,
            RecordKind::Attribute => 2,
            RecordKind::Operation => 3,
            RecordKind::Pass => 4,
            RecordKind::Amendment => 5,
        }
    }

    pub(crate) const fn from_stored(number: i16) -> Option<RecordKind> {
        match number {
            1 => Some(RecordKind::Event),
            2 => Some(RecordKind::Attribute),
            3 => Some(RecordKind::Operation),
            4 => Some(RecordKind::Pass),
            5 => Some(RecordKind::Amendment),
            _ => None,
        }
    }
}

/// What a reader must know of a record besides its values. A set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// Nothing to add.
    pub const NONE: Flags = Flags(0);
    /// The device's time is not to be believed: far ahead of receipt or long ago.
    pub const CLOCK_SUSPECT: Flags = Flags(1);
    /// The device sends no event id, so a repetition after a reconnection shows twice.
    pub const AT_LEAST_ONCE: Flags = Flags(2);
    /// The device sent no time; `time` is the time of receipt.
    pub const NO_TIME: Flags = Flags(4);

    const NAMES: [(Flags, &'static str); 3] =
        [(Flags::CLOCK_SUSPECT, "clock_suspect"), (Flags::AT_LEAST_ONCE, "at_least_once"), (Flags::NO_TIME, "no_time")];

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The names of what is set, snake case.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Flags::NAMES.into_iter().filter(move |(flag, _)| self.contains(*flag)).map(|(_, name)| name)
    }

    pub(crate) const fn stored(self) -> i16 {
        self.0 as i16
    }

    pub(crate) const fn from_stored(number: i16) -> Flags {
        Flags((number & 0xff) as u8)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Flags;

    fn bitor(self, other: Flags) -> Flags {
        self.with(other)
    }
}

impl std::ops::BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Flags) {
        *self = self.with(other);
    }
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place; whatever stands here before [`append`](crate::Journal::append) is overwritten.
    pub position: Position,
    /// The device it came from.
    pub device: DeviceId,
    /// That device's external identity at the time.
    pub serial: Arc<str>,
    /// What it reports.
    pub kind: RecordKind,
    /// Where in the device.
    pub path: Arc<DevicePath>,
    /// The device's own id of the event: (device, id) is journalled once. None: never recognised as a repetition.
    pub id: Option<Box<str>>,
    /// Device time as sent, Unix milliseconds.
    pub time: i64,
    /// Time of receipt, Unix milliseconds.
    pub received: i64,
    /// What to know besides.
    pub flags: Flags,
    /// The value: JSON text.
    pub data: Box<str>,
}

impl Record {
    /// Memory the record occupies while it waits, in bytes. Path and serial count as if nothing shared them.
    pub fn size(&self) -> usize {
        const FIXED: usize = std::mem::size_of::<Record>() + 64;
        let DevicePath { resource, index, area, name } = &*self.path;
        let path: usize = [resource, index, area, name].iter().map(|level| level.len()).sum();
        FIXED + self.serial.len() + path + self.data.len() + self.id.as_ref().map_or(0, |id| id.len())
    }

    /// Makes the record one that every database takes, so that no device can send what would block the journal for all:
    /// PostgreSQL refuses U+0000 in text and index entries above a third of a page.
    pub(crate) fn make_storable(&mut self) {
        if let Some(id) = &mut self.id {
            if id.len() > MAX_EVENT_ID {
                *id = digest_id(id);
            }
            clean(id);
        }
        clean(&mut self.data);
        if self.serial.contains('\0') {
            self.serial = self.serial.replace('\0', REPLACEMENT).into();
        }
        let path = &self.path;
        if [&path.resource, &path.index, &path.area, &path.name].iter().any(|part| part.contains('\0')) {
            let mut path = DevicePath::clone(path);
            clean(&mut path.resource);
            clean(&mut path.index);
            clean(&mut path.area);
            clean(&mut path.name);
            self.path = Arc::new(path);
        }
    }
}

const REPLACEMENT: &str = "\u{fffd}";

fn clean(text: &mut Box<str>) {
    if text.contains('\0') {
        *text = text.replace('\0', REPLACEMENT).into();
    }
}

/// Stands for an id that is too long to be indexed; distinct ids stay distinct.
fn digest_id(id: &str) -> Box<str> {
    use std::fmt::Write as _;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, id.as_bytes());
    let mut text = String::from("sha256-");
    for byte in digest.as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            position: Position::START,
            device: DeviceId::mint(),
            serial: "S-1".into(),
            kind: RecordKind::Event,
            path: Arc::new(DevicePath {
                resource: "global".into(),
                index: "0".into(),
                area: "a".into(),
                name: "n".into(),
            }),
            id: Some("e1".into()),
            time: 1,
            received: 2,
            flags: Flags::NONE,
            data: "{}".into(),
        }
    }

    #[test]
    fn an_ordinary_record_is_storable_as_it_is() {
        let mut made = record();
        let before = made.clone();
        made.make_storable();
        assert_eq!(made, before);
    }

    #[test]
    fn nul_characters_are_replaced_everywhere() {
        let mut made = record();
        made.id = Some("a\0b".into());
        made.serial = "\0".into();
        made.data = "\"\0\"".into();
        made.path = Arc::new(DevicePath { name: "x\0".into(), ..DevicePath::clone(&made.path) });
        made.make_storable();
        assert_eq!(made.id.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(&*made.serial, "\u{fffd}");
        assert_eq!(&*made.data, "\"\u{fffd}\"");
        assert_eq!(&*made.path.name, "x\u{fffd}");
        assert_eq!(&*made.path.area, "a");
    }

    #[test]
    fn ids_too_long_to_index_keep_their_identity() {
        let (mut a, mut b, mut c) = (record(), record(), record());
        a.id = Some("x".repeat(MAX_EVENT_ID + 1).into());
        b.id = a.id.clone();
        c.id = Some(format!("{}y", "x".repeat(MAX_EVENT_ID)).into());
        for made in [&mut a, &mut b, &mut c] {
            made.make_storable();
        }
        assert_eq!(a.id, b.id);
        assert_ne!(a.id, c.id);
        assert!(a.id.is_some_and(|id| id.len() <= MAX_EVENT_ID));
    }

    #[test]
    fn flags_name_themselves() {
        let both = Flags::CLOCK_SUSPECT | Flags::NO_TIME;
        assert_eq!(both.names().collect::<Vec<_>>(), ["clock_suspect", "no_time"]);
        assert_eq!(Flags::from_stored(both.stored()), both);
        assert_eq!(Flags::NONE.names().count(), 0);
    }
}
