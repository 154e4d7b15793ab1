//! What administrators ask of the service: status, reload, release.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use enforcer_tests::service::{Service, Upstream};
use enforcer_tests::wait::until;

const NAME: &str = "upstream.test";
const POLICY: &str = "
version: 1
name: test
rules:
  - id: all
    when: {host: upstream.test}
    addresses: [loopback]
    allow: true
";

fn start() -> (Upstream, Service) {
    let upstream = Upstream::start(NAME, "hello\n".to_owned()).unwrap();
    let service = Service::start(NAME, &upstream, POLICY).unwrap();
    (upstream, service)
}

/// A job that waits, as one does that takes long; its client and its cgroup.
#[allow(clippy::zombie_processes, reason = "whoever calls this waits for it")]
fn waiting(service: &Service, name: &str) -> (Child, PathBuf) {
    let client = service
        .command(&["run", "--name", name, "sleep", "300"])
        .unwrap()
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let jobs = service.cgroup.path().join("jobs");
    let mut own = None;
    until("the job begins", || {
        let mut entries = std::fs::read_dir(&jobs).unwrap().flatten().map(|entry| entry.path());
        own = entries.find(|path| path.file_name().unwrap().display().to_string().starts_with(name));
        let procs = own.as_ref().map(|path| std::fs::read_to_string(path.join("cgroup.procs")));
        procs.is_some_and(|procs| procs.is_ok_and(|procs| !procs.is_empty()))
    });
    (client, own.unwrap())
}

