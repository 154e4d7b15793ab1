//! Which cgroups a scope means, as text: no file is looked at here.
//!
//! Paths are given from where enforcement is attached, component by component.

use std::str::FromStr;

/// The longest pattern, in bytes.
pub const MAX_PATTERN: usize = 512;

/// A name in which `*` is any run of characters and `?` is any one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameGlob(String);

impl NameGlob {
    pub fn matches(&self, name: &str) -> bool {
        let (glob, name): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut g, mut n) = (0, 0);
        // Where the last asterisk stands, and what it has swallowed so far.
        let mut retry: Option<(usize, usize)> = None;
        while n < name.len() {
            match glob.get(g) {
                Some('*') => {
                    retry = Some((g, n));
                    g += 1;
                }
                Some(&c) if c == '?' || c == name[n] => {
                    g += 1;
                    n += 1;
                }
                _ => {
                    let Some((star, swallowed)) = retry else { return false };
                    retry = Some((star, swallowed + 1));
                    g = star + 1;
                    n = swallowed + 1;
                }
            }
        }
        glob[g..].iter().all(|c| *c == '*')
    }

    fn is_any(&self) -> bool {
        self.0 == "*"
    }
}

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern has 1 to {MAX_PATTERN} bytes")]
    Length,
    #[error("a cgroup is a path that begins with `/`, without `//`, `.`, `..` and `**`, such as \"/ci/*\"")]
    Path,
    #[error("`/` is the whole host: name what is in it")]
    Root,
    #[error("a unit ends with .service, .scope or .slice, such as \"actions.runner.*.service\"")]
    Unit,
}

/// A cgroup by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathGlob(Vec<NameGlob>);

impl FromStr for PathGlob {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(PatternError::Length);
        }
        let below = text.strip_prefix('/').ok_or(PatternError::Path)?;
        if below.is_empty() {
            return Err(PatternError::Root);
        }
        let fine = |part: &str| !matches!(part, "" | "." | "..") && !part.contains("**");
        let parts = below.strip_suffix('/').unwrap_or(below).split('/');
        let parts = parts.map(|part| fine(part).then(|| NameGlob(part.to_owned())));
        parts.collect::<Option<_>>().map(Self).ok_or(PatternError::Path)
    }
}

/// A unit of the host's systemd, wherever its slice is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitGlob(NameGlob);

impl FromStr for UnitGlob {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(PatternError::Length);
        }
        let kind = text.rsplit_once('.').filter(|(name, _)| !name.is_empty()).map(|(_, kind)| kind);
        if text.contains('/') || !matches!(kind, Some("service" | "scope" | "slice")) {
            return Err(PatternError::Unit);
        }
        if text == "-.slice" {
            return Err(PatternError::Root);
        }
        Ok(Self(NameGlob(text.to_owned())))
    }
}

/// One way in which a scope finds cgroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pattern {
    Path(PathGlob),
    /// Of these, containers alone; which of them, their labels say.
    Containers(PathGlob),
    Unit(UnitGlob),
}

/// What a pattern has to do with one cgroup.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Look {
    /// It is meant.
    pub matched: bool,
    /// All in it are meant: whatever appears there is tagged from the beginning if it is tagged too.
    pub holds_only_matches: bool,
    /// What is meant may be below it.
    pub descend: bool,
}

impl Pattern {
    /// The slice of a user, where logind puts all sessions: `su` by way of PAM as well.
    pub fn user(uid: u32) -> Self {
        let parts = ["user.slice".to_owned(), format!("user-{uid}.slice")];
        Self::Path(PathGlob(parts.map(NameGlob).to_vec()))
    }

    /// All containers that a daemon starts below this cgroup.
    pub fn all_in(parent: &PathGlob) -> Self {
        let mut parts = parent.0.clone();
        parts.push(NameGlob("*".to_owned()));
        Self::Path(PathGlob(parts))
    }

    /// Those of them that are single containers, by their names.
    pub fn containers_in(parent: &PathGlob) -> Self {
        match Self::all_in(parent) {
            Self::Path(all) => Self::Containers(all),
            other => other,
        }
    }

