//! What a job sees of the host's Unix sockets: none.
//!
//! ```text
//!   /run            a folder of the job's own, with what stood there but for sockets and the
//!                   folders of daemons: what is made there later is not seen
//!   /run/user/UID   empty, the job's own
//!   elsewhere       each socket that has a name now is covered, and the folders of daemons
//! ```
//!
//! A cover on the host's own files goes with the file when its owner replaces it. That is
//! why /run, where daemons come and go, is not covered but made anew.
//!
//! **Invariant**: what cannot be hidden is an error, and the job does not start.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry, File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use serde::{Deserialize, Serialize};

use super::daemons::{self, OF_USERS, RUN};
use super::{LaunchError, step};

/// How often one is covered that goes and comes again while that is done.
const TRIES: usize = 8;
/// The most sockets outside of /run that are covered for a job.
pub const MAX_COVERED: usize = 4096;
/// The most entries of one folder of /run that are looked at, with those below it. One with
/// more is not shown.
pub const MAX_ENTRIES: usize = 16_384;
/// The most bytes that a job keeps in its own /run.
pub const MAX_RUN: &str = "64m";

/// What is hidden, and from whom.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hiding {
    /// Sockets and folders that are shown all the same.
    pub expose: Vec<PathBuf>,
    /// The service's own sockets know who comes.
    pub own: PathBuf,
}

/// What was hidden.
#[derive(Debug, Default, Serialize)]
pub struct Hidden {
    /// Those of /run, by their old names.
    pub in_run: BTreeSet<PathBuf>,
    /// Those that were covered elsewhere, and folders.
    pub covered: BTreeSet<PathBuf>,
    pub exposed: Vec<PathBuf>,
}

/// The view while it is made.
struct View<'a> {
    hiding: &'a Hiding,
    /// Names of sockets that processes of any network namespace have.
    named: &'a BTreeSet<PathBuf>,
    folders: Vec<PathBuf>,
    hidden: Hidden,
}

/// Hides them from this process, which is in a mount namespace of its own, and from those
/// that it starts.
pub fn hide(hiding: &Hiding, uid: u32, gid: u32, cwd: &Path) -> Result<Hidden, LaunchError> {
    let named = step("looking for sockets", named())?;
    let folders = daemons::folders().collect();
    // By the one name that is not a link's.
    let plain = |path: &PathBuf| path.canonicalize().unwrap_or_else(|_| path.clone());
    let hiding = &Hiding { expose: hiding.expose.iter().map(plain).collect(), own: plain(&hiding.own) };
    let mut view = View { hiding, named: &named, folders, hidden: Hidden::default() };
    let run = Path::new(RUN);
    let old = step(&format!("opening {RUN}"), open(run))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode=755,size={MAX_RUN}");
    let done = mount(Some("none"), run, Some("tmpfs"), flags, Some(options.as_str()));
    step(&format!("a {RUN} of the job's own"), done)?;
    let source = behind(&old);
    view.folder(&source, run)?;
    own_folder(&source, uid, gid)?;
    // Nobody can connect to it, open it, or give himself the right to.
    let blank = run.join(".hidden");
    step("a node that nobody opens", File::create(&blank))?;
    step("a node that nobody opens", fs::set_permissions(&blank, Permissions::from_mode(0o000)))?;
    view.elsewhere(&blank, cwd)?;
    step("a node that nobody opens", fs::remove_file(&blank))?;
    view.hidden.exposed = hiding.expose.clone();
    Ok(view.hidden)
}

