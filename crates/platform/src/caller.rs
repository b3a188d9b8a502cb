//! Somebody who was recognised.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::device::Device;
use crate::org::OrgPath;
use crate::permission::{Permission, Role};
use crate::principal::Key;

/// Somebody whose token was recognised: who it is, what it may do, and how far that reaches. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    name: Arc<str>,
    role: Role,
    subtree: OrgPath,
    /// What it showed; none for the administrator and the program itself, whose rights do not end.
    key: Option<Arc<Key>>,
}

impl Caller {
    /// The holder of the data directory's token: may do everything.
    pub(crate) fn administrator() -> Caller {
        Caller::unbound(ADMINISTRATOR)
    }

    /// The program the platform runs in, for what it does of its own accord, such as to register the devices of a demo.
    pub fn program() -> Caller {
        Caller::unbound(PROGRAM)
    }

    fn unbound(name: &str) -> Caller {
        Caller { name: name.into(), role: Role::Admin, subtree: OrgPath::root(), key: None }
    }

    pub(crate) fn holding(key: &Arc<Key>) -> Caller {
        let owner = &key.owner;
        Caller {
            name: Arc::clone(&owner.name),
            role: owner.role,
            subtree: owner.subtree.clone(),
            key: Some(Arc::clone(key)),
        }
    }

    /// Who it is, as records of what was done name them.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it is there for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The part of the organisation it is bound to.
    pub fn subtree(&self) -> &OrgPath {
        &self.subtree
    }

    /// Whether it sees the device.
    pub fn sees(&self, device: &Device) -> bool {
        self.subtree.is_root() || self.subtree.covers(&device.org())
    }

    /// Whether the caller has this right, about what it sees.
    pub fn may(&self, permission: Permission) -> bool {
        self.role.has(permission) && (self.subtree.is_root() || !permission.is_of_the_whole())
    }

    /// The id of its token or user; none for the administrator and the program.
    pub(crate) fn id(&self) -> Option<Uuid> {
        self.key.as_ref().map(|key| key.owner.id)
    }

    /// Whether the rights are still there at this time, Unix milliseconds; what goes on for long asks now and then.
    pub fn is_current(&self, now: i64) -> bool {
        self.key.as_ref().is_none_or(|key| key.is_good(now))
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Names that belong to nobody else.
pub(crate) const RESERVED: [&str; 3] = [ADMINISTRATOR, PROGRAM, crate::audit::DEVICE];
const ADMINISTRATOR: &str = "administrator";
const PROGRAM: &str = "program";
