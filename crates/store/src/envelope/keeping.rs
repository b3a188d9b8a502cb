//! Which key it is: the one that was given, or one of those in the data directory, as the database says.
//!
//! A key in the data directory is exchanged in three steps: `envelope.key.new` is made, everything is sealed under it in one
//! transaction, and it takes the place of `envelope.key`. After a crash in between both are there, and the database says
//! which one counts.

use std::fs;
use std::path::{Path, PathBuf};

use super::EnvelopeKey;
use super::recorded::Recorded;
use crate::OpenError;
use crate::directory::{DataDir, create_dir, sync_entry, write_new};

/// The key in the data directory.
pub(crate) const KEY: &str = "keys/envelope.key";
/// The one that is to take its place.
pub(crate) const NEXT: &str = "keys/envelope.key.new";

/// Keys that may be the one.
pub(crate) enum Candidates {
    /// It was given.
    Given(EnvelopeKey),
    /// In the data directory.
    Kept {
        dir: PathBuf,
        key: Option<EnvelopeKey>,
        /// What an exchange that was cut short has left.
        next: Option<EnvelopeKey>,
    },
    /// A new one, for a data directory that never had one.
    New { dir: PathBuf, key: EnvelopeKey },
}

impl Candidates {
    /// Looks for them. Writes nothing.
    pub(crate) fn find(dir: &DataDir, given: Option<&EnvelopeKey>) -> Result<Candidates, OpenError> {
        if let Some(given) = given {
            return Ok(Candidates::Given(given.clone()));
        }
        let read = |path: PathBuf| if path.exists() { EnvelopeKey::read(&path).map(Some) } else { Ok(None) };
        let path = dir.path().join(KEY);
        let (key, next) = (read(path.clone())?, read(dir.path().join(NEXT))?);
        let dir_path = dir.path().to_owned();
        if key.is_some() || next.is_some() {
            return Ok(Candidates::Kept { dir: dir_path, key, next });
        }
        if !dir.is_fresh() {
            return Err(OpenError::KeyMissing { path });
        }
        let key = EnvelopeKey::random(path.display().to_string())?;
        Ok(Candidates::New { dir: dir_path, key })
    }

    /// Takes the one that the database is under, and brings the data directory in order. Writes nothing when it is none of
    /// them.
    pub(crate) fn settle(self, recorded: Option<&Recorded>) -> Result<EnvelopeKey, OpenError> {
        let wrong = |key: &EnvelopeKey, recorded: &Recorded| OpenError::WrongKey {
            origin: key.origin().to_owned(),
            given: key.id(),
            needed: recorded.key_id.clone(),
        };
        let is = |key: &EnvelopeKey| recorded.is_none_or(|recorded| recorded.is(key));
        match (self, recorded) {
            (Candidates::Given(key) | Candidates::New { key, .. }, Some(recorded)) if !recorded.is(&key) => {
                Err(wrong(&key, recorded))
            }
            (Candidates::Given(key), _) => Ok(key),
            (Candidates::New { dir, key }, _) => {
                let path = dir.join(KEY);
                create_dir(&dir.join("keys"))?;
                write_new(&path, key.bytes(), 0o600)?;
                Ok(key)
            }
            (Candidates::Kept { dir, key: Some(key), next }, _) if is(&key) => {
                if next.is_some() {
                    remove(&dir.join(NEXT))?;
                }
                Ok(key)
            }
            (Candidates::Kept { dir, next: Some(next), .. }, Some(recorded)) if recorded.is(&next) => {
                promote(&dir)?;
                // It is called by the name that it has now.
                EnvelopeKey::read(&dir.join(KEY))
            }
            (Candidates::Kept { key: Some(key), .. } | Candidates::Kept { next: Some(key), .. }, Some(recorded)) => {
                Err(wrong(&key, recorded))
            }
            (Candidates::Kept { dir, .. }, _) => Err(OpenError::KeyMissing { path: dir.join(KEY) }),
        }
    }
}

/// Puts the next key beside the one that counts, durably.
pub(crate) fn prepare(dir: &Path, key: &EnvelopeKey) -> Result<(), OpenError> {
    create_dir(&dir.join("keys"))?;
    write_new(&dir.join(NEXT), key.bytes(), 0o600)
}

/// The next key takes the place of the other one, durably.
pub(crate) fn promote(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(KEY);
    let renamed = fs::rename(dir.join(NEXT), &path).and_then(|()| sync_entry(&path));
    renamed.map_err(|source| OpenError::Io { action: "write", path, source })
}

fn remove(path: &Path) -> Result<(), OpenError> {
    let removed = fs::remove_file(path).and_then(|()| sync_entry(path));
    removed.map_err(|source| OpenError::Io { action: "remove", path: path.to_owned(), source })
}
