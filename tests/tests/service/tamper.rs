//! Somebody with root changes what the service has attached.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use enforcer_tests::service::Service;
use enforcer_tests::sniffer::contains;
use enforcer_tests::tamper::{Allows, detach};
use enforcer_tests::wait::{PATIENCE, until};

use crate::world::*;

/// From the change on.
const NOTICED: Duration = Duration::from_secs(1);
fn job(service: &Service, script: &str) -> Child {
    let mut command = service.command(&["run", "--", "sh", "-c", &format!("echo; {script}")]).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    child
}

fn end(mut job: Child) {
    // Without its client a job does not go on.
    job.kill().unwrap();
    job.wait().unwrap();
}

fn is_whole(service: &Service) -> bool {
    service.status().is_ok_and(|status| status["healthy"] == true)
}

fn reload(service: &Service) -> String {
    let out = service.output(&["reload"]).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// A packet that an untagged backstop would have let pass: nothing of it may be seen.
fn nothing_left(world: &World) {
    let packets = world.leaked();
    assert!(!packets.iter().any(|it| contains(&it.bytes, PAYLOAD)), "{packets:?}");
}

#[test]
fn who_detaches_a_program_is_noticed_and_nobody_tagged_has_a_network_until_somebody_looked() {
    let world = World::new();
    let job = job(&world.service, "exec sleep 300");
    let pins = world.service.pins().unwrap();
    let mut best = PATIENCE;
    for name in ["connect4", "root_egress", "sock_create"] {
        detach(&pins.join(format!("link_{name}"))).unwrap();
        let took = until(name, || world.service.status().unwrap()["mode"] == "deny");
        best = best.min(took);
        // The link is there again, and still nobody has a network.
        let status = world.service.status().unwrap();
        assert!(status["pins"].as_array().unwrap().iter().all(|pin| pin["problem"].is_null()), "{status:#}");
        assert!(
            status["healthy"] == false && status["tampered"].as_str().unwrap().contains(name),
            "{status:#}"
        );
        assert!(world.tagged(&format!("{PROBE} tcp 10.77.0.2:4444")).starts_with(REFUSED));
        assert!(world.tagged(&format!("{PROBE} udp-sendto 10.77.0.2:4444")).starts_with(REFUSED));
        nothing_left(&world);
        let text = world.service.output(&["status"]).unwrap();
        let text = String::from_utf8_lossy(&text.stdout).into_owned();
        assert!(text.starts_with("NOT WHOLE") && text.contains("enforcer reload"), "{text}");
        assert!(reload(&world.service).contains("have a network again"));
        world.service.wait_whole().unwrap();
        assert_eq!(world.job("curl -sS -m 5 https://upstream.test/"), "hello");
    }
    // On a machine that others use as well, one of three is not held up by them.
    assert!(best < NOTICED, "{best:?}");
    let out = world.service.output(&["sessions", "verify"]).unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    let written = world.service.written().unwrap();
    assert!(contains(&written, b"\"event\":\"tampered\"") && contains(&written, b"connect4: detached"));
    end(job);
}

#[test]
fn what_is_denied_stays_so_when_the_service_is_killed_and_comes_back() {
    let mut world = World::new();
    let job = job(&world.service, "exec sleep 300");
    detach(&world.service.pins().unwrap().join("link_connect6")).unwrap();
    until("denied", || world.service.status().unwrap()["mode"] == "deny");
    world.service.kill_daemon().unwrap();
    world.service.start_daemon().unwrap();
    let status = world.service.status().unwrap();
    assert!(status["healthy"] == false && status["tampered"].is_string(), "{status:#}");
    // A signal has all read again, and is no operator who has looked at it.
    let config = world.service.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("{text}[[scope]]\nname = \"later\"\ncgroup = \"/nobody\"\n")).unwrap();
    let daemon = nix::unistd::Pid::from_raw(world.service.daemon_pid().unwrap());
    nix::sys::signal::kill(daemon, nix::sys::signal::Signal::SIGHUP).unwrap();
    let scopes = || world.service.output(&["scope", "ls", "-o", "json"]).unwrap().stdout;
    until("the scope", || contains(&scopes(), b"later"));
    let status = world.service.status().unwrap();
    assert!(status["mode"] == "deny" && status["tampered"].is_string(), "{status:#}");
    assert!(world.tagged(&format!("{PROBE} tcp 10.77.0.2:4444")).starts_with(REFUSED));
    reload(&world.service);
    world.service.wait_whole().unwrap();
    end(job);
    for group in jobs(&world.service) {
        std::fs::write(group.join("cgroup.kill"), "1").unwrap();
    }
}

/// The cgroups of the jobs that run.
fn jobs(service: &Service) -> Vec<PathBuf> {
    let jobs = std::fs::read_dir(service.cgroup.path().join("jobs")).unwrap().flatten();
    jobs.map(|it| it.path()).filter(|path| path.is_dir()).collect()
}

#[test]
fn by_configuration_jobs_are_frozen_until_somebody_looked() {
    let mut world = World::new();
    let config = world.service.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[kernel]\n", "[kernel]\non_tamper = \"freeze\"\n")).unwrap();
    world.service.kill_daemon().unwrap();
    world.service.start_daemon().unwrap();
    let job = job(&world.service, "while :; do echo x; sleep 0.05; done > /dev/null");
    let [group] = &jobs(&world.service)[..] else { panic!("not one job") };
    let frozen = |yes: &str| std::fs::read_to_string(group.join("cgroup.events")).unwrap().contains(yes);
    assert!(frozen("frozen 0"));
    detach(&world.service.pins().unwrap().join("link_sendmsg4")).unwrap();
    until("frozen", || frozen("frozen 1"));
    let text = world.service.output(&["status"]).unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    assert!(text.contains("are frozen") && text.contains("enforcer reload"), "{text}");
    reload(&world.service);
    until("thawed", || frozen("frozen 0"));
    world.service.wait_whole().unwrap();
    end(job);
}

#[test]
fn a_program_that_somebody_attaches_beside_ours_is_reported_by_name() {
    let world = World::new();
    assert!(is_whole(&world.service));
    let stranger = Allows::connect4().unwrap();
    stranger.attach(world.service.cgroup.path(), true).unwrap();
    until("reported", || !is_whole(&world.service));
    let status = world.service.status().unwrap();
    assert_eq!((&status["foreign"][0]["name"], &status["mode"]), (&"stranger".into(), &"redirect".into()));
    let text = world.service.output(&["status"]).unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("(stranger) is attached to "));
    let log = || std::fs::read_to_string(world.service.log()).unwrap();
    until("in the log", || log().contains("a program of somebody else"));
    stranger.detach(world.service.cgroup.path()).unwrap();
    until("whole again", || is_whole(&world.service));
}

/// A second service with the same configuration is told who is first.
#[test]
fn a_second_service_refuses_to_start_and_says_why() {
    let world = World::new();
    let daemon = world.service.command(&["daemon"]).unwrap();
    let netns = format!("--net=/run/netns/{}", world.cable.work.name());
    let mut command = std::process::Command::new("nsenter");
    let out = command.arg(netns).arg(daemon.get_program()).args(daemon.get_args()).output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!out.status.success() && said.contains("another loader holds"), "{said}");
    assert!(is_whole(&world.service));
    assert_eq!(world.job("curl -sS -m 5 https://upstream.test/"), "hello");
}
