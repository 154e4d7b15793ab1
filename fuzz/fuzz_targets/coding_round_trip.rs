//! What the encoder writes the decoder reads.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer_tests::fuzz::what_is_coded_is_read_again(data));
