//! Leaving the cgroup or the namespace, and what root can do to what holds it.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Command;

use enforcer_tests::wait::within;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, recvmsg};

use super::{PATIENCE, PAYLOAD, attempt, check, raw, send_to, socket};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `KIND PEER ARGUMENT...`: the preparation, then a plain attempt.
pub fn run(kind: &str, to: SocketAddr, args: &[String]) -> Option<io::Result<String>> {
    let tcp = || attempt("tcp", Some(to), None);
    let arg = |n: usize| args.get(n).map(String::as_str).unwrap_or_default();
    Some(match kind {
        "move-out" => fs::write(Path::new(arg(0)).join("cgroup.procs"), "0").and_then(|()| tcp()),
        "clone-out" => clone_into(arg(0)).and_then(|child| if child { tcp() } else { Ok("-".to_owned()) }),
        "child-cgroup" => in_child(arg(0)).and_then(|_| tcp()),
        "renamed" => nix::sys::prctl::set_name(c"enforcer").map_err(io::Error::from).and_then(|()| tcp()),
        "memfd" => memfd(to),
        "netns-back" => netns_back().and_then(|()| tcp()),
        "netns-user" => unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)
            .map_err(io::Error::from)
            .and_then(|()| tcp()),
        "macvlan" => macvlan().and_then(|()| udp(to)),
        "macvlan-tcp" => macvlan().and_then(|()| tcp()),
        "tun" => tun(to),
        "program-in-child" => in_child(arg(0)).and_then(|child| rewrite(&child, to)).and_then(|_link| tcp()),
        "program-here" => rewrite(Path::new(arg(0)), to).and_then(|_link| tcp()),
        "detach" => detach(args).and_then(|()| udp(to)),
        "unpin" => unpin(Path::new(arg(0))).and_then(|()| when_gone(to)),
        "untag" => untag(Path::new(arg(0))).and_then(|()| udp(to)),
        "request-key" => request_key(),
        _ => return None,
    })
}

fn udp(to: SocketAddr) -> io::Result<String> {
    send_to(&socket(to, libc::SOCK_DGRAM, 0)?, to, 0).map(|()| "sent".to_owned())
}

/// The kernel lets go of what is unpinned a moment later.
fn when_gone(to: SocketAddr) -> io::Result<String> {
    let mut done = udp(to);
    within(PATIENCE, || {
        if done.is_err() {
            done = udp(to);
        }
        done.is_ok()
    });
    done
}

/// Whether this is the child, which is in that cgroup; the parent waits for it.
fn clone_into(cgroup: &str) -> io::Result<bool> {
    let folder = File::open(cgroup)?;
    // `struct clone_args` up to the cgroup.
    let mut args = [0_u64; 11];
    args[0] = CLONE_INTO_CGROUP;
    args[4] = libc::SIGCHLD.cast_unsigned().into();
    args[10] = folder.as_raw_fd().cast_unsigned().into();
    // SAFETY: as fork, of a process with one thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    let pid = check(i32::try_from(pid).unwrap())?;
    if pid > 0 {
        nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None)?;
        std::process::exit(0);
    }
    Ok(true)
}

fn in_child(cgroup: &str) -> io::Result<std::path::PathBuf> {
    let child = Path::new(cgroup).join(format!("below-{}", std::process::id()));
    fs::create_dir(&child)?;
    fs::write(child.join("cgroup.procs"), "0")?;
    Ok(child)
}

/// The same program from nowhere, under another name.
fn memfd(to: SocketAddr) -> io::Result<String> {
    let copy = rustix::fs::memfd_create("git", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(copy);
    io::copy(&mut File::open("/proc/self/exe")?, &mut file)?;
    let words = ["git", "tcp", &to.to_string()].map(|word| CString::new(word).unwrap());
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    Err(nix::unistd::execv(&path, &words).unwrap_err().into())
}

fn netns_back() -> io::Result<()> {
    let here = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    Ok(setns(here, CloneFlags::CLONE_NEWNET)?)
}

fn ip(words: &str) -> io::Result<()> {
    let done = Command::new("ip").args(words.split(' ')).output()?;
    if done.status.success() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM)) }
}

/// Into a namespace of its own, with a second address on the wire.
fn macvlan() -> io::Result<()> {
    let here = File::open("/proc/self/ns/net")?;
    unshare(CloneFlags::CLONE_NEWNET)?;
    let there = File::open("/proc/self/ns/net")?;
    setns(&here, CloneFlags::CLONE_NEWNET)?;
    // By a thread that is in there: `ip` takes its number.
    let (told, tell) = std::sync::mpsc::channel();
    let (over, end) = std::sync::mpsc::channel::<()>();
    let inside = there.try_clone()?;
    let thread = std::thread::spawn(move || -> io::Result<()> {
        setns(inside, CloneFlags::CLONE_NEWNET)?;
        told.send(nix::unistd::gettid()).unwrap();
        // Nothing ever comes: it is over when the other end is gone.
        end.recv().unwrap_err();
        Ok(())
    });
    let tid = tell.recv().map_err(|_| io::Error::from_raw_os_error(libc::EPERM))?;
    let made = ip(&format!("link add link work0 name away0 netns {tid} type macvlan mode bridge"));
    drop(over);
    thread.join().unwrap()?;
    made?;
    setns(there, CloneFlags::CLONE_NEWNET)?;
    ip("link set lo up")?;
    ip("address add 10.77.0.3/24 dev away0")?;
    ip("link set away0 up")?;
    ip("neigh replace 10.77.0.2 lladdr 02:00:00:00:00:02 dev away0 nud permanent")
}

