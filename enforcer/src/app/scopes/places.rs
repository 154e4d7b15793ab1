//! Cgroups as they are on the host: which of them a scope means, where exactly the tag
//! has to be, and which must never have one.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::matching::{Look, Pattern};

/// Who must not be cut off.
#[derive(Debug, Clone)]
pub struct Places {
    /// Where enforcement is attached; scopes are relative to it.
    pub attach: PathBuf,
    /// The enforcer's own cgroup.
    pub own: PathBuf,
    /// The parent of all jobs.
    pub jobs: PathBuf,
}

/// Units by which administrators come in.
const LOGINS: &[&str] = &["ssh.service", "sshd.service"];
/// Slices that hold too much to be meant by accident.
const TOO_WIDE: &[&str] = &["system.slice", "user.slice"];

impl Places {
    /// What all patterns together say of a cgroup.
    pub fn look(&self, patterns: &[Pattern], path: &Path) -> Look {
        let Some(parts) = self.parts(path) else { return Look::default() };
        patterns.iter().map(|pattern| pattern.look(&parts)).fold(Look::default(), |all, one| Look {
            matched: all.matched || one.matched,
            holds_only_matches: all.holds_only_matches || one.holds_only_matches,
            descend: all.descend || one.descend,
        })
    }

    fn parts<'a>(&self, path: &'a Path) -> Option<Vec<&'a str>> {
        let below = path.strip_prefix(&self.attach).ok()?;
        // A name that is no text is in no pattern.
        below.components().map(|part| part.as_os_str().to_str()).collect()
    }

    /// Why a cgroup must not be tagged.
    pub fn refusal(&self, path: &Path, force: bool) -> Option<String> {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path == self.attach || !path.starts_with(&self.attach) {
            return Some("it is the whole host".to_owned());
        }
        if self.own.starts_with(path) || path.starts_with(&self.own) {
            return Some("it holds the enforcer itself, which would be redirected to itself".to_owned());
        }
        if self.jobs.starts_with(path) || path.starts_with(&self.jobs) {
            return Some("it holds the jobs of `enforcer run`, which have tags of their own".to_owned());
        }
        if name == "init.scope" {
            return Some("it holds process 1".to_owned());
        }
        if force {
            return None;
        }
        if TOO_WIDE.contains(&name.as_ref()) && path.parent() == Some(&self.attach) {
            return Some(format!("{name} holds the host's services or everybody's sessions (--force)"));
        }
        let login = if LOGINS.contains(&name.as_ref()) { Some(path.to_owned()) } else { login_in(path) };
        login.map(|login| {
            let login = login.strip_prefix(&self.attach).unwrap_or(&login).display().to_string();
            format!("it holds /{login}, by which administrators come in (--force)")
        })
    }

    /// Where the tag has to be: whoever a subtree is delegated to moves its processes
    /// in it as he likes, so it is tagged as a whole.
    pub fn place(&self, path: &Path) -> PathBuf {
        let mut above: Vec<&Path> = path.ancestors().take_while(|it| it.starts_with(&self.attach)).collect();
        // The attach point itself is no delegation: it is where the host begins.
        above.pop();
        above.into_iter().rev().find(|it| is_delegated(it)).unwrap_or(path).to_owned()
    }

    /// What is shown: the path from where enforcement is attached.
    pub fn shown(&self, path: &Path) -> String {
        format!("/{}", path.strip_prefix(&self.attach).unwrap_or(path).display())
    }
}

/// A unit of administrators' logins in this slice.
fn login_in(slice: &Path) -> Option<PathBuf> {
    if slice.extension().is_none_or(|extension| extension != "slice") {
        return None;
    }
    children(slice).into_iter().find_map(|child| {
        let is_login = child.file_name().is_some_and(|name| LOGINS.iter().any(|login| name == *login));
        if is_login { Some(child) } else { login_in(&child) }
    })
}

/// By systemd's mark, or by its owner.
fn is_delegated(path: &Path) -> bool {
    let marked = ["trusted.delegate", "user.delegate"].into_iter().any(|name| {
        let mut value = [0_u8; 8];
        matches!(rustix::fs::getxattr(path, name, &mut value[..]), Ok(length) if value[..length] == *b"1")
    });
    marked || fs::metadata(path).is_ok_and(|metadata| metadata.uid() != 0)
}

