//! Loopback, where the proxy listens and where a workload may talk to itself: who is
//! really reached there, and whose connection it really is.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsFd;

use enforcer::net::sys;
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::WORK4;
use enforcer_tests::wait::until;

use crate::world::*;

/// The kernel makes loopback out of the unspecified address, but which one depends on
/// where the socket is bound: the programs and the kernel have to mean the same.
#[test]
fn the_unspecified_address_leads_to_nobody_elses_listener() {
    let world = World::served();
    // What it is bound to, and where somebody untagged listens.
    for (bound, listening) in [("10.77.0.1:6100", WORK4), ("[::ffff:127.0.0.1]:6200", Ipv4Addr::LOCALHOST)] {
        let port = bound.parse::<SocketAddr>().unwrap().port();
        let bind = move || TcpListener::bind((listening, port)).unwrap();
        let listener = world.cable.work.run(bind).unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                // The client may be gone.
                drop(stream.read_exact(&mut [0; PAYLOAD.len()]).and_then(|()| stream.write_all(b"REAL")));
            }
        });
        let outcome = world.untagged("unspecified", bound);
        assert!(outcome.ends_with("REAL"), "{bound}: the attempt proves nothing: {outcome}");
        let outcome = world.tagged("unspecified", bound);
        assert!(!outcome.contains("REAL"), "{bound}: {outcome}");
    }
}

/// Somebody took the port before there was an enforcer, without listening: that is no
/// conflict until the proxy is gone, and no bind(2) is needed then.
#[test]
fn a_port_that_was_taken_before_is_given_no_connection() {
    for address in ["127.0.0.1:15001", "[::1]:15001"] {
        let mut world = World::new();
        let mut holder = world.spawn(&world.outside, &["hold", address]);
        let mut output = BufReader::new(holder.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready");
        let netns = world.cable.work.file().try_clone().unwrap();
        drop(world.kernel().open_listeners(Some(&netns)).unwrap());
        holder.stdin.take().unwrap().write_all(b"\n").unwrap();
        line.clear();
        output.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "listening", "the attempt proves nothing");
        let to = if address.starts_with('[') { real6() } else { real4() };
        let outcome = world.tagged("tcp", to);
        holder.kill().unwrap();
        holder.wait().unwrap();
        assert!(outcome.starts_with(EPERM), "{address}: {outcome}");
        let hook = if to.is_ipv4() { "connect4" } else { "connect6" };
        assert_eq!(world.refused_with(hook, "enforcer-port").tag, TAG);
    }
}

/// A connection that was reset waits to be accepted all the same; by then its port may
/// be another workload's, and so is the record.
#[test]
fn a_connection_that_is_over_does_not_take_the_record_of_the_next_one() {
    const PORT: &str = "4700";
    let mut world = World::new();
    let netns = world.cable.work.file().try_clone().unwrap();
    let [tcp4, _tcp6, _udp4, _udp6] =
        world.kernel().open_listeners(Some(&netns)).unwrap().into_fds().unwrap();
    let listener = TcpListener::from(tcp4);
    let to = real4().to_string();
    let outcome = world.probe_in(&world.job, &["reset-from", &to, PORT]);
    assert_eq!(outcome, "ok reset");
    let next = world.spawn(&world.other_job, &["tcp-from", &to, PORT]);
    let mut accepted = Vec::new();
    until("both connections come", || {
        accepted.extend(listener.accept().map(|(stream, _)| stream));
        accepted.len() == 2
    });
    // Both are there: the first was reset when the second had not begun.
    let tags: Vec<_> = accepted.iter().map(|it| sys::flow_of(it.as_fd()).unwrap().map(|it| it.tag)).collect();
    assert_eq!(tags, [None, Some(OTHER_TAG)]);
    accepted[1].set_nonblocking(false).unwrap();
    accepted[1].read_exact(&mut [0; PAYLOAD.len()]).unwrap();
    accepted[1].write_all(b"answer").unwrap();
    drop(accepted);
    let outcome = String::from_utf8(next.wait_with_output().unwrap().stdout).unwrap();
    assert!(outcome.trim().ends_with("answer"), "{outcome}");
}

/// Between its connect and its first packet a tag can be lifted; the record of that source
/// is somebody else's then.
#[test]
fn a_connection_whose_tag_was_lifted_before_it_began_does_not_begin() {
    const PORT: &str = "4710";
    let mut world = World::new();
    let netns = world.cable.work.file().try_clone().unwrap();
    let [tcp4, _tcp6, udp4, _udp6] = world.kernel().open_listeners(Some(&netns)).unwrap().into_fds().unwrap();
    let listener = TcpListener::from(tcp4);
    let to = real4().to_string();
    // Its record stays: nobody has asked for it.
    assert_eq!(world.probe_in(&world.other_job, &["reset-from", &to, PORT]), "ok reset");
    until("the attempt proves something", || accepted(&listener));
    let late = |world: &mut World, name: &str, tag: u64, lifted: bool, args: &[&str]| {
        let job = world.jobs.child(name).unwrap();
        let id = world.kernel().tag(job.path(), tag, 0).unwrap();
        let outcome = after_a_line(world, &job, args, |world| {
            if lifted {
                world.kernel().untag(id).unwrap();
            }
        });
        (outcome, job)
    };
    let (outcome, _job) = late(&mut world, "late", 8100, true, &["late-from", &to, PORT]);
    assert!(outcome.starts_with("error"), "{outcome}");
    assert!(!accepted(&listener), "it came to the proxy");
    assert_eq!(world.refused_with("egress", "enforcer-port").tag, 0);
    // One that is tagged still is the proxy's.
    let (_, _job) = late(&mut world, "tagged", 8101, false, &["late-from", &to, PORT]);
    until("a tagged connection comes", || accepted(&listener));
    // And names are asked of the resolver by who is tagged.
    stand_in_resolver(udp4);
    let (outcome, _job) = late(&mut world, "asks", 8102, false, &["late-dns", "10.77.0.2:53"]);
    assert!(outcome.ends_with("for 10.77.0.2:53 8102"), "{outcome}");
    let (outcome, _job) = late(&mut world, "asked", 8103, true, &["late-dns", "10.77.0.2:53"]);
    assert!(outcome.starts_with(EPERM), "{outcome}");
    world.nothing_leaked("connections whose tag was lifted");
}

/// Whether a connection is there by now.
fn accepted(listener: &TcpListener) -> bool {
    listener.accept().is_ok()
}

/// What comes of an attempt that waits while something is done.
fn after_a_line(world: &mut World, job: &Cgroup, args: &[&str], done: impl FnOnce(&mut World)) -> String {
    let mut child = world.spawn_with(job, args, std::process::Stdio::piped());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "ready");
    done(world);
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    line.clear();
    output.read_line(&mut line).unwrap();
    child.wait().unwrap();
    line.trim().to_owned()
}
