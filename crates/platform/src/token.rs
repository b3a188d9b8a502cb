//! Tokens: that of the administrator, a file that only the owner of the data directory can read, and those that are made.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use subtle::ConstantTimeEq as _;
use uuid::Uuid;
use vestibule_store::{Secret, StoreError};
use zeroize::Zeroizing;

use crate::caller::Caller;
use crate::org::OrgPath;
use crate::permission::Role;
use crate::platform::{Platform, to_the_end};
use crate::principal::{NewPrincipal, Principal, PrincipalError, PrincipalKind, digest_of};
use crate::rate::Pace;

const RANDOM_BYTES: usize = 32;
const PREFIX: &str = "vst_";
/// The longest time after which a token may end: ten years.
const LONGEST: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// Why the token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("token file {path}: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read the file.
    #[error("token file {path} is readable by others (mode {mode:o}); run: chmod 600 {path}")]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else.
    #[error("token file {path} holds no token of at least 32 characters; remove it to have a new one made")]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
}

/// The administrator's bearer token.
pub struct TokenFile {
    path: PathBuf,
    token: Zeroizing<String>,
}

impl TokenFile {
    /// Reads the token, or makes one with mode 0600.
    pub fn open(path: &Path) -> Result<TokenFile, TokenError> {
        let io = |source| TokenError::Io { path: path.to_owned(), source };
        match fs::read_to_string(path) {
            Ok(text) => {
                let mode = fs::metadata(path).map_err(io)?.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(TokenError::Exposed { path: path.to_owned(), mode });
                }
                let token = Zeroizing::new(text.trim().to_owned());
                if token.len() < 32 || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(TokenError::Malformed { path: path.to_owned() });
                }
                Ok(TokenFile { path: path.to_owned(), token })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let token = mint(PREFIX);
                let mut file =
                    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(io)?;
                file.write_all(token.as_bytes()).and_then(|()| file.write_all(b"\n")).map_err(io)?;
                file.sync_all().map_err(io)?;
                Ok(TokenFile { path: path.to_owned(), token })
            }
            Err(error) => Err(io(error)),
        }
    }

    /// Where the token is kept.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token itself, to be handed to its owner only.
    pub fn reveal(&self) -> &str {
        &self.token
    }

    fn matches(&self, presented: &str) -> bool {
        self.token.as_bytes().ct_eq(presented.as_bytes()).into()
    }
}

/// A new token: a prefix by which people and scanners know what it is, and 256 random bits.
pub(crate) fn mint(prefix: &'static str) -> Zeroizing<String> {
    let mut random = Zeroizing::new([0u8; RANDOM_BYTES]);
    aws_lc_rs::rand::fill(random.as_mut()).expect("the generator of the crypto library never runs dry");
    let mut token = Zeroizing::new(String::with_capacity(prefix.len() + 2 * RANDOM_BYTES));
    token.push_str(prefix);
    for byte in random.iter() {
        for nibble in [byte >> 4, byte & 15] {
            token.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
        }
    }
    token
}

/// A new token, and its digest to be kept.
fn new_token(prefix: &'static str) -> (Zeroizing<String>, Secret) {
    let token = mint(prefix);
    let digest = Secret::new(digest_of(&token));
    (token, digest)
}

/// A token to be made.
pub struct NewToken {
    /// Its name, of 1 to 64 bytes, that no other token and no user has.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// The part of the organisation it is bound to; none: that of the caller.
    pub subtree: Option<OrgPath>,
    /// When it ends, from now: 1 s to ten years; none: it does not, or when the token that makes it does.
    pub expires_in: Option<Duration>,
}

impl Platform {
    /// Who a bearer token belongs to; `None` when nobody's, or when it has ended.
    pub fn authorize(&self, bearer: &str) -> Option<Caller> {
        if self.token().matches(bearer) {
            return Some(Caller::administrator());
        }
        let now = self.clock().now_ms();
        let key = self.principals().key(bearer).filter(|key| key.is_good(now))?;
        self.principals().note_used(&key.owner, now);
        Some(Caller::holding(&key))
    }

