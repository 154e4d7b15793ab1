//! Policies of organizations and repositories, for jobs that show whose they are.

use super::*;

/// The host leaves one folder to repositories, and allows another.
const HOST: &str = r#"
version: 1
name: host
rules:
  - {id: open, when: {host: upstream.test, path: /open/**}, allow: true, addresses: [loopback]}
  - {id: left, when: {host: upstream.test, path: /own/**}, delegate: repository, addresses: [loopback]}
"#;
const ORGANIZATION: &str = r#"
version: 1
name: acme
rules:
  - {id: none, when: {path: /open/no}, deny: the organization does not want it}
"#;
const REPOSITORY: &str = r#"
version: 1
name: app
rules:
  - {id: own, when: {host: upstream.test, path: [/own/*, /else/*]}, allow: true}
"#;

fn write(folder: &Path, policy: &str) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("p.yaml"), policy).unwrap();
}

/// What becomes of requests to these paths.
fn asked(world: &World, token: &str, before: &str) -> String {
    let url = world.url();
    let curl = "curl -sS -o $D -w '%{http_code} ' ";
    let urls: String =
        ["open/a", "open/no", "own/a", "else/a"].map(|path| format!("{curl} {url}/{path}; ")).concat();
    let text = world.job(token, &format!("D=$(mktemp); {before} {urls} cat $D"));
    text.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_job_has_the_layers_of_who_it_is_and_no_other() {
    let world = World::with(HOST);
    let layers = world.service.dir.path().join("layers");
    write(&layers.join("test/org/octo"), ORGANIZATION);
    write(&layers.join("test/repo/octo/app"), REPOSITORY);
    let world = world.with_layers(&layers);
    let start = "$E job start --token-env CI_TOKEN > /dev/null;";
    let asked = |repository: &str, jti: &str, before: &str| {
        let mut claims = world.claims();
        (claims["repository"], claims["jti"]) = (repository.into(), jti.into());
        asked(&world, &world.issuer.token(&claims), before)
    };
    assert!(asked("octo/app", "1", start).starts_with("200 403 200 403 "));
    assert!(asked("octo/web", "2", start).starts_with("200 403 403 403 "));
    assert!(asked("other/app", "3", start).starts_with("200 200 403 403 "));
    // Nobody has shown whose it is.
    assert!(asked("octo/app", "4", "").starts_with("200 200 403 403 "));
    let said_so =
        "GITHUB_ACTIONS=true GITHUB_REPOSITORY=octo/app GITHUB_RUN_ID=9 $E job start > /dev/null 2>&1;";
    assert!(asked("octo/app", "5", said_so).starts_with("200 200 403 403 "));
    let written = world.service.written().unwrap();
    for rule in ["\"rule\":\"test/org/octo:acme/none\"", "\"rule\":\"test/repo/octo/app:app/own\""] {
        assert!(has(&written, rule.as_bytes()), "{rule}");
    }
    // One that is broken is as it was, also for the next proxy; others change.
    std::fs::write(layers.join("test/repo/octo/app/p.yaml"), REPOSITORY.replace("allow", "alow")).unwrap();
    write(&layers.join("test/repo/octo/web"), REPOSITORY);
    let out = world.service.output(&["reload"]).unwrap();
    assert!(said(&out).contains("the last good layer of test/repo/octo/app stays"), "{}", said(&out));
    let status = world.service.output(&["status"]).unwrap();
    let says = said(&status);
    assert!(status.status.code() == Some(1) && says.contains("test/repo/octo/app stays"), "{says}");
    assert!(asked("octo/app", "6", start).starts_with("200 403 200 403 "));
    assert!(asked("octo/web", "7", start).starts_with("200 403 200 403 "));
    let proxy = world.service.status().unwrap()["proxy_pid"].clone();
    world.service.kill_proxy().unwrap();
    until("another proxy begins", || {
        let told = |status: &Value| status["proxy"]["policy_problem"].as_str().is_some();
        world
            .service
            .status()
            .is_ok_and(|it| it["proxy_pid"].is_u64() && it["proxy_pid"] != proxy && told(&it))
    });
    assert!(asked("octo/app", "8", start).starts_with("200 403 200 403 "));
    // Mended without being asked, and all is well.
    write(&layers.join("test/repo/octo/app"), &REPOSITORY.replace("/own/*", "/own/b"));
    until("the layer is read", || world.service.status().is_ok_and(|it| it["healthy"] == true));
    assert!(asked("octo/app", "9", start).starts_with("200 403 403 403 "));
}

#[test]
fn one_that_never_was_good_denies_to_its_own_jobs_alone() {
    let world = World::with(HOST);
    let layers = world.service.dir.path().join("layers");
    write(&layers.join("test/repo/octo/app"), "version: 1\nname: p\nrules: [{id: x}]\n");
    let world = world.with_layers(&layers);
    let start = "$E job start --token-env CI_TOKEN > /dev/null;";
    let mut claims = world.claims();
    let own = asked(&world, &world.issuer.token(&claims), start);
    // Nothing could be allowed, so that not even a name is looked up.
    assert!(own.contains("000") && !own.contains("200"), "{own}");
    assert!(has(&world.service.written().unwrap(), b"\"reason\":\"no-policy\""));
    (claims["repository"], claims["jti"]) = ("octo/web".into(), "2".into());
    assert!(asked(&world, &world.issuer.token(&claims), start).starts_with("200 200 403 403 "));
    let problem = world.service.status().unwrap()["proxy"]["policy_problem"].to_string();
    assert!(problem.contains("nothing is allowed for the jobs of test/repo/octo/app"), "{problem}");
}
