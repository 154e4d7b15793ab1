//! Where daemons of a host listen that do for a job what it may not do itself: Unix
//! sockets, which the hooks of cgroups do not see. What is started as a job does not see
//! them, and `enforcer doctor` asks the same of units.

use std::path::{Path, PathBuf};

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

/// They reach the hypervisor, or send packets for whom they were made.
pub const DEVICES: [&str; 2] = ["/dev/net/tun", "/dev/vsock"];

/// Where nearly all of them are.
pub const RUN: &str = "/run";

/// All that a unit need not see. What belongs to users is hidden as a whole.
pub fn all() -> impl Iterator<Item = &'static str> {
    sockets().chain([OF_USERS]).chain(DEVICES)
}

/// Those with a path of their own.
pub fn sockets() -> impl Iterator<Item = &'static str> {
    CONTAINERS.into_iter().chain(RESOLVERS).chain(HELPERS).chain(SYSTEM_BUS)
}

/// Folders in which nothing but sockets of daemons stands, so that they are hidden with
/// what will be made there. Others have files that jobs read.
pub fn folders() -> impl Iterator<Item = PathBuf> {
    let shared = [RUN, "/run/systemd", "/run/systemd/resolve", "/var/lib/lxd", "/var/lib/incus"];
    let folder = move |path: &'static str| {
        Path::new(path).parent().filter(|folder| !shared.iter().any(|shared| *folder == Path::new(shared)))
    };
    sockets().filter_map(folder).map(Path::to_path_buf).chain([PathBuf::from(OF_USERS)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_with_files_that_jobs_read_are_not_hidden_as_a_whole() {
        let all: Vec<PathBuf> = folders().collect();
        for path in ["/run/dbus", "/run/containerd", "/run/nscd", "/var/lib/sss/pipes", "/run/user"] {
            assert!(all.iter().any(|folder| folder == Path::new(path)), "{path}");
        }
        for path in ["/run", "/run/systemd/resolve", "/var/lib/lxd"] {
            assert!(!all.iter().any(|folder| folder == Path::new(path)), "{path}");
        }
    }
}
