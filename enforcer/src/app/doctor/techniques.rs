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

/// By name; names are stable. Those that the battery of escapes tries have its names.
pub const TECHNIQUES: &[Technique] = &[
    by(Unprivileged, "socket", "any connection: nothing redirects or refuses it"),
    by(Unprivileged, "inherited-connected", "a socket that was connected before it came into the scope"),
    by(Unprivileged, "standard-input-connected", "the same, as standard input"),
    by(Unprivileged, "late-tag-connected", "a connection that stood when its process was tagged"),
    by(Unprivileged, "given-connected", "a connected socket that another process passes on"),
    by(Unprivileged, "relay-unix", "a process outside that relays, by its Unix socket"),
    by(Unprivileged, "relay-abstract", "the same by an abstract one"),
    by(Unprivileged, "puppet-same-user", "another process of the user is made to send"),
    by(Unprivileged, "steal-connected-same-user", "a socket of another process of the user"),
    by(Unprivileged, "vsock", "AF_VSOCK to the hypervisor"),
    by(Unprivileged, "uring-vsock", "the same by io_uring, which filters of calls do not see"),
    by(Unprivileged, "request-key", "the kernel has root look a name up"),
    by(Unprivileged, "container-daemon", "a container is started elsewhere"),
    by(Unprivileged, "system-bus", "a service on the system bus connects or starts a unit"),
    by(Unprivileged, "user-manager", "the user's own systemd starts a unit elsewhere"),
    by(Unprivileged, "resolver-daemon", "a daemon looks names up, and carries data in them"),
    by(Unprivileged, "helper-daemon", "a daemon connects on the caller's behalf"),
    by(Unprivileged, "privileged-program", "a program with privileges of its own sends"),
    by(Unprivileged, "sudo", "root by sudo"),
    by(Unprivileged, "root-by-group", "root by a group that gives it"),
    by(Unprivileged, "su-session", "su and PAM move the process to the user's slice"),
    by(Unprivileged, "move-out", "a process leaves its cgroup"),
    by(Unprivileged, "tun-own", "packets by a tun device that belongs to the user"),
    by(Unprivileged, "unit-file", "a unit's file or program is replaced"),
    by(Unprivileged, "runner-file", "a file that the runner reads for the next job is replaced"),
    by(Unprivileged, "cron", "cron or at starts a command elsewhere"),
    by(Unprivileged, "core-handler", "the program that takes core dumps is replaced"),
    by(Unprivileged, "unpin", "pins are removed"),
    by(Unprivileged, "edit-maps", "pinned maps are written"),
    by(ContainerRoot, "packet-raw", "AF_PACKET, whole frames"),
    by(ContainerRoot, "packet-datagram", "AF_PACKET, their content"),
    by(ContainerRoot, "tun", "packets by a new tun device and forwarding"),
    by(ContainerRoot, "clone-out", "clone3 into another cgroup"),
    by(ContainerRoot, "puppet", "any process is made to send"),
    by(ContainerRoot, "steal-connected", "a socket of any process"),
    by(ContainerRoot, "detach-links", "links are detached"),
    by(ContainerRoot, "module", "a module is loaded into the kernel"),
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
