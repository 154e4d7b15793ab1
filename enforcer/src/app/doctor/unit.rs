//! The settings of a systemd unit: asked of systemd where it runs, else read from
//! the unit's files as systemd would.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::host::Host;

/// Where units are, the first wins.
const FOLDERS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// The most drop-ins of one unit.
const MAX_DROP_INS: usize = 256;
/// Settings of which an empty assignment means something else than their default.
const NOTHING: &str = "none";
/// What `@system-service` and `@known` hold as well.
pub const KEYRING: [&str; 3] = ["add_key", "keyctl", "request_key"];
/// Makes rings, by which sockets are made that no filter of system calls sees.
pub const IO_URING: &str = "io_uring_setup";

/// A service, its settings and its files.
#[derive(Clone, Debug, Default)]
pub struct Unit {
    pub name: String,
    /// Assignments since the last empty one, in their order.
    settings: BTreeMap<String, Vec<String>>,
    pub files: Vec<PathBuf>,
}

/// Why a unit cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    #[error("there is no unit `{0}` on this host: `systemctl list-unit-files` shows those that are")]
    Unknown(String),
    #[error("`{0}` is no name of a service: it ends in .service and has no `/`")]
    Name(String),
    #[error("{name} has more than {MAX_DROP_INS} drop-ins")]
    TooMany { name: String },
    #[error("reading the settings of {name}: {source}")]
    Read { name: String, source: io::Error },
}

/// The name with its kind: `x` is `x.service`.
pub fn service_name(name: &str) -> Result<String, UnitError> {
    let full = if name.ends_with(".service") { name.to_owned() } else { format!("{name}.service") };
    let fine = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let other_kind = [".slice", ".scope", ".socket", ".timer", ".target", ".mount"];
    if full.len() > 255 || full.starts_with(['.', '-']) || !full.chars().all(fine) {
        return Err(UnitError::Name(name.to_owned()));
    }
    if other_kind.iter().any(|kind| name.ends_with(kind)) {
        return Err(UnitError::Name(name.to_owned()));
    }
    Ok(full)
}

/// What is read of `[Unit]`.
const DEPENDENCIES: [&str; 4] = ["After", "Wants", "Requires", "BindsTo"];

impl Unit {
    /// A unit of this host.
    pub fn find(host: &Host, name: &str) -> Result<Self, UnitError> {
        let name = service_name(name)?;
        if host.probes.systemd {
            return Self::asked(&name);
        }
        let files = files(host, &name)?;
        let mut unit = Self::named(&name);
        for file in files {
            let text = host.text(&file).map_err(|source| UnitError::Read { name: name.clone(), source })?;
            unit.take(&text.unwrap_or_default());
            unit.files.push(file);
        }
        Ok(unit)
    }

    /// One that nothing is said of yet.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }

    /// What processes show of how they were started. Filters of system calls cannot be
    /// read: there are none, then.
    pub fn of_processes(host: &Host, name: &str, cgroup: &Path, pids: &[u32]) -> Self {
        let mut unit = Self::named(name);
        let mut say = |key: &str, value: String| unit.settings.entry(key.to_owned()).or_default().push(value);
        say("ControlGroup", cgroup.display().to_string());
        let all: Vec<_> = pids.iter().filter_map(|pid| host.process(*pid)).collect();
        if all.is_empty() {
            return unit;
        }
        if all.iter().all(|process| process.no_new_privileges) {
            say("NoNewPrivileges", "yes".to_owned());
        }
        let held =
            |capability: &caps::Capability| all.iter().any(|it| it.bounding & capability.bitmask() != 0);
        let set = caps::all().into_iter().filter(held).map(|it| it.to_string()).collect::<Vec<_>>();
        say("CapabilityBoundingSet", set.join(" "));
        let network = |pid: u32| host.link(&format!("/proc/{pid}/ns/net"));
        let own = all.iter().all(|process| {
            network(process.pid).is_some_and(|there| network(1).is_some_and(|hosts| there != hosts))
        });
        if own {
            say("PrivateNetwork", "yes".to_owned());
        }
        let kept = all.iter().all(|process| {
            let mounts = host.text(format!("/proc/{}/mountinfo", process.pid)).ok().flatten();
            let of_cgroups = |line: &&str| line.contains(" - cgroup2 ");
            let fixed =
                |line: &str| line.split(' ').nth(5).is_some_and(|it| it.split(',').any(|it| it == "ro"));
            mounts.is_some_and(|mounts| mounts.lines().filter(of_cgroups).all(fixed))
        });
        if kept {
            say("ProtectControlGroups", "yes".to_owned());
        }
        // Their own view of the files, which a container has for itself.
        for path in crate::launch::daemons::all() {
            if !all.iter().any(|process| host.exists(format!("/proc/{}/root{path}", process.pid))) {
                say("InaccessiblePaths", path.to_owned());
            }
        }
        unit
    }

