//! What is graded: the jobs of `enforcer run`, or a unit.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::host::{Access, Host};
use super::people::Person;
use super::unit::{Unit, UnitError};
use crate::launch::daemons;

/// Where the jobs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `enforcer run`.
    Run,
    Unit,
    /// Whatever is in the cgroup: a user's slice, a container.
    Cgroup,
}

/// Jobs that are held alike.
#[derive(Clone, Debug)]
pub struct Scope {
    pub name: String,
    pub kind: Kind,
    /// None are the jobs of `enforcer run`. Of a cgroup it says what its processes show.
    pub unit: Option<Unit>,
    /// Whose processes these are; several may start jobs by `enforcer run`.
    pub people: Vec<Person>,
    /// Below the mount of cgroups.
    pub cgroup: PathBuf,
    /// Of the host's sockets its jobs see these alone; None are all.
    pub shown: Option<Vec<PathBuf>>,
    /// Whether it has processes and files of its own, as a container, so that its root is
    /// not the host's.
    pub contained: bool,
}

/// Why a scope cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum ScopeError {
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error("there is no user `{0}` on this host; name the user that jobs run as with --user")]
    NoUser(String),
    #[error("reading the users of this host: {0}")]
    Users(#[from] io::Error),
}

/// The name of the scope of `enforcer run`.
pub const RUN: &str = "run";

impl Scope {
    /// The jobs of `enforcer run`: of this user, or of all who may start them.
    pub fn run(host: &Host, user: Option<&str>) -> Result<Self, ScopeError> {
        let mut people = Vec::new();
        if let Some(user) = user {
            people.push(person(host, user)?);
        } else {
            let group = &host.config.run.group;
            for (name, _, members) in host.groups()? {
                if name == *group {
                    for member in members {
                        people.extend(host.person(&member)?);
                    }
                }
            }
            // What nobody may reach is what anybody may not.
            if people.is_empty() {
                people.push(Person::anybody());
            }
        }
        Ok(Self {
            name: RUN.to_owned(),
            kind: Kind::Run,
            unit: None,
            people,
            cgroup: host.config.cgroup.jobs.clone(),
            shown: host.config.run.hide_sockets.then(|| host.config.run.expose.clone()),
            contained: false,
        })
    }

    /// A unit, whose jobs run as its user or as the one that is named.
    pub fn unit(host: &Host, name: &str, user: Option<&str>) -> Result<Self, ScopeError> {
        Self::of(host, Unit::find(host, name)?, user)
    }

    /// The same of a unit that is known.
    pub fn of(host: &Host, unit: Unit, user: Option<&str>) -> Result<Self, ScopeError> {
        let mut who = match user.or_else(|| unit.last("User")) {
            Some(user) if user != "root" => match host.person(user)? {
                Some(person) => person,
                // It exists while the unit runs.
                None if unit.is_yes("DynamicUser") => Person::anybody(),
                None => return Err(ScopeError::NoUser(user.to_owned())),
            },
            _ if unit.is_yes("DynamicUser") => Person::anybody(),
            _ => host.person("0")?.ok_or_else(|| ScopeError::NoUser("root".to_owned()))?,
        };
        let more: Vec<&str> = unit.words("SupplementaryGroups").chain(unit.last("Group")).collect();
        for (name, gid, _) in host.groups()? {
            if more.contains(&name.as_str()) {
                who.groups.push((gid, name));
            }
        }
        let cgroup = unit.cgroup();
        Ok(Self {
            name: unit.name.clone(),
            kind: Kind::Unit,
            unit: Some(unit),
            people: vec![who],
            cgroup,
            shown: None,
            contained: false,
        })
    }

