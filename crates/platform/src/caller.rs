//! Somebody who was recognised.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;
use vestibule_store::StoreError;

use crate::device::Device;
use crate::org::OrgPath;
use crate::permission::{Permission, Role};
use crate::principal::{Key, PrincipalError};

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

    /// What is done to a device asks once more when its turn has come: the device may have been moved meanwhile. To be called
    /// under the lock that moves it, where there is something to be written.
    pub(crate) fn still_sees(&self, device: &Device) -> Result<(), StoreError> {
        if self.sees(device) { Ok(()) } else { Err(StoreError::UnknownDevice) }
    }

    /// Whether the caller has this right, about what it sees.
    pub fn may(&self, permission: Permission) -> bool {
        self.role.has(permission) && (self.subtree.is_root() || !permission.is_of_the_whole())
    }

    /// Whether what it showed was taken from it: removed, logged out. One atomic load; that its time is over,
    /// [`is_current`](Self::is_current) says.
    pub fn is_revoked(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.is_revoked())
    }

    /// When what it showed ends, Unix milliseconds; none: it does not.
    pub fn expires(&self) -> Option<i64> {
        self.key.as_ref().and_then(|key| key.expires)
    }

    /// Whether it is a person who has logged in.
    pub fn is_user(&self) -> bool {
        self.key.as_ref().is_some_and(|key| key.session.is_some())
    }

    pub(crate) fn key(&self) -> Option<&Arc<Key>> {
        self.key.as_ref()
    }

    /// Where somebody is bound to whom it makes: here, unless it says where, and nowhere it does not see itself.
    pub(crate) fn place(&self, wanted: Option<OrgPath>) -> Result<OrgPath, PrincipalError> {
        match wanted {
            None => Ok(self.subtree.clone()),
            Some(wanted) if self.subtree.covers(&wanted) => Ok(wanted),
            Some(_) => Err(PrincipalError::Invalid { field: "subtree", reason: "must be at or below your own" }),
        }
    }

    /// When its rights end by themselves, Unix milliseconds. A session is over after a while, but who has logged in may do so
    /// again: only the rights of tokens end.
    pub(crate) fn rights_end(&self) -> Option<i64> {
        self.key.as_ref().and_then(|key| key.owner.expires)
    }

    /// Whether it may make what has no end.
    pub(crate) fn check_lasting(&self) -> Result<(), PrincipalError> {
        if self.rights_end().is_some() { Err(PrincipalError::Ending) } else { Ok(()) }
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
