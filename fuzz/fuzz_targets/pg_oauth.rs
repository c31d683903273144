#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ascribe_fuzz::pg_oauth(data));
