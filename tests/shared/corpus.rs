//! Replays what a fuzzer found: each input of a corpus through the function it was found with. For the tests of every
//! crate with fuzz targets, which include this file by its path.

use std::fs;
use std::path::Path;

/// The least inputs of a corpus that is worth replaying.
const LEAST: usize = 100;
/// The most bytes of one input.
const LARGEST: usize = 4096;

/// Runs `fuzz/corpus/{target}`. A corpus that is missing or nearly empty fails.
pub fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("a readable directory").path());
    let mut count = 0;
    for path in inputs {
        let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(data.len() <= LARGEST, "{} is too large", path.display());
        // Shown with the failure of an input, and only then.
        println!("{}", path.display());
        run(&data);
        count += 1;
    }
    assert!(count >= LEAST, "{} holds {count} inputs", dir.display());
}
