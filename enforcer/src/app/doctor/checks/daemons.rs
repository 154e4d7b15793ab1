//! Daemons of the host that do for a job what it may not do itself. They are reached
//! by Unix sockets, which the hooks of cgroups do not see.

use crate::app::config::DEFAULT;
use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::Host;
use crate::app::doctor::scope::Scope;

use super::{listed, lsm_runs};
use crate::launch::daemons::{CONTAINERS, HELPERS, OF_USERS, RESOLVERS, SYSTEM_BUS};

/// Groups whose members are root by a detour, and what it is.
const GROUPS: [(&str, &str); 11] = [
    ("docker", "starts containers as root"),
    ("podman", "starts containers"),
    ("containerd", "starts containers as root"),
    ("lxd", "starts containers as root"),
    ("incus", "starts containers"),
    ("incus-admin", "starts containers as root"),
    ("libvirt", "starts machines as root"),
    ("kvm", "starts machines"),
    ("disk", "writes to disks"),
    ("shadow", "reads the hashes of passwords"),
    ("netdev", "changes the network by its daemons"),
];

pub(super) fn groups(_: &Host, scope: &Scope) -> Found {
    let mut lines = Vec::new();
    let mut told = Vec::new();
    for person in scope.people.iter().filter(|person| !person.is_root()) {
        for (group, does) in GROUPS.iter().filter(|(group, _)| person.is_in(group)) {
            told.push(format!("{} is in `{group}`, which {does}", person.name));
            lines.push(format!("gpasswd -d {} {group}", person.name));
        }
    }
    if told.is_empty() {
        Found::good("jobs are in no group that gives them root")
    } else {
        Found::missing(listed(&told), Fix::Shell(lines))
    }
}

pub(super) fn containers(host: &Host, scope: &Scope) -> Found {
    reached(host, scope, &CONTAINERS, "no daemon of containers is reached")
}

pub(super) fn resolvers(host: &Host, scope: &Scope) -> Found {
    reached(host, scope, &RESOLVERS, "no daemon that looks names up is reached")
}

pub(super) fn helpers(host: &Host, scope: &Scope) -> Found {
    reached(host, scope, &HELPERS, "no daemon that acts for others is reached")
}

pub(super) fn system_bus(host: &Host, scope: &Scope) -> Found {
    reached(host, scope, &SYSTEM_BUS, "the system bus is not reached")
}

/// The user's systemd starts units in the user's slice: in another cgroup.
pub(super) fn user_manager(host: &Host, scope: &Scope) -> Found {
    let mut open = Vec::new();
    for person in scope.people.iter().filter(|person| !person.is_root()) {
        let own = format!("{OF_USERS}/{}", person.uid);
        let names = [
            "systemd/private",
            "bus",
            "podman/podman.sock",
            "docker.sock",
            "gnupg/S.gpg-agent",
            "keyring/ssh",
        ];
        open.extend(names.map(|name| format!("{own}/{name}")));
    }
    let open: Vec<&str> = open.iter().map(String::as_str).collect();
    reached(host, scope, &open, "the user's own systemd is not reached")
}

fn reached(host: &Host, scope: &Scope, sockets: &[&str], good: &str) -> Found {
    if lsm_runs(host) {
        return Found::good("the LSM tier refuses sockets of outsiders that are not listed");
    }
    let mut open = Vec::new();
    for path in sockets {
        if let Some(person) = scope.writer(host, path) {
            open.push(((*path).to_owned(), person));
        }
    }
    if open.is_empty() {
        let hidden = scope.shown.is_some();
        return Found::good(if hidden { "`enforcer run` hides the host's sockets from jobs" } else { good });
    }
    let told: Vec<String> =
        open.iter().map(|(path, person)| format!("{} reaches {path}", person.name)).collect();
    let text = listed(&told);
    match scope.unit {
        Some(_) => {
            let paths: Vec<String> = open.iter().map(|(path, _)| format!("-{path}")).collect();
            Found::missing(text, Fix::drop_in(format!("InaccessiblePaths={}", paths.join(" "))))
        }
        None => Found::missing(text, Fix::shell(hiding_again(scope))),
    }
}

/// What has `enforcer run` hide them again.
fn hiding_again(scope: &Scope) -> String {
    let lines = match scope.shown {
        None => "/^hide_sockets *=/d",
        // A list may go over several lines.
        Some(_) => "/^expose *=.*]/d; /^expose *=/,/]/d",
    };
    format!("sed -i '{lines}' {DEFAULT} && systemctl restart enforcer")
}
