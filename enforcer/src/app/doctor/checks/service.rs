//! The running service: what it attached, and who can change it.

use std::path::Path;

use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::harden::{SERVICE, binds, unbound};
use crate::app::doctor::host::{Host, Service};
use crate::app::doctor::scope::{Kind, Scope};
use crate::app::doctor::unit::Unit;

use super::{listed, tier};

pub(super) fn whole(host: &Host) -> Found {
    let status = match &host.probes.service {
        Service::Answers(status) => status,
        Service::Silent => {
            return Found::missing(
                "no service runs: scopes are not watched, and tagged cgroups have no network",
                Fix::shell("systemctl enable --now enforcer"),
            );
        }
        Service::Unknown(why) => return Found::unknown(format!("the service was not asked: {why}")),
    };
    let problem = |pin: &serde_json::Value| {
        let text = pin["problem"].as_str()?;
        Some(format!("{} {text}", pin["name"].as_str().unwrap_or_default()))
    };
    let pins = status["pins"].as_array();
    let wrong: Vec<String> = pins.into_iter().flatten().filter_map(problem).collect();
    if !wrong.is_empty() {
        return Found::missing(listed(&wrong), Fix::shell("systemctl restart enforcer"));
    }
    if let Some(what) = status["tampered"].as_str() {
        return Found::missing(
            format!("changed by somebody: {what}"),
            Fix::shell("enforcer status; enforcer reload    # when you know by whom"),
        );
    }
    if let Some(why) = status["proxy"]["policy_problem"].as_str() {
        return Found::missing(
            format!("policies are not as their files say: {why}"),
            Fix::shell("enforcer policy check"),
        );
    }
    match pins.map_or(0, Vec::len) {
        0 => Found::missing("the service holds no pins", Fix::shell("systemctl restart enforcer")),
        // What it records decides no connection, but is how root is noticed.
        count if status["healthy"] == true => {
            Found::good(format!("{count} hooks are attached, all in place"))
        }
        count => Found::missing(
            format!("{count} hooks are attached, but the service is not whole"),
            Fix::shell("enforcer status; journalctl -u enforcer -n 50"),
        ),
    }
}

/// What is pinned is changed by whoever may write there.
pub(super) fn pins(host: &Host) -> Found {
    let pins = &host.config.kernel.pins;
    let shown = pins.display();
    match host.meta(pins) {
        // Nothing is pinned, which another check tells; nothing can be changed.
        None => Found::good(format!("nothing is pinned at {shown}")),
        Some(meta) if meta.uid == 0 && meta.mode & 0o077 == 0 => open_pins(host, pins),
        Some(meta) => Found::missing(
            format!("{shown} is open to others than root (uid {}, mode {:o})", meta.uid, meta.mode),
            Fix::shell(format!("chown root:root {shown} && chmod 0700 {shown}")),
        ),
    }
}

fn open_pins(host: &Host, pins: &Path) -> Found {
    let open = |name: &String| {
        host.meta(pins.join(name)).is_some_and(|meta| meta.uid != 0 || meta.mode & 0o077 != 0)
    };
    let open: Vec<String> = host.list(pins).into_iter().filter(open).collect();
    if open.is_empty() {
        Found::good(format!("{} is root's alone", pins.display()))
    } else {
        // Behind a folder that is closed; another mount or descriptor would do.
        Found::missing(
            format!("pins are open to others than root: {}", listed(&open)),
            Fix::shell(format!("chmod -R go= {}", pins.display())),
        )
    }
}

pub(super) fn lsm(host: &Host) -> Found {
    let boot = |list: &str| {
        let list = if list.is_empty() { "landlock,lockdown,yama,integrity,apparmor" } else { list };
        Fix::Shell(vec![
            format!(
                "echo 'GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX lsm={list},bpf\"' >/etc/default/grub.d/enforcer.cfg"
            ),
            "update-grub && systemctl reboot".to_owned(),
        ])
    };
    let list = match host.line("/sys/kernel/security/lsm") {
        Ok(Some(list)) => list,
        Ok(None) => {
            return Found::unknown("securityfs is not mounted")
                .with(Fix::shell("mount -t securityfs securityfs /sys/kernel/security"));
        }
        Err(error) => return Found::unknown(format!("/sys/kernel/security/lsm: {error}")),
    };
    if super::kernel::option(host, "CONFIG_BPF_LSM").is_some_and(|value| value != "y") {
        return Found::missing(
            "the kernel was built without CONFIG_BPF_LSM",
            Fix::shell("apt-get install -y linux-image-amd64 && systemctl reboot"),
        );
    }
    if !list.split(',').any(|name| name == "bpf") {
        return Found::missing(format!("`bpf` is not among the LSMs: {list}"), boot(&list));
    }
    match tier(host, "lsm") {
        Some((true, _)) => Found::good("the LSM tier runs"),
        Some((false, why)) => Found::missing(
            format!("the LSM tier does not run: {why}"),
            Fix::shell(
                "sed -i '/^#*lsm *=/d; s/^\\[kernel\\]$/&\\nlsm = \"auto\"/' /etc/enforcer/config.toml && systemctl restart enforcer",
            ),
        ),
        None if matches!(host.probes.service, Service::Answers(_)) => {
            Found::missing("the service has no LSM tier", Fix::shell("apt-get install -y enforcer"))
        }
        None => Found::unknown("the kernel can; whether the LSM tier runs is not known without the service"),
    }
}

/// Programs of others at the same cgroups: those of systemd (`IPAddressDeny=`) are fine.
pub(super) fn foreign(host: &Host) -> Found {
    let Service::Answers(status) = &host.probes.service else {
        return Found::good("no service runs that would look for programs of others");
    };
    let text = |program: &serde_json::Value| program["text"].as_str().map(str::to_owned);
    let others: Vec<String> = status["foreign"].as_array().into_iter().flatten().filter_map(text).collect();
    if others.is_empty() {
        Found::good("no programs of others are attached to the same cgroups")
    } else {
        Found::missing(
            format!("programs of others see the same traffic, and may run after ours: {}", listed(&others)),
            Fix::shell("bpftool cgroup tree    # whose they are"),
        )
    }
}

/// The unit of a scope that systemd starts.
fn started(scope: &Scope) -> Option<&Unit> {
    scope.unit.as_ref().filter(|_| scope.kind == Kind::Unit)
}

/// Pins do not survive a boot.
pub(super) fn boot_order(_: &Host, scope: &Scope) -> Found {
    match started(scope) {
        None => Found::good("nothing that systemd starts at a boot by this name"),
        Some(unit) if unit.words("After").any(|name| name == SERVICE) => {
            Found::good("it starts after the service")
        }
        Some(unit) => Found::missing(
            "at a boot it may start before the service, and its jobs run without enforcement until then",
            Fix::shell(format!("enforcer scope harden {} --apply", unit.name)),
        ),
    }
}

/// What was not started by `enforcer run` has no roots mounted.
pub(super) fn trust_store(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = started(scope) else { return Found::good("its jobs are given the CA when they start") };
    let binds = binds(host);
    let lines: Vec<String> =
        unbound(unit, &binds).into_iter().map(|bind| format!("BindReadOnlyPaths={bind}")).collect();
    if lines.is_empty() {
        Found::good("it sees the host's roots with this host's CA")
    } else {
        Found::missing("its clients do not trust this host's CA", Fix::DropIn(lines))
    }
}
