//! The drop-in of a unit with what doctor demands of it.
//!
//! **Invariant**: nothing that an administrator said is undone. A file that is not
//! ours, or was changed since, is left alone; a setting that is narrower than ours
//! stays; and one that a later drop-in says is left to who wrote that.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::checks::settings;
use super::host::Host;
use super::scope::Scope;
use super::unit::{IO_URING, KEYRING, Unit, UnitError, service_name};
use crate::app::trust::Trust;
use crate::launch::daemons;

/// The name of our drop-in.
pub const FILE: &str = "50-enforcer.conf";
/// Where it is written.
const FOLDER: &str = "/etc/systemd/system";
/// What our drop-in begins with.
const MARK: &str = "# Written by `enforcer scope harden`, which writes it anew. Settings of your own belong in\n\
                    # another drop-in of this unit. Checksum of what follows: ";

/// What is wanted beside what doctor demands.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Settings that are left out, such as `InaccessiblePaths`.
    pub without: Vec<String>,
    /// The unit starts no containers: it gets no namespaces.
    pub no_containers: bool,
    /// The unit gets a network namespace of its own, which the service serves.
    pub own_network: bool,
    pub slice: Option<String>,
}

/// Why there is no drop-in.
#[derive(Debug, thiserror::Error)]
pub enum HardenError {
    #[error(transparent)]
    Unit(#[from] UnitError),
    #[error(
        "{0} is not one that `enforcer scope harden` wrote, or was changed since: it is left alone. Move what \
         stands there to another drop-in of the unit, and remove it"
    )]
    Foreign(PathBuf),
    #[error("`{0}` is no setting that is written here: {known}", known = KEYS.join(", "))]
    NoSetting(String),
    #[error("`{0}` is no name of a slice: it ends in .slice and has no `/`")]
    Slice(String),
    #[error("{path}: {source}", path = .path.display())]
    File { path: PathBuf, source: io::Error },
}

/// What would be written, and what is there.
#[derive(Clone, Debug)]
pub struct Plan {
    pub unit: String,
    pub path: PathBuf,
    /// None if there is no file.
    pub before: Option<String>,
    /// None if the unit needs none.
    pub after: Option<String>,
    /// Lines that a later drop-in keeps us from saying, and which.
    pub left: Vec<(String, PathBuf)>,
}

/// The settings that are written, in their order.
const KEYS: [&str; 16] = [
    "NoNewPrivileges",
    "RestrictAddressFamilies",
    "CapabilityBoundingSet",
    "AmbientCapabilities",
    "SystemCallFilter",
    "SystemCallArchitectures",
    "InaccessiblePaths",
    "ProtectControlGroups",
    "ProtectKernelTunables",
    "ProtectSystem",
    "RestrictNamespaces",
    "PrivateNetwork",
    "Slice",
    "BindReadOnlyPaths",
    "After",
    "Wants",
];
/// Those of them that stand in `[Unit]`. They add up, whatever comes later.
const OF_UNIT: [&str; 2] = ["After", "Wants"];
/// The service.
pub const SERVICE: &str = "enforcer.service";

impl Plan {
    /// What this unit needs beside what it has.
    pub fn of(host: &Host, name: &str, wishes: &Wishes) -> Result<Self, HardenError> {
        for key in &wishes.without {
            if !KEYS.contains(&key.as_str()) {
                return Err(HardenError::NoSetting(key.clone()));
            }
        }
        let is_slice =
            |name: &String| name.ends_with(".slice") && service_name(name.trim_end_matches(".slice")).is_ok();
        if let Some(slice) = wishes.slice.as_ref().filter(|slice| !is_slice(slice)) {
            return Err(HardenError::Slice(slice.clone()));
        }
        let name = service_name(name)?;
        let path = Path::new(FOLDER).join(format!("{name}.d")).join(FILE);
        let before = host.text(&path).map_err(|source| HardenError::File { path: path.clone(), source })?;
        if before.as_ref().is_some_and(|text| !is_ours(text)) {
            return Err(HardenError::Foreign(path));
        }
        let files = Unit::files_of(host, &name)?;
        let (mut unit, mut later) = (Unit::named(&name), Vec::new());
        for file in files.iter().filter(|file| **file != path) {
            let read = |source| HardenError::File { path: file.clone(), source };
            let text = host.text(file).map_err(read)?.unwrap_or_default();
            // A drop-in counts by its name, wherever it is; the unit's own file comes first.
            let is_drop_in = file.extension().is_some_and(|ending| ending == "conf");
            if is_drop_in && file.file_name() > path.file_name() {
                let mut alone = Unit::named(&name);
                alone.take(&text);
                later.push((file.clone(), alone));
            }
            unit.take(&text);
        }
        let binds = binds(host);
        let (mut lines, mut of_unit) = (Vec::new(), Vec::new());
        let mut left = Vec::new();
        for key in KEYS.iter().filter(|key| !wishes.without.iter().any(|without| without == *key)) {
            let Some((why, line)) = demand(key, &unit, wishes, &binds) else { continue };
            if OF_UNIT.contains(key) {
                of_unit.push(format!("# {why}\n{line}\n"));
                continue;
            }
            match later.iter().find(|(_, unit)| unit.says(key)) {
                Some((file, _)) => left.push((line, file.clone())),
                None => lines.push(format!("# {why}\n{line}\n")),
            }
        }
        let section = |name: &str, lines: &[String]| match lines {
            [] => String::new(),
            _ => format!("[{name}]\n{}", lines.concat()),
        };
        let text = section("Service", &lines) + &section("Unit", &of_unit);
        let after = (!text.is_empty()).then(|| signed(&text));
        Ok(Self { unit: name, path, before, after, left })
    }

