//! A known value comes out in no form.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer_tests::fuzz::no_known_value_comes_out(data));
