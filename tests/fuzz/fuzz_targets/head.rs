//! See `causeway_fuzz::head`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::head(data));
