//! Links of programs to cgroups by bpf(2).
//!
//! aya cannot pin the link of a socket option program, cannot replace the
//! program of a cgroup link, does not say which cgroup one is attached to, and
//! detaches what it drops; all four are needed here.

use std::ffi::CString;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OBJ_PIN: libc::c_int = 6;
const OBJ_GET: libc::c_int = 7;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// Attach types of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    Ingress = 0,
    Egress = 1,
    SockCreate = 2,
    SockOps = 3,
    Bind4 = 8,
    Bind6 = 9,
    Connect4 = 10,
    Connect6 = 11,
    Sendmsg4 = 14,
    Sendmsg6 = 15,
    Recvmsg4 = 19,
    Recvmsg6 = 20,
    Getsockopt = 21,
    Setsockopt = 22,
    Getpeername4 = 29,
    Getpeername6 = 30,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct LinkInfo {
    pub kind: u32,
    pub id: u32,
    pub program: u32,
    reserved: u32,
    /// 0: the cgroup is gone, or the link was detached.
    pub cgroup: u64,
    pub attach_type: u32,
    rest: [u32; 3],
}

#[repr(C)]
struct CreateAttr {
    program: RawFd,
    target: RawFd,
    attach_type: u32,
    /// Always 0: any other value is refused for a link, and links are "multi" anyway.
    flags: u32,
}

#[repr(C)]
struct UpdateAttr {
    link: RawFd,
    program: RawFd,
    flags: u32,
    old_program: u32,
}

#[repr(C)]
struct ObjectAttr {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct InfoAttr {
    fd: RawFd,
    length: u32,
    info: u64,
}

#[repr(C)]
struct DetachAttr {
    link: RawFd,
}

pub fn create(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: AttachType,
) -> io::Result<OwnedFd> {
    let attr = CreateAttr {
        program: program.as_raw_fd(),
        target: cgroup.as_raw_fd(),
        attach_type: attach_type as u32,
        flags: 0,
    };
    let fd = bpf(LINK_CREATE, &attr)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = UpdateAttr { link: link.as_raw_fd(), program: program.as_raw_fd(), flags: 0, old_program: 0 };
    bpf(LINK_UPDATE, &attr).map(drop)
}

pub fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &DetachAttr { link: link.as_raw_fd() }).map(drop)
}

pub fn info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut info = LinkInfo::default();
    let attr = InfoAttr { fd: link.as_raw_fd(), length: size(&info), info: (&raw mut info).addr() as u64 };
    // The address escapes as a number: the kernel writes `length` bytes to it.
    (&raw mut info).expose_provenance();
    bpf(OBJ_GET_INFO_BY_FD, &attr)?;
    // SAFETY: initialised, and rewritten behind the compiler's back.
    Ok(unsafe { std::ptr::read_volatile(&raw const info) })
}

pub fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let attr = ObjectAttr {
        path: path.as_ptr().expose_provenance() as u64,
        fd: object.as_raw_fd().cast_unsigned(),
        flags: 0,
    };
    bpf(OBJ_PIN, &attr).map(drop)
}

/// The link that is pinned at `path`.
pub fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attr = ObjectAttr { path: path.as_ptr().expose_provenance() as u64, fd: 0, flags: 0 };
    let fd = bpf(OBJ_GET, &attr)?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is wrong with a pinned link that has to join this program and this cgroup, in words.
pub fn problem(pin: &Path, cgroup: u64, program: u32) -> Option<String> {
    let info = match pinned(pin).and_then(|link| info(link.as_fd())) {
        Ok(info) => info,
        Err(e) => return Some(format!("the pin cannot be read: {e}")),
    };
    if info.cgroup == 0 {
        return Some("detached: its cgroup is gone, or somebody detached it".to_owned());
    }
    if info.cgroup != cgroup {
        return Some(format!("attached to cgroup {}, not {cgroup}", info.cgroup));
    }
    if info.program != program {
        return Some(format!("runs program {}, not {program}", info.program));
    }
    None
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn size<T>(_: &T) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the structure of this command; the kernel reads its size and takes the rest as 0.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size(attr)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
