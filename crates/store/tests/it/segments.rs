//! The segment files of the journal.

use std::path::PathBuf;
use std::time::Duration;

use vestibule_store::{DeviceId, JournalHealth, Order, Position, Record, RecordKind, Scan};

use crate::bed::{Bed, HOUR, NOON, commit, durable, eventually, everything, ids, only_on, path, positions};
use crate::meter::Meter;

only_on!(Sqlite:
    a_segment_ends_at_its_number_of_rows,
    a_segment_ends_with_the_utc_day,
    a_clock_set_back_stays_in_the_segment,
    repetitions_are_recognised_across_segments_and_restarts,
    removed_segments_leave_no_file,
    many_segments_are_read_through_few_connections,
    at_the_cap_nothing_is_acknowledged_until_space_is_freed,
    what_the_cap_refuses_is_counted,
    an_interrupted_creation_is_cleared_away,
    files_of_others_are_left_alone,
    a_sealed_segment_has_no_log_and_reads_the_same,
    a_device_is_found_where_there_is_no_index_yet,
    a_seal_that_fails_is_made_up_for,
    scans_go_on_while_segments_are_sealed,
    a_segment_that_ended_empty_hides_nothing,
    a_serial_is_the_one_of_its_time,
    what_attributes_were_is_found_at_any_moment,
    a_look_for_what_is_rare_ends_early_and_goes_on_where_it_ended,
);

/// The names of the segment files, sorted.
fn segments(bed: &Bed) -> Vec<String> {
    files(bed).into_iter().filter(|name| name.ends_with(".db")).collect()
}

