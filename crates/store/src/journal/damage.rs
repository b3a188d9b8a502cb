//! What was found to be damaged: said once, counted, and shown for as long as what was set aside is there. What it takes on the
//! volume counts as the journal's; when that is at its cap the oldest of these files go, whose rows are elsewhere, and only
//! the account of them stays.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use metrics::{counter, gauge};
use parking_lot::Mutex;

/// The name of the account beside the files that were set aside.
const ACCOUNT: &str = "damage.txt";
/// Accounts that are kept; beyond, the oldest goes with its files.
const MOST: usize = 256;

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
    /// Whether the files were removed for want of room, so that only the account is there.
    pub dropped: bool,
}

/// Everything that is known to be damaged. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Damages(Arc<Mutex<Vec<Kept>>>);

/// Damage, oldest first, with the bytes of the files that were set aside.
struct Kept {
    damage: Damage,
    bytes: u64,
}

impl Damages {
    /// What former processes set aside under the directory of a journal.
    pub(super) fn load(dir: &Path) -> Damages {
        let damages = Damages::default();
        let entries = fs::read_dir(directory(dir)).into_iter().flatten().flatten();
        let mut found: Vec<Damage> = entries.filter_map(|entry| Damage::read(entry.path())).collect();
        found.sort_by_cached_key(|damage| {
            let dir = damage.set_aside.clone().unwrap_or_default();
            let written = fs::metadata(Damage::account_path(&dir)).or_else(|_| fs::metadata(&dir));
            (written.and_then(|metadata| metadata.modified()).unwrap_or(SystemTime::UNIX_EPOCH), dir)
        });
        *damages.0.lock() = found.into_iter().map(Kept::of).collect();
        damages.list();
        damages
    }

    /// Reports a new one.
    pub(super) fn report(&self, damage: Damage) {
        let Damage { file, offset, what, set_aside, salvaged, lost, dropped: _ } = &damage;
        let (lost, kept) = (lost.map_or("unknown".to_owned(), |lost| lost.to_string()), set_aside.as_deref());
        let kept = kept.map_or("nowhere".into(), Path::to_string_lossy);
        tracing::error!(
            file = %file.display(), offset, what, salvaged, lost, set_aside = %kept,
            "the journal is damaged: what is readable was salvaged, new events go on"
        );
        counter!("vestibule_journal_damage_total").increment(1);
        counter!("vestibule_journal_salvaged_records_total").increment(*salvaged);
        counter!("vestibule_journal_lost_records_total").increment(damage.lost.unwrap_or(0));
        {
            let mut kept = self.0.lock();
            kept.push(Kept::of(damage));
            while kept.len() > MOST {
                let oldest = kept.remove(0).damage;
                let removed = oldest.set_aside.as_deref().map_or(Ok(()), fs::remove_dir_all);
                tell_dropped(&oldest, removed.err());
            }
        }
        self.list();
    }

    /// What is damaged, without what somebody has taken away since.
    pub(super) fn list(&self) -> Vec<Damage> {
        let mut kept = self.0.lock();
        kept.retain(|kept| kept.damage.set_aside.as_ref().is_none_or(|dir| dir.exists()));
        gauge!("vestibule_journal_damaged_segments").set(kept.len() as f64);
        gauge!("vestibule_journal_damaged_bytes").set(kept.iter().map(|kept| kept.bytes).sum::<u64>() as f64);
        kept.iter().map(|kept| kept.damage.clone()).collect()
    }

    /// What the files take on the volume that were set aside.
    pub(super) fn bytes(&self) -> u64 {
        self.0.lock().iter().map(|kept| kept.bytes).sum()
    }

    /// Removes the files that were set aside first and are still there; false: there are none, or they do not go.
    pub(super) fn drop_oldest(&self) -> bool {
        let dropped = {
            let mut kept = self.0.lock();
            let Some(oldest) = kept.iter_mut().find(|kept| kept.bytes > 0) else { return false };
            oldest.damage.dropped = true;
            let error = oldest.damage.remove_files().err();
            oldest.bytes = oldest.damage.bytes();
            let dropped = error.is_none();
            tell_dropped(&oldest.damage, error);
            dropped
        };
        self.list();
        dropped
    }
}

