//! Rules that hold requests for people.

use http::HeaderMap;

use super::super::*;

const NEEDS: &str = "needs: [{people: 1, groups: [ops]}]";

fn policy(rules: &str) -> Policy {
    Policy::from_text("p.yaml", &format!("version: 1\nname: p\nrules:\n{rules}"))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn decide(policy: &Policy, method: &str, path: &str) -> (Verdict, Option<String>) {
    let (workload, headers) = (WorkloadFacts::default(), HeaderMap::new());
    let facts = Facts {
        host: Fact::Known("a.test"),
        port: Fact::Known(443),
        protocol: Fact::Known(Protocol::Https),
        method: Fact::Known(method),
        path: Fact::Known(path),
        query: Fact::Known(""),
        headers: Fact::Known(&headers),
        ..Facts::new(&workload, Stage::Http)
    };
    let decision = policy.decide(&facts);
    assert_eq!(decision.hold.is_some(), decision.verdict == Verdict::Hold);
    (decision.verdict, decision.rule.map(|rule| rule.local().to_owned()))
}

#[test]
fn the_first_rule_that_decides_decides() {
    let policy = policy(&format!(
        "  - {{id: no, when: {{path: /no}}, deny: never}}\n  - {{id: read, when: {{method: GET}}, allow: true}}\n  \
         - {{id: ask, when: {{host: a.test}}, hold: {{message: why, {NEEDS}}}}}\n  - {{id: rest, allow: true}}\n"
    ));
    assert!(policy.holds());
    let named = |verdict, rule: &str| (verdict, Some(rule.to_owned()));
    assert_eq!(decide(&policy, "POST", "/no"), named(Verdict::Deny, "no"));
    assert_eq!(decide(&policy, "GET", "/x"), named(Verdict::Allow, "read"));
    assert_eq!(decide(&policy, "POST", "/x"), named(Verdict::Hold, "ask"));
    let (workload, headers) = (WorkloadFacts::default(), HeaderMap::new());
    let mut facts = Facts::new(&workload, Stage::Http);
    facts.host = Fact::Known("a.test");
    facts.path = Fact::Known("/x");
    facts.method = Fact::Known("POST");
    facts.headers = Fact::Known(&headers);
    let decision = policy.decide(&facts);
    assert_eq!((decision.reason, decision.message.as_deref()), (Reason::PolicyHold, Some("why")));
    assert_eq!(decision.durability, Durability::Fsync);
    assert_eq!(decision.body, BodyClass::Inspect { cap: INSPECT_CAP_BYTES });
}

#[test]
fn what_is_in_doubt_is_held_and_what_is_unknown_denied() {
    let rules = format!(
        "  - {{id: ask, when: {{cel: 'http.headers[\"x\"][0] == \"1\"'}}, hold: {{{NEEDS}}}}}\n  - {{id: rest, allow: true}}\n"
    );
    // There is no such field, which for a rule that allows would mean no.
    assert_eq!(decide(&policy(&rules), "GET", "/").0, Verdict::Hold);
    let rules = format!(
        "  - {{id: ask, when: {{method: POST, path: /x}}, hold: {{{NEEDS}}}}}
  - {{id: rest, allow: true}}
"
    );
    let policy = policy(&rules);
    assert_eq!(decide(&policy, "post", "/x;y").0, Verdict::Hold, "a server may read it so");
    let workload = WorkloadFacts::default();
    let mut facts = Facts::new(&workload, Stage::Http);
    facts.host = Fact::Known("a.test");
    facts.method = Fact::Known("POST");
    let decision = policy.decide(&facts);
    assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::MissingFact));
}

