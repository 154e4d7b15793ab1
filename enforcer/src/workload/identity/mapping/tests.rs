use serde_json::json;

use super::super::IssuerConfig;
use super::Field as F;
use super::*;

fn issuer(of: Profile, settings: &Value) -> Trusted {
    let mut config = json!({
        "name": "test", "issuer": "https://issuer.test", "audience": "us", "profile": of,
    });
    for (key, value) in settings.as_object().into_iter().flatten() {
        config[key] = value.clone();
    }
    let issuer: IssuerConfig = serde_json::from_value(config).unwrap();
    let config = super::super::IdentityConfig { issuer: vec![issuer], ..Default::default() };
    config.compile().unwrap().remove(0)
}

fn mapped(of: Profile, settings: &Value, claims: &Value) -> Result<Claims, Refusal> {
    map(&issuer(of, settings), "subject", claims.as_object().unwrap())
}

/// As its documentation shows it.
fn github() -> Value {
    json!({
        "jti": "example-id", "sub": "repo:octo-org/octo-repo:environment:prod", "environment": "prod",
        "aud": "https://github.com/octo-org", "ref": "refs/heads/main", "ref_protected": "true",
        "sha": "0000000000000000000000000000000000000001", "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org", "actor_id": "12", "repository_visibility": "private",
        "repository_id": "74", "repository_owner_id": "65", "run_id": "1234567890", "run_number": "10",
        "run_attempt": "2", "runner_environment": "self-hosted", "actor": "octocat",
        "workflow": "example-workflow", "head_ref": "", "base_ref": "", "event_name": "workflow_dispatch",
        "ref_type": "branch", "check_run_id": "987",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "iss": "https://token.actions.githubusercontent.com",
    })
}

fn gitlab() -> Value {
    json!({
        "namespace_id": "72", "namespace_path": "my-group", "project_id": "20", "project_path": "my-group/my-project",
        "user_id": "1", "user_login": "sample-user", "user_email": "sample-user@example.com",
        "user_access_level": "developer", "groups_direct": ["mygroup/mysubgroup", "ops"], "pipeline_id": "574",
        "pipeline_source": "push", "job_id": "302", "ref": "feature-branch-1", "ref_type": "branch",
        "ref_path": "refs/heads/feature-branch-1", "ref_protected": "false",
        "environment": "test-environment2", "environment_protected": "false", "runner_id": 1,
        "runner_environment": "self-hosted", "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc",
        "ci_config_ref_uri": "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main",
    })
}

fn buildkite() -> Value {
    json!({
        "organization_slug": "acme-inc", "pipeline_slug": "super-duper-app", "build_number": 5,
        "build_branch": "main", "build_tag": null,
        "build_commit": "9f3182061f1e2cca4702c368cbc039b7dc9d4485", "step_key": null,
        "job_id": "01945ecf-80f0-41e8-9b83-a2970a9305a1", "agent_id": "01945ecf-8bcf-40a6-9d70-a765db9a0928",
        "build_source": "ui", "runner_environment": "self-hosted",
    })
}

fn forgejo() -> Value {
    json!({
        "actor": "mona", "base_ref": "", "event_name": "push", "head_ref": "", "ref": "refs/heads/main",
        "ref_protected": "false", "ref_type": "branch", "repository": "my-org/my-repo", "repository_id": "456789",
        "repository_owner": "my-org", "run_attempt": "1", "run_id": "42", "run_number": "7",
        "sha": "714a629c0b401fdce83e847fc9589983fc6f46bc", "workflow": "test.yml",
        "workflow_ref": "my-org/my-repo/.forgejo/workflows/test.yml@refs/heads/main",
    })
}

fn azure() -> Value {
    json!({
        "sub": "p://example/test-oidc/pipeline", "aud": "api://AzureADTokenExchange", "org_id": "o", "prj_id": "p",
        "def_id": "d", "rpo_id": "r", "rpo_uri": "https://dev.azure.com/example/test-oidc/_git/test-oidc",
        "rpo_ver": "714a629c0b401fdce83e847fc9589983fc6f46bc", "rpo_ref": "refs/heads/main", "run_id": "18",
    })
}

fn of(profile: Profile) -> Value {
    match profile {
        Profile::Github => github(),
        Profile::Gitlab => gitlab(),
        Profile::Buildkite => buildkite(),
        Profile::Forgejo => forgejo(),
        Profile::Azure => azure(),
        Profile::Generic => json!({}),
    }
}

