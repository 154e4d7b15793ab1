//! What can be done by io_uring in place of a system call.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::{PAYLOAD, check, message, part, raw_address, socket, talk};

const SENDMSG: u8 = 9;
const CONNECT: u8 = 16;
const SEND: u8 = 26;
const URING_CMD: u8 = 46;
/// The command of a socket that sets an option; since Linux 6.7.
const SOCKET_SETSOCKOPT: u32 = 3;

const SOCKET: u8 = 45;
/// A thread of the kernel submits.
const SETUP_SQPOLL: u32 = 2;
/// A worker of the kernel does it.
const ASYNC: u8 = 1 << 4;
const GET_EVENTS: u32 = 1;
const WAKE_UP: u32 = 2;

/// One entry of the submission queue, by the offsets of `struct io_uring_sqe`.
struct Entry([u8; 64]);

impl Entry {
    fn new(code: u8, socket: &OwnedFd) -> Self {
        let mut entry = Self([0; 64]);
        entry.0[0] = code;
        entry.put(4, &socket.as_raw_fd().to_ne_bytes());
        entry
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn pointer<T>(&mut self, at: usize, to: *const T) {
        self.put(at, &(to.expose_provenance() as u64).to_ne_bytes());
    }
}

/// The two rings of an io_uring, mapped.
struct Uring {
    fd: RawFd,
    sq: *mut u8,
    cq: *mut u8,
    sqes: *mut u8,
    params: [u32; 30],
}

impl Uring {
    fn new() -> io::Result<Self> {
        Self::with(4, 0)
    }

    /// With room for this many entries, and flags of the set-up.
    fn with(entries: u32, flags: u32) -> io::Result<Self> {
        let mut params = [0_u32; 30];
        params[2] = flags;
        // SAFETY: 120 bytes, as the kernel's io_uring_params.
        let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, entries, params.as_mut_ptr()) };
        let fd = check(i32::try_from(fd).unwrap())?;
        let map = |offset: i64, length: usize| {
            // SAFETY: a new mapping of the ring.
            let at = unsafe {
                libc::mmap(
                    std::ptr::null_mut(),
                    length,
                    libc::PROT_READ | libc::PROT_WRITE,
                    libc::MAP_SHARED | libc::MAP_POPULATE,
                    fd,
                    offset,
                )
            };
            if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at.cast::<u8>()) }
        };
        let entries = entries as usize;
        let ring = params[16] as usize + 4 * entries;
        Ok(Self {
            fd,
            sq: map(0, ring)?,
            cq: map(0x800_0000, ring)?,
            sqes: map(0x1000_0000, 64 * entries)?,
            params,
        })
    }

    /// Submits the only entry of a new ring, and waits for what comes of it.
    fn submit(self, entry: &Entry) -> io::Result<i32> {
        // SAFETY: offsets that the kernel gave (params[10..] and params[20..]) within the
        // mappings; what the entry points to is kept by the caller.
        unsafe {
            self.sqes.copy_from_nonoverlapping(entry.0.as_ptr(), entry.0.len());
            let tail = self.sq.add(self.params[11] as usize).cast::<u32>();
            let array = self.sq.add(self.params[16] as usize).cast::<u32>();
            array.write(0);
            tail.write_volatile(tail.read_volatile() + 1);
            let flags = GET_EVENTS | if self.params[2] & SETUP_SQPOLL == 0 { 0 } else { WAKE_UP };
            let entered =
                libc::syscall(libc::SYS_io_uring_enter, self.fd, 1, 1, flags, std::ptr::null::<u8>(), 0);
            check(i32::try_from(entered).unwrap())?;
            let cqes = self.cq.add(self.params[25] as usize);
            let result = cqes.add(8).cast::<i32>().read_volatile();
            if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
        }
    }
}

/// `polled` and `async` say which thread of the kernel does it.
pub fn connect_and_talk(to: SocketAddr, how: &str) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    let (address, length) = raw_address(to);
    let mut entry = Entry::new(CONNECT, &fd);
    if how == "async" {
        entry.0[1] = ASYNC;
    }
    entry.put(8, &u64::from(length).to_ne_bytes());
    entry.pointer(16, &raw const address);
    Uring::with(4, if how == "polled" { SETUP_SQPOLL } else { 0 })?.submit(&entry)?;
    talk(fd)
}

