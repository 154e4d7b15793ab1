//! The kernel half of a debug build says what it decides; the one for hosts does not.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use enforcer_tests::bpf::debug_object;
use tracing_subscriber::fmt::MakeWriter;

use super::world::*;

/// What the log of this process says.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[test]
fn a_debug_build_says_what_it_decides() {
    let lines = Lines::default();
    tracing_subscriber::fmt()
        .with_env_filter("enforcer_ebpf=trace")
        .with_writer(lines.clone())
        .with_ansi(false)
        .init();
    let mut world = World::of(debug_object().unwrap());
    world.serve();
    let mut log = world.kernel().program_log().expect("the object does not log");
    assert!(world.kernel().program_log().is_none(), "there is one reader");

    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.tagged("udp-sendto", real4()).starts_with(EPERM));
    assert!(world.tagged("udp-sendto", real6()).starts_with(EPERM));
    assert!(world.tagged("udp-connect", real4()).starts_with(EPERM));
    assert!(world.tagged("mptcp", real4()).starts_with(EPERM));
    assert!(world.tagged("bindtodevice", real4()).starts_with(EPERM));
    assert!(world.tagged("dns", "[fd77::2]:53").starts_with("ok"));
    world.refused_with("sendmsg4", "udp");

    let job = enforcer::kernel::cgroup_id(world.job.path()).unwrap();
    let who = format!("tag {TAG} cgroup {job}");
    let (v4, v6) = (format!("[::ffff:{}]:{REAL_PORT}", real4().ip()), real6());
    let expected = [
        ("connect4", "redirected", v4.as_str()),
        ("egress", "recorded", "[::ffff:127.0.0.1]:"),
        ("own_getsockopt", "record given", "[::ffff:127.0.0.1]:"),
        ("getpeername", "peer restored", v4.as_str()),
        ("sendmsg4", "refused: udp", v4.as_str()),
        ("sendmsg6", "refused: udp", &v6.to_string()),
        ("sock_create", "allowed", "[::]:0"),
        ("sock_create", "refused: socket-type", "[::]:0"),
        ("sendmsg6", "redirected", "[fd77::2]:53"),
        ("own_setsockopt", "record given", "[::1]:"),
        ("recvmsg", "peer restored", "[fd77::2]:53"),
        ("connect4", "direct", v4.as_str()),
        ("egress", "refused: off-loopback", "[::]:0"),
        ("egress", "passed", &format!("[::ffff:127.0.0.1]:{TCP_PORT}")),
        ("setsockopt", "refused: socket-option", "[::]:0"),
        ("bind4", "listens for us", &format!("]:{TCP_PORT}")),
    ]
    .map(|(program, word, address)| {
        let who = if program.starts_with("bind") { "tag 0 cgroup 0" } else { &who };
        // Packets are many.
        let level = if word == "passed" { "TRACE" } else { "DEBUG" };
        (format!("{level} enforcer_ebpf: {program:<14} {word:<25} {who} "), address.to_owned())
    });
    let until = Instant::now() + Duration::from_secs(5);
    loop {
        log.wait(Duration::from_millis(100)).unwrap();
        let text = lines.text();
        let said = |(line, address): &&(String, String)| {
            text.lines().any(|it| it.split_once(line.as_str()).is_some_and(|(_, to)| to.contains(address)))
        };
        let Some(missing) = expected.iter().find(|it| !said(it)) else { break };
        assert!(Instant::now() < until, "no {missing:?} in\n{text}");
    }
}

#[test]
fn the_object_for_hosts_does_not_log() {
    let mut world = World::served();
    assert!(world.tagged("tcp", real4()).contains("PROXY"));
    assert!(world.kernel().program_log().is_none());
    let names = |object| {
        let bytes = std::fs::read(object).unwrap();
        memchr::memmem::find(&bytes, b"AYA_LOG").is_some()
    };
    assert!(names(debug_object().unwrap()), "the name is another: this test proves nothing");
    assert!(!names(object()));
}
