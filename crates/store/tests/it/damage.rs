//! A journal whose files were damaged: it opens, returns nothing that was not written, loses at most what was on the
//! damaged page, says so, and goes on.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crc::{CRC_32_ISCSI, Crc};
use rustix::io::Errno;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
use tempfile::TempDir;
use vestibule_store::{DeviceId, JournalHealth, Position, ReadAt, Record, Scan, Store, StoreConfig};

use crate::bed::{Backend, Bed, NOON, commit, everything, ids, only_on, path, positions};

only_on!(Sqlite:
    an_altered_row_is_set_aside_while_others_are_read,
    a_damaged_page_of_a_sealed_segment_takes_only_its_rows,
    a_damaged_page_of_the_newest_segment_takes_only_its_rows,
    a_damaged_log_loses_at_most_what_follows,
    segments_cut_short_lose_what_is_gone,
    a_damaged_seal_or_mark_loses_nothing,
    a_row_that_was_altered_before_its_seal_is_found_when_it_is_sealed,
    a_row_that_was_altered_before_its_seal_is_found_behind_it,
    a_page_that_the_disk_refuses_takes_only_its_rows,
    a_frame_that_the_disk_refuses_takes_only_its_rows,
    a_seal_or_mark_that_the_disk_refuses_loses_nothing,
    a_disk_that_refuses_everything_sets_nothing_aside,
    a_disk_that_answers_again_loses_nothing,
    a_missing_file_repeats_no_position,
    damage_is_told_until_its_files_are_taken_away,
    what_was_set_aside_gives_way_at_the_cap,
);

const PAGE: usize = 4096;
const FIRST: &str = "2026-02-03-1.db";
/// Records of each of the commits a fixture is made of.
const BATCH: i64 = 5;
const RECORDS: i64 = 8 * BATCH;

/// Every column of a row, and what it refers to.
const ALTERATIONS: [&str; 8] = [
    "UPDATE record SET position = 9 WHERE position = 2",
    "UPDATE record SET kind = 2 WHERE position = 2",
    "UPDATE record SET event_id = 'f' WHERE position = 2",
    "UPDATE record SET time = time + 1 WHERE position = 2",
    "UPDATE record SET received = received - 1 WHERE position = 2",
    "UPDATE record SET flags = 1 WHERE position = 2",
    "UPDATE record SET data = '{\"value\":2}' WHERE position = 2",
    "UPDATE path SET name = 'nome'",
];

async fn an_altered_row_is_set_aside_while_others_are_read(bed: Bed) {
    for alteration in ALTERATIONS {
        let bed = Bed::new(bed.backend).await;
        let store = bed.open().await;
        let journal = &store.journal;
        let device = DeviceId::mint();
        let event = |n: i32| bed.event(device, &n.to_string());
        commit(journal, (0..3).map(event)).await;
        alter(&bed.dir().join("journal").join(FIRST), alteration).await;
        // The names of paths are kept twice, so that nothing is lost with one of them.
        let left: &[&str] = if alteration.contains("path") { &["0", "1", "2"] } else { &["0", "2"] };
        assert_eq!(ids(&everything(journal).await), left, "{alteration}");
        let damage = journal.damage();
        assert_eq!(damage.len(), 1, "{alteration}: {damage:?}");
        assert_eq!(damage[0].salvaged, left.len() as u64);
        assert_eq!(damage[0].lost, Some(3 - left.len() as u64));
        assert_eq!(damage[0].file.file_name().unwrap(), FIRST);
        // What was lost is new when it comes again; what was not is known.
        commit(journal, (0..3).map(event)).await;
        let all: HashSet<String> = ids(&everything(journal).await).into_iter().collect();
        assert_eq!((all.len(), everything(journal).await.len()), (3, 3), "{alteration}");
        assert_eq!(journal.health(), JournalHealth::Ok);
        assert_eq!(journal.damage().len(), 1, "told once");
        store.close().await;
    }
}

/// A data directory as a process leaves it that is killed, or one that is closed.
struct Fixture {
    dir: TempDir,
    records: Vec<Arc<Record>>,
}

/// What was done to a copy, and what may be gone from it.
struct Case<'a> {
    name: String,
    lost: &'a dyn Fn(i64) -> bool,
    /// Where it must be reported, if anything is lost or the change cannot be harmless.
    place: Option<(PathBuf, u64)>,
}

