//! See `causeway_fuzz::loose_json`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::loose_json(data));
