//! `enforcer doctor`: each check on a host where it holds and on one where it does not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod harden;

use std::process::{Command, Stdio};

use enforcer::app::config::Config;
use enforcer::app::doctor::{BEYOND, CHECKS, Grade, Level, Report, State};
use enforcer_tests::fake::{CI, Fake, finding, with};
use enforcer_tests::service::{Service, Upstream};
use serde_json::json;

/// Takes away what this check looks for, and no more.
fn break_one(fake: &mut Fake, id: &str) {
    let status = fake.status.as_mut().unwrap();
    match id {
        "kernel-version" => fake.file("/proc/sys/kernel/osrelease", "6.0.12", 0, 0o444),
        "cgroup2-mount" => {
            fake.file("/proc/self/mountinfo", "31 30 0:28 /a /mnt rw - cgroup2 cgroup2 rw\n", 0, 0o444)
        }
        "cgroup-bpf" => {
            status["pins"] = json!([]);
            fake.replace("/boot/config-6.12.117+deb12-amd64", "CGROUP_BPF=y", "CGROUP_BPF=n");
        }
        "service-whole" => status["pins"][1]["problem"] = json!("it is not attached"),
        "pins-private" => fake.folder("/sys/fs/bpf/enforcer", 0, 0o750),
        "core-handler" => {
            fake.file("/usr/lib/collect", "", 0, 0o757);
            fake.file("/proc/sys/kernel/core_pattern", "|/usr/lib/collect %p", 0, 0o644);
        }
        "packet-egress" => status["interfaces"] = json!({ "guarded": 0, "problem": "no clsact" }),
        "kernel-btf" => fake.remove("/sys/kernel/btf/vmlinux"),
        "lockdown" => {
            fake.replace("/sys/kernel/security/lockdown", "[integrity] confidentiality", "[confidentiality]")
        }
        "bpf-lsm" => fake.replace("/sys/kernel/security/lsm", ",bpf", ""),
        "unprivileged-bpf" => fake.replace("/proc/sys/kernel/unprivileged_bpf_disabled", "2", "0"),
        "user-namespaces" => fake.replace("/proc/sys/user/max_user_namespaces", "0", "15000"),
        "ping-group" => fake.replace("/proc/sys/net/ipv4/ping_group_range", "1\t0", "0\t2147483647"),
        "scope-tagged" => {
            status["scopes"] = json!([{ "name": "ci", "matches": [{ "cgroup": "/other.slice" }] }])
        }
        "cgroup-level" => fake.unit_setting("Slice=a-b-c-d-e-f-g-h-i-j-k-l-m-n-o-p-q.slice"),
        "cgroup-owner" => fake.file("/sys/fs/cgroup/ci.slice/cgroup.procs", "", CI, 0o644),
        "namespaces-served" => fake.link("net:[4026532999]", "/proc/71/ns/net"),
        "outside-processes" => fake.process(99, CI, "tmux", "/user.slice/user-1000.slice/session-1.scope"),
        "foreign-programs" => status["foreign"] = json!([{ "text": "program 7 at /" }]),
        "cron" => fake.folder("/etc/cron.d", CI, 0o755),
        "unit-files" => fake.folder("/etc/systemd/system", CI, 0o755),
        "runner-files" => fake.file("/home/ci/runner/.env", "", CI, 0o644),
        "powerful-groups" => fake.replace("/etc/group", "docker:x:990:", "docker:x:990:ci"),
        "tun-device" => fake.file("/sys/class/net/tun0/owner", "1000", 0, 0o444),
        "boot-order" => {
            fake.replace("/etc/systemd/system/runner.service", "After=enforcer.service", "After=x.service")
        }
        "trust-store" => fake.file("/etc/ssl/certs/ca-certificates.crt", "", 0, 0o644),
        "ptrace-scope" => fake.replace("/proc/sys/kernel/yama/ptrace_scope", "1", "0"),
        _ => break_unit(fake, id),
    }
}

