//! What simulated devices keep through a loss of power, as real ones do: code, credentials and cached events.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use anyhow::{Context as _, bail};
use vestibule_device::{CacheError, FileCache, FileStorage};
use vestibule_platform::Secret;
use zeroize::Zeroizing;

/// What a simulated device comes in with.
pub(crate) struct Code {
    pub code: Zeroizing<String>,
    /// Nobody can have told the platform of it before.
    pub is_new: bool,
}

impl Code {
    pub(crate) fn drawn() -> Code {
        // As the platform makes them: sixteen hexadecimal digits may be decimal ones alone, which are not enough of those.
        let code = std::str::from_utf8(Secret::random_code().expose()).expect("letters").to_owned();
        Code { code: Zeroizing::new(code), is_new: true }
    }
}

/// The directory of a fleet: for each serial a code and a cache, and the credentials of all.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    dir: PathBuf,
}

impl StateDir {
    /// Uses a directory, which is made where it does not exist.
    pub(crate) fn open(dir: PathBuf) -> anyhow::Result<StateDir> {
        for made in [dir.join("codes"), dir.join("events")] {
            let builder = DirBuilder::new().recursive(true).mode(0o700).create(&made);
            builder.with_context(|| format!("the directory {} cannot be made", made.display()))?;
        }
        Ok(StateDir { dir })
    }

    /// The code of a serial: the one it has had before, or a new one that it keeps.
    pub(crate) fn code(&self, serial: &str) -> anyhow::Result<Code> {
        let path = self.dir.join("codes").join(serial);
        match fs::read_to_string(&path) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                let code = Zeroizing::new(text.trim_end().to_owned());
                if code.is_empty() {
                    bail!("the code in {} is gone; remove the file to draw another", path.display());
                }
                return Ok(Code { code, is_new: false });
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("the code in {} cannot be read", path.display())),
        }
        let drawn = Code::drawn();
        // Written beside it: a code cut short would look like another one.
        let unfinished = path.with_added_extension("new");
        let mut options = OpenOptions::new();
        let written = options.write(true).create(true).truncate(true).mode(0o600).open(&unfinished);
        let written = written.and_then(|mut file| {
            file.write_all(drawn.code.as_bytes())?;
            file.sync_all()?;
            fs::rename(&unfinished, &path)?;
            File::open(self.dir.join("codes"))?.sync_all()
        });
        written.with_context(|| format!("the code of {serial} cannot be kept in {}", path.display()))?;
        Ok(drawn)
    }

    /// Where the credentials of all devices are.
    pub(crate) fn storage(&self) -> anyhow::Result<FileStorage> {
        Ok(FileStorage::new(self.dir.join("credentials"))?)
    }

    /// Where the events of a device are.
    pub(crate) fn cache(&self, serial: &str) -> Result<FileCache, CacheError> {
        FileCache::open(self.dir.join("events").join(serial))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn osap_13_5_a_drawn_code_is_long_and_needs_no_window() {
        for _ in 0..10_000 {
            let drawn = Code::drawn().code;
            assert!(osap::key::Code::new(&*drawn).expect("a code").is_long(), "{}", *drawn);
        }
    }

    #[test]
    fn a_serial_keeps_its_code_where_only_the_owner_reads_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(dir.path().join("deep/state")).expect("made");
        let (first, other) = (state.code("SIM-0001").expect("drawn"), state.code("SIM-0002").expect("drawn"));
        assert!(first.is_new && other.is_new && first.code != other.code);
        let again = StateDir::open(dir.path().join("deep/state")).expect("there").code("SIM-0001").expect("kept");
        assert!(!again.is_new);
        assert_eq!(first.code, again.code);
        let path = dir.path().join("deep/state/codes/SIM-0001");
        assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().expect("a directory")).expect("read").count(), 2, "nothing else stays");
    }

    #[test]
    fn a_crash_in_the_midst_of_writing_leaves_no_half_code() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = StateDir::open(dir.path().to_owned()).expect("made");
        fs::write(dir.path().join("codes/SIM-0001.new"), "ABC").expect("written");
        let drawn = state.code("SIM-0001").expect("drawn");
        assert_eq!((drawn.is_new, drawn.code.len()), (true, 16));
        fs::write(dir.path().join("codes/SIM-0002"), "").expect("written");
        assert!(state.code("SIM-0002").is_err_and(|error| error.to_string().contains("SIM-0002")));
    }
}
