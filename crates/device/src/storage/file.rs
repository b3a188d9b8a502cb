//! Credentials in a directory, one small file per device.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use osap::Serial;
use zeroize::Zeroizing;

use super::document::{MAX_FILE, parse, render};
use super::{Credentials, Storage, StorageError};

/// Keeps the credentials of each device in `<directory>/<serial>.json`, readable by its owner only.
///
/// A file is replaced as a whole: written beside the old one, synced, renamed over it, and the
/// directory synced. A crash leaves the old file or the new one, and at most a `.tmp` file which
/// the next write replaces and nobody reads.
#[derive(Debug, Clone)]
pub struct FileStorage {
    dir: PathBuf,
}

impl FileStorage {
    /// Uses a directory, which is created (mode 0700) when it does not exist.
    ///
    /// # Errors
    /// [`StorageError::Io`] when there is no such directory and none can be made.
    pub fn new(dir: impl Into<PathBuf>) -> Result<Self, StorageError> {
        let dir = dir.into();
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io_error("create", &dir))?;
        Ok(Self { dir })
    }

    /// The file of a serial. Whatever could mean something to a file system is written as `%XX`.
    fn path(&self, serial: &Serial) -> PathBuf {
        use std::fmt::Write;
        let mut name = String::new();
        for (index, byte) in serial.as_str().bytes().enumerate() {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && index > 0) {
                name.push(char::from(byte));
            } else {
                // Writing into a String cannot fail.
                let _ = write!(name, "%{byte:02X}");
            }
        }
        self.dir.join(name + ".json")
    }
}

impl Storage for FileStorage {
    fn load(&self, serial: &Serial) -> Result<Option<Credentials>, StorageError> {
        let path = self.path(serial);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        // Sized beforehand: growing would leave copies of the key behind.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE + 64));
        file.take(MAX_FILE as u64 + 1).read_to_end(&mut text).map_err(io_error("read", &path))?;
        parse(&text, serial).map(Some).map_err(|reason| StorageError::Damaged { path, reason })
    }

