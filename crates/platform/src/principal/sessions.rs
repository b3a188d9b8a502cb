//! The sessions of users, beside them in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use uuid::Uuid;
use vestibule_store::{Control, Secret, SessionRow, StoreError};

use super::{Digest, Index, Key, LOAD_PAGE, Principal, Principals};

/// Most sessions of one user; another one ends the oldest.
const MAX_SESSIONS: usize = 32;

impl Index {
    /// Enters a session; gives the one that is over for it, of somebody who has as many as they may.
    pub(super) fn begin(&mut self, owner: &Arc<Principal>, row: &SessionRow) -> Option<Digest> {
        let (expires, session, ended) = (Some(row.expires), Some(row.digest), AtomicBool::new(false));
        self.keys.insert(row.digest, Arc::new(Key { owner: Arc::clone(owner), expires, session, ended }));
        let sessions = self.sessions.entry(owner.id).or_default();
        sessions.push_back(row.digest);
        let over = if sessions.len() > MAX_SESSIONS { sessions.pop_front() } else { None };
        over.inspect(|digest| self.end(digest))
    }

    /// Ends a session that is listed no more.
    pub(super) fn end(&mut self, digest: &Digest) {
        if let Some(key) = self.keys.remove(digest) {
            key.ended.store(true, Ordering::Release);
        }
    }

    /// Ends the sessions of a user that are not to be kept.
    pub(super) fn end_where(&mut self, owner: Uuid, is_over: impl Fn(&Key) -> bool) {
        let Some(mut sessions) = self.sessions.remove(&owner) else { return };
        sessions.retain(|digest| {
            let over = self.keys.get(digest).is_none_or(|key| is_over(key));
            if over {
                self.end(digest);
            }
            !over
        });
        if !sessions.is_empty() {
            self.sessions.insert(owner, sessions);
        }
    }
}

impl Principals {
    /// Begins a session of a user, durably; false when the user is gone or has another password by now. To be run to its
    /// end.
    pub(crate) async fn begin_session(
        &self,
        control: &Control,
        user: &Arc<Principal>,
        row: SessionRow,
        kept: &Secret,
    ) -> Result<bool, StoreError> {
        if !control.insert_session(row.clone(), kept).await? {
            return Ok(false);
        }
        let begun = {
            let mut index = self.index.write();
            let is_so_still = !user.removed.load(Ordering::Acquire) && user.password() == *kept;
            is_so_still.then(|| index.begin(user, &row))
        };
        let over = begun.unwrap_or(Some(row.digest));
        if let Some(over) = over {
            control.remove_session(over).await?;
        }
        Ok(begun.is_some())
    }

    /// Ends a session, durably. To be run to its end.
    pub(crate) async fn end_session(&self, control: &Control, session: &Key) -> Result<(), StoreError> {
        let Some(digest) = session.session else { return Ok(()) };
        control.remove_session(digest).await?;
        self.index.write().end_where(session.owner.id, |key| key.session == Some(digest));
        Ok(())
    }

    /// Gives a user another password, durably, and ends all sessions but one; false when the user is gone, or has another
    /// password by now than the one that was `shown`. To be run to its end.
    pub(crate) async fn set_password(
        &self,
        control: &Control,
        user: &Principal,
        secret: Secret,
        shown: Option<&Secret>,
        keep: Option<Digest>,
    ) -> Result<bool, StoreError> {
        // One after the other, or what the store has last and what is in memory might be two passwords.
        let _turn = user.changing.lock().await;
        if shown.is_some_and(|shown| user.password() != *shown) {
            return Ok(false);
        }
        if !control.set_secret(user.id, &secret, keep).await? {
            return Ok(false);
        }
        *user.password.lock() = secret;
        self.index.write().end_where(user.id, |key| key.session != keep);
        Ok(true)
    }

    /// Forgets sessions that have ended.
    pub(crate) async fn expire(&self, control: &Control, now: i64) -> Result<u64, StoreError> {
        let removed = control.expire_sessions(now).await?;
        let mut index = self.index.write();
        let owners: Vec<_> = index.sessions.keys().copied().collect();
        for owner in owners {
            index.end_where(owner, |key| !key.is_good(now));
        }
        Ok(removed)
    }
}

/// Reads them all, oldest first.
pub(super) async fn load(index: &mut Index, control: &Control) -> Result<(), StoreError> {
    let mut rows = Vec::new();
    let mut after = None;
    loop {
        let page = control.sessions(after, LOAD_PAGE).await?;
        let Some(last) = page.last() else { break };
        after = Some(last.digest);
        rows.extend(page);
    }
    rows.sort_by_key(|row| row.created);
    for row in rows {
        if let Some(owner) = index.by_id.get(&row.principal).cloned() {
            index.begin(&owner, &row);
        }
    }
    Ok(())
}
