//! What conditions on an identity hold for, whoever says it.

use std::collections::BTreeMap;

use super::super::{Fact, Facts, Policy, Stage, Verdict, WorkloadFacts};
use super::*;

fn claims() -> Claims {
    let texts = [
        (Field::Repository, "octo/app"),
        (Field::RepositoryId, "7"),
        (Field::Ref, "refs/heads/main"),
        (Field::Sha, "1234"),
        (Field::Workflow, "octo/app/.github/workflows/build.yml@refs/heads/main"),
        (Field::Event, "push"),
        (Field::RunId, "42"),
        (Field::RunAttempt, "1"),
        (Field::JobId, "77"),
        (Field::Actor, "mona"),
    ];
    Claims {
        provider: Profile::Github,
        issuer: "https://issuer.test".to_owned(),
        subject: "repo:octo/app".to_owned(),
        texts: texts.map(|(field, text)| (field, text.to_owned())).into(),
        ref_protected: Some(true),
        groups: vec!["/org/build".to_owned(), "staff".to_owned()],
        roles: vec!["deployer".to_owned()],
    }
}

fn policy(when: &str, effect: &str) -> Result<Policy, String> {
    let text = format!("version: 1\nname: p\nrules:\n  - id: r\n    when:\n      {when}\n    {effect}\n");
    Policy::from_text("p.yaml", &text).map_err(|error| format!("{:?}", error.findings()))
}

/// For a rule that allows, and for one that denies.
fn both(when: &str, identity: Fact<IdentityFacts<'_>>) -> (Tri, Tri) {
    let workload = WorkloadFacts::default();
    let facts = Facts { identity, ..Facts::new(&workload, Stage::Http) };
    let matches = |effect| {
        let policy = policy(when, effect).unwrap_or_else(|error| panic!("{when}: {error}"));
        policy.explain(&facts).steps[0].matches
    };
    (matches("allow: true"), matches("deny: no"))
}

const YES: (Tri, Tri) = (Tri::Yes, Tri::Yes);
const NO: (Tri, Tri) = (Tri::No, Tri::No);
const MAYBE: (Tri, Tri) = (Tri::Maybe, Tri::Maybe);
const MISSING: (Tri, Tri) = (Tri::No, Tri::Yes);

fn known(claims: &Claims, assurance: Assurance) -> Fact<IdentityFacts<'_>> {
    Fact::Known(IdentityFacts { claims, assurance })
}

/// What holds for the job above, and the same with a slip in it.
const CONDITIONS: [(&str, &str, &str); 14] = [
    ("provider", "github", "gitlab"),
    ("provider", "[gitlab, github]", "[gitlab, azure]"),
    ("issuer", "https://issuer.test", "https://issuer.test.evil"),
    ("subject", "'repo:**'", "'repo:*/*/*'"),
    ("repository", "octo/app", "octo/app2"),
    ("repository", "[evil/app, 'octo/*']", "'octo*'"),
    ("repository_id", "'7'", "'77'"),
    ("ref", "refs/heads/*", "refs/tags/*"),
    ("protected", "true", "false"),
    ("event", "[push, schedule]", "pull_request"),
    (
        "workflow",
        "octo/app/.github/workflows/build.yml@refs/heads/main",
        "octo/app/.github/workflows/build.yml",
    ),
    ("actor", "mona", "Mona"),
    ("groups", "[admins, '/org/*']", "admins"),
    ("roles", "deploy*", "deploy"),
];

#[test]
fn a_condition_holds_for_what_a_token_shows() {
    let claims = claims();
    let oidc = known(&claims, Assurance::Oidc);
    for (name, right, wrong) in CONDITIONS {
        assert_eq!(both(&format!("identity: {{{name}: {right}}}"), oidc), YES, "{name}: {right}");
        assert_eq!(both(&format!("identity: {{{name}: {wrong}}}"), oidc), NO, "{name}: {wrong}");
    }
    let all: Vec<_> = CONDITIONS.iter().map(|(name, right, _)| ((*name).to_owned(), *right)).collect();
    let all: BTreeMap<_, _> = all.into_iter().collect();
    let all: Vec<_> = all.iter().map(|(name, right)| format!("{name}: {right}")).collect();
    assert_eq!(both(&format!("identity: {{{}}}", all.join(", ")), oidc), YES);
    // What the token does not say is missing, unless another part is wrong.
    assert_eq!(both("identity: {environment: prod}", oidc), MISSING);
    assert_eq!(both("identity: {environment: prod, repository: octo/app}", oidc), MISSING);
    assert_eq!(both("identity: {environment: prod, repository: octo/other}", oidc), NO);
    let unsaid = Claims { ref_protected: None, groups: Vec::new(), ..claims.clone() };
    assert_eq!(both("identity: {protected: false}", known(&unsaid, Assurance::Oidc)), MISSING);
    assert_eq!(both("identity: {groups: '**'}", known(&unsaid, Assurance::Oidc)), NO);
}

