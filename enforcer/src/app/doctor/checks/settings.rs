//! What a unit may do, by its settings.

use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::Host;
use crate::app::doctor::scope::Scope;
use crate::app::doctor::unit::{IO_URING, KEYRING, Unit};

use super::{listed, lsm_runs};

/// What no job needs, and what undoes enforcement. CAP_NET_RAW, which Docker leaves
/// to containers, is not among them: AF_PACKET has a check of its own.
pub const DANGEROUS: [&str; 12] = [
    "cap_net_admin",
    "cap_sys_admin",
    "cap_sys_ptrace",
    "cap_sys_module",
    "cap_sys_rawio",
    "cap_sys_boot",
    "cap_sys_resource",
    "cap_bpf",
    "cap_perfmon",
    "cap_mac_admin",
    "cap_mac_override",
    "cap_dac_read_search",
];

/// Families that no program at the cgroup root sees.
pub const OTHER_FAMILIES: [&str; 11] = [
    "AF_PACKET",
    "AF_VSOCK",
    "AF_XDP",
    "AF_ALG",
    "AF_KEY",
    "AF_BLUETOOTH",
    "AF_CAN",
    "AF_TIPC",
    "AF_QIPCRTR",
    "AF_RDS",
    "AF_KCM",
];
/// The line that takes away the calls that matter here.
pub const CALLS: &str = "SystemCallFilter=~@keyring io_uring_setup";
pub const NATIVE: &str = "SystemCallArchitectures=native";

/// The line that takes the dangerous capabilities away.
pub fn bounding() -> String {
    format!("CapabilityBoundingSet=~{}", DANGEROUS.map(str::to_uppercase).join(" "))
}

/// The line that leaves the families that programs at the cgroup root know, and NETLINK,
/// by which programs read the interfaces. To a list that is there it adds nothing.
pub fn families(unit: &Unit) -> String {
    if unit.says("RestrictAddressFamilies") {
        format!("RestrictAddressFamilies=~{}", OTHER_FAMILIES.join(" "))
    } else {
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK".to_owned()
    }
}

/// Capabilities that jobs begin with and should not.
pub fn ambient(unit: &Unit) -> Vec<String> {
    let set = unit.capabilities("AmbientCapabilities").unwrap_or_default();
    let raw = ["cap_net_raw"];
    DANGEROUS.iter().chain(&raw).filter(|name| set.contains(**name)).map(|name| name.to_uppercase()).collect()
}

const OF_RUN: &str = "jobs of `enforcer run` have none";
const BY_LSM: &str = "the LSM tier refuses what undoes enforcement, whatever capabilities there are";

pub(super) fn user(_: &Host, scope: &Scope) -> Found {
    let names: Vec<String> = scope.people.iter().map(|person| person.name.clone()).collect();
    if !scope.runs_as_root() {
        return Found::good(format!("jobs run as {}", listed(&names)));
    }
    if scope.contained {
        return Found::good("jobs are root in a container, not of the host");
    }
    let text = "jobs run as root, so that none of them is without privileges";
    match &scope.unit {
        Some(_) => Found::missing(text, Fix::drop_in("User=ci"))
            .with(Fix::shell("useradd --system --create-home ci    # or name the jobs' user with --user")),
        None => {
            Found::missing(text, Fix::shell("# start jobs as a user of the group `enforcer`, not as root"))
        }
    }
}

pub(super) fn no_new_privileges(_: &Host, scope: &Scope) -> Found {
    if scope.no_new_privileges() {
        Found::good("programs give nobody more than they have")
    } else {
        Found::missing(
            "programs with the setuid bit or capabilities of their own give them to jobs",
            Fix::drop_in("NoNewPrivileges=yes"),
        )
    }
}

