//! The data directory: who may use it and in which format it is.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::OpenError;

/// The format this release writes and reads; `VERSION` holds it in decimal. It rises with every change of a file that is not
/// brought up to date by itself, which the databases are. 1, whose journal had no checksums, was never released.
const FORMAT: i64 = 2;

/// Where a restore puts what it has until it has all of it.
pub(crate) const RESTORING: &str = "restoring";

/// A data directory that is locked for this process as long as the value lives.
pub(crate) struct DataDir {
    path: PathBuf,
    fresh: bool,
    _lock: Lock,
}

/// The lock of a data directory, held as long as the value lives.
struct Lock(File);

impl Drop for Lock {
    /// Closing the file is not enough: a child of this process that is about to run another program has it, too, and would
    /// hold the lock for as long as that takes.
    fn drop(&mut self) {
        // An error leaves what there was without it: the lock goes with the last of those who have the file.
        let _ = self.0.unlock();
    }
}

impl DataDir {
    /// Creates what is missing (mode 0700), locks the directory and checks its format.
    pub(crate) fn open(path: &Path) -> Result<DataDir, OpenError> {
        create_dir(path)?;
        let lock = lock(path)?;
        if path.join(RESTORING).exists() {
            return Err(OpenError::HalfRestored { dir: path.to_owned() });
        }
        let fresh = !check_version(path)?;
        Ok(DataDir { path: path.to_owned(), fresh, _lock: lock })
    }

    /// Whether the directory was never completely set up.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes `VERSION`; from now on a missing key file is an error. The last step of the set-up.
    pub(crate) fn set_up(&mut self) -> Result<(), OpenError> {
        if self.fresh {
            let path = self.path.join("VERSION");
            write_new(&path, format!("{FORMAT}\n").as_bytes(), 0o644)?;
            self.fresh = false;
        }
        Ok(())
    }
}

/// Creates the directory and its parents with mode 0700, and makes every entry that is new durable: what is synced in a
/// directory that a power cut takes away is lost with it.
pub(crate) fn create_dir(path: &Path) -> Result<(), OpenError> {
    let create = || {
        let new = path.ancestors().skip(1).take_while(|parent| !parent.as_os_str().is_empty() && !parent.exists());
        let new: Vec<&Path> = new.collect();
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        [path].into_iter().chain(new).try_for_each(sync_entry)
    };
    create().map_err(|source| OpenError::Io { action: "create the directory", path: path.to_owned(), source })
}

/// Writes a file that must not exist yet, durably: whole under another name first, so that a crash leaves all or nothing.
pub(crate) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), OpenError> {
    let partial = path.with_extension("partial");
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&partial)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        sync_entry(path)
    };
    write().map_err(|source| OpenError::Io { action: "write", path: path.to_owned(), source })
}

/// Makes durable that the path is in its directory.
pub(crate) fn sync_entry(path: &Path) -> std::io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

fn lock(dir: &Path) -> Result<Lock, OpenError> {
    let path = dir.join("LOCK");
    let failed = |action, source| OpenError::Io { action, path: path.clone(), source };
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(|source| failed("open", source))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // The name of the holder is a courtesy: without it the error is still right.
            let mut holder = String::new();
            let _ = (&mut file).take(32).read_to_string(&mut holder);
            let holder = Some(holder.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(OpenError::InUse { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(failed("lock", source)),
    }
    let mut lock = Lock(file);
    let named = lock.0.set_len(0).and_then(|()| writeln!(lock.0, "{}", std::process::id()));
    named.map_err(|source| failed("write", source))?;
    Ok(lock)
}

/// Whether there is a `VERSION`; an error when it is not one of ours, or of another release.
fn check_version(dir: &Path) -> Result<bool, OpenError> {
    let path = dir.join("VERSION");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(source) => {
            return Err(OpenError::Io { action: "read", path, source });
        }
    };
    match text.trim().parse::<i64>() {
        Ok(found) if found > FORMAT => {
            Err(OpenError::Newer { what: format!("the data directory {}", dir.display()), found, known: FORMAT })
        }
        Ok(FORMAT) => Ok(true),
        Ok(found @ 1..) => Err(OpenError::Older { dir: dir.to_owned(), found, known: FORMAT }),
        _ => Err(OpenError::Version { path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_does_not_stay_with_a_child_that_has_inherited_the_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = lock(dir.path()).expect("nobody has it");
        assert!(matches!(lock(dir.path()), Err(OpenError::InUse { .. })));
        let inherited = first.0.try_clone().expect("as a child has it until it runs another program");
        drop(first);
        drop(lock(dir.path()).expect("it was given back"));
        drop(inherited);
    }
}
