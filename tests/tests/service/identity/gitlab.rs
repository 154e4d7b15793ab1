//! A GitLab job without a token for us: what GitLab's API says of its own one.

use super::*;

/// How such a job begins: GitLab's variables, with its token for GitLab itself.
const JOB: &str = "export GITLAB_CI=true CI_SERVER_URL=@SERVER CI_JOB_TOKEN=$CI_TOKEN CI_PROJECT_PATH=octo/other CI_JOB_ID=5;";

/// One path for jobs that a token shows, one for those of an API, too.
const LEVELS: &str = r#"
version: 1
name: test
rules:
  - {id: api, when: {host: upstream.test, path: /api, identity: {repository: octo/app, assurance: [api, oidc]}}, allow: true, addresses: [loopback]}
  - {id: own, when: {host: upstream.test, identity: {repository: octo/app}}, allow: true, addresses: [loopback]}
"#;

struct Lab(World);

impl Lab {
    fn new() -> Self {
        let mut world = World::with(LEVELS);
        world.service.stop_daemon().unwrap();
        let config = world.service.dir.path().join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        let lab = format!("profile = \"gitlab\"\njob_api = \"{}/api/v4\"", world.issuer.url);
        std::fs::write(&config, text.replace("profile = \"github\"", &lab)).unwrap();
        world.service.start_daemon().unwrap();
        Self(world)
    }

    fn job(&self, id: u64, project: &str) -> Value {
        json!({
            "id": id, "name": "build", "status": "running", "ref": "main", "tag": false,
            "web_url": format!("{}/{project}/-/jobs/{id}", self.0.issuer.url),
            "pipeline": {"id": 6, "project_id": 7, "ref": "main", "sha": "12ab", "source": "push"},
            "user": {"id": 3, "username": "mona"},
        })
    }

    fn says(&self, token: &str, script: &str) -> String {
        let job = JOB.replace("@SERVER", &self.0.issuer.url);
        self.0.job(token, &format!("{job} {script}"))
    }
}

#[test]
fn what_the_api_says_of_a_job_is_what_it_is() {
    let lab = Lab::new();
    lab.0.issuer.has_job("glcbt-one", lab.job(9, "octo/app"));
    let url = lab.0.url();
    let text = lab.says(
        "glcbt-one",
        &format!(
            "$E job start && $E job start && $E job ls --json; \
             for at in own api; do curl -sS -o /dev/null -w ' %{{http_code}}' {url}/$at; done"
        ),
    );
    for part in ["this job is known by `api`", "\"octo/app\"", "\"refs/heads/main\"", "\"mona\""] {
        assert!(text.contains(part), "{part} {text}");
    }
    // What the job says of itself is not asked.
    assert!(text.ends_with(" 403 200") && !text.contains("octo/other"), "{text}");
    assert!(!has(&lab.0.service.written().unwrap(), b"glcbt-one"), "the token stands in a file");
}

#[test]
fn a_token_that_is_not_the_jobs_own_or_that_nobody_knows_shows_nothing() {
    let lab = Lab::new();
    lab.0.issuer.has_job("glcbt-one", lab.job(9, "octo/app"));
    let first = lab.says("glcbt-one", "$E job start");
    assert!(first.contains("known by `api`"), "{first}");
    // Another job with it, also with another one for the same job.
    lab.0.issuer.has_job("glcbt-again", lab.job(9, "octo/app"));
    for token in ["glcbt-one", "glcbt-again"] {
        let text = lab.says(token, "$E job start; echo $?; $E job ls");
        assert!(text.contains("presented by another job") && text.contains("none"), "{text}");
    }
    // One that was known by a token for us, with its token for GitLab.
    lab.0.issuer.has_job("glcbt-signed", lab.job(11, "octo/app"));
    let mut claims = lab.0.claims();
    for (name, text) in
        [("project_path", "octo/app"), ("project_id", "7"), ("pipeline_id", "6"), ("job_id", "11")]
    {
        claims[name] = text.into();
    }
    (claims["user_login"], claims["jti"]) = ("mona".into(), "signed".into());
    let signed = lab.0.issuer.token(&claims);
    let text = lab.says(&signed, "$E job start --token-env CI_TOKEN");
    assert!(text.contains("known by `oidc`"), "{text}");
    let text = lab.says("glcbt-signed", "$E job start; $E job ls");
    assert!(text.contains("presented by another job") && text.contains("none"), "{text}");
    // Of another server; over; never there.
    let mut foreign = lab.job(10, "octo/app");
    foreign["web_url"] = "https://gitlab.example/octo/app/-/jobs/10".into();
    lab.0.issuer.has_job("glcbt-foreign", foreign);
    lab.0.issuer.has_job("glcbt-over", Value::Null);
    for (token, why) in [
        ("glcbt-foreign", "does not say whose job this is"),
        ("glcbt-over", "status 401"),
        ("glcbt-guess", "status 401"),
    ] {
        let text = lab.says(token, "$E job start; echo code $?; $E job ls");
        assert!(text.contains(why) && text.contains("code 1") && text.contains("none"), "{token} {text}");
    }
    // Nobody has the host ask for ever.
    let text = lab.says("glcbt-guess", "for i in 1 2 3 4 5 6 7 8 9 10 11; do $E job start; done");
    assert_eq!((text.matches("status 401").count(), text.matches("too often").count()), (10, 1), "{text}");
    // A server that the operator did not name is not asked: the job is what it says of itself.
    let text = lab.says("glcbt-one", "CI_SERVER_URL=https://gitlab.example $E job start");
    assert!(text.contains("known by `attested`"), "{text}");
}
