//! What was found to be damaged: said once, counted, and shown for as long as what was set aside is there.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use metrics::{counter, gauge};
use parking_lot::Mutex;

/// The name of the account beside the files that were set aside.
const ACCOUNT: &str = "damage.txt";

/// A file of the journal that was not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file, as it was named.
    pub file: PathBuf,
    /// Where in the file, in bytes from its beginning.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
    /// The directory to which the files were moved; `None`: there was nothing to move.
    pub set_aside: Option<PathBuf>,
    /// How many records of the segment were readable and are in the journal.
    pub salvaged: u64,
    /// How many are lost, if that is known.
    pub lost: Option<u64>,
}

/// Everything that is known to be damaged. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Damages(Arc<Mutex<Vec<Damage>>>);

impl Damages {
    /// What former processes set aside under the directory of a journal.
    pub(super) fn load(dir: &Path) -> Damages {
        let damages = Damages::default();
        let entries = fs::read_dir(directory(dir)).into_iter().flatten().flatten();
        let mut found: Vec<Damage> = entries.filter_map(|entry| Damage::read(entry.path())).collect();
        found.sort_by(|one, other| one.set_aside.cmp(&other.set_aside));
        *damages.0.lock() = found;
        damages.list();
        damages
    }

    /// Reports a new one.
    pub(super) fn report(&self, damage: Damage) {
        let Damage { file, offset, what, set_aside, salvaged, lost } = &damage;
        let (lost, kept) = (lost.map_or("unknown".to_owned(), |lost| lost.to_string()), set_aside.as_deref());
        let kept = kept.map_or("nowhere".into(), Path::to_string_lossy);
        tracing::error!(
            file = %file.display(), offset, what, salvaged, lost, set_aside = %kept,
            "the journal is damaged: what is readable was salvaged, new events go on"
        );
        counter!("vestibule_journal_damage_total").increment(1);
        counter!("vestibule_journal_salvaged_records_total").increment(*salvaged);
        counter!("vestibule_journal_lost_records_total").increment(damage.lost.unwrap_or(0));
        self.0.lock().push(damage);
        self.list();
    }

    /// What is damaged, without what somebody has taken away since.
    pub(super) fn list(&self) -> Vec<Damage> {
        let mut damages = self.0.lock();
        damages.retain(|damage| damage.set_aside.as_ref().is_none_or(|dir| dir.exists()));
        gauge!("vestibule_journal_damaged_segments").set(damages.len() as f64);
        damages.clone()
    }
}

impl Damage {
    /// The account of it, as a person and [`Damage::read`] read it.
    pub(super) fn account(&self) -> String {
        let mut text = String::new();
        let lost = self.lost.map_or("unknown".to_owned(), |lost| lost.to_string());
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "file: {}\noffset: {}\nwhat: {}\nsalvaged: {}\nlost: {lost}\n",
            self.file.display(),
            self.offset,
            self.what,
            self.salvaged
        );
        text
    }

    /// What lies in a directory of files that were set aside; None: it is no directory.
    fn read(dir: PathBuf) -> Option<Damage> {
        if !dir.is_dir() {
            return None;
        }
        // A crash may have come before the account: the files themselves are what counts.
        let text = fs::read_to_string(dir.join(ACCOUNT)).unwrap_or_default();
        let line = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Some(Damage {
            file: line("file").map_or_else(|| dir.clone(), PathBuf::from),
            offset: line("offset").and_then(|offset| offset.parse().ok()).unwrap_or(0),
            what: line("what").unwrap_or("the account of it is missing").to_owned(),
            salvaged: line("salvaged").and_then(|salvaged| salvaged.parse().ok()).unwrap_or(0),
            lost: line("lost").and_then(|lost| lost.parse().ok()),
            set_aside: Some(dir),
        })
    }

    /// Where the account is written.
    pub(super) fn account_path(set_aside: &Path) -> PathBuf {
        set_aside.join(ACCOUNT)
    }
}

/// Where damaged files go.
pub(super) fn directory(journal: &Path) -> PathBuf {
    journal.join("damaged")
}

/// Whether what the database said may come from a damaged file, and not from a disk or a process that cannot do more now.
pub(super) fn is_suspected(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => {
            let code = error.code().and_then(|code| code.parse::<u32>().ok());
            match code {
                // SQLITE_ERROR: our statements are right, so the schema is not.
                Some(code) if [1, 11, 26].contains(&(code & 0xff)) => true,
                // What the disk refuses to read (SQLITE_IOERR_READ, _DATA, _CORRUPTFS) or has not (_SHORT_READ).
                code => matches!(code, Some(266 | 522 | 8_202 | 8_458)),
            }
        }
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_aside_is_told_until_it_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let aside = directory(dir.path()).join("2026-01-01-1");
        fs::create_dir_all(&aside).unwrap();
        let damage = Damage {
            file: "2026-01-01-1.db".into(),
            offset: 4096,
            what: "a page: not what was written".into(),
            set_aside: Some(aside.clone()),
            salvaged: 3,
            lost: Some(2),
        };
        fs::write(Damage::account_path(&aside), damage.account()).unwrap();
        let damages = Damages::load(dir.path());
        assert_eq!(damages.list(), std::slice::from_ref(&damage));
        fs::remove_file(Damage::account_path(&aside)).unwrap();
        assert_eq!(Damages::load(dir.path()).list().len(), 1);
        fs::remove_dir(&aside).unwrap();
        assert_eq!(damages.list(), []);
        assert_eq!(Damages::load(dir.path()).list(), []);
    }
}
