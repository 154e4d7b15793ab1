//! Layers: what they say together, whose they are, and what becomes of those that are broken.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::super::{
    AddressRule, BodyClass, Decision, Fact, Facts, IdentityFacts, Policy, Protocol, Reason, Stage, Tri,
    Verdict, WorkloadFacts,
};
use super::{Layer, LayerName, Layers};
use crate::workload::identity::{Assurance, Claims, Field};

mod bodies;
mod files;

const ISSUER: &str = "https://issuer.test";

fn issuers() -> BTreeMap<String, String> {
    BTreeMap::from([("hub".to_owned(), ISSUER.to_owned())])
}

fn text(name: &str, rules: &str) -> String {
    let rules = if rules.is_empty() { " []\n".to_owned() } else { format!("\n{rules}") };
    format!("version: 1\nname: {name}\nrules:{rules}")
}

fn layer(name: &str, rules: &str) -> Layer {
    let name = LayerName::parse(name).unwrap();
    let files = [("p.yaml".to_owned(), text("p", rules))];
    let policy =
        Policy::compile_layer(&files, Some(&name)).unwrap_or_else(|error| panic!("{error}\n{rules}"));
    Layer { name, policy: Arc::new(policy) }
}

/// Rules of the host, of the organization `acme` and of the repository `acme/app`.
fn layered(host: &str, organization: Option<&str>, repository: Option<&str>) -> Policy {
    let organization = organization.map(|rules| layer("hub/org/acme", rules));
    let repository = repository.map(|rules| layer("hub/repo/acme/app", rules));
    let layers = organization.into_iter().chain(repository).collect();
    let host =
        Policy::from_text("h.yaml", &text("h", host)).unwrap_or_else(|error| panic!("{error}\n{host}"));
    host.over(Layers::new(Assurance::Oidc, &issuers(), layers))
}

fn of(repository: &str) -> Claims {
    let texts = BTreeMap::from([(Field::Repository, repository.to_owned())]);
    Claims { issuer: ISSUER.to_owned(), texts, ..Claims::default() }
}

fn verified(claims: &Claims) -> Fact<IdentityFacts<'_>> {
    Fact::Known(IdentityFacts { claims, assurance: Assurance::Oidc })
}

fn facts<'a>(
    workload: &'a WorkloadFacts,
    stage: Stage,
    identity: Fact<IdentityFacts<'a>>,
    host: &'a str,
) -> Facts<'a> {
    let mut facts =
        Facts { identity, host: Fact::Known(host), port: Fact::Known(443), ..Facts::new(workload, stage) };
    if stage == Stage::Http {
        facts.protocol = Fact::Known(Protocol::Https);
        facts.method = Fact::Known("GET");
        facts.path = Fact::Known("/x");
        facts.query = Fact::Known("");
        facts.headers = Fact::Absent;
    }
    facts
}

fn decide(policy: &Policy, stage: Stage, repository: &str) -> Decision {
    let (workload, claims) = (WorkloadFacts::default(), of(repository));
    let facts = facts(&workload, stage, verified(&claims), "a.test");
    let decision = policy.decide(&facts);
    assert_eq!(policy.explain(&facts).decision, decision);
    decision
}

const NEEDS: &str = "hold: {needs: [{people: 1, groups: [ops]}]}";

/// A way in which a layer can speak of one host.
fn rules(word: &str) -> String {
    match word {
        "silent" => String::new(),
        "other" => "  - {id: other, when: {host: b.test}, deny: no}\n".to_owned(),
        "hold" => format!("  - {{id: hold, when: {{host: a.test}}, {NEEDS}}}\n"),
        "deny" => "  - {id: deny, when: {host: a.test}, deny: no}\n".to_owned(),
        "tried-deny" => "  - {id: tried, mode: audit, when: {host: a.test}, deny: no}\n".to_owned(),
        "tried-allow" => "  - {id: tried, mode: audit, when: {host: a.test}, allow: true}\n".to_owned(),
        "tried-organization" => {
            "  - {id: tried, mode: audit, when: {host: a.test}, delegate: organization}\n".to_owned()
        }
        "organization" | "repository" => {
            format!("  - {{id: leave, when: {{host: a.test}}, delegate: {word}}}\n")
        }
        "unread-organization" | "unread-repository" => {
            let to = word.trim_start_matches("unread-");
            format!("  - {{id: leave, when: {{host: a.test}}, delegate: {{to: {to}, passthrough: true}}}}\n")
        }
        word => format!("  - {{id: {word}, when: {{host: a.test}}, {word}: true}}\n"),
    }
}

