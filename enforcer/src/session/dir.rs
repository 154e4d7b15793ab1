//! The folder of a recording, held by a descriptor: no later rename or link
//! leads anywhere else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags};

/// Bytes that are kept free for the last words of a recording on a full disk.
const RESERVE: usize = 32 << 10;
const RESERVE_NAME: &str = "reserve";
/// How long a recording waits for the process before it to let go of the folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts: the kernel tells nobody whose turn it is without blocking them.
const LOCK_AGAIN: Duration = Duration::from_millis(20);

/// The name of a segment: its number, and the boot that it was begun in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    pub number: u64,
    boot: String,
}

impl SegmentName {
    pub fn new(number: u64, boot_id: &str) -> Self {
        let boot: String = boot_id.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        Self { number, boot: format!("{:0<8}", boot.to_ascii_lowercase()) }
    }

    fn parse(name: &str) -> Option<Self> {
        let (number, boot) = name.strip_suffix(".seg")?.split_once('-')?;
        let plain = number.len() >= 8 && number.bytes().all(|digit| digit.is_ascii_digit());
        let boot_plain = boot.len() == 8 && boot.bytes().all(|digit| digit.is_ascii_hexdigit());
        let number = number.parse().ok().filter(|_| plain && boot_plain)?;
        Some(Self { number, boot: boot.to_owned() })
    }

    pub fn file(&self) -> String {
        format!("{:08}-{}.seg", self.number, self.boot)
    }
}

#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_path_buf() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether anybody but the owner may put files there.
    pub fn open_to_others(&self) -> io::Result<bool> {
        let mode = Mode::from_raw_mode(rustix::fs::fstat(&self.fd)?.st_mode);
        Ok(mode.intersects(Mode::WGRP | Mode::WOTH))
    }

    /// One process records in a folder at a time: two chains in one would be no chain.
    pub fn lock(&self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::WOULDBLOCK) if begun.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_AGAIN);
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(io::Error::other("another process writes there"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether a process is recording here now.
    pub fn in_use(&self) -> bool {
        let locked = rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockShared);
        if locked.is_ok() {
            rustix::fs::flock(&self.fd, FlockOperation::Unlock).ok();
        }
        locked == Err(rustix::io::Errno::WOULDBLOCK)
    }

    /// Whether the path still leads here. Records in a folder that was moved
    /// away would be found by nobody.
    pub fn still_there(&self) -> io::Result<()> {
        let ours = rustix::fs::fstat(&self.fd)?;
        let theirs = rustix::fs::lstat(&self.path);
        match theirs {
            Ok(theirs) if (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino) => Ok(()),
            _ => Err(io::Error::other(format!(
                "the folder {} was removed or replaced; put it back, or restart the service",
                self.path.display()
            ))),
        }
    }

    /// The segments in their order.
    pub fn segments(&self) -> io::Result<Vec<SegmentName>> {
        let mut found = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd)? {
            found.extend(entry?.file_name().to_str().ok().and_then(SegmentName::parse));
        }
        found.sort();
        Ok(found)
    }

    /// A new file; it must not be there.
    pub fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDWR;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// A regular file that is there.
    pub fn file(&self, name: &str, write: bool) -> io::Result<File> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        // Without NONBLOCK a pipe of that name would hold the reader for ever.
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let describe = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.join(name).display()))
        };
        let file =
            rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| describe(e.into()))?;
        let file = File::from(file);
        if !file.metadata()?.is_file() {
            return Err(describe(io::Error::other("not a regular file")));
        }
        Ok(file)
    }

    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?)
    }

    /// Puts one file in place of another.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.fd, from, &self.fd, to)?)
    }

    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }

    /// Takes the reserve's room on the disk, if it does not have it already.
    pub fn keep_reserve(&self) -> io::Result<()> {
        use std::io::Write;
        let file = match self.create(RESERVE_NAME) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => self.file(RESERVE_NAME, true)?,
            Err(error) => return Err(error),
        };
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE as u64) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP) => (&file).write_all(&[0; RESERVE]),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the reserve's room to whoever writes next.
    pub fn spend_reserve(&self) -> io::Result<()> {
        self.file(RESERVE_NAME, true)?.set_len(0)
    }
}
