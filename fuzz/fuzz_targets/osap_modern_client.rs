//! See `osap::fuzz::modern::client`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| osap::fuzz::modern::client(data));
