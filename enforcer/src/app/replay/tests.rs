//! Recorded statements, made by hand.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::generalise::{MAX_PATHS, globs};
use super::*;
use crate::policy::Verdict;
use crate::session::read::Request;

const TOKEN: &str = r#"{"assurance": "oidc", "provider": "github", "issuer": "https://issuer.test",
    "subject": "repo:acme/app", "repository": "acme/app", "ref": "refs/heads/main", "ref_protected": true, "event": "push",
    "groups": ["a"], "run_attempt": "1"}"#;

fn statement(method: &str, authority: &str, path: &str) -> Statement {
    let (host, port) =
        authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')).unwrap_or((authority, "443"));
    Statement {
        session: "0193a1b2-c3d4-7e5f-8a6b-7c8d9e0f1a2b".parse().unwrap(),
        workload: "build-1".to_owned(),
        cgroup_path: "/jobs/1".to_owned(),
        labels: BTreeMap::from([("team".to_owned(), "web".to_owned())]),
        identity: None,
        destination: "203.0.113.7:443".parse().ok(),
        protocol: "https".to_owned(),
        host: Some(host.trim_matches(['[', ']']).to_owned()),
        port: port.parse().unwrap(),
        request: Some(Request {
            method: method.to_owned(),
            authority: authority.to_owned(),
            path: path.to_owned(),
            query: None,
            headers: Some(vec![("accept".to_owned(), "*/*".to_owned())]),
        }),
        verdict: "allow".to_owned(),
        rule: None,
        reason: "policy-allow".to_owned(),
        audit: None,
    }
}

fn by_token(statement: Statement) -> Statement {
    Statement { identity: serde_json::from_str(TOKEN).ok(), ..statement }
}

fn suggested(statements: impl IntoIterator<Item = Statement>) -> Suggested {
    let mut suggestion = Suggestion::default();
    statements.into_iter().for_each(|one| suggestion.add(one));
    suggestion.finish("seen").unwrap()
}

fn verdict(policy: &Policy, statement: Statement) -> Option<Verdict> {
    match Replayed::new(statement).unwrap().ask(policy) {
        Answer::Decided(decision) => Some(decision.verdict),
        Answer::Untold => None,
    }
}

fn loaded(made: &Suggested) -> Policy {
    Policy::from_text("seen.yaml", &made.policy).unwrap()
}

fn globs_of(paths: &[String]) -> Vec<String> {
    globs(&paths.iter().map(String::as_str).collect::<BTreeSet<_>>()).into_iter().collect()
}

#[test]
fn few_paths_stay_as_they_are_and_what_changes_is_a_star() {
    let hash = "0123456789abcdef".repeat(4);
    for (path, glob) in [
        ("/", "/"),
        ("/simple/requests/", "/simple/requests/"),
        (&*format!("/packages/ab/{hash}/requests-2.32.whl"), "/packages/ab/*/requests-2.32.whl"),
        ("/runs/123e4567-e89b-12d3-a456-426614174000/log", "/runs/*/log"),
        ("/runs/123456", "/runs/*"),
        ("/runs/12345", "/runs/12345"),
        ("/v1/[MASKED:TOKEN]/x", "/v1/*/x"),
        ("/a*b/c", "/*/c"),
        ("/feedfacefeedface", "/feedfacefeedface"),
    ] {
        assert_eq!(globs_of(&[path.to_owned()]), [glob]);
    }
}

#[test]
fn many_paths_become_folders_and_never_everything() {
    let files =
        |count: usize, begin: &str| (0..count).map(|n| format!("{begin}file-{n}")).collect::<Vec<_>>();
    assert_eq!(globs_of(&files(MAX_PATHS, "/a/")).len(), MAX_PATHS);
    assert_eq!(globs_of(&files(MAX_PATHS + 1, "/a/")), ["/a/*"]);
    // Nothing of the root is summed up.
    assert_eq!(globs_of(&files(MAX_PATHS + 1, "/")).len(), MAX_PATHS + 1);
    let deep: Vec<_> = (0..MAX_PATHS * 2).map(|n| format!("/pool/{n}x/main/{n}.deb")).collect();
    assert_eq!(globs_of(&deep), ["/pool/**"]);
    let mut both = deep;
    both.push("/index".to_owned());
    assert_eq!(globs_of(&both), ["/index", "/pool/**"]);
}

