//! Processes of the suite, in a cgroup and at a level.

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use enforcer_tests::cgroup::Cgroup;

use crate::arena::Arena;
use crate::outcome::Level;

/// The number under which a job inherits what it should not.
const INHERITED: i32 = 9;

/// What a process is given.
#[derive(Default)]
pub struct Given {
    pub stdin: Option<OwnedFd>,
    pub inherited: Option<OwnedFd>,
    /// Not in the network namespace with the cable.
    pub elsewhere: bool,
}

impl Arena {
    pub fn spawn(&self, cgroup: &Cgroup, level: Level, args: &[String], given: Given) -> Child {
        let netns = self.world.cable.work.file().try_clone().unwrap();
        let mut command = Command::new(&self.probe);
        command.args(["as", level.name()]).arg(cgroup.path()).args(args).stdout(Stdio::piped());
        command.env("ENFORCER_TEST_UNIT", self.unit());
        command.stdin(given.stdin.map_or_else(Stdio::piped, Stdio::from));
        let (inherited, elsewhere) = (given.inherited, given.elsewhere);
        // SAFETY: only system calls, no memory is allocated.
        unsafe {
            command.pre_exec(move || {
                if let Some(fd) = &inherited
                    && libc::dup2(fd.as_raw_fd(), INHERITED) < 0
                {
                    return Err(std::io::Error::last_os_error());
                }
                if !elsewhere && libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    /// Starts it and waits for its end.
    pub fn run(&self, cgroup: &Cgroup, level: Level, args: &[String], given: Given) -> String {
        said(self.spawn(cgroup, level, args, given))
    }
}

/// The last word of a process.
pub fn said(child: Child) -> String {
    let out = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    text.trim().lines().last().unwrap_or("nothing").to_owned()
}

/// Somebody outside who lends a hand; ends with its owner.
pub struct Helper {
    child: Child,
    /// What it says of itself.
    pub words: Vec<String>,
}

impl Helper {
    /// Starts it and waits until it is ready; otherwise what it said.
    ///
    /// With the settings there is a network namespace of its own: nobody else is in there.
    pub fn start(arena: &Arena, level: Level, args: &[String]) -> Result<Self, String> {
        let given = Given { elsewhere: level.is_alone() && args[0] == "relay-abstract", ..Given::default() };
        let mut child = arena.spawn(&arena.world.outside, Level::Root, args, given);
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let mut words = line.split_whitespace().map(str::to_owned);
        let ready = words.next().as_deref() == Some("ready");
        let helper = Self { child, words: words.collect() };
        // What it did to be ready is not the attempt.
        arena.world.sniffer.clear().unwrap();
        if ready { Ok(helper) } else { Err(line.trim().to_owned()) }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