#[test]
fn what_no_token_shows_counts_only_where_the_condition_says_so() {
    let claims = claims();
    let (oidc, nobody) = (known(&claims, Assurance::Oidc), Fact::Absent);
    for (name, right, wrong) in CONDITIONS {
        let when = format!("identity: {{{name}: {right}}}");
        assert_eq!(both(&when, nobody), MISSING, "{when}");
        assert_eq!(both(&when, Fact::Unknown), MAYBE, "{when}");
        for assurance in [Assurance::Attested, Assurance::Api] {
            let said = known(&claims, assurance);
            assert_eq!(both(&when, said), MISSING, "{when} {assurance}");
            let named = format!("identity: {{{name}: {right}, assurance: [oidc, {assurance}]}}");
            assert_eq!(both(&named, said), YES, "{named}");
            assert_eq!(both(&named, oidc), YES, "{named}");
            assert_eq!(both(&named, nobody), NO, "{named}");
            let wrong = format!("identity: {{{name}: {wrong}, assurance: {assurance}}}");
            assert_eq!(both(&wrong, said), NO, "{wrong}");
            assert_eq!(both(&wrong, oidc), NO, "{wrong}");
        }
    }
    for (assurance, identity) in [
        (Assurance::None, nobody),
        (Assurance::Attested, known(&claims, Assurance::Attested)),
        (Assurance::Api, known(&claims, Assurance::Api)),
        (Assurance::Oidc, oidc),
    ] {
        for wanted in Assurance::ALL {
            let when = format!("identity: {{assurance: {wanted}}}");
            assert_eq!(
                both(&when, identity),
                if wanted == assurance { YES } else { NO },
                "{when} {assurance}"
            );
        }
    }
    // What is only masked or watched is so in doubt, too.
    let watched = policy("identity: {repository: x/y}", "observe: true").unwrap();
    assert!(watched.decide(&Facts::new(&WorkloadFacts::default(), Stage::Http)).observe);
}