#[test]
fn what_was_let_through_passes_and_what_is_near_does_not() {
    let hold = Statement { verdict: "hold".to_owned(), ..statement("PUT", "up.test", "/new") };
    let denied = Statement { verdict: "deny".to_owned(), ..statement("GET", "evil.test", "/x") };
    let made = suggested([
        statement("GET", "pypi.test", "/simple/requests/"),
        statement("HEAD", "pypi.test", "/simple/requests/"),
        statement("POST", "pypi.test:8443", "/audit"),
        hold,
        denied,
    ]);
    let policy = loaded(&made);
    assert_eq!((made.rules, made.statements), (2, 3), "{}", made.policy);
    let ask = |method, authority, path| verdict(&policy, statement(method, authority, path)).unwrap();
    assert_eq!(ask("GET", "pypi.test", "/simple/requests/"), Verdict::Allow);
    for (method, authority, path) in [
        ("POST", "pypi.test", "/simple/requests/"),
        ("GET", "pypi.test", "/simple/other/"),
        ("POST", "pypi.test", "/audit"),
        ("GET", "pypi.test:8443", "/audit"),
        ("GET", "evil.test", "/x"),
        ("PUT", "up.test", "/new"),
    ] {
        assert_eq!(ask(method, authority, path), Verdict::Deny, "{method} {authority} {path}");
    }
    assert!(made.notes.iter().any(|note| note.contains("1 requests were held")), "{:?}", made.notes);
    assert!(made.policy.contains("# Note: 1 requests were denied: GET evil.test/x"), "{}", made.policy);
}

#[test]
fn a_path_of_the_jobs_own_repository_is_a_rule_for_each_jobs_own() {
    let made = suggested([
        by_token(statement("GET", "github.test", "/acme/app.git/info/refs")),
        by_token(statement("POST", "github.test", "/acme/app.git/git-upload-pack")),
        by_token(statement("GET", "api.github.test", "/repos/acme/app/commits/0123456789abcdef0123")),
        by_token(statement("GET", "github.test", "/acme/tools.git/info/refs")),
    ]);
    let policy = loaded(&made);
    let of = |repository: &str, method: &str, authority: &str, path: &str| {
        let mut it = by_token(statement(method, authority, path));
        it.identity.as_mut().unwrap()["repository"] = repository.into();
        verdict(&policy, it).unwrap()
    };
    assert_eq!(of("acme/app", "GET", "github.test", "/acme/app.git/info/refs"), Verdict::Allow);
    assert_eq!(of("acme/web", "GET", "github.test", "/acme/web.git/info/refs"), Verdict::Allow);
    assert_eq!(of("acme/web", "GET", "github.test", "/acme/tools.git/info/refs"), Verdict::Allow);
    assert_eq!(of("acme/web", "GET", "api.github.test", "/repos/acme/web/commits/ff"), Verdict::Allow);
    assert_eq!(of("acme/web", "GET", "github.test", "/acme/app.git/info/refs"), Verdict::Deny);
    assert_eq!(of("acme/web", "POST", "github.test", "/acme/web.git/git-receive-pack"), Verdict::Deny);
    // Nobody's word counts but a token's.
    let nobody = statement("GET", "github.test", "/acme/app.git/info/refs");
    assert_eq!(verdict(&policy, nobody.clone()), Some(Verdict::Deny));
    let mut attested = by_token(nobody);
    attested.identity.as_mut().unwrap()["assurance"] = "attested".into();
    assert_eq!(verdict(&policy, attested), Some(Verdict::Deny));
    assert!(made.tests.contains("somebody-else/another"), "{}", made.tests);
}

#[test]
fn many_paths_of_an_own_repository_become_all_of_it_and_nothing_of_another() {
    use super::suggest::MAX_OWN;
    for (count, all) in [(MAX_OWN, false), (MAX_OWN + 1, true)] {
        let seen = (0..count).map(|n| by_token(statement("GET", "a.test", &format!("/acme/app/file-{n}"))));
        let made = suggested(seen);
        let ask = |path| verdict(&loaded(&made), by_token(statement("GET", "a.test", path))).unwrap();
        assert_eq!(ask("/acme/app/file-0"), Verdict::Allow, "{count}");
        assert_eq!(ask("/acme/app/another") == Verdict::Allow, all, "{count}: {}", made.policy);
        assert_eq!(ask("/acme/apple/file-0"), Verdict::Deny, "{count}");
    }
}

