//! A cache in a directory, one file for each segment.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::{CacheError, EventCache};

/// Keeps the events of one device in a directory of its own, readable by its owner only.
///
/// Files are appended to and removed, and never renamed or written anew. The directory is locked while the cache lives:
/// two devices cannot use it at the same time, and a crash leaves no lock behind.
#[derive(Debug)]
pub struct FileCache {
    dir: PathBuf,
    /// The segment that was appended to last.
    open: Option<(u64, File)>,
    /// Once the directory could be used.
    lock: Option<File>,
}

impl Drop for FileCache {
    fn drop(&mut self) {
        // To close it is not enough: a process that is just being started may have inherited it for a moment.
        let _ = self.lock.as_ref().map(File::unlock);
    }
}

impl FileCache {
    /// Uses a directory, which is created (mode 0700) when it does not exist.
    ///
    /// # Errors
    /// [`CacheError::InUse`] when another process or device uses it; [`CacheError::Io`].
    pub fn open(dir: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let mut cache = Self::new(dir);
        cache.ready()?;
        Ok(cache)
    }

    /// Uses a directory that is opened, or created, when it is needed: for a device that shall start also when its disk is
    /// away, and take it up when it comes.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), open: None, lock: None }
    }

    /// The directory is there and nobody else's.
    fn ready(&mut self) -> Result<(), CacheError> {
        if self.lock.is_some() {
            return Ok(());
        }
        let dir = &self.dir;
        let missing: Vec<PathBuf> = dir.ancestors().take_while(|path| !path.exists()).map(Path::to_owned).collect();
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(io_error("create", dir))?;
        // What is synced in a directory that is not is lost with it.
        for made in missing {
            let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("sync", parent))?;
        }
        self.lock = Some(lock(dir)?);
        Ok(())
    }

    /// Sixteen digits, so that the order of names is that of numbers.
    fn path(&self, segment: u64) -> PathBuf {
        self.dir.join(format!("{segment:016x}.events"))
    }

    /// Opens a segment to append to it and makes durable that it is there.
    fn writable(&mut self, segment: u64) -> io::Result<&mut File> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != segment) {
            let path = self.path(segment);
            let file = match OpenOptions::new().append(true).open(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path)?;
                    File::open(&self.dir)?.sync_all()?;
                    file
                }
                opened => opened?,
            };
            self.open = Some((segment, file));
        }
        match &mut self.open {
            Some((_, file)) => Ok(file),
            None => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl EventCache for FileCache {
    fn segments(&mut self) -> Result<Vec<u64>, CacheError> {
        self.ready()?;
        let failed = || io_error("read", &self.dir);
        let mut segments = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let number =
                name.to_str().and_then(|name| name.strip_suffix(".events")).filter(|digits| digits.len() == 16);
            segments.extend(number.and_then(|digits| u64::from_str_radix(digits, 16).ok()));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn read(&mut self, segment: u64, offset: u64, len: usize) -> Result<Vec<u8>, CacheError> {
        self.ready()?;
        let path = self.path(segment);
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(len as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(io_error("read", &path))
    }

    fn append(&mut self, segment: u64, bytes: &[u8]) -> Result<(), CacheError> {
        self.ready()?;
        let path = self.path(segment);
        let appended = self.writable(segment).and_then(|file| file.write_all(bytes).and_then(|()| file.sync_data()));
        appended.map_err(|source| {
            self.open = None;
            io_error("write", &path)(source)
        })
    }

    fn remove(&mut self, segment: u64) -> Result<(), CacheError> {
        self.ready()?;
        let path = self.path(segment);
        self.open.take_if(|(open, _)| *open == segment);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error("remove", &path)(error)),
            _ => Ok(()),
        }
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { action, path, source }
}

fn lock(dir: &Path) -> Result<File, CacheError> {
    let path = dir.join("LOCK");
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            // The name of the holder is a courtesy: without it the error is still right.
            let mut holder = String::new();
            let _ = file.take(32).read_to_string(&mut holder);
            let holder = Some(holder.trim().to_owned()).filter(|pid| !pid.is_empty());
            return Err(CacheError::InUse { dir: dir.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(io_error("lock", &path)(source)),
    }
    // A courtesy as well: a disk that is full must not keep a device from starting.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_appended_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/cache");
        let mut cache = FileCache::open(&path).unwrap();
        assert_eq!(cache.segments().unwrap(), [] as [u64; 0]);
        for (segment, bytes) in [(9, &b"one"[..]), (9, b" two"), (0x1f, b"three")] {
            cache.append(segment, bytes).unwrap();
        }
        drop(cache);
        fs::write(path.join("notes.txt"), "not ours").unwrap();

        let mut cache = FileCache::open(&path).unwrap();
        assert_eq!(cache.segments().unwrap(), [9, 0x1f]);
        cache.append(0x1f, b"!").unwrap();
        assert_eq!(cache.read(9, 0, 100).unwrap(), b"one two");
        assert_eq!(cache.read(9, 4, 2).unwrap(), b"tw");
        assert_eq!(cache.read(9, 99, 2).unwrap(), b"");
        assert_eq!(cache.read(0x1f, 0, 100).unwrap(), b"three!");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&cache.path(9))), (0o700, 0o600));

        cache.remove(9).unwrap();
        cache.remove(9).unwrap();
        assert_eq!(cache.segments().unwrap(), [0x1f]);
        assert!(matches!(cache.read(9, 0, 1), Err(CacheError::Io { action: "read", .. })));
        cache.remove(0x1f).unwrap();
        cache.append(0x1f, b"anew").unwrap();
        assert_eq!(cache.read(0x1f, 0, 100).unwrap(), b"anew", "not the removed file");
    }

    #[test]
    fn a_directory_has_one_user() {
        let dir = tempfile::tempdir().unwrap();
        let first = FileCache::open(dir.path()).unwrap();
        let error = FileCache::open(dir.path()).unwrap_err();
        let own = std::process::id().to_string();
        assert!(matches!(&error, CacheError::InUse { holder: Some(pid), .. } if *pid == own), "{error}");
        assert!(error.to_string().ends_with(&format!("is in use by process {own}")), "{error}");
        drop(first);
        FileCache::open(dir.path()).unwrap();
    }

    #[test]
    fn a_directory_that_cannot_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(matches!(FileCache::open(file.join("cache")), Err(CacheError::Io { action: "create", .. })));

        let mut later = FileCache::new(file.join("cache"));
        assert!(matches!(later.segments(), Err(CacheError::Io { action: "create", .. })));
        assert!(matches!(later.append(1, b"x"), Err(CacheError::Io { action: "create", .. })));
        fs::remove_file(&file).unwrap();
        later.append(1, b"x").unwrap();
        assert_eq!(later.read(1, 0, 9).unwrap(), b"x");
        assert!(matches!(FileCache::new(file.join("cache")).segments(), Err(CacheError::InUse { .. })));
    }
}
