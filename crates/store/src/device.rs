//! The identity of a device that is ours.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// The id of a device: a UUIDv7 of ours that never changes and says nothing of the device's family.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(Uuid);

impl DeviceId {
    /// A new id; ids minted later sort later.
    pub fn mint() -> DeviceId {
        DeviceId(Uuid::now_v7())
    }

    /// The 16 bytes as they are stored.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// The id that these 16 stored bytes are; `None` for any other length.
    pub(crate) fn from_stored(bytes: &[u8]) -> Option<DeviceId> {
        Uuid::from_slice(bytes).ok().map(DeviceId)
    }
}

impl From<Uuid> for DeviceId {
    fn from(uuid: Uuid) -> DeviceId {
        DeviceId(uuid)
    }
}

impl From<DeviceId> for Uuid {
    fn from(id: DeviceId) -> Uuid {
        id.0
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for DeviceId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<DeviceId, uuid::Error> {
        text.parse().map(DeviceId)
    }
}
