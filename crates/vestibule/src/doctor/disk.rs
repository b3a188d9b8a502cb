//! The volume that holds the data directory.

use std::fs::{self, DirEntry, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{statfs, statvfs};

use super::{Finding, bytes};
use crate::config::Config;

/// How often it is tried what a sync takes.
const ROUNDS: usize = 15;
/// What is needed beside the journal: by the registry, by logs of databases, by a copy of a segment that is salvaged.
const SPARE: u64 = 256 << 20;
/// Above this each acknowledgement is late enough to be seen.
const SLOW: Duration = Duration::from_millis(30);
/// Filesystems whose files go with the machine's memory.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];
/// Filesystems that are on another machine: NFS, SMB, CIFS, FUSE.
const REMOTE: [i64; 4] = [0x6969, 0x517b, 0xff53_4d42, 0x6573_5546];

pub(super) fn examine(config: &Config) -> Vec<Finding> {
    // What does not exist yet will be made on the volume of what does.
    let Some(place) = config
        .data
        .ancestors()
        .map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path })
        .find(|path| path.exists())
    else {
        return Vec::new();
    };
    [space(config, place), kind(place), Some(sync(place))].into_iter().flatten().collect()
}

fn space(config: &Config, place: &Path) -> Option<Finding> {
    let volume = statvfs(place).ok()?;
    let (whole, free) = (volume.f_blocks * volume.f_frsize, volume.f_bavail * volume.f_frsize);
    Some(room(whole, free, taken(&config.data.join("journal")), config.store.max_bytes.on_volume(whole)))
}

/// How many bytes the files in a directory and below it have.
fn taken(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of = |entry: DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => taken(&entry.path()),
        about => about.map_or(0, |about| about.len()),
    };
    entries.map(of).sum()
}

/// Whether what is free of a volume is enough for a journal that has `taken` bytes and gets `cap` at most.
fn room(whole: u64, free: u64, taken: u64, cap: u64) -> Finding {
    let [whole_words, free_words, taken_words, cap_words] = [whole, free, taken, cap].map(bytes);
    let words =
        format!("{free_words} of {whole_words} free; the journal has {taken_words}, and gets up to {cap_words}");
    let cure =
        "free space, or lower store.max_bytes or store.retention: at the end of either devices are not acknowledged";
    // Who keeps a small journal on a volume that others have filled may do so.
    if free < whole / 50 && free < cap.saturating_sub(taken).saturating_add(SPARE) {
        Finding::wrong("space", words, cure)
    } else if free < whole / 10 {
        Finding::doubtful("space", words, cure)
    } else {
        Finding::good("space", words)
    }
}

fn kind(place: &Path) -> Option<Finding> {
    let kind = statfs(place).ok()?.f_type;
    if IN_MEMORY.contains(&kind) {
        let words = "the data directory is in memory: what was acknowledged is gone when the machine stops";
        return Some(Finding::doubtful("filesystem", words, "put data on a disk"));
    }
    if REMOTE.contains(&kind) {
        let words = "the data directory is on another machine, where locks and syncs may not be what SQLite needs";
        return Some(Finding::doubtful("filesystem", words, "put data on a disk of this machine"));
    }
    None
}

/// Every acknowledgement waits for a sync.
fn sync(place: &Path) -> Finding {
    match syncs(place) {
        Err(error) => Finding::wrong(
            "disk",
            format!("nothing can be written to {}: {error}", place.display()),
            "make it writable for the user that the platform runs as",
        ),
        Ok(took) if took > SLOW => Finding::doubtful(
            "disk",
            format!("a sync takes {} ms (median of {ROUNDS}): each acknowledgement waits so long", took.as_millis()),
            "use a faster disk; what devices have cached is taken in with fewer, larger commits",
        ),
        Ok(took) => Finding::good("disk", format!("a sync takes {:.1} ms", took.as_secs_f64() * 1_000.0)),
    }
}

/// The median time of a small write and its sync.
fn syncs(place: &Path) -> std::io::Result<Duration> {
    let path = place.join(format!(".doctor-{}", std::process::id()));
    let measure = || {
        let mut file = OpenOptions::new().create_new(true).write(true).open(&path)?;
        let mut took = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            file.write_all(&[0; 4_096])?;
            file.sync_data()?;
            took.push(began.elapsed());
        }
        took.sort();
        Ok(took[ROUNDS / 2])
    };
    let measured = measure();
    let _ = fs::remove_file(&path);
    measured
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_full_volume_is_wrong_unless_the_journal_needs_little() {
        const GIB: u64 = 1 << 30;
        let verdict = |free, taken, cap| room(250 * GIB, free, taken, cap).verdict;
        assert_eq!(verdict(50 * GIB, 0, 200 * GIB), Verdict::Good);
        assert_eq!(verdict(20 * GIB, 0, 200 * GIB), Verdict::Doubtful);
        assert_eq!(verdict(4 * GIB, 0, 200 * GIB), Verdict::Wrong);
        assert_eq!(verdict(4 * GIB, 197 * GIB, 200 * GIB), Verdict::Doubtful, "it gets little more");
        assert_eq!(verdict(4 * GIB, 0, 3 * GIB), Verdict::Doubtful, "what can be done about it was done");
        assert_eq!(verdict(GIB / 8, GIB, GIB), Verdict::Wrong, "the journal is not all that needs room");
        assert_eq!(verdict(4 * GIB, 0, u64::MAX), Verdict::Wrong);
    }

    #[test]
    fn what_a_journal_has_is_all_that_lies_in_it() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir_all(dir.path().join("journal/damaged")).expect("made");
        fs::write(dir.path().join("journal/1.db"), [0; 70]).expect("written");
        fs::write(dir.path().join("journal/damaged/0.db"), [0; 7]).expect("written");
        assert_eq!(taken(&dir.path().join("journal")), 77);
        assert_eq!(taken(&dir.path().join("nothing")), 0);
    }

    #[test]
    fn a_disk_is_tried_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_ne!(sync(dir.path()).verdict, Verdict::Wrong);
        assert_eq!(fs::read_dir(dir.path()).expect("readable").count(), 0);
        let nowhere = dir.path().join("nothing");
        assert_eq!(sync(&nowhere).verdict, Verdict::Wrong);
    }

    #[test]
    fn a_directory_that_is_not_there_yet_is_on_the_volume_of_what_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = Config { data: dir.path().join("a/b"), ..Config::default() };
        let parts: Vec<_> = examine(&config).into_iter().map(|found| found.part).collect();
        assert!(parts.contains(&"space") && parts.contains(&"disk"), "{parts:?}");
    }
}
