//! What the kernel is, and how it is set.

use std::io::Read;

use crate::app::config::DEFAULT;
use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::{Access, Host, MAX_FILE, Service};
use crate::app::doctor::scope::Scope;
use crate::kernel::Tc;

/// The oldest kernel that this was measured on.
const OLDEST: (u32, u32) = (6, 1);
/// From here on links can be made at the egress of an interface.
const TCX: (u32, u32) = (6, 6);
/// The version of Landlock's interface that has scopes.
const SCOPES: u32 = 6;

/// What the kernel was built with: y, m or n; None if it does not say.
pub(super) fn option(host: &Host, name: &str) -> Option<String> {
    let release = host.line("/proc/sys/kernel/osrelease").ok().flatten()?;
    let plain = [format!("/boot/config-{release}"), format!("/lib/modules/{release}/config")];
    let text = plain.iter().find_map(|path| host.text(path).ok().flatten()).or_else(|| {
        let packed = host.bytes("/proc/config.gz").ok().flatten()?;
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed.as_slice()).take(MAX_FILE).read_to_string(&mut text).ok()?;
        Some(text)
    })?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned));
    Some(value.unwrap_or_else(|| "n".to_owned()))
}

fn release(host: &Host) -> Option<(String, (u32, u32))> {
    let text = host.line("/proc/sys/kernel/osrelease").ok().flatten()?;
    let mut numbers = text.split(['.', '-', '+']).map(str::parse::<u32>);
    let version = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((text, version))
}

pub(super) fn version(host: &Host) -> Found {
    match release(host) {
        None => Found::unknown("/proc/sys/kernel/osrelease does not tell the kernel's version"),
        Some((text, version)) if version >= OLDEST => Found::good(format!("Linux {text}")),
        Some((text, _)) => Found::missing(
            format!("Linux {text}; its hooks were never measured, 6.1 is the oldest"),
            Fix::shell("apt-get install -y linux-image-amd64 && systemctl reboot"),
        ),
    }
}

pub(super) fn cgroup2(host: &Host) -> Found {
    match host.cgroup2() {
        Ok(Some(mount)) => Found::good(format!("cgroup2 at {}", mount.display())),
        Ok(None) => Found::missing(
            "cgroup2 is not mounted, or only a part of it is",
            Fix::shell("mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"),
        ),
        Err(error) => Found::unknown(format!("/proc/self/mountinfo: {error}")),
    }
}

pub(super) fn cgroup_bpf(host: &Host) -> Found {
    if let Service::Answers(status) = &host.probes.service
        && status["pins"].as_array().is_some_and(|pins| !pins.is_empty())
    {
        return Found::good("programs are attached to cgroups");
    }
    match option(host, "CONFIG_CGROUP_BPF").as_deref() {
        Some("y") => Found::good("CONFIG_CGROUP_BPF=y"),
        Some(_) => Found::missing(
            "the kernel was built without CONFIG_CGROUP_BPF",
            Fix::shell("apt-get install -y linux-image-amd64 && systemctl reboot"),
        ),
        None => Found::unknown("the kernel does not tell what it was built with")
            .with(Fix::shell("modprobe configs    # /proc/config.gz, or start the service, which tries")),
    }
}

pub(super) fn btf(host: &Host) -> Found {
    if host.exists("/sys/kernel/btf/vmlinux") {
        Found::good("/sys/kernel/btf/vmlinux")
    } else {
        Found::missing(
            "the kernel has no types of its own (BTF), which programs of the LSM tier need",
            Fix::shell("apt-get install -y linux-image-amd64 && systemctl reboot"),
        )
    }
}

pub(super) fn lockdown(host: &Host) -> Found {
    match host.line("/sys/kernel/security/lockdown") {
        Ok(Some(text)) if text.contains("[confidentiality]") => Found::missing(
            "lockdown=confidentiality: programs of the LSM tier cannot read the kernel's memory",
            Fix::shell(
                "sed -i 's/lockdown=confidentiality/lockdown=integrity/' /etc/default/grub && update-grub && systemctl reboot",
            ),
        ),
        Ok(Some(text)) => Found::good(format!("lockdown: {text}")),
        Ok(None) if host.exists("/sys/kernel/security/lsm") => Found::good("no lockdown"),
        Ok(None) => Found::unknown("securityfs is not mounted")
            .with(Fix::shell("mount -t securityfs securityfs /sys/kernel/security")),
        Err(error) => Found::unknown(format!("/sys/kernel/security/lockdown: {error}")),
    }
}