    /// Counts a request of the caller, or says how long until there may be one. The administrator may make as many as it
    /// likes.
    ///
    /// # Errors
    /// How long to wait.
    pub fn count_request(&self, by: &Caller) -> Result<(), Duration> {
        let a_second = i64::from(self.config().requests_per_second);
        let Some(key) = by.key().filter(|_| a_second > 0) else { return Ok(()) };
        let pace = Pace { every_ms: (1_000 / a_second).max(1), burst: a_second * 10 };
        key.owner.used.take(pace, self.clock().now_ms()).inspect_err(|_| {
            metrics::counter!("vestibule_requests_over_rate_total").increment(1);
        })
    }

    /// Makes a token, durably. The secret is given this once; nobody can read it again.
    ///
    /// # Errors
    /// [`PrincipalError`].
    pub async fn add_token(
        &self,
        new: NewToken,
        by: &Caller,
    ) -> Result<(Arc<Principal>, Zeroizing<String>), PrincipalError> {
        let invalid = |field, reason| PrincipalError::Invalid { field, reason };
        let subtree = by.place(new.subtree)?;
        if new.expires_in.is_some_and(|after| after.is_zero() || after > LONGEST) {
            return Err(invalid("expires_in", "must be between 1 second and ten years"));
        }
        let created = self.clock().now_ms();
        let ends = |after: Duration| created.saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX));
        // A token does not live on in those it makes.
        let expires = match (new.expires_in.map(ends), by.rights_end()) {
            (Some(wanted), Some(end)) if wanted > end => {
                return Err(invalid("expires_in", "must not be beyond the end of the token that makes it"));
            }
            (wanted, end) => wanted.or(end),
        };
        let (token, secret) = new_token(PREFIX);
        let new = NewPrincipal {
            kind: PrincipalKind::Token,
            name: new.name,
            role: new.role,
            subtree,
            secret,
            created,
            created_by: by.name().to_owned(),
            expires,
        };
        let (principals, control, auditor) = (Arc::clone(self.principals()), self.control().clone(), self.auditor());
        let actor = by.name().to_owned();
        let made = to_the_end(async move {
            let made = principals.add(&control, new).await?;
            let detail = json!({"name": made.name, "role": made.role, "subtree": made.subtree.as_str(), "expires": made.expires});
            auditor.note(&actor, "token.add", &made.subtree, detail, true).await;
            Ok::<_, PrincipalError>(made)
        });
        Ok((made.await?, token))
    }

    /// At most `limit` tokens that `by` sees, with ids beyond `after`, in the order of their making: those that are bound
    /// to its own part of the organisation, or below.
    pub fn tokens(&self, after: Option<Uuid>, limit: usize, by: &Caller) -> Vec<Arc<Principal>> {
        self.principals().list(PrincipalKind::Token, after, limit, by)
    }

    /// Removes the token with this id or name, durably and at once: also what goes on with it ends. False when `by` sees no
    /// such token.
    pub async fn remove_token(&self, key: &str, by: &Caller) -> Result<bool, StoreError> {
        self.remove_principal(PrincipalKind::Token, "token.remove", key, by).await
    }

    pub(crate) async fn remove_principal(
        &self,
        kind: PrincipalKind,
        action: &'static str,
        key: &str,
        by: &Caller,
    ) -> Result<bool, StoreError> {
        let Some(found) = self.principals().find(kind, key, by) else { return Ok(false) };
        let (principals, control, auditor) = (Arc::clone(self.principals()), self.control().clone(), self.auditor());
        let actor = by.name().to_owned();
        to_the_end(async move {
            if !principals.remove(&control, &found).await? {
                return Ok(false);
            }
            auditor.note(&actor, action, &found.subtree, json!({"name": found.name}), true).await;
            Ok(true)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_made_once_and_only_for_its_owner() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        let made = TokenFile::open(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        let read = TokenFile::open(&path).expect("read");
        assert!(read.matches(made.reveal()));
        assert!(!read.matches(""));
        assert!(!read.matches(&made.reveal()[1..]));
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        TokenFile::open(&path).expect("made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(TokenFile::open(&path), Err(TokenError::Exposed { mode: 0o644, .. })));
    }

    #[test]
    fn an_empty_token_file_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).expect("made");
        assert!(matches!(TokenFile::open(&path), Err(TokenError::Malformed { .. })));
    }

    #[test]
    fn tokens_differ_and_are_known_by_their_digest_only() {
        let ((one, digest), (other, _)) = (new_token("vst_"), new_token("vst_"));
        assert!(one.len() == 4 + 64 && one.starts_with("vst_") && one != other);
        assert_eq!(digest, Secret::new(digest_of(&one)));
    }
}