    /// The unit's own file and its drop-ins, in the order in which they count.
    pub fn files_of(host: &Host, name: &str) -> Result<Vec<PathBuf>, UnitError> {
        files(host, name)
    }

    fn asked(name: &str) -> Result<Self, UnitError> {
        let read = |source| UnitError::Read { name: name.to_owned(), source };
        let out =
            Command::new("systemctl").args(["show", "--no-pager", "--", name]).output().map_err(read)?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(read(io::Error::other(said)));
        }
        Self::shown(name, &String::from_utf8_lossy(&out.stdout))
    }

    /// What `systemctl show` prints.
    pub fn shown(name: &str, text: &str) -> Result<Self, UnitError> {
        let mut unit = Self { name: name.to_owned(), ..Self::default() };
        for line in text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let filter = matches!(key, "RestrictAddressFamilies" | "SystemCallFilter");
            let value = if filter && value.is_empty() { NOTHING } else { value };
            unit.settings.entry(key.to_owned()).or_default().push(value.to_owned());
        }
        if unit.last("LoadState") != Some("loaded") {
            return Err(UnitError::Unknown(name.to_owned()));
        }
        unit.files = unit.words("FragmentPath").chain(unit.words("DropInPaths")).map(PathBuf::from).collect();
        Ok(unit)
    }

    /// Takes in the `[Service]` section of a file, and of `[Unit]` what it waits for.
    pub fn take(&mut self, text: &str) {
        let joined = text.replace("\\\n", " ");
        let mut section = "";
        for line in joined.lines().map(str::trim) {
            if line.is_empty() || line.starts_with(['#', ';']) {
                continue;
            }
            if line.starts_with('[') {
                section = line;
            } else if let Some((key, value)) = line.split_once('=') {
                let (key, value) = (key.trim_end(), value.trim_start());
                if !(section == "[Service]" || section == "[Unit]" && DEPENDENCIES.contains(&key)) {
                    continue;
                }
                let all = self.settings.entry(key.to_owned()).or_default();
                if value.is_empty() {
                    all.clear();
                    // An empty set of capabilities is one.
                    if key.starts_with("Capability") {
                        all.push(String::new());
                    }
                } else {
                    all.push(self.name.split_once('@').map_or_else(
                        || value.to_owned(),
                        |(_, rest)| value.replace("%i", rest.trim_end_matches(".service")),
                    ));
                }
            }
        }
    }

    /// Whether anything is assigned.
    pub fn says(&self, key: &str) -> bool {
        self.settings.get(key).is_some_and(|lines| !lines.is_empty())
    }

    /// What was assigned last.
    pub fn last(&self, key: &str) -> Option<&str> {
        self.settings.get(key)?.last().map(String::as_str).filter(|value| !value.is_empty())
    }

    pub fn words<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> + use<'a> {
        self.settings.get(key).into_iter().flatten().flat_map(|line| line.split_whitespace())
    }

    pub fn is_yes(&self, key: &str) -> bool {
        self.last(key).is_some_and(|value| matches!(value, "yes" | "true" | "on" | "1"))
    }

    /// A set of capabilities in lower case; None if nothing is said.
    pub fn capabilities(&self, key: &str) -> Option<BTreeSet<String>> {
        let lines = self.settings.get(key)?;
        let mut set: Option<BTreeSet<String>> = None;
        for line in lines {
            let (less, line) = line.strip_prefix('~').map_or((false, line.as_str()), |rest| (true, rest));
            let named = line.split_whitespace().map(str::to_lowercase);
            if less {
                let set = set.get_or_insert_with(all_capabilities);
                named.for_each(|name| {
                    set.remove(&name);
                });
            } else {
                set.get_or_insert_default().extend(named);
            }
        }
        set
    }

    /// Whether `socket(2)` may be called with this family.
    pub fn allows_family(&self, family: &str) -> bool {
        self.allows("RestrictAddressFamilies", |word| word == family)
    }

    /// Whether this system call may be made.
    pub fn allows_call(&self, call: &str) -> bool {
        let group = if KEYRING.contains(&call) { "@keyring" } else { "@aio" };
        let grouped = KEYRING.contains(&call) || call == IO_URING;
        self.allows("SystemCallFilter", |word| {
            let word = word.split(':').next().unwrap_or(word);
            word == call || grouped && (word == group || matches!(word, "@system-service" | "@known"))
        })
    }

    /// Lists that name what is allowed, or with `~` what is not: the first line says
    /// which, and the others add to it or take away from it.
    fn allows(&self, key: &str, names: impl Fn(&str) -> bool) -> bool {
        let Some((first, _)) = self.settings.get(key).and_then(|lines| lines.split_first()) else {
            return true;
        };
        let mut allowed = first.starts_with('~');
        for line in self.settings.get(key).into_iter().flatten() {
            let (less, line) = line.strip_prefix('~').map_or((false, line.as_str()), |rest| (true, rest));
            if line.split_whitespace().any(&names) {
                allowed = !less;
            }
        }
        allowed
    }

    /// Whether processes of the unit do not see this path.
    pub fn hides(&self, path: &Path) -> bool {
        let hidden = self.words("InaccessiblePaths").chain(self.words("InaccessibleDirectories"));
        let replaced = self.words("TemporaryFileSystem").filter_map(|word| word.split(':').next());
        let here = |word: &str| path.starts_with(word.trim_start_matches(['-', '+']));
        let home = ["/home", "/root", "/run/user"].iter().any(|home| path.starts_with(home));
        hidden.chain(replaced).any(here)
            || home && self.last("ProtectHome").is_some_and(|it| matches!(it, "yes" | "true" | "tmpfs"))
    }

    /// Where systemd puts it, below the mount of cgroups.
    pub fn cgroup(&self) -> PathBuf {
        if let Some(known) = self.last("ControlGroup") {
            return PathBuf::from(known);
        }
        let slice = self.last("Slice").unwrap_or("system.slice");
        let mut path = PathBuf::from("/");
        let stem = slice.trim_end_matches(".slice");
        for (at, _) in stem.match_indices('-').chain([(stem.len(), "")]) {
            path.push(format!("{}.slice", &stem[..at]));
        }
        path.join(&self.name)
    }
}