/// A disk that refuses the page of a file, whatever it is called later, in which this offset lies.
fn refusing(file: &Path, offset: u64) -> ReadAt {
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
    async fn make(rows: u64, killed: bool) -> Fixture {
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

    fn file(&self, name: &str) -> Vec<u8> {
        fs::read(self.dir.path().join("journal").join(name)).unwrap()
    }

    /// Opens a copy whose file was changed, and holds it to everything a damaged journal promises.
    async fn survives(&self, name: &str, change: impl FnOnce(&Path), case: Case<'_>) {
        let disk = |target: &Path| {
            change(target);
            None
        };
        self.survives_on(name, disk, case).await;
    }

    /// The same with a file of which the disk refuses a page.
    async fn survives_without(&self, name: &str, offset: u64, case: Case<'_>) {
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
    async fn survives_damaged_pages(&self, name: &str, whole: bool) {
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
type Damaging = fn(&mut [u8]);

const PATTERNS: [(&str, Damaging); 4] = [
    ("zeros", |page| page.fill(0)),
    ("the number of rows", |page| page[4] = page[4].wrapping_sub(1)),
    ("the first pointer", |page| page[9] ^= 0x40),
    ("noise", |page| page.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 167 + 13) as u8)),
];

/// The positions whose rows have bytes on a page: the texts say which.
fn rows_of(bytes: &[u8], page: usize, records: &[Arc<Record>]) -> HashSet<i64> {
    let page = &bytes[page * PAGE..(page + 1) * PAGE];
    let holds = |text: &[u8]| page.windows(text.len()).any(|window| window == text);
    let rows = records.iter().filter(|record| {
        let n = record.id.as_deref().unwrap_or_default();
        n == "after" || holds(format!("\"{n} {n} ").as_bytes()) || (n == "17" && holds(b"17 17 17 17"))
    });
    rows.map(|record| record.position.get()).collect()
}

fn copy(from: &Path, to: &Path) {
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

async fn a_damaged_page_of_a_sealed_segment_takes_only_its_rows(_: Bed) {
    let fixture = Fixture::make(RECORDS as u64, false).await;
    assert!(fixture.file(FIRST).len() > 12 * PAGE);
    fixture.survives_damaged_pages(FIRST, true).await;
}

async fn a_damaged_page_of_the_newest_segment_takes_only_its_rows(_: Bed) {
    let fixture = Fixture::make(1_000, false).await;
    fixture.survives_damaged_pages(FIRST, false).await;
}

const LOG: &str = "2026-02-03-1.db-wal";
const FRAME: usize = 24 + PAGE;

/// Where each frame of the log begins.
fn frames(log: &[u8]) -> Vec<usize> {
    (0..(log.len() - 32) / FRAME).map(|index| 32 + index * FRAME).collect()
}

/// The positions that are in commits which lie in the log before this place.
fn committed_before(log: &[u8], place: usize, records: &[Arc<Record>]) -> HashSet<i64> {
    let mut ends = frames(log).into_iter().filter(|at| at + FRAME <= place && log[at + 4..at + 8] != [0; 4]);
    let end = ends.next_back().unwrap_or(0);
    let before = frames(log).into_iter().filter(|at| *at <= end);
    before.flat_map(|at| rows_of(&log[at + 24..at + FRAME], 0, records)).collect()
}

async fn a_damaged_log_loses_at_most_what_follows(_: Bed) {
    let fixture = Fixture::make(1_000, true).await;
    let log = fixture.file(LOG);
    let frames = frames(&log);
    assert_eq!(committed_before(&log, log.len(), &fixture.records).len(), fixture.records.len());
    let damaged = |at: usize| {
        let mut log = log.clone();
        log[at] ^= 0x5a;
        move |target: &Path| fs::write(target, log).unwrap()
    };
    for frame in &frames {
        let kept = committed_before(&log, *frame, &fixture.records);
        // Number, size, mark, checksum, and the page itself.
        for at in [2, 7, 9, 17, 24 + 3, 24 + 2_000, 24 + 4_095] {
            let at = frame + at;
            let lost = |position| !kept.contains(&position);
            let case =
                Case { name: format!("byte {at} of the log"), lost: &lost, place: Some((LOG.into(), *frame as u64)) };
            fixture.survives(LOG, damaged(at), case).await;
        }
    }
    for at in 0..32 {
        let name = format!("byte {at} of the log's head");
        fixture.survives(LOG, damaged(at), Case { name, lost: &|_| false, place: None }).await;
    }
}

async fn segments_cut_short_lose_what_is_gone(_: Bed) {
    for (fixture, name) in [
        (Fixture::make(RECORDS as u64, false).await, FIRST),
        (Fixture::make(1_000, false).await, FIRST),
        (Fixture::make(1_000, true).await, LOG),
    ] {
        let bytes = fixture.file(name);
        let step = if name == LOG { FRAME } else { PAGE };
        let first = if name == LOG { 32 } else { 0 };
        for cut in (first..bytes.len()).step_by(step).map(|cut| if cut / step % 3 == 0 { cut + 100 } else { cut }) {
            let kept = if name == LOG { committed_before(&bytes, cut, &fixture.records) } else { HashSet::new() };
            let lost = |position: i64| {
                let gone = |at: usize| rows_of(&bytes[at..at + PAGE], 0, &fixture.records).contains(&position);
                if name == LOG {
                    !kept.contains(&position)
                } else {
                    (cut / PAGE..bytes.len() / PAGE).any(|page| gone(page * PAGE))
                }
            };
            let change =
                |target: &Path| fs::File::options().write(true).open(target).unwrap().set_len(cut as u64).unwrap();
            fixture
                .survives(name, change, Case { name: format!("{name} cut at {cut}"), lost: &lost, place: None })
                .await;
        }
    }
}

async fn a_damaged_seal_or_mark_loses_nothing(_: Bed) {
    let fixture = Fixture::make(RECORDS as u64, false).await;
    for name in ["2026-02-03-1.db-seal", "MARK"] {
        let bytes = fixture.file(name);
        for at in (0..bytes.len()).step_by(if name == "MARK" { 4 } else { 29 }) {
            let change = |target: &Path| {
                let mut bytes = bytes.clone();
                bytes[at] ^= 0x21;
                fs::write(target, bytes).unwrap();
            };
            let file = if name == "MARK" { name } else { FIRST };
            let case = Case { name: format!("byte {at} of {name}"), lost: &|_| false, place: Some((file.into(), 0)) };
            fixture.survives(name, change, case).await;
        }
        let case = Case { name: format!("no {name}"), lost: &|_| false, place: None };
        fixture.survives(name, |target| fs::remove_file(target).unwrap(), case).await;
    }
}

async fn alter(file: &Path, alteration: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    connection.execute(alteration).await.unwrap();
    connection.close().await.unwrap();
}

async fn a_row_that_was_altered_before_its_seal_is_found_when_it_is_sealed(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 3).await;
    let journal = &store.journal;
    let device = DeviceId::mint();
    let event = |n: i32| bed.event(device, &n.to_string());
    commit(journal, (0..3).map(event)).await;
    alter(&bed.dir().join("journal").join(FIRST), "UPDATE record SET data = '2' WHERE position = 2").await;
    // Nobody reads it.
    commit(journal, [event(3)]).await;
    let mut last = 3;
    while journal.damage().is_empty() {
        last += 1;
        commit(journal, [event(last)]).await;
    }
    let damage = journal.damage();
    assert_eq!((damage.len(), damage[0].salvaged, damage[0].lost), (1, 2, Some(1)), "{damage:?}");
    assert_eq!(damage[0].file.file_name().unwrap(), FIRST);
    let left: Vec<String> = (0..=last).filter(|n| *n != 1).map(|n| n.to_string()).collect();
    assert_eq!(ids(&everything(journal).await), left);
    store.close().await;
}

/// Makes the seal beside a segment say that the file is as it was sealed.
fn seal_again(file: &Path) {
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

async fn a_row_that_was_altered_before_its_seal_is_found_behind_it(_: Bed) {
    let fixture = Fixture::make(RECORDS as u64, false).await;
    let bytes = fixture.file(FIRST);
    let row = fixture.records.iter().find(|record| record.position.get() == 2).unwrap();
    let change = |target: &Path| {
        let mut bytes = bytes.clone();
        // A page that was split may have it too, where nothing counts any more.
        for at in 0..bytes.len() - row.data.len() {
            if bytes[at..].starts_with(row.data.as_bytes()) {
                bytes[at + 100] ^= 1;
            }
        }
        fs::write(target, bytes).unwrap();
        seal_again(target);
    };
    let case = Case { name: "an altered row under a seal".into(), lost: &|position| position == 2, place: None };
    fixture.survives(FIRST, change, case).await;
}

async fn a_page_that_the_disk_refuses_takes_only_its_rows(_: Bed) {
    for rows in [RECORDS as u64, 1_000] {
        let fixture = Fixture::make(rows, false).await;
        let bytes = fixture.file(FIRST);
        for page in 0..bytes.len() / PAGE {
            let (rows, offset) = (rows_of(&bytes, page, &fixture.records), (page * PAGE) as u64);
            let (name, lost) = (format!("page {page} is refused"), |position| rows.contains(&position));
            let case = Case { name, lost: &lost, place: Some((FIRST.into(), offset)) };
            fixture.survives_without(FIRST, offset, case).await;
        }
    }
}

async fn a_frame_that_the_disk_refuses_takes_only_its_rows(_: Bed) {
    let fixture = Fixture::make(1_000, true).await;
    let log = fixture.file(LOG);
    let frames = frames(&log);
    for page in 0..log.len() / PAGE {
        // A page of the disk has bytes of one frame or two.
        let at = page * PAGE;
        let touched: Vec<usize> =
            frames.iter().copied().filter(|frame| *frame < at + PAGE && frame + FRAME > at).collect();
        let gone = |position: &i64| {
            touched.iter().any(|frame| rows_of(&log[frame + 24..frame + FRAME], 0, &fixture.records).contains(position))
        };
        let place = if page == 0 { 0 } else { touched[0] as u64 };
        let case = Case {
            name: format!("{at} of the log"),
            lost: &|position| gone(&position),
            place: Some((LOG.into(), place)),
        };
        fixture.survives_without(LOG, at as u64, case).await;
    }
}

async fn a_seal_or_mark_that_the_disk_refuses_loses_nothing(_: Bed) {
    let fixture = Fixture::make(RECORDS as u64, false).await;
    for (name, file) in [("2026-02-03-1.db-seal", FIRST), ("MARK", "MARK")] {
        let case = Case { name: format!("{name} is refused"), lost: &|_| false, place: Some((file.into(), 0)) };
        fixture.survives_without(name, 0, case).await;
    }
}

/// Everything in a directory with its content.
fn content(dir: &Path) -> HashMap<PathBuf, Vec<u8>> {
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

async fn a_disk_that_refuses_everything_sets_nothing_aside(_: Bed) {
    for (rows, killed) in [(1_000, false), (1_000, true), (RECORDS as u64, false)] {
        let fixture = Fixture::make(rows, killed).await;
        let journal = fixture.dir.path().join("journal");
        let before = content(&journal);
        let open = async |read_at: Option<ReadAt>| {
            let mut config = StoreConfig::new(fixture.dir.path());
            config.now = Arc::new(|| NOON);
            config.read_at = read_at.unwrap_or(config.read_at);
            Store::open(config).await
        };
        let gone: ReadAt = Arc::new(|_, _, _, _| Err(Errno::IO.into()));
        let error = open(Some(gone)).await.err().expect("it cannot start");
        let source = std::error::Error::source(&error).expect("a reason").to_string();
        assert!(source.contains("the disk refuses to read any of it"), "{error}: {source}");
        let mut after = content(&journal);
        after.retain(|path, _| !path.ends_with("LOCK"));
        assert!(before == after, "{:?} became {:?}", before.keys(), after.keys());
        let store = open(None).await.unwrap();
        assert_eq!(everything(&store.journal).await, fixture.records);
        assert_eq!(store.journal.damage(), []);
        store.close().await;
    }
}

async fn a_disk_that_answers_again_loses_nothing(_: Bed) {
    // It is asked when it is looked at, of a sealed segment twice and first for many pages at once, and when it is salvaged,
    // for the page that the database sees and for that in the file. Then it answers.
    for (rows, times) in [(1_000, 3), (RECORDS as u64, 6)] {
        let fixture = Fixture::make(rows, false).await;
        let file = fixture.dir.path().join("journal").join(FIRST);
        let page = 6 * PAGE as u64;
        let (refused, asked) = (refusing(&file, page), AtomicUsize::new(0));
        let mut config = StoreConfig::new(fixture.dir.path());
        config.now = Arc::new(|| NOON);
        config.read_at = Arc::new(move |path, file, bytes, at| match refused(path, file, bytes, at) {
            Err(_) if asked.fetch_add(1, Ordering::SeqCst) >= times => file.read_at(bytes, at),
            came => came,
        });
        let store = Store::open(config).await.unwrap();
        assert_eq!(everything(&store.journal).await, fixture.records);
        let damage = store.journal.damage();
        assert_eq!((damage.len(), damage[0].offset, damage[0].lost), (1, page, Some(0)), "{damage:?}");
        assert_eq!(damage[0].what, "the disk refuses to read it");
        store.close().await;
    }
}

async fn a_missing_file_repeats_no_position(_: Bed) {
    let sealed = Fixture::make(RECORDS as u64, false).await;
    let case = Case { name: "no sealed segment".into(), lost: &|position| position <= RECORDS, place: None };
    sealed.survives(FIRST, |target| fs::remove_file(target).unwrap(), case).await;
    for killed in [false, true] {
        let newest = Fixture::make(1_000, killed).await;
        let case = Case { name: format!("no newest segment, killed: {killed}"), lost: &|_| true, place: None };
        newest.survives(FIRST, |target| fs::remove_file(target).unwrap(), case).await;
    }
}

async fn damage_is_told_until_its_files_are_taken_away(bed: Bed) {
    let store = bed.open().await;
    commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    store.close().await;
    let file = bed.dir().join("journal").join(FIRST);
    let mut bytes = fs::read(&file).unwrap();
    bytes[6 * PAGE..].fill(0xa5);
    fs::write(&file, &bytes).unwrap();
    for _ in 0..2 {
        let store = bed.open().await;
        let damage = store.journal.damage();
        assert_eq!(damage.len(), 1);
        assert_eq!((&damage[0].file, damage[0].offset, damage[0].lost), (&file, 6 * PAGE as u64, None));
        assert_eq!(damage[0].salvaged, 1, "the damaged page was the mark's");
        store.close().await;
    }
    let store = bed.open().await;
    let aside = store.journal.damage()[0].set_aside.clone().unwrap();
    assert_eq!(aside, bed.dir().join("journal/damaged/2026-02-03-1"));
    assert_eq!(fs::read(aside.join(FIRST)).unwrap(), bytes);
    assert!(fs::read_to_string(aside.join("damage.txt")).unwrap().contains("offset: 24576"));
    fs::remove_dir_all(aside).unwrap();
    assert_eq!(store.journal.damage(), []);
    store.close().await;
}

async fn what_was_set_aside_gives_way_at_the_cap(bed: Bed) {
    const CAP: u64 = 2 << 20;
    let open = || bed.open_with(|config| (config.segment_rows, config.max_bytes) = (300, Some(CAP)));
    let device = DeviceId::mint();
    let event = |n: i32| {
        let mut event = bed.event(device, &n.to_string());
        event.data = format!("\"{}\"", "x".repeat(1_000)).into();
        event
    };
    let store = open().await;
    commit(&store.journal, (0..601).map(event)).await;
    store.close().await;
    let store = open().await;
    for (name, position) in [("2026-02-03-2.db", 400), (FIRST, 200)] {
        let alteration = format!("UPDATE record SET time = 0 WHERE position = {position}");
        alter(&bed.dir().join("journal").join(name), alteration.leak()).await;
        let scan = Scan { after: Position::new(position - 1), limit: 5, ..Scan::default() };
        assert_eq!(store.journal.scan(&scan).await.unwrap()[0].position.get(), position + 1);
    }
    let files = |name: &str| {
        let dir = bed.dir().join("journal/damaged").join(name);
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!((files("2026-02-03-1").len(), files("2026-02-03-2").len()), (3, 3));
    let dropped = || store.journal.damage().iter().map(|damage| damage.dropped).collect::<Vec<_>>();
    assert_eq!(dropped(), [false, false]);

    // Without them there is room.
    let mut n = 601;
    while !dropped().iter().all(|dropped| *dropped) {
        commit(&store.journal, (n..n + 20).map(event)).await;
        n += 20;
        assert!(dropped() != [false, true], "the one that was set aside last gave way first");
        assert_eq!(store.journal.health(), JournalHealth::Ok);
    }
    assert_eq!(files("2026-02-03-1").into_iter().collect::<Vec<_>>(), ["damage.txt"]);
    assert_eq!(everything(&store.journal).await.len() as i32, n - 2, "the rows were salvaged");
    let told = store.journal.damage();
    store.close().await;
    let store = open().await;
    assert_eq!(store.journal.damage(), told);
    store.close().await;
}
