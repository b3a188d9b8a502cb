//! People: who may log in with a name and a password.

use std::sync::Arc;

use serde_json::json;
use uuid::Uuid;
use vestibule_store::{Secret, StoreError};

use crate::caller::Caller;
use crate::org::OrgPath;
use crate::password::{TooBusy, check_password};
use crate::permission::Role;
use crate::platform::{Platform, to_the_end};
use crate::principal::{NewPrincipal, Principal, PrincipalError, PrincipalKind};

/// Somebody to be let in.
pub struct NewUser {
    /// The name, of 1 to 64 bytes, that no other user and no token has.
    pub name: String,
    /// The password, of 10 to 256 characters.
    pub password: Secret,
    /// What they may do.
    pub role: Role,
    /// The part of the organisation they are bound to; none: that of the caller.
    pub subtree: Option<OrgPath>,
}

impl From<TooBusy> for PrincipalError {
    fn from(_: TooBusy) -> PrincipalError {
        PrincipalError::Busy
    }
}

impl Platform {
    /// Lets somebody log in from now on, durably. A token that ends cannot: users do not end, and it would live on in them.
    ///
    /// # Errors
    /// [`PrincipalError`].
    pub async fn add_user(&self, new: NewUser, by: &Caller) -> Result<Arc<Principal>, PrincipalError> {
        by.check_lasting()?;
        let subtree = by.place(new.subtree)?;
        check_password(&new.password)?;
        self.principals().check_new(&new.name)?;
        let secret = self.door().passwords.hash(new.password).await?;
        let new = NewPrincipal {
            kind: PrincipalKind::User,
            name: new.name,
            role: new.role,
            subtree,
            secret,
            created: self.clock().now_ms(),
            created_by: by.name().to_owned(),
            expires: None,
        };
        let (principals, control, auditor) = (Arc::clone(self.principals()), self.control().clone(), self.auditor());
        let actor = by.name().to_owned();
        to_the_end(async move {
            let made = principals.add(&control, new).await?;
            let detail = json!({"name": made.name, "role": made.role, "subtree": made.subtree.as_str()});
            auditor.note(&actor, "user.add", &made.subtree, detail, true).await;
            Ok(made)
        })
        .await
    }

    /// At most `limit` users that `by` sees, with ids beyond `after`, in the order of their making.
    pub fn users(&self, after: Option<Uuid>, limit: usize, by: &Caller) -> Vec<Arc<Principal>> {
        self.principals().list(PrincipalKind::User, after, limit, by)
    }

    /// Removes the user with this id or name, durably and at once: their sessions end. False when `by` sees no such user.
    pub async fn remove_user(&self, key: &str, by: &Caller) -> Result<bool, StoreError> {
        self.remove_principal(PrincipalKind::User, "user.remove", key, by).await
    }

    /// Gives the user with this id or name another password, durably; their sessions end. False when `by` sees no such user.
    /// A token that ends cannot, as little as it [adds](Self::add_user) one.
    ///
    /// # Errors
    /// [`PrincipalError`].
    pub async fn set_password(&self, key: &str, password: Secret, by: &Caller) -> Result<bool, PrincipalError> {
        by.check_lasting()?;
        check_password(&password)?;
        let Some(user) = self.principals().find(PrincipalKind::User, key, by) else { return Ok(false) };
        self.give_password(user, password, None, by).await
    }

    /// Gives a user another password; false when they are gone, or have another one by now than was `shown`.
    pub(crate) async fn give_password(
        &self,
        user: Arc<Principal>,
        password: Secret,
        shown: Option<Secret>,
        by: &Caller,
    ) -> Result<bool, PrincipalError> {
        let secret = self.door().passwords.hash(password).await?;
        let (principals, control, auditor) = (Arc::clone(self.principals()), self.control().clone(), self.auditor());
        // Who changes their own stays logged in here.
        let (actor, keep) = (by.name().to_owned(), by.key().and_then(|key| key.session));
        to_the_end(async move {
            if !principals.set_password(&control, &user, secret, shown.as_ref(), keep).await? {
                return Ok(false);
            }
            auditor.note(&actor, "user.password", &user.subtree, json!({"name": user.name}), true).await;
            Ok(true)
        })
        .await
    }
}
