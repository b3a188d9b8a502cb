//! A place in the organisation, in a body or a query.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vestibule_platform::OrgPath;

/// A place in the organisation: `/`, or parts of 1 to 64 bytes with a `/` before each.
pub(crate) struct OrgParam(pub(crate) OrgPath);

impl<'de> Deserialize<'de> for OrgParam {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<OrgParam, D::Error> {
        let text = String::deserialize(deserializer)?;
        OrgPath::parse(&text).map(OrgParam).map_err(|error| D::Error::custom(error.reason()))
    }
}

impl Serialize for OrgParam {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_str().serialize(serializer)
    }
}
