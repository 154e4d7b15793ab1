//! Any bytes where a model's answer should be.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer_tests::fuzz::any_bytes_as_a_stream_are_the_same_for_any_cut(data));