pub(super) fn capabilities(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else { return Found::good(OF_RUN) };
    if lsm_runs(host) {
        return Found::good(BY_LSM);
    }
    let Some(set) = unit.capabilities("CapabilityBoundingSet") else {
        return Found::missing("root in the unit has every capability", Fix::drop_in(bounding()));
    };
    let held: Vec<String> =
        DANGEROUS.iter().filter(|name| set.contains(**name)).map(|name| name.to_uppercase()).collect();
    if held.is_empty() {
        Found::good("root in the unit can change neither the network nor the kernel")
    } else {
        Found::missing(format!("root in the unit has {}", listed(&held)), Fix::drop_in(bounding()))
    }
}

pub(super) fn begins_with(host: &Host, scope: &Scope) -> Found {
    if lsm_runs(host) {
        return Found::good(BY_LSM);
    }
    let held = scope.unit.as_ref().map(ambient).unwrap_or_default();
    if held.is_empty() {
        return Found::good("jobs begin without a capability that matters");
    }
    let line = format!("AmbientCapabilities=~{}", held.join(" "));
    Found::missing(format!("jobs begin with {}", listed(&held)), Fix::drop_in(line))
}

/// A channel to the hypervisor that no hook of cgroups sees, open to everybody.
pub(super) fn vsock(host: &Host, scope: &Scope) -> Found {
    if scope.unit.as_ref().is_some_and(|unit| !unit.allows_family("AF_VSOCK")) {
        return Found::good("the unit has no AF_VSOCK");
    }
    let Some(unit) = &scope.unit else {
        return Found::good("the filter of `enforcer run` leaves jobs no AF_VSOCK");
    };
    if lsm_runs(host) {
        return Found::good("the LSM tier refuses AF_VSOCK");
    }
    let release = host.line("/proc/sys/kernel/osrelease").ok().flatten().unwrap_or_default();
    let lists = |file: &str| host.text(format!("/lib/modules/{release}/{file}")).ok().flatten();
    let named = |text: Option<String>| text.map(|text| text.lines().any(|line| line.contains("/vsock.ko")));
    let here = host.exists("/dev/vsock") || host.exists("/sys/module/vsock");
    let fix = Fix::drop_in(families(unit));
    if here {
        return Found::missing("AF_VSOCK is open: a channel to the hypervisor", fix);
    }
    let blocked = host.list("/etc/modprobe.d").iter().any(|file| {
        let text = host.text(format!("/etc/modprobe.d/{file}")).ok().flatten().unwrap_or_default();
        text.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            matches!(words[..], ["install", "vsock", "/bin/false" | "/bin/true" | "/usr/bin/false", ..])
        })
    });
    match (blocked, named(lists("modules.dep"))) {
        (true, _) => Found::good("the module vsock is not loaded and will not be"),
        (false, Some(false)) => Found::good("the kernel has no AF_VSOCK"),
        (false, _) => Found::missing("the first socket of AF_VSOCK has its module loaded", fix),
    }
}

pub(super) fn packet_families(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("jobs of `enforcer run` have no capability for AF_PACKET and AF_XDP");
    };
    if lsm_runs(host) {
        return Found::good("the LSM tier refuses AF_PACKET and AF_XDP");
    }
    let open: Vec<String> = ["AF_PACKET", "AF_XDP"]
        .iter()
        .filter(|family| unit.allows_family(family))
        .map(|it| (*it).to_owned())
        .collect();
    let raw = unit.capabilities("CapabilityBoundingSet").is_none_or(|set| set.contains("cap_net_raw"));
    if open.is_empty() {
        Found::good("the unit has neither AF_PACKET nor AF_XDP")
    } else if raw {
        Found::missing(format!("root in the unit has {}", open.join(" and ")), Fix::drop_in(families(unit)))
    } else {
        Found::good("root in the unit has no CAP_NET_RAW")
    }
}