fn files(bed: &Bed) -> Vec<String> {
    let entries = std::fs::read_dir(bed.dir().join("journal")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn segment(bed: &Bed, name: &str) -> PathBuf {
    bed.dir().join("journal").join(name)
}

async fn a_segment_ends_at_its_number_of_rows(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 10).await;
    let device = DeviceId::mint();
    // One batch over three segments.
    commit(&store.journal, (0..25).map(|n| bed.event(device, &n.to_string()))).await;
    let expected = ["2026-02-03-1.db", "2026-02-03-2.db", "2026-02-03-3.db"];
    assert_eq!(segments(&bed), expected);
    assert_eq!(positions(&everything(&store.journal).await), (1..=25).collect::<Vec<_>>());
    store.close().await;

    // The last one goes on where it was.
    let store = bed.open_with(|config| config.segment_rows = 10).await;
    commit(&store.journal, (25..30).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(segments(&bed), expected);
    commit(&store.journal, [bed.event(device, "30")]).await;
    assert_eq!(segments(&bed).len(), 4);
    assert_eq!(positions(&everything(&store.journal).await), (1..=31).collect::<Vec<_>>());
    store.close().await;
}

async fn a_look_for_what_is_rare_ends_early_and_goes_on_where_it_ended(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 10).await;
    let [often, seldom] = [DeviceId::mint(), DeviceId::mint()];
    let events = (0..95).map(|n| {
        let device = if n % 10 == 0 { seldom } else { often };
        let mut event = bed.event(device, &n.to_string());
        if n % 40 == 5 {
            event.path = path("Camera", "Detection", "Rare");
        }
        event
    });
    commit(&store.journal, events).await;
    eventually("nine are sealed", || files(&bed).iter().filter(|name| name.ends_with("-seal")).count() == 9).await;
    // What is found, page by page, with how many pages that takes.
    let pages = async |scan: Scan, most: u64| {
        let (mut found, mut pages, mut scan) = (Vec::new(), 0, scan);
        loop {
            let looked = store.journal.look(&scan, most).await.unwrap();
            pages += 1;
            found.extend(positions(&looked.records));
            let Some(resume) = looked.resume else { return (found, pages) };
            match scan.order {
                Order::Oldest => scan.after = resume,
                Order::Newest => scan.before = Some(resume),
            }
        }
    };
    let rare = |order| Scan { name: Some("Rare".into()), order, limit: 10, ..Scan::default() };
    assert_eq!(pages(rare(Order::Newest), u64::MAX).await, (vec![86, 46, 6], 1));
    let (newest, many) = pages(rare(Order::Newest), 20).await;
    assert_eq!((newest, many), (vec![86, 46, 6], 5));
    assert_eq!(pages(rare(Order::Oldest), 30).await, (vec![6, 46, 86], 4));
    // Of a device only its own records count: one in each segment.
    let nothing = |device| Scan { device: Some(device), name: Some("Nothing".into()), limit: 10, ..Scan::default() };
    assert_eq!(pages(nothing(seldom), 5).await, (vec![], 2));
    assert_eq!(pages(nothing(often), 5).await, (vec![], 10));
    // A page that is full has no need of it.
    let all = store.journal.look(&Scan { limit: 10, ..Scan::default() }, 1).await.unwrap();
    assert_eq!((all.records.len(), all.resume), (10, None));
    store.close().await;
}

async fn a_segment_ends_with_the_utc_day(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    // One batch over midnight.
    let before = bed.event(device, "before");
    bed.advance(12 * HOUR - 1);
    let last = bed.event(device, "last");
    bed.advance(1);
    let first = bed.event(device, "first");
    commit(&store.journal, [before, last, first]).await;
    assert_eq!(segments(&bed), ["2026-02-03-1.db", "2026-02-04-1.db"]);
    bed.advance(72 * HOUR);
    commit(&store.journal, [bed.event(device, "later")]).await;
    assert_eq!(segments(&bed), ["2026-02-03-1.db", "2026-02-04-1.db", "2026-02-07-1.db"]);
    assert_eq!(ids(&everything(&store.journal).await), ["before", "last", "first", "later"]);
    store.close().await;
}

async fn a_clock_set_back_stays_in_the_segment(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    commit(&store.journal, [bed.event(device, "a")]).await;
    bed.advance(-48 * HOUR);
    commit(&store.journal, [bed.event(device, "b")]).await;
    assert_eq!(segments(&bed), ["2026-02-03-1.db"]);
    assert_eq!(ids(&everything(&store.journal).await), ["a", "b"]);
    store.close().await;
}

async fn repetitions_are_recognised_across_segments_and_restarts(bed: Bed) {
    let device = DeviceId::mint();
    let open = || bed.open_with(|config| config.segment_rows = 10);
    let store = open().await;
    commit(&store.journal, (0..35).map(|n| bed.event(device, &n.to_string()))).await;
    commit(&store.journal, (0..35).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(store.journal.durable(), Position::new(70));
    assert_eq!(everything(&store.journal).await.len(), 35);
    store.close().await;
    let store = open().await;
    commit(&store.journal, (0..40).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(everything(&store.journal).await.len(), 40);
    assert_eq!(store.journal.durable(), Position::new(110));
    // Another device's events with the same ids are other events.
    let other = DeviceId::mint();
    commit(&store.journal, (0..40).map(|n| bed.event(other, &n.to_string()))).await;
    assert_eq!(everything(&store.journal).await.len(), 80);
    store.close().await;
}

async fn removed_segments_leave_no_file(bed: Bed) {
    let device = DeviceId::mint();
    let store = bed
        .open_with(|config| {
            config.segment_rows = 10;
            config.retention = Duration::from_secs(24 * 3600);
        })
        .await;
    commit(&store.journal, (0..30).map(|n| bed.event(device, &n.to_string()))).await;
    // Readers have them open, which makes side files.
    assert_eq!(everything(&store.journal).await.len(), 30);
    bed.advance(48 * HOUR);
    commit(&store.journal, [bed.event(device, "30")]).await;
    let left = files(&bed);
    assert!(left.iter().all(|name| name.starts_with("2026-02-05-1.db") || name == "MARK"), "{left:?}");
    assert_eq!(positions(&everything(&store.journal).await), [31]);
    // What is gone is forgotten: the same event counts as a new one.
    commit(&store.journal, [bed.event(device, "0")]).await;
    assert_eq!(positions(&everything(&store.journal).await), [31, 32]);
    store.close().await;
}

async fn many_segments_are_read_through_few_connections(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 5).await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..200).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(segments(&bed).len(), 40);
    let mut scans = tokio::task::JoinSet::new();
    for n in 0..32 {
        let journal = store.journal.clone();
        scans.spawn(async move {
            let scan = Scan { after: Position::new(n), limit: 1_000, ..Scan::default() };
            positions(&journal.scan(&scan).await.unwrap()) == (n + 1..=200).collect::<Vec<_>>()
        });
    }
    assert!(scans.join_all().await.into_iter().all(|right| right));
    let journal = bed.dir().join("journal");
    let open = || {
        std::fs::read_dir("/proc/self/fd")
            .unwrap()
            .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok())
            .filter(|path| path.starts_with(&journal) && path.extension().is_some_and(|end| end == "db"))
            .count()
    };
    assert!(open() > 0, "segments that were read stay open");
    // Two connections of eight segments, the writer's, and what SQLite keeps of the file that is written to: closing a
    // descriptor would give up the writer's locks, so it is kept for the next connection, at most one for each scan. What
    // nobody uses any more is closed by a thread of its own, and the last segments are still being sealed.
    eventually("few segments are open", || open() <= 8 * 2 + 1 + 8).await;
    store.close().await;
}

