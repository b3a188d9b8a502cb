//! The corpora of the fuzz targets `osap_*`, replayed.

use std::fs;
use std::path::Path;

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

/// The inputs from which a fuzzer starts: runs that end well, what an insider would say, and steps. With
/// `WRITE_SEEDS=1` they are written into the corpora, the same ones each time.
#[test]
fn the_seeds_of_the_modern_suites_break_no_rule() {
    let seeds = osap::fuzz::modern::seeds();
    for (target, seed) in &seeds {
        let (_, run) = TARGETS.iter().find(|(name, _)| name == target).expect("seeds belong to a target");
        if std::env::var_os("WRITE_SEEDS").is_some() {
            write(target, seed);
        }
        run(seed);
    }
    for target in ["osap_modern_server", "osap_modern_client", "osap_modern_exchange", "osap_modern_envelope"] {
        let count = seeds.iter().filter(|(name, _)| *name == target).count();
        assert!((100..=600).contains(&count), "{target} has {count} seeds");
    }
}

fn write(target: &str, seed: &[u8]) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    fs::create_dir_all(&dir).expect("the corpora are beside the targets");
    // The name says nothing but that it is another input: a sum over its bytes (FNV-1a).
    let name = seed
        .iter()
        .fold(0xCBF2_9CE4_8422_2325_u64, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3));
    fs::write(dir.join(format!("{name:016x}")), seed).expect("the corpus can be written");
}
