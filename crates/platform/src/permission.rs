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
    /// See the attributes of devices.
    AttributesRead,
    /// Wish attributes to have values.
    AttributesWrite,
    /// Have devices carry out operations.
    OperationsInvoke,
    /// See which operations were carried out, by whom, and how they ended.
    OperationsRead,
    /// Send messages through to devices as they are, and see those that come.
    PassUse,
    /// See who did what.
    AuditRead,
    /// See metrics.
    MetricsRead,
}

impl Permission {
    /// Every permission there is.
    pub const ALL: [Permission; 10] = [
        Permission::DevicesRead,
        Permission::DevicesWrite,
        Permission::EventsRead,
        Permission::AttributesRead,
        Permission::AttributesWrite,
        Permission::OperationsInvoke,
        Permission::OperationsRead,
        Permission::PassUse,
        Permission::AuditRead,
        Permission::MetricsRead,
    ];
}

/// Somebody whose token was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    name: &'static str,
    permissions: &'static [Permission],
}

impl Caller {
    /// The holder of the data directory's token: may do everything.
    pub(crate) fn administrator() -> Caller {
        Caller { name: "administrator", permissions: &Permission::ALL }
    }

    /// The program the platform runs in, for what it does of its own accord, such as to register the devices of a demo.
    pub fn program() -> Caller {
        Caller { name: "program", permissions: &Permission::ALL }
    }

    /// Who it is, as records of what was done name them.
    pub fn name(&self) -> &str {
        self.name
    }

    /// Whether the caller has this right.
    pub fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }
}
