//! A machine to look at: this one, or a tree of files, such as an image's or a test's.
//!
//! **Invariant**: nothing is read outside of the root, symbolic links included, and
//! no file is read beyond a limit.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::people::Person;
use crate::app::config::Config;

/// The most bytes that are read of one file.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;
/// The most entries that are looked at in one folder.
pub const MAX_ENTRIES: usize = 8192;
/// The most symbolic links on the way to one file, as the kernel has it.
const MAX_LINKS: usize = 40;

/// What is asked of a running system, and does not stand in a file.
#[derive(Clone, Debug)]
pub struct Probes {
    pub service: Service,
    /// The version of Landlock's interface; 0 is none, None is not known.
    pub landlock: Option<u32>,
    /// Whether systemd may be asked for the settings of units.
    pub systemd: bool,
}

/// What the running service says of itself.
#[derive(Clone, Debug)]
pub enum Service {
    Answers(Value),
    Silent,
    /// Why it was not asked.
    Unknown(String),
}

/// A machine, by its root folder.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    pub config: Config,
    pub probes: Probes,
}

/// What a file is, and whose.
#[derive(Clone, Copy, Debug)]
pub struct Meta {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub is_dir: bool,
    pub is_socket: bool,
}

impl From<Metadata> for Meta {
    fn from(meta: Metadata) -> Self {
        Self {
            mode: meta.mode() & 0o7777,
            uid: meta.uid(),
            gid: meta.gid(),
            is_dir: meta.is_dir(),
            is_socket: meta.file_type().is_socket(),
        }
    }
}

/// A running process.
#[derive(Clone, Debug)]
pub struct Process {
    pub pid: u32,
    pub uid: u32,
    pub name: String,
    /// Below the mount of cgroups.
    pub cgroup: PathBuf,
    pub no_new_privileges: bool,
    /// The capabilities that it could come to have, a bit for each.
    pub bounding: u64,
}

/// Access to a file, as its mode has it for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Enter = 1,
    Write = 2,
}

impl Host {
    pub fn at(root: &Path, config: Config, probes: Probes) -> Self {
        Self { root: root.to_path_buf(), config, probes }
    }

