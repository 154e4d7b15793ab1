//! `enforcer scope harden`: what it writes, what it leaves alone, and that systemd takes it.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use enforcer::app::doctor::harden::{HardenError, Plan, Wishes};
use enforcer::app::doctor::{Level, State, Unit};

use enforcer_tests::fake::{Fake, UNIT, with};

const FILE: &str = "/etc/systemd/system/runner.service.d/50-enforcer.conf";
const BARE: &str =
    "[Service]\nUser=ci\nSlice=ci.slice\nWorkingDirectory=/home/ci/runner\nExecStart=/bin/true\n";

/// A host where only the unit lacks everything.
fn bare() -> Fake {
    let mut fake = Fake::good();
    fake.without_lsm();
    fake.unit(BARE);
    fake.remove(&format!("/etc/systemd/system/{UNIT}.d/90-test.conf"));
    fake
}

fn plan(fake: &Fake) -> Plan {
    Plan::of(&fake.host(), UNIT, &Wishes::default()).unwrap()
}

fn written(fake: &Fake) -> String {
    std::fs::read_to_string(fake.at(FILE)).unwrap()
}

#[test]
fn what_doctor_demands_of_a_unit_is_written_and_once_is_enough() {
    for user in ["User=ci", "User=root"] {
        let fake = bare();
        fake.replace("/etc/systemd/system/runner.service", "User=ci", user);
        let before = with(&fake.report(Level::HostRoot), State::Missing).len();
        assert!(before > 8, "{before}");
        let first = plan(&fake);
        assert!(!first.is_done() && first.diff().contains("+NoNewPrivileges=yes"), "{}", first.diff());
        first.apply(&fake.host()).unwrap();
        assert_eq!(fake.at(FILE).metadata().unwrap().permissions().mode() & 0o777, 0o644);
        let left = with(&fake.report(Level::HostRoot), State::Missing);
        let wanted: &[&str] = match user {
            "User=ci" => &["bpf-lsm", "restrict-namespaces"],
            // What a drop-in does not put right: the user, and where `su` leads.
            _ => &["bpf-lsm", "su-session", "job-user", "restrict-namespaces"],
        };
        assert_eq!(left, wanted, "{user}: {}", written(&fake));
        let again = plan(&fake);
        assert!(again.is_done() && again.diff().is_empty(), "{}", again.diff());
    }
}

#[test]
fn a_file_of_somebody_else_is_left_alone() {
    let fake = bare();
    plan(&fake).apply(&fake.host()).unwrap();
    let ours = written(&fake);
    for text in ["[Service]\nUser=x\n".to_owned(), String::new(), format!("{ours}User=x\n")] {
        fake.file(FILE, &text, 0, 0o644);
        let refused = Plan::of(&fake.host(), UNIT, &Wishes::default());
        assert!(matches!(refused, Err(HardenError::Foreign(_))), "{text}");
        assert_eq!(written(&fake), text);
    }
    // One that is ours and not needed any more goes.
    fake.file(FILE, &ours, 0, 0o644);
    let body: String =
        ours.lines().filter(|line| !line.starts_with('#')).skip(1).map(|line| format!("{line}\n")).collect();
    fake.unit(&format!("{BARE}{body}"));
    plan(&fake).apply(&fake.host()).unwrap();
    assert!(!fake.at(FILE).exists());
}

#[test]
fn what_is_narrower_stays_and_what_is_wider_is_narrowed() {
    let fake = bare();
    fake.unit(&format!(
        "{BARE}RestrictAddressFamilies=AF_UNIX AF_VSOCK\nCapabilityBoundingSet=CAP_CHOWN\n\
         SystemCallFilter=@basic-io\nProtectControlGroups=strict\n"
    ));
    plan(&fake).apply(&fake.host()).unwrap();
    let text = written(&fake);
    for key in ["CapabilityBoundingSet", "SystemCallFilter", "ProtectControlGroups"] {
        assert!(!text.contains(key), "{key}: {text}");
    }
    let unit = Unit::find(&fake.host(), UNIT).unwrap();
    let families = ["AF_UNIX", "AF_INET", "AF_VSOCK"].map(|family| unit.allows_family(family));
    assert_eq!(families, [true, false, false], "{text}");
    assert_eq!(unit.capabilities("CapabilityBoundingSet").unwrap().len(), 1);
}

