//! Passwords: kept as Argon2id, computed by few at a time.

use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordHasher as _, PasswordVerifier as _, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use vestibule_store::Secret;
use zeroize::Zeroizing;

use crate::principal::PrincipalError;

/// So many are computed at a time, 19 MiB and some tens of milliseconds each.
const AT_A_TIME: usize = 2;
/// So many may wait for that.
const WAITING: usize = 64;
/// OWASP's first choice: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const SALT: usize = 16;

/// In the place of the hash of somebody who is not there, so that looking takes as long. No password is known for it.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$dmVzdGlidWxlLWRlY295IQ$Vm9pY2VzIGluIHRoZSBoYWxsLCBubyBvbmUgdGhlcmU";

/// Too many passwords are being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooBusy;

/// Computes hashes on a bounded pool.
pub(crate) struct Passwords {
    /// Those that compute, and those that wait.
    places: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Default for Passwords {
    fn default() -> Self {
        Passwords { places: Arc::new(Semaphore::new(AT_A_TIME + WAITING)), turns: Arc::new(Semaphore::new(AT_A_TIME)) }
    }
}

/// The right to compute one hash.
#[derive(Debug)]
pub(crate) struct Turn {
    place: OwnedSemaphorePermit,
    turn: OwnedSemaphorePermit,
}

impl Passwords {
    /// The hash of a new password, to be kept.
    pub(crate) async fn hash(&self, password: Secret) -> Result<Secret, TooBusy> {
        self.turn().await?.compute(move || hash(&password)).await
    }

    /// Waits until one may be computed. Who goes away meanwhile has cost nothing.
    pub(crate) async fn turn(&self) -> Result<Turn, TooBusy> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            metrics::counter!("vestibule_passwords_refused_total").increment(1);
            TooBusy
        })?;
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| TooBusy)?;
        Ok(Turn { place, turn })
    }
}

impl Turn {
    /// Whether the password is the one of the hash; of nobody's hash it is not, and that takes as long.
    pub(crate) async fn verify(self, kept: Option<Secret>, password: Secret) -> Result<bool, TooBusy> {
        self.compute(move || {
            let right = verify(kept.as_ref().map_or(DECOY.as_bytes(), Secret::expose), &password);
            right && kept.is_some()
        })
        .await
    }

    async fn compute<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, TooBusy> {
        let done = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((self.turn, self.place));
            done
        });
        // It only fails when the runtime is being shut down.
        done.await.map_err(|_| TooBusy)
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are within the bounds of Argon2");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

fn hash(password: &Secret) -> Secret {
    let mut salt = [0; SALT];
    aws_lc_rs::rand::fill(&mut salt).expect("the generator of the crypto library never runs dry");
    let salt = SaltString::encode_b64(&salt).expect("16 bytes are a salt");
    let hashed = argon2().hash_password(password.expose(), &salt).expect("a password of bounded length is hashed");
    Secret::new(hashed.to_string().into_bytes())
}

/// Goes by the parameters that stand in the hash.
fn verify(kept: &[u8], password: &Secret) -> bool {
    let kept = std::str::from_utf8(kept).ok().and_then(|text| PasswordHash::new(text).ok());
    kept.is_some_and(|kept| argon2().verify_password(password.expose(), &kept).is_ok())
}

/// Long enough, and not so long that hashing it is work: there is no other rule.
pub(crate) fn check_password(password: &Secret) -> Result<(), PrincipalError> {
    let text = std::str::from_utf8(password.expose()).map(|text| Zeroizing::new(text.to_owned()));
    let length = text.map_or(0, |text| text.chars().count());
    if (10..=256).contains(&length) {
        return Ok(());
    }
    Err(PrincipalError::Invalid { field: "password", reason: "must have 10 to 256 characters" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let (password, other) = (Secret::new(*b"correct horse"), Secret::new(*b"correct hors"));
        let (kept, again) = (hash(&password), hash(&password));
        assert_ne!(kept, again, "each has a salt of its own");
        assert!(verify(kept.expose(), &password) && !verify(kept.expose(), &other));
        assert!(!verify(b"", &password) && !verify(b"\xff", &password));
    }

    #[test]
    fn nobody_has_a_hash_that_costs_as_much_as_anybodys() {
        let decoy = PasswordHash::new(DECOY).expect("a hash");
        let kept = hash(&Secret::new(*b"correct horse"));
        let kept = PasswordHash::new(std::str::from_utf8(kept.expose()).expect("text")).expect("a hash");
        assert_eq!((decoy.algorithm, decoy.version, &decoy.params), (kept.algorithm, kept.version, &kept.params));
        assert_eq!(decoy.hash.map(|hash| hash.len()), kept.hash.map(|hash| hash.len()));
        assert!(!verify(DECOY.as_bytes(), &Secret::new(*b"")));
    }

    #[test]
    fn a_password_is_long_enough_and_not_too_long() {
        for (password, fits) in [
            ("123456789", false),
            ("1234567890", true),
            ("ääääääääää", true),
            (&*"ß".repeat(256), true),
            (&*"x".repeat(257), false),
            ("", false),
        ] {
            assert_eq!(check_password(&Secret::new(password)).is_ok(), fits, "{password}");
        }
    }

    #[tokio::test]
    async fn what_is_too_much_at_a_time_is_refused() {
        let passwords = Passwords { places: Arc::new(Semaphore::new(1)), turns: Arc::new(Semaphore::new(1)) };
        let turn = passwords.turn().await.expect("a place");
        assert_eq!(passwords.turn().await.err(), Some(TooBusy));
        assert_eq!(turn.verify(None, Secret::new(*b"x")).await, Ok(false));
        assert!(passwords.turn().await.is_ok());
    }
}