#[test]
fn what_goes_unread_goes_on_so_and_private_addresses_are_named() {
    let unread = Statement {
        verdict: "passthrough".to_owned(),
        protocol: "tls".to_owned(),
        request: None,
        ..statement("", "db.test:5432", "")
    };
    let near = Statement { destination: "10.1.2.3:443".parse().ok(), ..statement("GET", "in.test", "/") };
    let made = suggested([unread.clone(), near]);
    assert_eq!(verdict(&loaded(&made), unread), Some(Verdict::Passthrough), "{}", made.policy);
    assert!(made.policy.contains("addresses: [\"10.1.2.3\"]"), "{}", made.policy);
}

#[test]
fn nothing_comes_of_nothing_and_no_text_breaks_the_policy() {
    assert!(matches!(Suggestion::default().finish("x"), Err(SuggestError::Nothing(_))));
    let mut denied = statement("GET", "a.test", "/\n  - id: x");
    denied.verdict = "deny".to_owned();
    let made = suggested([
        denied,
        statement("GET", "a.test", "/it's%20\"quoted\"/*/x"),
        Statement { workload: "w\"\n".to_owned(), ..statement("M-SEARCH", "[2001:db8::1]:8443", "/a") },
    ]);
    assert_eq!(made.rules, loaded(&made).len());
}

#[test]
fn a_difference_is_told_with_both_rules_and_the_same_is_none() {
    let policy = Policy::from_text(
        "new.yaml",
        "version: 1\nname: new\nrules:\n  - id: no-admin\n    when: {path: /admin/**}\n    deny: no\n  \
         - id: web\n    when: {workload: {labels: {team: web}}, cel: '\"accept\" in http.headers'}\n    allow: true\n",
    )
    .unwrap();
    let mut changes = Changes::default();
    changes.add(&policy, statement("GET", "a.test", "/"));
    for n in 0..5 {
        changes.add(&policy, statement("GET", "a.test", &format!("/admin/{n}")));
    }
    // Its head was not recorded, since it did not go out.
    let mut denied = statement("GET", "a.test", "/");
    denied.request.as_mut().unwrap().headers = None;
    (denied.verdict, denied.reason) = ("deny".to_owned(), "policy-default-deny".to_owned());
    changes.add(&policy, denied);
    // It was refused when it connected: nobody knows what it would have been.
    let early =
        Statement { request: None, host: None, protocol: String::new(), ..statement("", "a.test", "") };
    changes.add(&policy, Statement { verdict: "deny".to_owned(), reason: "policy-deny".to_owned(), ..early });
    // The proxy's own word would be the same.
    changes.add(
        &policy,
        Statement { reason: "secret-in-path".to_owned(), ..statement("GET", "a.test", "/admin/1") },
    );
    let list = changes.list();
    assert_eq!((changes.statements, changes.untold, list.len()), (8, 2, 1));
    let json = serde_json::to_value(&list).unwrap();
    assert_eq!(json[0]["statements"], 5);
    assert_eq!(
        json[0]["becomes"],
        json!({"verdict": "deny", "rule": "new/no-admin", "reason": "policy-deny"})
    );
    assert_eq!(json[0]["examples"].as_array().unwrap().len(), 3);
    assert_eq!(json[0]["examples"][0]["what"], "GET https://a.test/admin/0");
}

#[test]
fn a_recorded_identity_is_read_back_whole() {
    let (claims, assurance) = identity(&serde_json::from_str(TOKEN).unwrap()).unwrap();
    assert_eq!(assurance, Assurance::Oidc);
    assert_eq!(claims.get(Field::Repository), Some("acme/app"));
    assert_eq!(claims.get(Field::RunAttempt), Some("1"));
    assert_eq!(claims.get(Field::Event), Some("push"));
    assert_eq!((claims.ref_protected, &*claims.groups), (Some(true), &["a".to_owned()][..]));
    assert!(identity(&json!({"assurance": "oidc", "provider": "nobody"})).is_none());
}

#[test]
fn what_depends_on_a_body_is_not_told() {
    let text = "version: 1\nname: p\nrules:\n  - {id: mail, when: {host: a.test, cel: '\"EMAIL\" in findings'}, deny: no}\n  \
                - {id: all, when: {host: [a.test, b.test]}, allow: true}\n";
    let policy = Policy::from_text("p.yaml", text).unwrap();
    assert_eq!(verdict(&policy, statement("POST", "a.test", "/")), None);
    assert_eq!(verdict(&policy, statement("POST", "b.test", "/")), Some(Verdict::Allow));
    assert_eq!(verdict(&policy, statement("POST", "c.test", "/")), Some(Verdict::Deny));
}
