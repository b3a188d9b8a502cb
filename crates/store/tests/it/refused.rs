//! A disk that refuses to read some of a journal's bytes: they count as damaged, unless it refuses everything.

use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use vestibule_store::{ReadAt, Store, StoreConfig};

use crate::bed::{Bed, NOON, eventually, everything, only_on};
use crate::wreck::{Case, FIRST, FRAME, Fixture, LOG, PAGE, RECORDS, content, frames, refusing, rows_of};

only_on!(Sqlite:
    a_page_that_the_disk_refuses_takes_only_its_rows,
    a_frame_that_the_disk_refuses_takes_only_its_rows,
    a_seal_or_mark_that_the_disk_refuses_loses_nothing,
    a_disk_that_refuses_everything_sets_nothing_aside,
    a_disk_that_answers_again_loses_nothing,
);

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
        // It is salvaged beside the reading.
        eventually("the damage to be told", || !store.journal.damage().is_empty()).await;
        let damage = store.journal.damage();
        assert_eq!((damage.len(), damage[0].offset, damage[0].lost), (1, page, Some(0)), "{damage:?}");
        assert_eq!(damage[0].what, "the disk refuses to read it");
        store.close().await;
    }
}