#[test]
fn before_a_request_was_read_it_may_still_be_agreed_to() {
    let policy = policy(&format!(
        "  - {{id: ask, when: {{host: a.test}}, hold: {{{NEEDS}}}}}\n  - {{id: unread, when: {{host: a.test}}, passthrough: true}}\n"
    ));
    let workload = WorkloadFacts::default();
    for stage in Stage::ALL {
        let facts = Facts { host: Fact::Known("a.test"), ..Facts::new(&workload, stage) };
        assert!(policy.feasible(&facts).is_possible(), "{stage:?}");
        let other = Facts { host: Fact::Known("b.test"), ..Facts::new(&workload, stage) };
        assert!(!policy.feasible(&other).is_possible(), "{stage:?}");
    }
    // What might have to be held does not pass unread.
    let mut facts = Facts { host: Fact::Known("a.test"), ..Facts::new(&workload, Stage::Tls) };
    facts.protocol = Fact::Known(Protocol::Tls);
    assert_eq!(policy.decide(&facts).verdict, Verdict::Deny);
}

#[test]
fn in_audit_mode_nobody_waits() {
    let policy =
        policy(&format!("  - {{id: ask, mode: audit, hold: {{{NEEDS}}}}}\n  - {{id: rest, allow: true}}\n"));
    assert!(!policy.holds());
    assert_eq!(decide(&policy, "GET", "/").0, Verdict::Allow);
    let workload = WorkloadFacts::default();
    let facts = Facts { host: Fact::Known("a.test"), ..Facts::new(&workload, Stage::Http) };
    let audit = policy.decide(&facts).audit.unwrap();
    assert_eq!((audit.reason, audit.rule.unwrap().local()), (Reason::PolicyHold, "ask"));
}

#[test]
fn what_cannot_be_enforced_does_not_load_and_says_where() {
    for (hold, says) in [
        ("when: {protocol: dns}, hold: {NEEDS}", "nothing of the protocol dns can be held"),
        ("when: {protocol: [https, opaque]}, hold: {NEEDS}", "nothing of the protocol opaque can be held"),
        ("hold: {message: m}", "says nothing of who has to agree"),
        ("hold: {needs: []}", "stage 1 demands nobody"),
        ("hold: {NEEDS, stages: [{NEEDS}]}", "either `needs` or `stages`"),
        ("hold: {NEEDS, hold_seconds: 0, retry_seconds: null}", "nothing could ever pass"),
        ("hold: {NEEDS, open_seconds: 86401}", "open_seconds"),
        ("hold: {NEEDS}, allow: true", "more than one of allow, deny, hold, passthrough and delegate"),
        ("hold: {NEEDS, whom: a}", "unknown field"),
    ] {
        let hold = hold.replace("NEEDS", NEEDS);
        let text = format!("version: 1\nname: p\nrules:\n  - {{id: r, {hold}}}\n");
        let error = Policy::from_text("p.yaml", &text).unwrap_err();
        let PolicyError::Invalid { findings } = &error else { panic!("{error:?}") };
        let told = format!("{:?}", findings.iter().map(|one| &one.message).collect::<Vec<_>>());
        assert!(told.contains(says), "{hold}: {told}");
        assert!(findings.iter().all(|one| one.line >= 4), "{hold}");
        assert!(!told.contains("no effect"), "{hold}: {told}");
    }
}

#[test]
fn an_answer_begins_early_only_where_a_rule_says_so() {
    for (keep_alive, want) in [("", false), (", keep_alive: false", false), (", keep_alive: true", true)] {
        let policy = policy(&format!("  - {{id: ask, hold: {{{NEEDS}{keep_alive}}}}}\n"));
        let (workload, headers) = (WorkloadFacts::default(), HeaderMap::new());
        let facts = Facts {
            host: Fact::Known("a.test"),
            port: Fact::Known(443),
            protocol: Fact::Known(Protocol::Https),
            method: Fact::Known("POST"),
            path: Fact::Known("/"),
            query: Fact::Known(""),
            headers: Fact::Known(&headers),
            ..Facts::new(&workload, Stage::Http)
        };
        assert_eq!(policy.decide(&facts).hold.map(|hold| hold.keep_alive()), Some(want), "{keep_alive}");
    }
}
