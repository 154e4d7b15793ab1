//! The whole path with a stock client: kernel, proxy, policy, masking, recording.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod approvals;
mod audit;
mod browser;
mod deaths;
mod debug;
mod escapes;
mod faults;
mod identity;
mod jobs;
mod limits;
mod namespaces;
mod scopes;
mod restarts;
mod sockets;
mod splits;
mod tamper;
mod web;
mod world;

use std::collections::BTreeSet;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::sync::atomic::Ordering;

use enforcer_tests::bpf::Objects;
use enforcer_tests::origin::token;
use enforcer_tests::service::{NOBODY, Service, Upstream};

const NAME: &str = "upstream.test";
const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: mask
    when: {host: upstream.test}
    mask: {response: [secrets]}
    addresses: [loopback]
  - id: not-this
    when: {host: upstream.test, path: /denied}
    deny: ask your team for this path
  - id: rest
    when: {host: upstream.test}
    allow: true
"#;

fn start() -> (Upstream, Service, String) {
    let upstream = Upstream::start(NAME, format!("the token is {}.\n", token())).unwrap();
    let service = Service::start(NAME, &upstream, POLICY).unwrap();
    let url = format!("https://{NAME}:{}", upstream.address.port());
    (upstream, service, url)
}

fn has(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn a_stock_client_is_redirected_masked_denied_and_recorded() {
    let (upstream, service, url) = start();
    let (text, code) = service.job(&format!("curl -sS {url}/x")).unwrap();
    assert_eq!((text.as_str(), code), ("the token is [MASKED:GITHUB_TOKEN].\n", Some(0)));
    let (text, _) = service.job(&format!("curl -sS {url}/x --noproxy '*'")).unwrap();
    assert!(text.contains("[MASKED:"), "{text}");
    let before = upstream.accepted.load(Ordering::SeqCst);
    let (text, _) = service.job(&format!("curl -sS {url}/denied")).unwrap();
    assert!(text.contains("ask your team for this path") && text.contains("test/not-this"), "{text}");
    // Another name, no name, and a name that the address does not belong to.
    let (text, code) = service.job("curl -sS https://other.test/").unwrap();
    assert!(code == Some(6) && text.contains("resolve"), "{text}");
    let (text, _) = service.job(&format!("curl -skS https://{}/", upstream.address)).unwrap();
    assert!(text.contains("sni-missing"), "{text}");
    let port = upstream.address.port();
    let spoof =
        format!("curl -skS --connect-to evil.test:{port}:{} https://evil.test:{port}/", upstream.address);
    let (text, _) = service.job(&spoof).unwrap();
    assert!(text.contains("policy-default-deny"), "{text}");
    let host = format!("curl -sS -H 'Host: evil.test' {url}/x");
    let (text, _) = service.job(&host).unwrap();
    assert!(text.contains("authority-mismatch"), "{text}");
    assert!(upstream.accepted.load(Ordering::SeqCst) <= before + 2, "a denial dialled somebody");
    verify(&service);
    let list = service.output(&["sessions", "ls", "-o", "json"]).unwrap();
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    assert!(list.contains("policy-deny") && list.contains(NAME), "{list}");
    let written = service.written().unwrap();
    assert!(!has(&written, token().as_bytes()));
}

fn verify(service: &Service) {
    let out = service.output(&["sessions", "verify"]).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn a_secret_of_the_job_is_masked_wherever_it_stands() {
    let secret = ["correct", "horse", "battery"].join("-");
    let upstream = Upstream::start(NAME, format!("you said {secret}\n")).unwrap();
    let service = Service::start(NAME, &upstream, POLICY).unwrap();
    let url = format!("https://{NAME}:{}/{secret}", upstream.address.port());
    let out = service
        .command(&["run", "--", "curl", "-sS", &url])
        .unwrap()
        .env("DEPLOY_TOKEN", &secret)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "you said [MASKED:ENV_DEPLOY_TOKEN]\n");
    assert!(!has(&service.written().unwrap(), secret.as_bytes()));
}

#[test]
fn what_is_not_tcp_or_dns_is_refused_and_stands_in_the_recording() {
    let (_upstream, service, _) = start();
    let (text, _) = service.job("bash -c 'echo x > /dev/udp/192.0.2.1/9'").unwrap();
    assert!(text.contains("not permitted"), "{text}");
    let (text, _) = service.job("bash -c 'echo x > /dev/udp/2001:db8::1/9'").unwrap();
    assert!(!text.is_empty());
    verify(&service);
    assert!(has(&service.written().unwrap(), b"\"event\":\"refused\""));
}

#[test]
fn a_job_has_the_callers_user_no_privilege_and_no_foreign_descriptor() {
    let (_upstream, service, url) = start();
    assert_eq!(service.job("exit 7").unwrap().1, Some(7));
    assert_eq!(service.job("kill -TERM $$").unwrap().1, Some(143));
    assert_eq!(service.output(&["run", "no-such-command"]).unwrap().status.code(), Some(127));
    assert_eq!(service.output(&["run", "/etc/passwd"]).unwrap().status.code(), Some(126));
    let (text, _) = service.job("grep -E '^(CapEff|CapBnd|NoNewPrivs)' /proc/self/status").unwrap();
    assert_eq!(text, "CapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n");
    // 3 is the folder that ls reads.
    let (text, _) = service.job("exec ls /proc/self/fd").unwrap();
    assert_eq!(text, "0\n1\n2\n3\n");
    let (text, _) =
        service.job("touch /etc/ssl/certs/x; echo >> /etc/ssl/certs/ca-certificates.crt").unwrap();
    assert_eq!(text.matches("ead-only").count(), 2, "{text}");
    // The job starts no job, and has no say over the service.
    let program = service.command(&["status"]).unwrap();
    let config = service.dir.path().join("config.toml");
    let inside = format!("{} --config {}", program.get_program().display(), config.display());
    let (text, code) = service.job(&format!("{inside} run true; {inside} release --all")).unwrap();
    assert!(text.matches("tagged cgroup").count() == 2 && code == Some(1), "{text}");
    // Nor by a socket of a process that has gone since: the child connects and
    // ends, the parent asks.
    let admin = service.dir.path().join("run/admin.sock");
    let script = format!(
        "python3 - <<'E'\nimport os,socket\ns=socket.socket(socket.AF_UNIX,socket.SOCK_SEQPACKET)\n\
         p=os.fork()\nif p==0:\n s.connect('{}')\n os._exit(0)\nos.waitpid(p,0)\n\
         s.send(b'{{\"type\":\"release\"}}')\nprint(s.recv(9999))\nE",
        admin.display()
    );
    let (text, _) = service.job(&script).unwrap();
    assert!(text.contains("is gone") || text.contains("tagged cgroup"), "{text}");
    // Root in the job finds neither pins nor keys, and cannot leave its cgroup.
    let (ca, mount) = (service.dir.path().join("ca"), service.cgroup.path().parent().unwrap().to_path_buf());
    let script = format!("ls /sys/fs/bpf {}; echo 0 > {}/cgroup.procs", ca.display(), mount.display());
    let (text, _) = service.job(&script).unwrap();
    assert!(!text.contains("ca.key") && !text.contains("enf-service"), "{text}");
    assert!(text.contains("ead-only"), "{text}");
    // Nor by relative paths, which follow the folder it was started in.
    let relative = format!("echo 0 > .{}/cgroup.procs; ls ./sys/fs/bpf .{}", mount.display(), ca.display());
    let out = service.command(&["run", "--", "sh", "-c", &format!("exec 2>&1; {relative}")]).unwrap();
    let out = { out }.current_dir("/").stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("ead-only") && !text.contains("ca.key") && !text.contains("enf-service"), "{text}");
    // Without root: through the group.
    let mut command = service.command_of_all(&["run", "--", "sh", "-c"]).unwrap();
    let script = format!("id -u; curl -sS {url}/x");
    let out =
        command.arg(script).current_dir("/").stdin(Stdio::null()).uid(NOBODY).gid(NOBODY).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(
        text,
        "65534\nthe token is [MASKED:GITHUB_TOKEN].\n",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

/// As processes of the host see them; namespaces of other tests come and go.
fn mounts() -> BTreeSet<String> {
    let mounts = ["/proc/self/mountinfo", "/proc/1/mountinfo"].map(|it| std::fs::read_to_string(it).unwrap());
    mounts.concat().lines().filter(|line| !line.contains("/run/netns")).map(str::to_owned).collect()
}

#[test]
fn a_release_leaves_the_host_as_it_was() {
    let before = mounts();
    let (_upstream, mut service, _) = start();
    assert_eq!(service.job("true").unwrap().1, Some(0));
    let objects = Objects::of(&service.pins().unwrap()).unwrap();
    assert!(!objects.programs.is_empty() && !objects.links.is_empty() && !objects.maps.is_empty());
    let children = ["proxy_pid", "signer_pid"].map(|name| service.status().unwrap()[name].clone());
    service.release().unwrap();
    objects.wait_gone().unwrap();
    assert_eq!(mounts().difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    let left =
        |path: std::path::PathBuf| std::fs::read_dir(path).unwrap().flatten().any(|it| it.path().is_dir());
    assert!(!left(service.cgroup.path().to_path_buf()));
    assert!(!service.pins().unwrap().exists());
    assert!(!service.dir.path().join("run").exists());
    for child in children {
        assert!(child.is_u64() && !std::path::Path::new("/proc").join(child.to_string()).exists());
    }
}

#[test]
fn a_changed_policy_is_obeyed_and_a_broken_one_is_not() {
    let (_upstream, service, url) = start();
    let file = service.dir.path().join("policies/test.yaml");
    let get = || service.job(&format!("curl -sS {url}/x")).unwrap().0;
    assert!(get().contains("[MASKED:"));
    std::fs::write(&file, "version: 1\nname: broken").unwrap();
    service.output(&["reload"]).unwrap();
    assert!(get().contains("[MASKED:"));
    std::fs::write(&file, POLICY.replace("path: /denied", "path: [/denied, /x]")).unwrap();
    service.output(&["reload"]).unwrap();
    assert!(get().contains("ask your team"));
}

#[test]
fn the_shipped_policies_hold_their_tests() {
    let (_upstream, service, _) = start();
    let policies = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies");
    let policies = policies.to_str().unwrap();
    let out = service.output(&["policy", "test", "--dir", policies]).unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && text.contains(" 0 failed"), "{text}");
}
