//! What a container trusts: which of the known stores it has, and what is in them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{RootsError, step};

/// Where images keep the bundle: those of `app::trust`, of hosts, are among them.
const BUNDLES: &[&str] = &[
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/tls/certs/ca-bundle.crt",
    "etc/ssl/ca-bundle.pem",
    "etc/ssl/cert.pem",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
];
/// The folder with a hash link for each root.
const CERTS: &str = "etc/ssl/certs";
/// How far below it is copied: Java's store is one below.
const MAX_DEPTH: usize = 2;

/// How much is copied out of a container.
pub struct Limits {
    /// Bytes of one file.
    pub file: u64,
    /// Entries of the folder, with those below it.
    pub entries: usize,
    /// Bytes of all files together.
    pub all: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 4 << 20, entries: 4096, all: 24 << 20 }
    }
}

/// Something of a store.
#[derive(Debug, PartialEq, Eq)]
pub enum Entry {
    File(Vec<u8>, Rights),
    /// A file of roots in a row: one more can be written after them.
    Bundle(Vec<u8>, Rights),
    Link(OsString),
    Folder(Vec<(OsString, Entry)>, Rights),
    /// The folder of roots itself.
    Certs(Vec<(OsString, Entry)>, Rights),
}

/// Whose a file or folder is, and who may read it. Its copy is like it: whoever made the
/// namespace may have put something there that he cannot read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights {
    pub owner: u32,
    pub group: u32,
    pub mode: u32,
}

impl Rights {
    /// Of what is open. Where a list says more than the mode does, it is the owner's alone.
    fn of(file: impl AsFd) -> Result<Self, RootsError> {
        let stat = step("looking at the rights of a root", rustix::fs::fstat(&file))?;
        let has_list = match rustix::fs::fgetxattr_query(file, "system.posix_acl_access") {
            Ok(_) => true,
            Err(Errno::NODATA | Errno::NOTSUP) => false,
            Err(error) => return step("looking at the rights of a root", Err(error)),
        };
        let kept = if has_list { 0o700 } else { 0o777 };
        Ok(Self { owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode & kept })
    }
}

/// A store that is to be mounted over.
pub struct Store {
    /// As it is named in the container.
    pub place: String,
    /// The file or folder itself: what its name leads to by then does not matter.
    pub target: OwnedFd,
    pub content: Entry,
}

pub enum Found {
    Nothing,
    There,
    Stores(Vec<Store>),
}

/// Reads what is below `root`; `own` is this process's folder of descriptors.
pub fn look(root: &OwnedFd, own: &OwnedFd, limits: &Limits, ca: &[u8]) -> Result<Found, RootsError> {
    let mut reader = Reader { own, limits, entries: 0, bytes: 0, bundles: Vec::new(), ca, without: 0 };
    let mut bundles = Vec::new();
    for path in BUNDLES {
        let Some((target, stat)) = within(root, path, OFlags::empty())? else { continue };
        let known = reader.bundles.contains(&identity(&stat));
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && !known {
            reader.bundles.push(identity(&stat));
            bundles.push((format!("/{path}"), target, stat));
        }
    }
    if bundles.is_empty() {
        // A folder alone may be one that packages are still to fill.
        return Ok(Found::Nothing);
    }
    let mut stores = Vec::new();
    let mut inside = Vec::new();
    if let Some((target, _)) = within(root, CERTS, OFlags::DIRECTORY)? {
        let (entries, rights) = reader.folder(&target, CERTS, 0, &mut inside)?;
        // Without a bundle in it, it is not what programs look into.
        if !inside.is_empty() {
            let place = format!("/{CERTS}");
            stores.push(Store { place, target, content: Entry::Certs(entries, rights) });
        }
    }
    for (place, target, stat) in bundles {
        if !inside.contains(&identity(&stat)) {
            let (bytes, rights) = reader.bundle(&target, &stat, &place)?;
            let content = Entry::Bundle(bytes, rights);
            stores.push(Store { place, target, content });
        }
    }
    Ok(if reader.without == 0 { Found::There } else { Found::Stores(stores) })
}

/// What a path means inside the container: none if there is nothing.
fn within(root: &OwnedFd, path: &str, flags: OFlags) -> Result<Option<(OwnedFd, Stat)>, RootsError> {
    let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(target) => {
            let stat = step("looking at a store", rustix::fs::fstat(&target))?;
            Ok(Some((target, stat)))
        }
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(None),
        Err(error) => step("opening a store", Err(error)),
    }
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

