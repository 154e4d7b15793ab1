//! Messages and file descriptors between our own processes: one JSON message a
//! packet of a `SOCK_SEQPACKET` Unix socket, descriptors by `SCM_RIGHTS`.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, listen, recvmsg, sendmsg, setsockopt, socket, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest message, in bytes: below the default of `net.core.wmem_max`.
pub const MAX_MESSAGE: usize = 128 * 1024;
/// The most descriptors of one message.
pub const MAX_FDS: usize = 8;
/// The most that the kernel passes (`SCM_MAX_FD`): there is room for them, since
/// descriptors of a message that was cut would be ours and known to nobody.
const KERNEL_MAX_FDS: usize = 253;

/// One end of a connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends, closed on exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(fd))
    }

    /// Sends a message; the other end gets copies of the descriptors.
    pub fn send(&self, message: &impl Serialize, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        if bytes.len() > MAX_MESSAGE || fds.len() > MAX_FDS {
            let text =
                format!("a message of {} bytes and {} descriptors is too large", bytes.len(), fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next message; None when the other end is gone. A message that was cut
    /// is an error: nobody acts on half of one.
    pub fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE + 1];
        let mut control = nix::cmsg_space!([RawFd; KERNEL_MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = loop {
            match recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut control), flags) {
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
                other => break other?,
            }
        };
        let mut fds = Vec::new();
        for message in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = message {
                fds.extend(raw.into_iter().map(super::sys::own));
            }
        }
        let cut = received.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        let length = received.bytes;
        if length == 0 {
            return Ok(None);
        }
        if cut || length > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is too large"));
        }
        Ok(Some((serde_json::from_slice(&bytes[..length])?, fds)))
    }

    /// Sets how long `recv` waits for the other end; None is for ever.
    pub fn set_patience(&self, patience: Option<Duration>) -> io::Result<()> {
        let micros = i64::try_from(patience.unwrap_or_default().as_micros()).unwrap_or(i64::MAX);
        let value = nix::sys::time::TimeVal::new(micros / 1_000_000, micros % 1_000_000);
        Ok(setsockopt(&self.0, nix::sys::socket::sockopt::ReceiveTimeout, &value)?)
    }

    /// Sets how long `send` waits for room at the other end.
    pub fn set_patience_to_send(&self, patience: Duration) -> io::Result<()> {
        let value = nix::sys::time::TimeVal::new(
            i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            i64::from(patience.subsec_micros()),
        );
        Ok(setsockopt(&self.0, nix::sys::socket::sockopt::SendTimeout, &value)?)
    }

    /// What `look` finds out about the process that connected, by its number. An
    /// error if that process is gone by then: the number may mean another one, and
    /// whoever holds the socket now is not known.
    pub fn with_peer<T, E>(
        &self,
        peer: Peer,
        look: impl FnOnce(u32) -> Result<T, E>,
    ) -> io::Result<Result<T, E>> {
        let gone = || io::Error::new(io::ErrorKind::NotFound, "the process that asked is gone");
        let pid = i32::try_from(peer.pid).ok().and_then(rustix::process::Pid::from_raw).ok_or_else(gone)?;
        let process = super::sys::process_of_peer(self.as_fd(), pid).map_err(|_| gone())?;
        let found = look(peer.pid);
        // Readable is ended. One that has not ended had its number all the time.
        let mut ended = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ended, PollTimeout::ZERO)? {
            0 => Ok(found),
            _ => Err(gone()),
        }
    }

    /// Ends the connection, whoever else holds a copy of this end.
    pub fn shut(&self) {
        // An error means that the other end was quicker.
        nix::sys::socket::shutdown(self.0.as_raw_fd(), nix::sys::socket::Shutdown::Both).ok();
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

/// Tells systemd something, with descriptors for its store; without systemd it does nothing.
pub fn tell_systemd(state: &str, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_encoded_bytes() {
        [b'@', name @ ..] => UnixAddr::new_abstract(name)?,
        name => UnixAddr::new(name)?,
    };
    let socket = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let slices = [IoSlice::new(state.as_bytes())];
    sendmsg(socket.as_raw_fd(), &slices, control, MsgFlags::MSG_NOSIGNAL, Some(&address))?;
    Ok(())
}

/// Who is at the other end, from the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A socket in the file system that takes connections.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl Listener {
    /// Replaces a socket that a dead process left.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
        bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        listen(&fd, Backlog::new(64)?)?;
        Ok(Self(fd))
    }

    pub fn accept(&self) -> io::Result<(Channel, Peer)> {
        let raw = accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        let channel = Channel(super::sys::own(raw));
        let credentials =
            nix::sys::socket::getsockopt(&channel.0, nix::sys::socket::sockopt::PeerCredentials)?;
        let pid = u32::try_from(credentials.pid()).unwrap_or_default();
        Ok((channel, Peer { pid, uid: credentials.uid(), gid: credentials.gid() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn messages_and_descriptors_arrive_and_the_end_is_seen() {
        let (a, b) = Channel::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"through").unwrap();
        a.send(&"hello", &[file.as_fd()]).unwrap();
        let (text, fds): (String, _) = b.recv().unwrap().unwrap();
        assert_eq!((text.as_str(), fds.len()), ("hello", 1));
        let mut same = std::fs::File::from(fds.into_iter().next().unwrap());
        same.rewind().unwrap();
        let mut read = String::new();
        same.read_to_string(&mut read).unwrap();
        assert_eq!(read, "through");
        drop(a);
        assert!(b.recv::<String>().unwrap().is_none());
    }

    #[test]
    fn a_peer_that_is_gone_is_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listener = Listener::bind(&path).unwrap();
        let here = Channel::connect(&path).unwrap();
        let (channel, peer) = listener.accept().unwrap();
        assert_eq!(channel.with_peer(peer, Ok::<_, ()>).unwrap(), Ok(std::process::id()));
        let script = "import socket,sys; socket.socket(1,5).connect(sys.argv[1])";
        let mut child =
            std::process::Command::new("python3").args(["-c", script]).arg(&path).spawn().unwrap();
        let (channel, peer) = listener.accept().unwrap();
        assert_eq!(peer.pid, child.id());
        child.wait().unwrap();
        channel.with_peer(peer, Ok::<_, ()>).unwrap_err();
        drop(here);
    }

    #[test]
    fn descriptors_of_a_message_with_too_many_are_closed() {
        let (a, b) = Channel::pair().unwrap();
        for many in [MAX_FDS + 1, KERNEL_MAX_FDS] {
            let (mut here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            let raw = vec![there.as_raw_fd(); many];
            let rights = [ControlMessage::ScmRights(&raw)];
            let parts = [IoSlice::new(b"1")];
            sendmsg::<()>(a.0.as_raw_fd(), &parts, &rights, MsgFlags::empty(), None).unwrap();
            drop(there);
            b.recv::<u8>().unwrap_err();
            // The end is seen only when nobody has the other one any more.
            here.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            assert_eq!(here.read(&mut [0]).unwrap(), 0, "{many}");
        }
    }

    #[test]
    fn patience_ends() {
        let (a, _b) = Channel::pair().unwrap();
        a.set_patience(Some(Duration::from_millis(20))).unwrap();
        assert_eq!(a.recv::<u8>().unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_limits_hold_on_both_sides() {
        let (a, b) = Channel::pair().unwrap();
        let text = "x".repeat(MAX_MESSAGE - 2);
        a.send(&text, &[]).unwrap();
        assert_eq!(b.recv::<String>().unwrap().unwrap().0, text);
        assert!(a.send(&format!("{text}x"), &[]).is_err());
        let fds: Vec<_> = (0..=MAX_FDS).map(|_| a.as_fd()).collect();
        a.send(&1, &fds[1..]).unwrap();
        assert_eq!(b.recv::<u8>().unwrap().unwrap().1.len(), MAX_FDS);
        assert!(a.send(&1, &fds).is_err());
    }
}