/// Whether a process in this cgroup sends a datagram to nobody, which the kernel
/// half refuses with EPERM.
fn is_free(cgroup: &Path) -> bool {
    let script = format!("echo $$ > {}/cgroup.procs; echo x > /dev/udp/127.0.0.3/9", cgroup.display());
    Command::new("bash").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn one_job_is_released_for_a_while_and_comes_back_even_if_the_service_dies() {
    let (_upstream, mut service) = start();
    let (mut one, first) = waiting(&service, "one");
    let (mut two, second) = waiting(&service, "two");
    assert!(!is_free(&first) && !is_free(&second));
    let out = service.output(&["release", "nobody"]).unwrap();
    assert!(!out.status.success() && said(&out).contains("nobody"), "{}", said(&out));
    for wrong in [&["release"][..], &["release", "one", "--all"], &["release", "one", "--for", "1d"]] {
        assert_eq!(service.output(wrong).unwrap().status.code(), Some(2), "{wrong:?}");
    }
    let out = service.output(&["release", "one", "--for", "4s"]).unwrap();
    assert!(out.status.success(), "{}", said(&out));
    assert!(is_free(&first) && !is_free(&second));
    let text = said(&service.output(&["status"]).unwrap());
    assert!(text.contains("NOT ENFORCED for"), "{text}");
    // It can be ended early.
    let out = service.output(&["release", "one", "--for", "0s"]).unwrap();
    assert!(out.status.success() && said(&out).contains("1 workload(s)"), "{}", said(&out));
    assert!(!is_free(&first) && !said(&service.output(&["status"]).unwrap()).contains("NOT ENFORCED"));
    let out = service.output(&["release", "one", "--for", "4s"]).unwrap();
    assert!(out.status.success() && is_free(&first), "{}", said(&out));
    // The service dies and is started again: what was lifted is known, and ends.
    service.kill_daemon().unwrap();
    // As if the clock had been set back meanwhile: that does not make it longer.
    let note = service.dir.path().join("run/lifted").join(first.file_name().unwrap());
    let mut lifted: serde_json::Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    lifted["until_unix_ms"] = (lifted["until_unix_ms"].as_u64().unwrap() + 3_600_000).into();
    std::fs::write(&note, lifted.to_string()).unwrap();
    service.start_daemon().unwrap();
    until("enforcement comes back", || !is_free(&first));
    assert!(!is_free(&second));
    let text = said(&service.output(&["status"]).unwrap());
    assert!(!text.contains("NOT ENFORCED") && text.contains("one"), "{text}");
    let shown = said(&service.output(&["sessions", "ls", "-o", "json"]).unwrap());
    assert!(!shown.is_empty());
    let written = String::from_utf8_lossy(&service.written().unwrap()).into_owned();
    assert!(written.contains("\"event\":\"released\"") && written.contains("until_unix_ms"));
    for child in [&mut one, &mut two] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for path in [first, second] {
        std::fs::write(path.join("cgroup.kill"), "1").unwrap();
    }
}

#[test]
fn a_release_with_a_running_job_leaves_nothing_and_the_job_runs_on() {
    let (_upstream, mut service) = start();
    let (mut client, cgroup) = waiting(&service, "runs");
    let pid = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().trim().to_owned();
    service.release().unwrap();
    assert!(Path::new("/proc").join(&pid).exists(), "the job was killed");
    let inside = std::fs::read_dir(service.cgroup.path()).unwrap().flatten();
    assert_eq!(inside.filter(|entry| entry.path().is_dir()).count(), 0, "a cgroup stays");
    assert!(!service.dir.path().join("run").exists());
    assert!(is_free(service.cgroup.path()));
    // Its client says why it ends without the job's code.
    assert_eq!(client.wait().unwrap().code(), Some(125));
    Command::new("kill").args(["-9", &pid]).status().unwrap();
}

#[test]
fn a_release_without_a_service_is_recorded_and_leaves_nothing() {
    let (_upstream, mut service) = start();
    let (mut client, cgroup) = waiting(&service, "stays");
    let pid = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().trim().to_owned();
    service.kill_daemon().unwrap();
    client.wait().unwrap();
    assert!(!is_free(&cgroup));
    let out = service.output(&["release", "stays"]).unwrap();
    assert!(!out.status.success() && said(&out).contains("release --all"), "{}", said(&out));
    let out = service.output(&["release", "--all"]).unwrap();
    assert!(out.status.success() && !said(&out).contains("not recorded"), "{}", said(&out));
    let inside = std::fs::read_dir(service.cgroup.path()).unwrap().flatten();
    assert_eq!(inside.filter(|entry| entry.path().is_dir()).count(), 0, "a cgroup stays");
    let pins = PathBuf::from("/sys/fs/bpf").join(service.cgroup.path().file_name().unwrap());
    assert!(!pins.exists() && !service.dir.path().join("run").exists());
    let out = service.output(&["sessions", "verify"]).unwrap();
    assert!(out.status.success(), "{}", said(&out));
    assert!(String::from_utf8_lossy(&service.written().unwrap()).contains("\"event\":\"released\""));
    // The folder of the recording is still the proxy's.
    service.start_daemon().unwrap();
    service.wait_whole().unwrap();
    Command::new("kill").args(["-9", &pid]).status().unwrap();
}

#[test]
fn a_reload_says_what_is_wrong_and_a_silent_client_keeps_nobody_waiting() {
    let (_upstream, service) = start();
    let silent = enforcer::net::ipc::Channel::connect(&service.dir.path().join("run/admin.sock")).unwrap();
    let begun = Instant::now();
    let status = service.status().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4), "a silent client was waited for");
    assert_eq!((&status["healthy"], &status["proxy"]["recording"]), (&true.into(), &"ok".into()));
    let hash = status["proxy"]["policy"].as_str().unwrap().to_owned();
    let out = service.output(&["reload"]).unwrap();
    assert!(out.status.success() && said(&out).contains(&hash), "{}", said(&out));
    std::fs::write(service.dir.path().join("policies/test.yaml"), POLICY.replace("allow", "alow")).unwrap();
    let out = service.output(&["reload"]).unwrap();
    assert!(!out.status.success() && said(&out).contains("alow"), "{}", said(&out));
    assert_eq!(service.status().unwrap()["proxy"]["policy"], hash.as_str());
    drop(silent);
}

