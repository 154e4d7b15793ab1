//! Tokens of an issuer of our own, over real TLS: which are taken, and which are not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use enforcer::outgoing::Client;
use enforcer::secret::SecretText;
use enforcer::workload::identity::slot::Slot;
use enforcer::workload::identity::{Assurance, Field, Identity, IdentityConfig, Refusal, Verifier};
use enforcer_tests::issuer::{Issuer, Mood, Signer, unsigned};
use serde_json::{Value, json};

const NAME: &str = "issuer.test";
const AUDIENCE: &str = "https://enforcer.test";
const LEEWAY: u64 = 60;
/// As `workload::identity::token` has it.
const MAX_TOKEN: usize = 16 * 1024;
/// As `workload::identity::fetch` has it.
const MAX_DOCUMENT: usize = 256 * 1024;

struct World {
    issuer: Issuer,
    verifier: Verifier,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(&json!({}))
    }

    /// With other settings of the issuer.
    fn with(settings: &Value) -> Self {
        let issuer = Issuer::start(NAME).unwrap();
        let (verifier, dir) = verifier(&issuer, settings, true);
        Self { issuer, verifier, _dir: dir }
    }

    fn claims(&self) -> Value {
        let now = now();
        json!({
            "iss": self.issuer.url, "aud": AUDIENCE, "sub": "repo:a/b:ref:refs/heads/main", "jti": "one",
            "iat": now, "nbf": now, "exp": now + 300, "repository": "a/b", "repository_id": "7",
            "ref": "refs/heads/main", "ref_protected": "true", "sha": "1234", "workflow": "build",
            "event_name": "push", "run_id": "42", "run_attempt": "1", "check_run_id": "77", "actor": "mona",
        })
    }

    fn claims_but(&self, name: &str, value: Value) -> Value {
        let mut claims = self.claims();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value,
        }
        claims
    }

    async fn verify(&self, token: &str) -> Result<Identity, Refusal> {
        let token = SecretText::new(token.to_owned());
        self.verifier.verify(&token, SystemTime::now()).await.map(|shown| shown.identity().clone())
    }

    async fn refused(&self, token: &str) -> Refusal {
        self.verify(token).await.expect_err("it was taken")
    }

    /// Of a token whose issuer signed all that.
    async fn refused_with(&self, name: &str, value: Value) -> Refusal {
        self.refused(&self.issuer.token(&self.claims_but(name, value))).await
    }
}

fn verifier(issuer: &Issuer, settings: &Value, trusted: bool) -> (Verifier, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, &issuer.ca_pem).unwrap();
    let mut config = json!({
        "name": "test", "issuer": issuer.url, "audience": AUDIENCE, "profile": "github",
        "algorithms": ["RS256", "ES256"],
    });
    for (key, value) in settings.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let config: IdentityConfig =
        serde_json::from_value(json!({ "leeway_s": LEEWAY, "issuer": [config] })).unwrap();
    let names = BTreeMap::from([(NAME.to_owned(), vec![issuer.address.ip()])]);
    let client = Client::new(trusted.then_some(&*roots), names).unwrap();
    (Verifier::new(&config, Box::new(client)).unwrap(), dir)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test]
async fn a_token_of_the_issuer_says_who_the_job_is() {
    let world = World::new();
    let identity = world.verify(&world.issuer.token(&world.claims())).await.unwrap();
    assert_eq!(identity.assurance(), Assurance::Oidc);
    let claims = identity.claims();
    assert_eq!(claims.issuer, world.issuer.url);
    for (field, text) in [
        (Field::Repository, "a/b"),
        (Field::Ref, "refs/heads/main"),
        (Field::RunId, "42"),
        (Field::JobId, "77"),
        (Field::Actor, "mona"),
    ] {
        assert_eq!(claims.get(field), Some(text));
    }
    assert_eq!(claims.ref_protected, Some(true));
    // One key for all of them.
    world.verify(&world.issuer.token(&world.claims())).await.unwrap();
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test]
async fn times_are_kept_to_the_second_with_a_leeway() {
    let world = World::new();
    let token = world.issuer.token(&world.claims());
    let token = SecretText::new(token);
    let claims = world.claims();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(seconds);
    let (issued, ends) = (claims["iat"].as_u64().unwrap(), claims["exp"].as_u64().unwrap());
    // The claims were made twice, maybe in two seconds.
    let issued = issued - 1;
    let verify = |seconds| world.verifier.verify(&token, at(seconds));
    assert!(verify(issued + 2 - LEEWAY).await.is_ok());
    assert_eq!(verify(issued - 1 - LEEWAY).await.unwrap_err(), Refusal::NotYet);
    assert!(verify(ends - 2 + LEEWAY).await.is_ok());
    assert_eq!(verify(ends + LEEWAY).await.unwrap_err(), Refusal::Expired);
}

