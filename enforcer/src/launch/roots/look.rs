//! What a container trusts: which of the known stores it has, and what is in them.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
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
    File(Vec<u8>),
    /// A file of roots in a row: one more can be written after them.
    Bundle(Vec<u8>),
    Link(OsString),
    Folder(Vec<(OsString, Entry)>),
    /// The folder of roots itself.
    Certs(Vec<(OsString, Entry)>),
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
        let entries = reader.folder(&target, CERTS, 0, &mut inside)?;
        // Without a bundle in it, it is not what programs look into.
        if !inside.is_empty() {
            let place = format!("/{CERTS}");
            stores.push(Store { place, target, content: Entry::Certs(entries) });
        }
    }
    for (place, target, stat) in bundles {
        if !inside.contains(&identity(&stat)) {
            let content = Entry::Bundle(reader.bundle(&target, &stat, &place)?);
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
    ) -> Result<Vec<(OsString, Entry)>, RootsError> {
        let open = self.again(folder, OFlags::DIRECTORY)?;
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
                    Entry::Bundle(self.bundle(&target, &stat, &below)?)
                }
                FileType::RegularFile => Entry::File(self.file(&target, &stat, &below)?),
                FileType::Directory if depth < MAX_DEPTH => {
                    Entry::Folder(self.folder(&target, &below, depth + 1, inside)?)
                }
                // No store has it, and nobody is to miss it.
                _ => continue,
            };
            copied.push((OsString::from_vec(name.to_bytes().to_vec()), content));
        }
        Ok(copied)
    }

    fn bundle(&mut self, target: &OwnedFd, stat: &Stat, place: &str) -> Result<Vec<u8>, RootsError> {
        let bytes = self.file(target, stat, place)?;
        if memchr::memmem::find(&bytes, self.ca.trim_ascii()).is_none() {
            self.without += 1;
        }
        Ok(bytes)
    }

    /// The content of a regular file, as far as the limits go.
    fn file(&mut self, target: &OwnedFd, stat: &Stat, place: &str) -> Result<Vec<u8>, RootsError> {
        let mut bytes = Vec::new();
        // Its size may be wrong, and grow: what is read is what counts.
        let most = self.limits.file.min(self.limits.all.saturating_sub(self.bytes));
        if u64::try_from(stat.st_size).unwrap_or(u64::MAX) <= most {
            let file = File::from(self.again(target, OFlags::NONBLOCK)?);
            step("reading a root", file.take(most + 1).read_to_end(&mut bytes))?;
        }
        let read = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if read > most || (read == 0 && stat.st_size > 0) {
            let found = format!("{} bytes long", stat.st_size.max(i64::try_from(read).unwrap_or(i64::MAX)));
            let limit = format!("{most} bytes");
            return Err(RootsError::TooMuch { place: place.to_owned(), found, limit });
        }
        self.bytes += read;
        Ok(bytes)
    }

    /// What is open by its place alone, for reading.
    fn again(&self, target: &OwnedFd, flags: OFlags) -> Result<OwnedFd, RootsError> {
        let number = target.as_raw_fd().to_string();
        let flags = flags | OFlags::RDONLY | OFlags::NOCTTY | OFlags::CLOEXEC;
        step("opening a root", rustix::fs::openat(self.own, number, flags, Mode::empty()))
    }
}
