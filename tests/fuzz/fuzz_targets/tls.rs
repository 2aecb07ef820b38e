//! See `causeway_fuzz::tls`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| causeway_fuzz::tls(data));
