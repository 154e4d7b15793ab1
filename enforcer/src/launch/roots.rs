//! The CA for a container that runs already: what its image trusts, and this CA beside
//! it, mounted from outside, read-only, over the stores that the image has.
//!
//! A process of its own does it (`roots-exec`), which has one thread and ends: what a
//! container serves as its files may hang for as long as the container likes.
//!
//! ```text
//!   their mount namespace   look: which stores are there, and what is in them
//!   a private one           make: a file system in memory with copies and the CA
//!   their mount namespace   put:  detached mounts of it, over the stores
//! ```
//!
//! **Invariant**: nothing of the container is parsed. Names, links and bytes are copied,
//! of regular files alone, within limits; paths are followed within its own root.
//! **Invariant**: a copy can be read by those who can read what it was made of: a namespace
//! may show files of the host that its maker cannot read.
//! **Invariant**: a mount is made in no namespace from which it would spread to the host:
//! that is looked at right before and right after, and what has spread is undone.

mod look;
mod mounts;

use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::thread::LinkNameSpaceType;
use serde::{Deserialize, Serialize};

use look::{Entry, Found, Limits, Rights, Store};
use mounts::Mounts;

/// The name that the CA has in a folder of roots.
pub const CA_FILE: &str = "enforcer-ca.pem";
/// More of a process's list of cgroups is not read, in bytes.
const MAX_CGROUPS: u64 = 64 << 10;
/// Of the file system that holds the copies; it also bounds their number.
const SPACE: &std::ffi::CStr = c"mode=755,size=32m,nr_inodes=8192";

/// What the loader tells the process that does it.
#[derive(Debug, Serialize, Deserialize)]
pub struct RootsSpec {
    /// A process of the container.
    pub pid: u32,
    /// The tagged cgroup, as `/proc/PID/cgroup` has it: what is not in it is not touched.
    pub cgroup: String,
    pub ca_pem: String,
    /// By which OpenSSL finds the CA in a folder.
    pub hash_link: Option<String>,
    /// A folder of ours, for a mount that nobody else sees.
    pub scratch: PathBuf,
}

/// What came of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum Given {
    /// Stores that were mounted over, as the container names them.
    Mounted { places: Vec<String> },
    /// The CA is in every store already.
    There,
    /// The image has no store that is known.
    NoStore,
}

/// Why a container does not have the CA.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    #[error("{doing}: {source}")]
    Step { doing: &'static str, source: io::Error },
    #[error("process {0} is not in the container's cgroup any more")]
    Elsewhere(u32),
    #[error("it is in the host's mount namespace: no container")]
    Host,
    #[error("{0} is shared with the host, which would see the mount too: make it private or slave")]
    Shared(String),
    #[error("{0} is shorter than it says: it is being written")]
    Changed(String),
    #[error("the mount of {0} is not in the kernel's list any more: somebody changes mounts there")]
    Unknown(String),
    #[error("what was mounted over a store came to the host as well, and was undone: make its mount private")]
    Spread,
    #[error("the host has more mounts than are looked at: nothing is mounted where they could share it")]
    TooManyMounts,
    #[error("{place} is {found}, and {limit} are copied at most")]
    TooMuch { place: String, found: String, limit: String },
}

fn step<T>(doing: &'static str, result: Result<T, impl Into<io::Error>>) -> Result<T, RootsError> {
    result.map_err(|error| RootsError::Step { doing, source: error.into() })
}

