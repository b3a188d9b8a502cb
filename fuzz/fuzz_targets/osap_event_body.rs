//! See `osap::fuzz::event_body`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| osap::fuzz::event_body(data));