impl Kept {
    fn of(damage: Damage) -> Kept {
        Kept { bytes: damage.bytes(), damage }
    }
}

fn tell_dropped(damage: &Damage, error: Option<io::Error>) {
    let dir = damage.set_aside.as_deref().unwrap_or(&damage.file).display();
    match error {
        None => {
            counter!("vestibule_journal_damaged_dropped_total").increment(1);
            tracing::warn!(%dir, "the files of a damaged journal segment, whose readable rows were salvaged, gave way");
        }
        Some(error) => tracing::warn!(%dir, %error, "the files of a damaged journal segment cannot be removed"),
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
            "file: {}\noffset: {}\nwhat: {}\nsalvaged: {}\nlost: {lost}\ndropped: {}\n",
            self.file.display(),
            self.offset,
            self.what,
            self.salvaged,
            self.dropped
        );
        text
    }

    /// The files that were set aside, without the account.
    fn files(&self) -> Vec<PathBuf> {
        let entries = self.set_aside.iter().flat_map(fs::read_dir).flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| !path.ends_with(ACCOUNT)).collect()
    }

    fn bytes(&self) -> u64 {
        self.files().iter().map(|file| fs::metadata(file).map_or(0, |metadata| metadata.len())).sum()
    }

    /// Removes the files, and says so in the account.
    fn remove_files(&self) -> io::Result<()> {
        self.files().iter().try_for_each(fs::remove_file)?;
        self.set_aside.as_ref().map_or(Ok(()), |dir| fs::write(Damage::account_path(dir), self.account()))
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
            dropped: line("dropped") == Some("true"),
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
            dropped: false,
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

    /// Damage with a file of so many bytes set aside.
    fn damage(journal: &Path, name: &str, bytes: usize) -> Damage {
        let aside = directory(journal).join(name);
        fs::create_dir_all(&aside).unwrap();
        let damage = Damage {
            file: journal.join(name).with_extension("db"),
            offset: 0,
            what: "a page".into(),
            set_aside: Some(aside.clone()),
            salvaged: 1,
            lost: None,
            dropped: false,
        };
        fs::write(aside.join(name).with_extension("db"), vec![0; bytes]).unwrap();
        fs::write(Damage::account_path(&aside), damage.account()).unwrap();
        damage
    }

    #[test]
    fn the_oldest_files_go_first_and_are_still_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let damages = Damages::default();
        for (name, bytes) in [("2026-01-09-1", 30), ("2026-01-01-1", 20), ("2026-01-05-1", 0)] {
            damages.report(damage(dir.path(), name, bytes));
        }
        assert_eq!(damages.bytes(), 50);
        assert!(damages.drop_oldest());
        assert_eq!(damages.bytes(), 20, "by when, not by name");
        let told = |damages: &Damages| damages.list().iter().map(|damage| damage.dropped).collect::<Vec<_>>();
        assert_eq!(told(&damages), [true, false, false]);
        let loaded = Damages::load(dir.path());
        assert_eq!((loaded.bytes(), loaded.list().iter().filter(|damage| damage.dropped).count()), (20, 1));
        assert!(damages.drop_oldest());
        assert!(!damages.drop_oldest(), "nothing is left");
        assert_eq!((damages.bytes(), damages.list().len()), (0, 3));
    }

    #[test]
    fn accounts_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let damages = Damages::default();
        for n in 0..MOST + 2 {
            damages.report(damage(dir.path(), &format!("2026-01-01-{n}"), 1));
        }
        assert_eq!((damages.list().len(), damages.bytes()), (MOST, MOST as u64));
        assert_eq!(Damages::load(dir.path()).list().len(), MOST);
        assert!(!directory(dir.path()).join("2026-01-01-1").exists());
    }
}