    pub fn look(&self, path: &[&str]) -> Look {
        match self {
            Self::Containers(all) => {
                let look = Self::Path(all.clone()).look(path);
                let is_container = path.last().is_some_and(|leaf| container_id(leaf).is_some());
                Look { matched: look.matched && is_container, holds_only_matches: false, ..look }
            }
            Self::Path(PathGlob(globs)) => {
                let fits =
                    path.len() <= globs.len() && globs.iter().zip(path).all(|(g, part)| g.matches(part));
                let last = globs.last().is_some_and(NameGlob::is_any);
                Look {
                    matched: fits && path.len() == globs.len(),
                    holds_only_matches: fits && last && path.len() + 1 == globs.len() && !path.is_empty(),
                    descend: fits && path.len() < globs.len(),
                }
            }
            Self::Unit(UnitGlob(glob)) => {
                let Some((leaf, above)) = path.split_last() else {
                    return Look { descend: true, ..Look::default() };
                };
                if !is_slice_chain(above) {
                    return Look::default();
                }
                let leaf = leaf.strip_prefix('_').unwrap_or(leaf);
                let is_slice = is_slice_chain(path);
                let matched = (is_slice || !leaf.ends_with(".slice")) && glob.matches(leaf);
                Look {
                    matched,
                    holds_only_matches: instances_slice(&glob.0).is_some_and(|slice| slice == leaf)
                        && is_slice,
                    descend: is_slice && !matched,
                }
            }
        }
    }
}

/// The id of a container in the name of its cgroup: `libpod-ID.scope`, `docker-ID.scope`,
/// `crio-ID.scope`, or without systemd `libpod-ID` and `ID`. Its monitor's is none.
pub fn container_id(leaf: &str) -> Option<&str> {
    let name = leaf.strip_suffix(".scope").unwrap_or(leaf);
    let (kind, id) = name.rsplit_once('-').unwrap_or(("", name));
    let is_id = id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_id && !kind.ends_with("conmon")).then_some(id)
}

/// Whether each of these is the slice that systemd puts there: `a-b.slice` is in `a.slice`.
fn is_slice_chain(path: &[&str]) -> bool {
    let mut above: Option<&str> = None;
    for part in path {
        let Some(name) = part.strip_suffix(".slice") else { return false };
        let parent = name.rsplit_once('-').map(|(parent, _)| parent);
        if name.is_empty() || parent != above {
            return false;
        }
        above = Some(name);
    }
    true
}

