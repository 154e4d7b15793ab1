//! Decisions, three-valued logic, errors that point, and reloads.

use std::fs;

use proptest::prelude::*;

use super::*;

mod bodies;
mod hold;
mod tools;

const BASE: &str = "
version: 1
name: base
rules:
  - id: no-push
    when: {host: git.example, path: '**/git-receive-pack'}
    deny: pushes go through review
  - id: mask
    when: {host: '*.example'}
    mask: {request: [secrets]}
  - id: git
    when: {host: git.example, port: 443, protocol: https}
    allow: true
    addresses: [loopback, 10.0.0.0/8]
  - id: pinned
    when: {host: pinned.example, port: 443}
    passthrough: true
  - id: read-only
    when: {host: '**.api.example', method: [GET, HEAD]}
    allow: true
";

fn base() -> Policy {
    Policy::from_text("base.yaml", BASE).unwrap()
}

fn request<'a>(workload: &'a WorkloadFacts, host: &'a str, method: &'a str, path: &'a str) -> Facts<'a> {
    Facts {
        workload,
        identity: Fact::Absent,
        stage: Stage::Http,
        host: Fact::Known(host),
        port: Fact::Known(443),
        protocol: Fact::Known(Protocol::Https),
        method: Fact::Known(method),
        path: Fact::Known(path),
        query: Fact::Known(""),
        headers: Fact::Absent,
        body: BodyFacts::ABSENT,
        tool: Fact::Unknown,
    }
}

fn at<'a>(workload: &'a WorkloadFacts, stage: Stage, host: &'a str) -> Facts<'a> {
    let mut facts = Facts::new(workload, stage);
    facts.host = Fact::Known(host);
    facts
}

#[test]
fn the_first_deciding_rule_decides_and_adding_ones_add() {
    let workload = WorkloadFacts::default();
    let policy = base();
    let decide = |host, method, path| policy.decide(&request(&workload, host, method, path));
    let allowed = decide("git.example", "GET", "/x/info/refs");
    assert_eq!((allowed.verdict, allowed.rule.as_ref().unwrap().as_str()), (Verdict::Allow, "base/git"));
    assert!(!allowed.request_mask.is_none() && allowed.response_mask.is_none());
    assert!(allowed.addresses.permits("10.1.1.1".parse().unwrap()));
    assert!(!allowed.addresses.permits("192.168.0.1".parse().unwrap()));
    let denied = decide("git.example", "POST", "/x/git-receive-pack");
    assert_eq!((denied.verdict, denied.reason), (Verdict::Deny, Reason::PolicyDeny));
    assert_eq!(denied.message.as_deref(), Some("pushes go through review"));
    assert_eq!(denied.durability, Durability::Fsync);
    assert_eq!(decide("other.test", "GET", "/").reason, Reason::PolicyDefaultDeny);
    assert_eq!(decide("a.b.api.example", "GET", "/").verdict, Verdict::Allow);
    assert_eq!(decide("a.b.api.example", "POST", "/").verdict, Verdict::Deny);
    // What passes unread is decided before there is a request.
    assert_eq!(decide("pinned.example", "GET", "/").verdict, Verdict::Deny);
    assert_eq!(decide("Git.Example", "GET", "/").reason, Reason::InvalidFact);
    assert_eq!(decide("127.1", "GET", "/").reason, Reason::InvalidFact);
}

#[test]
fn another_spelling_hides_nothing_from_a_denial() {
    let text = "
version: 1
name: p
rules:
  - {id: run, when: {host: h.test, path: ['/v1/*:run', '/x/%40scope/**']}, deny: no}
  - {id: delete, when: {host: h.test, method: DELETE}, deny: no}
  - {id: get, when: {host: get.test, method: GET, path: '/a:b'}, allow: true}
  - {id: all, when: {host: h.test}, allow: true}
";
    let workload = WorkloadFacts::default();
    let policy = Policy::from_text("p.yaml", text).unwrap();
    let rule = |host, method, path| {
        let decision = policy.decide(&request(&workload, host, method, path));
        decision.rule.map(|rule| rule.local().to_owned())
    };
    for path in ["/v1/m:run", "/v1/m%3Arun", "/v1/m%3Arun;x", "/x/@scope/y", "/x/%40scope/y"] {
        assert_eq!(rule("h.test", "GET", path).as_deref(), Some("run"), "{path}");
    }
    assert_eq!(rule("h.test", "GET", "/v1/m%253Arun").as_deref(), Some("all"));
    for method in ["DELETE", "delete", "Delete"] {
        assert_eq!(rule("h.test", method, "/").as_deref(), Some("delete"), "{method}");
    }
    assert_eq!(rule("get.test", "GET", "/a%3Ab").as_deref(), Some("get"));
    assert_eq!(rule("get.test", "get", "/a:b"), None);
}

