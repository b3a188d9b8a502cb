//! The law `frame` of the MQTT codec, which its tests hold to the same inputs.
#![no_main]

#[path = "../../crates/mqtt-codec/tests/it/laws.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|data: &[u8]| laws::frame(data));
