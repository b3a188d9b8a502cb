//! How the platform reaches a device: the port that the adapters implement.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use vestibule_store::DevicePath;

/// The adapter's end of a live connection, for what the platform wants of a device.
///
/// No call waits: it appends to what the connection has to say, or refuses.
pub trait DeviceLink: Send + Sync + 'static {
    /// Ends the connection; `reason` is a short code such as `removed`.
    fn close(&self, reason: &'static str);

    /// Sends an operation. How it went comes through its [`Reply`].
    ///
    /// # Errors
    /// [`NotSent`]: nothing of it has left or will leave.
    fn operate(&self, operation: Operate<'_>) -> Result<(), NotSent>;

    /// Sends the value that an attribute is wished to have. What the device says to it comes through its [`Reply`].
    ///
    /// # Errors
    /// [`NotSent`]: nothing of it has left or will leave.
    fn set(&self, set: SetAttribute<'_>) -> Result<(), NotSent>;

    /// Sends a message through as it is; a protocol without such messages has nothing to implement. That the device has it comes through its [`Reply`] as [`Answer::Done`].
    ///
    /// # Errors
    /// [`NotSent`]: nothing of it has left or will leave.
    fn pass(&self, _message: PassMessage<'_>) -> Result<(), NotSent> {
        Err(NotSent::Unsupported)
    }

    /// Has the adapter change the connection itself, where the protocol knows how.
    ///
    /// # Errors
    /// [`NotSent`]: nothing has changed.
    fn direct(&self, _directive: &Directive) -> Result<(), NotSent> {
        Err(NotSent::Unsupported)
    }
}

/// A message on its way through to a device.
pub struct PassMessage<'a> {
    /// Which part of the device it is for.
    pub path: &'a DevicePath,
    /// What the body is, `type/subtype` with optional parameters.
    pub media_type: &'a str,
    /// The message.
    pub body: &'a [u8],
    /// How long somebody waits to hear that it arrived.
    pub ttl: Duration,
    /// Where that goes.
    pub reply: Reply,
}

/// What an operator can have done to the connection of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Directive {
    /// The device is to authenticate elsewhere: at this host, by its LBS's port.
    Redirect {
        /// Name or address.
        host: String,
    },
    /// The device is to go, and stay away until it is started again.
    ForceOffline,
    /// The device is to show a sign of life every so many seconds.
    KeepAlive {
        /// 5 to 3,600.
        seconds: u16,
    },
    /// The device is not to send these commands any more, by number of their domain; none means the whole domain.
    Silence {
        /// At most 64 domains of at most 1,024 commands in all.
        commands: BTreeMap<u32, Vec<u32>>,
    },
}

/// A desired value on its way to a device.
pub struct SetAttribute<'a> {
    /// Which attribute of which part of the device.
    pub path: &'a DevicePath,
    /// JSON text of one value.
    pub value: &'a str,
    /// The attribute's version with this wish.
    pub version: u64,
    /// How long an answer counts.
    pub ttl: Duration,
    /// Where the answer goes.
    pub reply: Reply,
}

/// An operation on its way to a device.
pub struct Operate<'a> {
    /// Which operation of which part of the device.
    pub path: &'a DevicePath,
    /// The input, JSON text of one value; `None` for an operation without.
    pub input: Option<&'a str>,
    /// How long somebody waits for the answer.
    pub ttl: Duration,
    /// Where the answer goes.
    pub reply: Reply,
}

/// Why something was not sent to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotSent {
    /// The connection is ending.
    #[error("the connection is ending")]
    Ending,
    /// The device takes or answers too slowly: too much waits for it.
    #[error("too much waits for the device already")]
    Busy,
    /// Larger than the device can take.
    #[error("it is larger than the device can take")]
    TooLarge,
    /// The device's protocol cannot name this part of the device.
    #[error("the device's protocol cannot address it: {0}")]
    NotAddressable(&'static str),
    /// The device's protocol cannot say this to the device.
    #[error("the device's protocol cannot say it: {0}")]
    Unacceptable(&'static str),
    /// The device's protocol has nothing of the kind.
    #[error("the device's protocol has nothing of the kind")]
    Unsupported,
}

/// How a device answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It did what it was asked; JSON text of its output, where there is one.
    Done(Option<Box<str>>),
    /// It did not.
    Failed {
        /// The device's own code, not 0.
        code: i64,
        /// Its words, where it sends some.
        message: Option<Box<str>>,
    },
}

/// The way back of one answer. Dropped without one, it says that the link was lost: what was sent may have arrived
/// or not, and nobody can know.
#[derive(Debug)]
pub struct Reply(oneshot::Sender<Answer>);

/// Where an answer arrives; an error is a link that was lost.
pub type ReplyReceiver = oneshot::Receiver<Answer>;

impl Reply {
    /// Both ends.
    pub fn new() -> (Reply, ReplyReceiver) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Gives the answer. False: it is late, nobody waits for it any more.
    pub fn answer(self, answer: Answer) -> bool {
        self.0.send(answer).is_ok()
    }
}