    pub fn is_done(&self) -> bool {
        self.before == self.after
    }

    /// What would change, as `diff -u` shows it.
    pub fn diff(&self) -> String {
        let (before, after) =
            (self.before.clone().unwrap_or_default(), self.after.clone().unwrap_or_default());
        let name = |text: &Option<String>| match text {
            Some(_) => self.path.display().to_string(),
            None => "/dev/null".to_owned(),
        };
        similar::TextDiff::from_lines(&before, &after)
            .unified_diff()
            .header(&name(&self.before), &name(&self.after))
            .to_string()
    }

    /// Writes the drop-in, or removes one that is not needed any more.
    pub fn apply(&self, host: &Host) -> Result<(), HardenError> {
        let written = match &self.after {
            Some(text) => self.write(host, text),
            None if self.before.is_some() => host.place(&self.path).and_then(fs::remove_file),
            None => Ok(()),
        };
        written.map_err(|source| HardenError::File { path: self.path.clone(), source })
    }

    /// All of it or nothing, also when the host goes down meanwhile.
    fn write(&self, host: &Host, text: &str) -> io::Result<()> {
        let place = host.place(&self.path)?;
        let folder = place.parent().unwrap_or(&place);
        fs::create_dir_all(folder)?;
        // systemd takes no file that does not end in .conf.
        let new = folder.join(format!("{FILE}.new"));
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, &place)
    }

    /// The unit as it is with the drop-in.
    pub fn hardened(&self, host: &Host, user: Option<&str>) -> Result<Scope, super::ScopeError> {
        let mut unit = Unit::named(&self.unit);
        let mut files = Unit::files_of(host, &self.unit)?;
        files.retain(|file| *file != self.path);
        let is_later = |file: &PathBuf| {
            file.extension().is_some_and(|ending| ending == "conf")
                && file.file_name() > self.path.file_name()
        };
        let at = files.iter().position(is_later).unwrap_or(files.len());
        for file in &files[..at] {
            unit.take(&host.text(file)?.unwrap_or_default());
        }
        unit.take(self.after.as_deref().unwrap_or_default());
        for file in &files[at..] {
            unit.take(&host.text(file)?.unwrap_or_default());
        }
        unit.files = files;
        Scope::of(host, unit, user)
    }
}

/// What this host's units bind to trust the CA, as systemd takes it. Without the service
/// there is nothing to bind, and the unit starts all the same.
pub fn binds(host: &Host) -> Vec<String> {
    let real = |path: &Path| {
        let place = host.place(path).ok().filter(|place| place.exists())?;
        Some(Path::new("/").join(place.strip_prefix(host.place(Path::new("/")).ok()?).ok()?))
    };
    let binds = Trust::binds(&host.config.run.dir, real).into_iter();
    binds.map(|(from, over)| format!("-{}:{}", from.display(), over.display())).collect()
}

/// What of it a unit does not bind.
pub fn unbound<'a>(unit: &Unit, binds: &'a [String]) -> Vec<&'a String> {
    let bare = |bind: &str| bind.trim_start_matches('-').to_owned();
    let has = |wanted: &String| unit.words("BindReadOnlyPaths").any(|bind| bare(bind) == bare(wanted));
    binds.iter().filter(|bind| !has(bind)).collect()
}

