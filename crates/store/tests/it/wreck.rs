//! Journals that are damaged on purpose, and what every one of them promises.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crc::{CRC_32_ISCSI, Crc};
use rustix::io::Errno;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;
use vestibule_store::{DeviceId, ReadAt, Record, Scan, Store, StoreConfig};

use crate::bed::{Backend, Bed, NOON, commit, everything, ids, path, positions};

pub const PAGE: usize = 4096;
pub const FIRST: &str = "2026-02-03-1.db";
/// Records of each of the commits a fixture is made of.
pub const BATCH: i64 = 5;
pub const RECORDS: i64 = 8 * BATCH;

/// A data directory as a process leaves it that is killed, or one that is closed.
pub struct Fixture {
    pub dir: TempDir,
    pub records: Vec<Arc<Record>>,
}

/// What was done to a copy, and what may be gone from it.
pub struct Case<'a> {
    pub name: String,
    pub lost: &'a dyn Fn(i64) -> bool,
    /// Where it must be reported, if anything is lost or the change cannot be harmless.
    pub place: Option<(PathBuf, u64)>,
}

/// A disk that refuses the page of a file, whatever it is called later, in which this offset lies.
pub fn refusing(file: &Path, offset: u64) -> ReadAt {
    let bad = fs::metadata(file).unwrap().ino();
    let page = offset / PAGE as u64 * PAGE as u64;
    Arc::new(move |_, file, bytes, at| {
        let is_touched = at < page + PAGE as u64 && at + bytes.len() as u64 > page;
        if is_touched && file.metadata()?.ino() == bad { Err(Errno::IO.into()) } else { file.read_at(bytes, at) }
    })
}

impl Fixture {
    /// Records of two devices and paths, one of them large, in eight commits; `rows` end a segment, and when that is
    /// sealed one more record follows.
    pub async fn make(rows: u64, killed: bool) -> Fixture {
        let bed = Bed::new(Backend::Sqlite).await;
        let store = bed.open_with(|config| config.segment_rows = rows).await;
        let journal = &store.journal;
        let devices = [DeviceId::mint(), DeviceId::mint()];
        for batch in 0..RECORDS / BATCH {
            let records = (batch * BATCH..(batch + 1) * BATCH).map(|n| {
                let mut event = bed.event(devices[n as usize % 2], &n.to_string());
                event.path = path("global", "area", if n % 3 == 0 { "one" } else { "other" });
                let len = if n == 17 { 9_000 } else { 600 };
                event.data = format!("\"{}\"", format!("{n} ").repeat(len / 3)).into();
                event
            });
            commit(journal, records.collect::<Vec<_>>()).await;
        }
        if rows == RECORDS as u64 {
            commit(journal, [bed.event(devices[0], "after")]).await;
        }
        let records = everything(journal).await;
        let dir = TempDir::new().unwrap();
        if killed {
            copy(&bed.dir(), dir.path());
            store.close().await;
        } else {
            store.close().await;
            copy(&bed.dir(), dir.path());
        }
        Fixture { dir, records }
    }

    pub fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("journal").join(name)).unwrap()
    }

    /// Opens a copy whose file was changed, and holds it to everything a damaged journal promises.
    pub async fn survives(&self, name: &str, change: impl FnOnce(&Path), case: Case<'_>) {
        let disk = |target: &Path| {
            change(target);
            None
        };
        self.survives_on(name, disk, case).await;
    }

    /// The same with a file of which the disk refuses a page.
    pub async fn survives_without(&self, name: &str, offset: u64, case: Case<'_>) {
        self.survives_on(name, |target| Some(refusing(target, offset)), case).await;
    }

    async fn survives_on(&self, name: &str, disk: impl FnOnce(&Path) -> Option<ReadAt>, case: Case<'_>) {
        let dir = TempDir::new().unwrap();
        copy(self.dir.path(), dir.path());
        let journal = dir.path().join("journal");
        let target = journal.join(name);
        let disk = disk(&target);
        let changed = fs::read(&target).ok();
        let case_name = &case.name;
        let open = async || {
            let mut config = StoreConfig::new(dir.path());
            config.now = Arc::new(|| NOON);
            config.segment_rows = RECORDS as u64;
            config.read_at = disk.clone().unwrap_or(config.read_at);
            Store::open(config).await.unwrap_or_else(|error| panic!("{case_name}: {error}: {:?}", error))
        };
        let store = open().await;
        let found = everything(&store.journal).await;
        let written: HashMap<i64, &Arc<Record>> =
            self.records.iter().map(|record| (record.position.get(), record)).collect();
        for record in &found {
            assert_eq!(written.get(&record.position.get()), Some(&record), "{case_name}: altered");
        }
        let there: HashSet<i64> = positions(&found).into_iter().collect();
        assert_eq!(there.len(), found.len(), "{case_name}: a record is there twice");
        let lost: Vec<i64> = written.keys().copied().filter(|position| !there.contains(position)).collect();
        assert!(lost.iter().all(|position| (case.lost)(*position)), "{case_name}: lost {lost:?}");

        let damage = store.journal.damage();
        match &case.place {
            Some((file, offset)) => {
                let told = damage.iter().any(|damage| damage.file == journal.join(file) && damage.offset == *offset);
                assert!(told, "{case_name}: {damage:?}");
            }
            None => assert!(lost.is_empty() || !damage.is_empty(), "{case_name}: lost {lost:?} and said nothing"),
        }
        if let (Some(Some(aside)), Some(changed)) = (damage.first().map(|damage| &damage.set_aside), changed) {
            assert!(fs::read(aside.join(name)).unwrap() == changed, "{case_name}: the evidence was touched");
        }

        // Everything comes again: what is known is recognised, what was lost is new, and so is one more.
        let last = self.records.iter().map(|record| record.position).max().unwrap();
        let again = self.records.iter().map(|record| Record::clone(record));
        let fresh = Record { id: Some("fresh".into()), ..Record::clone(&self.records[0]) };
        let given = commit(&store.journal, again.chain([fresh]).collect::<Vec<_>>()).await;
        assert!(given[0] > last, "{case_name}: a position is given twice");
        let all = everything(&store.journal).await;
        let names: HashSet<String> = ids(&all).into_iter().collect();
        assert_eq!((names.len(), all.len()), (self.records.len() + 1, self.records.len() + 1), "{case_name}");
        let device = Scan { device: Some(self.records[0].device), limit: 1_000, ..Scan::default() };
        let expected = all.iter().filter(|record| record.device == self.records[0].device).count();
        assert_eq!(store.journal.scan(&device).await.unwrap().len(), expected, "{case_name}");
        store.close().await;

        let store = open().await;
        assert_eq!(everything(&store.journal).await, all, "{case_name}: after another start");
        let set_aside = damage.iter().filter(|damage| damage.set_aside.is_some()).count();
        assert_eq!(store.journal.damage().len(), set_aside, "{case_name}: damage is found once");
        store.close().await;
    }

    /// Damages every page of the file in several ways.
    pub async fn survives_damaged_pages(&self, name: &str, whole: bool) {
        let bytes = self.file(name);
        for page in 0..bytes.len() / PAGE {
            let rows = rows_of(&bytes, page, &self.records);
            for (pattern, damage) in PATTERNS {
                let change = |target: &Path| {
                    let mut bytes = bytes.clone();
                    damage(&mut bytes[page * PAGE..(page + 1) * PAGE]);
                    fs::write(target, bytes).unwrap();
                };
                let case = Case {
                    name: format!("{name}, page {page}, {pattern}"),
                    lost: &|position| rows.contains(&position),
                    place: whole.then(|| (name.into(), (page * PAGE) as u64)),
                };
                self.survives(name, change, case).await;
            }
        }
    }
}

