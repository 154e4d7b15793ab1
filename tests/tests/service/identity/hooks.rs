//! Hooks of runners, called as the runners call them, in a scope.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::wait::until_said;
use serde_json::json;

use super::{World, said};

const HOOKS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../enforcer/dist/hooks");
const POLICY: &str = r#"
version: 1
name: test
rules:
  - {id: tokens, when: {host: issuer.test, path: /job-token}, allow: true, addresses: [loopback]}
"#;

struct Runner {
    world: World,
    cgroup: Cgroup,
    _ci: Cgroup,
}

impl Runner {
    fn new() -> Self {
        let world = World::with(POLICY);
        let mut claims = world.claims();
        claims.as_object_mut().unwrap().remove("aud");
        world.issuer.gives("of-the-runner", claims);
        let ci = world.service.cgroup.child("ci").unwrap();
        let added = world.service.output(&["scope", "add", "ci", "--cgroup", "/ci/runner-*"]).unwrap();
        assert!(added.status.success(), "{}", said(&added));
        let cgroup = ci.child("runner-1").unwrap();
        until_said("assurance", || world.in_cgroup(cgroup.path(), "", "$E job ls"));
        Self { world, cgroup, _ci: ci }
    }

    /// What the hooks find in every environment.
    fn environment(&self) -> String {
        let program = PathBuf::from(self.world.service.command(&[]).unwrap().get_program());
        let dir = self.world.service.dir.path();
        // As if it were the host's own, with its own configuration.
        let installed = dir.join("enforcer");
        let config = dir.join("config.toml");
        let text = format!("#!/bin/sh\nexec {} --config {} \"$@\"\n", program.display(), config.display());
        std::fs::write(&installed, text).unwrap();
        std::fs::set_permissions(&installed, PermissionsExt::from_mode(0o755)).unwrap();
        format!(
            "export PATH=\"$PATH:{}\" SSL_CERT_FILE={}/run/trust/current/bundle.pem; H={HOOKS}; ",
            dir.display(),
            dir.display()
        )
    }

    /// What a script says that the runner runs.
    fn says(&self, token: &str, script: &str) -> String {
        self.world.in_cgroup(self.cgroup.path(), token, &(self.environment() + script))
    }

    /// The levels of assurance that were shown, one after the other.
    fn levels(&self, token: &str, script: &str) -> Vec<String> {
        let text = self.says(token, &script.replace("@SHOW", "enforcer job ls | grep assurance"));
        let shown = text.lines().filter(|line| line.starts_with("assurance"));
        let levels: Vec<String> =
            shown.filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect();
        // Told with a test that fails.
        eprintln!("{text}");
        levels
    }
}

#[test]
fn of_github_a_job_is_known_from_its_hook_to_its_hook_and_is_never_the_one_before() {
    let runner = Runner::new();
    let ask = format!(
        "export GITHUB_ACTIONS=true GITHUB_REPOSITORY=octo/other ACTIONS_ID_TOKEN_REQUEST_TOKEN=of-the-runner \
         ACTIONS_ID_TOKEN_REQUEST_URL={}/job-token?version=1;",
        runner.world.issuer.url
    );
    let started = "bash -e $H/github-started.sh >/dev/null 2>&1;";
    let completed = "bash -e $H/github-completed.sh >/dev/null 2>&1;";
    assert_eq!(
        runner.levels("", &format!("{ask} @SHOW; {started} @SHOW; {completed} @SHOW")),
        ["none", "oidc", "none"]
    );
    // A job that was cut off has said nothing at its end.
    let next = format!(
        "{ask} {started} @SHOW; unset ACTIONS_ID_TOKEN_REQUEST_TOKEN; {started} @SHOW; {completed} @SHOW"
    );
    assert_eq!(runner.levels("", &next), ["oidc", "attested", "none"]);
}

#[test]
fn of_gitlab_each_stage_is_the_job_s_own() {
    let runner = Runner::new();
    let token = runner.world.token();
    let job = "export GITLAB_CI=true CI_JOB_ID=1 ENFORCER_ID_TOKEN=$CI_TOKEN;";
    let stages =
        "$H/gitlab/pre-get-sources >/dev/null 2>&1; @SHOW; $H/gitlab/pre-build >/dev/null 2>&1; @SHOW;";
    let next = "unset ENFORCER_ID_TOKEN; $H/gitlab/pre-get-sources >/dev/null 2>&1; @SHOW";
    assert_eq!(runner.levels(&token, &format!("{job} {stages} {next}")), ["oidc", "oidc", "attested"]);
}