const HOST: [&str; 11] = [
    "silent",
    "deny",
    "hold",
    "allow",
    "passthrough",
    "organization",
    "repository",
    "unread-organization",
    "unread-repository",
    "tried-organization",
    "tried-deny",
];
const BELOW: [&str; 10] = [
    "none",
    "silent",
    "other",
    "deny",
    "hold",
    "allow",
    "passthrough",
    "tried-deny",
    "tried-allow",
    "repository",
];

/// What is to come of it, by the words alone. What passes unread does so where TLS begins; what is held
/// is not known there, and denies.
fn wanted(host: &str, organization: &str, repository: &str, stage: Stage) -> Verdict {
    let tls = stage == Stage::Tls;
    let mut said: Vec<Verdict> = Vec::new();
    // Who has to decide, and whether it may pass it unread.
    let mut left: Option<(&str, bool)> = None;
    match host {
        "deny" | "silent" | "tried-deny" | "tried-organization" => said.push(Verdict::Deny),
        "hold" if tls => said.push(Verdict::Deny),
        "passthrough" if !tls => said.push(Verdict::Deny),
        "hold" => said.push(Verdict::Hold),
        "allow" => said.push(Verdict::Allow),
        "passthrough" => said.push(Verdict::Passthrough),
        to => left = Some((to.trim_start_matches("unread-"), to.starts_with("unread-"))),
    }
    for (level, word) in [("organization", organization), ("repository", repository)] {
        let open = left.filter(|(to, _)| *to == level);
        match word {
            "none" => continue,
            "deny" => said.push(Verdict::Deny),
            "hold" => said.push(if tls { Verdict::Deny } else { Verdict::Hold }),
            "repository" => {
                // This word delegates nothing unread.
                left = Some(("repository", false));
                continue;
            }
            "allow" if open.is_some() => said.push(Verdict::Allow),
            "passthrough" if tls && open.is_some_and(|(_, passes)| passes) => said.push(Verdict::Passthrough),
            _ if open.is_some() => said.push(Verdict::Deny),
            _ => {}
        }
        if open.is_some() {
            left = None;
        }
    }
    let count = |wanted| said.iter().filter(|verdict| **verdict == wanted).count();
    match (count(Verdict::Deny), count(Verdict::Hold)) {
        _ if left.is_some() => Verdict::Deny,
        (0, 0) => *said.first().unwrap(),
        (0, 1) => Verdict::Hold,
        _ => Verdict::Deny,
    }
}

#[test]
fn of_all_that_layers_can_say_the_narrowest_counts() {
    let mut outcomes = BTreeMap::new();
    for host in HOST {
        for organization in BELOW {
            for repository in BELOW.into_iter().filter(|word| *word != "repository") {
                let rules_of = |word| (word != "none").then(|| rules(word));
                let (acme, app) = (rules_of(organization), rules_of(repository));
                let policy = layered(&rules(host), acme.as_deref(), app.as_deref());
                for stage in [Stage::Tls, Stage::Http] {
                    let decision = decide(&policy, stage, "acme/app");
                    let wanted = wanted(host, organization, repository, stage);
                    assert_eq!(
                        decision.verdict, wanted,
                        "{host} {organization} {repository} {stage:?}: {decision:?}"
                    );
                    assert_eq!(decision.hold.is_some(), wanted == Verdict::Hold);
                    *outcomes.entry(wanted.as_str()).or_insert(0) += 1;
                    // What may be let through is not refused before all is known.
                    let (workload, claims) = (WorkloadFacts::default(), of("acme/app"));
                    if decision.verdict != Verdict::Deny {
                        for stage in [Stage::Connect, Stage::Dns, stage] {
                            let facts = facts(&workload, stage, verified(&claims), "a.test");
                            assert!(
                                policy.feasible(&facts).is_possible(),
                                "{host} {organization} {repository}"
                            );
                        }
                    }
                    // Another's jobs have the host's alone, for which nobody below decides.
                    let other = decide(&policy, stage, "zeta/app").verdict;
                    assert_eq!(other, self::wanted(host, "none", "none", stage), "{host}");
                }
            }
        }
    }
    assert!(
        ["allow", "deny", "hold", "passthrough"].iter().all(|verdict| outcomes[verdict] > 20),
        "{outcomes:?}"
    );
}

