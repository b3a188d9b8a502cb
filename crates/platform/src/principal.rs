//! Who may use the platform beside the administrator: tokens of programs, and people.
//!
//! All of them are in memory: a token is found by its digest, in one look-up, and what was revoked is gone at once. Only
//! digests are kept, so that whoever reads the database or its backups cannot use what they find.

mod sessions;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest;
use parking_lot::{Mutex, RwLock};
use uuid::Uuid;
use vestibule_store::{Control, PrincipalRow, Secret, StoreError};

use crate::caller::{Caller, RESERVED};
use crate::org::OrgPath;
use crate::permission::Role;
use crate::rate::Used;

/// Most tokens and people together.
pub(crate) const MAX_PRINCIPALS: usize = 10_000;
const LOAD_PAGE: i64 = 1_000;
const MAX_NAME: usize = 64;
/// A later use is noted when the one that was noted is so long ago, in milliseconds.
const COARSE: i64 = 60 * 1_000;
/// How often uses are written down.
const WRITE_USED: Duration = Duration::from_secs(60);

/// What a principal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PrincipalKind {
    Token,
    User,
}

impl PrincipalKind {
    fn as_str(self) -> &'static str {
        match self {
            PrincipalKind::Token => "token",
            PrincipalKind::User => "user",
        }
    }

    fn parse(name: &str) -> Option<PrincipalKind> {
        [PrincipalKind::Token, PrincipalKind::User].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// A token or a user, as it is shown: everything but its secret.
pub struct Principal {
    /// Its id.
    pub id: Uuid,
    /// Its name; the audit knows it by that.
    pub name: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// The part of the organisation it is bound to.
    pub subtree: OrgPath,
    /// When it was made, Unix milliseconds.
    pub created: i64,
    /// Who made it.
    pub created_by: Box<str>,
    /// When it ends, Unix milliseconds; none: it does not.
    pub expires: Option<i64>,
    pub(crate) kind: PrincipalKind,
    /// The hash of the password, of a user.
    password: Mutex<Secret>,
    /// Held while the password is being changed.
    changing: tokio::sync::Mutex<()>,
    pub(crate) used: Used,
    /// 0: never.
    last_used: AtomicI64,
    removed: AtomicBool,
}

impl Principal {
    /// When it was used last, Unix milliseconds, to the minute; none: never.
    pub fn last_used(&self) -> Option<i64> {
        Some(self.last_used.load(Ordering::Relaxed)).filter(|at| *at != 0)
    }

    pub(crate) fn password(&self) -> Secret {
        self.password.lock().clone()
    }
}

/// Something that whoever shows it is recognised by.
pub(crate) struct Key {
    pub(crate) owner: Arc<Principal>,
    pub(crate) expires: Option<i64>,
    /// Which session it is, of a user.
    pub(crate) session: Option<Digest>,
    ended: AtomicBool,
}

impl Key {
    pub(crate) fn is_good(&self, now: i64) -> bool {
        !self.is_revoked() && self.expires.is_none_or(|expires| now < expires)
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.owner.removed.load(Ordering::Acquire)
    }
}

/// SHA-256 of what is shown. It has 256 random bits, so that a slow digest would keep nobody from guessing it.
pub(crate) type Digest = [u8; 32];

pub(crate) fn digest_of(shown: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, shown.as_bytes()).as_ref());
    bytes
}

/// All principals.
#[derive(Default)]
pub(crate) struct Principals {
    index: RwLock<Index>,
    /// Those whose last use is not written down yet.
    used: Mutex<BTreeSet<Uuid>>,
}

#[derive(Default)]
struct Index {
    by_id: BTreeMap<Uuid, Arc<Principal>>,
    by_name: HashMap<Arc<str>, Uuid>,
    keys: HashMap<Digest, Arc<Key>>,
    /// The sessions of those who have some, oldest first.
    sessions: HashMap<Uuid, VecDeque<Digest>>,
}

impl Index {
    fn insert(&mut self, principal: Arc<Principal>, secret: &Secret) {
        self.by_name.insert(Arc::clone(&principal.name), principal.id);
        if let (PrincipalKind::Token, Ok(digest)) = (principal.kind, Digest::try_from(secret.expose())) {
            let expires = principal.expires;
            let (owner, session, ended) = (Arc::clone(&principal), None, AtomicBool::new(false));
            self.keys.insert(digest, Arc::new(Key { owner, expires, session, ended }));
        }
        self.by_id.insert(principal.id, principal);
    }
}