#[tokio::test]
async fn what_is_not_for_us_and_now_is_refused() {
    let world = World::new();
    let soon = now() + LEEWAY + 60;
    let past = now() - LEEWAY - 60;
    assert_eq!(world.refused_with("exp", json!(past)).await, Refusal::Expired);
    assert_eq!(world.refused_with("nbf", json!(soon)).await, Refusal::NotYet);
    assert_eq!(world.refused_with("iat", json!(soon)).await, Refusal::NotYet);
    for other in [
        json!("https://else.test"),
        json!(format!("{AUDIENCE}/")),
        json!([AUDIENCE, "https://else.test"]),
        json!([AUDIENCE, AUDIENCE]),
        json!([]),
        json!([[AUDIENCE]]),
    ] {
        let refusal = world.refused_with("aud", other.clone()).await;
        assert!(matches!(refusal, Refusal::Audience { .. }), "{other}: {refusal}");
    }
    world.verify(&world.issuer.token(&world.claims_but("aud", json!([AUDIENCE])))).await.unwrap();
    for other in ["https://issuer.test", "https://evil.test", ""] {
        let refusal = world.refused_with("iss", json!(other)).await;
        assert!(matches!(refusal, Refusal::UnknownIssuer { .. }), "{other}: {refusal}");
    }
    let slash = format!("{}/", world.issuer.url);
    assert!(matches!(world.refused_with("iss", json!(slash)).await, Refusal::UnknownIssuer { .. }));
}

#[tokio::test]
async fn claims_of_another_type_are_refused() {
    let world = World::new();
    for (name, values) in [
        ("exp", [json!(null), json!("4102444800"), json!(1.5), json!(-1)]),
        ("iat", [json!(null), json!("0"), json!(true), json!([0])]),
        ("nbf", [json!("0"), json!({}), json!(1e300), json!(-5)]),
        ("aud", [json!(null), json!(5), json!({"aud": AUDIENCE}), json!(true)]),
        ("sub", [json!(null), json!(""), json!(5), json!([])]),
        ("jti", [json!(""), json!(5), json!([]), json!({})]),
        ("repository", [json!(null), json!({}), json!(["a/b"]), json!(true)]),
        ("ref_protected", [json!("yes"), json!(1), json!([]), json!({})]),
    ] {
        for value in values {
            let refusal = world.refused_with(name, value.clone()).await;
            let fine = matches!(refusal, Refusal::Claim { .. } | Refusal::Unmapped { .. });
            assert!(fine, "{name} {value}: {refusal}");
        }
    }
    assert!(matches!(world.refused_with("iss", json!(5)).await, Refusal::Claim { .. }));
}

#[tokio::test]
async fn what_was_not_signed_by_the_issuer_is_refused() {
    let world = World::new();
    let (ours, claims) = (world.issuer.signer(), world.claims());
    world.verify(&ours.token(&claims)).await.unwrap();
    // Another key under the name of ours.
    let thief = Signer::rsa(&ours.kid).unwrap();
    assert!(matches!(world.refused(&thief.token(&claims)).await, Refusal::Signature { .. }));
    // No signature, under each name.
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "RS384", "rs256"] {
        let plain = unsigned(&json!({"alg": alg, "kid": ours.kid}), &claims);
        for token in [format!("{plain}."), format!("{plain}.AAAA")] {
            let refusal = world.refused(&token).await;
            assert!(matches!(refusal, Refusal::Algorithm { .. }), "{alg}: {refusal}");
        }
    }
    // The public key as a secret.
    let plain = unsigned(&json!({"alg": "HS256", "kid": ours.kid}), &claims);
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &ours.public_der());
    let signature = URL_SAFE_NO_PAD.encode(aws_lc_rs::hmac::sign(&key, plain.as_bytes()));
    let refusal = world.refused(&format!("{plain}.{signature}")).await;
    assert!(matches!(refusal, Refusal::Algorithm { .. }), "{refusal}");
    // A key of another kind.
    let refusal = world.refused(&ours.sign(&json!({"alg": "ES256", "kid": ours.kid}), &claims)).await;
    assert!(matches!(refusal, Refusal::UnknownKey { .. }), "{refusal}");
    // Its own key with it.
    let header = json!({"alg": "RS256", "kid": "mine", "jwk": thief.jwk(), "jku": "https://evil.test/keys"});
    assert!(matches!(world.refused(&thief.sign(&header, &claims)).await, Refusal::UnknownKey { .. }));
    // Something that is demanded.
    let header = json!({"alg": "RS256", "kid": ours.kid, "crit": ["x"], "x": 1});
    assert!(matches!(world.refused(&ours.sign(&header, &claims)).await, Refusal::NoToken(_)));
}