/// The slice in which systemd puts the instances of a template, and nothing else, if
/// the glob means them all.
fn instances_slice(glob: &str) -> Option<String> {
    let template = glob.strip_suffix("@*.service")?;
    if template.is_empty() || template.contains(['*', '?']) {
        return None;
    }
    Some(format!("system-{}.slice", template.replace('-', "\\x2d")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(pattern: &Pattern, path: &str) -> (bool, bool, bool) {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let look = pattern.look(&parts);
        (look.matched, look.holds_only_matches, look.descend)
    }

    #[test]
    fn names_are_matched_whole() {
        for (glob, name, want) in [
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "abcd", false),
            ("*", "", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "abab", true),
            ("*a*b", "aba", false),
            ("run-*.scope", "run-r1\\x2d2.scope", true),
            ("é?", "éa", true),
        ] {
            assert_eq!(NameGlob(glob.to_owned()).matches(name), want, "{glob} {name}");
        }
    }

    #[test]
    fn a_path_is_matched_component_by_component() {
        let pattern = Pattern::Path("/ci/*".parse().unwrap());
        assert_eq!(look(&pattern, "/"), (false, false, true));
        assert_eq!(look(&pattern, "/ci"), (false, true, true));
        assert_eq!(look(&pattern, "/ci/one"), (true, false, false));
        assert_eq!(look(&pattern, "/ci/one/two"), (false, false, false));
        assert_eq!(look(&pattern, "/cj"), (false, false, false));
        let pattern = Pattern::Path("/ci/job-*/".parse().unwrap());
        assert_eq!(look(&pattern, "/ci"), (false, false, true));
        assert_eq!(look(&pattern, "/ci/job-7"), (true, false, false));
        let pattern = Pattern::Path("/*".parse().unwrap());
        assert_eq!(look(&pattern, "/"), (false, false, true));
        for wrong in ["", "ci", "//", "/a//b", "/a/../b", "/./a", "/a/**"] {
            assert!(wrong.parse::<PathGlob>().is_err(), "{wrong}");
        }
        assert_eq!("/".parse::<PathGlob>(), Err(PatternError::Root));
        assert!(format!("/{}", "a".repeat(MAX_PATTERN - 1)).parse::<PathGlob>().is_ok());
        assert_eq!(format!("/{}", "a".repeat(MAX_PATTERN)).parse::<PathGlob>(), Err(PatternError::Length));
    }

    #[test]
    fn a_unit_is_found_in_any_slice_and_nowhere_else() {
        let pattern = Pattern::Unit("actions-runner@*.service".parse().unwrap());
        let escaped = "system.slice/system-actions\\x2drunner.slice";
        assert_eq!(look(&pattern, escaped), (false, true, true));
        assert_eq!(look(&pattern, &format!("{escaped}/actions-runner@1.service")), (true, false, false));
        assert_eq!(look(&pattern, "ci.slice/ci-jobs.slice/actions-runner@1.service"), (true, false, false));
        // A folder that somebody made in what was delegated to him is no unit.
        let delegated = "user.slice/user-1000.slice/user@1000.service";
        assert_eq!(look(&pattern, delegated), (false, false, false));
        assert_eq!(look(&pattern, &format!("{delegated}/actions-runner@1.service")), (false, false, false));
        assert_eq!(look(&pattern, "ci/actions-runner@1.service"), (false, false, false));
    }

    #[test]
    fn a_slice_is_nested_in_those_that_its_name_begins_with() {
        let pattern = Pattern::Unit("a-b.slice".parse().unwrap());
        assert_eq!(look(&pattern, "a.slice"), (false, false, true));
        assert_eq!(look(&pattern, "a.slice/a-b.slice"), (true, false, false));
        assert_eq!(look(&pattern, "a-b.slice"), (false, false, false));
        assert_eq!(look(&pattern, "c.slice/a-b.slice"), (false, false, false));
        assert_eq!(look(&pattern, "a.slice/a-b.slice/a-b-c.slice"), (false, false, true));
        for wrong in ["", "x", ".service", "a/b.service", "a.timer"] {
            assert!(wrong.parse::<UnitGlob>().is_err(), "{wrong}");
        }
        assert_eq!("-.slice".parse::<UnitGlob>(), Err(PatternError::Root));
    }

    #[test]
    fn a_container_is_known_by_the_id_in_its_name() {
        let id = "0a".repeat(32);
        for name in
            [format!("libpod-{id}.scope"), format!("docker-{id}.scope"), format!("libpod-{id}"), id.clone()]
        {
            assert_eq!(container_id(&name), Some(&id[..]), "{name}");
        }
        for name in [
            format!("libpod-conmon-{id}.scope"),
            format!("x-{id}0"),
            format!("--{}", &id[1..]),
            "x".to_owned(),
        ] {
            assert_eq!(container_id(&name), None, "{name}");
        }
        let pattern = Pattern::containers_in(&"/machine.slice".parse().unwrap());
        assert_eq!(look(&pattern, "machine.slice"), (false, false, true));
        assert_eq!(look(&pattern, &format!("machine.slice/libpod-{id}.scope")), (true, false, false));
        assert_eq!(look(&pattern, "machine.slice/x.scope"), (false, false, false));
    }

    #[test]
    fn a_user_has_one_slice_and_a_parent_of_containers_holds_nothing_else() {
        let pattern = Pattern::user(1000);
        assert_eq!(look(&pattern, "user.slice/user-1000.slice"), (true, false, false));
        assert_eq!(look(&pattern, "user.slice/user-10000.slice"), (false, false, false));
        assert_eq!(look(&pattern, "user.slice"), (false, false, true));
        let pattern = Pattern::all_in(&"/machine.slice".parse().unwrap());
        assert_eq!(look(&pattern, "machine.slice"), (false, true, true));
        assert_eq!(look(&pattern, "machine.slice/libpod-1.scope"), (true, false, false));
    }
}
