//! See `causeway_fuzz::definition`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::definition(data));
