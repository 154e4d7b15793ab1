use bytes::Bytes;

use super::*;
use crate::mask::{ExactValue, Findings, Layer, Masker, Place};

fn key(byte: u8) -> SurrogateKey {
    SurrogateKey::new(&SecretBytes::new(vec![byte; SURROGATE_KEY_BYTES])).unwrap()
}

fn text(strategy: Strategy, value: &str) -> String {
    match strategy.replacement(&Entity::new("TOKEN"), value.as_bytes(), 4, Some(&key(7))).unwrap() {
        Replacement::Placeholder => "[MASKED:TOKEN]".to_owned(),
        Replacement::Text(text) => String::from_utf8(text).unwrap(),
        Replacement::Observe => value.to_owned(),
    }
}

#[test]
fn the_last_four_stay_only_of_what_is_long_enough() {
    assert_eq!(text(Strategy::KeepLast4, "abcdefgh1234"), "[MASKED:TOKEN:...1234]");
    assert_eq!(text(Strategy::KeepLast4, "abcdefg1234"), "[MASKED:TOKEN]");
    assert_eq!(text(Strategy::KeepLast4, "abcdefghijkl\"123"), "[MASKED:TOKEN]");
}

#[test]
fn a_surrogate_depends_on_value_name_and_key() {
    let one = text(Strategy::Surrogate, "a value");
    assert!(one.starts_with("[TOKEN:") && one.len() == "[TOKEN:]".len() + SURROGATE_DIGITS, "{one}");
    assert_eq!(one, text(Strategy::Surrogate, "a value"));
    assert_ne!(one, text(Strategy::Surrogate, "A value"));
    let with = |name, key: &SurrogateKey| {
        Strategy::Surrogate.replacement(&Entity::new(name), b"a value", 0, Some(key)).unwrap()
    };
    assert_ne!(with("TOKEN", &key(7)), with("TOKEN", &key(8)));
    assert_ne!(with("TOKEN", &key(7)), with("OTHER", &key(7)));
}

#[test]
fn a_form_is_kept_and_nothing_else() {
    let value = "ghp_Ab0dEf-gHi9.xyz";
    let other = text(Strategy::FormatPreserving, value);
    assert!(other.starts_with("ghp_") && other != value, "{other}");
    for (a, b) in value.bytes().zip(other.bytes()) {
        let class = |b: u8| (b.is_ascii_digit(), b.is_ascii_uppercase(), b.is_ascii_lowercase());
        assert_eq!(class(a), class(b), "{other}");
        assert!(b.is_ascii_alphanumeric() || a == b, "{other}");
    }
    assert_eq!(other, text(Strategy::FormatPreserving, value), "the same for the same value");
    assert_eq!(text(Strategy::FormatPreserving, "xxxx-abc-1234"), "[MASKED:TOKEN]", "too little to change");
    assert!(text(Strategy::FormatPreserving, "xxxx-abcd-1234").starts_with("xxxx-"));
    assert!(text(Strategy::FormatPreserving, "xxxx\u{e4}\u{f6}\u{fc}abcdefgh").is_ascii());
}

#[test]
fn no_number_that_is_made_is_valid() {
    for salt in 0..200 {
        let card = format!("4111 1111 1111 {salt:04}");
        let made = text(Strategy::FormatPreserving, &card);
        assert!(!check::luhn(made.as_bytes()), "{made}");
    }
    let mut valid = *b"4111 1111 1111 1111";
    spoil(&mut valid);
    assert!(!check::luhn(&valid));
    let mut valid = *b"GB82 WEST 1234 5698 7654 32";
    spoil(&mut valid);
    assert!(!check::iban(&valid));
}

#[test]
fn what_must_not_go_on_is_an_error_and_the_rest_has_its_bound() {
    let entity = Entity::new("TOKEN");
    let value = vec![b'x'; 300];
    for (strategy, denied) in [(Strategy::Deny, true), (Strategy::Hold, false)] {
        let error = strategy.replacement(&entity, &value, 0, None).unwrap_err();
        assert_eq!(matches!(error, MaskError::Denied { .. }), denied);
        assert!(error.to_string().contains("TOKEN"), "{error}");
    }
    assert_eq!(text(Strategy::Drop, "abc"), "");
    assert_eq!(text(Strategy::Observe, "abc"), "abc");
    for strategy in [Strategy::Surrogate, Strategy::FormatPreserving] {
        let without = strategy.replacement(&entity, &value, 0, None).unwrap();
        assert_eq!(without, Replacement::Placeholder, "there is no key");
    }
    for strategy in [Strategy::KeepLast4, Strategy::Surrogate, Strategy::FormatPreserving, Strategy::Drop] {
        for length in [1, 12, 13, 100, 5000] {
            let made = text(strategy, &"a1b2".repeat(length)[..length]);
            assert!(made.len() <= length.max("TOKEN".len() + REPLACEMENT_EXTRA_BYTES), "{made}");
        }
    }
}

#[test]
fn a_key_has_one_length() {
    let hex = |text: &str| SurrogateKey::from_hex(&crate::secret::SecretText::new(text.to_owned()));
    let by_hex = hex(&"07".repeat(32)).unwrap().surrogate(&Entity::new("T"), b"v");
    assert_eq!(by_hex, key(7).surrogate(&Entity::new("T"), b"v"));
    assert!(hex(&"07".repeat(31)).is_err() && hex(&"0g".repeat(32)).is_err());
    for (length, fine) in [(31, false), (32, true), (33, false)] {
        assert_eq!(SurrogateKey::new(&SecretBytes::new(vec![1; length])).is_ok(), fine, "{length}");
    }
}

