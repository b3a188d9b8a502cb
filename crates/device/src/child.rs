//! Children: what a hub speaks for (osap-wire 10.6).

use std::fmt;
use std::sync::Arc;

use osap::das::hub::{AccessMode, ChildProof, MAX_WORD};
use osap::das::topic::{TopicError, is_child};
use osap::id::SerialError;
use osap::key::CodeError;
use osap::{Code, Serial};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::device::{Attribute, Device, Event};
use crate::event::ReportError;
use crate::hub::Entry;
use crate::operation::{OperationError, OperationPath, Operations};
use crate::pass::PassThrough;

/// What the platform thinks of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChildState {
    /// It has not been asked, or has not answered yet. What the child reports is held back.
    Waiting,
    /// It accepts the child: what the child reports reaches it.
    Accepted,
    /// It does not. It is not asked again before [`Child::retry`].
    Refused,
    /// [`Device::remove_child`] took the child away.
    Gone,
}

/// Why a child cannot be added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChildError {
    /// The serial is not one.
    #[error("the serial of the child is not valid")]
    Serial(#[from] SerialError),
    /// `global` means the device itself.
    #[error("no child can be called global")]
    Global,
    /// The verification code is not one.
    #[error("the verification code of the child is not valid")]
    Code(#[from] CodeError),
    /// The product or the version is longer than 64 bytes.
    #[error("the product and the version of a child have up to 64 bytes")]
    Text,
    /// The resource, area or name of an operation or attribute does not fit into a topic.
    #[error("the operation or attribute {name} of the child cannot be addressed")]
    Operation {
        /// `resource/index/area/name`.
        name: String,
        /// What is wrong with it.
        source: TopicError,
    },
    /// There is a child of that serial.
    #[error("the device has this child already")]
    Exists,
    /// A hub has up to 64 children.
    #[error("a hub has up to {0} children")]
    Full(usize),
}

/// Configures a child of a hub. Made by [`Child::builder`], taken by [`Builder::child`](crate::Builder::child) and
/// [`Device::add_child`].
pub struct ChildBuilder {
    serial: String,
    code: Zeroizing<String>,
    mode: AccessMode,
    product: String,
    version: String,
    connected: bool,
    operations: Operations,
}

impl ChildBuilder {
    /// The product the child is one of, up to 64 bytes.
    #[must_use]
    pub fn product(mut self, product: impl Into<String>) -> Self {
        self.product = product.into();
        self
    }

    /// Its firmware version, up to 64 bytes.
    #[must_use]
    pub fn version(mut self, version: impl Into<String>) -> Self {
        self.version = version.into();
        self
    }

    /// Whether the hub reaches the child from the start; it does unless this says otherwise.
    #[must_use]
    pub fn connected(mut self, connected: bool) -> Self {
        self.connected = connected;
        self
    }

    /// The serial is `type:name` and the code a licence (osap-wire 2, auth mode 1).
    #[must_use]
    pub fn licensed(mut self) -> Self {
        self.mode = AccessMode::Licence;
        self
    }

    /// Carries out an operation of the child. As [`Builder::operation`](crate::Builder::operation); the bounds are
    /// shared with the device and its other children.
    #[must_use]
    pub fn operation<In, Out, F, Fut>(mut self, resource: &str, index: u16, area: &str, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        Out: Serialize + 'static,
        F: Fn(In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Out, OperationError>> + Send + 'static,
    {
        let path = OperationPath::new(&self.serial, resource, index, area, name);
        self.operations.add(path, handler);
        self
    }

    /// Lets the platform set an attribute of the child. As [`Builder::attribute`](crate::Builder::attribute).
    #[must_use]
    pub fn attribute<In, F, Fut>(mut self, resource: &str, index: u16, area: &str, name: &str, handler: F) -> Self
    where
        In: DeserializeOwned + Send + 'static,
        F: Fn(In) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), OperationError>> + Send + 'static,
    {
        let path = OperationPath::new(&self.serial, resource, index, area, name);
        self.operations.add_attribute(path, handler);
        self
    }

    /// Takes what an application sends to the child. As [`Builder::on_pass`](crate::Builder::on_pass).
    #[must_use]
    pub fn on_pass(mut self, handler: impl Fn(PassThrough) + Send + Sync + 'static) -> Self {
        self.operations.set_pass(handler);
        self
    }

    pub(crate) fn serial(&self) -> &str {
        &self.serial
    }

    /// Checks it, for a hub of this serial.
    pub(crate) fn build(self, hub: &Serial) -> Result<(Box<str>, Entry), ChildError> {
        let serial = Serial::new(&self.serial)?;
        if !is_child(serial.as_str()) {
            return Err(ChildError::Global);
        }
        let code = Code::new(self.code.as_bytes())?;
        if self.product.len().max(self.version.len()) > MAX_WORD {
            return Err(ChildError::Text);
        }
        for path in self.operations.paths() {
            let name = || format!("{}/{}/{}/{}", path.resource, path.index, path.area, path.name);
            path.check(hub).map_err(|source| ChildError::Operation { name: name(), source })?;
        }
        let proof = ChildProof::new(&code, &serial);
        let operations = Arc::new(self.operations);
        let mut entry = Entry::new(proof, self.mode, self.product.into(), self.version.into(), operations);
        entry.connected = self.connected;
        Ok((serial.as_str().into(), entry))
    }
}

impl fmt::Debug for ChildBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildBuilder").field("serial", &self.serial).finish_non_exhaustive()
    }
}

