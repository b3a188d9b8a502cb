//! Damage that is salvaged beside the writing: new events go on being committed, and nothing is lost by that.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use vestibule_store::{DeviceId, JournalHealth, Position, ReadAt, Scan};

use crate::bed::{Bed, HOUR, commit, eventually, everything, ids, only_on, positions};
use crate::wreck::{FIRST, PAGE, alter, seal_again};

only_on!(Sqlite:
    commits_go_on_while_a_sealed_segment_is_salvaged,
    commits_go_on_while_the_segment_that_was_written_to_is_salvaged,
    a_segment_that_retention_removes_while_it_is_salvaged_is_gone,
    a_store_that_is_closed_does_not_wait_for_a_salvage,
);

/// A disk that does not give single pages of one file as long as it is held: sealed pages are compared many at once, so what
/// waits is the look at the rows.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<Option<u64>>, Condvar, AtomicUsize)>);

impl Gate {
    fn hold(&self, file: &Path) {
        *self.0.0.lock() = Some(fs::metadata(file).unwrap().ino());
    }

    fn release(&self) {
        *self.0.0.lock() = None;
        self.0.1.notify_all();
    }

    /// How often somebody had to wait.
    fn waited(&self) -> usize {
        self.0.2.load(Ordering::SeqCst)
    }

    fn disk(&self) -> ReadAt {
        let gate = self.0.clone();
        Arc::new(move |_, file, bytes, at| {
            let (held, released, waited) = &*gate;
            let inode = file.metadata()?.ino();
            let mut held = held.lock();
            if *held == Some(inode) && bytes.len() == PAGE {
                waited.fetch_add(1, Ordering::SeqCst);
                released.wait_while(&mut held, |held| *held == Some(inode));
            }
            drop(held);
            file.read_at(bytes, at)
        })
    }
}

fn first(bed: &Bed) -> PathBuf {
    bed.dir().join("journal").join(FIRST)
}

const ALTERATION: &str = "UPDATE record SET time = 7 WHERE position = 2";

/// A journal whose first segment is sealed over an altered row, which nobody has read yet.
async fn sealed_over_damage(bed: &Bed, device: DeviceId) {
    let store = bed.open_with(|config| config.segment_rows = 5).await;
    commit(&store.journal, (0..6).map(|n| bed.event(device, &n.to_string()))).await;
    eventually("sealed", || first(bed).with_extension("db-seal").exists()).await;
    store.close().await;
    alter(&first(bed), ALTERATION).await;
    seal_again(&first(bed));
}

