//! What the fuzzers found, replayed: each input of `fuzz/corpus/mqtt_*` under the law it was
//! found with. A corpus that is missing or nearly empty fails.

use std::fs;
use std::path::Path;

use crate::laws;

/// The least inputs of a corpus that is worth replaying.
const LEAST: usize = 100;
/// The most bytes of one input.
const LARGEST: usize = 4096;

fn replay(target: &str, law: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let inputs = fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.expect("a readable directory").path());
    let mut count = 0;
    for path in inputs {
        let data = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(data.len() <= LARGEST, "{} is too large", path.display());
        // Shown with the failure of a law, and only then.
        println!("{}", path.display());
        law(&data);
        count += 1;
    }
    assert!(count >= LEAST, "{} holds {count} inputs", dir.display());
}

#[test]
fn mqtt_frame() {
    replay("mqtt_frame", laws::frame);
}

#[test]
fn mqtt_stream() {
    replay("mqtt_stream", laws::stream);
}

#[test]
fn mqtt_roundtrip() {
    replay("mqtt_roundtrip", laws::roundtrip);
}

#[test]
fn mqtt_topic() {
    replay("mqtt_topic", laws::topic);
}
