//! Attempts that no cgroup hook sees: other families, descriptors of others, leaving the
//! cgroup, and having somebody outside act.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::{PAYLOAD, check, check_size, uring};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// `TUNSETIFF` of linux/if_tun.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
/// `BPF_PROG_GET_NEXT_ID` of linux/bpf.h.
const PROG_GET_NEXT_ID: libc::c_int = 11;

pub fn attempt(args: &[String]) -> io::Result<String> {
    let arg = |index: usize| args.get(index).map(String::as_str).unwrap_or_default();
    let number = |index: usize| arg(index).parse::<i32>().unwrap();
    let path = Path::new(arg(1));
    let done = || "done".to_owned();
    match arg(0) {
        "family" => {
            // SAFETY: plain numbers.
            let fd = check(unsafe { libc::socket(number(1), number(2), number(3)) })?;
            // SAFETY: a new descriptor.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
            Ok("made".to_owned())
        }
        "send" => send(arg(1), &handed()).map(|()| "sent".to_owned()),
        "connected" => {
            let stream = std::net::TcpStream::connect(arg(1))?;
            println!("ready");
            pause();
            send(arg(2), &stream.into()).map(|()| "sent".to_owned())
        }
        "receive" => receive(&handed()),
        "getfd" => pidfd(number(1)).and_then(|process| getfd(&process, number(2))).map(|_| done()),
        "ptrace" => ptrace(number(1)).map(|()| done()),
        "kill" => signal(number(1)).map(|()| done()),
        // Brings somebody into its own cgroup, and then lays hands on him.
        "pull-in" => {
            fs::write(path.join("cgroup.procs"), arg(2))?;
            if arg(3) == "kill" { signal(number(2)) } else { ptrace(number(2)) }.map(|()| done())
        }
        "kill-own" => kill_own().map(|()| done()),
        "move" => fs::write(path.join("cgroup.procs"), "0").map(|()| done()),
        "clone" => clone_into(path).map(|()| done()),
        "bpf" => bpf().map(|()| done()),
        "unlink" => fs::remove_file(path).map(|()| done()),
        "rename" => fs::rename(path, arg(2)).map(|()| done()),
        "open" => File::open(path).map(|_| done()),
        "write-open" => File::options().write(true).open(path).map(|_| done()),
        "mount" => {
            let flags = nix::mount::MsFlags::empty();
            nix::mount::mount(Some("bpf"), path, Some("bpf"), flags, None::<&str>)?;
            Ok(done())
        }
        "tun" => tun().map(|()| done()),
        "stream" => UnixStream::connect_addr(&address(arg(1))?)?.write_all(PAYLOAD).map(|()| done()),
        "datagram" => UnixDatagram::unbound()?.send_to_addr(PAYLOAD, &address(arg(1))?).map(|_| done()),
        "datagram-connected" => {
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address(arg(1))?)?;
            socket.send(PAYLOAD).map(|_| done())
        }
        "unix-own" => unix_own(path).map(|()| done()),
        "prepare" | "pause" | "exec" | "exec-orphan" => start(args),
        "idle" => {
            println!("ready");
            io::stdin().read_to_end(&mut Vec::new()).map(|_| done())
        }
        other => panic!("no technique {other}"),
    }
}

/// Starts a program, or what is attempted next, in one of several ways.
fn start(args: &[String]) -> io::Result<String> {
    let exec = || Err(Command::new(&args[1]).args(&args[2..]).exec());
    match args[0].as_str() {
        "exec" => return exec(),
        // By a process that was left to process 1.
        "exec-orphan" => {
            orphan()?;
            return exec();
        }
        _ => println!("ready"),
    }
    // As who starts a service: one thing that a job may not do, and then a program.
    pause();
    bpf()?;
    println!("ok done");
    if args[0] == "pause" {
        return attempt(&args[1..]);
    }
    pause();
    exec()
}

/// Goes on in a child of process 1, once the parent has ended.
fn orphan() -> io::Result<()> {
    let parent = std::process::id();
    // SAFETY: one thread.
    if check(unsafe { libc::fork() })? != 0 {
        std::process::exit(0);
    }
    while std::os::unix::process::parent_id() == parent {
        std::thread::yield_now();
    }
    Ok(())
}

/// Reads a line, and nothing behind it: what is started later reads on.
fn pause() {
    let mut byte = [0; 1];
    while nix::unistd::read(io::stdin(), &mut byte).is_ok_and(|count| count == 1 && byte[0] != b'\n') {}
}

/// What was handed over as standard input.
fn handed() -> OwnedFd {
    // SAFETY: it is open, and used by nobody else here.
    unsafe { OwnedFd::from_raw_fd(0) }
}

fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

