use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::fetch::{Fetch, Fetching, Vouching};
use super::replay::{JobId, TokenId};
use super::slot::{Bound, Slot};
use super::*;
use crate::secret::SecretText;

fn claims(run: &str) -> Claims {
    let texts = BTreeMap::from([(Field::Repository, "a/b".to_owned()), (Field::RunId, run.to_owned())]);
    Claims { subject: "s".to_owned(), texts, ..Claims::default() }
}

fn identity(run: &str, assurance: Assurance) -> Identity {
    Identity { claims: claims(run), assurance }
}

fn bound(identity: Identity, since: u64) -> Bound {
    let token = TokenId { id: [1; 32], ends: since + 10 };
    Bound { identity: Arc::new(identity), job: JobId::new(), tokens: vec![token], since, until: since + 100 }
}

struct Nobody;

impl Fetch for Nobody {
    fn keys<'a>(&'a self, _: &'a str) -> Fetching<'a> {
        Box::pin(async { Err(fetch::FetchError::Discovery) })
    }

    fn job<'a>(&'a self, _: &'a str, _: &'a SecretText) -> Vouching<'a> {
        Box::pin(async { Err(fetch::FetchError::Discovery) })
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

#[test]
fn an_identity_ends_with_its_age_and_a_second_token_makes_it_no_younger() {
    let slot = Slot::default();
    slot.bind(bound(identity("1", Assurance::Oidc), 1000), 1000).unwrap();
    assert!(slot.get(1099).is_some());
    let again = slot.bind(bound(identity("1", Assurance::Oidc), 1090), 1090).unwrap();
    assert_eq!(again.until, 1100);
    assert!(slot.get(1100).is_none());
}

#[test]
fn a_job_stays_the_one_that_it_is() {
    let slot = Slot::default();
    slot.bind(bound(identity("0", Assurance::Attested), 1000), 1000).unwrap();
    // What is proved counts more than what was said.
    slot.bind(bound(identity("1", Assurance::Oidc), 1000), 1000).unwrap();
    let other = slot.bind(bound(identity("2", Assurance::Oidc), 1000), 1000);
    assert_eq!(other.unwrap_err(), Refusal::AnotherIdentity);
    // And is not replaced by it.
    slot.bind(bound(identity("3", Assurance::Attested), 1000), 1000).unwrap();
    let now = slot.get(1000).unwrap();
    assert_eq!(
        (now.identity.claims().get(Field::RunId), now.identity.assurance()),
        (Some("1"), Assurance::Oidc)
    );
    slot.clear();
    slot.bind(bound(identity("2", Assurance::Oidc), 1000), 1000).unwrap();
}

/// Both are verified, so that neither of them makes another job of this one.
#[test]
fn what_an_api_says_and_what_a_token_says_are_of_one_job() {
    for (first, second) in [(Assurance::Oidc, Assurance::Api), (Assurance::Api, Assurance::Oidc)] {
        let slot = Slot::default();
        slot.bind(bound(identity("1", first), 1000), 1000).unwrap();
        let other = slot.bind(bound(identity("2", second), 1000), 1000);
        assert_eq!(other.unwrap_err(), Refusal::AnotherIdentity);
        let same = slot.bind(bound(identity("1", second), 1000), 1000).unwrap();
        assert_eq!(same.identity.assurance(), Assurance::Oidc);
    }
}

#[test]
fn what_a_job_says_of_itself_is_never_more_than_that() {
    let mut said = claims("1");
    (said.issuer, said.roles) = ("https://issuer.test".to_owned(), vec!["admin".to_owned()]);
    let identity = Identity::attested(said).unwrap();
    assert_eq!(identity.assurance(), Assurance::Attested);
    assert!(identity.claims().issuer.is_empty() && identity.claims().subject.is_empty());
    assert!(identity.claims().roles.is_empty());
    let long = |length: usize| {
        let texts = BTreeMap::from([(Field::Actor, "x".repeat(length))]);
        Identity::attested(Claims { texts, ..Claims::default() })
    };
    assert!(long(MAX_TEXT).is_some() && long(MAX_TEXT + 1).is_none());
}

#[test]
fn assurance_has_an_order() {
    assert!(Assurance::Oidc > Assurance::Api && Assurance::Api > Assurance::Attested);
    assert!(Assurance::Attested > Assurance::None);
}