/// The same for what is set at the unit.
fn break_unit(fake: &mut Fake, id: &str) {
    match id {
        "inherited-sockets" => {
            fake.unit_setting("StandardInput=socket");
            fake.replace("/boot/config-6.12.117+deb12-amd64", "INET_DIAG_DESTROY=y", "INET_DIAG_DESTROY=n");
        }
        "connections-before" => {
            fake.replace("/boot/config-6.12.117+deb12-amd64", "INET_DIAG_DESTROY=y", "INET_DIAG_DESTROY=n");
        }
        "su-session" => {
            fake.unit_setting("User=root");
            fake.user = Some("ci");
        }
        "job-user" | "root-files" => {
            fake.unit_setting("User=root\nProtectSystem=no");
        }
        "no-new-privileges" | "privileged-programs" => fake.unit_setting("NoNewPrivileges=no"),
        "sudo" => {
            fake.unit_setting("NoNewPrivileges=no");
            fake.replace("/etc/group", "sudo:x:27:dev", "sudo:x:27:dev,ci");
        }
        "capabilities" => fake.unit_setting("CapabilityBoundingSet=CAP_NET_ADMIN"),
        "ambient-capabilities" => fake.unit_setting("AmbientCapabilities=CAP_NET_RAW"),
        "vsock" => fake.unit_setting("RestrictAddressFamilies=AF_VSOCK"),
        "packet-families" => fake.unit_setting("RestrictAddressFamilies=AF_PACKET"),
        "keyring" => fake.unit_setting("SystemCallFilter=\nSystemCallFilter=@system-service"),
        "io-uring" => fake.unit_setting("SystemCallFilter=\nSystemCallFilter=~@keyring"),
        "call-architectures" => fake.unit_setting("SystemCallArchitectures=x86 native"),
        "abstract-sockets" => fake.file(
            "/proc/net/unix",
            "Num RefCount Protocol Flags Type St Inode Path\n\
             0000000000000000: 00000002 00000000 00010000 0001 01 4711 @relay\n",
            0,
            0o444,
        ),
        "control-groups" => fake.unit_setting("User=\nProtectControlGroups=no"),
        "restrict-namespaces" => fake.unit_setting("RestrictNamespaces=no"),
        "container-sockets" => {
            fake.unit_setting(
                "InaccessiblePaths=\nInaccessiblePaths=-/run/dbus -/run/user -/run/nscd\nGroup=docker",
            );
        }
        "system-bus" | "user-manager" | "resolver-sockets" | "helper-sockets" => {
            fake.unit_setting("InaccessiblePaths=");
        }
        other => panic!("no host on which `{other}` fails"),
    }
}

#[test]
fn a_host_that_lacks_nothing_is_proof() {
    let fake = Fake::good();
    let report = fake.report(Level::HostRoot);
    assert_eq!(with(&report, State::Good).len(), CHECKS.len(), "{report:#?}");
    let grades: Vec<Grade> = report.scopes[0].grades.iter().map(|graded| graded.grade).collect();
    assert_eq!(grades, [Grade::Proof, Grade::Proof, Grade::Detected]);
    assert_eq!(report.held, Some(true));
    // What nothing prevents root of the host from is said all the same.
    let open: Vec<_> = report.scopes[0].grades.iter().map(|graded| graded.not_stopped.clone()).collect();
    assert_eq!(open, [vec![], vec![], BEYOND.to_vec()]);
}

#[test]
fn without_lsm_the_settings_hold_all_but_root_of_the_host() {
    let mut fake = Fake::good();
    fake.without_lsm();
    let report = fake.report(Level::HostRoot);
    assert_eq!(with(&report, State::Missing), ["bpf-lsm"]);
    let grades = &report.scopes[0].grades;
    assert_eq!(
        grades.iter().map(|it| it.grade).collect::<Vec<_>>(),
        [Grade::Proof, Grade::Proof, Grade::Open]
    );
    assert!(grades[0].not_stopped.is_empty() && grades[1].not_stopped.is_empty());
    for name in ["packet-raw", "clone-out", "detach-links", "inherited-connected", "root-file"] {
        assert!(grades[2].not_stopped.contains(&name), "{name}: {:?}", grades[2].not_stopped);
    }
    assert!(!grades[2].not_stopped.contains(&"request-key"));
}

