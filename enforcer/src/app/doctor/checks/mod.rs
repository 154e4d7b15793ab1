//! All checks, in the order in which they are shown.

pub mod daemons;
mod files;
mod kernel;
mod service;
pub mod settings;
mod tagging;

use super::check::Level::{ContainerRoot, HostRoot, Unprivileged};
use super::check::{Check, Level, Look};
use super::host::{Host, Service};

const fn host(
    id: &'static str,
    from: Option<Level>,
    opens: &'static [&'static str],
    look: fn(&Host) -> super::check::Found,
) -> Check {
    Check { id, from, opens, look: Look::Host(look) }
}

const fn scope(
    id: &'static str,
    from: Option<Level>,
    opens: &'static [&'static str],
    look: fn(&Host, &super::scope::Scope) -> super::check::Found,
) -> Check {
    Check { id, from, opens, look: Look::Scope(look) }
}

const USER: Option<Level> = Some(Unprivileged);
const CONTAINER: Option<Level> = Some(ContainerRoot);
const ROOT: Option<Level> = Some(HostRoot);
/// It decides nothing.
const ADVICE: Option<Level> = None;

/// Every check.
pub const CHECKS: &[Check] = &[
    host("kernel-version", USER, &["socket"], kernel::version),
    host("cgroup2-mount", USER, &["socket"], kernel::cgroup2),
    host("cgroup-bpf", USER, &["socket"], kernel::cgroup_bpf),
    host("service-whole", USER, &["socket"], service::whole),
    host("pins-private", USER, &["pin"], service::pins),
    host("core-handler", USER, &["core-handler"], kernel::core_handler),
    host("packet-egress", CONTAINER, &["af-packet"], kernel::packet_egress),
    host("kernel-btf", ROOT, &LSM_STOPS, kernel::btf),
    host("lockdown", ROOT, &LSM_STOPS, kernel::lockdown),
    host("bpf-lsm", ROOT, &LSM_STOPS, service::lsm),
    host("unprivileged-bpf", ADVICE, &[], kernel::unprivileged_bpf),
    host("user-namespaces", ADVICE, &[], kernel::user_namespaces),
    host("ping-group", ADVICE, &[], kernel::ping_group),
    scope("scope-tagged", USER, &["socket"], tagging::tagged),
    scope("cgroup-level", USER, &["socket"], tagging::level),
    scope("cgroup-owner", USER, &["cgroup-move"], tagging::owner),
    scope("inherited-sockets", USER, &["inherited-connected"], tagging::inherited),
    scope("su-session", USER, &["su-session"], tagging::su_session),
    scope("namespaces-served", ADVICE, &[], tagging::namespaces),
    scope("job-user", USER, &["root-file", "unix-any", "cgroup-move"], settings::user),
    scope("no-new-privileges", USER, &["setuid-program"], settings::no_new_privileges),
    scope("privileged-programs", USER, &["setuid-program"], files::privileged_programs),
    scope("sudo", USER, &["sudo"], files::sudo),
    scope("capabilities", CONTAINER, &MORE_CAPABILITIES, settings::capabilities),
    scope("ambient-capabilities", USER, &MORE_CAPABILITIES, settings::begins_with),
    scope("vsock", USER, &["vsock"], settings::vsock),
    scope("packet-families", CONTAINER, &["af-packet", "af-xdp"], settings::packet_families),
    scope("keyring", USER, &["request-key"], settings::keyring),
    scope("control-groups", CONTAINER, &["cgroup-move", "clone-into-cgroup"], settings::control_groups),
    scope("root-files", ROOT, &["root-file", "core-pattern"], settings::root_files),
    scope("restrict-namespaces", ADVICE, &[], settings::namespaces),
    scope("ptrace-scope", USER, &["ptrace-outsider", "pidfd-getfd"], kernel::ptrace_scope),
    scope("tun-device", USER, &["tun-device"], kernel::tun),
    scope("powerful-groups", USER, &["root-by-group", "unix-docker"], daemons::groups),
    scope("container-sockets", USER, &["unix-docker"], daemons::containers),
    scope("system-bus", USER, &["unix-dbus"], daemons::system_bus),
    scope("user-manager", USER, &["unix-user-manager"], daemons::user_manager),
    scope("resolver-sockets", USER, &["unix-resolver"], daemons::resolvers),
    scope("helper-sockets", USER, &["unix-helper"], daemons::helpers),
    scope("unit-files", USER, &["unit-file"], files::unit_files),
    scope("runner-files", USER, &["runner-file"], files::runner_files),
    scope("cron", USER, &["cron"], files::cron),
];

/// What only the second tier of programs stops root of the host from.
const LSM_STOPS: [&str; 16] = [
    "af-packet",
    "af-xdp",
    "vsock",
    "tun-inject",
    "inherited-connected",
    "scm-connected",
    "cgroup-move",
    "clone-into-cgroup",
    "setns",
    "ptrace-any",
    "bpf-detach",
    "unpin",
    "unix-any",
    "kill-enforcer",
    "core-pattern",
    "module",
];

const MORE_CAPABILITIES: [&str; 6] =
    ["tun-inject", "setns", "ptrace-any", "bpf-detach", "module", "cgroup-move"];

/// Whether the second tier of programs runs, which looks at what no option of a unit does.
fn lsm_runs(host: &Host) -> bool {
    tier(host, "lsm").is_some_and(|(active, _)| active)
}

/// A tier of programs, as the service tells of it: whether it runs, or why not.
fn tier(host: &Host, name: &str) -> Option<(bool, String)> {
    let Service::Answers(status) = &host.probes.service else { return None };
    let tier = status["tiers"].as_array()?.iter().find(|tier| tier["name"] == name)?;
    Some((tier["state"] == "active", tier["why"].as_str().unwrap_or_default().to_owned()))
}

/// A list for people.
fn listed(items: &[String]) -> String {
    const SHOWN: usize = 6;
    match items.len() {
        0..=SHOWN => items.join(", "),
        more => format!("{} and {} more", items[..SHOWN].join(", "), more - SHOWN),
    }
}
