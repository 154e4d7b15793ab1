//! Ways out that are not closed by the programs at the cgroup root alone: what is open
//! depends on the host, and a check says so of each.

use super::check::Level;

/// A way out.
#[derive(Clone, Copy, Debug)]
pub struct Technique {
    pub name: &'static str,
    pub what: &'static str,
    /// Who can go it at least, where it is open.
    pub from: Level,
}

const fn by(from: Level, name: &'static str, what: &'static str) -> Technique {
    Technique { name, what, from }
}

use Level::{ContainerRoot, HostRoot, Unprivileged};

/// By name; names are stable.
pub const TECHNIQUES: [Technique; 37] = [
    by(Unprivileged, "socket", "any connection: nothing redirects or refuses it"),
    by(Unprivileged, "inherited-connected", "a socket that was connected before it came into the scope"),
    by(Unprivileged, "vsock", "AF_VSOCK to the hypervisor"),
    by(Unprivileged, "unix-docker", "a container daemon starts a container elsewhere"),
    by(Unprivileged, "unix-dbus", "a service on the system bus connects or starts a unit"),
    by(Unprivileged, "unix-user-manager", "the user's own systemd starts a unit elsewhere"),
    by(Unprivileged, "unix-resolver", "a daemon looks names up, and carries data in them"),
    by(Unprivileged, "unix-helper", "a daemon connects on the caller's behalf"),
    by(Unprivileged, "request-key", "the kernel has root look a name up"),
    by(Unprivileged, "setuid-program", "a program with privileges of its own sends"),
    by(Unprivileged, "sudo", "root by sudo"),
    by(Unprivileged, "root-by-group", "root by a group that gives it"),
    by(Unprivileged, "su-session", "su and PAM move the process to the user's slice"),
    by(Unprivileged, "cgroup-move", "a process leaves its cgroup"),
    by(Unprivileged, "ptrace-outsider", "another process of the user is made to send"),
    by(Unprivileged, "pidfd-getfd", "a socket of another process of the user"),
    by(Unprivileged, "tun-device", "packets by a tun device that belongs to the user"),
    by(Unprivileged, "unit-file", "a unit's file or program is replaced"),
    by(Unprivileged, "runner-file", "a file that the runner reads for the next job is replaced"),
    by(Unprivileged, "cron", "cron or at starts a command elsewhere"),
    by(Unprivileged, "core-handler", "the program that takes core dumps is replaced"),
    by(Unprivileged, "pin", "pinned links or maps are changed"),
    by(ContainerRoot, "af-packet", "AF_PACKET frames"),
    by(ContainerRoot, "af-xdp", "AF_XDP frames"),
    by(ContainerRoot, "tun-inject", "packets by a new tun device and forwarding"),
    by(ContainerRoot, "clone-into-cgroup", "clone3 into another cgroup"),
    by(ContainerRoot, "setns", "into the namespaces of others"),
    by(ContainerRoot, "ptrace-any", "any process is made to send"),
    by(ContainerRoot, "bpf-detach", "links are detached, maps written"),
    by(ContainerRoot, "module", "a module is loaded into the kernel"),
    by(HostRoot, "scm-connected", "a connected socket is passed by another process"),
    by(HostRoot, "unix-any", "any daemon by its Unix socket"),
    by(HostRoot, "kill-enforcer", "the loader is ended (tagged cgroups are then refused)"),
    by(HostRoot, "unpin", "pins are removed"),
    by(HostRoot, "core-pattern", "settings of the kernel name a program to run"),
    by(HostRoot, "root-file", "a file that something outside runs: cron, units, keys"),
    by(HostRoot, "raw-device", "devices of memory and disks, flaws of the kernel"),
];

/// What nothing here prevents root of the host from, whatever is set.
pub const BEYOND: [&str; 2] = ["root-file", "raw-device"];

/// A technique by its name.
pub fn technique(name: &str) -> Option<&'static Technique> {
    TECHNIQUES.iter().find(|technique| technique.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::app::doctor::CHECKS;

    #[test]
    fn every_technique_is_opened_by_a_check_and_every_check_opens_known_ones() {
        let opened: BTreeSet<&str> = CHECKS.iter().flat_map(|check| check.opens).copied().collect();
        for name in &opened {
            assert!(technique(name).is_some(), "{name} is no technique");
        }
        for technique in TECHNIQUES {
            let name = technique.name;
            assert!(opened.contains(name) || BEYOND.contains(&name), "nothing opens {name}");
        }
    }

    #[test]
    fn advice_opens_nothing_and_all_else_does() {
        for check in CHECKS {
            assert_eq!(check.from.is_none(), check.opens.is_empty(), "{}", check.id);
        }
    }
}
