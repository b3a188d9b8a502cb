//! Presence: whether a device is there, since when, and why not.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::device::Device;
use crate::link::DeviceLink;
use crate::platform::Platform;

/// The reason of a device whose connection ended with the process that held it.
const RESTARTED: &str = "platform_restart";

/// Names one connection of one device, so that a late goodbye of an old connection does not end a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(u64);

/// What an adapter says of a device that has logged in.
pub struct Connection {
    /// The security suite of the session, as shown to people.
    pub suite: &'static str,
    /// Whether that suite keeps what is said confidential.
    pub confidential: bool,
    /// Where the device comes from.
    pub peer: SocketAddr,
    /// How to reach the connection.
    pub link: Arc<dyn DeviceLink>,
}

/// The three states of presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PresenceState {
    /// Logged in.
    Online,
    /// Was logged in once, is not now.
    Offline,
    /// Registered, never logged in.
    NeverSeen,
}

impl PresenceState {
    /// Every state.
    pub const ALL: [PresenceState; 3] = [PresenceState::Online, PresenceState::Offline, PresenceState::NeverSeen];

    /// The state's name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            PresenceState::Online => "online",
            PresenceState::Offline => "offline",
            PresenceState::NeverSeen => "never_seen",
        }
    }

    /// The state of this name.
    pub fn parse(name: &str) -> Option<PresenceState> {
        PresenceState::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// Presence as shown to people and programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether the device is there.
    pub state: PresenceState,
    /// Since when, in milliseconds since 1970; 0 when it never was there.
    pub since: i64,
    /// Why the state is what it is, a short code such as `login`, `keep_alive_timeout`, `disconnect`.
    pub reason: Cow<'static, str>,
    /// The suite of the present or last session.
    pub suite: Option<Cow<'static, str>>,
    /// Whether that suite keeps what is said confidential.
    pub confidential: bool,
    /// Address of the present or last connection.
    pub peer: Option<SocketAddr>,
}

impl Presence {
    /// Whether the device was there when the last process ended.
    pub(crate) fn is_restored(&self) -> bool {
        self.reason == RESTARTED
    }
}

/// Presence with the live connection, inside the device.
pub(crate) struct PresenceCell {
    shown: Presence,
    live: Option<(ConnectionId, Arc<dyn DeviceLink>)>,
}

impl PresenceCell {
    pub(crate) fn restore(stored: Option<&str>, now: i64) -> PresenceCell {
        let never = Presence {
            state: PresenceState::NeverSeen,
            since: 0,
            reason: "never_seen".into(),
            suite: None,
            confidential: false,
            peer: None,
        };
        let mut shown: Presence = stored.and_then(|json| serde_json::from_str(json).ok()).unwrap_or(never);
        if shown.state == PresenceState::Online {
            // No connection survives the process that held it.
            shown.state = PresenceState::Offline;
            shown.since = now;
            shown.reason = RESTARTED.into();
        }
        PresenceCell { shown, live: None }
    }

    pub(crate) fn shown(&self) -> Presence {
        self.shown.clone()
    }

    #[cfg(test)]
    pub(crate) fn pretend(&mut self, state: PresenceState, since: i64, suite: &'static str) {
        self.shown = Presence { state, since, suite: Some(suite.into()), ..self.shown() };
    }
}

impl Platform {
    /// Notes that a device has logged in. A connection it had before is closed: the newest wins (osap-wire 9.9).
    /// Operations that waited for it are sent.
    pub fn connected(self: &Arc<Self>, device: &Arc<Device>, connection: Connection) -> ConnectionId {
        let id = ConnectionId(self.next_connection());
        let replaced = {
            let mut cell = device.presence.lock();
            cell.shown = Presence {
                state: PresenceState::Online,
                since: self.clock().now_ms(),
                reason: "login".into(),
                suite: Some(connection.suite.into()),
                confidential: connection.confidential,
                peer: Some(connection.peer),
            };
            cell.live.replace((id, connection.link))
        };
        match replaced {
            Some((_, link)) => link.close("replaced"),
            None => metrics::gauge!("vestibule_devices_online").increment(1.0),
        }
        // A device that is in needs its secrets no more until it comes again.
        device.forget_secrets();
        // A device removed between its login check and here must not stay.
        if device.is_removed() {
            close_link(device, "removed");
        } else if device.is_disabled() {
            close_link(device, "disabled");
            self.presence_changed(device);
        } else {
            self.presence_changed(device);
            self.deliver(device);
        }
        id
    }

    /// Notes that a connection has ended. Nothing happens when a newer one has taken its place.
    pub fn disconnected(&self, device: &Arc<Device>, id: ConnectionId, reason: &'static str) {
        {
            let mut cell = device.presence.lock();
            if cell.live.as_ref().is_none_or(|(live, _)| *live != id) {
                return;
            }
            cell.live = None;
            cell.shown.state = PresenceState::Offline;
            cell.shown.since = self.clock().now_ms();
            cell.shown.reason = reason.into();
        }
        metrics::gauge!("vestibule_devices_online").decrement(1.0);
        // A removed device has been announced as such: nothing comes after that.
        if !device.is_removed() {
            self.presence_changed(device);
        }
    }

    /// Every change of presence from now on, and every device that was registered or removed
    /// ([`Device::is_removed`]). A receiver that lags loses the oldest; the registry has the truth.
    ///
    /// It wakes whoever listens at each login: an adapter that only has to know who is gone asks for
    /// [`removals`](Platform::removals).
    pub fn presence_changes(&self) -> broadcast::Receiver<Arc<Device>> {
        self.presence_sender().subscribe()
    }

    fn presence_changed(&self, device: &Arc<Device>) {
        self.notebook().note(device);
        self.registry().catalogue().note_presence(device);
        announce(self.presence_sender(), device);
    }
}

/// The device's live connection, if it has one.
pub(crate) fn live_link(device: &Device) -> Option<Arc<dyn DeviceLink>> {
    device.presence.lock().live.as_ref().map(|(_, link)| Arc::clone(link))
}

/// Ends the device's connection, if it has one.
pub(crate) fn close_link(device: &Device, reason: &'static str) {
    if let Some(link) = live_link(device) {
        link.close(reason);
    }
}

/// Tells whoever listens of a device whose presence or registration has changed.
pub(crate) fn announce(changes: &broadcast::Sender<Arc<Device>>, device: &Arc<Device>) {
    // An error only says that nobody listens.
    let _ = changes.send(Arc::clone(device));
}
