//! What a job may not ask the kernel for, by seccomp: sockets that no hook of ours sees
//! (AF_VSOCK reaches the hypervisor), io_uring, which makes sockets behind the back of
//! such a filter, and keys that root would look up outside of the job.
//!
//! The filter is made by hand: it has to know the 32-bit programs of this machine, too,
//! which libraries for this refuse altogether.

use std::io;

/// AF_UNIX, AF_INET, AF_INET6, AF_NETLINK: what is left to the hooks.
const FAMILIES: [u32; 4] = [1, 2, 10, 16];

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0x8000_0000;
/// Offsets in `struct seccomp_data`: the number, the architecture, and the low half of
/// the first argument on a little-endian machine.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST: u32 = 16;

/// The numbers of one of the machine's two instruction sets.
struct Calls {
    architecture: u32,
    socket: u32,
    socketpair: u32,
    request_key: u32,
    /// One call for all of sockets, whose arguments a filter cannot see.
    socketcall: Option<u32>,
    /// Numbers from here on are a third instruction set, which no Debian program uses.
    limit: Option<u32>,
}

const IO_URING_SETUP: u32 = 425;
const SOCKETCALL_SOCKET: u32 = 1;
const SOCKETCALL_SOCKETPAIR: u32 = 8;

#[cfg(target_arch = "x86_64")]
const MACHINE: [Calls; 2] = [
    Calls {
        architecture: 0xc000_003e,
        socket: 41,
        socketpair: 53,
        request_key: 249,
        socketcall: None,
        limit: Some(0x4000_0000),
    },
    Calls {
        architecture: 0x4000_0003,
        socket: 359,
        socketpair: 360,
        request_key: 287,
        socketcall: Some(102),
        limit: None,
    },
];

#[cfg(target_arch = "aarch64")]
const MACHINE: [Calls; 2] = [
    Calls {
        architecture: 0xc000_00b7,
        socket: 198,
        socketpair: 199,
        request_key: 218,
        socketcall: None,
        limit: None,
    },
    Calls {
        architecture: 0x4000_0028,
        socket: 281,
        socketpair: 288,
        request_key: 310,
        socketcall: None,
        limit: None,
    },
];

/// Installs the filter for this process and all that it starts. It needs
/// `no_new_privs`, or CAP_SYS_ADMIN.
pub fn install() -> io::Result<()> {
    crate::net::sys::set_filter(&program())
}

/// The filter: code, two jumps, operand, as `struct sock_filter` has them.
fn program() -> Vec<(u16, u8, u8, u32)> {
    let mut code = vec![(LOAD, 0, 0, ARCHITECTURE)];
    for calls in &MACHINE {
        let part = part(calls);
        // Past this part, if the program is of another kind.
        let length = u8::try_from(part.len()).unwrap_or(u8::MAX);
        code.push((EQUAL, 0, length, calls.architecture));
        code.extend(part);
    }
    code.push((RETURN, 0, 0, KILL));
    code
}

fn part(calls: &Calls) -> Vec<(u16, u8, u8, u32)> {
    let refuse = |errno: i32| (RETURN, 0, 0, ERRNO | errno.cast_unsigned());
    let mut code = vec![(LOAD, 0, 0, NUMBER)];
    if let Some(limit) = calls.limit {
        code.extend([(AT_LEAST, 0, 1, limit), refuse(libc::ENOSYS)]);
    }
    for number in [IO_URING_SETUP, calls.request_key] {
        code.extend([(EQUAL, 0, 1, number), refuse(libc::EPERM)]);
    }
    if let Some(number) = calls.socketcall {
        code.extend([
            (EQUAL, 0, 5, number),
            (LOAD, 0, 0, FIRST),
            (EQUAL, 1, 0, SOCKETCALL_SOCKET),
            (EQUAL, 0, 1, SOCKETCALL_SOCKETPAIR),
            refuse(libc::EPERM),
            (RETURN, 0, 0, ALLOW),
        ]);
    }
    code.extend([
        (EQUAL, 2, 0, calls.socket),
        (EQUAL, 1, 0, calls.socketpair),
        (RETURN, 0, 0, ALLOW),
        (LOAD, 0, 0, FIRST),
    ]);
    for (number, family) in FAMILIES.iter().enumerate() {
        // Over the other families and the refusal.
        let over = u8::try_from(FAMILIES.len() - number).unwrap_or(u8::MAX);
        code.push((EQUAL, over, 0, *family));
    }
    code.extend([refuse(libc::EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]);
    code
}
