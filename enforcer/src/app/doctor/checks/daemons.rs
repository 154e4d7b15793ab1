//! Daemons of the host that do for a job what it may not do itself. They are reached
//! by Unix sockets, which the hooks of cgroups do not see.

use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::Host;
use crate::app::doctor::people::Person;
use crate::app::doctor::scope::Scope;

use super::{listed, lsm_runs};

/// They start containers, or machines, with a network of their own.
pub const CONTAINERS: [&str; 12] = [
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/podman/podman.sock",
    "/run/buildkit/buildkitd.sock",
    "/run/libvirt/libvirt-sock",
    "/run/libvirt/virtqemud-sock",
    "/var/lib/lxd/unix.socket",
    "/var/lib/incus/unix.socket",
    "/var/snap/lxd/common/lxd/unix.socket",
    "/run/snapd.socket",
];

/// They look names up.
pub const RESOLVERS: [&str; 6] = [
    "/run/systemd/resolve/io.systemd.Resolve",
    "/run/systemd/resolve/io.systemd.Resolve.Monitor",
    "/run/nscd/socket",
    "/run/unscd/socket",
    "/var/lib/sss/pipes/nss",
    "/run/avahi-daemon/socket",
];

/// They connect, print, send or run for others.
pub const HELPERS: [&str; 9] = [
    "/run/systemd/private",
    "/run/cups/cups.sock",
    "/run/gssproxy.default.sock",
    "/run/pcscd/pcscd.comm",
    "/run/uuidd/request",
    "/run/acpid.socket",
    "/run/fwupd.sock",
    "/run/packagekit.sock",
    "/var/spool/postfix/public/pickup",
];

/// Every service of the host that has a name on it.
pub const SYSTEM_BUS: [&str; 1] = ["/run/dbus/system_bus_socket"];

/// What belongs to a user's own systemd.
pub const OF_USERS: &str = "/run/user";

/// All that a unit need not see. What belongs to users is hidden as a whole, and the
/// system bus with the folder that it may come back in.
pub fn all() -> impl Iterator<Item = &'static str> {
    let devices = ["/dev/net/tun", "/dev/vsock"];
    CONTAINERS.into_iter().chain(RESOLVERS).chain(HELPERS).chain(SYSTEM_BUS).chain([OF_USERS]).chain(devices)
}

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
        return Found::good(good);
    }
    let told: Vec<String> =
        open.iter().map(|(path, person)| format!("{} reaches {path}", person.name)).collect();
    let text = listed(&told);
    match scope.unit {
        Some(_) => {
            let paths: Vec<String> = open.iter().map(|(path, _)| format!("-{path}")).collect();
            Found::missing(text, Fix::drop_in(format!("InaccessiblePaths={}", paths.join(" "))))
        }
        None => Found::missing(
            text,
            Fix::Shell(open.iter().map(|(path, person)| closing(host, path, person)).collect()),
        ),
    }
}

/// For jobs of `enforcer run` nothing is hidden: the socket itself is closed to them.
fn closing(host: &Host, path: &str, person: &Person) -> String {
    let by_group = host.meta(path).filter(|meta| meta.mode & 0o002 == 0);
    let group = by_group.and_then(|meta| person.groups.iter().find(|(gid, _)| *gid == meta.gid));
    match group {
        Some((_, group)) => format!("gpasswd -d {} {group}", person.name),
        None => format!("setfacl -m u:{}:- {path}", person.name),
    }
}
