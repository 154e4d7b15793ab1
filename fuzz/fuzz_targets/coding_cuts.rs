//! A damaged body is read or refused however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer_tests::fuzz::what_is_decoded_is_the_same_for_any_cut(data));