#[test]
fn what_a_later_drop_in_says_is_left_to_it() {
    let fake = bare();
    let later = "/etc/systemd/system/runner.service.d/override.conf";
    fake.file(later, "[Service]\nSystemCallFilter=@system-service\nNoNewPrivileges=no\n", 0, 0o644);
    let plan = plan(&fake);
    let left: Vec<&str> = plan.left.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(left, ["NoNewPrivileges=yes", "SystemCallFilter=~@keyring io_uring_setup"]);
    assert!(plan.left.iter().all(|(_, file)| file.to_str() == Some(later)));
    plan.apply(&fake.host()).unwrap();
    // Ours, coming first, would have made a list of what is denied of the list of what is allowed.
    assert!(!Unit::find(&fake.host(), UNIT).unwrap().allows_call("bpf"));
    // One that comes before ours is no hindrance.
    std::fs::rename(fake.at(later), fake.at("/etc/systemd/system/runner.service.d/10-a.conf")).unwrap();
    assert!(crate::harden::plan(&fake).left.is_empty());
}

#[test]
fn wishes_are_heeded_or_refused() {
    let fake = bare();
    let wishes = Wishes {
        without: vec!["NoNewPrivileges".into(), "InaccessiblePaths".into()],
        no_containers: true,
        own_network: true,
        slice: Some("ci-jobs.slice".into()),
    };
    Plan::of(&fake.host(), UNIT, &wishes).unwrap().apply(&fake.host()).unwrap();
    let text = written(&fake);
    assert!(text.contains("RestrictNamespaces=yes\n") && text.contains("Slice=ci-jobs.slice\n"), "{text}");
    assert!(!text.contains("NoNewPrivileges") && !text.contains("InaccessiblePaths"), "{text}");
    let wrong = Wishes { without: vec!["User".into()], ..Wishes::default() };
    assert!(matches!(Plan::of(&fake.host(), UNIT, &wrong), Err(HardenError::NoSetting(_))));
    for slice in ["ci", "../x.slice", "a/b.slice", "a b.slice"] {
        let wrong = Wishes { slice: Some(slice.into()), ..Wishes::default() };
        assert!(matches!(Plan::of(&fake.host(), UNIT, &wrong), Err(HardenError::Slice(_))), "{slice}");
    }
}