const ALL: [Profile; 6] = [
    Profile::Github,
    Profile::Gitlab,
    Profile::Buildkite,
    Profile::Forgejo,
    Profile::Azure,
    Profile::Generic,
];

/// What is made of the samples.
const EXPECTED: [(Profile, &[(F, &str)]); 5] = [
    (
        Profile::Github,
        &[
            (F::Repository, "octo-org/octo-repo"),
            (F::RepositoryId, "74"),
            (F::Ref, "refs/heads/main"),
            (F::Sha, "0000000000000000000000000000000000000001"),
            (F::Workflow, "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main"),
            (F::Environment, "prod"),
            (F::Event, "workflow_dispatch"),
            (F::RunId, "1234567890"),
            (F::RunAttempt, "2"),
            (F::JobId, "987"),
            (F::Actor, "octocat"),
        ],
    ),
    (
        Profile::Gitlab,
        &[
            (F::Repository, "my-group/my-project"),
            (F::RepositoryId, "20"),
            (F::Ref, "refs/heads/feature-branch-1"),
            (F::Sha, "714a629c0b401fdce83e847fc9589983fc6f46bc"),
            (F::Workflow, "gitlab.example.com/my-group/my-project//.gitlab-ci.yml@refs/heads/main"),
            (F::Environment, "test-environment2"),
            (F::Event, "push"),
            (F::RunId, "574"),
            (F::JobId, "302"),
            (F::Actor, "sample-user"),
        ],
    ),
    (
        Profile::Buildkite,
        &[
            (F::Repository, "acme-inc/super-duper-app"),
            (F::Ref, "refs/heads/main"),
            (F::Sha, "9f3182061f1e2cca4702c368cbc039b7dc9d4485"),
            (F::Workflow, "super-duper-app"),
            (F::Event, "ui"),
            (F::RunId, "5"),
            (F::JobId, "01945ecf-80f0-41e8-9b83-a2970a9305a1"),
        ],
    ),
    (
        Profile::Forgejo,
        &[
            (F::Repository, "my-org/my-repo"),
            (F::RepositoryId, "456789"),
            (F::Ref, "refs/heads/main"),
            (F::Sha, "714a629c0b401fdce83e847fc9589983fc6f46bc"),
            (F::Workflow, "my-org/my-repo/.forgejo/workflows/test.yml@refs/heads/main"),
            (F::Event, "push"),
            (F::RunId, "42"),
            (F::RunAttempt, "1"),
            (F::Actor, "mona"),
        ],
    ),
    (
        Profile::Azure,
        &[
            (F::Repository, "https://dev.azure.com/example/test-oidc/_git/test-oidc"),
            (F::RepositoryId, "r"),
            (F::Ref, "refs/heads/main"),
            (F::Sha, "714a629c0b401fdce83e847fc9589983fc6f46bc"),
            (F::Workflow, "p://example/test-oidc/pipeline"),
            (F::RunId, "18"),
        ],
    ),
];

#[test]
fn each_providers_claims_become_ours() {
    for (profile, texts) in EXPECTED {
        let claims = mapped(profile, &json!({}), &of(profile)).unwrap();
        let got: Vec<_> = claims.texts.iter().map(|(field, text)| (*field, text.as_str())).collect();
        assert_eq!(got, texts, "{profile:?}");
        assert_eq!((claims.provider, claims.issuer.as_str()), (profile, "https://issuer.test"));
    }
    assert_eq!(mapped(Profile::Github, &json!({}), &github()).unwrap().ref_protected, Some(true));
    let claims = mapped(Profile::Gitlab, &json!({}), &gitlab()).unwrap();
    assert_eq!((claims.ref_protected, claims.groups.len()), (Some(false), 2));
    assert_eq!(mapped(Profile::Azure, &json!({}), &azure()).unwrap().ref_protected, None);
}

/// What stands in the profiles is what is meant: a typing error in one would leave a field out.
#[test]
fn every_expression_of_a_profile_is_read() {
    for of in ALL {
        assert_eq!(Mapping::of(of).0.len(), profile(of).len(), "{of:?}");
    }
}

#[test]
fn a_build_of_a_tag_is_no_build_of_a_branch() {
    let mut claims = buildkite();
    claims["build_tag"] = "v1".into();
    let claims = mapped(Profile::Buildkite, &json!({}), &claims).unwrap();
    assert_eq!(claims.get(Field::Ref), Some("refs/tags/v1"));
}

