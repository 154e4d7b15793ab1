//! Two network namespaces with a cable between them: the workload's, and that
//! of a peer who should never hear from it.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};

/// Addresses of the workload's end.
pub const WORK4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub const WORK6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Addresses of the peer's end.
pub const PEER4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Name of the workload's interface.
pub const WORK_INTERFACE: &str = "work0";
/// Name of the peer's interface.
pub const PEER_INTERFACE: &str = "peer0";

const WORK_LINK: &str = "02:00:00:00:00:01";
const PEER_LINK: &str = "02:00:00:00:00:02";
/// What the kernel makes of that (RFC 4291, appendix A).
const PEER_LINK_LOCAL: &str = "fe80::ff:fe00:2";

/// A named network namespace, removed when dropped.
pub struct Netns {
    name: String,
    file: File,
}

impl Netns {
    pub fn new(kind: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("enf-{kind}-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let file = File::open(format!("/run/netns/{name}"))?;
        let netns = Self { name, file };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// `ip` in this namespace.
    pub fn ip(&self, args: &[&str]) -> Result<()> {
        let mut all = vec!["-n", &self.name];
        all.extend(args);
        ip(&all)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs something on a thread in this namespace; sockets it makes stay there.
    pub fn run<T: Send + 'static>(&self, what: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let file = self.file.try_clone()?;
        std::thread::spawn(move || -> Result<T> {
            nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET)?;
            Ok(what())
        })
        .join()
        .map_err(|_| anyhow::anyhow!("the thread in the namespace panicked"))?
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(e) = ip(&["netns", "del", &self.name]) {
            eprintln!("{e}");
        }
    }
}

/// The two namespaces.
pub struct Cable {
    pub work: Netns,
    pub peer: Netns,
}

impl Cable {
    pub fn new() -> Result<Self> {
        let work = Netns::new("work")?;
        let peer = Netns::new("peer")?;
        work.ip(&[
            "link",
            "add",
            WORK_INTERFACE,
            "type",
            "veth",
            "peer",
            "name",
            PEER_INTERFACE,
            "netns",
            peer.name(),
        ])?;
        // Addresses that the kernel itself gives are usable at once, too.
        for (netns, interface) in [(&work, WORK_INTERFACE), (&peer, PEER_INTERFACE)] {
            let path = format!("/proc/sys/net/ipv6/conf/{interface}/accept_dad");
            netns.run(|| std::fs::write(path, "0"))??;
        }
        for (netns, interface, link, v4, v6) in [
            (&work, WORK_INTERFACE, WORK_LINK, WORK4.to_string(), WORK6.to_string()),
            (&peer, PEER_INTERFACE, PEER_LINK, PEER4.to_string(), PEER6.to_string()),
        ] {
            netns.ip(&["link", "set", interface, "address", link])?;
            netns.ip(&["address", "add", &format!("{v4}/24"), "dev", interface])?;
            // Without duplicate address detection it can be used at once.
            netns.ip(&["-6", "address", "add", &format!("{v6}/64"), "dev", interface, "nodad"])?;
            netns.ip(&["link", "set", interface, "up"])?;
        }
        // Known neighbours: a packet arrives at once, or not at all.
        for (address, family) in
            [(PEER4.to_string(), "-4"), (PEER6.to_string(), "-6"), (PEER_LINK_LOCAL.to_owned(), "-6")]
        {
            let known = ["lladdr", PEER_LINK, "dev", WORK_INTERFACE, "nud", "permanent"];
            work.ip(&[&[family, "neigh", "replace", &address], &known[..]].concat())?;
        }
        for (address, family) in [(WORK4.to_string(), "-4"), (WORK6.to_string(), "-6")] {
            let known = ["lladdr", WORK_LINK, "dev", PEER_INTERFACE, "nud", "permanent"];
            peer.ip(&[&[family, "neigh", "replace", &address], &known[..]].concat())?;
        }
        // As on a desktop: everybody may have an ICMP socket.
        work.run(|| std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647"))??;
        work.ip(&["route", "add", "default", "via", &PEER4.to_string()])?;
        work.ip(&["-6", "route", "add", "default", "via", &PEER6.to_string()])?;
        Ok(Self { work, peer })
    }
}

fn ip(args: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(args).output().context("ip of iproute2 is needed")?;
    ensure!(done.status.success(), "ip {}: {}", args.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    Ok(())
}