fn harden(fake: &Fake, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(enforcer_tests::service::program().unwrap());
    command.args(["scope", "harden", "runner", "--root"]).arg(fake.at("/")).args(args);
    let out = command.stdin(Stdio::null()).env_remove("ENFORCER_CONFIG").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (out.status.code().unwrap(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn a_unit_waits_for_the_service_and_sees_its_roots() {
    let fake = bare();
    fake.file("/etc/ssl/certs/ca-certificates.crt", "", 0, 0o644);
    fake.file("/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "", 0, 0o644);
    fake.link("../../ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt");
    plan(&fake).apply(&fake.host()).unwrap();
    let text = written(&fake);
    let bind = |line: &str| {
        text.matches(&format!("BindReadOnlyPaths=-/run/enforcer/trust/current/{line}\n")).count()
    };
    assert_eq!(bind("certs:/etc/ssl/certs"), 1, "{text}");
    assert_eq!(bind("bundle.pem:/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem"), 1, "{text}");
    assert_eq!(text.matches("BindReadOnlyPaths=").count(), 2, "{text}");
    let (_, of_unit) = text.split_once("[Unit]\n").unwrap();
    assert!(of_unit.contains("After=enforcer.service\n") && of_unit.contains("Wants=enforcer.service\n"));
    let report = fake.report(Level::HostRoot);
    for id in ["boot-order", "trust-store"] {
        assert_eq!(enforcer_tests::fake::finding(&report, id).state, State::Good, "{id}");
    }
    assert!(plan(&fake).is_done());
    // Other units that are waited for, and settings that come later, are no hindrance.
    fake.file("/etc/systemd/system/runner.service.d/override.conf", "[Unit]\nAfter=x.service\n", 0, 0o644);
    assert!(plan(&fake).is_done());
}

#[test]
fn json_is_whole_whatever_is_done() {
    let fake = bare();
    let read = |args: &[&str]| {
        let (code, text, said) = harden(&fake, args);
        let json: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {said}"));
        (code, json)
    };
    let (code, json) = read(&["-o", "json"]);
    assert!(code == 1 && json["done"] == false, "{json}");
    assert!(json["diff"].as_str().unwrap().contains("+NoNewPrivileges=yes"), "{json}");
    // There is nobody to ask in JSON.
    assert_eq!(read(&["--apply", "--json"]).0, 1);
    assert!(!fake.at(FILE).exists());
    let (code, json) = read(&["--apply", "--yes", "--json"]);
    assert!(code == 0 && json["done"] == true && json["path"] == FILE, "{json}");
    let (code, json) = read(&["--json"]);
    assert!(code == 0 && json["done"] == true && json["diff"] == "", "{json}");
}

#[test]
fn it_shows_asks_and_writes() {
    let fake = bare();
    let (code, text, _) = harden(&fake, &[]);
    assert!(
        code == 1 && text.contains("+++ /etc/systemd/system/runner.service.d/50-enforcer.conf"),
        "{code} {text}"
    );
    assert!(text.contains("+NoNewPrivileges=yes") && text.contains("not written; --apply"), "{text}");
    let (code, text, said) = harden(&fake, &["--apply"]);
    assert!(code == 2 && said.contains("--yes") && text.contains("+NoNewPrivileges=yes"), "{code} {said}");
    assert!(!fake.at(FILE).exists());
    let (code, text, said) = harden(&fake, &["--apply", "--yes"]);
    assert!(
        code == 0 && text.contains("+NoNewPrivileges=yes") && text.contains("systemctl daemon-reload"),
        "{said}"
    );
    assert!(fake.at(FILE).exists());
    let (code, text, _) = harden(&fake, &["--apply", "--yes"]);
    assert!(code == 0 && text.contains("nothing to change"), "{code} {text}");
    fake.file(FILE, "[Service]\n", 0, 0o644);
    let (code, _, said) = harden(&fake, &["--apply", "--yes"]);
    assert!(code == 2 && said.contains("left alone"), "{code} {said}");
}

#[test]
fn systemd_takes_what_is_written() {
    let fake = bare();
    let wishes = Wishes { no_containers: true, slice: Some("ci-jobs.slice".into()), ..Wishes::default() };
    Plan::of(&fake.host(), UNIT, &wishes).unwrap().apply(&fake.host()).unwrap();
    // Its user need not exist here.
    fake.replace("/etc/systemd/system/runner.service", "User=ci\n", "User=root\n");
    fake.replace("/etc/systemd/system/runner.service", "/home/ci/runner", "/");
    let units = fake.at("/etc/systemd/system");
    let verify = || {
        let mut command = Command::new("systemd-analyze");
        command.env("SYSTEMD_UNIT_PATH", format!("{}:", units.display())).arg("verify").arg(units.join(UNIT));
        let out = command.output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (fine, said) = verify();
    assert!(fine && !said.contains("runner.service") && !said.contains("50-enforcer"), "{said}");
    // It looks at the drop-in: what is wrong there is told.
    fake.file(
        &format!("/etc/systemd/system/{UNIT}.d/60-wrong.conf"),
        "[Service]\nNoNewPrivilege=yes\n",
        0,
        0o644,
    );
    let (_, said) = verify();
    assert!(said.contains("60-wrong.conf"), "{said}");
}