async fn at_the_cap_nothing_is_acknowledged_until_space_is_freed(bed: Bed) {
    const CAP: u64 = 3 << 20;
    let store = bed
        .open_with(|config| {
            config.max_bytes = Some(CAP);
            config.retention = Duration::from_secs(24 * 3600);
            config.queue_records = 200;
        })
        .await;
    let journal = &store.journal;
    let device = DeviceId::mint();
    let event = |n: i64| {
        let mut event = bed.event(device, &n.to_string());
        event.data = format!("\"{}\"", "x".repeat(1_000)).into();
        event
    };
    // A part of the journal is a day older than the rest, and sealed: from then on nothing frees space but retention.
    commit(journal, (0..1_000).map(event)).await;
    bed.advance(20 * HOUR);
    commit(journal, [event(1_000)]).await;
    eventually("sealed", || sealed_without_log(&bed)).await;
    let full = || matches!(journal.health(), JournalHealth::Full { .. });
    let mut appended = 1_001;
    while !full() {
        assert!(appended < 100_000, "the cap is never reached");
        let last = (0..50).fold(Position::START, |_, n| journal.append(event(appended + n)));
        appended += 50;
        eventually("durable or full", || journal.durable() >= last || full()).await;
    }
    let JournalHealth::Full { bytes, max_bytes } = journal.health() else { unreachable!("it was full") };
    assert!(bytes >= max_bytes && max_bytes == CAP);
    let stopped = journal.durable();
    assert!(stopped < journal.appended());

    // The queue fills up to its bound, and beyond it still takes what comes.
    while journal.has_room() {
        journal.append(event(appended));
        appended += 1;
    }
    journal.append(event(appended));
    appended += 1;
    assert!(full());
    assert_eq!(journal.durable(), stopped);
    let now_stored = everything(journal).await;
    assert_eq!(now_stored.last().map(|record| record.position), Some(stopped));

    // Time passes, retention frees space, and everything that waited goes through.
    bed.advance(5 * HOUR);
    tokio::time::timeout(Duration::from_secs(60), journal.room()).await.expect("there was never room again");
    durable(journal, Position::new(appended)).await;
    assert_eq!(journal.health(), JournalHealth::Ok);
    assert_eq!(positions(&everything(journal).await), (1_001..=appended).collect::<Vec<_>>());
    store.close().await;
}