#[test]
fn what_was_bound_is_bound_in_the_next_proxy_and_its_tokens_are_known() {
    let before = bound(identity("1", Assurance::Oidc), 1000);
    let kept = before.to_kept().unwrap();
    let verifier = Verifier::new(&IdentityConfig::default(), Box::new(Nobody)).unwrap();
    let (slot, other) = (Slot::default(), Slot::default());
    let restored = verifier.restore(&slot, &kept, at(1005)).unwrap();
    assert_eq!((&restored.identity, restored.job, restored.until), (&before.identity, before.job, 1100));
    // Its token is nobody else's in this proxy either.
    let shown =
        || Presented { identity: identity("1", Assurance::Oidc), token: before.tokens[0], otherwise: None };
    assert_eq!(verifier.bind(&other, shown(), at(1006)).unwrap_err(), Refusal::AnothersToken);
    verifier.bind(&slot, shown(), at(1006)).unwrap();
    let late = Verifier::new(&IdentityConfig::default(), Box::new(Nobody)).unwrap();
    assert!(late.restore(&Slot::default(), &kept, at(1100)).is_none());
    assert!(late.restore(&Slot::default(), "{}", at(1000)).is_none());
}

#[test]
fn a_job_that_follows_in_the_same_cgroup_does_not_have_the_tokens_of_the_one_before() {
    let verifier = Verifier::new(&IdentityConfig::default(), Box::new(Nobody)).unwrap();
    let slot = Slot::default();
    let token = TokenId { id: [7; 32], ends: 2000 };
    let shown = || Presented { identity: identity("1", Assurance::Oidc), token, otherwise: None };
    verifier.bind(&slot, shown(), at(1000)).unwrap();
    verifier.bind(&slot, shown(), at(1001)).unwrap();
    slot.clear();
    assert_eq!(verifier.bind(&slot, shown(), at(1002)).unwrap_err(), Refusal::AnothersToken);
}

#[test]
fn a_token_that_is_not_taken_is_not_used_up() {
    let verifier = Verifier::new(&IdentityConfig::default(), Box::new(Nobody)).unwrap();
    let (thief, owner) = (Slot::default(), Slot::default());
    let shown = |run: &str, id| Presented {
        identity: identity(run, Assurance::Oidc),
        token: TokenId { id: [id; 32], ends: 2000 },
        otherwise: None,
    };
    verifier.bind(&thief, shown("1", 1), at(1000)).unwrap();
    assert_eq!(verifier.bind(&thief, shown("2", 2), at(1000)).unwrap_err(), Refusal::AnotherIdentity);
    verifier.bind(&owner, shown("2", 2), at(1000)).unwrap();
}

fn problem(change: impl FnOnce(&mut serde_json::Value)) -> String {
    let mut config = json!({"issuer": [{"name": "a", "issuer": "https://a.test", "audience": "us"}]});
    change(&mut config);
    let config: Result<IdentityConfig, _> = serde_json::from_value(config);
    match config {
        Ok(config) => config.check().err().unwrap_or_default(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_configuration_that_could_not_hold_is_refused() {
    assert_eq!(problem(|_| ()), "");
    let issuer =
        |key: &'static str, value: serde_json::Value| problem(move |it| it["issuer"][0][key] = value);
    for (told, says) in [
        (issuer("algorithms", json!(["HS256"])), "HS256"),
        (issuer("algorithms", json!(["none"])), "`none`"),
        (issuer("algorithms", json!([])), "empty"),
        (issuer("issuer", json!("http://a.test")), "no https"),
        (issuer("issuer", json!("a.test")), "no https"),
        (issuer("issuer", json!("https://a.test?x=1")), "parts"),
        (issuer("issuer", json!("https://u@a.test")), "parts"),
        (issuer("audience", json!("")), "audience"),
        (issuer("name", json!("a b")), "name"),
        (issuer("profile", json!("jenkins")), "jenkins"),
        (issuer("claims", json!({"repository": "{a"})), "claims.repository"),
        (issuer("claims", json!({"repo": "a"})), "repo"),
        (issuer("roles", json!({"a role": ["x"]})), "a role"),
        (issuer("audiences", json!("x")), "audiences"),
        (problem(|it| it["max_age_s"] = json!(0)), "max_age_s"),
        (problem(|it| it["leeway_s"] = json!(601)), "600"),
        (problem(|it| it["issuer"] = json!([it["issuer"][0], it["issuer"][0]])), "called so"),
    ] {
        assert!(told.contains(says), "`{says}` is not in: {told}");
    }
    assert_eq!(problem(|it| it["leeway_s"] = json!(600)), "");
}