#[test]
fn how_often_rules_had_a_say_is_counted_and_begins_anew_with_another_policy() {
    let (upstream, service) = start();
    let hits = || -> serde_json::Value {
        serde_json::from_slice(&service.output(&["policy", "hits", "--json"]).unwrap().stdout).unwrap()
    };
    let of_rule = |hits: &serde_json::Value| hits["rules"][0]["hits"].as_u64().unwrap();
    assert_eq!((of_rule(&hits()), hits()["undecided"].as_u64()), (0, Some(0)));
    let url = format!("https://{NAME}:{}/", upstream.address.port());
    let ask = |times: usize| {
        let urls = vec![url.as_str(); times];
        assert!(service.output(&[&["run", "curl", "-sS"], &urls[..]].concat()).unwrap().status.success());
        of_rule(&hits())
    };
    let one = ask(1);
    // Of the same connection: one more for each request.
    assert!(one > 0 && ask(4) == 2 * one + 3, "{one}, {:?}", hits());
    service.output(&["run", "curl", "-sS", "https://denied.test/"]).unwrap();
    assert!(hits()["undecided"].as_u64().unwrap() > 0);
    let other = POLICY.replace("rules:", "rules:\n  - {id: never, when: {host: never.test}, deny: no}");
    std::fs::write(service.dir.path().join("policies/test.yaml"), other).unwrap();
    assert!(service.output(&["reload"]).unwrap().status.success());
    let said = said(&service.output(&["policy", "hits"]).unwrap());
    assert!(said.contains("         0  test/never\n         0  test/all\n"), "{said}");
}

#[test]
fn a_job_has_the_mask_and_the_limits_of_its_caller() {
    let (_upstream, service) = start();
    let out = Command::new("bash")
        .arg("-c")
        .arg("umask 027; ulimit -Sn 77; ulimit -f 4711; exec \"$@\"")
        .arg("bash")
        .arg(service.command(&[]).unwrap().get_program())
        .arg("--config")
        .arg(service.dir.path().join("config.toml"))
        .args(["run", "--", "bash", "-c", "umask; ulimit -Sn; ulimit -f"])
        .stdin(Stdio::null())
        .process_group(0)
        .output()
        .unwrap();
    assert_eq!(said(&out), "0027\n77\n4711\n");
}

#[test]
fn the_last_good_policy_outlives_the_proxy_and_status_says_that_the_files_are_wrong() {
    let (upstream, service) = start();
    let url = format!("https://{NAME}:{}/", upstream.address.port());
    let file = service.dir.path().join("policies/test.yaml");
    let hash = service.status().unwrap()["proxy"]["policy"].clone();
    std::fs::write(&file, POLICY.replace("allow", "alow")).unwrap();
    let told = |status: &serde_json::Value| {
        let problem = status["proxy"]["policy_problem"].as_str().unwrap_or_default();
        problem.contains("the last good policy stays") && problem.contains("alow")
    };
    // Whether it was noticed by itself or not.
    service.output(&["reload"]).unwrap();
    let status = service.status().unwrap();
    assert!(told(&status) && status["healthy"] == false && status["proxy"]["policy"] == hash, "{status:#}");
    let out = service.output(&["status"]).unwrap();
    assert!(
        out.status.code() == Some(1) && said(&out).contains("the last good policy stays"),
        "{}",
        said(&out)
    );
    let proxy = status["proxy_pid"].clone();
    service.kill_proxy().unwrap();
    until("another proxy begins", || {
        service.status().is_ok_and(|it| it["proxy_pid"].is_u64() && it["proxy_pid"] != proxy && told(&it))
    });
    assert_eq!(service.status().unwrap()["proxy"]["policy"], hash);
    let (text, code) = service.job(&format!("curl -sS {url}")).unwrap();
    assert_eq!((text.as_str(), code), ("hello\n", Some(0)));
    // What is mended is in force, and all is well.
    std::fs::write(&file, POLICY.replace("id: all", "id: mended")).unwrap();
    assert!(service.output(&["reload"]).unwrap().status.success());
    let status = service.status().unwrap();
    assert!(status["healthy"] == true && status["proxy"]["policy_problem"].is_null(), "{status:#}");
    assert_ne!(status["proxy"]["policy"], hash);
}

#[test]
fn without_a_policy_everything_is_denied_and_status_says_so() {
    let (upstream, mut service) = start();
    service.stop_daemon().unwrap();
    std::fs::remove_file(service.dir.path().join("policies/test.yaml")).unwrap();
    service.start_daemon().unwrap();
    let status = service.status().unwrap();
    let problem = status["proxy"]["policy_problem"].as_str().unwrap();
    assert!(
        status["healthy"] == false && problem.contains("everything is denied: no policy file"),
        "{problem}"
    );
    let (text, _) = service.job(&format!("curl -sS https://{NAME}:{}/", upstream.address.port())).unwrap();
    assert!(!text.contains("hello"), "{text}");
}

