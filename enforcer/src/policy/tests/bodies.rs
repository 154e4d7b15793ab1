//! Rules that ask what is in a body: what is not known of it opens nothing, and is asked for only
//! where it makes a difference.

use super::super::{
    Awaits, BodyFacts, Decision, Fact, Facts, Policy, Protocol, Reason, Stage, Told, Verdict, WorkloadFacts,
};

const CHEAP: &str = r#"
version: 1
name: p
rules:
  - {id: cheap, when: {host: api.test, cel: 'llm.model.startsWith("small")'}, allow: true}
  - {id: large, when: {host: other.test, cel: 'llm.model == "large"'}, deny: too dear}
  - {id: rest, when: {host: other.test}, allow: true}
  - {id: none, when: {host: none.test}, deny: never}
"#;

fn policy(text: &str) -> Policy {
    Policy::from_text("p.yaml", text).unwrap_or_else(|error| panic!("{error}"))
}

fn facts<'a>(workload: &'a WorkloadFacts, host: &'a str, models: Fact<Told<'a>>) -> Facts<'a> {
    Facts {
        host: Fact::Known(host),
        port: Fact::Known(443),
        protocol: Fact::Known(Protocol::Https),
        method: Fact::Known("POST"),
        path: Fact::Known("/v1/messages"),
        query: Fact::Known(""),
        body: BodyFacts { models, ..BodyFacts::default() },
        ..Facts::new(workload, Stage::Http)
    }
}