/// Sockets of a ring are made without a system call that a filter of families sees.
pub(super) fn io_uring(host: &Host, scope: &Scope) -> Found {
    if scope.unit.as_ref().is_some_and(|unit| !unit.allows_call(IO_URING)) {
        return Found::good("the unit has no io_uring");
    }
    let off = host.line("/proc/sys/kernel/io_uring_disabled").ok().flatten();
    if off.as_deref() == Some("2") {
        return Found::good("kernel.io_uring_disabled=2");
    }
    if lsm_runs(host) {
        return Found::good("the LSM tier sees sockets of io_uring");
    }
    if scope.unit.is_none() {
        return Found::good("the filter of `enforcer run` leaves jobs no io_uring");
    }
    Found::missing("io_uring makes sockets of families that are taken away", Fix::drop_in(CALLS))
}

/// So are those of 32-bit programs, whose calls for sockets have their arguments in memory.
pub(super) fn architectures(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("the unit's filters are of no account to `enforcer run`");
    };
    if unit.last("SystemCallArchitectures") == Some("native") {
        Found::good("the unit runs no 32-bit programs")
    } else if lsm_runs(host) {
        Found::good("the LSM tier sees sockets of 32-bit programs")
    } else {
        Found::missing("32-bit programs make sockets of families that are taken away", Fix::drop_in(NATIVE))
    }
}

/// The kernel asks root's `/sbin/request-key`, outside of every job, for what a process
/// wants to know, names of hosts among it.
pub(super) fn keyring(host: &Host, scope: &Scope) -> Found {
    if !host.exists("/sbin/request-key") {
        return Found::good("there is no /sbin/request-key that would look a name up");
    }
    if scope.unit.as_ref().is_some_and(|unit| KEYRING.iter().all(|call| !unit.allows_call(call))) {
        return Found::good("the unit has no calls of the keyring");
    }
    if scope.unit.is_none() {
        return Found::good("the filter of `enforcer run` leaves jobs no request_key");
    }
    Found::missing("the kernel has root look names up for a job (request_key)", Fix::drop_in(CALLS))
}

pub(super) fn control_groups(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("jobs of `enforcer run` see their own cgroup alone, read-only");
    };
    if unit.is_yes("ProtectControlGroups")
        || matches!(unit.last("ProtectControlGroups"), Some("private" | "strict"))
    {
        Found::good("the unit cannot write to cgroups")
    } else if lsm_runs(host) {
        Found::good("the LSM tier refuses to leave a tag")
    } else if !scope.runs_as_root() && unit.last("User").is_some_and(|user| user != "root") {
        Found::good("cgroups are root's, and the unit has no root")
    } else {
        Found::missing(
            "root in the unit can move itself out of the tagged cgroup",
            Fix::drop_in("ProtectControlGroups=yes"),
        )
    }
}

/// What root writes may be run by something that is not tagged.
pub(super) fn root_files(_: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return if scope.runs_as_root() {
            Found::missing(
                "a job of root may write crontabs and units",
                Fix::shell("# start jobs as a user of the group `enforcer`, not as root"),
            )
        } else {
            Found::good("jobs are not root's")
        };
    };
    if unit.last("User").is_some_and(|user| user != "root") || unit.is_yes("DynamicUser") {
        return Found::good("the unit is not root's");
    }
    if scope.contained {
        return Found::good("the container has files of its own");
    }
    let system = matches!(unit.last("ProtectSystem"), Some("full" | "strict"));
    let settings = unit.is_yes("ProtectKernelTunables");
    if system && settings {
        return Found::good("the host's files and the kernel's settings are read-only for the unit");
    }
    let lines =
        [(!system).then_some("ProtectSystem=full"), (!settings).then_some("ProtectKernelTunables=yes")];
    Found::missing(
        "root in the unit may write crontabs, units and settings of the kernel",
        Fix::DropIn(lines.into_iter().flatten().map(str::to_owned).collect()),
    )
}

pub(super) fn namespaces(_: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("a namespace of the network is refused until it is served");
    };
    match unit.last("RestrictNamespaces") {
        None | Some("no") => Found::missing(
            "the unit may make namespaces (it needs them only for containers)",
            Fix::drop_in("RestrictNamespaces=yes"),
        ),
        Some(value) => Found::good(format!("RestrictNamespaces={value}")),
    }
}
