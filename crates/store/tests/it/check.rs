//! Looking at a journal from beside it, while it runs and when it does not.

use std::fs;
use std::path::{Path, PathBuf};

use vestibule_store::{Checked, DeviceId, check_database, check_segment, segments};

use crate::bed::{Bed, commit, eventually, everything, ids, only_on};
use crate::wreck::{FIRST, Fixture, PAGE, RECORDS, alter, content, rows_of, seal_again};

only_on!(Sqlite:
    a_whole_journal_has_no_flaw_and_is_left_as_it_is,
    an_altered_row_is_found_beside_a_running_platform,
    a_damaged_page_is_named_with_the_rows_it_takes,
    a_row_that_was_altered_before_its_seal_is_found,
    a_segment_that_is_gone_is_no_flaw,
);

async fn checked(data: &Path, running: bool) -> Vec<Checked> {
    let mut all = Vec::new();
    for segment in segments(data) {
        all.push(check_segment(&segment, running).await.unwrap());
    }
    all
}

fn journal_file(data: &Path) -> PathBuf {
    data.join("journal").join(FIRST)
}

async fn a_whole_journal_has_no_flaw_and_is_left_as_it_is(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 1_500).await;
    let device = DeviceId::mint();
    for batch in 0..3 {
        commit(&store.journal, (batch * 1_000..(batch + 1) * 1_000).map(|n| bed.event(device, &n.to_string()))).await;
    }
    commit(&store.journal, [bed.event(device, "after")]).await;
    let whole = |records| Checked { records, flaw: None };
    assert_eq!(checked(&bed.dir(), true).await, [whole(1_500), whole(1_500), whole(1)]);
    commit(&store.journal, [bed.event(device, "it goes on")]).await;
    store.close().await;

    let before = content(&bed.dir());
    assert_eq!(checked(&bed.dir(), false).await, [whole(1_500), whole(1_500), whole(2)]);
    assert!(content(&bed.dir()) == before, "it was changed by looking");
    for deep in [false, true] {
        assert_eq!(check_database(&bed.dir().join("control.db"), deep).await, Ok(()));
    }
}

async fn an_altered_row_is_found_beside_a_running_platform(bed: Bed) {
    let store = bed.open().await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..10).map(|n| bed.event(device, &n.to_string()))).await;
    alter(&journal_file(&bed.dir()), "UPDATE record SET time = 7 WHERE position = 4").await;
    let found = checked(&bed.dir(), true).await;
    let flaw = found[0].flaw.as_ref().expect("a flaw");
    assert_eq!((found[0].records, flaw.lost), (9, Some(1)), "{found:?}");
    assert!(flaw.offset.is_some_and(|offset| offset % PAGE as u64 == 0), "{flaw:?}");
    // A row that another one hides is missed as well.
    alter(&journal_file(&bed.dir()), "DELETE FROM record WHERE position IN (2, 4)").await;
    let found = checked(&bed.dir(), true).await;
    assert_eq!(found[0].flaw.as_ref().expect("a flaw").lost, Some(2), "{found:?}");
    // The platform was not disturbed, and finds the rest itself.
    commit(&store.journal, [bed.event(device, "more")]).await;
    assert_eq!(ids(&everything(&store.journal).await).len(), 9);
    store.close().await;
}

async fn a_damaged_page_is_named_with_the_rows_it_takes(_: Bed) {
    for rows in [RECORDS as u64, 1_000] {
        let fixture = Fixture::make(rows, false).await;
        let file = journal_file(fixture.dir.path());
        let bytes = fs::read(&file).unwrap();
        let mut lost = 0;
        for page in 0..bytes.len() / PAGE {
            let mut damaged = bytes.clone();
            damaged[page * PAGE..(page + 1) * PAGE].fill(0);
            fs::write(&file, &damaged).unwrap();
            let before = content(fixture.dir.path());
            let checked = check_segment(&file, false).await.unwrap();
            assert!(content(fixture.dir.path()) == before, "it was changed by looking");
            let flaw = checked.flaw.expect("a flaw");
            // Without a seal the rest of a large row is missed where the row begins.
            let is_of_row = rows != RECORDS as u64 && flaw.what.starts_with("a row is not");
            let is_named = flaw.offset == Some((page * PAGE) as u64) || is_of_row;
            assert!(flaw.file == file && is_named, "{page}: {flaw:?}");
            // What a page that was split still shows is not there.
            if let Some(gone) = flaw.lost {
                assert!(gone as usize <= rows_of(&bytes, page, &fixture.records).len(), "{page}: {flaw:?}");
                assert_eq!(checked.records + gone, RECORDS as u64);
                lost += gone;
            }
        }
        assert!(lost as i64 >= RECORDS, "every row is on a page: {lost}");
    }
}

async fn a_row_that_was_altered_before_its_seal_is_found(bed: Bed) {
    let store = bed.open_with(|config| config.segment_rows = 5).await;
    let device = DeviceId::mint();
    commit(&store.journal, (0..6).map(|n| bed.event(device, &n.to_string()))).await;
    let file = journal_file(&bed.dir());
    eventually("sealed", || file.with_extension("db-seal").exists()).await;
    store.close().await;
    alter(&file, "UPDATE record SET data = '9' WHERE position = 3").await;
    seal_again(&file);
    let found = check_segment(&file, false).await.unwrap();
    assert_eq!((found.records, found.flaw.expect("a flaw").lost), (4, Some(1)));
}

async fn a_segment_that_is_gone_is_no_flaw(bed: Bed) {
    let file = journal_file(&bed.dir());
    assert_eq!(check_segment(&file, false).await, Ok(Checked::default()));
}