/// Sends the payload by a socket that is connected already.
pub fn send(how: &str, fd: &OwnedFd) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    let (from, length) = (PAYLOAD.as_ptr().cast::<libc::c_void>(), PAYLOAD.len());
    match how {
        // SAFETY: the kernel reads that many bytes.
        "write" => check_size(unsafe { libc::write(raw, from, length) }),
        // SAFETY: as above.
        "send" => check_size(unsafe { libc::send(raw, from, length, 0) }),
        "bind-write" => {
            let any = nix::sys::socket::SockaddrIn::new(0, 0, 0, 0, 0);
            let bound = nix::sys::socket::bind(raw, &any);
            assert!(bound.is_err(), "it is connected, and bound already");
            send("write", fd)
        }
        "sendfile" => {
            let mut file = tempfile::tempfile()?;
            file.write_all(PAYLOAD)?;
            let mut offset = 0;
            // SAFETY: two descriptors and an offset.
            check_size(unsafe { libc::sendfile(raw, file.as_raw_fd(), &raw mut offset, length) })
        }
        "splice" => {
            let (out, into) = nix::unistd::pipe()?;
            nix::unistd::write(&into, PAYLOAD)?;
            let nowhere = std::ptr::null_mut();
            // SAFETY: two descriptors without offsets.
            check_size(unsafe { libc::splice(out.as_raw_fd(), nowhere, raw, nowhere, length, 0) })
        }
        "uring" => uring::send_connected(fd),
        other => panic!("no way {other}"),
    }
}

/// Takes a descriptor from a message, if there is one, and sends by it.
fn receive(from: &OwnedFd) -> io::Result<String> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    let mut byte = [0; 1];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!([i32; 1]);
    let message = recvmsg::<()>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::empty())?;
    if message.flags.contains(MsgFlags::MSG_CTRUNC) {
        return Ok("nothing came".to_owned());
    }
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control
            && let Some(fd) = fds.first()
        {
            // SAFETY: a new descriptor.
            let fd = unsafe { OwnedFd::from_raw_fd(*fd) };
            return send("write", &fd).map(|()| "sent".to_owned());
        }
    }
    Ok("nothing came".to_owned())
}

fn pidfd(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; a new descriptor.
    unsafe {
        let fd = check(i32::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)).unwrap())?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

fn getfd(process: &OwnedFd, number: i32) -> io::Result<OwnedFd> {
    // SAFETY: plain numbers; a new descriptor.
    unsafe {
        let fd = libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0);
        Ok(OwnedFd::from_raw_fd(check(i32::try_from(fd).unwrap())?))
    }
}

fn ptrace(pid: i32) -> io::Result<()> {
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: it is only attached to; the end of this process lets it go.
    let done = unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, none, none) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn signal(pid: i32) -> io::Result<()> {
    // SAFETY: a signal that changes nothing for who is not stopped.
    check(unsafe { libc::kill(pid, libc::SIGCONT) }).map(drop)
}

fn kill_own() -> io::Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args(["lsm", "idle"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()?;
    child.kill()?;
    child.wait().map(drop)
}

fn clone_into(cgroup: &Path) -> io::Result<()> {
    let folder = File::open(cgroup)?;
    // `struct clone_args`: flags first, the signal at the end, the cgroup.
    let mut args = [0_u64; 11];
    args[0] = CLONE_INTO_CGROUP;
    args[4] = libc::SIGCHLD.cast_unsigned().into();
    args[10] = u64::try_from(folder.as_raw_fd()).unwrap();
    // SAFETY: the child ends at once.
    unsafe {
        let child = libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args));
        if child == 0 {
            libc::_exit(0);
        }
        let child = check(i32::try_from(child).unwrap())?;
        check(libc::waitpid(child, std::ptr::null_mut(), 0)).map(drop)
    }
}

fn bpf() -> io::Result<()> {
    let mut attr = [0_u32; 4];
    // SAFETY: the kernel reads and writes the structure, whose size is given.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, PROG_GET_NEXT_ID, attr.as_mut_ptr(), size_of_val(&attr)) };
    check(i32::try_from(done).unwrap()).map(drop)
}

fn tun() -> io::Result<()> {
    let device = File::options().read(true).write(true).open("/dev/net/tun")?;
    // `struct ifreq`: an empty name, and that it is a TUN without headers.
    let mut request = [0_u8; 40];
    request[16..18].copy_from_slice(&0x1001_u16.to_ne_bytes());
    // SAFETY: the kernel reads and writes the structure.
    check(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_mut_ptr()) }).map(drop)
}

/// Talks to servers of its own, by a path and by an abstract name.
fn unix_own(folder: &Path) -> io::Result<()> {
    let path = folder.join("own.sock");
    let listener = UnixListener::bind(&path)?;
    UnixStream::connect(&path)?.write_all(PAYLOAD)?;
    listener.accept()?.0.read_exact(&mut [0; PAYLOAD.len()])?;
    fs::remove_file(&path)?;
    let name = SocketAddr::from_abstract_name(format!("own-{}", std::process::id()))?;
    let there = UnixDatagram::bind_addr(&name)?;
    UnixDatagram::unbound()?.send_to_addr(PAYLOAD, &name)?;
    there.recv(&mut [0; 32]).map(drop)
}