impl View<'_> {
    /// Fills a folder of the job's own with what the host's has.
    fn folder(&mut self, source: &Path, at: &Path) -> Result<(), LaunchError> {
        let doing = format!("looking at {}", at.display());
        for entry in step(&doing, fs::read_dir(source))? {
            let entry = step(&doing, entry)?;
            match self.entry(&entry, &at.join(entry.file_name())) {
                // It went meanwhile.
                Err(LaunchError::Step { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        Ok(())
    }

    fn entry(&mut self, entry: &DirEntry, at: &Path) -> Result<(), LaunchError> {
        let doing = format!("showing {}", at.display());
        let meta = step(&doing, entry.metadata())?;
        let (source, kind) = (entry.path(), meta.file_type());
        if kind.is_symlink() {
            return step(&doing, fs::read_link(&source).and_then(|to| symlink(to, at)));
        }
        if kind.is_dir() {
            step(&doing, fs::create_dir(at).and_then(|()| like(at, &meta)))?;
            if self.shows(at) || at == self.hiding.own {
                return bind(&source, at);
            }
            if self.folders.iter().any(|folder| folder == at) {
                self.hidden.in_run.insert(at.to_path_buf());
                return self.exposed_below(&source, at);
            }
            return match self.has_sockets(&source, at, meta.dev()) {
                Some(false) => bind(&source, at),
                Some(true) => self.folder(&source, at),
                None => {
                    self.hidden.in_run.insert(at.to_path_buf());
                    self.exposed_below(&source, at)
                }
            };
        }
        if kind.is_socket() && !self.shows(at) {
            self.hidden.in_run.insert(at.to_path_buf());
            return Ok(());
        }
        step(&doing, File::create_new(at))?;
        bind(&source, at)
    }

    fn shows(&self, at: &Path) -> bool {
        self.hiding.expose.iter().any(|shown| at.starts_with(shown))
    }

    /// Of a folder that is hidden, what is shown all the same.
    fn exposed_below(&mut self, source: &Path, at: &Path) -> Result<(), LaunchError> {
        for shown in self.hiding.expose.iter().filter(|shown| *shown != at) {
            let Ok(below) = shown.strip_prefix(at) else { continue };
            let doing = format!("showing {}", shown.display());
            let meta = match source.join(below).symlink_metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                meta => step(&doing, meta)?,
            };
            let parent = shown.parent().unwrap_or(at);
            step(&doing, fs::create_dir_all(parent))?;
            let made = if meta.is_dir() { fs::create_dir(shown) } else { File::create_new(shown).map(drop) };
            step(&doing, made)?;
            bind(&source.join(below), shown)?;
        }
        Ok(())
    }

    /// Whether a socket, or something of our list, is anywhere in this folder; None if it is
    /// too large to tell. Other file systems that are mounted there are not looked through:
    /// who listens there has a name.
    fn has_sockets(&self, source: &Path, at: &Path, device: u64) -> Option<bool> {
        let below = |path: &PathBuf| path.starts_with(at);
        if self.folders.iter().any(below) || self.named.iter().any(below) || self.hiding.own.starts_with(at) {
            return Some(true);
        }
        let (mut left, mut seen) = (vec![source.to_path_buf()], 0);
        while let Some(folder) = left.pop() {
            // It went meanwhile, or is a file system that shows root nothing.
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries.flatten() {
                seen += 1;
                if seen > MAX_ENTRIES {
                    return None;
                }
                let Ok(kind) = entry.file_type() else { continue };
                if kind.is_socket() {
                    return Some(true);
                }
                if kind.is_dir() && entry.metadata().is_ok_and(|meta| meta.dev() == device) {
                    left.push(entry.path());
                }
            }
        }
        Some(false)
    }

    /// Covers what is outside of /run.
    fn elsewhere(&mut self, blank: &Path, cwd: &Path) -> Result<(), LaunchError> {
        let outside = |path: &Path| !path.starts_with(RUN) && !path.starts_with(&self.hiding.own);
        let folders: Vec<PathBuf> =
            self.folders.iter().filter(|path| outside(path) && !self.shows(path)).cloned().collect();
        let sockets: Vec<PathBuf> =
            self.named.iter().filter(|path| outside(path) && !self.shows(path)).cloned().collect();
        for folder in folders {
            if let Some(opened) = there(&folder, FileKind::Folder)? {
                cover_folder(&opened, &folder, "mode=0".to_owned())?;
                self.hidden.covered.insert(folder);
            }
        }
        for device in daemons::DEVICES.map(PathBuf::from) {
            let opened = if self.shows(&device) { None } else { there(&device, FileKind::Device)? };
            if let Some(opened) = opened {
                cover(blank, &opened, &device)?;
                self.hidden.covered.insert(device);
            }
        }
        let mut shared = BTreeSet::new();
        for socket in sockets {
            let folder = socket.parent().filter(|folder| !cwd.starts_with(folder));
            // A folder with other files is looked at once, however many sockets are in it.
            let folder = folder.filter(|folder| shared.insert(folder.to_path_buf()));
            let mut tries = 1;
            let done = loop {
                match cover_one(blank, &socket, folder) {
                    // It went meanwhile, and may have come again.
                    Err(LaunchError::Step { source, .. })
                        if source.kind() == io::ErrorKind::NotFound && tries < TRIES =>
                    {
                        tries += 1;
                    }
                    done => break done?,
                }
            };
            self.hidden.covered.extend(done);
            within(self.hidden.covered.len())?;
        }
        Ok(())
    }
}

/// Covers a socket, or its folder if that has nothing else: what was covered.
fn cover_one(blank: &Path, socket: &Path, folder: Option<&Path>) -> Result<Option<PathBuf>, LaunchError> {
    // With its folder, or under another name.
    let Some(opened) = there(socket, FileKind::Socket)? else { return Ok(None) };
    if let Some(folder) = folder
        && let Some((opened, options)) = private(folder)?
    {
        cover_folder(&opened, folder, options)?;
        return Ok(Some(folder.to_path_buf()));
    }
    cover(blank, &opened, socket)?;
    Ok(Some(socket.to_path_buf()))
}

fn within(covered: usize) -> Result<(), LaunchError> {
    if covered <= MAX_COVERED {
        return Ok(());
    }
    let error = io::Error::other(format!(
        "there are more than {MAX_COVERED} of them outside of {RUN} (`ss -xl` lists them)"
    ));
    step("hiding the host's sockets", Err(error))
}

/// What belongs to the job's user, anew.
fn own_folder(source: &Path, uid: u32, gid: u32) -> Result<(), LaunchError> {
    let own = Path::new(OF_USERS).join(uid.to_string());
    let before = source.join("user").join(uid.to_string());
    if !before.is_dir() {
        return Ok(());
    }
    let doing = format!("a {} of the job's own", own.display());
    // It is there already if something in it is shown.
    let made = fs::create_dir(&own).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    });
    step(&doing, made)?;
    step(&doing, chown(&own, Some(uid), Some(gid)))?;
    step(&doing, fs::set_permissions(&own, Permissions::from_mode(0o700)))
}

