//! See `causeway_fuzz::selection`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::selection(data));
