//! Sockets of tagged processes that no hook has seen: see `kernel::close_foreign`. They
//! are found by the descriptors of the processes, in whichever network namespace they
//! were made.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;

use crate::kernel::{Holder, KernelError, Spared, cgroup_id, close_foreign, share_files};

use super::places::{processes, subtree};

/// So many processes are looked at together: what they have is closed in one go.
const BATCH: usize = 64;
/// However long it took to find what they have, so long it may be closed.
const CLOSING: Duration = Duration::from_millis(250);
/// The most problems that are told of one cgroup.
const MAX_PROBLEMS: usize = 8;

/// Whether sockets are spared that were made in the cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// It has just been tagged: what is connected, is so since before.
    ThisMoment,
    /// It was tagged when they were made.
    Earlier,
}

/// How one look is to be done.
pub struct Order<'a> {
    pub since: Since,
    /// Those of the enforcer on loopback.
    pub ports: [u16; 2],
    /// Whether a network namespace is served, by its cookie.
    pub is_served: &'a (dyn Fn(u64) -> bool + Sync),
    /// When to leave the rest to the next look.
    pub until: Instant,
}

#[derive(Debug, Default)]
pub struct Swept {
    pub closed: u64,
    /// Processes that are not looked at to the end yet; none: the cgroup is clean.
    pub left: usize,
    /// What keeps it from being clean.
    pub problems: BTreeSet<String>,
    /// The network namespaces that were met, and a process in each.
    pub namespaces: HashMap<u64, u32>,
}

/// A process; its number alone may come to mean another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Process {
    pid: u32,
    /// In clock ticks since the host was started.
    started: u64,
}

impl Process {
    /// None once it is gone.
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Some(Self { pid, started: started(&stat)? })
    }
}

/// The 22nd field; the second one is a name, in which anything may stand.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// The processes of one tagged cgroup that have been looked at, with what cannot be closed.
#[derive(Debug, Default)]
pub struct Seen {
    processes: HashMap<Process, Vec<String>>,
    /// Sockets that were looked at since it was clean last: others may hold them too.
    sockets: HashSet<u64>,
}

impl Seen {
    /// What processes hold that are still there, and that cannot be closed.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.processes.values().flatten().take(MAX_PROBLEMS).cloned().collect();
        problems.sort();
        problems
    }

    /// Closes what those have that were not seen before, for as long as there is time. A
    /// part is done in any case.
    pub fn sweep(&mut self, cgroup: &Path, order: &Order<'_>) -> Swept {
        let mut swept = Swept::default();
        let mut spared = Spared { cgroups: HashSet::new(), ports: order.ports };
        loop {
            let mut present = HashSet::new();
            for path in subtree(cgroup) {
                present.extend(processes(&path).unwrap_or_default().into_iter().filter_map(Process::of));
                if order.since == Since::Earlier {
                    spared.cgroups.extend(cgroup_id(&path).ok());
                }
            }
            self.processes.retain(|process, _| present.contains(process));
            let mut new: Vec<Process> =
                present.into_iter().filter(|it| !self.processes.contains_key(it)).collect();
            swept.left = new.len();
            let mut again = false;
            while !new.is_empty() {
                let mut batch = Batch::take(&mut new, &self.sockets, order.until);
                self.sockets.extend(batch.close(&spared, order, &mut swept));
                let (later, done) = batch.holders.into_iter().partition::<Vec<_>, _>(|it| it.again);
                swept.left -= done.len();
                again |= !later.is_empty();
                self.processes.extend(done.into_iter().map(|it| (it.process, it.problems)));
                if Instant::now() > order.until {
                    return swept;
                }
            }
            if again {
                return swept;
            }
            if swept.left == 0 && !self.somebody_came(cgroup) {
                self.sockets.clear();
                return swept;
            }
        }
    }

    /// While others were looked at.
    fn somebody_came(&self, cgroup: &Path) -> bool {
        let mut present = subtree(cgroup).into_iter().flat_map(|path| processes(&path).unwrap_or_default());
        present.any(|pid| Process::of(pid).is_some_and(|process| !self.processes.contains_key(&process)))
    }
}

/// Processes that are looked at together.
struct Batch {
    holders: Vec<Holding>,
    /// In which their threads are, by inode.
    namespaces: HashMap<u64, File>,
}

/// What one process has.
struct Holding {
    process: Process,
    tables: Vec<Table>,
    problems: Vec<String>,
    /// It has to be looked at once more.
    again: bool,
}

/// A table of descriptors: usually all threads of a process have the same.
struct Table {
    thread: u32,
    sockets: Vec<(i32, u64)>,
}