/// A child of a hub: it reports events and attributes like a device, over the connection of its hub.
///
/// A cheap handle that keeps the device running like [`Device`] itself.
#[derive(Clone)]
pub struct Child {
    device: Device,
    serial: Box<str>,
    state: watch::Receiver<ChildState>,
}

impl Child {
    /// Begins a child with this serial and the verification code that belongs to it.
    #[must_use]
    pub fn builder(serial: &str, code: &str) -> ChildBuilder {
        ChildBuilder {
            serial: serial.to_owned(),
            code: Zeroizing::new(code.to_owned()),
            mode: AccessMode::Code,
            product: String::new(),
            version: String::new(),
            connected: true,
            operations: Operations::default(),
        }
    }

    pub(crate) fn of(device: &Device, serial: &str, entry: &Entry) -> Self {
        Self { device: device.clone(), serial: serial.into(), state: entry.state.subscribe() }
    }

    /// Its serial.
    #[must_use]
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// What the platform thinks of it.
    #[must_use]
    pub fn state(&self) -> ChildState {
        *self.state.borrow()
    }

    /// Follows what the platform thinks of it.
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<ChildState> {
        self.state.clone()
    }

    /// An event of this child, as [`Device::event`].
    #[must_use]
    pub fn event(&self, resource: &str, index: u16, area: &str, name: &str) -> Event<'_> {
        Event::new(&self.device, &self.serial, resource, index, area, name)
    }

    /// An attribute of this child, as [`Device::attribute`].
    #[must_use]
    pub fn attribute(&self, resource: &str, index: u16, area: &str, name: &str) -> Attribute<'_> {
        Attribute::new(&self.device, &self.serial, resource, index, area, name)
    }

    /// Passes bytes to an application, as [`Device::pass`].
    ///
    /// # Errors
    /// [`ReportError`].
    pub async fn pass(
        &self,
        resource: &str,
        index: u16,
        area: &str,
        name: &str,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<(), ReportError> {
        let path = OperationPath::new(&self.serial, resource, index, area, name);
        self.device.pass_of(&path, media_type, bytes).await
    }

    /// Tells the platform whether the hub reaches the child.
    pub fn set_connected(&self, connected: bool) {
        self.device.with_hub(|hub, _| hub.set_connected(&self.serial, connected));
    }

    /// Asks the platform again about a child that it refused.
    pub fn retry(&self) {
        self.device.with_hub(|hub, now| hub.retry(now, &self.serial));
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child").field("serial", &self.serial).field("state", &self.state()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_child_is_named() {
        let hub = Serial::new("SN0000001").expect("a serial");
        let build = |builder: ChildBuilder| builder.build(&hub).map(|(serial, _)| serial);
        assert_eq!(build(Child::builder("SUB1", "ABCDEF")), Ok("SUB1".into()));
        assert!(matches!(build(Child::builder("a/b", "ABCDEF")), Err(ChildError::Serial(_))));
        assert_eq!(build(Child::builder("global", "ABCDEF")), Err(ChildError::Global));
        assert!(matches!(build(Child::builder("SUB1", "")), Err(ChildError::Code(_))));
        assert_eq!(build(Child::builder("SUB1", "ABCDEF").product("x".repeat(65))), Err(ChildError::Text));
        assert_eq!(build(Child::builder("SUB1", "ABCDEF").version("x".repeat(65))), Err(ChildError::Text));
        let operation = Child::builder("SUB1", "ABCDEF").operation("Plug", 0, "a/b", "On", async |(): ()| Ok(()));
        assert!(matches!(build(operation), Err(ChildError::Operation { .. })));
        assert!(!format!("{:?}", Child::builder("SUB1", "ABCDEF")).contains("ABCDEF"));
        let licensed = Child::builder("type:name", "ABCDEF").licensed().build(&hub).map(|(_, entry)| entry.mode);
        assert_eq!(licensed, Ok(AccessMode::Licence));
    }
}
