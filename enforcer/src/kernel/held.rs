//! Sockets that another process holds, looked at by a descriptor of one's own: only so
//! is known which network namespace one belongs to, which need not be its holder's.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

const SIOCGSKNS: libc::c_ulong = 0x894c;
const KCMP_FILES: libc::c_int = 2;
/// A thread that is not the first of its process (Linux 6.9).
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());

/// What a socket is.
#[derive(Debug)]
pub struct Held {
    pub inode: u64,
    pub family: i32,
    pub kind: i32,
    pub protocol: i32,
    /// For those of IPv4 and IPv6.
    pub netns: Option<File>,
}

/// A table of descriptors.
pub struct Holder(OwnedFd);

impl Holder {
    /// Of a thread; before Linux 6.9 it has to be the first of its process.
    pub fn of(process: u32, thread: u32) -> io::Result<Self> {
        let number = i32::try_from(thread).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = if process == thread { PidfdFlags::empty() } else { PIDFD_THREAD };
        Ok(Self(pidfd_open(number, flags)?))
    }

    /// The socket at a number; none if something else is there.
    pub fn look(&self, fd: i32) -> io::Result<Option<Held>> {
        let fd = match pidfd_getfd(&self.0, fd, PidfdGetfdFlags::empty()) {
            Ok(fd) => File::from(fd),
            // It was closed meanwhile.
            Err(rustix::io::Errno::BADF) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let metadata = fd.metadata()?;
        if metadata.mode() & libc::S_IFMT != libc::S_IFSOCK {
            return Ok(None);
        }
        let family = option(&fd, libc::SO_DOMAIN)?;
        let kind = option(&fd, libc::SO_TYPE)?;
        let is_inet = matches!(family, libc::AF_INET | libc::AF_INET6);
        if is_inet && kind == libc::SOCK_STREAM {
            do_not_linger(&fd)?;
        }
        let netns = if is_inet { Some(namespace(&fd)?) } else { None };
        Ok(Some(Held {
            inode: metadata.ino(),
            family,
            kind,
            protocol: option(&fd, libc::SO_PROTOCOL)?,
            netns,
        }))
    }
}

/// Whether two threads have the same table of descriptors. Not known is no.
pub fn share_files(one: u32, other: u32) -> bool {
    // SAFETY: two numbers of threads, and nothing that is written to.
    let compared = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    compared == 0
}

fn option(fd: &File, name: libc::c_int) -> io::Result<i32> {
    let mut value = 0_i32;
    let mut length: libc::socklen_t = 4;
    // SAFETY: the kernel writes at most as many bytes as an integer has.
    let got = unsafe {
        libc::getsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, name, (&raw mut value).cast(), &raw mut length)
    };
    if got == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

/// Should its holder close it now, then ours is the last one, and closing would wait for
/// as long as the holder has said.
fn do_not_linger(fd: &File) -> io::Result<()> {
    let lingers = nix::sys::socket::getsockopt(fd, nix::sys::socket::sockopt::Linger)?;
    if lingers.l_onoff != 0 {
        let none = libc::linger { l_onoff: 0, l_linger: 0 };
        nix::sys::socket::setsockopt(fd, nix::sys::socket::sockopt::Linger, &none)?;
    }
    Ok(())
}

fn namespace(fd: &File) -> io::Result<File> {
    // SAFETY: it takes no argument and returns a descriptor that nobody else has.
    unsafe {
        let netns = libc::ioctl(fd.as_raw_fd(), SIOCGSKNS);
        if netns < 0 { Err(io::Error::last_os_error()) } else { Ok(File::from_raw_fd(netns)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_its_holder_and_number_and_a_file_is_none() {
        let own = std::process::id();
        let holder = Holder::of(own, own).unwrap();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let held = holder.look(socket.as_raw_fd()).unwrap().unwrap();
        assert_eq!(
            (held.family, held.kind, held.protocol),
            (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDP)
        );
        let here = std::fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        assert_eq!(held.netns.unwrap().metadata().unwrap().ino(), here);
        let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
        assert_eq!(held.inode, std::fs::metadata(path).unwrap().ino());
        let (local, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let held = holder.look(local.as_raw_fd()).unwrap().unwrap();
        assert!(held.family == libc::AF_UNIX && held.netns.is_none());
        let file = File::open("/proc/self/stat").unwrap();
        assert!(holder.look(file.as_raw_fd()).unwrap().is_none());
        assert!(holder.look(i32::MAX).unwrap().is_none());
    }

    #[test]
    fn one_that_lingers_does_not_keep_who_looks() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let long = libc::linger { l_onoff: 1, l_linger: 3600 };
        nix::sys::socket::setsockopt(&stream, nix::sys::socket::sockopt::Linger, &long).unwrap();
        let own = std::process::id();
        Holder::of(own, own).unwrap().look(stream.as_raw_fd()).unwrap().unwrap();
        assert_eq!(
            nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::Linger).unwrap().l_onoff,
            0
        );
    }

    #[test]
    fn threads_share_their_files_unless_they_took_their_own() {
        let own = std::process::id();
        let (told, tell) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            told.send(rustix::thread::gettid()).unwrap();
            wait.recv().unwrap();
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_FILES).unwrap();
            told.send(rustix::thread::gettid()).unwrap();
            wait.recv().ok();
        });
        let number = |pid: Pid| pid.as_raw_nonzero().get().cast_unsigned();
        let id = number(tell.recv().unwrap());
        assert!(share_files(own, id));
        go.send(()).unwrap();
        assert_eq!(number(tell.recv().unwrap()), id);
        assert!(!share_files(own, id));
        drop(go);
        thread.join().unwrap();
        assert!(!share_files(own, id), "who is gone shares nothing");
    }
}