#[tokio::test]
async fn a_token_that_was_changed_or_cut_anywhere_is_refused() {
    let world = World::new();
    world.issuer.rotate(Signer::ec("curve").unwrap());
    let token = world.issuer.token(&world.claims());
    world.verify(&token).await.unwrap();
    for cut in 0..token.len() {
        world.refused(&token[..cut]).await;
    }
    let (signed, signature) = token.rsplit_once('.').unwrap();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        world.refused(std::str::from_utf8(&changed).unwrap()).await;
    }
    for other in [
        format!("{token}.{signature}"),
        format!("{signed}.{signature}="),
        format!(" {token}"),
        format!("{token}\n"),
        format!("{signed}.{signature}{signature}"),
    ] {
        world.refused(&other).await;
    }
}

#[tokio::test]
async fn a_token_may_have_the_limit_and_no_byte_more() {
    let world = World::new();
    // Base64 has three bytes in four letters: the subject fills what is left.
    let of = |length: usize| world.issuer.token(&world.claims_but("filler", json!("x".repeat(length))));
    let longest = (0..MAX_TOKEN).rev().find(|length| of(*length).len() <= MAX_TOKEN);
    let longest = of(longest.unwrap());
    assert!(longest.len() > MAX_TOKEN - 3, "{}", longest.len());
    world.verify(&longest).await.unwrap();
    let padded = format!("{longest}{}", "A".repeat(MAX_TOKEN + 1 - longest.len()));
    assert_eq!(padded.len(), MAX_TOKEN + 1);
    assert_eq!(world.refused(&padded).await, Refusal::TooLong);
    assert!(matches!(world.refused(&padded[..MAX_TOKEN]).await, Refusal::Signature { .. }));
}

#[tokio::test]
async fn a_new_key_is_found_by_one_question_and_invented_ones_ask_no_more() {
    let world = World::new();
    let old = world.issuer.signer();
    world.verify(&old.token(&world.claims())).await.unwrap();
    world.issuer.rotate(Signer::rsa("second").unwrap());
    world.verify(&world.issuer.token(&world.claims())).await.unwrap();
    assert_eq!(world.issuer.asked(), 2);
    assert!(matches!(world.refused(&old.token(&world.claims())).await, Refusal::UnknownKey { .. }));
    for number in 0..50 {
        let invented = old.named(&format!("invented-{number}"));
        assert!(matches!(world.refused(&invented.token(&world.claims())).await, Refusal::UnknownKey { .. }));
    }
    assert_eq!(world.issuer.asked(), 2);
    world.verify(&world.issuer.token(&world.claims())).await.unwrap();
}

/// Many at once are one question, whatever they name.
#[tokio::test]
async fn many_tokens_at_once_are_one_question() {
    let world = World::new();
    world.issuer.is(Mood::Slow(Duration::from_millis(200)));
    let token = world.issuer.token(&world.claims());
    let all = futures_util::future::join_all((0..20).map(|_| world.verify(&token))).await;
    assert!(all.iter().all(Result::is_ok));
    assert_eq!(world.issuer.asked(), 1);
}