async fn what_the_cap_refuses_is_counted(bed: Bed) {
    std::thread::spawn(move || {
        let meter = Meter::default();
        meter.run(async {
            let store = bed.open_with(|config| config.max_bytes = Some(1)).await;
            let device = DeviceId::mint();
            commit(&store.journal, [bed.event(device, "the first makes the file")]).await;
            store.journal.append(bed.event(device, "too much"));
            eventually("full", || matches!(store.journal.health(), JournalHealth::Full { max_bytes: 1, .. })).await;
            assert!(meter.count("vestibule_journal_refused_total{reason=full}") > 0);
            assert_eq!(meter.count("vestibule_journal_committed_total"), 1);
            store.close().await;
        });
    })
    .join()
    .unwrap();
}

async fn an_interrupted_creation_is_cleared_away(bed: Bed) {
    bed.open().await.close().await;
    std::fs::write(segment(&bed, "2026-02-03-1.db-new"), b"").unwrap();
    let store = bed.open().await;
    commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    assert_eq!(positions(&everything(&store.journal).await), [1]);
    assert_eq!(segments(&bed), ["2026-02-03-1.db"]);
    assert!(!segment(&bed, "2026-02-03-1.db-new").exists());
    assert_eq!(store.journal.damage(), []);
    store.close().await;
}

async fn files_of_others_are_left_alone(bed: Bed) {
    bed.open().await.close().await;
    for name in ["notes.txt", "backup.db", "2026-02-03.db"] {
        std::fs::write(segment(&bed, name), b"mine").unwrap();
    }
    let store = bed.open().await;
    commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    store.close().await;
    for name in ["notes.txt", "backup.db", "2026-02-03.db"] {
        assert_eq!(std::fs::read(segment(&bed, name)).unwrap(), b"mine");
    }
}

async fn a_sealed_segment_has_no_log_and_reads_the_same(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 10).await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..10).map(|n| bed.event(device, &n.to_string()))).await;
    let before = everything(&store.journal).await;
    commit(&store.journal, [bed.event(device, "10")]).await;
    store.close().await;
    assert_eq!(files(&bed), ["2026-02-03-1.db", "2026-02-03-1.db-seal", "2026-02-03-2.db", "MARK"]);
    let store = bed.open().await;
    let scan = Scan { before: Some(Position::new(11)), limit: 100, ..Scan::default() };
    assert_eq!(store.journal.scan(&scan).await.unwrap(), before);
    store.close().await;
}

async fn a_device_is_found_where_there_is_no_index_yet(bed: Bed) {
    let store = bed.open().await;
    let (device, other) = (DeviceId::mint(), DeviceId::mint());
    let records: Vec<_> = (0..4_000_i64)
        .map(|n| {
            let mut record = bed.event(if n % 2 == 0 { device } else { other }, &n.to_string());
            if n % 777 == 0 {
                record.path = path("global", "area", "rare");
            }
            record
        })
        .collect();
    commit(&store.journal, records).await;
    // Positions are one beyond n: of the even multiples of 777 there are 0, 1554 and 3108.
    let rare = Scan { device: Some(device), name: Some("rare".into()), limit: 10, ..Scan::default() };
    let newest = Scan { order: Order::Newest, ..rare.clone() };
    let second = Scan { after: Position::new(1), limit: 1, ..rare.clone() };
    let all = Scan { device: Some(device), limit: 1_000, ..Scan::default() };
    for round in 0..2 {
        let journal = &store.journal;
        assert_eq!(positions(&journal.scan(&rare).await.unwrap()), [1, 1555, 3109], "{round}");
        assert_eq!(positions(&journal.scan(&newest).await.unwrap()), [3109, 1555, 1], "{round}");
        assert_eq!(positions(&journal.scan(&second).await.unwrap()), [1555], "{round}");
        assert_eq!(positions(&journal.scan(&all).await.unwrap()), (0..1_000).map(|n| n * 2 + 1).collect::<Vec<_>>());
        // The next day has it sealed: the same answers come from its index.
        bed.advance(24 * HOUR);
        commit(journal, [bed.event(other, "tomorrow")]).await;
        eventually("sealed", || files(&bed).iter().any(|name| name == "2026-02-03-1.db") && sealed_without_log(&bed))
            .await;
    }
    store.close().await;
}