#[test]
fn the_rule_that_counts_is_named_with_its_layer() {
    let named = |host: &str, acme: &str, app: &str| {
        let decision =
            decide(&layered(&rules(host), Some(&rules(acme)), Some(&rules(app))), Stage::Http, "acme/app");
        (decision.reason, decision.rule.map(|rule| rule.as_str().to_owned()).unwrap_or_default())
    };
    let is = |reason, rule: &str| (reason, rule.to_owned());
    assert_eq!(named("allow", "silent", "silent"), is(Reason::PolicyAllow, "h/allow"));
    assert_eq!(named("allow", "deny", "allow"), is(Reason::PolicyDeny, "hub/org/acme:p/deny"));
    assert_eq!(named("deny", "deny", "deny"), is(Reason::PolicyDeny, "h/deny"));
    assert_eq!(named("organization", "allow", "silent"), is(Reason::PolicyAllow, "hub/org/acme:p/allow"));
    assert_eq!(named("organization", "allow", "hold"), is(Reason::PolicyHold, "hub/repo/acme/app:p/hold"));
    assert_eq!(named("organization", "silent", "allow"), is(Reason::NotDecidedBelow, "h/leave"));
    assert_eq!(
        named("organization", "repository", "silent"),
        is(Reason::NotDecidedBelow, "hub/org/acme:p/leave")
    );
    assert_eq!(
        named("organization", "repository", "allow"),
        is(Reason::PolicyAllow, "hub/repo/acme/app:p/allow")
    );
    assert_eq!(named("hold", "hold", "silent").0, Reason::HeldByTwo);
    assert_eq!(named("repository", "hold", "hold").0, Reason::HeldByTwo);
    let id = |text: &str| decide(&layered(&rules(text), None, None), Stage::Http, "acme/app").rule.unwrap();
    assert_eq!(id("allow").local(), "allow");
    let below = layered(&rules("allow"), Some(&rules("deny")), None);
    assert_eq!(decide(&below, Stage::Http, "acme/app").rule.unwrap().local(), "deny");
}

#[test]
fn what_adds_adds_up_and_addresses_are_the_hosts_alone() {
    let policy = layered(
        "  - {id: h, when: {host: a.test}, delegate: repository, addresses: [private], mask: {request: [secrets]}}\n",
        Some("  - {id: o, mask: {response: [pii]}, durability: fsync}\n"),
        Some("  - {id: r, when: {host: a.test}, allow: true, observe: true, body: inspect}\n"),
    );
    let decision = decide(&policy, Stage::Http, "acme/app");
    assert_eq!(decision.verdict, Verdict::Allow);
    assert!(!decision.request_mask.is_none() && !decision.response_mask.is_none());
    assert!(decision.observe && decision.body != super::super::BodyClass::Stream);
    assert_eq!(decision.durability, super::super::Durability::Fsync);
    assert_eq!(decision.addresses.iter().collect::<Vec<_>>(), [&AddressRule::Private]);
    // Names are looked at before anybody may be asked for them.
    assert!(!decide(&policy, Stage::Dns, "acme/app").response_mask.is_none());
    let name = LayerName::parse("hub/org/acme").unwrap();
    let files = |rule: &str| [("p.yaml".to_owned(), text("p", rule))];
    let opens = files("  - {id: x, when: {host: a.test}, allow: true, addresses: [private]}\n");
    let error = Policy::compile_layer(&opens, Some(&name)).unwrap_err();
    assert!(error.to_string().contains("only the host's layer opens"), "{error}");
    assert!(Policy::compile(&opens).is_ok());
}