impl Batch {
    /// Some of these, and at least one, without sockets that are known.
    fn take(new: &mut Vec<Process>, known: &HashSet<u64>, until: Instant) -> Self {
        let mut batch = Self { holders: Vec::new(), namespaces: HashMap::new() };
        while let Some(process) = new.pop() {
            let mut tables = Vec::new();
            for thread in threads(process.pid) {
                let path = format!("/proc/{}/task/{thread}/ns/net", process.pid);
                if let Ok(inode) = fs::metadata(&path).map(|it| it.ino())
                    && !batch.namespaces.contains_key(&inode)
                    && let Ok(file) = File::open(&path)
                {
                    batch.namespaces.insert(inode, file);
                }
                if thread == process.pid || !share_files(process.pid, thread) {
                    let mut sockets = sockets_of(process.pid, thread);
                    sockets.retain(|(_, inode)| !known.contains(inode));
                    tables.extend((!sockets.is_empty()).then_some(Table { thread, sockets }));
                }
            }
            batch.holders.push(Holding { process, tables, problems: Vec::new(), again: false });
            if batch.holders.len() == BATCH || Instant::now() > until {
                break;
            }
        }
        batch
    }

    /// Returns those sockets that need not be looked at again.
    fn close(&mut self, spared: &Spared, order: &Order<'_>, swept: &mut Swept) -> HashSet<u64> {
        for holder in &self.holders {
            let namespace = fs::metadata(format!("/proc/{}/ns/net", holder.process.pid));
            swept.namespaces.extend(namespace.ok().map(|it| (it.ino(), holder.process.pid)));
        }
        let tables = self.holders.iter().flat_map(|it| &it.tables);
        let inodes: HashSet<u64> = tables.flat_map(|it| &it.sockets).map(|(_, inode)| *inode).collect();
        if inodes.is_empty() {
            return inodes;
        }
        let (mut met, mut whole) = (HashSet::new(), true);
        let mut close_in = |netns: &File, met: &mut HashSet<u64>| {
            let until = order.until.max(Instant::now() + CLOSING);
            match close_foreign(netns, &inodes, spared, order.is_served, until) {
                Ok(closed) => {
                    swept.closed += closed.count as u64;
                    whole &= closed.whole;
                    met.extend(closed.met);
                }
                Err(error) => {
                    swept.problems.insert(text_of(error));
                    whole = false;
                }
            }
        };
        for netns in self.namespaces.values() {
            close_in(netns, &mut met);
        }
        let mut elsewhere = HashMap::new();
        let mut looked = met.clone();
        for holder in &mut self.holders {
            holder.look(&mut looked, &self.namespaces, &mut elsewhere);
        }
        for netns in elsewhere.values() {
            close_in(netns, &mut met);
        }
        if whole {
            return looked;
        }
        self.holders.iter_mut().for_each(|it| it.again = true);
        HashSet::new()
    }
}

impl Holding {
    /// Looks at the sockets that are not connected in one of these namespaces: where else
    /// they are, and which cannot be closed.
    fn look(
        &mut self,
        looked: &mut HashSet<u64>,
        namespaces: &HashMap<u64, File>,
        elsewhere: &mut HashMap<u64, File>,
    ) {
        let pid = self.process.pid;
        for table in &self.tables {
            let mut moved = HashSet::new();
            let mut holder = None;
            for (fd, inode) in &table.sockets {
                if !looked.insert(*inode) {
                    continue;
                }
                let holder = holder.get_or_insert_with(|| Holder::of(pid, table.thread));
                let look = match holder {
                    Ok(holder) => holder.look(*fd),
                    Err(error) => {
                        Err(io::Error::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO)))
                    }
                };
                match look {
                    Ok(Some(held)) if held.inode == *inode => {
                        if let Some(kind) = unclosable(held.family, held.kind, held.protocol) {
                            self.problems.push(format!(
                                "process {pid} holds a {kind} socket from before, which cannot be closed: end it"
                            ));
                        } else if let Some(netns) = held.netns
                            && let Ok(number) = netns.metadata().map(|it| it.ino())
                            && !namespaces.contains_key(&number)
                        {
                            elsewhere.entry(number).or_insert(netns);
                        }
                    }
                    Ok(_) => drop(moved.insert(*inode)),
                    Err(error) if error.raw_os_error() == Some(libc::ESRCH) => break,
                    Err(error) => {
                        self.problems.push(format!(
                            "sockets of process {pid} cannot be looked at ({error}): end it, or set \
                             kernel.yama.ptrace_scope below 3"
                        ));
                        break;
                    }
                }
            }
            // Closed is closed; what is at another number now is looked for there.
            if !moved.is_empty() {
                self.again |= sockets_of(pid, table.thread).iter().any(|(_, inode)| moved.contains(inode));
                looked.retain(|inode| !moved.contains(inode));
            }
        }
        self.problems.sort();
        self.problems.dedup();
        self.problems.truncate(MAX_PROBLEMS);
    }
}