#[tokio::test]
async fn two_keys_and_a_token_without_a_name() {
    let world = World::new();
    let nameless = |signer: &Signer| signer.sign(&json!({"alg": signer.alg()}), &world.claims());
    let first = world.issuer.signer();
    world.verify(&nameless(&first)).await.unwrap();
    // One of each kind: the algorithm says which.
    world.issuer.rotate(first.clone());
    let curve = Signer::ec("curve").unwrap();
    world.issuer.add(curve.clone());
    world.verify(&nameless(&curve)).await.unwrap();
    world.verify(&nameless(&first)).await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_lies_or_fails_has_no_keys() {
    let huge = vec![b' '; MAX_DOCUMENT + 1];
    for mood in [
        Mood::Says(huge.into()),
        Mood::Says("not json".into()),
        Mood::Says("{}".into()),
        Mood::Keys(json!({"keys": []})),
        Mood::Keys(json!([])),
        Mood::Discovery(json!({"issuer": "https://else.test", "jwks_uri": "https://else.test/keys"})),
        Mood::Status(500),
        Mood::Status(404),
        Mood::Moved("https://else.test/".to_owned()),
    ] {
        let world = World::new();
        world.issuer.is(mood);
        let token = world.issuer.token(&world.claims());
        let refusal = world.refused(&token).await;
        assert!(matches!(refusal, Refusal::NoKeys { .. }), "{refusal}");
        // Until the pause is over nobody asks it again, though it is well by now.
        let asked = world.issuer.asked();
        world.issuer.is(Mood::Good);
        assert!(matches!(world.refused(&token).await, Refusal::NoKeys { .. }));
        assert_eq!(world.issuer.asked(), asked);
    }
    // Plain HTTP is not spoken, whatever the issuer says.
    let world = World::new();
    let plain = format!("http://{}/keys", world.issuer.address);
    world.issuer.is(Mood::Discovery(json!({"issuer": world.issuer.url, "jwks_uri": plain})));
    let refusal = world.refused(&world.issuer.token(&world.claims())).await;
    assert!(refusal.to_string().contains("only https"), "{refusal}");
}

#[tokio::test]
async fn a_document_may_have_the_limit_and_no_byte_more() {
    for (length, taken) in [(MAX_DOCUMENT, true), (MAX_DOCUMENT + 1, false)] {
        let world = World::new();
        let keys = json!({"keys": [world.issuer.signer().jwk()], "filler": ""});
        let filler = "x".repeat(length - keys.to_string().len());
        let keys = json!({"keys": [world.issuer.signer().jwk()], "filler": filler});
        assert_eq!(keys.to_string().len(), length);
        world.issuer.is(Mood::Keys(keys));
        let done = world.verify(&world.issuer.token(&world.claims())).await;
        assert_eq!(done.is_ok(), taken, "{done:?}");
    }
}

#[tokio::test]
async fn a_slow_issuer_is_not_waited_for() {
    let world = World::new();
    world.issuer.is(Mood::Slow(Duration::from_secs(60)));
    let begun = Instant::now();
    let refusal = world.refused(&world.issuer.token(&world.claims())).await;
    assert!(matches!(refusal, Refusal::NoKeys { .. }), "{refusal}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn an_issuer_whose_certificate_is_not_trusted_has_no_keys() {
    let issuer = Issuer::start(NAME).unwrap();
    let (untrusting, _dir) = verifier(&issuer, &json!({}), false);
    let world = World { issuer, verifier: untrusting, _dir };
    let refusal = world.refused(&world.issuer.token(&world.claims())).await;
    assert!(matches!(&refusal, Refusal::NoKeys { why, .. } if why.contains("certificate")), "{refusal}");
    assert_eq!(world.issuer.asked(), 0);
}

#[tokio::test]
async fn what_the_operator_demands_is_demanded() {
    let world = World::with(&json!({"require": {"repository_id": ["8", "9"]}}));
    assert!(matches!(world.refused(&world.issuer.token(&world.claims())).await, Refusal::Required { .. }));
    world.verify(&world.issuer.token(&world.claims_but("repository_id", json!("9")))).await.unwrap();
}

#[tokio::test]
async fn a_token_is_one_jobs_alone() {
    let world = World::new();
    let (one, two) = (Slot::default(), Slot::default());
    let show = async |claims: Value, slot: &Slot| {
        let token = SecretText::new(world.issuer.token(&claims));
        let shown = world.verifier.verify(&token, SystemTime::now()).await.unwrap();
        world.verifier.bind(slot, shown, SystemTime::now()).map(|bound| bound.identity.assurance())
    };
    assert_eq!(show(world.claims(), &one).await, Ok(Assurance::Oidc));
    // A later stage of it.
    assert_eq!(show(world.claims(), &one).await, Ok(Assurance::Oidc));
    assert_eq!(show(world.claims(), &two).await, Err(Refusal::AnothersToken));
    // The next job in the same cgroup.
    one.clear();
    assert_eq!(show(world.claims(), &one).await, Err(Refusal::AnothersToken));
    // Without a jti it is known by all that was signed.
    let nameless = world.claims_but("jti", Value::Null);
    assert_eq!(show(nameless.clone(), &one).await, Ok(Assurance::Oidc));
    assert_eq!(show(nameless, &two).await, Err(Refusal::AnothersToken));
    assert_eq!(show(world.claims_but("jti", json!("another")), &two).await, Ok(Assurance::Oidc));
}
