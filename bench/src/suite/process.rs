//! Processes of a run.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Whether a real-time class may be had: then nothing else takes the CPU away.
static REAL_TIME: LazyLock<bool> = LazyLock::new(|| {
    let probe = Command::new("chrt").args(["-r", "1", "true"]).stderr(Stdio::null()).status();
    probe.is_ok_and(|status| status.success())
});

/// A process group that is killed when this is dropped.
pub struct Group {
    child: Child,
}

impl Group {
    /// Starts a command, with its output going to `log`.
    pub fn start(mut command: Command, log: &Path) -> Result<Self> {
        let log = std::fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        let child = command.spawn().with_context(|| format!("starting {:?}", command.get_program()))?;
        Ok(Self { child })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens.
    pub fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        while Instant::now() < until {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended with {status}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("nothing listens on {address}")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX));
        killpg(group, Signal::SIGKILL).ok();
        if let Err(error) = self.child.wait() {
            eprintln!("bench: a process that does not end: {error}");
        }
    }
}

/// A command on one CPU, in a class of its own if that may be had.
pub fn pinned(cpu: usize, program: &Path) -> Command {
    let words = words_of_pinned(cpu);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(program);
    command
}

/// What such a command begins with.
pub fn words_of_pinned(cpu: usize) -> Vec<String> {
    let class: &[&str] = if *REAL_TIME { &["chrt", "-r", "1"] } else { &["nice", "-n", "-20"] };
    let cpu = cpu.to_string();
    ["taskset", "-c", &cpu].iter().chain(class).map(|word| (*word).to_owned()).collect()
}

/// How processes are scheduled, for the report.
pub fn scheduling() -> &'static str {
    if *REAL_TIME { "SCHED_RR" } else { "nice -20" }
}

/// An address on which nobody listens.
pub fn free(ip: &str) -> Result<SocketAddr> {
    Ok(TcpListener::bind((ip, 0))?.local_addr()?)
}
