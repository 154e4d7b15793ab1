//! What administrators ask of the service: status, reload, release.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use enforcer_tests::service::{Service, Upstream};

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
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let entries = std::fs::read_dir(&jobs).unwrap().flatten().map(|entry| entry.path());
        let mut own =
            entries.filter(|path| path.file_name().unwrap().display().to_string().starts_with(name));
        if let Some(path) = own.next()
            && std::fs::read_to_string(path.join("cgroup.procs")).is_ok_and(|procs| !procs.is_empty())
        {
            return (client, path);
        }
        assert!(Instant::now() < until, "the job did not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether a process in this cgroup sends a datagram to nobody, which the kernel
/// half refuses with EPERM.
fn is_free(cgroup: &Path) -> bool {
    let script = format!("echo $$ > {}/cgroup.procs; echo x > /dev/udp/127.0.0.3/9", cgroup.display());
    Command::new("bash").args(["-c", &script]).stderr(Stdio::null()).status().unwrap().success()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
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
    // The service dies and is started again: what was lifted is known, and ends.
    service.kill_daemon().unwrap();
    // As if the clock had been set back meanwhile: that does not make it longer.
    let note = service.dir.path().join("run/lifted").join(first.file_name().unwrap());
    let mut lifted: serde_json::Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
    lifted["until_unix_ms"] = (lifted["until_unix_ms"].as_u64().unwrap() + 3_600_000).into();
    std::fs::write(&note, lifted.to_string()).unwrap();
    service.start_daemon().unwrap();
    wait_until("enforcement did not come back", || !is_free(&first));
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
