//! Which key it is: the one that was given, or one of those in the data directory, as the database says.
//!
//! A key in the data directory is exchanged in three steps: `envelope.key.new` is made, everything is sealed under it in one
//! transaction, and it takes the place of `envelope.key`. After a crash in between both are there, and the database says
//! which one counts.

use std::fs;
use std::path::{Path, PathBuf};

use super::EnvelopeKey;
use super::recorded::Under;
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
    /// them. No key is ever deleted: what an exchange has left that came to nothing is set aside under its id, and stays where
    /// it is as long as the database does not say which key it is under, as an empty one does that was named by mistake.
    pub(crate) fn settle(self, under: &Under) -> Result<EnvelopeKey, OpenError> {
        let wrong = |key: &EnvelopeKey, needed: &str| OpenError::WrongKey {
            origin: key.origin().to_owned(),
            given: key.id(),
            needed: needed.to_owned(),
        };
        match self {
            Candidates::Given(key) => match under.other_than(&key) {
                None => Ok(key),
                Some(needed) => Err(wrong(&key, needed)),
            },
            Candidates::New { dir, key } => {
                let path = dir.join(KEY);
                if let Some(needed) = under.other_than(&key) {
                    return Err(OpenError::KeyNeeded { path, needed: needed.to_owned() });
                }
                create_dir(&dir.join("keys"))?;
                write_new(&path, key.bytes(), 0o600)?;
                Ok(key)
            }
            Candidates::Kept { dir, key: Some(key), next } if under.other_than(&key).is_none() => {
                if next.is_some() && matches!(under, Under::Recorded(_)) {
                    set_aside(&dir)?;
                }
                Ok(key)
            }
            Candidates::Kept { dir, next: Some(next), .. } if under.is_surely(&next) => {
                promote(&dir)?;
                // It is called by the name that it has now.
                EnvelopeKey::read(&dir.join(KEY))
            }
            Candidates::Kept { dir, key, next } => match key.or(next) {
                Some(key) if let Some(needed) = under.other_than(&key) => Err(wrong(&key, needed)),
                _ => Err(OpenError::KeyMissing { path: dir.join(KEY) }),
            },
        }
    }
}

/// Puts the next key beside the one that counts, durably.
pub(crate) fn prepare(dir: &Path, key: &EnvelopeKey) -> Result<(), OpenError> {
    create_dir(&dir.join("keys"))?;
    if dir.join(NEXT).exists() {
        set_aside(dir)?;
    }
    write_new(&dir.join(NEXT), key.bytes(), 0o600)
}

/// The next key takes the place of the other one, durably.
pub(crate) fn promote(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(KEY);
    let renamed = fs::rename(dir.join(NEXT), &path).and_then(|()| sync_entry(&path));
    renamed.map_err(|source| OpenError::Io { action: "write", path, source })
}

/// What is where the next key goes is called by its id from now on, durably.
fn set_aside(dir: &Path) -> Result<(), OpenError> {
    let path = dir.join(NEXT);
    let aside = dir.join(format!("{KEY}.{}", EnvelopeKey::read(&path)?.id()));
    let renamed = fs::rename(&path, &aside).and_then(|()| sync_entry(&aside));
    renamed.map_err(|source| OpenError::Io { action: "write", path: aside, source })
}