/// GitLab calls no hook at a job's end, and the first one only where there are sources to fetch.
#[test]
fn of_gitlab_a_job_without_sources_is_never_the_one_before() {
    let runner = Runner::new();
    let token = |jti: &str, repository: &str| {
        let mut claims = runner.world.claims();
        (claims["repository"], claims["jti"]) = (repository.into(), jti.into());
        runner.world.issuer.token(&claims)
    };
    let other = token("other", "octo/other");
    let job = "export GITLAB_CI=true CI_JOB_ID=1 ENFORCER_ID_TOKEN=$CI_TOKEN;";
    let first = "$H/gitlab/pre-get-sources >/dev/null 2>&1; $H/gitlab/pre-build >/dev/null 2>&1; @SHOW;";
    let script = |next: &str| format!("{job} {first} {next} $H/gitlab/pre-build >/dev/null 2>&1; @SHOW");
    let without = script("unset ENFORCER_ID_TOKEN; export CI_JOB_ID=2;");
    assert_eq!(runner.levels(&token("one", "octo/app"), &without), ["oidc", "attested"]);
    let text = runner.says(
        &token("two", "octo/app"),
        &(script(&format!("export ENFORCER_ID_TOKEN={other} CI_JOB_ID=3;"))
            .replace("@SHOW", "enforcer job ls")),
    );
    let shown: Vec<&str> = text.lines().filter(|line| line.starts_with("repository ")).collect();
    assert!(shown.len() == 2 && shown[0].ends_with("octo/app") && shown[1].ends_with("octo/other"), "{text}");
    // What a job sets does not lead the hook astray.
    let astray = "export ENFORCER_CONFIG=/nonexistent; unset ENFORCER_ID_TOKEN;";
    assert_eq!(runner.levels(&token("three", "octo/app"), &script(astray)), ["oidc", "attested"]);
}

/// Where it cannot be said that the job before is over, the next one would be that one.
#[test]
fn a_job_that_would_be_taken_for_the_one_before_does_not_begin() {
    let mut runner = Runner::new();
    runner.world.service.stop_daemon().unwrap();
    let text = runner.says("", "export GITHUB_ACTIONS=true; bash -e $H/github-started.sh; echo code $?");
    assert!(text.contains("would be taken for the one before") && text.contains("code 1"), "{text}");
    runner.world.service.start_daemon().unwrap();
}

#[test]
fn of_a_custom_executor_a_job_is_known_from_prepare_to_cleanup() {
    let runner = Runner::new();
    let dir = runner.world.service.dir.path().to_owned();
    std::fs::write(dir.join("good"), "enforcer job ls\n").unwrap();
    std::fs::write(dir.join("bad"), "exit 3\n").unwrap();
    let evil = format!("$(touch {0}/evil)`touch {0}/evil`\"; touch {0}/evil; \"", dir.display());
    std::fs::write(dir.join("evil-name"), &evil).unwrap();
    let script = format!(
        "export CUSTOM_ENV_GITLAB_CI=true CUSTOM_ENV_ENFORCER_ID_TOKEN=$CI_TOKEN BUILD_FAILURE_EXIT_CODE=42 \
         SYSTEM_FAILURE_EXIT_CODE=43; CUSTOM_ENV_CI_COMMIT_REF_NAME=$(cat {0}/evil-name); \
         export CUSTOM_ENV_CI_COMMIT_REF_NAME; \
         $H/gitlab/prepare >/dev/null 2>&1; $H/gitlab/run {0}/good build_script | grep assurance; \
         $H/gitlab/run {0}/bad step_script; echo \"code $?\"; $H/gitlab/cleanup; @SHOW; \
         unset CUSTOM_ENV_ENFORCER_ID_TOKEN; $H/gitlab/prepare; enforcer job ls",
        dir.display()
    );
    let text =
        runner.says(&runner.world.token(), &script.replace("@SHOW", "enforcer job ls | grep assurance"));
    assert!(
        text.contains("assurance     oidc\ncode 42\n") && text.contains("assurance     none\n"),
        "{text}"
    );
    assert!(text.contains("ref           $(touch"), "{text}");
    assert!(!dir.join("evil").exists());
}