    /// Whether it is the machine that this runs on.
    pub fn is_this(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where a path of the host is for us; symbolic links are followed inside of it.
    pub fn place(&self, path: &Path) -> io::Result<PathBuf> {
        let mut left: VecDeque<OsString> = parts(path);
        let (mut at, mut links) = (PathBuf::new(), 0);
        while let Some(part) = left.pop_front() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = self.root.join(&at).join(&part);
            match fs::read_link(&next) {
                // Those of /proc lead to what has no path.
                Ok(to) if !at.starts_with("proc") => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(io::Error::from_raw_os_error(nix::libc::ELOOP));
                    }
                    if to.is_absolute() {
                        at = PathBuf::new();
                    }
                    for part in parts(&to).into_iter().rev() {
                        left.push_front(part);
                    }
                }
                _ => at.push(part),
            }
        }
        Ok(self.root.join(at))
    }

    /// The text of a file; None if there is none.
    pub fn text(&self, path: impl AsRef<Path>) -> io::Result<Option<String>> {
        Ok(self.bytes(path)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub fn bytes(&self, path: impl AsRef<Path>) -> io::Result<Option<Vec<u8>>> {
        let place = self.place(path.as_ref())?;
        match fs::metadata(&place) {
            // A pipe would be waited for.
            Ok(meta) if !meta.is_file() => return Ok(None),
            Ok(_) => {}
            Err(error) => return absent(error),
        }
        let file = match fs::File::open(place) {
            Err(error) => return absent(error),
            Ok(file) => file,
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(io::Error::other(format!("more than {MAX_FILE} bytes")));
        }
        Ok(Some(bytes))
    }

    /// A file of one line, such as those of /proc/sys.
    pub fn line(&self, path: &str) -> io::Result<Option<String>> {
        Ok(self.text(path)?.map(|text| text.trim().to_owned()))
    }

    pub fn exists(&self, path: impl AsRef<Path>) -> bool {
        self.meta(path).is_some()
    }

    pub fn meta(&self, path: impl AsRef<Path>) -> Option<Meta> {
        fs::metadata(self.place(path.as_ref()).ok()?).ok().map(Meta::from)
    }

    /// The names in a folder, sorted; none if there is no such folder.
    pub fn list(&self, path: impl AsRef<Path>) -> Vec<String> {
        let entries = self.place(path.as_ref()).and_then(fs::read_dir);
        let mut names: Vec<String> = entries
            .into_iter()
            .flatten()
            .take(MAX_ENTRIES)
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// What a symbolic link says, unfollowed.
    pub fn link(&self, path: &str) -> Option<String> {
        let path = Path::new(path);
        let folder = self.place(path.parent()?).ok()?;
        Some(fs::read_link(folder.join(path.file_name()?)).ok()?.to_string_lossy().into_owned())
    }

    /// Where cgroup2 is mounted, as the host's processes see it.
    pub fn cgroup2(&self) -> io::Result<Option<PathBuf>> {
        Ok(crate::kernel::find_cgroup2(&self.text("/proc/self/mountinfo")?.unwrap_or_default()))
    }

    /// Below the mount of cgroups, what the service names below where it is attached.
    pub fn scope_path(&self, path: &str) -> PathBuf {
        self.config.cgroup.attach.join(path.trim_start_matches('/'))
    }

    /// The processes of a cgroup and of all below it.
    pub fn processes(&self, cgroup: &Path) -> Vec<u32> {
        let mut found = Vec::new();
        let mut left = vec![cgroup.to_path_buf()];
        while let Some(at) = left.pop() {
            let text = self.text(at.join("cgroup.procs")).ok().flatten().unwrap_or_default();
            found.extend(text.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            let below = self.list(&at).into_iter().map(|name| at.join(name));
            left.extend(below.filter(|path| self.meta(path).is_some_and(|meta| meta.is_dir)));
        }
        found
    }

    /// All processes whose cgroup and user can be read.
    pub fn all_processes(&self) -> Vec<Process> {
        let numbers = self.list("/proc").into_iter().filter_map(|name| name.parse().ok());
        numbers.filter_map(|pid| self.process(pid)).collect()
    }

    /// One process; None if it is gone.
    pub fn process(&self, pid: u32) -> Option<Process> {
        let status = self.text(format!("/proc/{pid}/status")).ok().flatten()?;
        let field = |key: &str| status.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
        let cgroups = self.text(format!("/proc/{pid}/cgroup")).ok().flatten()?;
        let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some(Process {
            pid,
            uid: field("Uid:")?.split_whitespace().next()?.parse().ok()?,
            name: field("Name:")?.to_owned(),
            cgroup: PathBuf::from(cgroup),
            no_new_privileges: field("NoNewPrivs:") == Some("1"),
            bounding: field("CapBnd:").and_then(|set| u64::from_str_radix(set, 16).ok()).unwrap_or(u64::MAX),
        })
    }

    /// Whether this person gets at the file: by its mode, and by that of every folder
    /// on the way.
    pub fn may(&self, person: &Person, path: impl AsRef<Path>, access: Access) -> bool {
        let Ok(place) = self.place(path.as_ref()) else { return false };
        let Ok(inside) = place.strip_prefix(&self.root) else { return false };
        let mut at = PathBuf::from("/");
        for part in inside.parent().into_iter().flat_map(Path::components) {
            at.push(part);
            if !self.meta(&at).is_some_and(|meta| person.has(meta, Access::Enter)) {
                return false;
            }
        }
        self.meta(Path::new("/").join(inside)).is_some_and(|meta| person.has(meta, access))
    }

    /// Whether this person can replace the file: write to it, or to the folder that it
    /// is in, unless that has the sticky bit and is another's.
    pub fn may_replace(&self, person: &Person, path: &Path) -> bool {
        if self.may(person, path, Access::Write) {
            return true;
        }
        let Some(folder) = path.parent() else { return false };
        let sticky = self.meta(folder).is_some_and(|meta| meta.mode & 0o1000 != 0 && meta.uid != person.uid);
        !sticky && self.may(person, folder, Access::Write)
    }
}

fn parts(path: &Path) -> VecDeque<OsString> {
    let part = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    };
    path.components().filter_map(part).collect()
}

fn absent<T>(error: io::Error) -> io::Result<Option<T>> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(None),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let probes = Probes { service: Service::Silent, landlock: None, systemd: false };
        let host = Host::at(dir.path(), Config::default(), probes);
        (dir, host)
    }

    #[test]
    fn links_do_not_lead_out_of_the_root() {
        let (dir, host) = tree();
        fs::create_dir_all(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/own"), "own").unwrap();
        for (to, name) in [("/etc/own", "a"), ("../../../etc/own", "b"), ("own", "c"), ("d", "d")] {
            symlink(to, dir.path().join("etc").join(name)).unwrap();
        }
        symlink("/etc/passwd", dir.path().join("etc/out")).unwrap();
        for name in ["a", "b", "c"] {
            assert_eq!(host.text(format!("/etc/{name}")).unwrap().as_deref(), Some("own"), "{name}");
        }
        assert!(host.text("/etc/out").unwrap().is_none());
        host.text("/etc/d").unwrap_err();
    }

    #[test]
    fn a_file_may_have_the_limit_and_no_byte_more() {
        let (dir, host) = tree();
        for (size, fits) in [(MAX_FILE, true), (MAX_FILE + 1, false)] {
            fs::File::create(dir.path().join("f")).unwrap().set_len(size).unwrap();
            assert_eq!(host.bytes("/f").is_ok(), fits, "{size}");
        }
    }
}
