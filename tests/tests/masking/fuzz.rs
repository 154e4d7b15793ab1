//! The bodies of the fuzz targets, with inputs by a seed: what libFuzzer looks for without an end
//! is looked for a little with every change.

use enforcer_tests::fuzz;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Of which texts are made that hold more than noise does.
const PARTS: &[&str] = &[
    "obviously-fake-value/1",
    "obviously\\\"fake%41",
    "obviously-",
    "b2J2aW91c2x5LWZha2UtdmFsdWUvMQ==",
    "6f6276696f75736c792d66616b652d76616c75652f31",
    "abababab",
    "AKIAQ7XK3PLM5RTZ2VWN",
    "ghp_",
    "sk-ant-",
    "-----BEGIN PRIVATE KEY-----\n",
    "-----END PRIVATE KEY-----",
    "password=",
    "https://user:",
    "@host",
    "someone@example.org",
    "4111 1111 1111 1111",
    "%25",
    "%4",
    "%41",
    "\\u00",
    "\\u0041",
    "\\\\",
    "\\\"",
    "\\n",
    "\\r",
    "&#x41;",
    "&amp;",
    "=3D",
    "=\r\n",
    "\u{200b}",
    "\u{ad}",
    "\u{1b}[31m",
    "\0",
    "\u{ff21}",
    "\u{1f511}",
    "{\"key\":\"",
    "\"}",
    "eyJhbGciOiJIUzI1NiJ9.",
    "data: ",
    "\n\n",
    "{\"choices\":[{\"delta\":",
];

fn text() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        6 => prop::sample::select(PARTS).prop_map(|it| it.as_bytes().to_vec()),
        2 => "[ -~]{0,24}".prop_map(String::into_bytes),
        1 => "[A-Za-z0-9+/_=-]{0,60}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..12),
    ];
    let choice = prop::collection::vec(any::<u8>(), 4);
    let parts = prop::collection::vec(part, 0..16).prop_map(|parts| parts.concat());
    (choice, parts).prop_map(|(choice, parts)| [choice, parts].concat())
}

/// Tries a body with so many inputs, the same ones each time.
fn tried(cases: u32, body: fn(&[u8])) {
    let cases = std::env::var("ENFORCER_FUZZ_CASES").map_or(cases, |it| it.parse().unwrap());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let seed = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(config, seed);
    let run = runner.run(&text(), |input| {
        body(&input);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn masking_in_pieces_is_masking_the_whole() {
    tried(400, fuzz::any_cut_is_the_same);
}

#[test]
fn no_known_value_comes_out() {
    tried(200, fuzz::no_known_value_comes_out);
}

#[test]
fn what_is_coded_is_read_again() {
    tried(200, fuzz::what_is_coded_is_read_again);
}

#[test]
fn what_is_decoded_is_the_same_for_any_cut() {
    tried(200, fuzz::what_is_decoded_is_the_same_for_any_cut);
}

#[test]
fn the_text_of_a_model_is_the_same_for_any_cut() {
    tried(200, fuzz::the_text_of_a_model_is_the_same_for_any_cut);
}

#[test]
fn any_bytes_as_a_stream_are_the_same_for_any_cut() {
    tried(200, fuzz::any_bytes_as_a_stream_are_the_same_for_any_cut);
}