#[test]
fn what_is_tried_below_is_recorded_and_nothing_else() {
    let audited = |host: &str, acme: &str| {
        let decision = decide(&layered(&rules(host), Some(&rules(acme)), None), Stage::Http, "acme/app");
        (decision.verdict, decision.audit.and_then(|audit| audit.rule).map(|rule| rule.as_str().to_owned()))
    };
    let tried = Some("hub/org/acme:p/tried".to_owned());
    assert_eq!(audited("allow", "tried-deny"), (Verdict::Allow, tried));
    assert_eq!(audited("deny", "tried-deny"), (Verdict::Deny, None));
    assert_eq!(audited("organization", "tried-allow").0, Verdict::Deny);
    // A whole layer that is tried opens nothing that is left to it, as the host's does for all.
    let name = LayerName::parse("hub/org/acme").unwrap();
    let trying = "version: 1\nname: p\nmode: audit\nrules:\n  - {id: x, when: {host: b.test}, deny: no}\n";
    let policy = Policy::compile_layer(&[("p.yaml".to_owned(), trying.to_owned())], Some(&name)).unwrap();
    let layers = vec![Layer { name, policy: Arc::new(policy) }];
    let host = Policy::from_text("h.yaml", &text("h", &rules("organization"))).unwrap();
    let policy = host.over(Layers::new(Assurance::Oidc, &issuers(), layers));
    assert_eq!(decide(&policy, Stage::Http, "acme/app").verdict, Verdict::Deny);
}

#[test]
fn only_what_lies_below_can_be_delegated_to() {
    let loads = |layer: Option<&str>, effect: &str| {
        let name = layer.map(|name| LayerName::parse(name).unwrap());
        let rules = format!("  - {{id: x, when: {{host: a.test}}, {effect}}}\n");
        Policy::compile_layer(&[("p.yaml".to_owned(), text("p", &rules))], name.as_ref())
            .map(drop)
            .map_err(|error| error.to_string())
    };
    for (layer, effect, good) in [
        (None, "delegate: organization", true),
        (None, "delegate: repository", true),
        (None, "delegate: {to: repository, passthrough: true}", true),
        (Some("hub/org/acme"), "delegate: repository", true),
        (Some("hub/org/acme"), "delegate: organization", false),
        (Some("hub/repo/acme/app"), "delegate: repository", false),
        (Some("hub/repo/acme/app"), "delegate: organization", false),
        (None, "delegate: host", false),
        (None, "delegate: {passthrough: true}", false),
        (None, "delegate: {to: repository, all: true}", false),
        (None, "delegate: repository, allow: true", false),
        (None, "delegate: repository, deny: no", false),
        (None, "delegate: repository, addresses: [private]", true),
    ] {
        let loaded = loads(layer, effect);
        assert_eq!(loaded.is_ok(), good, "{layer:?} {effect}: {loaded:?}");
    }
}

#[test]
fn what_is_delegated_as_a_trial_opens_no_addresses() {
    let of = |mode: &str| {
        let rule = format!(
            "  - {{id: leave, {mode} when: {{host: a.test}}, delegate: repository, addresses: [private]}}\n"
        );
        let host = format!("{rule}  - {{id: all, allow: true}}\n");
        let policy = layered(&host, None, Some(&rules("allow")));
        let (workload, claims) = (WorkloadFacts::default(), self::of("acme/app"));
        let trace = policy.explain(&facts(&workload, Stage::Http, verified(&claims), "a.test"));
        let decides: Vec<String> =
            trace.steps.iter().filter(|step| step.decides).map(|step| step.rule.to_string()).collect();
        (decide(&policy, Stage::Http, "acme/app").addresses.iter().count(), decides)
    };
    assert_eq!(of("mode: audit,"), (0, vec!["h/all".to_owned(), "hub/repo/acme/app:p/allow".to_owned()]));
    assert_eq!(of("").0, 1);
    // A rule that may not pass it unread decides nothing.
    let policy = layered(&rules("repository"), None, Some(&rules("passthrough")));
    let (workload, claims) = (WorkloadFacts::default(), self::of("acme/app"));
    let mut facts = facts(&workload, Stage::Tls, verified(&claims), "a.test");
    facts.protocol = Fact::Known(Protocol::Https);
    let step = policy.explain(&facts).steps.pop().unwrap();
    assert_eq!((step.rule.local(), step.matches, step.decides), ("passthrough", Tri::Yes, false));
}