/// A socket that was made without socket(2).
pub fn make(family: i32) -> io::Result<OwnedFd> {
    let mut entry = Entry([0; 64]);
    entry.0[0] = SOCKET;
    entry.put(4, &family.to_ne_bytes());
    entry.put(8, &u64::from(libc::SOCK_STREAM.cast_unsigned()).to_ne_bytes());
    let fd = Uring::new()?.submit(&entry)?;
    // SAFETY: a new descriptor.
    Ok(unsafe { <OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(fd) })
}

pub fn make_and_talk(to: SocketAddr) -> io::Result<String> {
    let fd = make(if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })?;
    super::connect(&fd, to)?;
    talk(fd)
}

/// A SYN with data, by a message.
pub fn fast_open(to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    with_message(&fd, to, |entry| {
        entry.put(28, &libc::MSG_FASTOPEN.to_ne_bytes());
        Uring::new()?.submit(entry)
    })?;
    talk(fd)
}

/// By a socket that is connected.
pub fn send_connected(fd: &OwnedFd) -> io::Result<()> {
    let mut entry = Entry::new(SEND, fd);
    entry.pointer(16, PAYLOAD.as_ptr());
    entry.put(24, &u32::try_from(PAYLOAD.len()).unwrap().to_ne_bytes());
    Uring::new()?.submit(&entry).map(drop)
}

pub fn send_msg(fd: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    with_message(fd, to, |entry| Uring::new()?.submit(entry)).map(drop)
}

/// An entry that sends the payload there, as long as what it points to is kept.
fn with_message<T>(fd: &OwnedFd, to: SocketAddr, submit: impl FnOnce(&mut Entry) -> T) -> T {
    let (mut address, length) = raw_address(to);
    let mut part = part();
    let message = message(&mut address, length, &mut part);
    let mut entry = Entry::new(SENDMSG, fd);
    entry.pointer(16, &raw const message);
    entry.put(24, &1_u32.to_ne_bytes());
    submit(&mut entry)
}

/// Sets one option, and then sends: `device`, `route`, `header`.
pub fn set_options(to: SocketAddr, what: &str) -> io::Result<String> {
    let (level, name, value) = match what {
        "device" => (libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"work0\0".to_vec()),
        "route" => (libc::IPPROTO_IP, libc::IP_OPTIONS, super::source_route()),
        "header" => (libc::IPPROTO_IPV6, libc::IPV6_RTHDR, super::routing_header(4, 0)),
        other => panic!("no option {other}"),
    };
    let fd = socket(to, libc::SOCK_DGRAM, 0)?;
    let mut entry = Entry::new(URING_CMD, &fd);
    entry.put(8, &SOCKET_SETSOCKOPT.to_ne_bytes());
    entry.put(16, &level.to_ne_bytes());
    entry.put(20, &name.to_ne_bytes());
    entry.put(44, &u32::try_from(value.len()).unwrap().to_ne_bytes());
    entry.pointer(48, value.as_ptr());
    Uring::new()?.submit(&entry)?;
    super::send_to(&fd, to, 0)?;
    Ok("set".to_owned())
}

/// Submits datagrams in batches, without end: a single system call makes hundreds.
pub fn flood(to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_DGRAM, 0)?;
    with_message(&fd, to, |entry| again_and_again(entry))
}

fn again_and_again(entry: &Entry) -> io::Result<String> {
    const ENTRIES: u32 = 1024;
    let ring = Uring::with(ENTRIES, 0)?;
    println!("ready");
    // SAFETY: as in `submit`; the completions are taken unread.
    unsafe {
        let tail = ring.sq.add(ring.params[11] as usize).cast::<u32>();
        let array = ring.sq.add(ring.params[16] as usize).cast::<u32>();
        for n in 0..ENTRIES {
            ring.sqes.add(n as usize * 64).copy_from_nonoverlapping(entry.0.as_ptr(), 64);
            array.add(n as usize).write(n);
        }
        let taken = ring.cq.add(ring.params[20] as usize).cast::<u32>();
        let made = ring.cq.add(ring.params[21] as usize).cast::<u32>();
        loop {
            tail.write_volatile(tail.read_volatile().wrapping_add(ENTRIES));
            let none = std::ptr::null::<u8>();
            let entered = libc::syscall(libc::SYS_io_uring_enter, ring.fd, ENTRIES, 0, 0, none, 0);
            check(i32::try_from(entered).unwrap())?;
            taken.write_volatile(made.read_volatile());
        }
    }
}
