//! Who may do what.

use serde::Serialize;

/// A right that an endpoint asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Permission {
    /// See devices, their presence and their connection facts.
    DevicesRead,
    /// Register and remove devices, open enrolment windows.
    DevicesWrite,
    /// See what devices reported.
    EventsRead,
    /// See metrics.
    MetricsRead,
}

impl Permission {
    /// Every permission there is.
    pub const ALL: [Permission; 4] =
        [Permission::DevicesRead, Permission::DevicesWrite, Permission::EventsRead, Permission::MetricsRead];
}

/// Somebody whose token was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    permissions: &'static [Permission],
}

impl Caller {
    /// The holder of the data directory's token: may do everything.
    pub(crate) fn administrator() -> Caller {
        Caller { permissions: &Permission::ALL }
    }

    /// Whether the caller has this right.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}