#[test]
fn a_user_is_told_what_was_refused_and_finds_it_among_the_denied() {
    let (upstream, service) = start();
    let script =
        "curl -sS https://denied.test/; exec 3<>/dev/tcp/192.0.2.7/22; echo hello >&3; cat <&3; exit 5";
    let out = service.output(&["run", "--", "bash", "-c", script]).unwrap();
    assert_eq!(out.status.code(), Some(5));
    let text = String::from_utf8(out.stderr).unwrap();
    let line = text.lines().last().unwrap_or_default();
    let want = "enforcer: 2 destinations refused: denied.test, 192.0.2.7:22; see `enforcer sessions ls";
    assert!(line.starts_with(want), "{text}");
    let out = service.output(&["run", "--quiet", "--", "bash", "-c", script]).unwrap();
    assert!(!said(&out).contains("refused:"), "{}", said(&out));
    let url = format!("https://{NAME}:{}/", upstream.address.port());
    let out = service.output(&["run", "curl", "-sS", &url]).unwrap();
    assert_eq!(said(&out), "hello\n");
    let listed = |args: &[&str]| -> Vec<serde_json::Value> {
        let out = service.output(&[&["sessions", "ls", "-o", "json"], args].concat()).unwrap();
        serde_json::from_slice(&out.stdout).unwrap()
    };
    let denied = listed(&["--outcome", "denied"]);
    for (kind, destination) in [("dns", "denied.test"), ("connection", "192.0.2.7:22")] {
        let is = |one: &&serde_json::Value| one["kind"] == kind && one["destination"] == destination;
        assert_eq!(denied.iter().filter(is).count(), 2, "{kind}: {denied:#?}");
        let host = destination.trim_end_matches(":22");
        assert_eq!(listed(&["--host", host, "--outcome", "denied"]).len(), 2, "{host}");
    }
    // Those of the last job go on, or have come to their end; none of them was cut.
    assert_eq!(listed(&["--outcome", "cut"]).len(), 0);
}

#[test]
fn who_may_not_and_who_finds_no_service_are_told_so() {
    let (_upstream, mut service) = start();
    let verbs: [&[&str]; 7] = [
        &["status"],
        &["status", "--json"],
        &["reload"],
        &["scope", "ls"],
        &["release", "one"],
        &["release", "--all"],
        &["run", "true"],
    ];
    let stranger = |args: &[&str]| {
        let mut command = service.command_of_all(args).unwrap();
        let out = command.current_dir("/").stdin(Stdio::null()).uid(12345).gid(12345).output().unwrap();
        (out.status.code(), said(&out))
    };
    for args in verbs {
        let (code, text) = stranger(args);
        let whom =
            if args[0] == "run" { "this needs root, or a member of the group" } else { "this needs root" };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(code.is_some_and(|code| code > 0) && text.contains(whom), "{args:?}: {text}");
        assert!(!text.contains("no service"), "{args:?}: {text}");
    }
    service.kill_daemon().unwrap();
    for args in verbs.iter().filter(|args| args[0] != "release") {
        let out = service.output(args).unwrap();
        assert!(
            !out.status.success() && said(&out).contains("no service answers at"),
            "{args:?}: {}",
            said(&out)
        );
    }
    service.start_daemon().unwrap();
}

#[test]
fn a_reader_that_is_gone_is_no_error() {
    let (_upstream, service) = start();
    let policies = service.dir.path().join("policies");
    let dir = policies.to_str().unwrap();
    let verbs: [&[&str]; 12] = [
        &["status"],
        &["status", "--json"],
        &["status", "-o", "json"],
        &["version"],
        &["version", "-o", "json"],
        &["completion", "bash"],
        &["man"],
        &["scope", "ls"],
        &["sessions", "ls"],
        &["policy", "check", "--dir", dir],
        &["policy", "explain", "--host", NAME, "--dir", dir],
        &["reload"],
    ];
    for args in verbs {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = service.command(args).unwrap().stdin(Stdio::null()).stdout(writer).output().unwrap();
        assert!(out.status.success() && out.stderr.is_empty(), "{args:?}: {} {}", out.status, said(&out));
    }
}

