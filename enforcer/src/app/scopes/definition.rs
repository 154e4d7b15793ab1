//! What an operator writes of a scope: in `[[scope]]` of the configuration, or by
//! `enforcer scope add`, which keeps it in a file of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Write;
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, ensure};
use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::labels::{Label, Labels};
use super::matching::{PathGlob, Pattern, UnitGlob};

/// The most scopes of one host.
pub const MAX_SCOPES: usize = 256;
/// The longest name of a scope, in bytes.
const MAX_NAME: usize = 64;
/// The label by which policy knows the workloads of a scope; nobody else may have it.
pub const LABEL: &str = "scope";

/// What an operator calls a scope.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScopeName(String);

impl FromStr for ScopeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(fine) && !text.starts_with('.') {
            Ok(Self(text.to_owned()))
        } else {
            Err(format!("a scope's name has at most {MAX_NAME} letters, digits, `-`, `_` and `.`"))
        }
    }
}

impl fmt::Display for ScopeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that was checked, and is kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked<T> {
    text: String,
    _kind: PhantomData<T>,
}

impl<T: FromStr> Checked<T> {
    fn get(&self) -> Option<T> {
        self.text.parse().ok()
    }
}

impl<T: FromStr<Err: fmt::Display>> FromStr for Checked<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse::<T>().map(|_| Self { text: text.to_owned(), _kind: PhantomData })
    }
}

impl<T> Serialize for Checked<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Checked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A user by number or by name; the name is looked up each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum User {
    Uid(u32),
    Name(String),
}

impl User {
    fn uid(&self) -> Result<u32> {
        match self {
            Self::Uid(uid) => Ok(*uid),
            Self::Name(name) => nix::unistd::User::from_name(name)
                .ok()
                .flatten()
                .map(|user| user.uid.as_raw())
                .with_context(|| format!("there is no user `{name}`")),
        }
    }
}

impl FromStr for User {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let root = || "root's slice holds the sessions of administrators: name another user".to_owned();
        match text.parse() {
            Ok(0) => Err(root()),
            Ok(uid) => Ok(Self::Uid(uid)),
            Err(_) if text == "root" => Err(root()),
            Err(_) if text.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                Ok(Self::Name(text.to_owned()))
            }
            Err(_) => Err("a user is a number or a name".to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for User {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Both;
        impl Visitor<'_> for Both {
            type Value = User;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the number or the name of a user")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<User, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<User, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<User, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Both)
    }
}

/// Where container daemons put their containers, unless they are told otherwise: podman
/// with systemd and without, Docker the same.
const DEFAULT_PARENTS: [&str; 4] = ["/machine.slice", "/libpod_parent", "/system.slice", "/docker"];

/// Containers: all that a daemon puts somewhere, or those that have these labels.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Containers {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup_parent: Option<Checked<PathGlob>>,
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub label: Vec<Checked<Label>>,
}

/// One scope, as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    pub name: Checked<ScopeName>,
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub unit: Vec<Checked<UnitGlob>>,
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub cgroup: Vec<Checked<PathGlob>>,
    #[serde(default, deserialize_with = "one_or_many", skip_serializing_if = "Vec::is_empty")]
    pub uid: Vec<User>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<Containers>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// A single value stands for a list of one.
fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + FromStr<Err: fmt::Display>,
{
    struct Many<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de> + FromStr<Err: fmt::Display>> Visitor<'de> for Many<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a value or a list of values")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<T>, E> {
            text.parse().map(|value| vec![value]).map_err(E::custom)
        }
        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Vec<T>, E> {
            self.visit_str(&number.to_string())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = list.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(Many(PhantomData))
}

impl Scope {
    pub fn name(&self) -> &str {
        &self.name.text
    }

