//! Sessions: people log in with a name and a password, and are known by what they are given for half a day.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestibule_store::{Secret, SessionRow, StoreError};
use zeroize::Zeroizing;

use crate::caller::Caller;
use crate::door::Attempt;
use crate::password::{TooBusy, check_password};
use crate::platform::{Platform, to_the_end};
use crate::principal::{Principal, PrincipalError, PrincipalKind, digest_of};
use crate::token::mint;

const PREFIX: &str = "vss_";
/// How long a session lasts, in milliseconds.
const LASTS: i64 = 12 * 60 * 60 * 1_000;

/// Somebody who has logged in.
pub struct Session {
    /// What they show from now on; given this once.
    pub token: Zeroizing<String>,
    /// Until when, Unix milliseconds.
    pub expires: i64,
    /// Who it is.
    pub user: Arc<Principal>,
}

/// Why somebody is not let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The caller sent something that cannot be right.
    #[error("{field} {reason}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is no user who asks.
    #[error("it is the token of a program")]
    NoUser,
    /// Name or password is wrong; which is not said.
    #[error("name or password is wrong")]
    Refused,
    /// Too many were wrong, of this name or from this address.
    #[error("too many were wrong; the next is looked at in {} s", after.as_secs())]
    TooManyFailures {
        /// How long to wait.
        after: Duration,
    },
    /// Too many passwords are being looked at.
    #[error("too many passwords are being looked at")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<TooBusy> for LoginError {
    fn from(_: TooBusy) -> LoginError {
        LoginError::Busy
    }
}

impl Platform {
    /// Lets somebody in who knows the password of a name.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn log_in(&self, name: &str, password: Secret, from: IpAddr) -> Result<Session, LoginError> {
        let attempt = self.door().attempt(name, from, self.clock().now_ms());
        // By the name only: an id is nothing that people know.
        let user = self.principals().find(PrincipalKind::User, name, &Caller::program());
        let user = user.filter(|user| *user.name == *name);
        let (user, kept) = self.prove(user, password, attempt, from).await?;
        let (now, token) = (self.clock().now_ms(), mint(PREFIX));
        let (principals, control, auditor) = (Arc::clone(self.principals()), self.control().clone(), self.auditor());
        let row = SessionRow { digest: digest_of(&token), principal: user.id, created: now, expires: now + LASTS };
        let expires = row.expires;
        to_the_end(async move {
            if !principals.begin_session(&control, &user, row, &kept).await? {
                return Err(LoginError::Refused);
            }
            principals.note_used(&user, now);
            auditor.note(&user.name, "session.add", &user.subtree, json!({"from": from.to_string()}), true).await;
            Ok(Session { token, expires, user })
        })
        .await
    }

    /// That the password is the user's, with the hash that says so. That it is nobody's shows neither in the answer nor in how
    /// long it takes.
    async fn prove(
        &self,
        user: Option<Arc<Principal>>,
        password: Secret,
        attempt: Result<Attempt, Duration>,
        from: IpAddr,
    ) -> Result<(Arc<Principal>, Secret), LoginError> {
        let counted = |outcome| metrics::counter!("vestibule_logins_total", "outcome" => outcome).increment(1);
        let attempt = attempt.map_err(|after| {
            counted("too_many");
            LoginError::TooManyFailures { after }
        })?;
        // Who goes away while it waits has tried nothing.
        let turn = self.door().passwords.turn().await?;
        let auditor = self.auditor();
        // And who goes away now has tried all the same, or hanging up would be the way to try without end.
        to_the_end(async move {
            let kept = user.as_ref().map(|user| user.password());
            let is_right = turn.verify(kept.clone(), password).await?;
            if let (true, Some(user), Some(kept)) = (is_right, user.clone(), kept) {
                counted("ok");
                return Ok((user, kept));
            }
            counted("refused");
            attempt.was_wrong();
            if let Some(user) = user {
                // Beside the answer, which comes as soon for a name that is nobody's. Of that nothing is kept, as it may be a
                // password in the wrong field.
                tokio::spawn(async move {
                    let detail = json!({"from": from.to_string()});
                    auditor.note(&user.name, "session.refused", &user.subtree, detail, false).await;
                });
            }
            Err(LoginError::Refused)
        })
        .await
    }

    /// Gives a user who knows their password until now another one; all their other sessions end.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn change_password(
        &self,
        current: Secret,
        password: Secret,
        by: &Caller,
        from: IpAddr,
    ) -> Result<(), LoginError> {
        let Some(user) = by.key().filter(|key| key.session.is_some()).map(|key| Arc::clone(&key.owner)) else {
            return Err(LoginError::NoUser);
        };
        let refused = |error| match error {
            PrincipalError::Invalid { field, reason } => LoginError::Invalid { field, reason },
            PrincipalError::Store(error) => LoginError::Store(error),
            _ => LoginError::Busy,
        };
        check_password(&password).map_err(refused)?;
        let attempt = self.door().attempt_again(user.id, self.clock().now_ms());
        let (user, shown) = self.prove(Some(user), current, attempt, from).await?;
        match self.give_password(user, password, Some(shown), by).await.map_err(refused)? {
            true => Ok(()),
            false => Err(LoginError::Refused),
        }
    }

    /// Ends the session that `by` was recognised by; false when it was none.
    pub async fn log_out(&self, by: &Caller) -> Result<bool, StoreError> {
        let Some(session) = by.key().filter(|key| key.session.is_some()).cloned() else { return Ok(false) };
        let (principals, control, auditor) = (Arc::clone(self.principals()), self.control().clone(), self.auditor());
        to_the_end(async move {
            principals.end_session(&control, &session).await?;
            let owner = &session.owner;
            auditor.note(&owner.name, "session.remove", &owner.subtree, json!({}), true).await;
            Ok(true)
        })
        .await
    }
}
