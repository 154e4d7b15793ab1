//! Whether what is to be held is tagged, and stays so.

use std::path::{Path, PathBuf};

use enforcer_common::MAX_LEVEL;
use serde_json::Value;

use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::{Access, Host, Service};
use crate::app::doctor::scope::Scope;

/// Tagged cgroups, as the service tells of them, below the mount.
fn tagged_cgroups(host: &Host, status: &Value) -> Vec<PathBuf> {
    let mount = host.cgroup2().ok().flatten().unwrap_or_default();
    let path = |entry: &Value| {
        let path = Path::new(entry["cgroup"].as_str()?);
        let below = path.strip_prefix(&mount).unwrap_or(path);
        Some(Path::new("/").join(below.strip_prefix("/").unwrap_or(below)))
    };
    let listed = |list: &Value| list.as_array().cloned().unwrap_or_default();
    let mut tagged: Vec<PathBuf> = listed(&status["jobs"]).iter().filter_map(path).collect();
    for scope in listed(&status["scopes"]) {
        let matches = listed(&scope["matches"]);
        let paths = matches.iter().filter_map(|found| found["cgroup"].as_str());
        tagged.extend(paths.map(|path| host.scope_path(path)));
    }
    tagged
}

pub(super) fn tagged(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("every job of `enforcer run` is tagged before it begins");
    };
    let status = match &host.probes.service {
        Service::Answers(status) => status,
        Service::Silent => {
            return Found::missing(
                "no service runs that would tag it",
                Fix::shell("systemctl enable --now enforcer"),
            );
        }
        Service::Unknown(why) => return Found::unknown(format!("the service was not asked: {why}")),
    };
    let tagged = tagged_cgroups(host, status);
    // What is below a tag is tagged as well; jobs below the unit are not all of it.
    if let Some(tag) = tagged.iter().find(|tag| scope.cgroup.starts_with(tag)) {
        return Found::good(format!("tagged at {}", tag.display()));
    }
    Found::missing(
        format!("{} is not tagged: nothing of the unit is held", scope.cgroup.display()),
        Fix::shell(format!("enforcer scope add {} --unit {}", plain_name(&unit.name), unit.name)),
    )
}

fn plain_name(unit: &str) -> String {
    let stem = unit.trim_end_matches(".service");
    stem.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
}

pub(super) fn level(_: &Host, scope: &Scope) -> Found {
    let level = scope.cgroup.components().count().saturating_sub(1);
    let deepest = usize::try_from(MAX_LEVEL).unwrap_or(usize::MAX);
    if level <= deepest {
        return Found::good(format!("{level} below the root of cgroups, at most {MAX_LEVEL}"));
    }
    Found::missing(
        format!(
            "{} is {level} below the root of cgroups: tags are looked for to {MAX_LEVEL}",
            scope.cgroup.display()
        ),
        Fix::drop_in("Slice=ci.slice"),
    )
}

/// Whoever owns the cgroup above moves its processes out of the tag.
pub(super) fn owner(host: &Host, scope: &Scope) -> Found {
    let Ok(Some(mount)) = host.cgroup2() else { return Found::unknown("there is no cgroup2") };
    let people: Vec<_> = scope.people.iter().filter(|person| !person.is_root()).collect();
    let at = scope.cgroup_at(&mount);
    // The tag's own cgroup may be delegated: all that is below it stays tagged.
    let above = at.ancestors().skip(1).take_while(|path| path.starts_with(&mount));
    for path in above {
        let procs = path.join("cgroup.procs");
        if let Some(person) = people.iter().find(|person| host.may(person, &procs, Access::Write)) {
            return Found::missing(
                format!("{} may move its processes out of the tag: it owns {}", person.name, path.display()),
                Fix::shell(format!("chown root:root {0} {1}", path.display(), procs.display())),
            );
        }
    }
    Found::good("the cgroups above the tag are root's")
}

/// A socket that was connected before it came into the scope is seen by no hook.
pub(super) fn inherited(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("jobs of `enforcer run` are given no socket of the network");
    };
    if super::lsm_runs(host) {
        return Found::good("the LSM tier refuses what is sent by foreign sockets");
    }
    let given = unit.last("StandardInput") == Some("socket")
        || unit.last("FileDescriptorStoreMax").is_some_and(|max| max != "0");
    if !given {
        return Found::good("systemd gives the unit no connected socket");
    }
    match super::kernel::option(host, "CONFIG_INET_DIAG_DESTROY").as_deref() {
        Some("y") => Found::good("the unit is given sockets; those that are connected are closed at tagging"),
        Some(_) => Found::missing(
            "systemd gives the unit sockets that may be connected, and the kernel cannot close them",
            Fix::DropIn(vec!["StandardInput=null".to_owned(), "FileDescriptorStoreMax=0".to_owned()]),
        ),
        None => Found::unknown("whether the kernel can close foreign sockets (CONFIG_INET_DIAG_DESTROY)"),
    }
}