/// Why the unit needs a setting, and the line; None if it does not.
fn demand(key: &str, unit: &Unit, wishes: &Wishes, binds: &[String]) -> Option<(&'static str, String)> {
    let yes = |wanted: bool, why| wanted.then(|| (why, format!("{key}=yes")));
    let is_root = unit.last("User").is_none_or(|user| user == "root") && !unit.is_yes("DynamicUser");
    match key {
        "NoNewPrivileges" => {
            yes(!unit.is_yes(key), "No program gives its caller more than it has (sudo, crontab, sendmail).")
        }
        "RestrictAddressFamilies" => {
            let open = settings::OTHER_FAMILIES.iter().any(|family| unit.allows_family(family));
            let why = "Families that the hooks of cgroups do not see: AF_VSOCK, AF_PACKET and others.";
            open.then(|| (why, settings::families(unit)))
        }
        "CapabilityBoundingSet" => {
            let set = unit.capabilities(key);
            let open = set.is_none_or(|set| settings::DANGEROUS.iter().any(|name| set.contains(*name)));
            open.then(|| ("What undoes enforcement.", settings::bounding()))
        }
        "AmbientCapabilities" => {
            let held = settings::ambient(unit);
            (!held.is_empty()).then(|| ("Jobs begin without them.", format!("{key}=~{}", held.join(" "))))
        }
        "SystemCallFilter" => {
            let open = KEYRING.iter().chain([&IO_URING]).any(|call| unit.allows_call(call));
            open.then(|| {
                (
                    "Keys, for which root looks names up; rings, whose sockets no filter sees.",
                    settings::CALLS.to_owned(),
                )
            })
        }
        "SystemCallArchitectures" => {
            let open = unit.last(key) != Some("native");
            open.then(|| ("Filters see no sockets of 32-bit programs.", settings::NATIVE.to_owned()))
        }
        "InaccessiblePaths" => {
            let open: Vec<String> = daemons::all()
                .filter(|path| !unit.hides(Path::new(path)))
                .map(|path| format!("-{path}"))
                .collect();
            let why = "Daemons that connect, look names up or start programs for others.";
            // One line for each, so that a difference is readable.
            let lines: Vec<String> = open.iter().map(|path| format!("{key}={path}")).collect();
            (!open.is_empty()).then(|| (why, lines.join("\n")))
        }
        "ProtectControlGroups" => {
            let done = unit.is_yes(key) || matches!(unit.last(key), Some("private" | "strict"));
            yes(!done, "Nothing moves itself out of the tagged cgroup.")
        }
        "ProtectKernelTunables" => {
            yes(is_root && !unit.is_yes(key), "Settings of the kernel that name programs to run.")
        }
        "ProtectSystem" => {
            let open = is_root && !matches!(unit.last(key), Some("full" | "strict"));
            open.then(|| ("Crontabs and units, which root could write.", format!("{key}=full")))
        }
        "RestrictNamespaces" => {
            let open = matches!(unit.last(key), None | Some("no")) && wishes.no_containers;
            yes(open, "No containers are started here.")
        }
        "PrivateNetwork" => yes(
            wishes.own_network && !unit.is_yes(key),
            "Abstract sockets of others; connections are served in the unit's own network.",
        ),
        "Slice" => {
            let slice = wishes.slice.as_deref().filter(|slice| unit.last(key) != Some(slice));
            slice.map(|slice| ("Where it is tagged.", format!("{key}={slice}")))
        }
        _ => about_service(key, unit, binds),
    }
}

/// The same for what joins the unit to the service.
fn about_service(key: &str, unit: &Unit, binds: &[String]) -> Option<(&'static str, String)> {
    match key {
        "BindReadOnlyPaths" => {
            let lines: Vec<String> =
                unbound(unit, binds).into_iter().map(|bind| format!("{key}={bind}")).collect();
            (!lines.is_empty()).then(|| ("The host's roots and this host's CA.", lines.join("\n")))
        }
        "After" => {
            let open = !unit.words(key).any(|name| name == SERVICE);
            open.then(|| ("What starts first at a boot is not enforced.", format!("{key}={SERVICE}")))
        }
        "Wants" => {
            let open = !["Wants", "Requires", "BindsTo"]
                .iter()
                .any(|key| unit.words(key).any(|name| name == SERVICE));
            open.then(|| ("Nobody waits for what is not started.", format!("{key}={SERVICE}")))
        }
        _ => None,
    }
}

fn signed(text: &str) -> String {
    format!("{MARK}{}\n{text}", blake3::hash(text.as_bytes()).to_hex())
}

/// Whether a text is one of ours, and unchanged.
fn is_ours(text: &str) -> bool {
    let rest = text.strip_prefix(MARK).and_then(|rest| rest.split_once('\n'));
    rest.is_some_and(|(_, text_below)| text == signed(text_below))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_not_ours() {
        let text = signed("[Service]\nNoNewPrivileges=yes\n");
        assert!(is_ours(&text));
        for other in
            [String::new(), "[Service]\n".into(), format!("{text}User=x\n"), text.replace("yes", "no")]
        {
            assert!(!is_ours(&other), "{other}");
        }
    }

    #[test]
    fn every_setting_is_known_and_has_a_demand() {
        let mut bare = Unit::named("x.service");
        bare.take("[Service]\nAmbientCapabilities=CAP_NET_RAW\n");
        let wishes = Wishes {
            without: Vec::new(),
            no_containers: true,
            own_network: true,
            slice: Some("ci.slice".into()),
        };
        for key in KEYS {
            let binds = ["-/run/enforcer/trust/current/certs:/etc/ssl/certs".to_owned()];
            let (_, lines) = demand(key, &bare, &wishes, &binds).unwrap_or_else(|| panic!("{key}"));
            assert!(lines.lines().all(|line| line.starts_with(&format!("{key}="))), "{lines}");
            let mut unit = bare.clone();
            let section = if OF_UNIT.contains(&key) { "Unit" } else { "Service" };
            unit.take(&format!("[{section}]\n{lines}\n"));
            assert!(demand(key, &unit, &wishes, &binds).is_none(), "{key} is demanded twice");
        }
    }
}