/// AF_PACKET passes every hook of cgroups: root with CAP_NET_RAW is stopped at the
/// interface.
pub(super) fn packet_egress(host: &Host) -> Found {
    if super::lsm_runs(host) {
        return Found::good("the LSM tier refuses AF_PACKET");
    }
    if let Service::Answers(status) = &host.probes.service
        && status["interfaces"].is_object()
    {
        let interfaces = &status["interfaces"];
        let Some(why) = interfaces["problem"].as_str() else {
            return Found::good(format!("programs at the egress of {} interfaces", interfaces["guarded"]));
        };
        let fix = match host.config.kernel.tc {
            Tc::Off => format!("sed -i '/^tc *=/d' {DEFAULT} && systemctl restart enforcer"),
            Tc::Auto | Tc::Filters => {
                "modprobe -a sch_ingress cls_bpf && systemctl restart enforcer".to_owned()
            }
        };
        return Found::missing(format!("no programs at the egress of interfaces: {why}"), Fix::shell(fix));
    }
    let Some((text, version)) = release(host) else { return Found::unknown("no version of the kernel") };
    if version >= TCX {
        return Found::good(format!("Linux {text} has tcx"));
    }
    let built_in = option(host, "CONFIG_NET_SCH_INGRESS");
    match built_in.as_deref() {
        Some("y" | "m") => Found::good("clsact, as CONFIG_NET_SCH_INGRESS has it"),
        Some(_) => Found::missing(
            "neither tcx nor clsact: AF_PACKET is not stopped at the interface",
            Fix::shell("apt-get install -y -t bookworm-backports linux-image-amd64 && systemctl reboot"),
        ),
        None => Found::unknown("the kernel does not tell whether it has clsact")
            .with(Fix::shell("modprobe sch_ingress")),
    }
}

/// The program that takes core dumps is root's, is run outside of every job, and gets
/// what a job gives it.
pub(super) fn core_handler(host: &Host) -> Found {
    let pattern = match host.line("/proc/sys/kernel/core_pattern") {
        Ok(Some(pattern)) => pattern,
        Ok(None) => return Found::unknown("there is no /proc/sys/kernel/core_pattern"),
        Err(error) => return Found::unknown(format!("core_pattern: {error}")),
    };
    let Some(program) = pattern.strip_prefix('|').and_then(|rest| rest.split_whitespace().next()) else {
        return Found::good("core dumps are files");
    };
    let off =
        Fix::shell("echo 'kernel.core_pattern=core' >/etc/sysctl.d/60-enforcer-core.conf && sysctl --system");
    match host.meta(program) {
        Some(meta) if meta.uid == 0 && meta.mode & 0o022 == 0 => {
            Found::good(format!("core dumps go to {program}"))
        }
        Some(_) => {
            Found::missing(format!("{program} takes core dumps, and others than root may write it"), off)
        }
        None => Found::missing(format!("{program} is to take core dumps, and is not there"), off),
    }
}

pub(super) fn unprivileged_bpf(host: &Host) -> Found {
    match host.line("/proc/sys/kernel/unprivileged_bpf_disabled") {
        Ok(Some(value)) if value == "0" => Found::missing(
            "everybody may load programs into the kernel",
            sysctl("kernel.unprivileged_bpf_disabled=2", "bpf"),
        ),
        Ok(Some(value)) => Found::good(format!("kernel.unprivileged_bpf_disabled={value}")),
        Ok(None) => Found::good("the kernel has no bpf(2) for users"),
        Err(error) => Found::unknown(format!("unprivileged_bpf_disabled: {error}")),
    }
}