#[test]
fn parameters_of_a_path_hide_nothing_from_a_denial_and_widen_no_allow() {
    let text = "
version: 1
name: p
rules:
  - {id: admin, when: {host: h.test, path: /admin/**}, deny: no}
  - {id: some, when: {host: h.test, path: [/a/*, '/v1/models/*:run;x']}, allow: true}
  - {id: all, when: {host: all.test}, allow: true}
";
    let workload = WorkloadFacts::default();
    let policy = Policy::from_text("p.yaml", text).unwrap();
    let rule = |host, path| {
        let decision = policy.decide(&request(&workload, host, "GET", path));
        decision.rule.map(|rule| rule.to_string())
    };
    for path in ["/admin/x", "/admin;y/x", "/admin%3By/x", "/admin/x;y", "/;y/admin/x", "/admin;/;/x"] {
        assert_eq!(rule("h.test", path).as_deref(), Some("p/admin"), "{path}");
    }
    assert_eq!(rule("h.test", "/a/b").as_deref(), Some("p/some"));
    assert_eq!(rule("h.test", "/a/b;c").as_deref(), Some("p/some"));
    // As written it would be allowed, without parameters it is another path.
    for path in ["/a;/b/c", "/v1/models/m:run;x"] {
        assert_eq!(rule("h.test", path), None, "{path}");
    }
    assert_eq!(rule("all.test", "/a;b/c").as_deref(), Some("p/all"));
}

#[test]
fn before_all_facts_exist_only_the_impossible_is_refused() {
    let workload = WorkloadFacts::default();
    let policy = base();
    let feasible = |stage, host| policy.feasible(&at(&workload, stage, host)).is_possible();
    for stage in [Stage::Connect, Stage::Dns, Stage::Tls] {
        assert!(feasible(stage, "git.example"));
        assert!(feasible(stage, "x.api.example"));
        assert!(!feasible(stage, "other.example"));
        assert!(!feasible(stage, "evilgit.example"));
    }
    assert!(feasible(Stage::Connect, "pinned.example"));
    assert!(policy.feasible(&Facts::new(&workload, Stage::Connect)).is_possible());
    assert!(!Policy::deny_all().feasible(&Facts::new(&workload, Stage::Connect)).is_possible());
}

#[test]
fn passthrough_is_decided_by_the_server_name_alone() {
    let workload = WorkloadFacts::default();
    let mut facts = at(&workload, Stage::Tls, "pinned.example");
    facts.port = Fact::Known(443);
    facts.protocol = Fact::Known(Protocol::Tls);
    assert_eq!(base().decide(&facts).verdict, Verdict::Passthrough);
    facts.port = Fact::Known(8443);
    assert_eq!(base().decide(&facts).verdict, Verdict::Deny);
}

#[test]
fn a_fact_that_a_rule_needs_and_nobody_has_denies() {
    let workload = WorkloadFacts::default();
    let mut facts = request(&workload, "x.api.example", "GET", "/");
    facts.method = Fact::Unknown;
    assert_eq!(base().decide(&facts).reason, Reason::MissingFact);
    facts.method = Fact::Absent;
    assert_eq!(base().decide(&facts).reason, Reason::PolicyDefaultDeny);
}

#[test]
fn an_audited_denial_is_as_if_it_were_not_there_and_says_so() {
    let workload = WorkloadFacts::default();
    let text = BASE.replace("    deny: pushes", "    mode: audit\n    deny: pushes");
    let decision = Policy::from_text("a.yaml", &text).unwrap().decide(&request(
        &workload,
        "git.example",
        "POST",
        "/git-receive-pack",
    ));
    assert_eq!(decision.verdict, Verdict::Allow);
    assert_eq!(decision.rule.unwrap().as_str(), "base/git");
    assert_eq!(decision.audit.unwrap().rule.unwrap().as_str(), "base/no-push");
    // It opens nothing that others close.
    let text = "version: 1\nname: try\nmode: audit\nrules: [{id: no, when: {host: '**.test'}, deny: no}]\n";
    let both = [("a.yaml", text), ("b.yaml", BASE)].map(|(name, text)| (name.to_owned(), text.to_owned()));
    let both = Policy::compile(&both).unwrap();
    let decision = both.decide(&request(&workload, "other.test", "GET", "/"));
    assert_eq!((decision.verdict, decision.audit.is_none()), (Verdict::Deny, true));
    assert!(!both.feasible(&at(&workload, Stage::Dns, "other.test")).is_possible());
    let audit = BASE.replace("name: base", "name: base\nmode: audit");
    let audit = Policy::from_text("a.yaml", &audit).unwrap();
    let decision = audit.decide(&request(&workload, "other.test", "GET", "/"));
    assert_eq!(
        (decision.verdict, decision.audit.unwrap().reason),
        (Verdict::Allow, Reason::PolicyDefaultDeny)
    );
    // One file that enforces is enough for the default to deny.
    let other = "version: 1\nname: other\nrules: []\n".to_owned();
    let text = BASE.replace("name: base", "name: base\nmode: audit");
    let both = Policy::compile(&[("a.yaml".to_owned(), text), ("b.yaml".to_owned(), other)]).unwrap();
    assert_eq!(both.decide(&request(&workload, "other.test", "GET", "/")).verdict, Verdict::Deny);
}

#[test]
fn workloads_are_matched_by_name_cgroup_and_labels() {
    let text = "version: 1\nname: w\nrules:\n  - id: r\n    when:\n      workload: {name: 'ci-*', labels: {team: [a, b]}}\n    allow: true\n";
    let policy = Policy::from_text("w.yaml", text).unwrap();
    let verdict = |name: &str, team: Option<&str>| {
        let labels = team.map(|team| ("team".to_owned(), team.to_owned())).into_iter().collect();
        let workload = WorkloadFacts { name: name.to_owned(), cgroup: "/jobs/x".to_owned(), labels };
        policy.decide(&request(&workload, "h.test", "GET", "/")).verdict
    };
    assert_eq!(verdict("ci-1", Some("a")), Verdict::Allow);
    assert_eq!(verdict("ci-1", Some("c")), Verdict::Deny);
    assert_eq!(verdict("ci-1", None), Verdict::Deny);
    assert_eq!(verdict("xci-1", Some("a")), Verdict::Deny);
}

#[test]
fn what_is_wrong_is_found_with_its_line() {
    let rule = |body: &str| format!("version: 1\nname: p\nrules:\n  - id: r\n    {body}\n");
    for (text, line, part) in [
        (rule("allow: true\n    alow: true"), 6, "alow"),
        (rule("when: {host: 'a.*.b'}\n    allow: true"), 5, "first label"),
        (rule("when: {host: '127.1'}\n    allow: true"), 5, "host name"),
        (rule("when: {path: 'x'}\n    allow: true"), 5, "begins with /"),
        (rule("when: {method: get}\n    allow: true"), 5, "capitals"),
        (rule("when: {host: []}\n    allow: true"), 5, "between 1"),
        (rule("when: {port: 0}\n    allow: true"), 5, "port 0"),
        (rule("allow: false"), 5, "says nothing"),
        (rule("allow: true\n    deny: x"), 4, "more than one"),
        (rule("when: {host: a.test}"), 4, "no effect"),
        (rule("passthrough: true"), 4, "needs a host"),
        (rule("when: {host: a.test, path: /x}\n    passthrough: true"), 4, "nobody reads"),
        (rule("mask: {request: [nonsense]}"), 5, "nonsense"),
        (rule("mask: {request: [{entity: NONSENSE}]}"), 5, "NONSENSE"),
        (rule("mask: {request: [{entity: EMAIL, strategy: hash}]}"), 5, "keep-last-4"),
        (rule("mask: {request: [{entity: EMAIL, stratgy: drop}]}"), 5, "stratgy"),
        (rule("mask: {request: [{strategy: drop}]}"), 5, "one of set, entity, rule and select"),
        (rule("mask: {request: [{entity: EMAIL, set: pii}]}"), 5, "one of set, entity, rule and select"),
        (rule("mask: {request: [{select: {json: a.b}}]}"), 5, "begins with `$`"),
        (rule("mask: {request: [{select: {body: a}}]}"), 5, "no part of a message"),
        (rule("mask: {request: [{select: {column: a}}]}"), 5, "columns"),
        (rule("mask: {request: [{select: {json: $.a}, strategy: observe}]}"), 5, "leaves alone"),
        (rule("allow: true\n    addresses: [10.0.0.1/8]"), 6, "bits"),
        (rule("allow: true\n  - id: r\n    allow: true"), 6, "another rule"),
        (rule("when: {host: }\n    allow: true"), 5, "a value or a list"),
        (rule("when: {host: a.test, path: ~}\n    allow: true"), 5, "a value or a list"),
        (rule("when: {host: a.test, cel: }\n    allow: true"), 5, ""),
        (rule("when: {workload: {name: null}}\n    allow: true"), 5, "a value or a list"),
        (rule("when: {workload: {labels: }}\n    allow: true"), 5, "leave the key out"),
        (rule("when: {workload: }\n    allow: true"), 5, "leave the key out"),
        (rule("when:\n    allow: true"), 5, "leave the key out"),
        (rule("allow: true\n    deny:"), 6, ""),
        (rule("allow: true\n    mask:"), 6, "masks nothing"),
        (rule("allow: true\n    mask: {request: }"), 6, "a value or a list"),
        (rule("allow: true\n    mode:"), 6, ""),
        ("version: 2\nname: p\nrules: []\n".to_owned(), 1, "version"),
        ("version: 1\nname: p\nrules: [\n".to_owned(), 4, ""),
    ] {
        let error = Policy::from_text("p.yaml", &text).unwrap_err();
        let found = &error.findings()[0];
        assert!(found.message.contains(part), "{text}: {}", found.message);
        assert!(found.line.abs_diff(line) <= 1, "{text}: line {} and not {line}", found.line);
    }
}

#[test]
fn what_is_masked_has_a_name_or_a_part_and_a_strategy() {
    use crate::mask::{Layer, Part, Selection, Strategy};
    let masks = |what: &str| {
        let text = format!("version: 1\nname: p\nrules: [{{id: r, allow: true, mask: {{request: {what}}}}}]");
        let policy = Policy::from_text("p.yaml", &text).unwrap();
        policy.decide(&request(&WorkloadFacts::default(), "h.test", "GET", "/")).request_mask
    };
    let plain = masks("[secrets]");
    assert_eq!(plain, Selection::parse(["secrets"]).unwrap());
    assert_eq!(masks("secrets"), plain);
    assert_eq!(masks("[{set: secrets}]"), plain);
    assert_eq!(masks("{set: secrets, strategy: placeholder}"), plain);
    let mut layer = Layer::default();
    layer.name("secrets", Strategy::Placeholder).unwrap();
    layer.name("EMAIL", Strategy::Surrogate).unwrap();
    layer.name("jwt", Strategy::Observe).unwrap();
    layer.name("exact:DEPLOY_KEY", Strategy::Deny).unwrap();
    layer.part(Part::parse("header", "x-api-key").unwrap(), Strategy::Observe);
    layer.part(Part::parse("json", "$.users[*].name").unwrap(), Strategy::KeepLast4);
    let chosen = "[secrets, {entity: EMAIL, strategy: surrogate}, {rule: jwt, strategy: observe}, \
        {select: {env: DEPLOY_KEY}, strategy: deny}, {select: {header: X-Api-Key}, strategy: observe}, \
        {select: {json: '$.users[*].name'}, strategy: keep-last-4}]";
    assert_eq!(masks(chosen), layer.into());
}

#[test]
fn the_number_of_rules_is_limited() {
    let rules = |count: usize| {
        let rules: String = (0..count).map(|n| format!("  - {{id: r{n}, allow: true}}\n")).collect();
        Policy::from_text("p.yaml", &format!("version: 1\nname: p\nrules:\n{rules}"))
    };
    assert_eq!(rules(MAX_RULES).unwrap().len(), MAX_RULES);
    assert!(rules(MAX_RULES + 1).is_err());
}

#[test]
fn a_broken_file_keeps_the_last_good_policy() {
    let dir = tempfile::tempdir().unwrap();
    let (store, opened) = PolicyStore::open(dir.path(), None);
    assert!(matches!(opened, Err(PolicyError::Empty { .. })));
    let workload = WorkloadFacts::default();
    let facts = request(&workload, "git.example", "GET", "/");
    assert_eq!(store.current().decide(&facts).reason, Reason::NoPolicy);
    let file = dir.path().join("a.yaml");
    fs::write(&file, BASE).unwrap();
    fs::write(dir.path().join("a.test.yaml"), "not a policy").unwrap();
    store.reload().unwrap();
    assert_eq!((store.generation(), store.current().decide(&facts).verdict), (2, Verdict::Allow));
    fs::write(&file, "version: 1").unwrap();
    assert!(store.reload().is_err());
    assert_eq!((store.generation(), store.current().decide(&facts).verdict), (2, Verdict::Allow));
    fs::remove_file(&file).unwrap();
    assert!(store.reload().is_err());
    assert_eq!(store.current().decide(&facts).verdict, Verdict::Allow);
}

#[test]
fn a_change_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("a.yaml"), BASE).unwrap();
    let (store, opened) = PolicyStore::open(dir.path(), None);
    opened.unwrap();
    let store = std::sync::Arc::new(store);
    let (told, tell) = std::sync::mpsc::channel();
    store.watch(move |_, result| told.send(result.is_ok()).unwrap()).unwrap();
    fs::write(dir.path().join("b.yaml"), "version: 1\nname: b\nrules: []\n").unwrap();
    assert!(tell.recv_timeout(std::time::Duration::from_secs(10)).unwrap());
    assert_eq!(store.generation(), 2);
}

const HOSTS: [&str; 3] = ["a.test", "b.test", "x.a.test"];
const METHODS: [&str; 2] = ["GET", "POST"];
const PATHS: [&str; 2] = ["/", "/x"];

fn rules() -> impl Strategy<Value = String> {
    let when = (
        proptest::option::of(prop::sample::select(vec!["a.test", "'*.test'", "'**.test'"])),
        proptest::option::of(prop::sample::select(METHODS.to_vec())),
        proptest::option::of(prop::sample::select(vec!["/", "/x", "/**"])),
        prop::sample::select(vec!["allow: true", "deny: no", "observe: true", "mode: audit, deny: no"]),
    );
    proptest::collection::vec(when, 0..6).prop_map(|all| {
        let lines = all.into_iter().enumerate().map(|(n, (host, method, path, effect))| {
            let part = |key: &str, value: Option<&str>| value.map(|value| format!("{key}: {value}"));
            let when: Vec<_> = [part("host", host), part("method", method), part("path", path)]
                .into_iter()
                .flatten()
                .collect();
            format!("  - {{id: r{n}, when: {{{}}}, {effect}}}\n", when.join(", "))
        });
        format!("version: 1\nname: p\nrules:\n{}", lines.collect::<String>())
            .replace("rules:\n\n", "rules: []\n")
    })
}

proptest! {
    #[test]
    fn never_means_that_no_completion_is_allowed(text in rules(), host in 0..4_usize) {
        let text = if text.ends_with("rules:\n") { text.replace("rules:\n", "rules: []\n") } else { text };
        let policy = Policy::from_text("p.yaml", &text).unwrap();
        let workload = WorkloadFacts::default();
        let mut facts = Facts::new(&workload, Stage::Tls);
        facts.host = HOSTS.get(host).map_or(Fact::Unknown, |host| Fact::Known(*host));
        let mut allowed = false;
        for candidate in HOSTS.iter().filter(|one| HOSTS.get(host).is_none_or(|host| host == *one)) {
            for method in METHODS {
                for path in PATHS {
                    let decision = policy.decide(&request(&workload, candidate, method, path));
                    allowed |= decision.verdict != Verdict::Deny;
                }
            }
        }
        if allowed {
            prop_assert!(policy.feasible(&facts).is_possible(), "{text}");
        }
        // And what is not known is never let through.
        if !matches!(policy.feasible(&facts), Feasibility::Possible) {
            prop_assert_eq!(policy.decide(&facts).verdict, Verdict::Deny);
        }
    }

    #[test]
    fn audited_denials_change_no_verdict(text in rules()) {
        let without: String = text.lines().filter(|line| !line.contains("audit")).map(|l| l.to_owned() + "\n").collect();
        let policy = |text: &str| {
            let text = if text.ends_with("rules:\n") { text.replace("rules:\n", "rules: []\n") } else { text.to_owned() };
            Policy::from_text("p.yaml", &text).unwrap()
        };
        let (with, without) = (policy(&text), policy(&without));
        let workload = WorkloadFacts::default();
        for host in HOSTS {
            for (method, path) in METHODS.iter().flat_map(|method| PATHS.map(|path| (method, path))) {
                let facts = request(&workload, host, method, path);
                prop_assert_eq!(with.decide(&facts).verdict, without.decide(&facts).verdict, "{}", text);
            }
            let facts = at(&workload, Stage::Tls, host);
            prop_assert_eq!(with.feasible(&facts).is_possible(), without.feasible(&facts).is_possible());
        }
    }

    #[test]
    fn no_text_panics(text in "(version: 1\nname: p\n)?rules: ?\\PC{0,60}") {
        drop(Policy::from_text("p.yaml", &text));
    }
}