struct Reader<'a> {
    own: &'a OwnedFd,
    limits: &'a Limits,
    entries: usize,
    bytes: u64,
    /// Files that are bundles, wherever they are met.
    bundles: Vec<(u64, u64)>,
    ca: &'a [u8],
    /// Bundles that do not have the CA.
    without: usize,
}

impl Reader<'_> {
    fn folder(
        &mut self,
        folder: &OwnedFd,
        place: &str,
        depth: usize,
        inside: &mut Vec<(u64, u64)>,
    ) -> Result<(Vec<(OsString, Entry)>, Rights), RootsError> {
        let open = self.again(folder, OFlags::DIRECTORY)?;
        let rights = Rights::of(&open)?;
        let mut copied = Vec::new();
        for entry in step("reading a folder of roots", Dir::read_from(&open))? {
            let entry = step("reading a folder of roots", entry)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > self.limits.entries {
                let limit = format!("{} entries", self.limits.entries);
                return Err(RootsError::TooMuch { place: place.to_owned(), found: "more".to_owned(), limit });
            }
            // What is at the name now, without following it or opening a device.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(target) = rustix::fs::openat(folder, name, flags, Mode::empty()) else { continue };
            let stat = step("looking at a root", rustix::fs::fstat(&target))?;
            let below = format!("{place}/{}", name.to_string_lossy());
            let content = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Symlink => {
                    let link = step("reading a link", rustix::fs::readlinkat(&target, "", Vec::new()))?;
                    Entry::Link(OsString::from_vec(link.into_bytes()))
                }
                FileType::RegularFile if self.bundles.contains(&identity(&stat)) => {
                    inside.push(identity(&stat));
                    let (bytes, rights) = self.bundle(&target, &stat, &below)?;
                    Entry::Bundle(bytes, rights)
                }
                FileType::RegularFile => {
                    let (bytes, rights) = self.file(&target, &stat, &below)?;
                    Entry::File(bytes, rights)
                }
                FileType::Directory if depth < MAX_DEPTH => {
                    let (entries, rights) = self.folder(&target, &below, depth + 1, inside)?;
                    Entry::Folder(entries, rights)
                }
                // No store has it, and nobody is to miss it.
                _ => continue,
            };
            copied.push((OsString::from_vec(name.to_bytes().to_vec()), content));
        }
        Ok((copied, rights))
    }

    fn bundle(
        &mut self,
        target: &OwnedFd,
        stat: &Stat,
        place: &str,
    ) -> Result<(Vec<u8>, Rights), RootsError> {
        let (bytes, rights) = self.file(target, stat, place)?;
        if memchr::memmem::find(&bytes, self.ca.trim_ascii()).is_none() {
            self.without += 1;
        }
        Ok((bytes, rights))
    }

    /// The content of a regular file, as far as the limits go.
    fn file(&mut self, target: &OwnedFd, stat: &Stat, place: &str) -> Result<(Vec<u8>, Rights), RootsError> {
        let most = self.limits.file.min(self.limits.all.saturating_sub(self.bytes));
        let size = u64::try_from(stat.st_size).unwrap_or(u64::MAX);
        if size > most {
            let (place, limit) = (place.to_owned(), format!("{most} bytes"));
            return Err(RootsError::TooMuch { place, found: format!("{size} bytes long"), limit });
        }
        let file = File::from(self.again(target, OFlags::NONBLOCK)?);
        let rights = Rights::of(&file)?;
        let mut bytes = Vec::new();
        // No more than it says that it has. A file of the kernel's says 0, and tells
        // root things that it tells nobody else.
        step("reading a root", file.take(size).read_to_end(&mut bytes))?;
        if u64::try_from(bytes.len()).unwrap_or(u64::MAX) != size {
            return Err(RootsError::Changed(place.to_owned()));
        }
        self.bytes += size;
        Ok((bytes, rights))
    }

    /// What is open by its place alone, for reading.
    fn again(&self, target: &OwnedFd, flags: OFlags) -> Result<OwnedFd, RootsError> {
        let number = target.as_raw_fd().to_string();
        let flags = flags | OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        step("opening a root", rustix::fs::openat(self.own, number, flags, Mode::empty()))
    }
}