pub(super) fn user_namespaces(host: &Host) -> Found {
    let is = |path: &str, value: &str| host.line(path).ok().flatten().is_some_and(|line| line == value);
    let closed = [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0"),
        ("/proc/sys/user/max_user_namespaces", "0"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1"),
    ];
    match closed.iter().find(|(path, value)| is(path, value)) {
        Some((path, value)) => Found::good(format!("{path} is {value}")),
        // An own network namespace is refused until it is served; what is left is the
        // kernel's surface.
        None => Found::missing(
            "everybody may be root in a namespace of their own, where flaws of the kernel are nearer",
            sysctl("user.max_user_namespaces=0", "userns"),
        ),
    }
}

pub(super) fn ping_group(host: &Host) -> Found {
    match host.line("/proc/sys/net/ipv4/ping_group_range") {
        Ok(Some(range)) => {
            let ends: Vec<u64> = range.split_whitespace().filter_map(|end| end.parse().ok()).collect();
            match ends[..] {
                [first, last] if first > last => Found::good("no group has ICMP sockets"),
                _ => Found::missing(
                    format!("groups {range} have ICMP sockets (jobs are refused them)"),
                    sysctl("net.ipv4.ping_group_range=1 0", "ping"),
                ),
            }
        }
        Ok(None) => Found::good("the kernel has no ICMP sockets for users"),
        Err(error) => Found::unknown(format!("ping_group_range: {error}")),
    }
}

/// A process outside of the job that can be traced sends what it is told to.
pub(super) fn ptrace_scope(host: &Host, scope: &Scope) -> Found {
    let yama = host.line("/proc/sys/kernel/yama/ptrace_scope").ok().flatten();
    if let Some(value) = yama.as_deref().filter(|value| *value != "0") {
        return Found::good(format!("kernel.yama.ptrace_scope={value}"));
    }
    if super::lsm_runs(host) {
        return Found::good("the LSM tier refuses to trace outsiders");
    }
    if scope.contained {
        return Found::good("a container sees no processes but its own");
    }
    if scope.unit.is_none() && host.probes.landlock.is_some_and(|version| version >= SCOPES) {
        return Found::good("Landlock keeps jobs of `enforcer run` from tracing outsiders");
    }
    let fix = match yama {
        Some(_) => sysctl("kernel.yama.ptrace_scope=1", "ptrace"),
        None => Fix::shell(
            "# no Yama in this kernel: boot with lsm=...,yama, or give the jobs a user that runs nothing else",
        ),
    };
    Found::missing("a job may trace other processes of its user, which nothing redirects", fix)
}

/// Without CAP_NET_ADMIN only a device that was made for the user is of use.
pub(super) fn tun(host: &Host, scope: &Scope) -> Found {
    let hidden = scope.hides("/dev/net/tun".as_ref())
        || scope.unit.as_ref().is_some_and(|unit| unit.is_yes("PrivateDevices"));
    if hidden || super::lsm_runs(host) {
        return Found::good("/dev/net/tun is hidden");
    }
    let owns = |name: &String| {
        let id = |file: &str| {
            let text = host.line(&format!("/sys/class/net/{name}/{file}")).ok().flatten();
            text.and_then(|text| text.parse::<u32>().ok())
        };
        host.exists(format!("/sys/class/net/{name}/tun_flags"))
            && scope.people.iter().any(|person| {
                person.is_root()
                    || id("owner") == Some(person.uid)
                    || person.groups.iter().any(|(gid, _)| id("group") == Some(*gid))
            })
    };
    let own: Vec<String> = host.list("/sys/class/net").into_iter().filter(owns).collect();
    let reach = scope.people.iter().any(|person| host.may(person, "/dev/net/tun", Access::Write));
    if own.is_empty() || !reach {
        return Found::good("no tun device belongs to the jobs");
    }
    let forward = host.line("/proc/sys/net/ipv4/ip_forward").ok().flatten();
    let more = if forward.as_deref() == Some("1") { ", and the host forwards packets" } else { "" };
    let remove = own.iter().map(|name| format!("ip tuntap del dev {name} mode tun")).collect();
    let text = format!("the jobs own {}{more}", own.join(", "));
    match scope.unit {
        Some(_) => Found::missing(text, Fix::drop_in("InaccessiblePaths=-/dev/net/tun")),
        None => Found::missing(text, Fix::Shell(remove)),
    }
}

fn sysctl(line: &str, name: &str) -> Fix {
    Fix::shell(format!("echo '{line}' >/etc/sysctl.d/60-enforcer-{name}.conf && sysctl --system"))
}