#[test]
fn every_check_fails_where_its_thing_is_missing() {
    for check in CHECKS {
        let mut fake = Fake::good();
        fake.without_lsm();
        break_one(&mut fake, check.id);
        let report = fake.report(Level::HostRoot);
        let found = finding(&report, check.id);
        assert_eq!(found.state, State::Missing, "{}: {found:?}", check.id);
        assert!(found.fix.iter().any(|fix| !serde_json::to_string(fix).unwrap().contains("[]")), "{found:?}");
        for graded in &report.scopes[0].grades {
            let decides = check.from.is_some_and(|from| graded.level >= from);
            assert_eq!(graded.missing.contains(&check.id), decides, "{} at {:?}", check.id, graded.level);
            assert!(!decides || graded.grade == Grade::Open, "{} at {:?}", check.id, graded.level);
        }
    }
}

#[test]
fn jobs_of_run_see_no_daemon_unless_the_configuration_shows_it() {
    let mut fake = Fake::good();
    fake.without_lsm();
    fake.user = None;
    fake.replace("/etc/group", "docker:x:990:", "docker:x:990:dev");
    let ids = ["container-sockets", "system-bus", "resolver-sockets", "helper-sockets"];
    for id in ids {
        let found = finding(&fake.run_report(None), id).clone();
        assert!(found.state == State::Good && found.found.contains("`enforcer run` hides"), "{found:?}");
    }
    fake.config.run.expose = vec!["/run/docker.sock".into(), "/run/dbus".into()];
    let report = fake.run_report(None);
    let missing = ids.map(|id| finding(&report, id).state == State::Missing);
    assert_eq!(missing, [true, true, false, false]);
    fake.config.run.hide_sockets = false;
    let report = fake.run_report(None);
    assert!(ids.iter().all(|id| finding(&report, id).state == State::Missing), "{report:#?}");
    assert!(finding(&report, "container-sockets").found.contains("dev reaches /run/docker.sock"));
}

#[test]
fn what_shows_sockets_to_jobs_is_taken_out_of_the_configuration_as_the_fix_says() {
    const REST: &str = "[run]\ngroup = \"ci\"\n[kernel]\nunix_allow = [\"/run/x\"]\n";
    for shown in
        ["hide_sockets = false", "expose = [\"/run/docker.sock\"]", "expose = [\n  \"/run/docker.sock\",\n]"]
    {
        let mut fake = Fake::good();
        fake.without_lsm();
        fake.replace("/etc/group", "docker:x:990:", "docker:x:990:dev");
        let load =
            |fake: &mut Fake| fake.config = Config::load(&fake.at("/etc/enforcer/config.toml")).unwrap();
        fake.file(
            "/etc/enforcer/config.toml",
            &REST.replace("[kernel]", &format!("{shown}\n[kernel]")),
            0,
            0o644,
        );
        load(&mut fake);
        fake.config.run.group = "enforcer".into();
        let report = fake.run_report(None);
        let found = finding(&report, "container-sockets");
        assert_eq!(found.state, State::Missing, "{shown}");
        let fix = serde_json::to_value(&found.fix).unwrap();
        let line = fix[0]["lines"][0].as_str().unwrap();
        let (edit, _) = line.split_once(" && systemctl restart enforcer").unwrap();
        let edit =
            edit.replace("/etc/enforcer/config.toml", fake.at("/etc/enforcer/config.toml").to_str().unwrap());
        assert!(Command::new("sh").args(["-c", &edit]).status().unwrap().success());
        assert_eq!(std::fs::read_to_string(fake.at("/etc/enforcer/config.toml")).unwrap(), REST, "{shown}");
        load(&mut fake);
        fake.config.run.group = "enforcer".into();
        assert_eq!(finding(&fake.run_report(None), "container-sockets").state, State::Good, "{shown}");
    }
}