/// What a process had connected before its cgroup was tagged.
pub(super) fn before_tag(host: &Host, scope: &Scope) -> Found {
    if scope.unit.is_none() {
        return Found::good("every job of `enforcer run` is tagged before it begins");
    }
    if super::lsm_runs(host) {
        return Found::good("the LSM tier refuses what is sent by connections from before");
    }
    match super::kernel::option(host, "CONFIG_INET_DIAG_DESTROY").as_deref() {
        Some("y") => Found::good("connections from before are closed at tagging"),
        Some(_) => Found::missing(
            "the kernel cannot close what was connected when the scope is tagged",
            Fix::shell("apt-get install -y linux-image-amd64 && systemctl reboot"),
        ),
        None => Found::unknown("whether the kernel can close foreign sockets (CONFIG_INET_DIAG_DESTROY)")
            .with(Fix::shell("modprobe configs    # /proc/config.gz")),
    }
}

/// PAM's systemd moves what `su` starts into the slice of the user.
pub(super) fn su_session(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else {
        return Found::good("jobs of `enforcer run` have no capability to change their user");
    };
    if scope.contained {
        return Found::good("no session of the host begins in a container");
    }
    let by_root = unit.last("User").is_none_or(|user| user == "root") && !unit.is_yes("DynamicUser");
    if !by_root {
        return Found::good("the unit does not run as root, so its `su` needs a password");
    }
    let files = ["su", "su-l", "runuser-l", "common-session", "login", "sshd"];
    let moves = |file: &&&str| {
        let text = host.text(format!("/etc/pam.d/{file}")).ok().flatten().unwrap_or_default();
        text.lines().any(|line| !line.trim_start().starts_with('#') && line.contains("pam_systemd"))
    };
    if files.iter().find(moves).is_none() {
        return Found::good("PAM moves nobody");
    }
    let who = scope.people.iter().find(|person| !person.is_root());
    let covered = |slice: &str| {
        let Service::Answers(status) = &host.probes.service else { return false };
        tagged_cgroups(host, status).iter().any(|tag| Path::new("/user.slice").join(slice).starts_with(tag))
    };
    match who {
        Some(who) if covered(&format!("user-{}.slice", who.uid)) => {
            Found::good(format!("the slice of {} is tagged, too", who.name))
        }
        Some(who) => Found::missing(
            format!("`su` to {} leaves the unit for user-{}.slice, which is not tagged", who.name, who.uid),
            Fix::shell(format!("enforcer scope add {}-user --uid {}", plain_name(&unit.name), who.uid)),
        ),
        None => Found::missing(
            "`su` leaves the unit for the slice of the user that jobs run as, which --user names",
            Fix::shell(format!("enforcer doctor --unit {} --user NAME", unit.name)),
        ),
    }
}

/// In a network namespace without listeners everything is refused, not lost.
pub(super) fn namespaces(host: &Host, scope: &Scope) -> Found {
    let Ok(Some(mount)) = host.cgroup2() else { return Found::unknown("there is no cgroup2") };
    let own = host.link("/proc/1/ns/net");
    let mut foreign = Vec::new();
    for pid in host.processes(&scope.cgroup_at(&mount)) {
        match host.link(&format!("/proc/{pid}/ns/net")) {
            Some(there) if Some(&there) != own.as_ref() && !serves(host, pid) => {
                foreign.push(pid.to_string())
            }
            _ => {}
        }
    }
    if foreign.is_empty() {
        return Found::good("no process is in a network namespace that is not served");
    }
    Found::missing(
        format!(
            "processes in network namespaces without listeners, all refused: {}",
            super::listed(&foreign)
        ),
        Fix::shell("systemctl restart enforcer    # it opens listeners there"),
    )
}

/// Whether the proxy's port is listened on where this process is.
fn serves(host: &Host, pid: u32) -> bool {
    const LISTENS: &str = "0A";
    let port = format!(":{:04X}", host.config.listen.tcp_port);
    let text = host.text(format!("/proc/{pid}/net/tcp")).ok().flatten().unwrap_or_default();
    text.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next(), fields.next(), fields.next());
        local.is_some_and(|local| local.ends_with(&port)) && state == Some(LISTENS)
    })
}

/// What runs as the jobs' user and is not tagged may relay for them: it gets at their
/// sockets, and they at its.
pub(super) fn outside(host: &Host, scope: &Scope) -> Found {
    if super::lsm_runs(host) {
        return Found::good("the LSM tier refuses sockets of outsiders");
    }
    let tagged = match &host.probes.service {
        Service::Answers(status) => tagged_cgroups(host, status),
        _ => Vec::new(),
    };
    let jobs = &host.config.cgroup.jobs;
    let held =
        |cgroup: &Path| [jobs, &scope.cgroup].into_iter().chain(&tagged).any(|tag| cgroup.starts_with(tag));
    let mut found = Vec::new();
    for process in host.all_processes() {
        let of_job = scope.people.iter().find(|person| !person.is_root() && person.uid == process.uid);
        // The client of a job waits for it and does nothing else.
        if let Some(person) = of_job.filter(|_| !held(&process.cgroup) && process.name != "enforcer") {
            found.push(format!("{} of {} ({})", process.name, person.name, process.pid));
        }
    }
    if found.is_empty() {
        return Found::good("nothing runs as the jobs' user that is not tagged");
    }
    found.sort();
    let user =
        "useradd --system --create-home --groups enforcer ci    # a user that runs nothing else".to_owned();
    let unit = scope.unit.as_ref().map(|unit| format!("systemctl edit {}    # [Service] User=ci", unit.name));
    Found::missing(
        format!("outside of the tag runs as the jobs' user: {}", super::listed(&found)),
        Fix::Shell([user].into_iter().chain(unit).collect()),
    )
}
