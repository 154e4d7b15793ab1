//! Files that give a job more than it has, or outlive it.

use std::path::{Path, PathBuf};

use crate::app::doctor::check::{Fix, Found};
use crate::app::doctor::host::{Access, Host};
use crate::app::doctor::people::Person;
use crate::app::doctor::scope::Scope;

use super::listed;

/// Where programs are.
const PROGRAMS: [&str; 6] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin", "/usr/local/sbin"];
/// Files of runners that decide what the next job is, in the folder of the runner.
const RUNNER_FILES: [&str; 9] =
    [".env", ".path", ".runner", "runsvc.sh", "run.sh", "run-helper.sh", "bin", "externals", "hooks"];
/// The same, where other runners keep them.
const RUNNER_PLACES: [&str; 4] = [
    "/etc/gitlab-runner/config.toml",
    "/etc/buildkite-agent/buildkite-agent.cfg",
    "/etc/buildkite-agent/hooks",
    "/etc/enforcer/hooks",
];
/// Where cron looks for commands.
const CRON_PLACES: [&str; 8] = [
    "/etc/crontab",
    "/etc/cron.d",
    "/etc/cron.hourly",
    "/etc/cron.daily",
    "/etc/cron.weekly",
    "/etc/cron.monthly",
    "/var/spool/cron/crontabs",
    "/var/spool/cron/atjobs",
];

pub(super) fn privileged_programs(host: &Host, scope: &Scope) -> Found {
    if scope.no_new_privileges() {
        return Found::good("they give jobs nothing, by NoNewPrivileges");
    }
    let mut found = Vec::new();
    for folder in PROGRAMS {
        // /bin is /usr/bin where both are one.
        let Ok(place) = host.place(Path::new(folder)) else { continue };
        if PROGRAMS
            .iter()
            .take_while(|other| **other != folder)
            .any(|other| host.place(Path::new(other)).is_ok_and(|it| it == place))
        {
            continue;
        }
        for name in host.list(folder) {
            let path = Path::new(folder).join(&name);
            let set = host.meta(&path).is_some_and(|meta| !meta.is_dir && meta.mode & 0o6000 != 0);
            if set || host.has_capabilities(&path) {
                found.push(path.display().to_string());
            }
        }
    }
    if found.is_empty() {
        return Found::good("no program has privileges of its own");
    }
    Found::missing(
        format!("programs with privileges of their own: {}", listed(&found)),
        Fix::drop_in("NoNewPrivileges=yes"),
    )
}

pub(super) fn sudo(host: &Host, scope: &Scope) -> Found {
    if scope.no_new_privileges() {
        return Found::good("sudo gives jobs nothing, by NoNewPrivileges");
    }
    let mut files = vec!["/etc/sudoers".to_owned()];
    files.extend(host.list("/etc/sudoers.d").iter().map(|name| format!("/etc/sudoers.d/{name}")));
    let mut told = Vec::new();
    for file in files {
        let text = match host.text(&file) {
            Ok(text) => text.unwrap_or_default(),
            Err(error) => return Found::unknown(format!("{file}: {error}")),
        };
        for person in scope.people.iter().filter(|person| !person.is_root()) {
            let names = |line: &&str| names_person(line, person);
            told.extend(text.lines().find(names).map(|line| format!("{file}: {}", line.trim())));
        }
    }
    if told.is_empty() {
        Found::good("sudo gives jobs nothing")
    } else {
        Found::missing(listed(&told), Fix::drop_in("NoNewPrivileges=yes"))
    }
}

/// Whether a line of sudoers is about this person, by name, number or group.
fn names_person(line: &str, person: &Person) -> bool {
    let line = line.trim();
    let Some((who, rest)) = line.split_once(char::is_whitespace) else { return false };
    let is = |who: &str| match who.strip_prefix('%') {
        Some(group) => person.is_in(group),
        None => who == "ALL" || who == person.name || who.strip_prefix('#') == Some(&person.uid.to_string()),
    };
    rest.contains('=') && !who.starts_with("Defaults") && !who.ends_with("_Alias") && who.split(',').any(is)
}

/// Whoever writes them is the unit's user, or root, from the next start on.
pub(super) fn unit_files(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else { return Found::good("`enforcer run` is started by people") };
    let program = unit.last("ExecStart").map(|line| {
        // systemd shows `{ path=/a/b ; argv[]=... }`.
        let line = line.split_once("path=").map_or(line, |(_, rest)| rest);
        line.trim_start_matches(['-', '@', ':', '+', '!'])
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    });
    let programs = program.filter(|path| path.starts_with('/')).map(PathBuf::from);
    let all = unit.files.iter().cloned().chain(programs.filter(|path| !is_of_runner(scope, path)));
    let open = writable(host, scope, all);
    protect(open, "the unit's files are root's")
}