#[test]
fn what_limits_or_adds_is_not_without_effect() {
    let idle = |effect: &str| {
        let rule = format!("  - {{id: x, when: {{host: a.test}}, allow: true{effect}}}\n");
        layered(&rules("allow"), Some(&rule), None).idle().len()
    };
    let limits = ", limits: [{requests: 1, per: job, window: 1m}]";
    for (effect, count) in [("", 1), (", mask: {request: [secrets]}", 0), (", observe: true", 0), (limits, 0)]
    {
        assert_eq!(idle(effect), count, "{effect}");
    }
}

#[test]
fn a_layer_is_its_own_jobs_alone() {
    let policy = layered(&rules("organization"), Some(&rules("allow")), Some(&rules("deny")));
    let workload = WorkloadFacts::default();
    let verdict = |identity| policy.decide(&facts(&workload, Stage::Http, identity, "a.test")).verdict;
    let (own, other, elsewhere, nobody) = (of("acme/app"), of("acme/web"), of("acme-x/app"), of("acme"));
    assert_eq!(verdict(verified(&own)), Verdict::Deny);
    assert_eq!(verdict(verified(&other)), Verdict::Allow);
    let others = [elsewhere, nobody, Claims::default(), of("Acme/web"), of("/acme/web")];
    for claims in &others {
        assert_eq!(verdict(verified(claims)), Verdict::Deny, "{claims:?}");
    }
    let impostor = Claims { issuer: "https://other.test".to_owned(), ..other.clone() };
    assert_eq!(verdict(verified(&impostor)), Verdict::Deny);
    for assurance in [Assurance::None, Assurance::Attested, Assurance::Api] {
        let claimed = Fact::Known(IdentityFacts { claims: &other, assurance });
        assert_eq!(verdict(claimed), Verdict::Deny, "{assurance}");
    }
    assert_eq!(verdict(Fact::Absent), Verdict::Deny);
    assert_eq!(verdict(Fact::Unknown), Verdict::Deny);
    // It is not refused for good who may still say who it is.
    let ask = |identity| policy.feasible(&facts(&workload, Stage::Connect, identity, "a.test")).is_possible();
    assert!(ask(Fact::Unknown) && ask(verified(&other)) && !ask(Fact::Absent) && !ask(verified(&own)));
    let all = layered(&rules("allow"), Some(&rules("deny")), None);
    let denied = decide(&all, Stage::Http, "acme/app");
    assert_eq!(denied.verdict, Verdict::Deny);
    assert!(!all.feasible(&facts(&workload, Stage::Dns, verified(&own), "a.test")).is_possible());
}

#[test]
fn what_is_not_known_narrows() {
    let policy =
        layered(&rules("allow"), Some("  - {id: no, when: {host: a.test, method: PUT}, deny: no}\n"), None);
    assert_eq!(decide(&policy, Stage::Tls, "acme/app").reason, Reason::MissingFact);
    assert_eq!(decide(&policy, Stage::Http, "acme/app").verdict, Verdict::Allow);
    let allowing = layered(
        &rules("passthrough"),
        Some("  - {id: yes, when: {host: a.test, method: GET}, allow: true}\n"),
        None,
    );
    // What it would allow narrows nothing, known or not.
    assert_eq!(decide(&allowing, Stage::Tls, "acme/app").verdict, Verdict::Passthrough);
}

#[test]
fn names_of_layers() {
    for (text, of) in [
        ("hub/org/acme", Some("acme")),
        ("hub/repo/acme/app", Some("acme/app")),
        ("hub/repo/group/sub/app", Some("group/sub/app")),
        ("hub/org/acme/app", None),
        ("hub/repo/acme", None),
        ("hub/org/", None),
        ("hub/repo/acme//app", None),
        ("hub/repo/../app", None),
        ("hub/repo/acme/.", None),
        ("hub/repo/acme/.github", Some("acme/.github")),
        ("hub/repo/acme/a:b", None),
        ("hub/team/acme", None),
        ("hub/org", None),
        ("hub", None),
        ("", None),
    ] {
        assert_eq!(LayerName::parse(text).as_ref().map(LayerName::of), of, "{text}");
    }
    let long = |length: usize| LayerName::parse(&format!("hub/org/{}", "x".repeat(length - 8)));
    assert!(long(super::MAX_LAYER_NAME_BYTES).is_some() && long(super::MAX_LAYER_NAME_BYTES + 1).is_none());
}