#[test]
fn every_verb_that_answers_can_do_it_in_json() {
    let (_upstream, service) = start();
    let policies = service.dir.path().join("policies");
    let dir = policies.to_str().unwrap();
    let verbs: [&[&str]; 9] = [
        &["status"],
        &["version"],
        &["reload"],
        &["scope", "ls"],
        &["sessions", "ls"],
        &["policy", "check", "--dir", dir],
        &["policy", "explain", "--host", NAME, "--dir", dir],
        &["policy", "test", "--dir", dir],
        &["policy", "hits"],
    ];
    for args in verbs {
        for form in [&["-o", "json"][..], &["--json"], &["--output=json"]] {
            let out = service.output(&[args, form].concat()).unwrap();
            assert!(out.status.success(), "{args:?}: {}", said(&out));
            let parsed = serde_json::from_slice::<serde_json::Value>(&out.stdout);
            assert!(parsed.is_ok(), "{args:?} {form:?}: {}", said(&out));
        }
    }
}

#[test]
fn an_option_that_run_does_not_know_is_not_taken_for_the_command() {
    let (_upstream, service) = start();
    for wrong in [&["run", "--nmae", "agent", "--", "true"][..], &["run", "-x", "true"]] {
        let out = service.output(wrong).unwrap();
        assert!(out.status.code() == Some(125) && said(&out).contains(wrong[1]), "{}", said(&out));
    }
    for (args, code) in [
        (&["run", "sh", "-c", "exit 3"][..], 3),
        (&["run", "--name", "a", "sh", "-c", "exit 4", "--nmae"], 4),
        (&["run", "--", "--weird"], 127),
    ] {
        assert_eq!(service.output(args).unwrap().status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn a_recording_that_cannot_be_looked_at_is_not_taken_for_a_changed_one() {
    let (_upstream, service) = start();
    assert_eq!(service.job("true").unwrap().1, Some(0));
    let verify = |args: &[&str]| service.output(&[&["sessions", "verify"], args].concat()).unwrap();
    let out = verify(&["-o", "json"]);
    let head = serde_json::from_slice::<serde_json::Value>(&out.stdout).unwrap()["head"].clone();
    assert_eq!(verify(&["--head", head.as_str().unwrap()]).status.code(), Some(0));
    let out = verify(&["--head", "abc"]);
    assert!(out.status.code() == Some(2) && said(&out).contains("64 hexadecimal digits"), "{}", said(&out));
    assert_eq!(verify(&["--head", &"0".repeat(64)]).status.code(), Some(1));
    assert_eq!(verify(&["--dir", "/nonexistent"]).status.code(), Some(2));
    assert_eq!(verify(&["ffffffff"]).status.code(), Some(2));
}

#[test]
fn a_start_that_cannot_work_says_why_and_leaves_nothing() {
    let (_upstream, mut service) = start();
    service.release().unwrap();
    let path = service.dir.path().join("config.toml");
    let good = std::fs::read_to_string(&path).unwrap();
    let object = service.dir.path().join("no.o");
    std::fs::write(&object, "this is no object").unwrap();
    let of = |key: &str| good.lines().find(|line| line.starts_with(key)).unwrap();
    for (line, wrong, says) in [
        (of("user = "), "user = \"nosuchuser\"".to_owned(), "there is no user `nosuchuser`"),
        (of("jobs = "), "jobs = \"/elsewhere/jobs\"".to_owned(), "is not below `attach`"),
        (of("jobs = "), of("own = ").replace("own = ", "jobs = "), "are one within the other"),
        (
            of("object = "),
            "object = \"/nonexistent/x.o\"".to_owned(),
            "the kernel half is not at /nonexistent/x.o",
        ),
        (of("object = "), format!("object = \"{}\"", object.display()), "no.o"),
    ] {
        std::fs::write(&path, good.replace(line, &wrong)).unwrap();
        let out = service.output(&["daemon"]).unwrap();
        assert!(!out.status.success() && said(&out).contains(says), "{wrong}: {}", said(&out));
        let inside = std::fs::read_dir(service.cgroup.path()).unwrap().flatten();
        assert_eq!(inside.filter(|entry| entry.path().is_dir()).count(), 0, "{wrong}: a cgroup stays");
        assert!(!service.dir.path().join("run").exists(), "{wrong}: the folder of the sockets stays");
        assert!(!service.pins().unwrap().exists(), "{wrong}: pins stay");
    }
    std::fs::write(&path, good).unwrap();
    service.start_daemon().unwrap();
}