fn said(decision: &Decision) -> (Verdict, Option<&str>) {
    (decision.verdict, decision.rule.as_ref().map(|rule| rule.local()))
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn a_model_is_allowed_in_all_readings_and_denied_in_one() {
    let (policy, workload) = (policy(CHEAP), WorkloadFacts::default());
    let [small, large, both] = [&["small-1"][..], &["large"], &["small-1", "large"]].map(names);
    let decide = |host, models| policy.decide(&facts(&workload, host, models));
    for (models, cheap, other) in [
        (Fact::Known(Told::These(&small)), Verdict::Allow, (Verdict::Allow, Some("rest"))),
        (Fact::Known(Told::These(&large)), Verdict::Deny, (Verdict::Deny, Some("large"))),
        (Fact::Known(Told::These(&both)), Verdict::Deny, (Verdict::Deny, Some("large"))),
        (Fact::Known(Told::Unclear), Verdict::Deny, (Verdict::Deny, Some("large"))),
        (Fact::Absent, Verdict::Deny, (Verdict::Deny, Some("large"))),
    ] {
        assert_eq!(decide("api.test", models).verdict, cheap, "{models:?}");
        assert_eq!(said(&decide("other.test", models)), other, "{models:?}");
    }
    for host in ["api.test", "other.test"] {
        let decision = decide(host, Fact::Unknown);
        assert_eq!((decision.verdict, decision.reason), (Verdict::Deny, Reason::MissingFact), "{host}");
        assert!(decision.awaits.any());
    }
}

#[test]
fn whether_there_is_one_can_be_asked_unless_it_cannot_be_told() {
    let text = "version: 1\nname: p\nrules:\n  - {id: no, when: {cel: 'has(llm.model) && llm.model == \"large\"'}, deny: no}\n  - {id: rest, allow: true}\n";
    let (policy, workload) = (policy(text), WorkloadFacts::default());
    let decide = |models| policy.decide(&facts(&workload, "a.test", models)).verdict;
    assert_eq!(decide(Fact::Absent), Verdict::Allow);
    assert_eq!(decide(Fact::Known(Told::Unclear)), Verdict::Deny);
    let trace = policy.explain(&facts(&workload, "a.test", Fact::Known(Told::Unclear)));
    assert!(trace.steps[0].detail.as_ref().unwrap().contains("not in one way only"), "{:?}", trace.steps[0]);
}

#[test]
fn it_is_asked_for_where_it_can_change_the_verdict_and_nowhere_else() {
    let (policy, workload) = (policy(CHEAP), WorkloadFacts::default());
    let models = Awaits { models: true, findings: false };
    let awaits = |policy: &Policy, host| policy.awaits(&facts(&workload, host, Fact::Unknown));
    assert_eq!(awaits(&policy, "api.test"), Some(models));
    assert_eq!(awaits(&policy, "other.test"), Some(models));
    assert_eq!(awaits(&policy, "none.test"), None);
    assert_eq!(awaits(&policy, "evil.test"), None);
    assert_eq!(policy.awaits(&facts(&workload, "api.test", Fact::Absent)), None);
    for (rules, want) in [
        // A rule that decides before it.
        (
            "{id: all, allow: true}\n  - {id: no, when: {cel: 'llm.model == \"a\"'}, deny: no}",
            Some(Awaits::default()),
        ),
        ("{id: no, when: {cel: 'llm.model == \"a\"'}, deny: no}\n  - {id: all, allow: true}", Some(models)),
        // Denied anyway: by the rule behind it, or since no rule decides.
        ("{id: no, when: {cel: 'llm.model == \"a\"'}, deny: no}\n  - {id: all, deny: no}", None),
        ("{id: no, when: {cel: 'llm.model == \"a\"'}, deny: no}", None),
        ("{id: yes, when: {cel: 'llm.model == \"a\"'}, allow: true}\n  - {id: all, deny: no}", Some(models)),
        (
            "{id: no, when: {cel: 'llm.model == \"a\" && http.method == \"GET\"'}, deny: no}\n  - {id: all, allow: true}",
            Some(Awaits::default()),
        ),
        // An effect that adds, and what is only tried.
        (
            "{id: see, when: {cel: 'llm.model == \"a\"'}, observe: true}\n  - {id: all, allow: true}",
            Some(models),
        ),
        (
            "{id: no, mode: audit, when: {cel: 'llm.model == \"a\"'}, deny: no}\n  - {id: all, allow: true}",
            Some(models),
        ),
    ] {
        let text = format!("version: 1\nname: p\nrules:\n  - {rules}\n");
        assert_eq!(awaits(&self::policy(&text), "a.test"), want, "{rules}");
    }
}

#[test]
fn what_is_denied_anyway_is_denied_for_that_reason() {
    let text = "version: 1\nname: p\nrules:\n  - {id: no, when: {cel: 'llm.model == \"a\"'}, deny: no}\n  - {id: x, when: {host: x.test}, deny: never}\n  - {id: y, when: {host: y.test}, allow: true}\n";
    let (policy, workload) = (policy(text), WorkloadFacts::default());
    let decide = |host| policy.decide(&facts(&workload, host, Fact::Unknown));
    assert_eq!(said(&decide("x.test")), (Verdict::Deny, Some("x")));
    assert_eq!(decide("z.test").reason, Reason::PolicyDefaultDeny);
    assert_eq!(decide("y.test").reason, Reason::MissingFact);
    assert!(policy.feasible(&facts(&workload, "y.test", Fact::Unknown)).is_possible());
}

#[test]
fn to_ask_what_is_needed_counts_nothing() {
    let (policy, workload) = (policy(CHEAP), WorkloadFacts::default());
    let hits = |policy: &Policy| policy.hits(100).rules.iter().map(|it| it.hits).sum::<u64>();
    for host in ["api.test", "other.test", "none.test", "evil.test"] {
        policy.awaits(&facts(&workload, host, Fact::Unknown));
    }
    assert_eq!(hits(&policy), 0);
    policy.decide(&facts(&workload, "none.test", Fact::Unknown));
    assert_eq!(hits(&policy), 1);
}

#[test]
fn the_provider_is_known_by_the_path_in_every_reading() {
    let text = "version: 1\nname: p\nrules:\n  - {id: a, when: {cel: 'llm.provider == \"anthropic\"'}, allow: true}\n  - {id: no, when: {cel: 'llm.provider == \"openai\"'}, deny: no}\n  - {id: rest, when: {path: /x/**}, allow: true}\n";
    let (policy, workload) = (policy(text), WorkloadFacts::default());
    for (path, want) in [
        ("/v1/messages", (Verdict::Allow, Some("a"))),
        ("/v1/messages;x", (Verdict::Deny, Some("no"))),
        ("/v1/chat/completions", (Verdict::Deny, Some("no"))),
        ("/x/y", (Verdict::Deny, Some("no"))),
        ("/x/api/chat", (Verdict::Allow, Some("rest"))),
    ] {
        let asked = Facts { path: Fact::Known(path), ..facts(&workload, "a.test", Fact::Unknown) };
        assert_eq!(said(&policy.decide(&asked)), want, "{path}");
        assert_eq!(policy.awaits(&asked), Some(Awaits::default()), "no body is read for it");
    }
}

#[test]
fn a_rule_about_bodies_that_cannot_be_enforced_does_not_load() {
    for (rule, why) in [
        ("when: {host: a.test, cel: 'llm.model == \"a\"'}, passthrough: true", "nobody reads them"),
        ("when: {host: a.test, cel: 'llm.provider == \"openai\"'}, passthrough: true", "nobody reads them"),
        ("when: {cel: 'llm.provider == \"gpt\"'}, deny: no", "is never \"gpt\""),
        ("when: {cel: '\"email\" in findings'}, deny: no", "as in \"EMAIL\""),
        ("when: {host: a.test, cel: '\"EMAIL\" in findings'}, passthrough: true", "nobody reads them"),
        ("when: {cel: 'has(llm.tool.name) && \"EMAIL\" in findings'}, deny: no", "there are no `findings`"),
        ("when: {cel: 'findings == \"EMAIL\"'}, deny: no", "a list of texts"),
        ("when: {cel: '\"EMAIL\" in finding'}, deny: no", "did you mean `findings`"),
        ("when: {cel: 'llm.models == \"gpt\"'}, deny: no", "did you mean `llm.model`"),
    ] {
        let text = format!("version: 1\nname: p\nrules:\n  - {{id: r, {rule}}}\n");
        let error = Policy::from_text("p.yaml", &text).unwrap_err();
        let finding = &error.findings()[0];
        let told = format!("{} {}", finding.message, finding.help.as_deref().unwrap_or_default());
        assert!(told.contains(why), "{rule}: {told}");
    }
}

const FOUND: &str = r#"
version: 1
name: p
rules:
  - {id: mail, when: {host: a.test, cel: '"EMAIL" in findings'}, hold: {needs: [{people: 1, groups: [ops]}]}}
  - {id: cards, when: {cel: 'findings.exists(f, f in ["CARD_NUMBER", "IBAN"])'}, deny: no cards}
  - {id: clean, when: {host: clean.test, cel: 'size(findings) == 0 && llm.model == "small"'}, allow: true}
  - {id: rest, when: {host: a.test}, allow: true}
"#;

#[test]
fn what_is_found_is_a_list_of_names_that_is_there_or_cannot_be_told() {
    let (policy, workload) = (policy(FOUND), WorkloadFacts::default());
    let [mail, card, both, none] = [&["EMAIL"][..], &["IBAN"], &["EMAIL", "IBAN"], &[]].map(names);
    let small = names(&["small"]);
    let decide = |host, findings| {
        let body = BodyFacts { models: Fact::Known(Told::These(&small)), findings };
        policy.decide(&Facts { body, ..facts(&workload, host, Fact::Absent) })
    };
    for (found, at_a, at_clean) in [
        (Fact::Known(Told::These(&mail)), (Verdict::Hold, Some("mail")), Verdict::Deny),
        (Fact::Known(Told::These(&card)), (Verdict::Deny, Some("cards")), Verdict::Deny),
        (Fact::Known(Told::These(&both)), (Verdict::Hold, Some("mail")), Verdict::Deny),
        (Fact::Known(Told::These(&none)), (Verdict::Allow, Some("rest")), Verdict::Allow),
        (Fact::Known(Told::Unclear), (Verdict::Hold, Some("mail")), Verdict::Deny),
    ] {
        assert_eq!(said(&decide("a.test", found)), at_a, "{found:?}");
        assert_eq!(decide("clean.test", found).verdict, at_clean, "{found:?}");
    }
    assert_eq!(decide("a.test", Fact::Unknown).reason, Reason::MissingFact);
    // Each is asked for where it is needed, and what is known is not asked for again.
    let ask = |host, body| policy.awaits(&Facts { body, ..facts(&workload, host, Fact::Absent) });
    let all = Awaits { models: true, findings: true };
    assert_eq!(ask("clean.test", BodyFacts::default()), Some(all));
    assert_eq!(ask("a.test", BodyFacts::default()), Some(Awaits { models: false, findings: true }));
    let known = BodyFacts { findings: Fact::Known(Told::These(&none)), ..BodyFacts::default() };
    assert_eq!(ask("clean.test", known), Some(Awaits { models: true, findings: false }));
    assert_eq!(ask("a.test", known), Some(Awaits::default()));
    assert_eq!(ask("evil.test", BodyFacts::default()), None);
}
