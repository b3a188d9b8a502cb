//! See `vestibule_device::fuzz::cache`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| vestibule_device::fuzz::cache(data));