#[test]
fn abstract_sockets_are_closed_by_a_tier_a_domain_or_a_namespace() {
    let listens = "0000000000000000: 00000002 00000000 00010000 0001 01 19 @/containerd-shim/a.sock\n";
    let mut fake = Fake::good();
    let text = std::fs::read_to_string(fake.at("/proc/net/unix")).unwrap() + listens;
    fake.file("/proc/net/unix", &text, 0, 0o444);
    let state = |report: &Report| finding(report, "abstract-sockets").state;
    assert_eq!(state(&fake.report(Level::Unprivileged)), State::Good, "the LSM tier");
    fake.without_lsm();
    let report = fake.report(Level::Unprivileged);
    let found = finding(&report, "abstract-sockets");
    assert!(found.state == State::Missing && found.found.contains("@/containerd-shim/a.sock"), "{found:?}");
    for (version, state) in [(Some(6), State::Good), (Some(5), State::Missing), (None, State::Missing)] {
        fake.landlock = version;
        assert_eq!(finding(&fake.run_report(None), "abstract-sockets").state, state, "{version:?}");
    }
    fake.unit_setting("PrivateNetwork=yes");
    assert_eq!(state(&fake.report(Level::Unprivileged)), State::Good, "a namespace of its own");
}

#[test]
fn a_container_is_graded_by_what_its_processes_show() {
    let mut fake = Fake::good();
    fake.without_lsm();
    let ids = ["job-user", "root-files", "control-groups", "ptrace-scope", "su-session", "capabilities"];
    let states = |report: &Report| ids.map(|id| finding(report, id).state);
    assert_eq!(states(&fake.container()), [State::Good; 6]);
    // With a mount of the host's root, or the host's processes, its root is the host's.
    let mounts = std::fs::read_to_string(fake.at("/proc/81/mountinfo")).unwrap();
    let hosts = "42 40 8:1 / /host rw - ext4 /dev/sda1 rw\n";
    fake.file("/proc/81/mountinfo", &format!("{mounts}{hosts}"), 0, 0o444);
    let found = fake.cgroup_report("/ci.slice/container");
    assert_eq!(states(&found)[..2], [State::Missing; 2]);
    fake.file("/proc/81/mountinfo", &mounts, 0, 0o444);
    fake.link("pid:[2]", "/proc/81/ns/pid");
    assert_eq!(states(&fake.cgroup_report("/ci.slice/container"))[..2], [State::Missing; 2]);
    // And cgroups that it can write to it can leave.
    fake.file("/proc/81/mountinfo", &mounts.replace("cgroup ro", "cgroup rw"), 0, 0o444);
    let report = fake.cgroup_report("/ci.slice/container");
    assert_eq!(finding(&report, "control-groups").state, State::Missing);
}

/// What is put right as the fixes say is right.
#[test]
fn the_drop_in_of_a_finding_puts_it_right() {
    let mut tried = 0;
    for check in CHECKS {
        let mut fake = Fake::good();
        fake.without_lsm();
        break_one(&mut fake, check.id);
        let report = fake.report(Level::HostRoot);
        let fixes = serde_json::to_value(&finding(&report, check.id).fix).unwrap();
        for fix in fixes.as_array().unwrap().iter().filter(|fix| fix["how"] == "drop-in") {
            for line in fix["lines"].as_array().unwrap() {
                let line = line.as_str().unwrap();
                fake.unit_setting(line);
            }
            tried += 1;
        }
        if fixes.as_array().unwrap().iter().any(|fix| fix["how"] == "drop-in") {
            let report = fake.report(Level::HostRoot);
            let found = finding(&report, check.id);
            assert_eq!(found.state, State::Good, "{}: {found:?}", check.id);
        }
    }
    assert!(tried > 15, "{tried} drop-ins");
}

#[test]
fn what_cannot_be_looked_at_is_not_good() {
    let mut fake = Fake::good();
    std::fs::remove_dir_all(fake.at("/sys/kernel/security")).unwrap();
    fake.status.as_mut().unwrap()["pins"] = json!([{ "name": "connect4", "problem": null }]);
    let report = fake.report(Level::HostRoot);
    assert_eq!(with(&report, State::Unknown), ["lockdown", "bpf-lsm"]);
    assert_eq!((report.held, report.scopes[0].grades[2].grade), (None, Grade::Unknown));
    assert_eq!(fake.report(Level::ContainerRoot).held, Some(true));
    fake.status = None;
    assert_eq!(fake.report(Level::Unprivileged).held, Some(false));
}

