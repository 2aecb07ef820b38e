//! See `causeway_fuzz::offer`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::offer(data));