/// A token or somebody to be made.
pub(crate) struct NewPrincipal {
    pub(crate) kind: PrincipalKind,
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) subtree: OrgPath,
    pub(crate) secret: Secret,
    pub(crate) created: i64,
    pub(crate) created_by: String,
    pub(crate) expires: Option<i64>,
}

/// Why a principal is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrincipalError {
    /// The caller sent something that cannot be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Somebody has this name.
    #[error("there is a token or a user of this name already")]
    NameTaken,
    /// The caller's own rights end by themselves, and what it asks for would not.
    #[error("a token that ends makes nothing that goes on without it")]
    Ending,
    /// Too many passwords are being looked at.
    #[error("too many passwords are being looked at")]
    Busy,
    /// There are as many as may be.
    #[error("there are as many tokens and users as may be: {0}")]
    Full(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Principals {
    /// Reads them all. One of a kind or role that this version does not know gets no rights.
    pub(crate) async fn load(control: &Control) -> Result<Principals, StoreError> {
        let mut index = Index::default();
        let mut after = None;
        loop {
            let rows = control.principals(after, LOAD_PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            for row in rows {
                let secret = row.secret.clone();
                match restored(row) {
                    Ok(principal) => index.insert(Arc::new(principal), &secret),
                    Err(name) => {
                        tracing::error!(name, "a token or user that this version does not understand is left out")
                    }
                }
            }
        }
        sessions::load(&mut index, control).await?;
        Ok(Principals { index: RwLock::new(index), used: Mutex::default() })
    }

    /// What was shown, if it is known.
    pub(crate) fn key(&self, shown: &str) -> Option<Arc<Key>> {
        self.index.read().keys.get(&digest_of(shown)).map(Arc::clone)
    }

    /// Notes a use, now and then.
    pub(crate) fn note_used(&self, principal: &Principal, now: i64) {
        let last = principal.last_used.load(Ordering::Relaxed);
        // A clock that was set back is noted, too.
        if last != 0 && (last..last.saturating_add(COARSE)).contains(&now) {
            return;
        }
        principal.last_used.store(now, Ordering::Relaxed);
        self.used.lock().insert(principal.id);
    }

    /// Writes down the uses that are not written yet.
    pub(crate) async fn flush(&self, control: &Control) {
        let ids = std::mem::take(&mut *self.used.lock());
        let used: Vec<_> = {
            let index = self.index.read();
            ids.iter().filter_map(|id| Some((*id, index.by_id.get(id)?.last_used()?))).collect()
        };
        if used.is_empty() {
            return;
        }
        if let Err(error) = control.note_used(used).await {
            tracing::warn!(%error, "when tokens were used last is not written down yet");
            self.used.lock().extend(ids);
        }
    }

    /// Writes uses down behind, for as long as it is run.
    pub(crate) async fn keep(self: Arc<Self>, control: Control) {
        loop {
            tokio::time::sleep(WRITE_USED).await;
            self.flush(&control).await;
        }
    }

    /// At most `limit` of this kind that `by` sees, with ids beyond `after`, in the order of their making.
    pub(crate) fn list(
        &self,
        kind: PrincipalKind,
        after: Option<Uuid>,
        limit: usize,
        by: &Caller,
    ) -> Vec<Arc<Principal>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let index = self.index.read();
        let all = index.by_id.range((from, Bound::Unbounded)).map(|(_, principal)| principal);
        all.filter(|principal| principal.kind == kind && by.subtree().covers(&principal.subtree))
            .take(limit)
            .map(Arc::clone)
            .collect()
    }

    /// The one of this kind with this id or name, if `by` sees it.
    pub(crate) fn find(&self, kind: PrincipalKind, key: &str, by: &Caller) -> Option<Arc<Principal>> {
        let index = self.index.read();
        let by_id = key.parse().ok().and_then(|id: Uuid| index.by_id.get(&id));
        let found = by_id.or_else(|| index.by_name.get(key).and_then(|id| index.by_id.get(id)))?;
        (found.kind == kind && by.subtree().covers(&found.subtree)).then(|| Arc::clone(found))
    }

    /// Whether one of this name may be made, as far as that can be said before.
    pub(crate) fn check_new(&self, name: &str) -> Result<(), PrincipalError> {
        check_name(name)?;
        let index = self.index.read();
        if index.by_name.contains_key(name) {
            return Err(PrincipalError::NameTaken);
        }
        if index.by_id.len() >= MAX_PRINCIPALS { Err(PrincipalError::Full(MAX_PRINCIPALS)) } else { Ok(()) }
    }

    /// Makes one, durably. To be run to its end.
    pub(crate) async fn add(&self, control: &Control, new: NewPrincipal) -> Result<Arc<Principal>, PrincipalError> {
        self.check_new(&new.name)?;
        let row = PrincipalRow {
            id: Uuid::now_v7(),
            kind: new.kind.as_str().to_owned(),
            name: new.name,
            role: new.role.as_str().to_owned(),
            subtree: new.subtree.as_str().to_owned(),
            secret: new.secret.clone(),
            created: new.created,
            created_by: new.created_by,
            expires: new.expires,
            last_used: None,
        };
        if !control.insert_principal(row.clone()).await? {
            return Err(PrincipalError::NameTaken);
        }
        let principal = Principal {
            id: row.id,
            name: row.name.into(),
            role: new.role,
            subtree: new.subtree,
            created: row.created,
            created_by: row.created_by.into(),
            expires: row.expires,
            kind: new.kind,
            password: Mutex::new(new.secret.clone()),
            changing: tokio::sync::Mutex::default(),
            used: Used::default(),
            last_used: AtomicI64::new(0),
            removed: AtomicBool::new(false),
        };
        let principal = Arc::new(principal);
        self.index.write().insert(Arc::clone(&principal), &new.secret);
        Ok(principal)
    }

    /// Removes one, durably: what it shows is nobody's from now on. False when it was gone. To be run to its end.
    pub(crate) async fn remove(&self, control: &Control, principal: &Principal) -> Result<bool, StoreError> {
        let was_there = control.remove_principal(principal.id).await?;
        principal.removed.store(true, Ordering::Release);
        let mut index = self.index.write();
        if index.by_id.remove(&principal.id).is_some() {
            index.by_name.remove(&principal.name);
            match principal.kind {
                PrincipalKind::User => index.end_where(principal.id, |_| true),
                PrincipalKind::Token => index.keys.retain(|_, key| key.owner.id != principal.id),
            }
        }
        Ok(was_there)
    }
}

fn restored(row: PrincipalRow) -> Result<Principal, String> {
    let known = (PrincipalKind::parse(&row.kind), Role::parse(&row.role), OrgPath::parse(&row.subtree));
    let (Some(kind), Some(role), Ok(subtree)) = known else { return Err(row.name) };
    Ok(Principal {
        id: row.id,
        name: row.name.into(),
        role,
        subtree,
        created: row.created,
        created_by: row.created_by.into(),
        expires: row.expires,
        kind,
        password: Mutex::new(row.secret),
        changing: tokio::sync::Mutex::default(),
        used: Used::default(),
        last_used: AtomicI64::new(row.last_used.unwrap_or_default()),
        removed: AtomicBool::new(false),
    })
}

fn check_name(name: &str) -> Result<(), PrincipalError> {
    let invalid = |reason| Err(PrincipalError::Invalid { field: "name", reason });
    if name.is_empty() || name.len() > MAX_NAME {
        return invalid("must have 1 to 64 bytes");
    }
    if name.trim() != name || name.chars().any(char::is_control) {
        return invalid("must not have control characters, or white space around it");
    }
    if uuid::Uuid::try_parse(name).is_ok() {
        // Whoever is meant by an id must not be somebody who calls himself so.
        return invalid("must not look like an id");
    }
    if RESERVED.contains(&name) { invalid("is what the platform calls itself; take another one") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_text_that_nobody_mistakes_for_the_platform() {
        for name in ["a", "Jörg 🚪", "ci/deploy", &"n".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for wrong in ["", " a", "a\t", "a\nb", "administrator", "program", "device", &"n".repeat(65)] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }
}