fn sealed_without_log(bed: &Bed) -> bool {
    is_sealed(bed, "2026-02-03-1.db") && !files(bed).iter().any(|name| name == "2026-02-03-1.db-wal")
}

fn is_sealed(bed: &Bed, name: &str) -> bool {
    segment(bed, &format!("{name}-seal")).exists()
}

async fn a_seal_that_fails_is_made_up_for(bed: Bed) {
    use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
    let open = || bed.open_with(|config| config.segment_rows = 10);
    let store = open().await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..10).map(|n| bed.event(device, &n.to_string()))).await;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(segment(&bed, "2026-02-03-1.db"));
    let mut lock = options.connect().await.unwrap();
    lock.execute("BEGIN IMMEDIATE").await.unwrap();
    // Four more segments end; the first one cannot be sealed all the time, and is read and known nevertheless.
    commit(&store.journal, (10..45).map(|n| bed.event(device, &n.to_string()))).await;
    commit(&store.journal, (0..45).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(everything(&store.journal).await.len(), 45);
    let scan = Scan { device: Some(device), limit: 100, ..Scan::default() };
    assert_eq!(store.journal.scan(&scan).await.unwrap().len(), 45);
    assert!(!is_sealed(&bed, "2026-02-03-1.db"));
    lock.execute("ROLLBACK").await.unwrap();
    lock.close().await.unwrap();
    store.close().await;

    let store = open().await;
    commit(&store.journal, (0..45).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(everything(&store.journal).await.len(), 45);
    store.close().await;
    for number in 1..=4 {
        assert!(is_sealed(&bed, &format!("2026-02-03-{number}.db")), "{number}");
    }
    assert!(!is_sealed(&bed, "2026-02-03-5.db"));
}

async fn scans_go_on_while_segments_are_sealed(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 20).await;
    let device = DeviceId::mint();
    let mut scans = tokio::task::JoinSet::new();
    for order in [Order::Oldest, Order::Newest] {
        for device in [None, Some(device)] {
            let journal = store.journal.clone();
            scans.spawn(async move {
                let mut least = 0;
                while least < 1_000 {
                    let durable = journal.durable().get();
                    let mut seen = positions(
                        &journal.scan(&Scan { device, order, limit: 1_000, ..Scan::default() }).await.unwrap(),
                    );
                    if order == Order::Newest {
                        seen.reverse();
                    }
                    assert_eq!(seen, (1..=seen.len() as i64).collect::<Vec<_>>());
                    assert!(seen.len() as i64 >= durable);
                    least = seen.len();
                }
            });
        }
    }
    for n in 0..200 {
        commit(&store.journal, (0..5).map(|m| bed.event(device, &(n * 5 + m).to_string()))).await;
    }
    scans.join_all().await;
    store.close().await;
}

async fn a_segment_that_ended_empty_hides_nothing(bed: Bed) {
    use sqlx::{ConnectOptions as _, Connection as _, Executor as _};
    let store = bed.open().await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..10).map(|n| bed.event(device, &n.to_string()))).await;
    store.close().await;
    // What a crash leaves when a segment without a record ended just before: the same base, in any order of the directory.
    for day in ["2026-01-30", "2026-01-31", "2026-02-01", "2026-02-02", "2026-02-04"] {
        let empty = segment(&bed, &format!("{day}-1.db"));
        std::fs::copy(segment(&bed, "2026-02-03-1.db"), &empty).unwrap();
        let mut connection = sqlx::sqlite::SqliteConnectOptions::new().filename(&empty).connect().await.unwrap();
        connection.execute("DELETE FROM record; DELETE FROM device; UPDATE mark SET next = base").await.unwrap();
        connection.close().await.unwrap();
    }
    for _ in 0..2 {
        let store = bed.open().await;
        let scan = |after| Scan { after: Position::new(after), limit: 100, ..Scan::default() };
        for after in 0..10 {
            let seen = positions(&store.journal.scan(&scan(after)).await.unwrap());
            assert_eq!(seen, (after + 1..=10).collect::<Vec<_>>(), "after {after}");
        }
        commit(&store.journal, (0..10).map(|n| bed.event(device, &n.to_string()))).await;
        assert_eq!(everything(&store.journal).await.len(), 10);
        store.close().await;
    }
}