#[test]
fn of_buildkite_the_agent_s_shell_goes_on() {
    let runner = Runner::new();
    let dir = runner.world.service.dir.path().to_owned();
    // The agent itself is not here: it prints a token to whoever asks in a job.
    let agent = dir.join("buildkite-agent");
    std::fs::write(&agent, "#!/bin/sh\nprintf '%s\\n' \"$CI_TOKEN\"\n").unwrap();
    let hook = |name: &str| {
        let text = std::fs::read_to_string(Path::new(HOOKS).join("buildkite").join(name)).unwrap();
        assert!(text.contains("/usr/lib/enforcer/hooks/job.sh"), "{text}");
        let path = dir.join(name);
        std::fs::write(&path, text.replace("/usr/lib/enforcer/hooks", HOOKS)).unwrap();
        path.display().to_string()
    };
    let (environment, exit) = (hook("environment"), hook("pre-exit"));
    let script = format!(
        "chmod 755 {}; export BUILDKITE=true BUILDKITE_JOB_ID=7 ENFORCER_AUDIENCE=https://enforcer.test; \
         bash -c 'set -e; . {environment}; echo on' 2>/dev/null | grep -c '^on$'; @SHOW; bash -c 'set -e; . {exit}; echo on' >/dev/null 2>&1; @SHOW",
        agent.display()
    );
    assert_eq!(runner.levels(&runner.world.token(), &script), ["oidc", "none"]);
}

#[test]
fn where_nothing_can_be_told_the_job_goes_on_and_its_log_says_why() {
    let runner = Runner::new();
    let outside = |script: &str| {
        let script = runner.environment() + "export GITHUB_ACTIONS=true; " + script;
        said(&Command::new("sh").args(["-c", &format!("exec 2>&1; {script}")]).output().unwrap())
    };
    let text = outside("bash -e $H/github-started.sh; echo code $?");
    for part in ["in no tagged cgroup", "nobody knows whose job this is", "enforcer scope ls", "code 0"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let text = outside("ENFORCER_HOOK_REQUIRED=1 bash -e $H/github-started.sh; echo code $?");
    assert!(text.contains("nobody knows whose") && text.contains("code 1"), "{text}");
    let text =
        outside("SYSTEM_FAILURE_EXIT_CODE=43 ENFORCER_HOOK_REQUIRED=1 $H/gitlab/prepare; echo code $?");
    assert!(text.contains("code 43"), "{text}");
    let text = outside("bash -e $H/github-completed.sh; echo code $?");
    assert!(text.contains("hook that begins the next job") && text.contains("code 0"), "{text}");
    let text = outside("PATH=/bin; $H/job.sh begin github; echo code $?");
    assert!(text.contains("is not installed") && text.contains("code 0"), "{text}");
    let text = outside("$H/job.sh whatever; echo code $?");
    assert!(text.contains("begin|end") && text.contains("code 2"), "{text}");
    // A token that is not taken leaves nothing of whoever was here before.
    let mut claims = runner.world.claims();
    claims["exp"] = json!(1000);
    let bad = runner.world.issuer.token(&claims);
    let script = format!(
        "export GITLAB_CI=true ENFORCER_ID_TOKEN=$CI_TOKEN; $H/gitlab/pre-get-sources >/dev/null 2>&1; @SHOW; \
         ENFORCER_ID_TOKEN={bad} $H/gitlab/pre-get-sources; @SHOW"
    );
    assert_eq!(runner.levels(&runner.world.token(), &script), ["oidc", "none"]);
}

#[test]
fn a_job_is_known_before_its_first_process_and_one_whose_token_is_refused_does_not_begin() {
    let world = World::with(POLICY);
    let (dir, token) = (world.service.dir.path(), world.token());
    let run = |ci: &str, variables: &[(&str, &str)]| {
        let script = format!("touch {}/began; {} job ls", dir.display(), world.inside());
        let mut command =
            world.service.command(&["run", "--quiet", "--ci", ci, "--", "sh", "-c", &script]).unwrap();
        for name in ["GITHUB_ACTIONS", "GITLAB_CI", "BUILDKITE", "TF_BUILD", "FORGEJO_ACTIONS"] {
            command.env_remove(name);
        }
        let out = command.envs(variables.iter().copied()).output().unwrap();
        let began = std::fs::remove_file(dir.join("began")).is_ok();
        (said(&out), out.status.code(), began)
    };
    let gitlab =
        [("GITLAB_CI", "true"), ("CI_PROJECT_PATH", "octo/app"), ("ENFORCER_ID_TOKEN", token.as_str())];
    let (text, code, began) = run("auto", &gitlab);
    assert!(text.contains("assurance     oidc") && text.contains("octo/app") && began, "{text}");
    assert_eq!(code, Some(0));
    // It is that job's, whatever comes after it.
    let (text, code, began) = run("auto", &gitlab);
    assert!(text.contains("presented by another job") && !began, "{text}");
    assert_eq!(code, Some(125));
    let (text, _, began) = run("gitlab", &gitlab[..2]);
    assert!(text.contains("id_tokens") && text.contains("assurance     attested") && began, "{text}");
    let (text, code, began) = run("auto", &[]);
    assert!(text.contains("no CI system is seen here") && !began, "{text}");
    assert_eq!(code, Some(125));
}
