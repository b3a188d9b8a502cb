//! What is known of a webhook right now, for those who look.

use parking_lot::Mutex;
use vestibule_platform::WebhookPlace;

/// How a webhook is doing. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How far it was told; `None` before that is known.
    pub(crate) place: Option<WebhookPlace>,
    /// When the earliest record that it was not told yet was received.
    pub(crate) waiting_since: Option<i64>,
    /// When it took something last.
    pub(crate) last_success: Option<i64>,
    pub(crate) last_error: Option<Trouble>,
    /// Tries in a row that failed.
    pub(crate) failures: u32,
    /// When it is tried again.
    pub(crate) next_attempt: Option<i64>,
}

/// A delivery that did not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) at: i64,
    pub(crate) status: Option<u16>,
    pub(crate) reason: String,
}

/// What a webhook's courier writes and others read.
#[derive(Default)]
pub(crate) struct Status(Mutex<Seen>);

impl Status {
    pub(crate) fn seen(&self) -> Seen {
        self.0.lock().clone()
    }

    pub(crate) fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.0.lock());
    }
}
