//! Sockets of tagged processes that no hook has seen: see `kernel::close_foreign`.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::kernel::{Spared, cgroup_id, close_foreign};

use super::places::{processes, subtree};

/// How often processes are looked for that came while others were looked at.
const PASSES: usize = 16;
/// The most problems that are told of one cgroup.
const MAX_PROBLEMS: usize = 8;
/// Files of /proc/PID/net whose sockets sock_diag cannot close, and their inode's column.
const UNCLOSABLE: &[(&str, usize)] =
    &[("packet", 8), ("raw", 9), ("raw6", 9), ("udplite", 9), ("udplite6", 9), ("icmp", 9), ("icmp6", 9)];

/// Whether sockets are spared that were made in the cgroup.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// It has just been tagged: what is connected, is so since before.
    ThisMoment,
    /// It was tagged when they were made.
    Earlier,
}

#[derive(Default)]
pub struct Swept {
    pub closed: u64,
    pub problems: Vec<String>,
    /// The network namespaces that were met, and a process in each.
    pub namespaces: HashMap<u64, u32>,
}

/// The processes that have been looked at, of one tagged cgroup.
#[derive(Default)]
pub struct Seen(HashSet<u32>);

impl Seen {
    /// Closes what those have that were not seen before.
    pub fn sweep(&mut self, cgroup: &Path, since: Since, ports: [u16; 2]) -> Swept {
        let mut swept = Swept::default();
        let mut spared = Spared { cgroups: HashSet::new(), ports };
        for _ in 0..PASSES {
            let mut present = HashSet::new();
            for path in subtree(cgroup) {
                present.extend(processes(&path).unwrap_or_default());
                if since == Since::Earlier {
                    spared.cgroups.extend(cgroup_id(&path).ok());
                }
            }
            let new: Vec<u32> = present.difference(&self.0).copied().collect();
            self.0 = present;
            if new.is_empty() {
                break;
            }
            close(&new, &spared, &mut swept);
        }
        swept.problems.truncate(MAX_PROBLEMS);
        swept
    }
}

fn close(pids: &[u32], spared: &Spared, swept: &mut Swept) {
    let mut namespaces: HashMap<u64, (File, HashSet<u64>)> = HashMap::new();
    for pid in pids {
        // One that has ended has no sockets either.
        let Ok(netns) = File::open(format!("/proc/{pid}/ns/net")) else { continue };
        let Ok(number) = netns.metadata().map(|metadata| metadata.ino()) else { continue };
        swept.namespaces.insert(number, *pid);
        let inodes = sockets_of(*pid);
        if inodes.is_empty() {
            continue;
        }
        swept.problems.extend(unclosable(*pid, &inodes));
        namespaces.entry(number).or_insert((netns, HashSet::new())).1.extend(inodes);
    }
    for (netns, inodes) in namespaces.into_values() {
        match close_foreign(netns, inodes, spared.clone()) {
            Ok(closed) => swept.closed += closed as u64,
            Err(error) => swept.problems.push(format!("{:#}", anyhow::Error::from(error))),
        }
    }
}

/// The inodes of the sockets that a process holds open.
fn sockets_of(pid: u32) -> HashSet<u64> {
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fd")) else { return HashSet::new() };
    let links = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
    links
        .filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

fn unclosable(pid: u32, inodes: &HashSet<u64>) -> Vec<String> {
    let mut found = Vec::new();
    for (kind, column) in UNCLOSABLE {
        let text = fs::read_to_string(format!("/proc/{pid}/net/{kind}")).unwrap_or_default();
        let held = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(*column)?.parse().ok());
        if held.filter(|inode: &u64| inodes.contains(inode)).count() > 0 {
            found.push(format!(
                "process {pid} holds a {kind} socket from before, which cannot be closed: end it"
            ));
        }
    }
    found
}
