//! A journal whose files were damaged: it opens, returns nothing that was not written, loses at most what was on the
//! damaged page, says so, and goes on.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use vestibule_store::{DeviceId, JournalHealth, Position, Scan};

use crate::bed::{Bed, commit, everything, ids, only_on};
use crate::wreck::{
    Case, FIRST, FRAME, Fixture, LOG, PAGE, RECORDS, alter, committed_before, frames, rows_of, seal_again,
};

only_on!(Sqlite:
    an_altered_row_is_set_aside_while_others_are_read,
    a_damaged_page_of_a_sealed_segment_takes_only_its_rows,
    a_damaged_page_of_the_newest_segment_takes_only_its_rows,
    a_damaged_log_loses_at_most_what_follows,
    segments_cut_short_lose_what_is_gone,
    a_damaged_seal_or_mark_loses_nothing,
    a_row_that_was_altered_before_its_seal_is_found_when_it_is_sealed,
    a_row_that_was_altered_before_its_seal_is_found_behind_it,
    a_missing_file_repeats_no_position,
    damage_is_told_until_its_files_are_taken_away,
    what_was_set_aside_gives_way_at_the_cap,
);

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

async fn a_damaged_page_of_a_sealed_segment_takes_only_its_rows(_: Bed) {
    let fixture = Fixture::make(RECORDS as u64, false).await;
    assert!(fixture.file(FIRST).len() > 12 * PAGE);
    fixture.survives_damaged_pages(FIRST, true).await;
}

async fn a_damaged_page_of_the_newest_segment_takes_only_its_rows(_: Bed) {
    let fixture = Fixture::make(1_000, false).await;
    fixture.survives_damaged_pages(FIRST, false).await;
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
