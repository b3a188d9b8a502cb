//! A wall clock that is set, back and forward, while the journal runs and while it does not.

use std::time::Duration;

use vestibule_store::{DeviceId, JournalHealth, Store};

use crate::bed::{Bed, HOUR, commit, everything, ids, on_both, only_on, positions};

on_both!(positions_go_on_whatever_the_clock_does);

only_on!(Sqlite:
    a_step_forward_alone_removes_nothing,
    a_step_forward_between_two_lives_counts_as_a_day_at_most,
    a_step_back_keeps_nothing_for_longer_than_it_was,
);

const DAY: i64 = 24 * HOUR;

/// The names of the segments, in the order of their records: those of a journal whose positions are contiguous.
fn segments(bed: &Bed) -> Vec<String> {
    let entries = std::fs::read_dir(bed.dir().join("journal")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".db")).collect();
    names.sort();
    names
}

async fn open(bed: &Bed, days: u64) -> Store {
    bed.open_with(|config| {
        config.segment_rows = 10;
        config.retention = Duration::from_secs(days * 24 * 3600);
    })
    .await
}

async fn positions_go_on_whatever_the_clock_does(bed: Bed) {
    let device = DeviceId::mint();
    let store = open(&bed, 400).await;
    let mut expected = Vec::new();
    for (n, step) in [0, -HOUR, DAY, -2 * DAY, 300 * DAY, -301 * DAY, DAY].into_iter().enumerate() {
        bed.step(step);
        commit(&store.journal, (0..3).map(|m| bed.event(device, &format!("{n}/{m}")))).await;
        expected.extend((0..3).map(|m| format!("{n}/{m}")));
    }
    assert_eq!(store.journal.health(), JournalHealth::Ok);
    store.close().await;
    // The day of a segment is never before that of the one before it, in one life; after a start it is the clock's again.
    bed.step(-10 * DAY);
    let store = open(&bed, 400).await;
    commit(&store.journal, [bed.event(device, "again")]).await;
    expected.push("again".to_owned());
    let all = everything(&store.journal).await;
    assert_eq!(ids(&all), expected);
    assert_eq!(positions(&all), (1..=22).collect::<Vec<_>>());
    assert_eq!(segments(&bed)[..2], ["2026-02-03-1.db", "2026-02-04-1.db"]);
    // What was stored under one clock is known under another.
    commit(&store.journal, (0..3).map(|m| bed.event(device, &format!("0/{m}")))).await;
    assert_eq!(everything(&store.journal).await.len(), 22);
    store.close().await;
}

async fn a_step_forward_alone_removes_nothing(bed: Bed) {
    let device = DeviceId::mint();
    let store = open(&bed, 30).await;
    let journal = &store.journal;
    commit(journal, (0..25).map(|n| bed.event(device, &n.to_string()))).await;
    bed.step(400 * DAY);
    commit(journal, (25..50).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(positions(&everything(journal).await), (1..=50).collect::<Vec<_>>());
    // Time passes: then they go.
    bed.advance(31 * DAY);
    commit(journal, [bed.event(device, "late")]).await;
    assert_eq!(positions(&everything(journal).await), [51]);
    store.close().await;
}

async fn a_step_forward_between_two_lives_counts_as_a_day_at_most(bed: Bed) {
    let device = DeviceId::mint();
    let store = open(&bed, 30).await;
    commit(&store.journal, (0..25).map(|n| bed.event(device, &n.to_string()))).await;
    store.close().await;
    bed.step(400 * DAY);
    let store = open(&bed, 30).await;
    commit(&store.journal, (25..30).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(everything(&store.journal).await.len(), 30);
    // A day was counted: 29 more, and what was stored before the stop is old.
    bed.advance(29 * DAY + HOUR);
    commit(&store.journal, (30..45).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(positions(&everything(&store.journal).await), (26..=45).collect::<Vec<_>>());
    store.close().await;
}

async fn a_step_back_keeps_nothing_for_longer_than_it_was(bed: Bed) {
    let device = DeviceId::mint();
    let store = open(&bed, 30).await;
    let journal = &store.journal;
    commit(journal, (0..15).map(|n| bed.event(device, &n.to_string()))).await;
    bed.step(-HOUR);
    commit(journal, (15..25).map(|n| bed.event(device, &n.to_string()))).await;
    bed.advance(30 * DAY + HOUR + 1);
    commit(journal, (25..40).map(|n| bed.event(device, &n.to_string()))).await;
    assert_eq!(positions(&everything(journal).await), (26..=40).collect::<Vec<_>>());
    store.close().await;
}