async fn a_serial_is_the_one_of_its_time(bed: Bed) {
    let device = DeviceId::mint();
    let serials = ["ONE", "TWO", "TWO", "ONE"];
    let event = |n: usize| {
        let mut event = bed.event(device, &n.to_string());
        event.serial = serials[n % 4].into();
        event
    };
    let store = bed.open().await;
    // In one batch and in several, on both sides of a restart, and sealed.
    commit(&store.journal, (0..4).map(event)).await;
    commit(&store.journal, [event(4)]).await;
    store.close().await;
    let store = bed.open().await;
    commit(&store.journal, [event(5)]).await;
    bed.advance(24 * HOUR);
    for round in 0..2 {
        let scan = Scan { device: Some(device), limit: 10, ..Scan::default() };
        let found = store.journal.scan(&scan).await.unwrap();
        let found: Vec<&str> = found.iter().map(|record| &*record.serial).collect();
        assert_eq!(found[..6], ["ONE", "TWO", "TWO", "ONE", "ONE", "TWO"], "{round}");
        commit(&store.journal, [event(6)]).await;
        eventually("sealed", || sealed_without_log(&bed)).await;
    }
    store.close().await;
}

async fn what_attributes_were_is_found_at_any_moment(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 7).await;
    let (device, other) = (DeviceId::mint(), DeviceId::mint());
    let paths: Vec<_> = ["a", "b", "c"].map(|name| path("global", "area", name)).into();
    // What was reported, in order, over several segments, the last of which is not sealed.
    let mut told = Vec::new();
    for round in 0..40_usize {
        bed.advance(1_000);
        let (from, name) = (if round % 3 == 0 { other } else { device }, round % 5 % 2);
        let kind = if round % 4 == 0 { RecordKind::Event } else { RecordKind::Attribute };
        let report =
            Record { kind, path: paths[name].clone(), id: None, data: round.to_string().into(), ..bed.event(from, "") };
        told.push(report.clone());
        commit(&store.journal, [report]).await;
    }
    let check = async |store: &vestibule_store::Store| {
        for late in (-2..45).map(|round| NOON + round * 1_000 + 500) {
            let until = store.journal.position_at(late).await.unwrap();
            let before: Vec<_> = told.iter().filter(|record| record.received <= late).collect();
            assert_eq!(until, Position::new(before.len() as i64));
            let found = store.journal.last_reports(device, paths.clone(), until).await.unwrap();
            let values: Vec<_> = found.iter().map(|record| (&record.path, &record.data)).collect();
            let mut expected: Vec<_> = paths
                .iter()
                .filter_map(|path| {
                    let is_it = |record: &&&Record| {
                        record.kind == RecordKind::Attribute && record.device == device && record.path == *path
                    };
                    before.iter().rposition(|record| is_it(&record)).map(|at| (at, path, &before[at].data))
                })
                .collect();
            expected.sort_unstable_by_key(|(at, ..)| *at);
            assert_eq!(values, expected.iter().map(|(_, path, data)| (*path, *data)).collect::<Vec<_>>());
        }
    };
    check(&store).await;
    store.close().await;
    // Memory is made from the files again.
    let store = bed.open_with(|config| config.segment_rows = 7).await;
    check(&store).await;
    store.close().await;
}