/// Rules without an effect that delegates.
fn any_rules(host: bool) -> impl Strategy<Value = String> {
    let hosts = vec!["", "host: a.test", "host: '*.test'", "host: b.test", "host: 10.0.0.0/8"];
    let conditions = vec![
        "",
        "method: GET",
        "method: PUT",
        "path: /x/**",
        "cel: http.path == '/'",
        "identity: {repository: acme/app}",
        "identity: {assurance: none}",
        "protocol: https",
    ];
    let mut effects = vec![
        "allow: true",
        "deny: no",
        "deny: no, mode: audit",
        "allow: true, mode: audit",
        "hold: {needs: [{people: 1, groups: [ops]}]}",
        "observe: true",
        "mask: {request: [secrets]}",
        "mask: {response: [pii]}",
        "body: inspect",
        "durability: fsync",
    ];
    if host {
        effects.push("allow: true, addresses: [private]");
    } else {
        effects.push("delegate: repository");
    }
    let rule = (prop::sample::select(hosts), prop::sample::select(conditions), prop::sample::select(effects));
    let rule = rule.prop_map(|(host, condition, effect)| {
        let parts: Vec<&str> = [host, condition].into_iter().filter(|part| !part.is_empty()).collect();
        format!("when: {{{}}}, {effect}", parts.join(", "))
    });
    let unread = Just("when: {host: a.test}, passthrough: true".to_owned());
    let rule = prop_oneof![8 => rule, 1 => unread];
    proptest::collection::vec(rule, 0..8).prop_map(|rules| {
        rules.iter().enumerate().map(|(n, rule)| format!("  - {{id: r{n}, {rule}}}\n")).collect()
    })
}

fn width(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Deny => 0,
        Verdict::Hold => 1,
        Verdict::Allow => 2,
        Verdict::Passthrough => 3,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever stands below, without a rule of the host that delegates nothing is wider.
    #[test]
    fn what_lies_below_never_widens(
        host in any_rules(true),
        acme in prop::option::of(any_rules(false)),
        app in prop::option::of(any_rules(true).prop_map(|rules| rules.replace(", addresses: [private]", ""))),
        name in prop::sample::select(vec!["a.test", "b.test", "c.test", "10.1.1.1"]),
        stage in prop::sample::select(Stage::ALL.to_vec()),
        method in prop::sample::select(vec!["GET", "PUT"]),
        path in prop::sample::select(vec!["/", "/x/y"]),
        who in prop::sample::select(vec![Fact::Known("acme/app"), Fact::Known("b/c"), Fact::Absent, Fact::Unknown]),
    ) {
        let alone = Policy::from_text("h.yaml", &text("h", &host)).unwrap();
        let policy = layered(&host, acme.as_deref(), app.as_deref());
        let (workload, claims) = (WorkloadFacts::default(), who.known().map(of));
        let identity = match (&claims, who) {
            (Some(claims), _) => verified(claims),
            (None, Fact::Unknown) => Fact::Unknown,
            (None, _) => Fact::Absent,
        };
        let mut facts = facts(&workload, stage, identity, name);
        if stage == Stage::Http {
            facts.method = Fact::Known(method);
            facts.path = Fact::Known(path);
        }
        let (above, whole) = (alone.decide(&facts), policy.decide(&facts));
        prop_assert!(width(whole.verdict) <= width(above.verdict), "{above:?} {whole:?}");
        prop_assert!(whole.addresses.iter().all(|rule| above.addresses.iter().any(|other| other == rule)));
        prop_assert!(above.verdict == Verdict::Deny || whole.verdict == Verdict::Deny || whole.observe >= above.observe);
        let adds = |decision: &Decision| {
            [!decision.request_mask.is_none(), !decision.response_mask.is_none(), decision.body != BodyClass::Stream]
        };
        let two = whole.reason == Reason::HeldByTwo;
        prop_assert!(two || adds(&whole).into_iter().zip(adds(&above)).all(|(whole, above)| whole >= above));
        prop_assert!(whole.durability >= above.durability);
        if policy.feasible(&facts).is_possible() {
            prop_assert!(alone.feasible(&facts).is_possible());
        } else {
            // What is refused early would have been refused in the end.
            prop_assert_eq!(whole.verdict, Verdict::Deny);
        }
        prop_assert_eq!(policy.explain(&facts).decision, whole);
    }
}