/// Programs of a runner are told of with the other files of it.
fn is_of_runner(scope: &Scope, path: &Path) -> bool {
    let folder = scope.unit.as_ref().and_then(|unit| unit.last("WorkingDirectory"));
    folder.is_some_and(|folder| path.starts_with(folder))
}

/// What a runner reads before each job: one job decides there what the next one is.
pub(super) fn runner_files(host: &Host, scope: &Scope) -> Found {
    let Some(unit) = &scope.unit else { return Found::good("`enforcer run` reads no file of a job") };
    let folder = unit.last("WorkingDirectory").filter(|folder| folder.starts_with('/') && *folder != "/");
    let own = folder.into_iter().flat_map(|folder| RUNNER_FILES.map(|name| Path::new(folder).join(name)));
    // One that is not there can be made by whoever writes to the folder; `.env` is read if it is.
    let is_runner = folder.is_some_and(|folder| host.exists(Path::new(folder).join(".runner")));
    let own = own.filter(|path| host.exists(path) || is_runner && path.ends_with(".env"));
    let all = own.chain(RUNNER_PLACES.iter().map(PathBuf::from).filter(|path| host.exists(path)));
    let open = writable(host, scope, all);
    protect(open, "what the runner reads before a job is not written by jobs")
}

pub(super) fn cron(host: &Host, scope: &Scope) -> Found {
    let open = writable(host, scope, CRON_PLACES.iter().map(PathBuf::from).filter(|path| host.exists(path)));
    if !open.is_empty() {
        return protect(open, "");
    }
    if scope.no_new_privileges() {
        return Found::good("jobs write no crontab, by NoNewPrivileges");
    }
    let tools = [("/usr/bin/crontab", "/etc/cron.allow"), ("/usr/bin/at", "/etc/at.allow")];
    let allowed = |(tool, list): &&(&str, &str)| {
        let names = host.text(list).ok().flatten();
        let named =
            |name: &str| names.as_ref().is_none_or(|names| names.lines().any(|line| line.trim() == name));
        host.exists(tool) && scope.people.iter().any(|person| !person.is_root() && named(&person.name))
    };
    match tools.iter().find(allowed) {
        Some((tool, _)) => Found::missing(
            format!("jobs have {tool} start commands later, elsewhere"),
            Fix::drop_in("NoNewPrivileges=yes"),
        ),
        None => Found::good("jobs have nothing started later"),
    }
}

/// Those of these files that somebody of the scope can replace.
fn writable(
    host: &Host,
    scope: &Scope,
    paths: impl Iterator<Item = PathBuf>,
) -> Vec<(PathBuf, Option<PathBuf>)> {
    let mut open = Vec::new();
    for path in paths {
        // Root is what other checks are about.
        for person in scope.people.iter().filter(|person| !person.is_root() && !scope.hides(&path)) {
            if host.may(person, &path, Access::Write) {
                open.push((path.clone(), None));
            } else if host.may_replace(person, &path) {
                open.push((path.clone(), path.parent().map(Path::to_path_buf)));
            } else {
                continue;
            }
            break;
        }
    }
    open
}

fn protect(open: Vec<(PathBuf, Option<PathBuf>)>, good: &str) -> Found {
    if open.is_empty() {
        return Found::good(good);
    }
    let told: Vec<String> = open.iter().map(|(path, _)| path.display().to_string()).collect();
    // The folder may be the job's: the sticky bit keeps others' files in it.
    let line = |(path, folder): &(PathBuf, Option<PathBuf>)| match folder {
        None => format!("touch {0} && chown -R root:root {0} && chmod -R go-w {0}", path.display()),
        Some(folder) => format!(
            "touch {0} && chown root:root {0} && chown root {1} && chmod 1775 {1}",
            path.display(),
            folder.display()
        ),
    };
    Found::missing(format!("jobs may replace {}", listed(&told)), Fix::Shell(open.iter().map(line).collect()))
}

impl Host {
    /// Whether a program has capabilities of its own.
    fn has_capabilities(&self, path: &Path) -> bool {
        let Ok(place) = self.place(path) else { return false };
        let mut value = [0_u8; 64];
        rustix::fs::getxattr(&place, "security.capability", &mut value).is_ok_and(|length| length > 0)
    }
}