/// A way to damage a page.
pub type Damaging = fn(&mut [u8]);

pub const PATTERNS: [(&str, Damaging); 4] = [
    ("zeros", |page| page.fill(0)),
    ("the number of rows", |page| page[4] = page[4].wrapping_sub(1)),
    ("the first pointer", |page| page[9] ^= 0x40),
    ("noise", |page| page.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 167 + 13) as u8)),
];

/// The positions whose rows have bytes on a page: the texts say which.
pub fn rows_of(bytes: &[u8], page: usize, records: &[Arc<Record>]) -> HashSet<i64> {
    let page = &bytes[page * PAGE..(page + 1) * PAGE];
    let holds = |text: &[u8]| page.windows(text.len()).any(|window| window == text);
    let rows = records.iter().filter(|record| {
        let n = record.id.as_deref().unwrap_or_default();
        n == "after" || holds(format!("\"{n} {n} ").as_bytes()) || (n == "17" && holds(b"17 17 17 17"))
    });
    rows.map(|record| record.position.get()).collect()
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = (entry.as_ref().unwrap().path(), to.join(entry.as_ref().unwrap().file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            fs::copy(from, to).unwrap();
        }
    }
}

pub const LOG: &str = "2026-02-03-1.db-wal";
pub const FRAME: usize = 24 + PAGE;

/// Where each frame of the log begins.
pub fn frames(log: &[u8]) -> Vec<usize> {
    (0..(log.len() - 32) / FRAME).map(|index| 32 + index * FRAME).collect()
}

/// The positions that are in commits which lie in the log before this place.
pub fn committed_before(log: &[u8], place: usize, records: &[Arc<Record>]) -> HashSet<i64> {
    let mut ends = frames(log).into_iter().filter(|at| at + FRAME <= place && log[at + 4..at + 8] != [0; 4]);
    let end = ends.next_back().unwrap_or(0);
    let before = frames(log).into_iter().filter(|at| *at <= end);
    before.flat_map(|at| rows_of(&log[at + 24..at + FRAME], 0, records)).collect()
}

/// Changes a segment by SQL, in its file.
pub async fn alter(file: &Path, alteration: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    connection.execute(alteration).await.unwrap();
    // The log would still have it as it was.
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.unwrap();
    connection.close().await.unwrap();
}

/// Makes the seal beside a segment say that the file is as it was sealed.
pub fn seal_again(file: &Path) {
    let sum = |bytes: &[u8]| Crc::<u32>::new(&CRC_32_ISCSI).checksum(bytes).to_le_bytes();
    let seal = PathBuf::from(format!("{}-seal", file.display()));
    let mut bytes = fs::read(&seal).unwrap();
    let pages = 8 + 8 * 8;
    for (page, place) in fs::read(file).unwrap().chunks(PAGE).zip(bytes[pages..].chunks_mut(4)) {
        place.copy_from_slice(&sum(page));
    }
    let end = bytes.len() - 4;
    let whole = sum(&bytes[..end]);
    bytes[end..].copy_from_slice(&whole);
    fs::write(seal, bytes).unwrap();
}

/// Everything in a directory with its content.
pub fn content(dir: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let mut found = HashMap::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.clone(), fs::read(path).unwrap());
        }
    }
    found
}
