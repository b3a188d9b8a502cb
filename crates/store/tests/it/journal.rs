//! The journal: what is appended, what is durable, what is read.

use std::sync::Arc;

use vestibule_store::{DeviceId, Flags, JournalHealth, MAX_SCAN, Order, Position, Recent, Record, RecordKind, Scan};

use crate::bed::{Bed, HOUR, NOON, commit, durable, everything, ids, on_both, path, positions};
use crate::meter::Meter;

on_both!(
    records_come_back_as_they_were,
    positions_are_contiguous_under_concurrent_appends,
    filters_agree_with_a_plain_reading,
    pages_in_both_orders_meet_without_gap_or_overlap,
    a_scan_is_bounded,
    repetitions_are_dropped_and_their_positions_durable,
    the_tail_has_what_is_committed_and_says_when_it_has_not,
    positions_go_on_after_a_restart,
    closing_makes_everything_queued_durable,
    retention_removes_old_records_and_keeps_the_numbering,
    text_no_database_takes_is_made_storable,
    an_unknown_or_empty_journal_answers_nothing,
    commits_are_shared_and_counted,
);

fn records(recent: Recent) -> Vec<Arc<Record>> {
    match recent {
        Recent::Records(records) => records,
        Recent::Gone => panic!("gone"),
    }
}

async fn records_come_back_as_they_were(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let plain = bed.event(device, "e-1");
    let mut rich = bed.event(DeviceId::mint(), "e-2");
    rich.kind = RecordKind::Attribute;
    rich.path = path("Käse", "Fläche", "名前");
    rich.serial = "S/\"'%_".into();
    rich.time = -62_135_596_800_000;
    rich.received = NOON + 7;
    rich.flags = Flags::CLOCK_SUSPECT | Flags::NO_TIME;
    rich.data = r#"{"text":"ß \u0000 ' \" \\ 🦀"}"#.into();
    let mut nameless = bed.event(device, "");
    nameless.id = None;
    nameless.kind = RecordKind::Pass;
    nameless.flags = Flags::AT_LEAST_ONCE;

    let mut expected = vec![plain, rich, nameless];
    let given = commit(&store.journal, expected.clone()).await;
    assert_eq!(given, [1, 2, 3].map(Position::new));
    for (record, position) in expected.iter_mut().zip(&given) {
        record.position = *position;
    }
    let read: Vec<Record> = everything(&store.journal).await.iter().map(|record| Record::clone(record)).collect();
    assert_eq!(read, expected);
    assert_eq!(store.journal.appended(), Position::new(3));
    assert_eq!(store.journal.durable(), Position::new(3));
    assert_eq!(store.journal.oldest().await.unwrap(), Some(Position::new(1)));
    assert_eq!(store.journal.health(), JournalHealth::Ok);
    store.close().await;
}

