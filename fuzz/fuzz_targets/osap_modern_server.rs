//! See `osap::fuzz::modern::server`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| osap::fuzz::modern::server(data));