/// The names of all sockets that processes can have, of every network namespace.
fn named() -> io::Result<BTreeSet<PathBuf>> {
    let mut names = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    let mut look = |process: &Path| {
        let namespace = fs::read_link(process.join("ns/net"))?;
        if namespaces.insert(namespace) {
            names.extend(paths(&fs::read(process.join("net/unix"))?));
        }
        io::Result::Ok(())
    };
    look(Path::new("/proc/self"))?;
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        if entry.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit) {
            // It may be at its end.
            look(&entry.path()).ok();
        }
    }
    Ok(names)
}

/// The paths of /proc/net/unix, with symbolic links in their folders followed. Names
/// without a folder say nothing of where they are.
fn paths(table: &[u8]) -> BTreeSet<PathBuf> {
    let path = |line: &[u8]| {
        let at = line.windows(2).position(|two| two == b" /")?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&line[at + 1..]));
        Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
    };
    table.split(|byte| *byte == b'\n').filter_map(path).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FileKind {
    Folder,
    Socket,
    Device,
}

/// What is at this path if it is of this kind. No link is followed: whoever owns a folder on
/// the way could have something else covered.
fn there(path: &Path, kind: FileKind) -> Result<Option<OwnedFd>, LaunchError> {
    let doing = format!("hiding {}", path.display());
    let opened = match open(path) {
        Ok(opened) => opened,
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EACCES | libc::ENAMETOOLONG)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return step(&doing, Err(error)),
    };
    let found = step(&doing, behind(&opened).metadata())?.file_type();
    let same = match kind {
        FileKind::Folder => found.is_dir(),
        FileKind::Socket => found.is_socket(),
        FileKind::Device => found.is_char_device(),
    };
    Ok(same.then_some(opened))
}

/// A folder that holds sockets and nothing else, and is nobody's place for anything else:
/// it is hidden with what is made in it later. With options for one like it.
fn private(folder: &Path) -> Result<Option<(OwnedFd, String)>, LaunchError> {
    const STICKY: u32 = 0o1000;
    let Some(opened) = there(folder, FileKind::Folder)? else { return Ok(None) };
    let doing = format!("hiding {}", folder.display());
    let place = behind(&opened);
    let meta = step(&doing, place.metadata())?;
    // Where everybody puts his files, as in /var/tmp; not as in /tmp/.X11-unix.
    let named = folder.file_name().is_some_and(|name| name.as_bytes().first() == Some(&b'.'));
    if meta.mode() & STICKY != 0 && !named {
        return Ok(None);
    }
    for entry in step(&doing, fs::read_dir(&place))? {
        if !step(&doing, entry.and_then(|entry| entry.file_type()))?.is_socket() {
            return Ok(None);
        }
    }
    let options =
        format!("mode={:o},uid={},gid={},size={MAX_RUN}", meta.mode() & 0o7777, meta.uid(), meta.gid());
    Ok(Some((opened, options)))
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let opened = openat2(rustix::fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    opened.map_err(Into::into)
}

/// What a descriptor stands for, whatever is mounted over its path by now.
fn behind(opened: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd()))
}

/// With everything that is mounted below.
fn bind(source: &Path, at: &Path) -> Result<(), LaunchError> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    step(&format!("showing {}", at.display()), mount(Some(source), at, None::<&str>, flags, None::<&str>))
}

fn cover(blank: &Path, over: &OwnedFd, path: &Path) -> Result<(), LaunchError> {
    let done = mount(Some(blank), &behind(over), None::<&str>, MsFlags::MS_BIND, None::<&str>);
    step(&format!("hiding {}", path.display()), done)
}

fn cover_folder(over: &OwnedFd, path: &Path, options: String) -> Result<(), LaunchError> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let done = mount(Some("none"), &behind(over), Some("tmpfs"), flags, Some(options.as_str()));
    step(&format!("hiding {}", path.display()), done)
}

fn like(at: &Path, meta: &Metadata) -> io::Result<()> {
    chown(at, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(at, Permissions::from_mode(meta.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_the_kernel_writes_them() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000000000000: 00000003 00000000 00000000 0001 03  1568\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  1569 /proc/self/../a b.sock\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  1570 @/tmp/abstract\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  1571 relative\n\
            0000000000000000: 00000002 00000000 00010000 0001 01  1572 /nowhere/at/all\n";
        let found: Vec<PathBuf> = paths(table.as_bytes()).into_iter().collect();
        assert_eq!(found, [Path::new("/proc/a b.sock")]);
    }

    #[test]
    fn so_many_sockets_are_covered_and_not_one_more() {
        within(MAX_COVERED).unwrap();
        let said = within(MAX_COVERED + 1).unwrap_err().to_string();
        assert!(said.contains("more than 4096"), "{said}");
    }
}
