use aws_lc_rs::encoding::AsBigEndian;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const ES: Algorithm = Algorithm::ES256;

fn jwk(kid: &str) -> Value {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    json!({"kty": "EC", "use": "sig", "kid": kid, "alg": "ES256", "crv": "P-256", "x": x, "y": y})
}

fn keys(kids: &[&str]) -> Vec<Key> {
    read(json!({"keys": kids.iter().map(|kid| jwk(kid)).collect::<Vec<_>>()}).to_string().as_bytes()).unwrap()
}

#[test]
fn a_document_has_so_many_keys_and_not_one_more() {
    let document = |count: usize| json!({"keys": vec![jwk("a"); count]}).to_string();
    assert_eq!(read(document(MAX_KEYS).as_bytes()).unwrap().len(), MAX_KEYS);
    read(document(MAX_KEYS + 1).as_bytes()).unwrap_err();
    for wrong in ["", "{}", "[]", "{\"keys\": {}}", "{\"keys\": []}", "{\"keys\": [1, null, {}]}"] {
        read(wrong.as_bytes()).unwrap_err();
    }
}

#[test]
fn a_key_that_is_not_for_signatures_or_not_public_is_none() {
    let mut for_encryption = jwk("a");
    for_encryption["use"] = "enc".into();
    let symmetric = json!({"kty": "oct", "kid": "a", "alg": "HS256", "k": "AAAA"});
    let unknown = json!({"kty": "PQC", "kid": "a"});
    for other in [for_encryption, symmetric, unknown] {
        read(json!({"keys": [&other]}).to_string().as_bytes()).unwrap_err();
        // One that is not known hides no other.
        let document = json!({"keys": [other, jwk("b")]}).to_string();
        assert_eq!(read(document.as_bytes()).unwrap().len(), 1);
    }
}

#[test]
fn a_key_is_for_its_own_algorithm() {
    let key = &keys(&["a"])[0];
    assert!(key.fits(ES));
    assert!(!key.fits(Algorithm::ES384) && !key.fits(Algorithm::RS256) && !key.fits(Algorithm::HS256));
    let signed = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let secret: Vec<u8> = signed.private_key().as_be_bytes().unwrap().as_ref().to_vec();
    assert!(!key.signed(ES, b"message", &URL_SAFE_NO_PAD.encode(secret)));
    for broken in ["", "=", "not base64!", "AAAA"] {
        assert!(!key.signed(ES, b"message", broken), "{broken}");
    }
}

fn used(next: &Next) -> Option<&str> {
    match next {
        Next::Use(key) => key.kid.as_deref(),
        _ => None,
    }
}

#[test]
fn keys_are_used_until_they_are_old() {
    let (mut cache, begun) = (Cache::default(), Instant::now());
    assert!(matches!(cache.next(Some("a"), ES, begun), Next::Fetch));
    cache.asks(begun);
    cache.took(keys(&["a", "b"]), Some(Duration::from_secs(300)), begun);
    let at = |seconds| begun + Duration::from_secs(seconds);
    assert_eq!(used(&cache.next(Some("b"), ES, at(299))), Some("b"));
    assert!(matches!(cache.next(Some("b"), ES, at(300)), Next::Fetch));
    // Without a name there has to be one alone.
    assert_eq!(used(&cache.next(None, ES, at(1))), None);
    cache.took(keys(&["a"]), None, begun);
    assert_eq!(used(&cache.next(None, ES, at(1))), Some("a"));
    assert!(matches!(cache.next(None, Algorithm::RS256, at(1)), Next::Fetch));
}

#[test]
fn an_issuer_does_not_say_how_often_it_is_asked() {
    let begun = Instant::now();
    for (says, at_least, at_most) in [(0, FRESH_MIN, FRESH_MIN), (u64::MAX, FRESH_MAX, FRESH_MAX)] {
        let mut cache = Cache::default();
        cache.took(keys(&["a"]), Some(Duration::from_secs(says)), begun);
        let before = begun + at_least - Duration::from_secs(1);
        assert_eq!(used(&cache.next(Some("a"), ES, before)), Some("a"));
        assert!(matches!(cache.next(Some("a"), ES, begun + at_most), Next::Fetch));
    }
}

#[test]
fn a_key_that_is_not_there_has_the_issuer_asked_once_in_a_while() {
    let (mut cache, begun) = (Cache::default(), Instant::now());
    cache.asks(begun);
    cache.took(keys(&["a"]), None, begun);
    // At once: it may have been changed since.
    assert!(matches!(cache.next(Some("new"), ES, begun), Next::Fetch));
    cache.asks(begun);
    cache.took(keys(&["a"]), None, begun);
    let last = begun + REFETCH_PAUSE - Duration::from_millis(1);
    for kid in ["new", "newer", ""] {
        assert!(matches!(cache.next(Some(kid), ES, last), Next::Unknown));
    }
    assert_eq!(used(&cache.next(Some("a"), ES, last)), Some("a"));
    assert!(matches!(cache.next(Some("new"), ES, begun + REFETCH_PAUSE), Next::Fetch));
}

#[test]
fn an_issuer_that_fails_is_asked_after_a_pause_and_no_old_key_is_used() {
    let (mut cache, begun) = (Cache::default(), Instant::now());
    cache.took(keys(&["a"]), Some(FRESH_MIN), begun);
    let old = begun + FRESH_MIN;
    cache.asks(old);
    cache.failed("it is down".to_owned(), old);
    let next = cache.next(Some("a"), ES, old + RETRY_PAUSE - Duration::from_millis(1));
    assert!(matches!(next, Next::Unavailable(why) if why == "it is down"));
    assert!(matches!(cache.next(Some("a"), ES, old + RETRY_PAUSE), Next::Fetch));
    // What is fresh is used, whatever became of a refetch.
    cache.took(keys(&["a"]), None, old);
    cache.failed("it is down".to_owned(), old);
    assert_eq!(used(&cache.next(Some("a"), ES, old)), Some("a"));
    assert!(matches!(cache.next(Some("b"), ES, old), Next::Unknown));
}
