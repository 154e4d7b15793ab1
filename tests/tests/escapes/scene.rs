//! What stands around an attempt: helpers, gifts, and the moment of the tag.

use std::io::{BufRead, BufReader, IoSlice, IoSliceMut, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use enforcer::kernel::{Spared, close_foreign};
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::kernel::{DNS_PORT, TCP_PORT};
use enforcer_tests::netns::WORK4;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use crate::arena::Arena;
use crate::outcome::Level;
use crate::spawn::{Given, Helper, said};
use crate::table::Technique;

/// What an attempt needs beside the process that makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scene {
    /// Nothing.
    Alone,
    /// Nothing, but it breaks the world.
    Damage,
    /// Not the wire, but what the call said, decides: the port is the prize.
    Said,
    /// It is about the enforcer itself, of which no control is needed.
    Proxy,
    /// A process outside, started with these words.
    Helper(&'static [&'static str]),
    /// A socket that somebody outside made by these words, and hands out.
    Gift(&'static str),
    /// The same socket, as standard input.
    Stdin(&'static str),
    /// The same, as a descriptor that was left open.
    Inherited(&'static str),
    /// The job makes a socket by these words; somebody outside uses it.
    Given(&'static str),
    /// The process is tagged when it is ready.
    Late,
    /// The peer comes for it.
    Pulled,
}

impl Scene {
    /// Plays it for a process in this cgroup, and returns what was said.
    pub fn play(self, arena: &Arena, cgroup: &Cgroup, level: Level, technique: &Technique) -> String {
        let run = |args: &[String], given: Given| arena.run(cgroup, level, args, given);
        // Those of a helper are known when it is there.
        let plain = if let Self::Helper(_) = self { &[][..] } else { technique.args };
        let args = arena.words(plain, cgroup, &[]);
        match self {
            Self::Alone | Self::Damage | Self::Proxy => run(&args, Given::default()),
            Self::Said if std::ptr::eq(cgroup, &arena.world.outside) => {
                // These ports are closed to everybody: an open one stands for them.
                let open = |word: &String| word.replace("15001", "15101").replace("15053", "15153");
                run(&args.iter().map(open).collect::<Vec<_>>(), Given::default())
            }
            Self::Said => run(&args, Given::default()),
            Self::Helper(words) => match Helper::start(arena, level, &arena.words(words, cgroup, &[])) {
                Ok(helper) => run(&arena.words(technique.args, cgroup, &helper.words), Given::default()),
                Err(said) => said,
            },
            Self::Gift(words) => {
                let socket = made_outside(arena, words);
                let at = arena.gifts();
                // What an earlier one left.
                drop(std::fs::remove_file(&at));
                let giver = UnixListener::bind(&at).unwrap();
                std::fs::set_permissions(&at, PermissionsExt::from_mode(0o777)).unwrap();
                let thread = std::thread::spawn(move || {
                    let (taker, _) = giver.accept().unwrap();
                    send(taker.as_raw_fd(), socket.as_raw_fd());
                });
                let said = run(&args, Given::default());
                if !thread.is_finished() {
                    // Nobody came, who could not.
                    drop(UnixStream::connect(&at));
                }
                thread.join().unwrap();
                said
            }
            Self::Stdin(words) => {
                let socket = made_outside(arena, words);
                run(&args, Given { stdin: Some(socket), ..Given::default() })
            }
            Self::Inherited(words) => {
                let socket = made_outside(arena, words);
                run(&args, Given { inherited: Some(socket), ..Given::default() })
            }
            Self::Given(words) => {
                let socket = donated(arena, cgroup, level, words);
                let given = Given { stdin: Some(socket), ..Given::default() };
                arena.run(&arena.world.outside, Level::Root, &args, given)
            }
            Self::Late => late(arena, cgroup, level, &args),
            Self::Pulled => pulled(arena, cgroup, level, &args),
        }
    }
}

/// A socket of somebody outside. What it took to connect it is not the attempt.
fn made_outside(arena: &Arena, words: &str) -> OwnedFd {
    let socket = donated(arena, &arena.world.outside, Level::Root, words);
    arena.world.sniffer.clear().unwrap();
    socket
}

/// A socket that a process of this cgroup made and gave away.
fn donated(arena: &Arena, cgroup: &Cgroup, level: Level, words: &str) -> OwnedFd {
    let (here, there) = UnixStream::pair().unwrap();
    let words: Vec<&str> = words.split(' ').collect();
    let args = arena.words(&words, cgroup, &[]);
    let donor = arena.spawn(cgroup, level, &args, Given { stdin: Some(there.into()), ..Given::default() });
    let mut byte = [0];
    let mut parts = [IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(here.as_raw_fd(), &mut parts, Some(&mut space), flags).unwrap();
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs().unwrap().next() else {
        panic!("no socket came: {}", said(donor))
    };
    assert_eq!(said(donor), "ok given");
    // SAFETY: it has just been received.
    unsafe { OwnedFd::from_raw_fd(fds[0]) }
}

fn send(over: RawFd, socket: RawFd) {
    let fds = [socket];
    let given = [ControlMessage::ScmRights(&fds)];
    // Whoever came may be gone.
    let _taken = sendmsg::<UnixAddr>(over, &[IoSlice::new(b"x")], &given, MsgFlags::empty(), None).is_ok();
}

fn late(arena: &Arena, cgroup: &Cgroup, level: Level, args: &[String]) -> String {
    let mut child = arena.spawn(&arena.world.outside, level, args, Given::default());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    if line.trim() == "ready" {
        // What a process made before it was tagged is another attempt than what follows.
        arena.world.sniffer.clear().unwrap();
        move_all(cgroup, child.id());
        if level.is_swept() && !std::ptr::eq(cgroup, &arena.world.outside) {
            sweep(arena, cgroup);
        }
        child.stdin.take().unwrap().write_all(b"\n").unwrap();
        line.clear();
        output.read_line(&mut line).unwrap();
    }
    child.wait().unwrap();
    line.trim().to_owned()
}

/// With the process that it has started as the first of its namespace.
fn move_all(cgroup: &Cgroup, pid: u32) {
    let children = format!("/proc/{pid}/task/{pid}/children");
    let children = std::fs::read_to_string(children).unwrap_or_default();
    for child in children.split_whitespace() {
        cgroup.add(child.parse().unwrap()).unwrap();
    }
    cgroup.add(pid).unwrap();
}

/// As the service does when something comes under the tag of a scope.
fn sweep(arena: &Arena, cgroup: &Cgroup) {
    let held = std::fs::read_to_string(cgroup.path().join("cgroup.procs")).unwrap();
    let sockets = held.lines().flat_map(|pid| std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap());
    let links = sockets.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    let inodes = links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse::<u64>().ok());
    let spared = Spared { ports: [TCP_PORT, DNS_PORT], ..Spared::default() };
    let netns = arena.world.cable.work.file().try_clone().unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let closed = close_foreign(&netns, &inodes.collect(), &spared, &|_| true, until).unwrap();
    assert!(closed.whole, "there was no time to close all");
}

fn pulled(arena: &Arena, cgroup: &Cgroup, level: Level, args: &[String]) -> String {
    let mut child = arena.spawn(cgroup, level, args, Given::default());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let pull = || -> std::io::Result<String> {
        let mut text = String::new();
        let patience = Duration::from_millis(700);
        TcpStream::connect_timeout(&(WORK4, 7000).into(), patience)?.read_to_string(&mut text)?;
        Ok(text)
    };
    let pulled = arena.world.cable.peer.run(pull).unwrap();
    child.wait().unwrap();
    format!("{pulled:?}")
}