fn all_capabilities() -> BTreeSet<String> {
    caps::all().into_iter().map(|capability| capability.to_string().to_lowercase()).collect()
}

/// The unit's own file and its drop-ins, in the order in which they count.
fn files(host: &Host, name: &str) -> Result<Vec<PathBuf>, UnitError> {
    let template = name.split_once('@').map(|(stem, _)| format!("{stem}@.service"));
    let names: Vec<&str> = [name].into_iter().chain(template.as_deref()).collect();
    let own = names
        .iter()
        .flat_map(|name| FOLDERS.map(|folder| Path::new(folder).join(name)))
        .find(|path| host.exists(path))
        .ok_or_else(|| UnitError::Unknown(name.to_owned()))?;
    let mut folders: Vec<String> = names.iter().map(|name| format!("{name}.d")).collect();
    let stem = name.trim_end_matches(".service");
    let dashes: Vec<usize> = stem.match_indices('-').map(|(at, _)| at).collect();
    folders.extend(dashes.iter().rev().map(|at| format!("{}-.service.d", &stem[..*at])));
    folders.push("service.d".to_owned());
    // A drop-in hides those of its name in folders that come later.
    let mut drop_ins: BTreeMap<String, PathBuf> = BTreeMap::new();
    for below in &folders {
        for folder in FOLDERS {
            let folder = Path::new(folder).join(below);
            for file in host.list(&folder).into_iter().filter(|file| file.ends_with(".conf")) {
                drop_ins.entry(file.clone()).or_insert_with(|| folder.join(file));
            }
        }
    }
    if drop_ins.len() > MAX_DROP_INS {
        return Err(UnitError::TooMany { name: name.to_owned() });
    }
    Ok([own].into_iter().chain(drop_ins.into_values()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(text: &str) -> Unit {
        let mut unit = Unit { name: "x@a.service".into(), ..Unit::default() };
        unit.take(text);
        unit
    }

    #[test]
    fn names_of_services_and_of_nothing_else() {
        assert_eq!(service_name("actions.runner.acme").unwrap(), "actions.runner.acme.service");
        for name in ["../x", "a/b", "x.slice", "x.socket", "", "-x", "a b", ".service"] {
            service_name(name).unwrap_err();
        }
        let longest = "x".repeat(255 - ".service".len());
        service_name(&longest).unwrap();
        service_name(&format!("{longest}x")).unwrap_err();
    }

    #[test]
    fn assignments_add_up_until_an_empty_one() {
        let unit = unit(
            "[Unit]\nUser=no\n[Service]\nUser=a\nUser=ci\n# x\nInaccessiblePaths=/a \\\n /b\nInaccessiblePaths=\n\
             InaccessiblePaths=-/run/docker.sock /c/%i\n[Install]\nUser=no\n",
        );
        assert_eq!(unit.last("User"), Some("ci"));
        for (path, hidden) in [("/a", false), ("/run/docker.sock", true), ("/c/a/b", true), ("/c", false)] {
            assert_eq!(unit.hides(Path::new(path)), hidden, "{path}");
        }
    }

    #[test]
    fn capabilities_are_added_taken_away_and_none() {
        let of = |text: &str| unit(text).capabilities("CapabilityBoundingSet");
        assert!(of("[Service]\n").is_none());
        assert!(of("[Service]\nCapabilityBoundingSet=\n").unwrap().is_empty());
        let some =
            of("[Service]\nCapabilityBoundingSet=CAP_CHOWN\nCapabilityBoundingSet=CAP_KILL\n").unwrap();
        assert_eq!(some.into_iter().collect::<Vec<_>>(), ["cap_chown", "cap_kill"]);
        let less = of("[Service]\nCapabilityBoundingSet=~CAP_NET_RAW CAP_BPF\n").unwrap();
        assert!(less.contains("cap_chown") && !less.contains("cap_net_raw") && !less.contains("cap_bpf"));
    }

    #[test]
    fn filters_allow_or_deny_by_their_first_line() {
        for (text, vsock, unix) in [
            ("", true, true),
            ("RestrictAddressFamilies=AF_UNIX AF_INET", false, true),
            ("RestrictAddressFamilies=~AF_VSOCK", false, true),
            ("RestrictAddressFamilies=AF_UNIX\nRestrictAddressFamilies=AF_VSOCK", true, true),
            ("RestrictAddressFamilies=AF_UNIX AF_VSOCK\nRestrictAddressFamilies=~AF_UNIX", true, false),
            ("RestrictAddressFamilies=none", false, false),
        ] {
            let unit = unit(&format!("[Service]\n{text}\n"));
            assert_eq!(
                (unit.allows_family("AF_VSOCK"), unit.allows_family("AF_UNIX")),
                (vsock, unix),
                "{text}"
            );
        }
        for (text, allowed) in [
            ("", true),
            ("SystemCallFilter=~@keyring", false),
            ("SystemCallFilter=~request_key:EPERM", false),
            ("SystemCallFilter=@system-service", true),
            ("SystemCallFilter=@system-service\nSystemCallFilter=~@keyring", false),
            ("SystemCallFilter=@basic-io", false),
        ] {
            assert_eq!(unit(&format!("[Service]\n{text}\n")).allows_call("request_key"), allowed, "{text}");
        }
        for (text, allowed) in [
            ("", true),
            ("SystemCallFilter=~@keyring", true),
            ("SystemCallFilter=~@keyring io_uring_setup", false),
            ("SystemCallFilter=~@aio", false),
            ("SystemCallFilter=@system-service", true),
            ("SystemCallFilter=@system-service\nSystemCallFilter=~io_uring_setup", false),
        ] {
            assert_eq!(unit(&format!("[Service]\n{text}\n")).allows_call(IO_URING), allowed, "{text}");
        }
    }

    #[test]
    fn what_systemd_shows_is_read_the_same() {
        let text = "LoadState=loaded\nUser=ci\nNoNewPrivileges=yes\nCapabilityBoundingSet=cap_chown cap_kill\n\
                    RestrictAddressFamilies=~AF_VSOCK\nSystemCallFilter=~add_key keyctl request_key\n\
                    ControlGroup=/ci.slice/x.service\nFragmentPath=/etc/systemd/system/x.service\n";
        let unit = Unit::shown("x.service", text).unwrap();
        assert!(
            unit.is_yes("NoNewPrivileges") && !unit.allows_family("AF_VSOCK") && !unit.allows_call("keyctl")
        );
        assert_eq!(unit.cgroup(), Path::new("/ci.slice/x.service"));
        assert_eq!(unit.files, [Path::new("/etc/systemd/system/x.service")]);
        assert!(matches!(Unit::shown("x.service", "LoadState=not-found\n"), Err(UnitError::Unknown(_))));
        let none = Unit::shown("x.service", "LoadState=loaded\nRestrictAddressFamilies=\n").unwrap();
        assert!(!none.allows_family("AF_UNIX"));
    }

    #[test]
    fn slices_are_nested_by_their_dashes() {
        assert_eq!(unit("").cgroup(), Path::new("/system.slice/x@a.service"));
        let nested = unit("[Service]\nSlice=ci-jobs.slice\n");
        assert_eq!(nested.cgroup(), Path::new("/ci.slice/ci-jobs.slice/x@a.service"));
    }
}
