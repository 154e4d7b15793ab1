//! Sockets of others that have no file: whoever is in the network namespace reaches them.

use std::collections::HashSet;

use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::Host;
use crate::app::doctor::scope::Scope;

use super::{listed, lsm_runs};

/// The first version of Landlock whose domains refuse abstract sockets outside: Linux 6.12.
const SCOPES: u32 = 6;
/// `struct unix_sock` has asked to listen, as /proc/net/unix shows it.
const LISTENS: u64 = 0x1_0000;
/// SOCK_DGRAM, and SS_UNCONNECTED: one that takes what anybody sends.
const DATAGRAMS: (&str, &str) = ("0002", "01");

/// A process outside that listens there, and relays.
pub(super) fn abstract_sockets(host: &Host, scope: &Scope) -> Found {
    if lsm_runs(host) {
        return Found::good("the LSM tier refuses sockets of outsiders that are not listed");
    }
    if scope.unit.as_ref().is_some_and(|unit| unit.is_yes("PrivateNetwork")) {
        return Found::good(
            "the unit has a network namespace of its own, and with it its own abstract sockets",
        );
    }
    if scope.unit.is_none() && host.probes.landlock.is_some_and(|version| version >= SCOPES) {
        return Found::good("Landlock keeps jobs of `enforcer run` from abstract sockets of outsiders");
    }
    let table = match host.text("/proc/net/unix") {
        Ok(table) => table.unwrap_or_default(),
        Err(error) => return Found::unknown(format!("which abstract sockets there are: {error}")),
    };
    let own = own_sockets(host, scope);
    let mut names: Vec<String> = table.lines().skip(1).filter_map(|line| name(line, &own)).collect();
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Found::good("nobody outside listens at an abstract socket");
    }
    let text = format!("jobs reach abstract sockets of others: {}", listed(&names));
    match scope.unit {
        Some(_) => Found::missing(text, Fix::drop_in("PrivateNetwork=yes")),
        None => Found::missing(
            text,
            Fix::shell(
                "ss --unix --listening --processes | grep '@'    # end these, or run Linux 6.12 or newer",
            ),
        ),
    }
}

/// The name of a socket that takes connections or datagrams of anybody, and is not the
/// scope's own.
fn name(line: &str, own: &HashSet<String>) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, flags, kind, state, inode, name, ..] = fields[..] else { return None };
    let flags = u64::from_str_radix(flags, 16).ok()?;
    let open = flags & LISTENS != 0 || (kind, state) == DATAGRAMS;
    (name.starts_with('@') && open && !own.contains(inode)).then(|| name.to_owned())
}

/// The inodes of the sockets that the scope's processes hold.
fn own_sockets(host: &Host, scope: &Scope) -> HashSet<String> {
    let Ok(Some(mount)) = host.cgroup2() else { return HashSet::new() };
    let mut own = HashSet::new();
    for pid in host.processes(&scope.cgroup_at(&mount)) {
        let folder = format!("/proc/{pid}/fd");
        let links = host.list(&folder).into_iter().filter_map(|fd| host.link(&format!("{folder}/{fd}")));
        own.extend(
            links.filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())),
        );
    }
    own
}