/// What sock_diag cannot close, and may have been connected or bound before.
fn unclosable(family: i32, kind: i32, protocol: i32) -> Option<String> {
    let name = match (family, kind, protocol) {
        (libc::AF_UNIX | libc::AF_NETLINK | libc::AF_ALG, ..) => return None,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_RAW, _) => "raw",
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM, libc::IPPROTO_TCP | libc::IPPROTO_MPTCP) => {
            return None;
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP) => return None,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMP | libc::IPPROTO_ICMPV6) => {
            "icmp"
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE) => "udplite",
        (libc::AF_INET | libc::AF_INET6, _, libc::IPPROTO_SCTP) => "sctp",
        (libc::AF_PACKET, ..) => "packet",
        (libc::AF_VSOCK, ..) => "vsock",
        (libc::AF_XDP, ..) => "xdp",
        _ => return Some(format!("family {family}")),
    };
    Some(name.to_owned())
}

/// The leader first. None once it is gone.
fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut threads: Vec<u32> = tasks.filter_map(|it| it.file_name().to_str()?.parse().ok()).collect();
    threads.sort_by_key(|thread| (*thread != pid, *thread));
    threads
}

/// The numbers and inodes of the sockets that a thread holds open. It is looked twice: one
/// that is moved from number to number meanwhile is missed less easily.
fn sockets_of(pid: u32, thread: u32) -> Vec<(i32, u64)> {
    let list = || {
        let entries = fs::read_dir(format!("/proc/{pid}/task/{thread}/fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let link = fs::read_link(entry.path()).ok()?;
            Some((number, link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?))
        })
    };
    let mut sockets: Vec<(i32, u64)> = list().collect();
    if !sockets.is_empty() {
        let known: HashSet<u64> = sockets.iter().map(|(_, inode)| *inode).collect();
        sockets.extend(list().filter(|(_, inode)| !known.contains(inode)));
    }
    sockets
}

fn text_of(error: KernelError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_number_and_its_beginning() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1";
        assert_eq!(started(stat), Some(4711));
        assert_eq!(started("7 (a"), None);
        let own = Process::of(std::process::id()).unwrap();
        assert_eq!(Some(own), Process::of(own.pid));
        let mut gone = std::process::Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        assert_eq!(Process::of(gone.id()), None);
    }

    #[test]
    fn what_cannot_be_closed_is_told_and_the_rest_is_not() {
        let kind = |family, kind, protocol| unclosable(family, kind, protocol);
        assert_eq!(kind(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP).as_deref(), Some("raw"));
        assert_eq!(kind(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6).as_deref(), Some("icmp"));
        assert_eq!(kind(libc::AF_PACKET, libc::SOCK_DGRAM, 0).as_deref(), Some("packet"));
        assert_eq!(kind(libc::AF_TIPC, libc::SOCK_STREAM, 0).as_deref(), Some("family 30"));
        for (family, protocol) in [(libc::AF_INET, libc::IPPROTO_TCP), (libc::AF_UNIX, 0)] {
            assert_eq!(kind(family, libc::SOCK_STREAM, protocol), None);
        }
    }

    #[test]
    fn problems_are_told_up_to_a_limit() {
        let seen = |count: u32| {
            let process = |pid| (Process { pid, started: 1 }, vec![format!("process {pid}")]);
            Seen { processes: (0..count).map(process).collect(), ..Seen::default() }
        };
        let limit = u32::try_from(MAX_PROBLEMS).unwrap();
        assert_eq!(seen(limit).problems().len(), MAX_PROBLEMS);
        assert_eq!(seen(limit + 1).problems().len(), MAX_PROBLEMS);
        assert_eq!(seen(limit - 1).problems().len(), MAX_PROBLEMS - 1);
    }

    /// A folder with a list of processes stands for a cgroup.
    #[test]
    fn another_process_of_the_same_number_has_not_been_seen() {
        let cgroup = tempfile::tempdir().unwrap();
        let own = Process::of(std::process::id()).unwrap();
        fs::write(cgroup.path().join("cgroup.procs"), format!("{}\n", own.pid)).unwrap();
        let seen = |started| {
            let processes = HashMap::from([(Process { started, ..own }, Vec::new())]);
            Seen { processes, ..Seen::default() }
        };
        assert!(!seen(own.started).somebody_came(cgroup.path()));
        assert!(seen(own.started - 1).somebody_came(cgroup.path()));
    }

    /// More than what one batch takes, of which each is one.
    #[test]
    fn processes_are_taken_so_many_at_a_time_and_one_at_least() {
        let own = Process::of(std::process::id()).unwrap();
        let soon = Instant::now() + Duration::from_secs(600);
        let mut new = vec![own; BATCH + 1];
        assert_eq!(Batch::take(&mut new, &HashSet::new(), soon).holders.len(), BATCH);
        assert_eq!(Batch::take(&mut new, &HashSet::new(), soon).holders.len(), 1);
        let mut new = vec![own; 2];
        assert_eq!(
            Batch::take(&mut new, &HashSet::new(), Instant::now()).holders.len(),
            1,
            "there is no time"
        );
        assert_eq!(new.len(), 1);
    }
}