/// The kernel forwards what comes out of a device of its own.
fn tun(to: SocketAddr) -> io::Result<String> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    const IFF_TUN_NO_PI: u16 = 0x1001;
    let mut device = File::options().read(true).write(true).open("/dev/net/tun")?;
    let mut request = [0_u8; 40];
    request[..6].copy_from_slice(b"enftun");
    request[16..18].copy_from_slice(&IFF_TUN_NO_PI.to_ne_bytes());
    // SAFETY: a request of 40 bytes, as the kernel has it.
    check(unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, request.as_ptr()) })?;
    ip("address add 10.99.0.1/24 dev enftun")?;
    ip("link set enftun up")?;
    fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
    device.write_all(&raw::injected(to))?;
    Ok("sent".to_owned())
}

fn bpf(command: i32, attr: &[u64]) -> io::Result<RawFd> {
    // SAFETY: the words of the command, which the callers know; the kernel reads their size.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    check(i32::try_from(done).unwrap())
}

/// A program at connect that sends everybody to the peer, whatever was decided before.
fn rewrite(cgroup: &Path, to: SocketAddr) -> io::Result<OwnedFd> {
    const PROG_LOAD: i32 = 5;
    const LINK_CREATE: i32 = 28;
    const SOCK_ADDR: u64 = 18;
    const CONNECT4: u64 = 10;
    let (address, port) = raw::words(to);
    let move_to = |register: u64, value: u32| 0xb4 | register << 8 | u64::from(value) << 32;
    // `*(u32 *)(r1 + offset) = r2`
    let store = |offset: u64| 0x63 | 0x21 << 8 | offset << 16;
    let code = [move_to(2, address), store(4), move_to(2, port), store(24), move_to(0, 1), 0x95];
    let mut attr = [0_u64; 9];
    attr[0] = SOCK_ADDR | (code.len() as u64) << 32;
    attr[1] = code.as_ptr().expose_provenance() as u64;
    attr[2] = c"GPL".as_ptr().expose_provenance() as u64;
    // At byte 68: what it is to be attached to.
    attr[8] = CONNECT4 << 32;
    let program = bpf(PROG_LOAD, &attr)?;
    let folder = File::open(cgroup)?;
    let words =
        [u64::from(program.cast_unsigned()) | u64::from(folder.as_raw_fd().cast_unsigned()) << 32, CONNECT4];
    let link = bpf(LINK_CREATE, &words)?;
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(link) })
}

/// Every link to one of these cgroups, by its number.
fn detach(cgroups: &[String]) -> io::Result<()> {
    const NEXT_ID: i32 = 31;
    const FD_BY_ID: i32 = 30;
    const INFO: i32 = 15;
    const DETACH: i32 = 34;
    const OF_CGROUP: u32 = 3;
    let mut words = [0_u64; 2];
    loop {
        match bpf(NEXT_ID, &words) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => drop(other?),
        }
        let id = words[0] >> 32;
        words[0] = id;
        // One may have gone meanwhile.
        let Ok(link) = bpf(FD_BY_ID, &[id, 0]) else { continue };
        // SAFETY: a new descriptor.
        let link = unsafe { OwnedFd::from_raw_fd(link) };
        let mut info = [0_u64; 8];
        let fd = u64::from(link.as_raw_fd().cast_unsigned());
        bpf(INFO, &[fd | 64 << 32, info.as_mut_ptr().expose_provenance() as u64])?;
        // SAFETY: the kernel has written it.
        let info = unsafe { std::ptr::read_volatile(&raw const info) };
        let of_ours = cgroups.iter().any(|cgroup| cgroup.parse() == Ok(info[2]));
        if (info[0] & 0xffff_ffff) as u32 == OF_CGROUP && of_ours {
            bpf(DETACH, &[fd])?;
        }
    }
}

fn unpin(pins: &Path) -> io::Result<()> {
    for entry in fs::read_dir(pins)? {
        let path = entry?.path();
        if path.is_dir() { unpin(&path)? } else { fs::remove_file(path)? }
    }
    Ok(())
}

/// Takes every entry out of the map of tags.
fn untag(map: &Path) -> io::Result<()> {
    const DELETE: i32 = 3;
    const NEXT_KEY: i32 = 4;
    const OBJ_GET: i32 = 7;
    let path = CString::new(map.to_str().unwrap()).unwrap();
    let fd = bpf(OBJ_GET, &[path.as_ptr().expose_provenance() as u64, 0])?;
    let key = Box::new(0_u64);
    let at = (&raw const *key).expose_provenance() as u64;
    while bpf(NEXT_KEY, &[u64::from(fd.cast_unsigned()), 0, at]).is_ok() {
        bpf(DELETE, &[u64::from(fd.cast_unsigned()), at, 0])?;
    }
    drop(key);
    Ok(())
}

/// Asks the kernel for a key that root has to make, outside of every cgroup.
fn request_key() -> io::Result<String> {
    let words = [c"user", c"enforcer:probe", c"none"];
    let [kind, name, info] = words.map(std::ffi::CStr::as_ptr);
    // SAFETY: three strings, and the session keyring.
    let key = unsafe { libc::syscall(libc::SYS_request_key, kind, name, info, -3) };
    check(i32::try_from(key).unwrap_or(0)).map(|_| String::from_utf8_lossy(PAYLOAD).into_owned())
}

/// The descriptor that comes over this Unix socket.
pub fn received(from: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut byte = [0];
    let mut parts = [io::IoSliceMut::new(&mut byte)];
    let mut space = nix::cmsg_space!(RawFd);
    let message =
        recvmsg::<UnixAddr>(from.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let Some(ControlMessageOwned::ScmRights(fds)) = message.cmsgs()?.next() else {
        return Err(io::Error::from_raw_os_error(libc::EPERM));
    };
    // SAFETY: it has just been received.
    Ok(unsafe { OwnedFd::from_raw_fd(fds[0]) })
}