#[test]
fn a_claim_that_must_be_there_or_is_something_else_refuses_the_token() {
    for of_profile in ALL {
        for (field, expression) in &Mapping::of(of_profile).0 {
            // Each of the claims that it is made of.
            let names = expression.alternatives.iter().flatten().filter_map(|part| match part {
                Part::Claim(name) => Some(name.as_str()),
                Part::Text(_) => None,
            });
            for name in names.clone() {
                for wrong in [json!([[]]), json!({"a": 1}), json!(-1), json!(1.5), json!([1])] {
                    let mut claims = of(of_profile);
                    claims[name] = wrong.clone();
                    // Another alternative that is there goes first.
                    let read = mapped(of_profile, &json!({}), &of(of_profile)).unwrap();
                    let got = mapped(of_profile, &json!({}), &claims);
                    assert!(
                        got.is_err() || got == Ok(read),
                        "{of_profile:?} {field:?} {name} {wrong}: {got:?}"
                    );
                }
            }
            let mut claims = of(of_profile);
            names.for_each(|name| drop(claims.as_object_mut().unwrap().remove(name)));
            let got = mapped(of_profile, &json!({}), &claims);
            assert_eq!(got.is_ok(), expression.optional, "{of_profile:?} {field:?}: {got:?}");
        }
    }
    let mut claims = github();
    claims["repository"] = json!(["octo-org/octo-repo"]);
    let refusal = mapped(Profile::Github, &json!({}), &claims).unwrap_err();
    assert_eq!(refusal, Refusal::claim("repository", "is no text"));
    claims["repository"] = json!("");
    let refusal = mapped(Profile::Github, &json!({}), &claims).unwrap_err();
    assert_eq!(refusal, Refusal::Unmapped { field: "repository" });
}

#[test]
fn other_issuers_are_read_as_the_operator_says() {
    let settings = json!({
        "claims": {"repository": "project", "actor": "act.name", "groups": "realm_access.roles", "job_id": "job?"},
        "roles": {"deployer": ["ops", "leads"], "viewer": ["ops"]},
        "require": {"tenant": ["acme"]},
    });
    let claims = json!({
        "project": "a/b", "act": {"name": "mona"}, "realm_access": {"roles": ["ops", "else"]}, "tenant": "acme",
    });
    let got = mapped(Profile::Generic, &settings, &claims).unwrap();
    assert_eq!((got.get(Field::Repository), got.get(Field::Actor)), (Some("a/b"), Some("mona")));
    assert_eq!(
        (got.groups, got.roles),
        (vec!["ops".to_owned(), "else".to_owned()], vec!["deployer".to_owned(), "viewer".to_owned()])
    );
    for (name, value) in [("tenant", json!("acme2")), ("tenant", json!(null)), ("project", json!(null))] {
        let mut claims = claims.clone();
        claims[name] = value;
        mapped(Profile::Generic, &settings, &claims).unwrap_err();
    }
    // One whose name has dots in it goes first.
    let settings = json!({"claims": {"groups": "https://a.test/groups"}});
    let got = mapped(Profile::Generic, &settings, &json!({"https://a.test/groups": ["x"]})).unwrap();
    assert_eq!(got.groups, ["x"]);
}

#[test]
fn a_text_and_a_list_have_an_end() {
    let claims = |length| json!({"p": "x".repeat(length)});
    let settings = json!({"claims": {"repository": "p"}});
    mapped(Profile::Generic, &settings, &claims(MAX_TEXT)).unwrap();
    mapped(Profile::Generic, &settings, &claims(MAX_TEXT + 1)).unwrap_err();
    let groups = |count| json!({"groups": vec!["g"; count]});
    assert_eq!(mapped(Profile::Generic, &json!({}), &groups(MAX_GROUPS)).unwrap().groups.len(), MAX_GROUPS);
    mapped(Profile::Generic, &json!({}), &groups(MAX_GROUPS + 1)).unwrap_err();
    mapped(Profile::Generic, &json!({}), &json!({"groups": ["x".repeat(MAX_TEXT + 1)]})).unwrap_err();
    map(&issuer(Profile::Generic, &json!({})), &"s".repeat(MAX_TEXT + 1), &Map::new()).unwrap_err();
}

#[test]
fn an_expression_that_is_none_is_said() {
    for wrong in ["", "?", "a|", "|a", "{", "}", "{}", "a}{b", "{a", "{{a}}"] {
        Expression::parse(wrong).unwrap_err();
    }
    for right in ["a", "a.b", "a|b?", "{a}/{b}", "x/{a}", "{a}x"] {
        Expression::parse(right).unwrap();
    }
}