/// The cgroups right below this one; one that is gone has none.
pub fn children(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(path) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

/// A cgroup and all below it.
pub fn subtree(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next) {
        let below = children(path);
        all.extend(below);
        next += 1;
    }
    all
}

/// The processes of one cgroup. In a threaded one they are named by its domain.
pub fn processes(path: &Path) -> io::Result<Vec<u32>> {
    match fs::read_to_string(path.join("cgroup.procs")) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect()),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(nix::libc::ENOENT | nix::libc::ENODEV | nix::libc::EOPNOTSUPP)
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(root: &Path) -> Places {
        Places {
            attach: root.to_owned(),
            own: root.join("enforcer.slice/own"),
            jobs: root.join("jobs.slice"),
        }
    }

    /// Folders stand for cgroups.
    fn tree(paths: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for path in paths {
            fs::create_dir_all(root.path().join(path)).unwrap();
        }
        root
    }

    #[test]
    fn what_must_not_be_cut_off_is_refused_and_some_of_it_may_be_forced() {
        let root = tree(&[
            "system.slice/ssh.service",
            "init.scope",
            "enforcer.slice/own",
            "jobs.slice/a",
            "a.slice/a-b.slice/sshd.service",
            "ci.slice",
            "user.slice/user-7.slice",
        ]);
        let places = places(root.path());
        for (path, says, forced) in [
            ("", "whole host", false),
            ("enforcer.slice", "itself", false),
            ("enforcer.slice/own", "itself", false),
            ("enforcer.slice/own/x", "itself", false),
            ("jobs.slice", "jobs", false),
            ("jobs.slice/a", "jobs", false),
            ("init.scope", "process 1", false),
            ("system.slice", "services", true),
            ("user.slice", "sessions", true),
            ("system.slice/ssh.service", "administrators", true),
            ("a.slice", "/a.slice/a-b.slice/sshd.service", true),
        ] {
            let path = root.path().join(path);
            let path: PathBuf = path.components().collect();
            let why = places.refusal(&path, false).unwrap();
            assert!(why.contains(says), "{}: {why}", path.display());
            assert_eq!(places.refusal(&path, true).is_none(), forced, "{}", path.display());
        }
        for fine in ["ci.slice", "user.slice/user-7.slice", "system.slice/other.service"] {
            assert_eq!(places.refusal(&root.path().join(fine), false), None, "{fine}");
        }
        assert!(places.refusal(Path::new("/elsewhere"), true).is_some());
    }

    #[test]
    fn a_delegated_subtree_is_tagged_at_its_root() {
        // Only root makes folders of others.
        let root = tree(&["user.slice/user-7.slice/user@7.service/app.slice/x.scope", "ci/a/b"]);
        let places = places(root.path());
        let at = |path: &str| places.place(&root.path().join(path));
        assert_eq!(at("ci/a/b"), root.path().join("ci/a/b"));
        let delegated = root.path().join("user.slice/user-7.slice/user@7.service");
        for path in [delegated.clone(), delegated.join("app.slice")] {
            std::os::unix::fs::chown(path, Some(7), None).unwrap();
        }
        assert_eq!(at("user.slice/user-7.slice/user@7.service/app.slice/x.scope"), delegated);
        assert_eq!(at("user.slice/user-7.slice"), root.path().join("user.slice/user-7.slice"));
        rustix::fs::setxattr(
            root.path().join("ci/a"),
            "user.delegate",
            b"1",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        assert_eq!(at("ci/a/b"), root.path().join("ci/a"));
    }

    #[test]
    fn a_subtree_is_walked_whole() {
        let root = tree(&["a/b/c", "a/d"]);
        let mut all: Vec<_> = subtree(&root.path().join("a"));
        all.sort();
        assert_eq!(all, ["a", "a/b", "a/b/c", "a/d"].map(|it| root.path().join(it)));
        assert_eq!(processes(&root.path().join("gone")).unwrap(), [0_u32; 0]);
    }
}