#[test]
fn jobs_of_run_are_graded_by_who_may_start_them() {
    let mut fake = Fake::good();
    fake.without_lsm();
    std::fs::write(fake.at("/etc/group"), "root:x:0:\ndocker:x:990:dev\nenforcer:x:995:dev\ndev:x:1001:\n")
        .unwrap();
    let report = fake.run_report(None);
    assert_eq!(report.scopes[0].users, ["dev"]);
    assert_eq!(finding(&report, "powerful-groups").state, State::Missing);
    for id in ["capabilities", "no-new-privileges", "control-groups", "inherited-sockets", "scope-tagged"] {
        assert_eq!(finding(&report, id).state, State::Good, "{id}");
    }
    // Nobody is in the group, or another user is meant.
    assert_eq!(finding(&fake.run_report(Some("ci")), "powerful-groups").state, State::Good);
    assert_eq!(finding(&fake.run_report(Some("root")), "job-user").state, State::Missing);
}

#[test]
fn landlock_stands_in_for_yama_at_jobs_of_run_alone() {
    let mut fake = Fake::good();
    fake.without_lsm();
    fake.replace("/proc/sys/kernel/yama/ptrace_scope", "1", "0");
    for (version, state) in [(Some(6), State::Good), (Some(5), State::Missing), (None, State::Missing)] {
        fake.landlock = version;
        assert_eq!(finding(&fake.run_report(None), "ptrace-scope").state, state, "{version:?}");
        assert_eq!(finding(&fake.report(Level::Unprivileged), "ptrace-scope").state, State::Missing);
    }
}

#[test]
fn a_cgroup_without_a_unit_is_graded_by_its_processes() {
    let mut fake = Fake::good();
    fake.without_lsm();
    let at = "/ci.slice/runner.service";
    for (lines, state) in [
        ("NoNewPrivs:\t1\nCapBnd:\t0000000000000401\n", State::Good),
        ("NoNewPrivs:\t0\nCapBnd:\t0000003fffffffff\n", State::Missing),
    ] {
        fake.file("/proc/71/status", &format!("Name:\tx\nUid:\t1000\t1000\n{lines}"), 0, 0o444);
        let report = fake.cgroup_report(at);
        assert_eq!(report.scopes[0].users, ["ci"]);
        for id in ["no-new-privileges", "capabilities"] {
            assert_eq!(finding(&report, id).state, state, "{id}");
        }
        // It has no drop-in.
        assert!(!serde_json::to_string(&report.scopes).unwrap().contains("drop-in"));
    }
    // What is not in its own view of the files is not reached.
    assert_eq!(finding(&fake.cgroup_report(at), "system-bus").state, State::Good);
    fake.file("/proc/71/root/run/dbus/system_bus_socket", "", 0, 0o666);
    assert_eq!(finding(&fake.cgroup_report(at), "system-bus").state, State::Missing);
    // Without processes nothing speaks for it.
    fake.folder("/sys/fs/cgroup/user.slice/user-1001.slice", 0, 0o755);
    let report = fake.cgroup_report("/user.slice/user-1001.slice");
    assert_eq!(
        (&*report.scopes[0].users, finding(&report, "no-new-privileges").state),
        (&["dev".to_owned()][..], State::Missing)
    );
}

#[test]
fn a_namespace_is_served_where_the_proxys_port_is_listened_on() {
    let fake = Fake::good();
    fake.link("net:[4026532999]", "/proc/71/ns/net");
    let head = "  sl  local_address rem_address   st tx_queue\n";
    for (line, state) in [
        ("   0: 0100007F:3A99 00000000:0000 0A 00000000:00000000", State::Good),
        ("   0: 0100007F:3A99 0100007F:9C40 01 00000000:00000000", State::Missing),
        ("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000", State::Missing),
    ] {
        fake.file("/proc/71/net/tcp", &format!("{head}{line}\n"), 0, 0o444);
        assert_eq!(finding(&fake.report(Level::Unprivileged), "namespaces-served").state, state, "{line}");
    }
}