/// Does it. The calling process has one thread, and ends afterwards: it is left in
/// the container's mount namespace.
pub fn give(spec: &RootsSpec) -> Result<Given, RootsError> {
    let folder = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let process = step("opening the process", rustix::fs::open(proc_of(spec.pid), folder, Mode::empty()))?;
    // Whatever has its number by now: from here on it is the process that was opened.
    if !in_cgroup(&read_proc(&process, "cgroup")?, &spec.cgroup) {
        return Err(RootsError::Elsewhere(spec.pid));
    }
    let theirs = step("their namespace", open_at(&process, "ns/mnt"))?;
    // This service may have mounts of its own: neither they nor the host's are touched.
    let mut hosts = Vec::new();
    for other in ["/proc/self", "/proc/1"] {
        let other = step("our own process", rustix::fs::open(other, folder, Mode::empty()))?;
        let namespace = match open_at(&other, "ns/mnt") {
            // Process 1 may be more than root is here: then our own mounts are what is known.
            Err(Errno::ACCESS | Errno::PERM) => continue,
            opened => step("our own namespace", opened)?,
        };
        if inode(&theirs)? == inode(&namespace)? {
            return Err(RootsError::Host);
        }
        hosts.push(step("our own mounts", open_at(&other, "mountinfo"))?);
    }
    let me = step("our own process", rustix::fs::open("/proc/self", folder, Mode::empty()))?;
    let scratch = Scratch::make(&spec.scratch)?;
    // By it what is open can be opened again for reading, wherever this process is.
    let own = step("our descriptors", rustix::fs::open("/proc/self/fd", folder, Mode::empty()))?;
    enter(&theirs)?;
    let root = step("their root", rustix::fs::open("/", folder, Mode::empty()))?;
    let found = look::look(&root, &own, &Limits::default(), spec.ca_pem.as_bytes())?;
    let stores = match found {
        Found::Nothing => return Ok(Given::NoStore),
        Found::There => return Ok(Given::There),
        Found::Stores(stores) => stores,
    };
    enter(&scratch.namespace)?;
    let trees = scratch.fill(&stores, spec)?;
    enter(&theirs)?;
    // As this process sees them from here on; whatever becomes of the container's.
    let mounts = Mounts::new(hosts, step("their mounts", open_at(&me, "mountinfo"))?);
    put(&mounts, &trees, &stores, &own)?;
    Ok(Given::Mounted { places: stores.into_iter().map(|store| store.place).collect() })
}

/// Mounts over the stores, or over none of them.
fn put(mounts: &Mounts, trees: &[OwnedFd], stores: &[Store], own: &OwnedFd) -> Result<(), RootsError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    mounts.require_apart(stores)?;
    let mut done = 0;
    let result = trees.iter().zip(stores).try_for_each(|(tree, store)| {
        step("mounting over a store", rustix::mount::move_mount(tree, "", &store.target, "", flags))?;
        done += 1;
        mounts.require_unseen(tree)
    });
    let result = result.and_then(|()| mounts.require_apart(stores));
    if result.is_err() {
        // The last one first. Where a mount has spread to, its end spreads as well.
        for tree in trees[..done].iter().rev() {
            undo(tree, own)?;
        }
    }
    result
}

/// `own`: the folder of our descriptors, since here no other path leads to them.
fn undo(tree: &OwnedFd, own: &OwnedFd) -> Result<(), RootsError> {
    step("undoing a mount", rustix::process::fchdir(own))?;
    let name = tree.as_raw_fd().to_string();
    step("undoing a mount", rustix::mount::unmount(name, UnmountFlags::DETACH))
}

fn proc_of(pid: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}"))
}

