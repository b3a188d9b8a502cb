//! Sessions: people log in with a name and a password, and are known by what they are given for half a day.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use vestibule_store::{Secret, SessionRow, StoreError};
use zeroize::Zeroizing;

use crate::caller::Caller;
use crate::password::{Passwords, TooBusy, check_password};
use crate::platform::{Platform, to_the_end};
use crate::principal::{Principal, PrincipalError, PrincipalKind, digest_of};
use crate::rate::{Pace, UsedBy};
use crate::token::mint;

const PREFIX: &str = "vss_";
/// How long a session lasts, in milliseconds.
const LASTS: i64 = 12 * 60 * 60 * 1_000;
/// Wrong passwords of one name: ten at once, then one every two minutes.
const OF_A_NAME: Pace = Pace { every_ms: 120_000, burst: 10 };
/// Wrong passwords from one address, behind which there may be many people.
const OF_AN_ADDRESS: Pace = Pace { every_ms: 15_000, burst: 40 };

/// What a log-in needs beside the people themselves.
pub(crate) struct Door {
    pub(crate) passwords: Passwords,
    names: UsedBy,
    addresses: UsedBy,
}

impl Default for Door {
    fn default() -> Self {
        Door { passwords: Passwords::default(), names: UsedBy::new(OF_A_NAME), addresses: UsedBy::new(OF_AN_ADDRESS) }
    }
}

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
        let (user, kept) = self.prove(name, password, from).await?;
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

    /// Whose name and password these are, with the hash that says so. Failures count for the name and for the address; that
    /// a name is nobody's shows neither in the answer nor in how long it takes.
    async fn prove(&self, name: &str, password: Secret, from: IpAddr) -> Result<(Arc<Principal>, Secret), LoginError> {
        let counted = |outcome| metrics::counter!("vestibule_logins_total", "outcome" => outcome).increment(1);
        let (now, door) = (self.clock().now_ms(), self.door());
        let taken = door.addresses.take(&from, now);
        let taken = taken.and_then(|()| door.names.take(name, now).inspect_err(|_| door.addresses.give_back(&from)));
        if let Err(after) = taken {
            counted("too_many");
            return Err(LoginError::TooManyFailures { after });
        }
        let give_back = || {
            door.addresses.give_back(&from);
            door.names.give_back(name);
        };
        // By the name only: an id is nothing that people know.
        let user = self.principals().find(PrincipalKind::User, name, &Caller::program());
        let user = user.filter(|user| *user.name == *name);
        let kept = user.as_ref().map(|user| user.password());
        let is_right = door.passwords.verify(kept.clone(), password).await.inspect_err(|_| give_back())?;
        match (user, kept) {
            (Some(user), Some(kept)) if is_right => {
                give_back();
                counted("ok");
                Ok((user, kept))
            }
            (user, _) => {
                counted("refused");
                if let Some(user) = user {
                    self.login_refused(user, from);
                }
                Err(LoginError::Refused)
            }
        }
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
        if !by.is_user() {
            return Err(LoginError::NoUser);
        }
        let refused = |error| match error {
            PrincipalError::Invalid { field, reason } => LoginError::Invalid { field, reason },
            PrincipalError::Store(error) => LoginError::Store(error),
            _ => LoginError::Busy,
        };
        check_password(&password).map_err(refused)?;
        self.prove(by.name(), current, from).await?;
        match self.set_password(by.name(), password, by).await.map_err(refused)? {
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

    /// Writes it down beside the answer, which comes as soon for a name that is nobody's. Of that nothing is kept, as it may
    /// be a password in the wrong field.
    fn login_refused(&self, user: Arc<Principal>, from: IpAddr) {
        let auditor = self.auditor();
        self.runtime().spawn(async move {
            let detail = json!({"from": from.to_string()});
            auditor.note(&user.name, "session.refused", &user.subtree, detail, false).await;
        });
    }
}
