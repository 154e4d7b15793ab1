//! All checks, in the order in which they are shown.

pub mod daemons;
mod files;
mod kernel;
mod service;
pub mod settings;
mod sockets;
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
    host("pins-private", USER, &["unpin", "edit-maps"], service::pins),
    host("core-handler", USER, &["core-handler"], kernel::core_handler),
    host("packet-egress", CONTAINER, &["packet-raw", "packet-datagram"], kernel::packet_egress),
    host("kernel-btf", ROOT, &LSM_STOPS, kernel::btf),
    host("lockdown", ROOT, &LSM_STOPS, kernel::lockdown),
    host("bpf-lsm", ROOT, &LSM_STOPS, service::lsm),
    host("unprivileged-bpf", ADVICE, &[], kernel::unprivileged_bpf),
    host("user-namespaces", ADVICE, &[], kernel::user_namespaces),
    host("foreign-programs", ADVICE, &[], service::foreign),
    host("ping-group", ADVICE, &[], kernel::ping_group),
    scope("scope-tagged", USER, &["socket"], tagging::tagged),
    scope("cgroup-level", USER, &["socket"], tagging::level),
    scope("cgroup-owner", USER, &["move-out"], tagging::owner),
    scope("inherited-sockets", USER, &CONNECTED, tagging::inherited),
    scope("connections-before", USER, &["late-tag-connected"], tagging::before_tag),
    scope("su-session", USER, &["su-session"], tagging::su_session),
    scope("outside-processes", USER, &OUTSIDERS, tagging::outside),
    scope("namespaces-served", ADVICE, &[], tagging::namespaces),
    scope("job-user", USER, &["root-file"], settings::user),
    scope("no-new-privileges", USER, &["privileged-program"], settings::no_new_privileges),
    scope("privileged-programs", USER, &["privileged-program"], files::privileged_programs),
    scope("sudo", USER, &["sudo"], files::sudo),
    scope("capabilities", CONTAINER, &MORE_CAPABILITIES, settings::capabilities),
    scope("ambient-capabilities", USER, &MORE_CAPABILITIES, settings::begins_with),
    scope("vsock", USER, &["vsock"], settings::vsock),
    scope("io-uring", USER, &["uring-vsock"], settings::io_uring),
    scope("call-architectures", USER, &["vsock"], settings::architectures),
    scope("packet-families", CONTAINER, &["packet-raw", "packet-datagram"], settings::packet_families),
    scope("keyring", USER, &["request-key"], settings::keyring),
    scope("control-groups", CONTAINER, &["move-out", "clone-out"], settings::control_groups),
    scope("root-files", ROOT, &["root-file", "core-pattern"], settings::root_files),
    scope("restrict-namespaces", ADVICE, &[], settings::namespaces),
    scope("ptrace-scope", USER, &["puppet-same-user", "steal-connected-same-user"], kernel::ptrace_scope),
    scope("tun-device", USER, &["tun-own"], kernel::tun),
    scope("powerful-groups", USER, &["root-by-group", "container-daemon"], daemons::groups),
    scope("container-sockets", USER, &["container-daemon"], daemons::containers),
    scope("system-bus", USER, &["system-bus"], daemons::system_bus),
    scope("user-manager", USER, &["user-manager"], daemons::user_manager),
    scope("resolver-sockets", USER, &["resolver-daemon"], daemons::resolvers),
    scope("helper-sockets", USER, &["helper-daemon"], daemons::helpers),
    scope("abstract-sockets", USER, &["relay-abstract"], sockets::abstract_sockets),
    scope("unit-files", USER, &["unit-file"], files::unit_files),
    scope("runner-files", USER, &["runner-file"], files::runner_files),
    scope("cron", USER, &["cron"], files::cron),
    scope("boot-order", ADVICE, &[], service::boot_order),
    scope("trust-store", ADVICE, &[], service::trust_store),
];

/// What only the second tier of programs stops root of the host from.
const LSM_STOPS: [&str; 20] = [
    "inherited-connected",
    "standard-input-connected",
    "late-tag-connected",
    "given-connected",
    "relay-unix",
    "relay-abstract",
    "puppet-same-user",
    "steal-connected-same-user",
    "puppet",
    "steal-connected",
    "move-out",
    "clone-out",
    "packet-raw",
    "packet-datagram",
    "vsock",
    "uring-vsock",
    "tun",
    "detach-links",
    "edit-maps",
    "module",
];

const CONNECTED: [&str; 2] = ["inherited-connected", "standard-input-connected"];
const OUTSIDERS: [&str; 3] = ["given-connected", "relay-unix", "relay-abstract"];
const MORE_CAPABILITIES: [&str; 7] =
    ["tun", "puppet", "steal-connected", "detach-links", "edit-maps", "move-out", "module"];

/// Whether the second tier of programs runs, which looks at what no option of a unit does.
fn lsm_runs(host: &Host) -> bool {
    tier(host, "lsm").is_some_and(|(active, _)| active)
}

/// A tier of programs, as the service tells of it: whether it runs, or why not.
fn tier(host: &Host, name: &str) -> Option<(bool, String)> {
    let Service::Answers(status) = &host.probes.service else { return None };
    let tier = status["tiers"].as_array()?.iter().find(|tier| tier["name"] == name)?;
    let why = match tier["state"].as_str() {
        Some("off") => "it is turned off in the configuration",
        _ => tier["why"].as_str().unwrap_or("the service does not say why"),
    };
    Some((tier["state"] == "active", why.to_owned()))
}

/// A list for people.
fn listed(items: &[String]) -> String {
    const SHOWN: usize = 6;
    match items.len() {
        0..=SHOWN => items.join(", "),
        more => format!("{} and {} more", items[..SHOWN].join(", "), more - SHOWN),
    }
}