async fn commits_go_on_while_a_sealed_segment_is_salvaged(bed: Bed) {
    let device = DeviceId::mint();
    sealed_over_damage(&bed, device).await;
    let gate = Gate::default();
    gate.hold(&first(&bed));
    let store = bed.open_with(|config| (config.segment_rows, config.read_at) = (5, gate.disk())).await;
    let journal = store.journal.clone();
    let scan = tokio::spawn(async move { journal.scan(&Scan { limit: 3, ..Scan::default() }).await });
    eventually("it is looked at", || gate.waited() > 0).await;
    // Through several segments, which are sealed meanwhile.
    for n in 6..30 {
        commit(&store.journal, [bed.event(device, &n.to_string())]).await;
    }
    assert_eq!((store.journal.health(), store.journal.damage()), (JournalHealth::Ok, vec![]));
    assert!(!scan.is_finished());
    gate.release();
    assert_eq!(positions(&scan.await.unwrap().unwrap()), [1, 3, 4]);
    let damage = store.journal.damage();
    assert_eq!((damage.len(), damage[0].salvaged, damage[0].lost), (1, 4, Some(1)), "{damage:?}");
    // Repetitions are still recognised, and the row that was lost is new.
    commit(&store.journal, (0..30).map(|n| bed.event(device, &n.to_string()))).await;
    let mut all = ids(&everything(&store.journal).await);
    all.sort_by_key(|id| id.parse::<i32>().unwrap());
    assert_eq!(all, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    store.close().await;
    let store = bed.open().await;
    assert_eq!(everything(&store.journal).await.len(), 30);
    store.close().await;
}

async fn commits_go_on_while_the_segment_that_was_written_to_is_salvaged(bed: Bed) {
    let device = DeviceId::mint();
    let gate = Gate::default();
    let store = bed.open_with(|config| config.read_at = gate.disk()).await;
    commit(&store.journal, (0..5).map(|n| bed.event(device, &n.to_string()))).await;
    alter(&first(&bed), ALTERATION).await;
    gate.hold(&first(&bed));
    let journal = store.journal.clone();
    let scan = tokio::spawn(async move { journal.scan(&Scan { limit: 100, ..Scan::default() }).await });
    eventually("it is looked at", || gate.waited() > 0).await;
    commit(&store.journal, (3..8).map(|n| bed.event(device, &n.to_string()))).await;
    gate.release();
    assert_eq!(ids(&scan.await.unwrap().unwrap()), ["0", "2", "3", "4"]);
    let found = everything(&store.journal).await;
    assert_eq!(ids(&found), ["0", "2", "3", "4", "5", "6", "7"]);
    assert_eq!(store.journal.damage().len(), 1);
    assert!(bed.dir().join("journal/2026-02-03-2.db").exists(), "new events went elsewhere");
    store.close().await;
    let store = bed.open().await;
    assert_eq!(everything(&store.journal).await, found);
    store.close().await;
}

async fn a_segment_that_retention_removes_while_it_is_salvaged_is_gone(bed: Bed) {
    let device = DeviceId::mint();
    sealed_over_damage(&bed, device).await;
    let gate = Gate::default();
    gate.hold(&first(&bed));
    let store = bed
        .open_with(|config| {
            (config.segment_rows, config.read_at) = (5, gate.disk());
            config.retention = Duration::from_secs(3600);
        })
        .await;
    let journal = store.journal.clone();
    let scan = tokio::spawn(async move { journal.scan(&Scan { limit: 100, ..Scan::default() }).await });
    eventually("it is looked at", || gate.waited() > 0).await;
    bed.advance(2 * HOUR);
    // The next segment begins, and what is old goes.
    commit(&store.journal, (10..17).map(|n| bed.event(device, &n.to_string()))).await;
    assert!(!first(&bed).exists());
    gate.release();
    let found = scan.await.unwrap().unwrap();
    assert!(found.iter().all(|record| record.position > Position::new(5)), "{found:?}");
    assert_eq!(store.journal.damage(), []);
    assert!(!first(&bed).exists() && !first(&bed).with_extension("db-salvage").exists());
    commit(&store.journal, [bed.event(device, "after")]).await;
    store.close().await;
}

async fn a_store_that_is_closed_does_not_wait_for_a_salvage(bed: Bed) {
    let device = DeviceId::mint();
    sealed_over_damage(&bed, device).await;
    let gate = Gate::default();
    gate.hold(&first(&bed));
    let store = bed.open_with(|config| (config.segment_rows, config.read_at) = (5, gate.disk())).await;
    let journal = store.journal.clone();
    let scan = tokio::spawn(async move { journal.scan(&Scan { limit: 100, ..Scan::default() }).await });
    eventually("it is looked at", || gate.waited() > 0).await;
    // It waits for the page that the disk was asked for, and for no more.
    tokio::join!(store.close(), async {
        eventually("the scan is told", || scan.is_finished()).await;
        gate.release();
    });
    assert!(scan.await.unwrap().is_err());
    assert!(!first(&bed).with_extension("db-salvage").exists());
    let store = bed.open().await;
    assert_eq!(positions(&everything(&store.journal).await), [1, 3, 4, 5, 6]);
    assert_eq!(store.journal.damage().len(), 1);
    store.close().await;
}
