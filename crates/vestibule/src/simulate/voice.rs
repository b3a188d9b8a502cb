//! Who reports: a device, or a child of one. What they report is the same.

use serde_json::Value;
use vestibule_device::{Child, Device, Receipt, ReportError};

use super::profile::{Place, Reading};

/// Who reports something.
pub(crate) enum Voice {
    Device(Device),
    Child(Child),
}

impl Voice {
    /// Its serial.
    pub(crate) fn serial(&self) -> &str {
        match self {
            Voice::Device(device) => device.serial().as_str(),
            Voice::Child(child) => child.serial(),
        }
    }

    /// Reports an event, and waits until it is safe.
    pub(crate) async fn event(&self, place: Place, data: &Value) -> Result<Receipt, ReportError> {
        let Place { resource, index, area, name } = place;
        let event = match self {
            Voice::Device(device) => device.event(resource, index, area, name),
            Voice::Child(child) => child.event(resource, index, area, name),
        };
        event.report(data).await
    }

    /// Reports what an attribute is, and waits for its acknowledgement.
    pub(crate) async fn attribute(&self, Reading { place, value }: &Reading) -> Result<(), ReportError> {
        let Place { resource, index, area, name } = *place;
        let attribute = match self {
            Voice::Device(device) => device.attribute(resource, index, area, name),
            Voice::Child(child) => child.attribute(resource, index, area, name),
        };
        attribute.report(value).await
    }
}
