//! Processes outside of the job: they lend a hand, or are abused.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};

use super::{PATIENCE, PAYLOAD, check, connect, raw, raw_address, send, socket, talk};

/// What a relay passes on, it sends as a datagram.
fn pass_on(to: SocketAddr, bytes: &[u8]) -> io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    UdpSocket::bind(any)?.send_to(bytes, to).map(drop)
}

fn pass_on_from(mut stream: impl Read, to: SocketAddr) -> io::Result<()> {
    let mut bytes = [0; PAYLOAD.len()];
    stream.read_exact(&mut bytes)?;
    pass_on(to, &bytes)
}

/// `relay-KIND PEER WHERE`: serves until it is killed.
pub fn relay(kind: &str, to: SocketAddr, at: &str) -> io::Result<String> {
    let ready = || println!("ready {}", std::process::id());
    match kind {
        "relay-unix" | "relay-abstract" => {
            // What an earlier one left.
            drop(std::fs::remove_file(at));
            let listener = UnixListener::bind_addr(&unix(kind.ends_with("abstract"), at)?)?;
            if kind == "relay-unix" {
                use std::os::unix::fs::PermissionsExt;
                std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o777))?;
            }
            ready();
            for mut stream in listener.incoming().flatten() {
                // Who goes away without a word is no reason to end.
                if pass_on_from(&stream, to).is_ok() {
                    drop(stream.write_all(b"R"));
                }
            }
        }
        "relay-tcp" => {
            let listener = TcpListener::bind(at)?;
            ready();
            for mut stream in listener.incoming().flatten() {
                if pass_on_from(&stream, to).is_ok() {
                    drop(stream.write_all(b"R"));
                }
            }
        }
        "relay-udp" => {
            let socket = UdpSocket::bind(at)?;
            ready();
            let mut bytes = [0; 64];
            loop {
                let (length, from) = socket.recv_from(&mut bytes)?;
                if pass_on(to, &bytes[..length]).is_ok() {
                    drop(socket.send_to(b"R", from));
                }
            }
        }
        "relay-vsock" => {
            let fd = raw::family(libc::AF_VSOCK, libc::SOCK_STREAM, 0)?;
            let address = raw::vsock_address(u32::MAX, at.parse().unwrap());
            let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
            // SAFETY: an address of that length.
            check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) })?;
            nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(8)?)?;
            ready();
            loop {
                let accepted = nix::sys::socket::accept(fd.as_raw_fd())?;
                // SAFETY: a new descriptor.
                let mut file = unsafe { <std::fs::File as std::os::fd::FromRawFd>::from_raw_fd(accepted) };
                if pass_on_from(&file, to).is_ok() {
                    drop(file.write_all(b"R"));
                }
            }
        }
        other => panic!("no relay {other}"),
    }
    Ok("over".to_owned())
}

fn unix(is_abstract: bool, at: &str) -> io::Result<UnixAddress> {
    if is_abstract { UnixAddress::from_abstract_name(at) } else { UnixAddress::from_pathname(at) }
}