#[test]
fn the_form_of_the_report_is_stable() {
    let mut fake = Fake::good();
    fake.without_lsm();
    break_one(&mut fake, "vsock");
    break_one(&mut fake, "powerful-groups");
    let report: Report = fake.report(Level::Unprivileged);
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap());
}

fn doctor(args: &[&str]) -> (i32, String, String) {
    let program = enforcer_tests::service::program().unwrap();
    let mut command = Command::new(program);
    command.arg("doctor").args(args).stdin(Stdio::null()).env_remove("ENFORCER_CONFIG");
    let out = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn this_machine_is_graded() {
    let (code, text, said) = doctor(&["-o", "json"]);
    let report: serde_json::Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(report["form"], 1);
    let held = &report["held"];
    assert_eq!(code, held.as_bool().map_or(2, |held| i32::from(!held)), "{text}");
    let of_host = report["host"].as_array().unwrap().len();
    let of_scope = report["scopes"][0]["findings"].as_array().unwrap().len();
    assert_eq!(of_host + of_scope, CHECKS.len());
    // The kernel that this suite runs on is one.
    assert_eq!(report["host"][0]["state"], "good", "{text}");
    let (_, page, _) = doctor(&["--all"]);
    assert!(
        page.contains("kernel-version") && page.contains("unprivileged") && !page.contains('\u{1b}'),
        "{page}"
    );
}

#[test]
fn exit_codes_and_messages() {
    let fake = Fake::good();
    let root = fake.at("/").display().to_string();
    // No service can be asked in a tree: what depends on it is not known.
    let (code, text, _) = doctor(&["--root", &root, "--unit", "runner"]);
    assert!(code == 2 && text.contains("cannot tell whether held against unprivileged"), "{code} {text}");
    fake.unit_setting("NoNewPrivileges=no");
    let (code, text, _) = doctor(&["--root", &root, "--unit", "runner"]);
    assert!(
        code == 1 && text.contains("[Service] NoNewPrivileges=yes") && text.contains("NOT held"),
        "{code} {text}"
    );
    for (args, words) in [
        (&["--unit", "nothing"][..], "there is no unit `nothing.service`"),
        (&["--unit", "../passwd"], "is no name of a service"),
        (&["--unit", "runner", "--user", "nobody-there"], "there is no user `nobody-there`"),
        (&["--scope", "nothing"], "there is no scope `nothing`"),
    ] {
        let (code, _, said) = doctor(&[&["--root", root.as_str()], args].concat());
        assert!(code == 2 && said.replace("\n", " ").contains(words), "{args:?}: {code} {said}");
    }
}

#[test]
fn the_help_teaches() {
    let (code, text, _) = doctor(&["--help"]);
    assert_eq!(code, 0);
    for words in ["Exit code: 0", "container-root", "Examples:", "enforcer scope harden", "--require"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn scopes_of_the_running_service_are_graded() {
    let upstream = Upstream::start("upstream.test", String::new()).unwrap();
    let service = Service::start("upstream.test", &upstream, "version: 1\nname: n\nrules: []\n").unwrap();
    let held = service.cgroup.path().join("held");
    std::fs::create_dir(&held).unwrap();
    let out = service.output(&["scope", "add", "ci", "--cgroup", "/held"]).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let graded = |args: &[&str]| {
        let out = service.output(&[&["doctor", "-o", "json"], args].concat()).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
        (out.status.code(), report)
    };
    let (_, report) = graded(&[]);
    let names: Vec<&str> =
        report["scopes"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["run", "ci/held"], "{report:#}");
    let (code, report) = graded(&["--scope", "ci"]);
    let state = |list: &serde_json::Value, id: &str| {
        let found = list.as_array().unwrap().iter().find(|it| it["id"] == id).cloned();
        found.unwrap_or_else(|| panic!("{id}: {report:#}"))
    };
    let scope = &report["scopes"][0];
    assert_eq!(state(&report["host"], "service-whole")["state"], "good", "{report:#}");
    assert_eq!(state(&scope["findings"], "scope-tagged")["state"], "good", "{scope:#}");
    // Nothing speaks for an empty cgroup.
    assert_eq!((code, scope["kind"].as_str()), (Some(1), Some("cgroup")));
    std::fs::remove_dir(&held).unwrap();
}