    /// What is wrong with it as a whole. Apart from reading, where nobody would know
    /// which of several scopes is meant.
    pub fn check(&self) -> Result<(), String> {
        let kinds =
            [!self.unit.is_empty(), !self.cgroup.is_empty(), !self.uid.is_empty(), self.container.is_some()];
        if kinds.into_iter().filter(|kind| *kind).count() != 1 {
            return Err("a scope has one of `unit`, `cgroup`, `uid` and `container`".to_owned());
        }
        if self.container.as_ref().is_some_and(|it| it.cgroup_parent.is_none() && it.label.is_empty()) {
            return Err("containers are named by `cgroup_parent`, `label`, or both".to_owned());
        }
        if self.labels.contains_key(LABEL) {
            return Err(format!("the label `{LABEL}` is the scope's name already"));
        }
        Ok(())
    }

    /// Whether it depends on labels what of its matches it means.
    pub fn asks_for_labels(&self) -> bool {
        self.container.as_ref().is_some_and(|it| !it.label.is_empty())
    }

    /// Whether it means a container with these labels.
    pub fn wants(&self, labels: &Labels) -> bool {
        let wanted = self.container.iter().flat_map(|it| &it.label).filter_map(Checked::get);
        wanted.into_iter().all(|label| label.is_in(labels))
    }

    /// How its cgroups are found, and what cannot be looked for now.
    pub fn patterns(&self) -> (Vec<Pattern>, Vec<String>) {
        let (mut patterns, mut problems) = (Vec::new(), Vec::new());
        patterns.extend(self.unit.iter().filter_map(Checked::get).map(Pattern::Unit));
        patterns.extend(self.cgroup.iter().filter_map(Checked::get).map(Pattern::Path));
        if let Some(containers) = &self.container {
            let parent = containers.cgroup_parent.as_ref().and_then(Checked::get);
            let defaults = || DEFAULT_PARENTS.iter().filter_map(|it| it.parse().ok()).collect();
            let parents: Vec<PathGlob> = parent.map_or_else(defaults, |parent| vec![parent]);
            let pattern = if containers.label.is_empty() { Pattern::all_in } else { Pattern::containers_in };
            patterns.extend(parents.iter().map(pattern));
        }
        for user in &self.uid {
            match user.uid() {
                Ok(uid) => patterns.push(Pattern::user(uid)),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
        (patterns, problems)
    }
}

/// The file of what was added by command, and of nothing else.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScopeFile {
    scope: [Scope; 1],
}

fn file_of(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.toml"))
}

/// Reads what was added by command. One that cannot be read is an error: somebody
/// relies on it.
pub fn read_all(dir: &Path) -> Result<Vec<Scope>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("reading {}", dir.display()))?,
    };
    let metadata = fs::metadata(dir)?;
    ensure!(
        metadata.uid() == nix::unistd::Uid::effective().as_raw() && metadata.mode() & 0o022 == 0,
        "{} can be written by others than root: chown root and chmod go-w it",
        dir.display()
    );
    let mut scopes = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let file: ScopeFile =
            toml::from_str(&text).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        let [scope] = file.scope;
        scope.check().map_err(|why| anyhow!("{}: {why}", path.display()))?;
        scopes.push(scope);
    }
    scopes.sort_by(|a: &Scope, b: &Scope| a.name().cmp(b.name()));
    Ok(scopes)
}

/// Keeps it for the time after a restart.
pub fn keep(dir: &Path, scope: &Scope) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let text = toml::to_string(&ScopeFile { scope: [scope.clone()] })?;
    let unfinished = dir.join(format!(".{}", scope.name()));
    let mut file =
        fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&unfinished, file_of(dir, scope.name()))?;
    Ok(fs::File::open(dir)?.sync_all()?)
}