/// `by-KIND WHERE`: the job's side of a relay. The answer says that it has passed it on.
pub fn through(kind: &str, at: &str) -> io::Result<String> {
    let said = |mut stream: Box<dyn ReadWrite>| {
        stream.write_all(PAYLOAD)?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).map(|()| "relayed".to_owned())
    };
    match kind {
        "by-unix" | "by-abstract" => {
            let stream = UnixStream::connect_addr(&unix(kind == "by-abstract", at)?)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            said(Box::new(stream))
        }
        "by-vsock" => said(Box::new(std::fs::File::from(raw::vsock(at.parse().unwrap())?))),
        "by-udp" | "by-udp-connect" => {
            let at: SocketAddr = at.parse().unwrap();
            let socket = UdpSocket::bind(SocketAddr::new(at.ip(), 0))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            if kind == "by-udp" {
                socket.send_to(PAYLOAD, at)?;
            } else {
                socket.connect(at)?;
                socket.send(PAYLOAD)?;
            }
            socket.recv(&mut [0; 1]).map(|_| "relayed".to_owned())
        }
        "by-uring-vsock" => {
            let fd = super::uring::make(libc::AF_VSOCK)?;
            raw::connect_vsock(&fd, at.parse().unwrap())?;
            said(Box::new(std::fs::File::from(fd)))
        }
        other => panic!("no relay {other}"),
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// `victim PEER [user]`: has sockets, a destination and a payload, and waits to be used.
/// Says where everything is.
pub fn victim(to: SocketAddr, user: bool) -> io::Result<String> {
    if user {
        super::level::user()?;
        // As after exec: another process of this user may look into it.
        nix::sys::prctl::set_dumpable(true)?;
    }
    let connected = socket(to, libc::SOCK_STREAM, 0)?;
    connect(&connected, to)?;
    let fresh = socket(to, libc::SOCK_STREAM, 0)?;
    let datagrams = socket(to, libc::SOCK_DGRAM, 0)?;
    let (address, length) = raw_address(to);
    println!(
        "ready {} {} {} {} {} {} {length}",
        std::process::id(),
        connected.as_raw_fd(),
        fresh.as_raw_fd(),
        datagrams.as_raw_fd(),
        PAYLOAD.as_ptr().addr(),
        (&raw const address).addr(),
    );
    // In a system call, and without another thread: that is where a debugger finds it.
    let mut line = [0; 1];
    io::stdin().read_exact(&mut line)?;
    Ok("unharmed".to_owned())
}

/// `steal-connected|steal-fresh PEER PID FD`: a descriptor of another process.
pub fn steal(kind: &str, to: SocketAddr, pid: i32, fd: RawFd) -> io::Result<String> {
    // SAFETY: numbers alone; what comes is a new descriptor.
    let stolen = unsafe {
        let process = check(i32::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)).unwrap())?;
        let got = check(i32::try_from(libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0)).unwrap())?;
        <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(got)
    };
    if kind == "steal-fresh" {
        connect(&stolen, to)?;
        return talk(stolen);
    }
    send(&stolen).map(|()| "sent".to_owned())
}

/// `puppet PEER PID FD PAYLOAD ADDRESS LENGTH`: makes another process send, by ptrace(2).
#[cfg(target_arch = "x86_64")]
pub fn puppet(pid: i32, words: &[u64]) -> io::Result<String> {
    let [fd, payload, address, length] = *words else { panic!("four words") };
    let waited = nix::unistd::Pid::from_raw(pid);
    trace(libc::PTRACE_ATTACH, pid, std::ptr::null_mut())?;
    nix::sys::wait::waitpid(waited, None)?;
    // SAFETY: zero is valid.
    let mut before: libc::user_regs_struct = unsafe { std::mem::zeroed() };
    trace(libc::PTRACE_GETREGS, pid, &raw mut before)?;
    let mut registers = before;
    registers.rax = libc::SYS_sendto.cast_unsigned();
    // It is not the call that was interrupted, so none is to be restarted.
    registers.orig_rax = u64::MAX;
    (registers.rdi, registers.rsi, registers.rdx) = (fd, payload, PAYLOAD.len() as u64);
    (registers.r10, registers.r8, registers.r9) = (0, address, length);
    // The instruction before: `syscall`, two bytes.
    registers.rip = before.rip - 2;
    trace(libc::PTRACE_SETREGS, pid, &raw mut registers)?;
    trace(libc::PTRACE_SINGLESTEP, pid, std::ptr::null_mut())?;
    nix::sys::wait::waitpid(waited, None)?;
    trace(libc::PTRACE_GETREGS, pid, &raw mut registers)?;
    let sent = registers.rax.cast_signed();
    trace(libc::PTRACE_SETREGS, pid, &raw mut before)?;
    trace(libc::PTRACE_DETACH, pid, std::ptr::null_mut())?;
    if sent < 0 {
        return Err(io::Error::from_raw_os_error(i32::try_from(-sent).unwrap()));
    }
    Ok("made it send".to_owned())
}

fn trace(request: libc::c_uint, pid: i32, data: *mut libc::user_regs_struct) -> io::Result<()> {
    let none = std::ptr::null_mut::<u8>();
    // SAFETY: of these requests only those on registers have data, which is of that form.
    check(i32::try_from(unsafe { libc::ptrace(request, pid, none, data) }).unwrap_or(0)).map(drop)
}

/// `take-KIND PEER WHERE`: a socket that somebody hands out there, by SCM_RIGHTS.
pub fn take(kind: &str, to: SocketAddr, at: &str) -> io::Result<String> {
    let taken = super::host::received(UnixStream::connect(at)?.as_fd())?;
    match kind {
        "take-connected" => send(&taken).map(|()| "sent".to_owned()),
        "take-tcp" => connect(&taken, to).and_then(|()| talk(taken)),
        _ => connect(&taken, to).and_then(|()| send(&taken)).map(|()| "sent".to_owned()),
    }
}
