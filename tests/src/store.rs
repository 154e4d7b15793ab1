//! Stands in for systemd's store of descriptors: a notify socket that really keeps what
//! a service stores there, and gives it to the next one as `LISTEN_FDS`.
#![allow(unsafe_code, reason = "descriptors that come as numbers")]

use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

/// A descriptor and the name that the service gave it.
pub type Stored = (String, OwnedFd);

/// The socket and what is in the store.
pub struct Store {
    pub path: PathBuf,
    kept: Arc<Mutex<Vec<Stored>>>,
    /// The most that there was at a time.
    most: Arc<Mutex<usize>>,
}

impl Store {
    /// Opens the socket in this folder, and listens for as long as the process lives.
    pub fn start(dir: &Path) -> Result<Self> {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path)?;
        let kept: Arc<Mutex<Vec<Stored>>> = Arc::default();
        let most: Arc<Mutex<usize>> = Arc::default();
        let (keep, count) = (Arc::clone(&kept), Arc::clone(&most));
        std::thread::spawn(move || {
            while let Some((text, fds)) = receive(&socket) {
                let mut kept = keep.lock().unwrap_or_else(PoisonError::into_inner);
                let value =
                    |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::to_owned);
                let name = value("FDNAME=").unwrap_or_else(|| "stored".to_owned());
                if value("FDSTORE=").is_some() {
                    kept.extend(fds.into_iter().map(|fd| (name.clone(), fd)));
                } else if value("FDSTOREREMOVE=").is_some() {
                    kept.retain(|(stored, _)| *stored != name);
                }
                let mut most = count.lock().unwrap_or_else(PoisonError::into_inner);
                *most = kept.len().max(*most);
            }
        });
        Ok(Self { path, kept, most })
    }

    pub fn len(&self) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn most(&self) -> usize {
        *self.most.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies for a service that is started, which stay in the store as well.
    pub fn copies(&self) -> Result<Vec<Stored>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(name, fd)| Ok((name.clone(), fd.try_clone()?))).collect()
    }
}

fn receive(socket: &UnixDatagram) -> Option<(String, Vec<OwnedFd>)> {
    let mut bytes = [0; 4096];
    let mut control = nix::cmsg_space!([RawFd; 16]);
    let mut slices = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut control), flags).ok()?;
    let length = received.bytes;
    let mut fds = Vec::new();
    for message in received.cmsgs().ok()? {
        if let ControlMessageOwned::ScmRights(raw) = message {
            // SAFETY: the kernel has just made them for this process.
            fds.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
        }
    }
    Some((String::from_utf8_lossy(&bytes[..length]).into_owned(), fds))
}