    /// What is in a cgroup: its processes are asked, since no unit says what they may do.
    pub fn cgroup(host: &Host, name: &str, cgroup: &Path, user: Option<&str>) -> Result<Self, ScopeError> {
        let mount = host.cgroup2()?.unwrap_or_default();
        let pids = host.processes(&mount.join(cgroup.strip_prefix("/").unwrap_or(cgroup)));
        let unit = Unit::of_processes(host, name, cgroup, &pids);
        let mut people: Vec<Person> = Vec::new();
        if let Some(user) = user {
            people.push(person(host, user)?);
        }
        // The slice of a user may have no process yet.
        let leaf = cgroup.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let of_slice = leaf.strip_prefix("user-").and_then(|rest| rest.strip_suffix(".slice")?.parse().ok());
        let uids =
            pids.iter().filter_map(|pid| host.process(*pid)).map(|process| process.uid).chain(of_slice);
        for uid in uids.take_while(|_| user.is_none()) {
            if people.iter().all(|person| person.uid != uid) {
                // One of a container's own users is nobody here.
                let nobody = || Person { uid, name: uid.to_string(), ..Person::anybody() };
                people.push(host.person(&uid.to_string())?.unwrap_or_else(nobody));
            }
        }
        if people.is_empty() {
            people.push(Person::anybody());
        }
        Ok(Self {
            name: name.to_owned(),
            kind: Kind::Cgroup,
            unit: Some(unit),
            people,
            cgroup: cgroup.to_owned(),
            shown: None,
            contained: !pids.is_empty() && pids.iter().all(|pid| is_contained(host, *pid)),
        })
    }

    /// Who can write to this path, among those whose jobs these are.
    pub fn writer(&self, host: &Host, path: &str) -> Option<&Person> {
        if self.hides(Path::new(path)) {
            return None;
        }
        self.people.iter().find(|person| host.may(person, path, Access::Write))
    }

    /// Whether the jobs do not see this path.
    pub fn hides(&self, path: &Path) -> bool {
        let of_run = self.shown.as_ref().is_some_and(|shown| {
            daemons::all().any(|hidden| path.starts_with(hidden))
                && !shown.iter().any(|shown| path.starts_with(shown))
        });
        of_run || self.unit.as_ref().is_some_and(|unit| unit.hides(path))
    }

    /// Whether a program cannot give its caller more than it has.
    pub fn no_new_privileges(&self) -> bool {
        self.unit.as_ref().is_none_or(|unit| unit.is_yes("NoNewPrivileges"))
    }

    pub fn runs_as_root(&self) -> bool {
        self.people.iter().any(Person::is_root)
    }

    /// Where the cgroup is on the host.
    pub fn cgroup_at(&self, mount: &Path) -> PathBuf {
        mount.join(self.cgroup.strip_prefix("/").unwrap_or(&self.cgroup))
    }
}

/// Namespaces of its own, and no mount of the host's root.
fn is_contained(host: &Host, pid: u32) -> bool {
    let own = |kind: &str| {
        let there = host.link(&format!("/proc/{pid}/ns/{kind}"));
        there.is_some() && there != host.link(&format!("/proc/1/ns/{kind}"))
    };
    let mounts = |pid: u32| host.text(format!("/proc/{pid}/mountinfo")).ok().flatten();
    let (Some(hosts), Some(mounts)) = (mounts(1), mounts(pid)) else { return false };
    // Device, what of it, and where.
    let parts = |line: &str| {
        let mut fields = line.split(' ').skip(2).map(str::to_owned);
        Some((fields.next()?, fields.next()?, fields.next()?))
    };
    let root = hosts.lines().filter_map(parts).rfind(|(_, _, at)| at == "/");
    let is_hosts = |(device, of, _): &(String, String, String)| {
        root.as_ref().is_some_and(|root| root.0 == *device && root.1 == *of)
    };
    own("mnt") && own("pid") && !mounts.lines().filter_map(parts).any(|mount| is_hosts(&mount))
}

fn person(host: &Host, name: &str) -> Result<Person, ScopeError> {
    host.person(name)?.ok_or_else(|| ScopeError::NoUser(name.to_owned()))
}