#[test]
fn names_are_those_that_are_read() {
    for name in Strategy::NAMES {
        let strategy: Strategy = serde_json::from_value(serde_json::json!(name)).unwrap();
        assert_eq!(serde_json::to_value(strategy).unwrap(), *name);
    }
}

fn with(strategies: &[(&str, Strategy)]) -> Masker {
    let mut layer = Layer::default();
    for (name, strategy) in strategies {
        layer.name(name, *strategy).unwrap();
    }
    let exact = [ExactValue::new("DEPLOY_KEY", &SecretBytes::from("obviously-fake-value/1")).unwrap()];
    let key = SurrogateKey::new(&SecretBytes::new(vec![3; SURROGATE_KEY_BYTES])).unwrap();
    Masker::keyed(&layer.into(), &exact, Some(key)).unwrap()
}

/// Masks with every cut; all give the same.
fn in_all_cuts(masker: &Masker, text: &str) -> (String, Findings) {
    let (whole, found) = masker.mask(text.as_bytes());
    for cut in 0..=text.len() {
        let mut stream = masker.stream();
        let mut out = Vec::new();
        for part in [&text.as_bytes()[..cut], &text.as_bytes()[cut..]] {
            out.extend_from_slice(stream.push(Bytes::copy_from_slice(part)).unwrap().as_bytes());
        }
        out.extend_from_slice(stream.finish().unwrap().as_bytes());
        assert_eq!(String::from_utf8_lossy(&out), whole.to_text(), "cut at {cut}");
        assert_eq!(stream.findings().total(), found.total(), "cut at {cut}");
    }
    (whole.to_text().into_owned(), found)
}

#[test]
fn a_match_becomes_what_its_strategy_says() {
    let text = "to me@example.org with obviously-fake-value/1, again me@example.org";
    let (masked, found) = in_all_cuts(&with(&[("pii", Strategy::Observe), ("exact", Strategy::Drop)]), text);
    assert_eq!(masked, "to me@example.org with , again me@example.org");
    assert_eq!(found.total(), 3, "what is observed is told");
    let (masked, _) = in_all_cuts(&with(&[("EMAIL", Strategy::Surrogate)]), text);
    let parts: Vec<&str> = masked.split(' ').collect();
    assert!(parts[1].starts_with("[EMAIL:") && parts[1] == parts[5], "{masked}");
    let (masked, _) = in_all_cuts(&with(&[("email", Strategy::FormatPreserving)]), text);
    assert!(masked.len() == text.len() && masked != text && masked.starts_with("to "), "{masked}");
    let token = ["ghp_", "a1B2c3D4e5F6g7H8i9J0", "a1B2c3D4e5F6g7H8"].concat();
    let (masked, _) = in_all_cuts(&with(&[("GITHUB_TOKEN", Strategy::KeepLast4)]), &format!("<{token}>"));
    assert_eq!(masked, "<[MASKED:GITHUB_TOKEN:...g7H8]>");
    let (masked, _) = in_all_cuts(&with(&[("GITHUB_TOKEN", Strategy::FormatPreserving)]), &token);
    assert!(masked.starts_with("ghp_") && masked.len() == token.len() && masked != token, "{masked}");
}

#[test]
fn what_is_denied_ends_the_stream_and_stays_ended() {
    for (strategy, reason) in [(Strategy::Deny, "denies"), (Strategy::Hold, "by a rule with `hold`")] {
        let mut stream = with(&[("pii", Strategy::Observe), ("exact", strategy)]).stream();
        let text = "me@example.org obviously-fake-value/1 and more";
        let error = stream.push(Bytes::from_static(text.as_bytes())).unwrap_err();
        assert!(error.to_string().contains("DEPLOY_KEY") && error.to_string().contains(reason), "{error}");
        assert!(!error.to_string().contains("fake"));
        assert!(stream.push(Bytes::from_static(b"more")).is_err() && stream.finish().is_err());
        assert!(!stream.findings().is_empty());
    }
}

#[test]
fn what_reaches_over_a_value_is_masked_with_it_and_shows_nothing_of_it() {
    // Of two keys that overlap neither is the value whose end could be shown.
    let text = ["AKIA", "AKIA", "ABCDEFGHIJKLMNOP"].concat();
    let (masked, _) = in_all_cuts(&with(&[("AWS_ACCESS_KEY_ID", Strategy::KeepLast4)]), &text);
    assert_eq!(masked, "[MASKED:AWS_ACCESS_KEY_ID]");
}

#[test]
fn what_nothing_knows_is_found_only_where_it_is_named() {
    let token = ["q7Gz2XmW9sKp", "4Lr8TvYbN3cD"].concat();
    let text = format!("{{\"x\": \"{token}\", \"y\": 1}}");
    let (masked, _) = in_all_cuts(&with(&[("entropy", Strategy::Placeholder)]), &text);
    assert_eq!(masked, "{\"x\": \"[MASKED:UNKNOWN_CREDENTIAL]\", \"y\": 1}");
    let (masked, _) = in_all_cuts(&with(&[("all", Strategy::Drop)]), &text);
    assert_eq!(masked, text, "`all` does not name it");
    assert_eq!(Masker::builtin_all().unwrap().mask(text.as_bytes()).0.to_text(), text);
    let held = with(&[("UNKNOWN_CREDENTIAL", Strategy::Hold)]).whole(text.as_bytes(), Place::Body);
    assert!(matches!(held, Err(MaskError::Held { .. })), "{held:?}");
}
