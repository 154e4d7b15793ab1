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
const PROG_QUERY: libc::c_int = 16;
pub(super) const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;

/// Attach types of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum AttachType {
    Ingress = 0,
    Egress = 1,
    SockCreate = 2,
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
    TcxIngress = 46,
    TcxEgress = 47,
}

impl AttachType {
    /// All that are used.
    pub const ALL: [Self; 15] = [
        Self::Ingress,
        Self::Egress,
        Self::SockCreate,
        Self::Bind4,
        Self::Bind6,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Getsockopt,
        Self::Setsockopt,
        Self::Getpeername4,
        Self::Getpeername6,
    ];
}

/// What the kernel says about a link; of a map, the first two.
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

impl LinkInfo {
    /// Of a link on an interface: its index; 0 if it is gone, or the link was detached.
    /// The kernel has it in the half of the cgroup's id that comes first.
    pub fn interface(&self) -> u32 {
        let bytes = self.cgroup.to_ne_bytes();
        u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

/// On an interface of this thread's network namespace.
#[repr(C)]
struct CreateOnAttr {
    program: RawFd,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u32,
    reserved: u32,
    revision: u64,
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

#[repr(C)]
struct QueryAttr {
    target: RawFd,
    attach_type: u32,
    /// 0: what is attached to this cgroup itself, not what it inherits.
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    reserved: u32,
}

/// The kernel's own limit for one cgroup and one attach type.
const MAX_ATTACHED: usize = 64;

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

/// Before all others there: what they let through has passed this one.
pub fn create_on(program: BorrowedFd<'_>, interface: u32, attach_type: AttachType) -> io::Result<OwnedFd> {
    const BPF_F_BEFORE: u32 = 1 << 3;
    let attr = CreateOnAttr {
        program: program.as_raw_fd(),
        interface,
        attach_type: attach_type as u32,
        flags: BPF_F_BEFORE,
        relative: 0,
        reserved: 0,
        revision: 0,
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

/// The same as [`problem`] for a link on an interface. Interfaces go by themselves: that
/// a link is on none proves nothing.
pub fn problem_on(pin: &Path, interface: u32, program: u32) -> Option<Problem> {
    let info = match pinned(pin).and_then(|link| info(link.as_fd())) {
        Ok(info) => info,
        Err(e) => return Some(Problem::unreadable(&e)),
    };
    if info.interface() != interface {
        let text = "detached: its interface is gone, or somebody detached it".to_owned();
        return Some(Problem { text, certain: false });
    }
    if info.program != program {
        let text = format!("runs program {}, not {program}", info.program);
        return Some(Problem { text, certain: true });
    }
    None
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

/// What is attached to a cgroup, by whomever.
pub struct Attached {
    /// Of the programs.
    pub ids: Vec<u32>,
    /// More may be attached beside them.
    pub multi: bool,
}

pub fn attached(cgroup: BorrowedFd<'_>, attach_type: AttachType) -> io::Result<Attached> {
    const ALLOW_MULTI: u32 = 2;
    let mut ids = [0_u32; MAX_ATTACHED];
    let mut attr = QueryAttr {
        target: cgroup.as_raw_fd(),
        attach_type: attach_type as u32,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(MAX_ATTACHED).unwrap_or(0),
        reserved: 0,
    };
    // The kernel writes to both: their addresses escape as numbers.
    let size = size(&attr);
    // SAFETY: `attr` is the structure of this command, and `ids` has room for as many as it says.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &raw mut attr, size) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are initialised, and rewritten behind the compiler's back.
    let (ids, attr) =
        unsafe { (std::ptr::read_volatile(&raw const ids), std::ptr::read_volatile(&raw const attr)) };
    let ids = ids.into_iter().take(attr.count as usize).collect();
    Ok(Attached { ids, multi: attr.attach_flags & ALLOW_MULTI != 0 })
}

/// What is wrong with a pin that has to be a link of this program to this cgroup.
pub fn problem(pin: &Path, cgroup: u64, program: u32) -> Option<Problem> {
    match pinned(pin).and_then(|link| info(link.as_fd())) {
        Ok(info) => wrong(&info, cgroup, program),
        Err(error) => Some(Problem::unreadable(&error)),
    }
}

/// What is wrong with a link that has to join this program and this cgroup.
pub fn wrong(info: &LinkInfo, cgroup: u64, program: u32) -> Option<Problem> {
    let found = if info.cgroup == 0 {
        "detached: its cgroup is gone, or somebody detached it".to_owned()
    } else if info.cgroup != cgroup {
        format!("attached to cgroup {}, not {cgroup}", info.cgroup)
    } else if info.program != program {
        format!("runs program {}, not {program}", info.program)
    } else {
        return None;
    };
    Some(Problem { text: found, certain: true })
}

/// Something that is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// In words.
    pub text: String,
    /// False: it could not be looked at, which proves nothing.
    pub certain: bool,
}

impl Problem {
    pub fn unreadable(error: &io::Error) -> Self {
        let gone = error.kind() == io::ErrorKind::NotFound;
        let text =
            if gone { "the pin is gone".to_owned() } else { format!("the pin cannot be read: {error}") };
        Self { text, certain: gone }
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn size<T>(_: &T) -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

pub(super) fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<RawFd> {
    // SAFETY: `attr` is the structure of this command; the kernel reads its size and takes the rest as 0.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size(attr)) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
}
