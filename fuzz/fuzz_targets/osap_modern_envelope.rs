//! See `osap::fuzz::modern::envelope`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| osap::fuzz::modern::envelope(data));
