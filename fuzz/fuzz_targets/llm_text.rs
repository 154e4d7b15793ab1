//! The text of a model in any events.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer_tests::fuzz::the_text_of_a_model_is_the_same_for_any_cut(data));
