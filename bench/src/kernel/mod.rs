//! What the programs cost in the kernel: nanoseconds a connection and a packet, by the
//! kernel's own count, and end to end.
//!
//! ```text
//!   CPU 0: a load in the tagged cgroup, one in an untagged one beside it, one outside
//!   CPU 1: whoever accepts, without a proxy behind it; the three take turns
//! ```
//! The loads do the same in turns of some milliseconds, so that what the machine does
//! meanwhile hits all of them; medians over many turns count. The kernel counts time only
//! while its share is measured, not while the whole is.

mod ends;
mod report;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use enforcer_tests::bpf::{Costs, Objects, count_time};
use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::Netns;

pub use ends::{ServeArgs, load, others, serve};
pub use report::KernelCost;

use crate::suite::process::words_of_pinned;
use ends::OTHERS;

/// Connections and round trips of one turn.
const CONNECTS: u32 = 200;
const TALKS: u32 = 500;
/// Where a tagged process believes to be: nothing of it gets there.
const FAR: u16 = 443;
/// The programs on packets; the others are on sockets.
const ON_PACKETS: [&str; 3] = ["egress", "ingress", "root_egress"];

/// Who makes the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Who {
    /// Where no program is attached.
    Outside,
    Untagged,
    Tagged,
}

impl Who {
    const ALL: [Self; 3] = [Self::Outside, Self::Untagged, Self::Tagged];

    pub fn name(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Untagged => "untagged",
            Self::Tagged => "tagged",
        }
    }
}

/// A process that answers each line with a line.
struct Answering {
    process: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Answering {
    fn start(mut command: Command) -> Result<Self> {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = process.stdin.take();
        let output = BufReader::new(process.stdout.take().context("no output")?).lines();
        Ok(Self { process, input, output })
    }

    fn hear(&mut self) -> Result<String> {
        self.output.next().context("it has ended")?.context("its output")
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        writeln!(self.input.as_mut().context("it is over")?, "{question}")?;
        self.hear()
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        drop(self.input.take());
        if let Err(error) = self.process.wait() {
            eprintln!("bench: a process that does not end: {error}");
        }
    }
}

/// Fields are dropped in this order: those who load, who accepts, and what they stand in.
struct World {
    loads: BTreeMap<Who, Answering>,
    _servers: [Answering; 2],
    objects: Objects,
    _cgroups: [Cgroup; 5],
    _netns: Netns,
}

impl World {
    fn new(object: &Path) -> Result<Self> {
        let netns = Netns::new("bench")?;
        // The side that closes first would keep each port for a minute.
        netns.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0"))??;
        for (address, family) in [(OTHERS[0], "-4"), (OTHERS[1], "-6")] {
            netns.ip(&[family, "address", "add", &address.ip().to_string(), "dev", "lo"])?;
        }
        let name = format!("enf-cost-{}", std::process::id());
        let root = Cgroup::at_root(&name)?;
        let jobs = root.child("jobs")?;
        let (tagged, untagged, own) = (jobs.child("tagged")?, root.child("untagged")?, root.child("own")?);
        let pins = Path::new("/sys/fs/bpf").join(&name);
        let program = std::env::current_exe()?;
        let run = |cpu: usize, cgroup: Option<&Cgroup>, args: &[&str]| {
            let enter = cgroup.map(|it| format!("echo $$ > {}/cgroup.procs; ", it.path().display()));
            let mut command = Command::new("nsenter");
            command.arg(format!("--net=/run/netns/{}", netns.name()));
            command.args(["sh", "-c", &format!("{}exec \"$@\"", enter.unwrap_or_default()), "sh"]);
            command.args(words_of_pinned(cpu)).arg(&program).args(args);
            Answering::start(command)
        };
        let (object, at) = (object.display().to_string(), root.path().display().to_string());
        let serve =
            ["kernel-serve", "--object", &object, "--cgroup", &at, "--pins", &pins.display().to_string()];
        let mut servers = [run(1, None, &serve)?, run(1, None, &["kernel-others"])?];
        for server in &mut servers {
            server.hear().context("nobody accepts")?;
        }
        let loads = BTreeMap::from([
            (Who::Outside, run(0, None, &["kernel-load"])?),
            (Who::Untagged, run(0, Some(&untagged), &["kernel-load"])?),
            (Who::Tagged, run(0, Some(&tagged), &["kernel-load"])?),
        ]);
        let objects = Objects::of(&pins)?;
        ensure!(!objects.programs.is_empty(), "no programs are loaded");
        let cgroups = [tagged, untagged, own, jobs, root];
        Ok(Self { loads, _servers: servers, objects, _cgroups: cgroups, _netns: netns })
    }

    /// Nanoseconds for each of so many.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of milliseconds")]
    fn turn(&mut self, who: Who, family: usize, what: &str, count: u32) -> Result<f64> {
        let far: [SocketAddr; 2] = [
            (Ipv4Addr::new(192, 0, 2, 1), FAR).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), FAR).into(),
        ];
        let to = if who == Who::Tagged { far[family] } else { OTHERS[family] };
        let load = self.loads.get_mut(&who).context("no such load")?;
        let took = load.ask(&format!("{what} {to} {count}")).context(who.name())?;
        Ok(took.parse::<u64>()? as f64 / f64::from(count))
    }

    /// The same, and what the programs did meanwhile.
    fn counted(&mut self, who: Who, family: usize, what: &str, count: u32) -> Result<Added> {
        let before = Costs::of(&self.objects.programs);
        self.turn(who, family, what, count)?;
        Ok(Costs::of(&self.objects.programs).since(&before))
    }
}

type Added = BTreeMap<String, enforcer_tests::bpf::Cost>;

/// Measures it, in so many turns of each.
pub fn measure(object: &Path, turns: usize) -> Result<KernelCost> {
    let mut world = World::new(object)?;
    let mut cost = KernelCost::default();
    for family in [0, 1] {
        for who in Who::ALL {
            for what in ["connect", "talk", "pour"] {
                // The first ones find everything cold.
                world.turn(who, family, what, 50)?;
            }
        }
    }
    for turn in 0..turns {
        for family in [0, 1] {
            for who in crate::stats::rotated(&Who::ALL, turn) {
                let each = world.turn(who, family, "connect", CONNECTS)?;
                cost.add_whole(family, who, "connect", each);
                let each = world.turn(who, family, "talk", TALKS)?;
                cost.add_whole(family, who, "talk", each);
            }
        }
    }
    let counting = count_time().context("counting the time of programs")?;
    for turn in 0..turns {
        for family in [0, 1] {
            for who in crate::stats::rotated(&[Who::Untagged, Who::Tagged], turn) {
                let added = world.counted(who, family, "connect", CONNECTS)?;
                cost.add_connects(family, who, &added, CONNECTS);
                let added = world.counted(who, family, "pour", TALKS)?;
                cost.add_packets(family, who, &added);
            }
        }
    }
    drop(counting);
    Ok(cost)
}
