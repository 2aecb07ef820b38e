//! See `causeway_fuzz::template`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::template(data));
