//! Who has the data directory.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How often the kernel's list is read before a lock that is not in it is believed not to be held.
const LOOKS: usize = 20;

/// The process that has the directory, if one runs that says so. Looked up, not tried: a platform that starts in this
/// moment must not find the lock taken.
pub(super) fn running(data: &Path) -> Option<u32> {
    let path = data.join("LOCK");
    let pid: u32 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let inode = fs::metadata(&path).ok()?.ino();
    // The kernel gives its list in pieces and knows by a number where it stopped: where a lock of anybody's before that
    // place goes between two pieces, one that is held is left out.
    let holds = (0..LOOKS).any(|_| locks().is_ok_and(|locks| is_in(&locks, pid, inode)));
    holds.then_some(pid)
}

/// The kernel's list, in as few pieces as it is given in: where there is little room at first, it is read in smaller ones.
fn locks() -> io::Result<String> {
    let mut locks = String::with_capacity(64 << 10);
    File::open("/proc/locks")?.read_to_string(&mut locks)?;
    Ok(locks)
}

/// Whether the list has a whole-file lock of the process on the file.
fn is_in(locks: &str, pid: u32, inode: u64) -> bool {
    let (pid, file) = (pid.to_string(), format!(":{inode}"));
    locks.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Who waits for it has an arrow before that.
        words.get(1) == Some(&"FLOCK")
            && words.contains(&pid.as_str())
            && words.iter().any(|word| word.ends_with(&file))
    })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::*;

    #[test]
    fn a_lock_is_told_by_process_and_file() {
        let locks = "1: POSIX  ADVISORY  READ 17 fe:00:42 128 128\n\
                     2: FLOCK  ADVISORY  WRITE 17 fe:00:142 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 18 fe:00:142 0 EOF\n";
        assert!(is_in(locks, 17, 142));
        assert!(!is_in(locks, 18, 142), "it waits");
        assert!(!is_in(locks, 17, 42), "SQLite's, not a directory's");
        assert!(!is_in(locks, 7, 142) && !is_in("", 17, 142));
    }

    #[test]
    fn who_holds_the_lock_is_found_while_others_take_and_leave_theirs() {
        let pid = std::process::id();
        let free = tempfile::tempdir().expect("a directory");
        assert_eq!(running(free.path()), None, "nobody was ever here");
        fs::write(free.path().join("LOCK"), format!("{pid}\n")).expect("writable");
        assert_eq!(running(free.path()), None, "whoever was here is gone");

        let is_over = AtomicBool::new(false);
        let others = || {
            // More than the kernel gives in one piece.
            let files: Vec<File> = (0..100).map(|_| tempfile::tempfile().expect("a file")).collect();
            while !is_over.load(Ordering::Relaxed) {
                files.iter().for_each(|file| file.lock().expect("free"));
                files.iter().for_each(|file| file.unlock().expect("ours"));
            }
        };
        // The list has the locks of one core after those of the other: that of a core is taken by one who runs there.
        let held = || {
            let dir = tempfile::tempdir().expect("a directory");
            fs::write(dir.path().join("LOCK"), format!("{pid}\n")).expect("writable");
            let lock = File::open(dir.path().join("LOCK")).expect("readable");
            lock.lock().expect("free");
            (dir, lock)
        };
        let missed = thread::scope(|scope| {
            let _ = [scope.spawn(others), scope.spawn(others)];
            let held: Vec<_> = (0..10).map(|_| scope.spawn(held).join().expect("taken")).collect();
            let looks = held.iter().flat_map(|(dir, _)| (0..100).map(|_| running(dir.path())));
            let missed = looks.filter(|found| *found != Some(pid)).count();
            is_over.store(true, Ordering::Relaxed);
            missed
        });
        assert_eq!(missed, 0);
    }
}
