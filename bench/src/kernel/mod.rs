//! What the programs cost in the kernel: nanoseconds a connection and a packet, by the
//! kernel's own count, and end to end.
//!
//! ```text
//!   CPU 0: a load in the tagged cgroup, and one that is moved between an untagged cgroup
//!          beside it and one where no program is attached
//!   CPU 1: whoever accepts, without a proxy behind it; they take turns
//! ```
//! The loads do the same in turns of some milliseconds, so that what the machine does
//! meanwhile hits all of them; medians over many turns count. The kernel counts time only
//! while its share is measured, not while the whole is.
//!
//! What the kernel counts for a program is the time between two readings of its clock: one
//! reading of the two and the call are in it, and so is whatever interrupts the program. A
//! program that returns at once (`ingress` on loopback) shows how much that is.
//!
//! Whether a process that is not tagged is slower is asked of one and the same process, in
//! and out of the cgroup in the order A B B A: the differences of each turn count, and
//! between which bounds their median lies.

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
    tagged: Answering,
    /// Moved between the cgroup in which programs run for it and the other one.
    free: Answering,
    _servers: [Answering; 2],
    objects: Objects,
    untagged: Cgroup,
    outside: Cgroup,
    _cgroups: [Cgroup; 4],
    _netns: Netns,
}

impl World {
    fn new(object: &Path) -> Result<Self> {
        let netns = Netns::new("bench")?;
        // The side that closes first would keep each port for a minute.
        netns.run(|| std::fs::write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0"))??;
        // An address of IPv6 is nobody's until the kernel's worker has looked at it, which waits
        // while another namespace is taken down, and a bind gets EADDRNOTAVAIL: `nodad`.
        for (address, family, more) in [(OTHERS[0], "-4", &[][..]), (OTHERS[1], "-6", &["nodad"])] {
            let address = address.ip().to_string();
            netns.ip(&[&[family, "address", "add", &address, "dev", "lo"], more].concat())?;
        }
        let name = format!("enf-cost-{}", std::process::id());
        let root = Cgroup::at_root(&name)?;
        let jobs = root.child("jobs")?;
        let outside = Cgroup::at_root(&format!("{name}-outside"))?;
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
        let free = run(0, None, &["kernel-load"])?;
        let load = run(0, Some(&tagged), &["kernel-load"])?;
        let objects = Objects::of(&pins)?;
        ensure!(!objects.programs.is_empty(), "no programs are loaded");
        let cgroups = [tagged, own, jobs, root];
        Ok(Self {
            tagged: load,
            free,
            _servers: servers,
            objects,
            untagged,
            outside,
            _cgroups: cgroups,
            _netns: netns,
        })
    }

    /// Nanoseconds for each of so many.
    #[expect(clippy::cast_precision_loss, reason = "nanoseconds of milliseconds")]
    fn turn(&mut self, who: Who, family: usize, what: &str, count: u32) -> Result<f64> {
        let far: [SocketAddr; 2] = [
            (Ipv4Addr::new(192, 0, 2, 1), FAR).into(),
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), FAR).into(),
        ];
        let to = if who == Who::Tagged { far[family] } else { OTHERS[family] };
        let load = match who {
            Who::Tagged => &mut self.tagged,
            Who::Untagged | Who::Outside => {
                let place = if who == Who::Untagged { &self.untagged } else { &self.outside };
                place.add(self.free.process.id())?;
                &mut self.free
            }
        };
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
            for (what, count) in [("connect", CONNECTS), ("talk", TALKS)] {
                cost.add_whole(family, Who::Tagged, what, world.turn(Who::Tagged, family, what, count)?);
                // A B B A: what only grows or falls meanwhile hits both alike.
                let [a, b] =
                    if turn % 2 == 0 { [Who::Outside, Who::Untagged] } else { [Who::Untagged, Who::Outside] };
                let mut sums = BTreeMap::new();
                for who in [a, b, b, a] {
                    let each = world.turn(who, family, what, count)?;
                    cost.add_whole(family, who, what, each);
                    *sums.entry(who).or_insert(0.0) += each / 2.0;
                }
                cost.add_difference(family, what, sums[&Who::Untagged] - sums[&Who::Outside]);
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