/// The same conditions as expressions, with the fact and how it is asked for.
const EXPRESSIONS: [(&str, &str); 18] = [
    ("provider", r#"identity.provider == "github""#),
    ("issuer", r#"identity.issuer == "https://issuer.test""#),
    ("subject", r#"identity.subject.startsWith("repo:")"#),
    ("repository", r#"identity.repository in ["octo/app", "octo/lib"]"#),
    ("repository", r#"identity.repository.split("/")[0] == "octo""#),
    ("repository_id", r#"int(identity.repository_id) == 7"#),
    ("ref", r#"identity.ref.matches("^refs/heads/")"#),
    ("protected", "identity.protected"),
    ("sha", r#"identity.sha == "1234""#),
    ("workflow", r#"identity.workflow.endsWith("@" + identity.ref)"#),
    ("event", r#"identity.event != "pull_request""#),
    ("run_id", r#"identity.run_id == "42""#),
    ("attempt", r#"identity.attempt == "1""#),
    ("job_id", r#"identity.job_id == "77""#),
    ("actor", r#"!(identity.actor == "bot")"#),
    ("groups", r#""staff" in identity.groups && identity.groups.size() == 2"#),
    ("groups", r#"identity.groups.exists(g, g.startsWith("/org/")) && identity.groups[1] == "staff""#),
    ("roles", r#"identity.roles == ["deployer"]"#),
];

#[test]
fn expressions_see_the_same() {
    let claims = claims();
    let (oidc, said) = (known(&claims, Assurance::Oidc), known(&claims, Assurance::Attested));
    let cel = |text: &str, identity| both(&format!("cel: >-\n        {text}"), identity);
    for (fact, text) in EXPRESSIONS {
        assert_eq!(cel(text, oidc), YES, "{text}");
        for missing in [said, Fact::Absent] {
            assert_eq!(cel(text, missing), MISSING, "{text}");
            assert_eq!(cel(&format!("!({text})"), missing), MISSING, "{text}");
            assert_eq!(cel(&format!("has(identity.{fact})"), missing), NO, "{fact}");
        }
        assert_eq!(cel(text, Fact::Unknown), MAYBE, "{text}");
        let named = format!(r#"identity.assurance != "none" && ({text})"#);
        assert_eq!(cel(&named, said), YES, "{named}");
        assert_eq!(cel(&named, Fact::Absent), NO, "{named}");
        assert_eq!(cel(&format!(r#"identity.assurance == "oidc" && ({text})"#), said), NO, "{text}");
    }
    assert_eq!(cel(r#"identity.environment == "prod""#, oidc), MISSING);
    assert_eq!(cel("has(identity.environment)", oidc), NO);
    assert_eq!(cel(r#"identity.assurance == "none""#, Fact::Absent), YES);
    assert_eq!(cel("has(identity.assurance)", Fact::Absent), YES);
    // What stands elsewhere in the rule says nothing about the expression, nor the other way round.
    let when = |when: &str| both(when, said);
    assert_eq!(when("identity: {assurance: attested}\n      cel: identity.actor == 'mona'"), MISSING);
    assert_eq!(when("identity: {actor: mona}\n      cel: identity.assurance == 'attested'"), MISSING);
}

#[test]
fn what_an_identity_never_is_does_not_load_and_names_that_are_near_are_told() {
    let mut wrong = Vec::new();
    for (when, line, column, message, help) in [
        ("identity: {}", 6, 17, "asks for nothing", "assurance: oidc"),
        ("identity:", 6, 15, "asks for nothing", ""),
        ("identity: {repository: }", 6, 18, "", ""),
        ("identity: {repository: []}", 6, 30, "between 1", ""),
        ("identity: {repository: 'a?b'}", 6, 30, "has no meaning in a glob", ""),
        ("identity: {protected: maybe}", 6, 29, "", ""),
        ("identity: {assurance: [none], actor: mona}", 6, 17, "nothing else is known", "another assurance"),
        ("identity: {assurance: oicd}", 6, 18, "oicd", "did you mean `oidc`?"),
        ("identity: {provider: guthub}", 6, 18, "guthub", "did you mean `github`?"),
        ("identity: {repositry: a/b}", 6, 18, "repositry", "did you mean `repository`?"),
        ("identity: {ref_protected: true}", 6, 18, "ref_protected", "did you mean `protected`?"),
        ("identiti: {repository: a/b}", 6, 7, "identiti", "did you mean `identity`?"),
        (
            "cel: identity.repositry == 'a'",
            6,
            12,
            "identity.repositry",
            "did you mean `identity.repository`?",
        ),
        ("cel: identity.run_attempt == '1'", 6, 12, "run_attempt", "did you mean `identity.attempt`?"),
        ("cel: identty.ref == 'x'", 6, 12, "identty", "did you mean `identity`?"),
        ("cel: identity == 'x'", 6, 12, "group of facts", "assurance, provider"),
        ("cel: identity.assurance == 'OIDC'", 6, 34, "never", "none, attested, api, oidc"),
        ("cel: identity.provider in ['github', 'x']", 6, 33, "never", "github, gitlab"),
        ("cel: identity.protected == 'true'", 6, 12, "cannot be compared", ""),
        ("cel: identity.groups == 'a'", 6, 12, "list of texts", "exists"),
        ("cel: identity.run_id == 42", 6, 12, "cannot be compared", ""),
    ] {
        let text =
            format!("version: 1\nname: p\nrules:\n  - id: r\n    when:\n      {when}\n    allow: true\n");
        let error = Policy::from_text("p.yaml", &text).expect_err(when);
        let found = &error.findings()[0];
        let told =
            found.message.contains(message) && found.help.as_deref().unwrap_or_default().contains(help);
        if !told || (found.line, found.column) != (line, column) {
            wrong.push(format!("{when}: {found} ({:?})", found.help));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let opens = policy("identity: {repository: a/b}", "addresses: [private]");
    assert!(opens.unwrap_err().contains("need `allow: true`"));
}

#[test]
fn an_expression_says_why_it_does_not_see_who_the_job_is() {
    let claims = claims();
    let workload = WorkloadFacts::default();
    let policy = policy("cel: identity.actor == 'mona'", "allow: true").unwrap();
    let step = |identity| {
        let trace = policy.explain(&Facts { identity, ..Facts::new(&workload, Stage::Http) });
        (trace.decision.verdict, trace.steps[0].assurance, trace.steps[0].detail.clone().unwrap_or_default())
    };
    let (verdict, assurance, detail) = step(known(&claims, Assurance::Attested));
    assert_eq!((verdict, assurance), (Verdict::Deny, Some(Assurance::Attested)));
    assert!(detail.contains("known by `attested` alone"), "{detail}");
    let (verdict, assurance, detail) = step(Fact::Absent);
    assert_eq!((verdict, assurance), (Verdict::Deny, Some(Assurance::None)));
    assert!(detail.contains("there is no `identity.actor`"), "{detail}");
    assert_eq!(step(known(&claims, Assurance::Oidc)), (Verdict::Allow, Some(Assurance::Oidc), String::new()));
}

#[test]
fn before_a_request_it_is_known_who_the_job_is_and_whether_that_could_matter() {
    let text = "version: 1\nname: p\nrules:\n  - {id: a, when: {host: a.test, identity: {repository: octo/app}}, allow: true}\n  \
                - {id: b, when: {host: b.test}, allow: true}\n  \
                - {id: c, when: {host: c.test, identity: {repository: octo/app}}, passthrough: true}\n";
    let policy = Policy::from_text("p.yaml", text).unwrap();
    let claims = claims();
    let workload = WorkloadFacts::default();
    let at = |host, identity| {
        let facts = Facts { host: Fact::Known(host), identity, ..Facts::new(&workload, Stage::Tls) };
        (policy.feasible(&facts).is_possible(), policy.decide(&facts).verdict)
    };
    let (oidc, said) = (known(&claims, Assurance::Oidc), known(&claims, Assurance::Attested));
    assert!(at("a.test", oidc).0 && at("b.test", Fact::Absent).0);
    for nobody in [Fact::Absent, said] {
        assert_eq!(at("a.test", nobody), (false, Verdict::Deny));
        assert_eq!(at("c.test", nobody), (false, Verdict::Deny));
    }
    assert!(at("a.test", Fact::Unknown).0 && !at("x.test", Fact::Unknown).0);
    assert_eq!(at("c.test", Fact::Unknown).1, Verdict::Deny);
}