    fn store(&self, serial: &Serial, credentials: &Credentials) -> Result<(), StorageError> {
        let path = self.path(serial);
        let temporary = path.with_extension("json.tmp");
        let text =
            render(serial, credentials).map_err(|reason| StorageError::Damaged { path: path.clone(), reason })?;
        // A leftover may have another mode or be a link: it goes before the new one comes.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io_error("replace", &temporary)(error));
            }
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .map_err(io_error("create", &temporary))?;
        file.write_all(&text).and_then(|()| file.sync_all()).map_err(io_error("write", &temporary))?;
        std::fs::rename(&temporary, &path).map_err(io_error("replace", &path))?;
        // The rename itself is durable only once the directory is.
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(io_error("sync", &self.dir))
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| StorageError::Io { action, path, source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use osap::{DevId, MasterKey};

    use super::*;
    use crate::storage::LegacyCredentials;

    fn serial(text: &str) -> Serial {
        Serial::new(text).unwrap()
    }

    fn credentials(digit: char) -> Credentials {
        let text = |n| digit.to_string().repeat(n);
        let dev_id = DevId::parse(text(32).as_bytes()).unwrap();
        let master_key = MasterKey::from_bytes(text(16).as_bytes()).unwrap();
        Credentials { legacy: Some(LegacyCredentials { dev_id, master_key }), modern: None }
    }

    fn storage() -> (tempfile::TempDir, FileStorage) {
        let dir = tempfile::tempdir().unwrap();
        let storage = FileStorage::new(dir.path().join("deep/state")).unwrap();
        (dir, storage)
    }

    #[test]
    fn what_is_stored_is_loaded_and_private() {
        let (_dir, storage) = storage();
        let sn = serial("SN0000001");
        assert_eq!(storage.load(&sn).unwrap(), None);
        storage.store(&sn, &credentials('1')).unwrap();
        storage.store(&sn, &credentials('2')).unwrap();
        assert_eq!(storage.load(&sn).unwrap(), Some(credentials('2')));

        let path = storage.path(&sn);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&storage.dir).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(std::fs::read_dir(&storage.dir).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn a_dev_id_with_characters_json_escapes_comes_back() {
        let (_dir, storage) = storage();
        let sn = serial(r#"quote"and\slash"#);
        let dev_id = DevId::parse(br#"0123456789abcdef"\"\456789abcdef"#).unwrap();
        let mut credentials = credentials('1');
        credentials.legacy.as_mut().unwrap().dev_id = dev_id;
        storage.store(&sn, &credentials).unwrap();
        assert_eq!(storage.load(&sn).unwrap(), Some(credentials));
    }

    #[test]
    fn a_crash_before_the_rename_leaves_the_old_credentials() {
        let (_dir, storage) = storage();
        let sn = serial("SN0000001");
        storage.store(&sn, &credentials('1')).unwrap();
        let temporary = storage.path(&sn).with_extension("json.tmp");
        std::fs::write(&temporary, b"{\"version\":1,\"ser").unwrap();
        std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o644)).unwrap();

        assert_eq!(storage.load(&sn).unwrap(), Some(credentials('1')));
        storage.store(&sn, &credentials('2')).unwrap();
        assert_eq!(storage.load(&sn).unwrap(), Some(credentials('2')));
        let mode = std::fs::metadata(storage.path(&sn)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "the leftover's mode is not inherited");
    }

    #[test]
    fn a_truncated_file_is_damaged_at_every_length_and_can_be_replaced() {
        let (_dir, storage) = storage();
        let sn = serial("SN0000001");
        storage.store(&sn, &credentials('1')).unwrap();
        let path = storage.path(&sn);
        let whole = std::fs::read(&path).unwrap();
        // The last byte is the line end, without which the document is still whole.
        for len in 0..whole.len() - 1 {
            std::fs::write(&path, &whole[..len]).unwrap();
            let error = storage.load(&sn).unwrap_err();
            assert!(matches!(error, StorageError::Damaged { .. }), "{len}: {error}");
            assert!(!error.to_string().contains("1111"), "the content is not quoted");
        }
        storage.store(&sn, &credentials('3')).unwrap();
        assert_eq!(storage.load(&sn).unwrap(), Some(credentials('3')));
    }

    #[test]
    fn foreign_content_is_damaged() {
        let (_dir, storage) = storage();
        let sn = serial("SN0000001");
        storage.store(&sn, &credentials('1')).unwrap();
        let good = std::fs::read_to_string(storage.path(&sn)).unwrap();
        for bad in [
            good.replace("\"version\":1", "\"version\":2"),
            good.replace("SN0000001", "SN0000002"),
            good.replace("1111111111111111\"}", "111111111111111x\"}"),
            good.clone() + &" ".repeat(MAX_FILE),
        ] {
            assert_ne!(bad, good);
            std::fs::write(storage.path(&sn), bad).unwrap();
            assert!(matches!(storage.load(&sn), Err(StorageError::Damaged { .. })));
        }
    }

    #[test]
    fn serials_do_not_leave_the_directory_and_do_not_meet() {
        let (_dir, storage) = storage();
        let names = ["..", ".", "a.b", "a%2Eb", "pk:name", "pk%3Aname", "A\\B", &"~".repeat(71)];
        for (digit, name) in ('0'..='9').zip(names) {
            let sn = serial(name);
            assert_eq!(storage.path(&sn).parent(), Some(&*storage.dir));
            storage.store(&sn, &credentials(digit)).unwrap();
        }
        for (digit, name) in ('0'..='9').zip(names) {
            assert_eq!(storage.load(&serial(name)).unwrap(), Some(credentials(digit)), "{name}");
        }
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        let error = FileStorage::new(file.join("state")).unwrap_err();
        assert!(matches!(error, StorageError::Io { action: "create", .. }));
    }
}
