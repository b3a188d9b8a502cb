//! The corpora of the fuzz targets `osap_*`, replayed.

use osap::fuzz::TARGETS;

#[path = "../../../../tests/shared/corpus.rs"]
mod shared;

#[test]
fn every_target_replays_its_corpus() {
    assert!(!TARGETS.is_empty());
    for (target, run) in TARGETS {
        shared::replay(target, *run);
    }
}