async fn positions_are_contiguous_under_concurrent_appends(bed: Bed) {
    const THREADS: usize = 8;
    const EACH: usize = 300;
    let store = bed.open().await;
    let handles: Vec<_> = (0..THREADS)
        .map(|thread| {
            let journal = store.journal.clone();
            let device = DeviceId::mint();
            let record = bed.event(device, "");
            std::thread::spawn(move || {
                (0..EACH)
                    .map(|n| {
                        let id = format!("{thread}-{n}");
                        let position = journal.append(Record { id: Some(id.as_str().into()), ..record.clone() });
                        (position.get(), id)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut expected: Vec<(i64, String)> = handles.into_iter().flat_map(|handle| handle.join().unwrap()).collect();
    expected.sort();
    assert_eq!(
        expected.iter().map(|(position, _)| *position).collect::<Vec<_>>(),
        (1..=(THREADS * EACH) as i64).collect::<Vec<_>>()
    );
    durable(&store.journal, Position::new((THREADS * EACH) as i64)).await;
    let all = everything(&store.journal).await;
    let stored: Vec<(i64, String)> = positions(&all).into_iter().zip(ids(&all)).collect();
    assert_eq!(stored, expected);
    store.close().await;
}

/// 240 records over every combination of what a scan filters by, in three segments on SQLite.
async fn varied(bed: &Bed) -> (vestibule_store::Store, Vec<Record>, [DeviceId; 3]) {
    let store = bed.open_with(|config| config.segment_rows = 100).await;
    let devices = [DeviceId::mint(), DeviceId::mint(), DeviceId::mint()];
    let mut all = Vec::new();
    for n in 0..240_i64 {
        let mut record = bed.event(devices[(n % 3) as usize], &format!("e{n}"));
        record.kind = if n % 5 == 0 { RecordKind::Attribute } else { RecordKind::Event };
        record.path = path(
            ["global", "video"][(n / 2 % 2) as usize],
            ["a", "b"][(n / 4 % 2) as usize],
            ["x", "y"][(n / 8 % 2) as usize],
        );
        // Device time runs backwards and forwards against receipt.
        record.time = NOON + (n * 37 % 240) * 1_000;
        record.received = NOON + n * 1_000;
        all.push(record);
    }
    for (record, position) in all.iter_mut().zip(1..) {
        assert_eq!(commit(&store.journal, [record.clone()]).await, [Position::new(position)]);
        record.position = Position::new(position);
    }
    (store, all, devices)
}

async fn filters_agree_with_a_plain_reading(bed: Bed) {
    let (store, all, devices) = varied(&bed).await;
    let mut scans = vec![Scan::default()];
    // Every subset of these narrowings.
    let narrow: [&dyn Fn(&mut Scan); 9] = [
        &|scan| scan.device = Some(devices[1]),
        &|scan| scan.kind = Some(RecordKind::Attribute),
        &|scan| scan.resource = Some("video".into()),
        &|scan| scan.area = Some("b".into()),
        &|scan| scan.name = Some("y".into()),
        &|scan| (scan.time_from, scan.time_to) = (Some(NOON + 40_000), Some(NOON + 200_000)),
        &|scan| (scan.received_from, scan.received_to) = (Some(NOON + 30_000), Some(NOON + 150_000)),
        &|scan| (scan.after, scan.before) = (Position::new(60), Some(Position::new(230))),
        &|scan| scan.order = Order::Newest,
    ];
    for narrow in narrow {
        for index in 0..scans.len() {
            let mut scan = scans[index].clone();
            narrow(&mut scan);
            scans.push(scan);
        }
    }
    let mut found = 0;
    for mut scan in scans {
        scan.limit = 17;
        let mut expected: Vec<i64> = all
            .iter()
            .filter(|record| {
                scan.device.is_none_or(|device| record.device == device)
                    && scan.kind.is_none_or(|kind| record.kind == kind)
                    && scan.resource.as_ref().is_none_or(|resource| **resource == *record.path.resource)
                    && scan.area.as_ref().is_none_or(|area| **area == *record.path.area)
                    && scan.name.as_ref().is_none_or(|name| **name == *record.path.name)
                    && scan.time_from.is_none_or(|from| record.time >= from)
                    && scan.time_to.is_none_or(|to| record.time < to)
                    && scan.received_from.is_none_or(|from| record.received >= from)
                    && scan.received_to.is_none_or(|to| record.received < to)
                    && record.position > scan.after
                    && scan.before.is_none_or(|before| record.position < before)
            })
            .map(|record| record.position.get())
            .collect();
        if scan.order == Order::Newest {
            expected.reverse();
        }
        expected.truncate(scan.limit);
        found += expected.len();
        assert_eq!(positions(&store.journal.scan(&scan).await.unwrap()), expected, "{scan:?}");
    }
    assert!(found > 1_000, "the filters let {found} through: the test says nothing");
    store.close().await;
}

async fn pages_in_both_orders_meet_without_gap_or_overlap(bed: Bed) {
    let (store, all, devices) = varied(&bed).await;
    let expected: Vec<i64> =
        all.iter().filter(|record| record.device == devices[0]).map(|record| record.position.get()).collect();
    let mut oldest = Vec::new();
    let mut newest = Vec::new();
    loop {
        let after = Position::new(oldest.last().copied().unwrap_or(0));
        let scan = Scan { device: Some(devices[0]), after, limit: 7, ..Scan::default() };
        let page = positions(&store.journal.scan(&scan).await.unwrap());
        if page.is_empty() {
            break;
        }
        oldest.extend(page);
    }
    loop {
        let before = newest.last().copied().map(Position::new);
        let scan = Scan { device: Some(devices[0]), before, order: Order::Newest, limit: 7, ..Scan::default() };
        let page = positions(&store.journal.scan(&scan).await.unwrap());
        if page.is_empty() {
            break;
        }
        newest.extend(page);
    }
    newest.reverse();
    assert_eq!(oldest, expected);
    assert_eq!(newest, expected);
    store.close().await;
}

async fn a_scan_is_bounded(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..MAX_SCAN + 200).map(|n| bed.event(device, &n.to_string()))).await;
    let scan = |limit| Scan { limit, ..Scan::default() };
    assert_eq!(store.journal.scan(&scan(usize::MAX)).await.unwrap().len(), MAX_SCAN);
    assert_eq!(store.journal.scan(&scan(3)).await.unwrap().len(), 3);
    assert!(store.journal.scan(&scan(0)).await.unwrap().is_empty());
    store.close().await;
}

async fn repetitions_are_dropped_and_their_positions_durable(bed: Bed) {
    let store = bed.open().await;
    let (one, other) = (DeviceId::mint(), DeviceId::mint());
    let mut nameless = bed.event(one, "");
    nameless.id = None;
    // In one batch, in the next batch, and what only looks like one.
    let given = commit(
        &store.journal,
        [bed.event(one, "a"), bed.event(one, "a"), bed.event(other, "a"), nameless.clone(), nameless],
    )
    .await;
    assert_eq!(given.last(), Some(&Position::new(5)));
    assert_eq!(commit(&store.journal, [bed.event(one, "a")]).await, [Position::new(6)]);
    commit(&store.journal, [bed.event(one, "b")]).await;
    assert_eq!(store.journal.durable(), Position::new(7));

    assert_eq!(positions(&everything(&store.journal).await), [1, 3, 4, 5, 7]);
    assert_eq!(positions(&records(store.journal.recent(Position::START, 100))), [1, 3, 4, 5, 7]);
    store.close().await;
}

async fn the_tail_has_what_is_committed_and_says_when_it_has_not(bed: Bed) {
    let store = bed.open_with(|config| config.tail_records = 10).await;
    let journal = &store.journal;
    let device = DeviceId::mint();
    assert!(records(journal.recent(Position::START, 10)).is_empty());
    commit(journal, (0..25).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(journal.recent(Position::START, 10), Recent::Gone);
    assert_eq!(journal.recent(Position::new(14), 10), Recent::Gone);
    assert_eq!(positions(&records(journal.recent(Position::new(15), 4))), [16, 17, 18, 19]);
    assert_eq!(records(journal.recent(Position::new(15), 100)).len(), 10);
    assert!(records(journal.recent(Position::new(25), 10)).is_empty());
    assert!(records(journal.recent(Position::new(99), 10)).is_empty());

    // Whoever sees the watermark finds the record.
    let mut watch = journal.watch_durable();
    watch.mark_unchanged();
    for n in 26..60 {
        journal.append(bed.event(device, &n.to_string()));
        watch.changed().await.unwrap();
        let seen = *watch.borrow_and_update();
        assert_eq!(positions(&records(journal.recent(Position::new(seen.get() - 1), 1))), [seen.get()]);
    }
    store.close().await;

    // Memory does not survive; a follower is sent to the journal.
    let store = bed.open().await;
    assert_eq!(store.journal.recent(Position::new(50), 10), Recent::Gone);
    assert!(records(store.journal.recent(store.journal.durable(), 10)).is_empty());
    store.close().await;
}

async fn positions_go_on_after_a_restart(bed: Bed) {
    let device = DeviceId::mint();
    let store = bed.open().await;
    commit(&store.journal, [bed.event(device, "a"), bed.event(device, "b"), bed.event(device, "a")]).await;
    store.close().await;
    for round in 0..3 {
        let store = bed.open().await;
        // Position 3 was a repetition: durable, so never given again.
        let last = Position::new(3 + 2 * round);
        assert_eq!(store.journal.durable(), last);
        assert_eq!(store.journal.appended(), last);
        let given = commit(&store.journal, [bed.event(device, &format!("new {round}")), bed.event(device, "a")]).await;
        assert_eq!(given, [last.get() + 1, last.get() + 2].map(Position::new));
        store.close().await;
    }
    let store = bed.open().await;
    assert_eq!(ids(&everything(&store.journal).await), ["a", "b", "new 0", "new 1", "new 2"]);
    store.close().await;
}

async fn closing_makes_everything_queued_durable(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 1_700).await;
    let device = DeviceId::mint();
    for n in 0..5_000 {
        store.journal.append(bed.event(device, &n.to_string()));
    }
    store.close().await;
    assert_eq!(store.journal.durable(), Position::new(5_000));
    store.close().await;

    let store = bed.open().await;
    assert_eq!(positions(&everything(&store.journal).await), (1..=5_000).collect::<Vec<_>>());
    store.close().await;
}

async fn retention_removes_old_records_and_keeps_the_numbering(bed: Bed) {
    let device = DeviceId::mint();
    let store = bed.open_with(|config| config.segment_rows = 10).await;
    commit(&store.journal, (0..20).map(|n| bed.event(device, &n.to_string()))).await;
    bed.advance(48 * HOUR);
    commit(&store.journal, (20..25).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(everything(&store.journal).await.len(), 25);
    store.close().await;

    let retention = |hours: i64| std::time::Duration::from_millis((hours * HOUR) as u64);
    bed.advance(HOUR);
    let store = bed.open_with(|config| config.retention = retention(24)).await;
    // The retention at the start runs beside the opening; a commit comes after it.
    commit(&store.journal, [bed.event(device, "25")]).await;
    assert_eq!(positions(&everything(&store.journal).await), [21, 22, 23, 24, 25, 26]);
    assert_eq!(store.journal.oldest().await.unwrap(), Some(Position::new(21)));
    store.close().await;

    // Everything is old: nothing is left but the numbering.
    bed.advance(1_000 * HOUR);
    for _ in 0..2 {
        let store = bed.open_with(|config| config.retention = retention(24)).await;
        store.close().await;
        let store = bed.open_with(|config| config.retention = retention(24)).await;
        assert_eq!(everything(&store.journal).await.len(), 0);
        assert_eq!(store.journal.oldest().await.unwrap(), None);
        assert_eq!(store.journal.durable(), Position::new(26));
        store.close().await;
    }
}

async fn text_no_database_takes_is_made_storable(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    let mut nul = bed.event(device, "a\0b");
    nul.data = "\"\0\"".into();
    nul.path = path("glo\0bal", "a", "n");
    let long = bed.event(device, &"x".repeat(100_000));
    commit(&store.journal, [nul.clone(), long.clone(), nul, long]).await;
    let all = everything(&store.journal).await;
    assert_eq!(positions(&all), [1, 2]);
    assert_eq!(ids(&all)[0], "a\u{fffd}b");
    assert_eq!(&*all[0].data, "\"\u{fffd}\"");
    let scan = Scan { resource: Some("glo\0bal".into()), limit: 10, ..Scan::default() };
    assert_eq!(positions(&store.journal.scan(&scan).await.unwrap()), [1]);
    store.close().await;
}

async fn an_unknown_or_empty_journal_answers_nothing(bed: Bed) {
    let store = bed.open().await;
    assert_eq!(store.journal.durable(), Position::START);
    assert_eq!(store.journal.oldest().await.unwrap(), None);
    assert!(everything(&store.journal).await.is_empty());
    commit(&store.journal, [bed.event(DeviceId::mint(), "a")]).await;
    let scan = Scan { device: Some(DeviceId::mint()), limit: 10, ..Scan::default() };
    assert!(store.journal.scan(&scan).await.unwrap().is_empty());
    store.close().await;
}

async fn commits_are_shared_and_counted(bed: Bed) {
    // Counted on a thread of its own, so that other tests do not count along.
    std::thread::spawn(move || {
        let meter = Meter::default();
        meter.run(async {
            let store = bed.open_with(|config| config.commit_records = 100).await;
            let device = DeviceId::mint();
            commit(&store.journal, (0..1_000).map(|n| bed.event(device, &(n % 900).to_string()))).await;
            assert_eq!(meter.count("vestibule_journal_committed_total"), 900);
            assert_eq!(meter.count("vestibule_journal_duplicates_total"), 100);
            store.close().await;
        });
    })
    .join()
    .unwrap();
}