#[test]
fn a_limit_of_a_layer_counts_whatever_the_request_looks_like() {
    const HOST: &str = "  - {id: all, when: {host: a.test}, allow: true}\n";
    const BELOW: &str = "  - {id: few, when: {host: a.test, method: DELETE, path: /x}, allow: true, limits: {requests: 1, window: 1h}}\n";
    let workload = WorkloadFacts::default();
    let claims = of("acme/app");
    let limited = |policy: &Policy, method, path| {
        let asked = facts(&workload, Stage::Http, verified(&claims), "a.test");
        let decision =
            policy.decide(&Facts { method: Fact::Known(method), path: Fact::Known(path), ..asked });
        assert_eq!(decision.verdict, Verdict::Allow, "{decision:?}");
        decision.limits.len()
    };
    let alone = layered(&format!("{BELOW}{HOST}"), None, None);
    for policy in [alone, layered(HOST, Some(BELOW), None), layered(HOST, None, Some(BELOW))] {
        for (method, path, want) in [
            ("DELETE", "/x", 1),
            ("delete", "/x", 1),
            ("DELETE", "/x;y", 1),
            ("delete", "/x;y", 1),
            ("GET", "/x;y", 0),
            ("DELETE", "/xy", 0),
        ] {
            assert_eq!(limited(&policy, method, path), want, "{method} {path}");
        }
    }
}

#[test]
fn an_expression_that_fails_or_has_two_readings_is_no_way_around_a_limit() {
    let limited = |cel: &str, query: &str, known: bool| {
        let rules = format!(
            "  - {{id: few, when: {{host: a.test, cel: '{cel}'}}, allow: true, limits: {{requests: 1, window: 1h}}}}\n  \
             - {{id: all, when: {{host: a.test}}, allow: true}}\n"
        );
        let policy = layered(&rules, None, None);
        let (workload, claims) = (WorkloadFacts::default(), of("acme/app"));
        let identity = if known { verified(&claims) } else { Fact::Absent };
        let asked = facts(&workload, Stage::Http, identity, "a.test");
        policy.decide(&Facts { query: Fact::Known(query), ..asked }).limits.len()
    };
    const DRAFT: &str = "http.query[\"draft\"][0] == \"1\"";
    for (query, want) in [("draft=1", 1), ("draft=1;x", 1), ("x;draft=1", 1), ("", 1), ("draft=2", 0)] {
        assert_eq!(limited(DRAFT, query, true), want, "{query}");
    }
    // A job that nobody has said anything of is not taken for every other one.
    const OURS: &str = "identity.repository == \"acme/app\"";
    assert_eq!((limited(OURS, "", true), limited(OURS, "", false)), (1, 0));
}

#[test]
fn what_a_layer_limits_does_not_pass_unread() {
    const LIMITS: &str = "allow: true, limits: {requests: 1, window: 1h}";
    for (when, want) in [
        ("host: a.test", Verdict::Deny),
        ("host: a.test, path: /y", Verdict::Deny),
        ("host: a.test, method: PUT", Verdict::Deny),
        ("host: b.test", Verdict::Passthrough),
    ] {
        let below = format!("  - {{id: few, when: {{{when}}}, {LIMITS}}}\n");
        for (organization, repository) in [(Some(&*below), None), (None, Some(&*below))] {
            let policy = layered(&rules("passthrough"), organization, repository);
            let decision = decide(&policy, Stage::Tls, "acme/app");
            assert_eq!(decision.verdict, want, "{when}: {decision:?}");
            let rule = decision.rule.as_ref().is_some_and(|rule| rule.as_str().ends_with("p/few"));
            assert_eq!(rule, want == Verdict::Deny, "{decision:?}");
        }
    }
    let tried = format!("  - {{id: few, mode: audit, when: {{host: a.test}}, {LIMITS}}}\n");
    let policy = layered(&rules("passthrough"), Some(&tried), None);
    assert_eq!(decide(&policy, Stage::Tls, "acme/app").verdict, Verdict::Passthrough);
}
