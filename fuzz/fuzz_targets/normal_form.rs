//! The normal form, and the way back from it.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| enforcer::mask::fuzzing::the_normal_form_is_the_same_for_any_cut(data));