/// Forgets it for the time after a restart.
pub fn forget(dir: &Path, name: &str) -> Result<()> {
    fs::remove_file(file_of(dir, name))?;
    Ok(fs::File::open(dir)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Scope, toml::de::Error> {
        toml::from_str::<ScopeFile>(&format!("[[scope]]\n{text}\n")).map(|file| {
            let [scope] = file.scope;
            scope
        })
    }

    #[test]
    fn a_scope_has_one_kind_of_match_and_what_is_wrong_is_pointed_at() {
        for (text, patterns) in [
            ("name = 'a'\nunit = 'x@*.service'", 1),
            ("name = 'a'\nunit = ['x.service', 'ci.slice']", 2),
            ("name = 'a'\ncgroup = '/ci/*'\nlabels = {team = 'web'}", 1),
            ("name = 'a'\nuid = [1001, 'daemon']", 2),
            ("name = 'a'\nuid = 1001", 1),
            ("name = 'a'\ncontainer = {cgroup_parent = '/machine.slice'}", 1),
            ("name = 'a'\ncontainer = {cgroup_parent = '/machine.slice', label = 'team=ci'}", 1),
            ("name = 'a'\ncontainer = {label = ['team=ci', 'egress']}", DEFAULT_PARENTS.len()),
        ] {
            let scope = parse(text).unwrap();
            scope.check().unwrap();
            assert_eq!(scope.patterns().0.len(), patterns, "{text}");
            assert_eq!(scope.patterns().1, [""; 0]);
        }
        for (text, says) in [
            ("name = 'a'", "one of"),
            ("name = 'a'\nunit = 'x.service'\nuid = 1", "one of"),
            ("name = 'a'\ncgroup = []", "one of"),
            ("name = 'a'\ncontainer = {}", "`cgroup_parent`, `label`"),
            ("name = 'a'\nuid = 5\nlabels = {scope = 'b'}", "already"),
        ] {
            let why = parse(text).unwrap().check().unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
        for (text, says, at) in [
            ("name = 'a b'\nunit = 'x.service'", "letters", "'a b'"),
            ("name = 'a'\nunit = ['x.service', 'y']", "unit ends with", "['x.service'"),
            ("name = 'a'\ncgroup = '/'", "whole host", "'/'"),
            ("name = 'a'\nuid = [5, 0]", "administrators", "0]"),
            ("name = 'a'\nuid = -1", "a number or a name", "-1"),
            ("name = 'a'\nunits = 'x.service'", "units", "units"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message().contains(says), "{text}: {error}");
            let span = error.span().unwrap();
            let whole = format!("[[scope]]\n{text}\n");
            assert!(whole[span.start..].starts_with(at), "{text}: {}", &whole[span]);
        }
    }

    #[test]
    fn names_have_a_limit() {
        let name = |length: usize| "n".repeat(length).parse::<ScopeName>();
        assert!(name(MAX_NAME).is_ok() && name(MAX_NAME + 1).is_err() && name(0).is_err());
        assert!("../x".parse::<ScopeName>().is_err() && ".x".parse::<ScopeName>().is_err());
    }

    #[test]
    fn what_is_kept_is_read_again_and_what_is_broken_is_no_scope() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("scopes.d");
        assert_eq!(read_all(&dir).unwrap(), []);
        let one = parse("name = 'a'\nuid = [1001, 'daemon']\nlabels = {team = 'web'}\nforce = true").unwrap();
        let two = parse("name = 'b'\nunit = 'a\\x2db.service'").unwrap();
        for scope in [&two, &one] {
            keep(&dir, scope).unwrap();
        }
        assert_eq!(read_all(&dir).unwrap(), [one.clone(), two]);
        forget(&dir, "b").unwrap();
        assert_eq!(read_all(&dir).unwrap(), [one]);
        fs::write(dir.join("c.toml"), "[[scope]]\nname = 'c'\n").unwrap();
        assert!(format!("{:#}", read_all(&dir).unwrap_err()).contains("c.toml"));
        fs::remove_file(dir.join("c.toml")).unwrap();
        fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
        assert!(format!("{:#}", read_all(&dir).unwrap_err()).contains("by others"));
    }
}
