//! One run: a fresh upstream, a fresh proxy, the load generator.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use super::enforcer::{Enforcer, ROOTS};
use super::process::{Group, free, pinned};
use super::scenario::{IDLE, RATE, Scenario};
use super::{Target, peers};
use crate::lg::{Measured, Mode};
use crate::{machine, tls};

/// Above this share of the machine, others disturb tails.
pub const FOREIGN: f64 = 0.05;

/// What one run says.
#[derive(Debug, Clone)]
pub struct Sample {
    pub values: BTreeMap<&'static str, f64>,
    pub foreign: f64,
}

pub struct Bench {
    dir: PathBuf,
    certs: PathBuf,
    enforcer: PathBuf,
    object: PathBuf,
    own: PathBuf,
}

/// Who stands between.
enum Running {
    Direct,
    Enforcer(Box<Enforcer>),
    // Its folder goes when it is gone.
    Peer(peers::Peer, #[expect(dead_code, reason = "it is held")] tempfile::TempDir),
}

impl Running {
    fn pids(&self) -> Vec<u32> {
        match self {
            Self::Direct => Vec::new(),
            Self::Enforcer(enforcer) => vec![enforcer.proxy],
            Self::Peer(peer, _) => machine::family(peer.group.pid()),
        }
    }
}

impl Bench {
    pub fn new(dir: &Path, enforcer: &Path, object: &Path) -> Result<Self> {
        let certs = dir.join("certs");
        std::fs::create_dir_all(&certs)?;
        tls::write_files(&certs)?;
        let own = std::env::current_exe()?;
        let whole = |path: &Path| path.canonicalize().with_context(|| path.display().to_string());
        Ok(Self {
            dir: whole(dir)?,
            certs: whole(&certs)?,
            enforcer: whole(enforcer)?,
            object: whole(object)?,
            own,
        })
    }

    /// One sample. If others used the machine meanwhile it is taken again once, and
    /// the one that was disturbed less counts.
    pub fn measure(&self, scenario: &Scenario, target: &Target, again: bool) -> Result<Sample> {
        let sample = self.once(scenario, target)?;
        if again && sample.foreign > FOREIGN {
            let second = self.once(scenario, target)?;
            return Ok(if second.foreign < sample.foreign { second } else { sample });
        }
        Ok(sample)
    }

    fn once(&self, scenario: &Scenario, target: &Target) -> Result<Sample> {
        let address = free("127.0.0.2")?;
        let mut command = pinned(0, &self.own);
        command.arg("up").args(["--listen", &address.to_string(), "--certs"]).arg(&self.certs);
        let mut upstream = Group::start(command, &self.dir.join("upstream.log"))?;
        upstream.wait_for(address).context("the upstream")?;
        let running = self.start(scenario, target, address)?;
        let mut command = self.generator(scenario, &running, address);
        command.args(["--upstream", &upstream.pid().to_string()]);
        if scenario.mode == Mode::Idle {
            return idle(command, &running);
        }
        let out = command.stdin(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&out.stdout);
        if !out.status.success() {
            bail!("the load generator: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let measured: Measured =
            serde_json::from_str(text.trim()).with_context(|| format!("it said {text:?}"))?;
        let values = scenario.values(&measured).with_context(|| {
            let Measured { count, errors, first_error, .. } = &measured;
            format!("{count} done in {:.1} s, {errors} errors: {first_error}", measured.seconds)
        })?;
        Ok(Sample { values, foreign: measured.foreign })
    }

    fn start(&self, scenario: &Scenario, target: &Target, upstream: SocketAddr) -> Result<Running> {
        let h2 = scenario.mode == Mode::H2;
        Ok(match target {
            Target::Direct => Running::Direct,
            Target::Enforcer { fsync } => {
                let started = Enforcer::start(&self.enforcer, &self.object, &self.certs, &self.dir, *fsync)?;
                Running::Enforcer(Box::new(started))
            }
            Target::Peer { kind, program } => {
                let dir = tempfile::Builder::new().prefix("peer-").tempdir_in(&self.dir)?;
                let peer = peers::start(*kind, program, dir.path(), &self.certs, upstream, h2)?;
                Running::Peer(peer, dir)
            }
        })
    }

    fn generator(&self, scenario: &Scenario, running: &Running, upstream: SocketAddr) -> Command {
        let ours = self.certs.join("ca.pem");
        let (mut command, connect, roots) = match running {
            Running::Direct => (pinned(0, &self.own), upstream, ours),
            Running::Enforcer(enforcer) => (enforcer.job(&self.own), upstream, PathBuf::from(ROOTS)),
            Running::Peer(peer, _) => (pinned(0, &self.own), peer.listen, ours),
        };
        let mode = scenario.mode.to_possible_value().map(|mode| mode.get_name().to_owned());
        command.arg("lg").args(["--mode", &mode.unwrap_or_default()]);
        command.args(["--connect", &connect.to_string(), "--path", &scenario.path, "--roots"]).arg(roots);
        command.args(["--connections", &scenario.connections.to_string()]);
        command.args(["--streams", &scenario.streams.to_string(), "--rate", &RATE.to_string()]);
        command.args(["--port", &upstream.port().to_string()]);
        command.args(["--seconds", &scenario.seconds.to_string()]);
        command.args(["--warm", if scenario.seconds < 2.0 { "0.5" } else { "1" }]);
        if let Running::Peer(peers::Peer { authority: Some(authority), .. }, _) = running {
            command.args(["--authority", authority]);
        }
        let pids: Vec<String> = running.pids().iter().map(u32::to_string).collect();
        if !pids.is_empty() {
            command.args(["--proxy", &pids.join(",")]);
        }
        command.process_group(0);
        command
    }
}

/// Reads the proxy's memory before and while the connections are there.
#[expect(clippy::cast_precision_loss, reason = "KiB")]
fn idle(mut command: Command, running: &Running) -> Result<Sample> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("no input")?;
    let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
    let mut memory = [0.0; 2];
    for (word, memory) in ["warm", "holding"].iter().zip(&mut memory) {
        let line = lines.next().transpose()?;
        ensure!(line.as_deref() == Some(*word), "instead of `{word}` the load generator said {line:?}");
        *memory = machine::pss_kib(&running.pids())? as f64;
        writeln!(input)?;
    }
    drop(input);
    ensure!(child.wait()?.success(), "the load generator failed");
    let each = (memory[1] - memory[0]) / IDLE as f64;
    Ok(Sample { values: BTreeMap::from([("idle_kib", each)]), foreign: 0.0 })
}
