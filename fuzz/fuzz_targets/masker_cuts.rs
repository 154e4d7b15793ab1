//! Masking in pieces is masking the whole.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer_tests::fuzz::any_cut_is_the_same(data));