fn open_at(dir: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// A file of the kernel's about a process.
fn read_proc(process: &OwnedFd, name: &str) -> Result<String, RootsError> {
    let file = fs::File::from(step("opening what the kernel says of it", open_at(process, name))?);
    let mut text = Vec::new();
    let read = io::Read::read_to_end(&mut io::Read::take(file, MAX_CGROUPS), &mut text);
    step("reading what the kernel says of it", read)?;
    // Names of cgroups need not be text; what is looked at is.
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Whether the line of cgroup v2 names this cgroup, or one below it.
fn in_cgroup(text: &str, cgroup: &str) -> bool {
    let own = text.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    own.strip_prefix(cgroup).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn inode(fd: &OwnedFd) -> Result<u64, RootsError> {
    Ok(step("looking at a namespace", rustix::fs::fstat(fd))?.st_ino)
}

fn enter(namespace: &OwnedFd) -> Result<(), RootsError> {
    let kind = Some(LinkNameSpaceType::Mount);
    step("entering a mount namespace", rustix::thread::move_into_link_name_space(namespace.as_fd(), kind))
}

/// A file system in memory, in a mount namespace that nobody else is in.
struct Scratch {
    place: PathBuf,
    namespace: OwnedFd,
}

impl Scratch {
    fn make(place: &Path) -> Result<Self, RootsError> {
        step("a private namespace", nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        step("a private namespace", rustix::mount::mount_change("/", slave))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        step("memory for copies", rustix::mount::mount("enforcer", place, "tmpfs", flags, SPACE))?;
        let own = rustix::fs::open("/proc/self/ns/mnt", OFlags::CLOEXEC, Mode::empty());
        Ok(Self { place: place.to_owned(), namespace: step("a private namespace", own)? })
    }

    /// Copies with the CA in them, and a mount of each that is nowhere yet.
    fn fill(&self, stores: &[Store], spec: &RootsSpec) -> Result<Vec<OwnedFd>, RootsError> {
        let places: Vec<PathBuf> =
            (0..stores.len()).map(|number| self.place.join(number.to_string())).collect();
        for (store, place) in stores.iter().zip(&places) {
            step("copying a store", write(place, &store.content, spec))?;
        }
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NODEV
            | MountFlags::NOEXEC;
        step("making the copies read-only", rustix::mount::mount_remount(&self.place, flags, c""))?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let trees = places.iter().map(|place| rustix::mount::open_tree(CWD, place, clone));
        step("a mount of a copy", trees.collect::<rustix::io::Result<Vec<_>>>())
    }
}

/// What a store is copied to: the CA stands in every bundle, and as a file in a folder.
fn write(place: &Path, entry: &Entry, spec: &RootsSpec) -> io::Result<()> {
    match entry {
        Entry::File(bytes, rights) => new_file(place, *rights)?.write_all(bytes),
        Entry::Bundle(bytes, rights) => {
            let mut file = new_file(place, *rights)?;
            file.write_all(bytes)?;
            // A last line may have no end.
            file.write_all(b"\n")?;
            file.write_all(spec.ca_pem.as_bytes())
        }
        Entry::Link(target) => std::os::unix::fs::symlink(target, place),
        Entry::Folder(entries, rights) => {
            new_folder(place, *rights)?;
            for (name, entry) in entries {
                write(&place.join(name), entry, spec)?;
            }
            Ok(())
        }
        Entry::Certs(entries, rights) => {
            new_folder(place, *rights)?;
            let ours = [Some(CA_FILE), spec.hash_link.as_deref()];
            let theirs = entries.iter().filter(|(name, _)| !ours.iter().flatten().any(|it| name == it));
            for (name, entry) in theirs {
                write(&place.join(name), entry, spec)?;
            }
            new_file(&place.join(CA_FILE), ANYBODY)?.write_all(spec.ca_pem.as_bytes())?;
            match &spec.hash_link {
                Some(link) => std::os::unix::fs::symlink(CA_FILE, place.join(link)),
                None => Ok(()),
            }
        }
    }
}

/// Of the CA itself.
const ANYBODY: Rights = Rights { owner: 0, group: 0, mode: 0o644 };

/// **Invariant**: nothing that stands there is written through. A folder of the container
/// may show one name twice, first as a link to anywhere on the host.
fn new_file(place: &Path, rights: Rights) -> io::Result<fs::File> {
    let file = fs::File::options().write(true).create_new(true).mode(0o000).open(place)?;
    give_rights(file.as_fd(), rights)?;
    Ok(file)
}

fn new_folder(place: &Path, rights: Rights) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o000).create(place)?;
    give_rights(fs::File::open(place)?.as_fd(), rights)
}

fn give_rights(made: BorrowedFd<'_>, rights: Rights) -> io::Result<()> {
    // The owner first: the kernel takes bits away when it changes.
    std::os::unix::fs::fchown(made, Some(rights.owner), Some(rights.group))?;
    Ok(rustix::fs::fchmod(made, Mode::from_raw_mode(rights.mode))?)
}

#[cfg(test)]
mod tests;
