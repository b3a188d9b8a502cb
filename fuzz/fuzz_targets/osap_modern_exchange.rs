//! See `osap::fuzz::modern::exchange`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| osap::fuzz::modern::exchange(data));
