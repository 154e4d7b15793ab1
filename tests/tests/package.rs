//! The Debian package: what is in it, and that its removal lifts enforcement.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::{Path, PathBuf};
use std::process::Command;

use enforcer_tests::service::{Service, Upstream};

const DIST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../enforcer/dist");

fn dist(name: &str) -> PathBuf {
    Path::new(DIST).join(name)
}

/// That it names every setting with its default is a test beside the settings.
#[test]
fn the_shipped_configuration_holds() {
    let shipped = enforcer::app::config::Config::load(&dist("config.toml")).unwrap();
    assert_eq!(shipped.cgroup.own, Path::new("/system.slice/enforcer.service/own"));
}

#[test]
fn removal_lifts_enforcement_and_an_upgrade_does_not() {
    let upstream = Upstream::start("upstream.test", String::new()).unwrap();
    let mut service = Service::start("upstream.test", &upstream, "version: 1\nname: n\nrules: []\n").unwrap();
    let program = PathBuf::from(service.command(&[]).unwrap().get_program());
    let path = format!("{}:{}", program.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let config = service.dir.path().join("config.toml");
    let script = |name: &str, arg: &str| {
        let mut command = Command::new("sh");
        command.arg(dist("debian").join(name)).arg(arg).env("PATH", &path);
        command.env("ENFORCER_CONFIG", &config).output().unwrap()
    };
    let out = script("prerm", "upgrade");
    assert!(out.status.success());
    assert_eq!(service.status().unwrap()["healthy"], true);
    let out = script("prerm", "remove");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Before its files are removed.
    assert!(!service.pins().unwrap().exists(), "the script has ended, and enforcement is not lifted");
    service.wait_lifted().unwrap();
    // Without a service, too; and nothing to lift is no error.
    assert!(script("prerm", "remove").status.success());
}

#[test]
fn the_unit_starts_the_service_that_the_package_has() {
    let unit = std::fs::read_to_string(dist("enforcer.service")).unwrap();
    let wanted = ["ExecStart=/usr/bin/enforcer daemon", "Type=notify", "Delegate=yes"];
    // Nothing brings it back that was lifted on purpose, and everything else does.
    for line in wanted.into_iter().chain(["Restart=always", "RestartPreventExitStatus=0"]) {
        assert!(unit.lines().any(|it| it == line), "{line}");
    }
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("enforcer.service");
    // What it checks of a unit is more than whether its program is installed here.
    let unit = unit.replace("/usr/bin/enforcer", "/bin/true").replace("Documentation=man:enforcer(1)\n", "");
    std::fs::write(&copy, unit).unwrap();
    let out = Command::new("systemd-analyze").arg("verify").arg(&copy).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && !said.contains("enforcer.service"), "{said}");
}
