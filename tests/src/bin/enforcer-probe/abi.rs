//! The same calls by the kernel's other doors.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::{PAYLOAD, check, raw_address, socket, talk};

const SYS_SOCKETCALL: u32 = 102;
const X32: i64 = 0x4000_0000;

/// socket(2) and connect(2) as a 32-bit program calls them.
pub fn int80(to: SocketAddr) -> io::Result<String> {
    // SAFETY: a new mapping, below 4 GiB because 32 bits have to name it.
    let low = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        )
    };
    if low == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let (address, length) = raw_address(to);
    let args = low.cast::<u32>();
    let at = u32::try_from(low.addr() + 64).unwrap();
    // SAFETY: the mapping has room for three words, and for an address at 64.
    let fd = unsafe {
        low.add(64).cast::<libc::sockaddr_storage>().write(address);
        args.write(if to.is_ipv4() { 2 } else { 10 });
        args.add(1).write(1);
        args.add(2).write(0);
        call(1, args)?
    };
    // SAFETY: as above; the descriptor is new.
    unsafe {
        args.write(fd.cast_unsigned());
        args.add(1).write(at);
        args.add(2).write(length);
        call(3, args)?;
        talk(OwnedFd::from_raw_fd(fd))
    }
}

/// # Safety
/// `args` are the arguments of this call of socketcall(2), below 4 GiB.
unsafe fn call(number: u32, args: *const u32) -> io::Result<i32> {
    let result: i32;
    // SAFETY: the kernel's 32-bit entry, which keeps all but these registers.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {number:e}", "int 0x80", "pop rbx",
            number = in(reg) number,
            inlateout("eax") SYS_SOCKETCALL => result,
            in("ecx") u32::try_from(args.addr()).unwrap_or(0),
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

/// connect(2) and sendto(2) with the numbers of the x32 ABI.
pub fn x32(to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    let (address, length) = raw_address(to);
    // SAFETY: an address of that length.
    let done = unsafe { libc::syscall(libc::SYS_connect | X32, fd.as_raw_fd(), &raw const address, length) };
    check(i32::try_from(done).unwrap())?;
    let none = std::ptr::null::<u8>();
    // SAFETY: a payload of that length.
    let sent = unsafe {
        libc::syscall(libc::SYS_sendto | X32, fd.as_raw_fd(), PAYLOAD.as_ptr(), PAYLOAD.len(), 0, none, 0)
    };
    check(i32::try_from(sent).unwrap())?;
    talk(fd)
}
