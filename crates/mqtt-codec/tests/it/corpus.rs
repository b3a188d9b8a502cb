//! The corpora of the fuzz targets `mqtt_*`, replayed under the laws they were found with.

use crate::laws;

#[path = "../../../../tests/shared/corpus.rs"]
mod shared;
use shared::replay;

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
