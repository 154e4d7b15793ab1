//! Files by which a process leaves its cgroup, or reaches into the kernel.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_sock_from_file;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use enforcer_common::{Hook, Reason};

use super::super::tag::{self, Who};
use super::{ALLOW, bound, copied, denied, is_within, number, offset, pointer};

const BPF: u64 = 0xcafe_4a11;
const CGROUP2: u64 = 0x6367_7270;
const CGROUP1: u64 = 0x0027_e0eb;
const TRACEFS: u64 = 0x7472_6163;
const DEBUGFS: u64 = 0x6462_6720;
/// Of a file's mode: it was opened for writing.
const WRITES: u32 = 2;
/// Of what is asked of a file: to write.
const MAY_WRITE: u32 = 2;
const TYPE: u16 = 0o170_000;
const SOCKET: u16 = 0o140_000;

#[lsm(hook = "file_open")]
pub fn lsm_open(ctx: LsmContext) -> i32 {
    let file: *const c_void = ctx.arg(0);
    // SAFETY: an argument of the hook, and fields behind it.
    let magic: u64 = unsafe {
        let inode = pointer(file, offset!(file_inode));
        number(pointer(inode, offset!(inode_super)), offset!(super_magic))
    };
    // Every file that is opened comes here: what is of no interest leaves at once.
    if !matches!(magic, BPF | CGROUP2 | CGROUP1 | TRACEFS | DEBUGFS) {
        return ALLOW;
    }
    let who = bound();
    if !who.is_somebody() {
        return ALLOW;
    }
    opening(who, file, Hook::LsmOpen)
}

/// Whether a bound process may have this file.
#[inline(always)]
pub fn opening(who: Who, file: *const c_void, hook: Hook) -> i32 {
    let inode: *const c_void = copied(file, offset!(file_inode)).unwrap_or(core::ptr::null());
    let super_: *const c_void = copied(inode, offset!(inode_super)).unwrap_or(core::ptr::null());
    let magic = copied::<u64>(super_, offset!(super_magic)).unwrap_or(0);
    let writes = copied::<u32>(file, offset!(file_mode)).unwrap_or(WRITES) & WRITES != 0;
    match magic {
        BPF => denied(who, hook, Reason::KernelInterface, 0, 0),
        CGROUP1 | TRACEFS | DEBUGFS if writes => denied(who, hook, Reason::KernelInterface, 0, 0),
        CGROUP2 if writes && !is_own_cgroup_file(who, inode) => {
            denied(who, hook, Reason::ForeignCgroup, 0, 0)
        }
        _ => ALLOW,
    }
}

/// Whether a file of cgroup2 is one of the workload's own cgroup or of one below it. By
/// its own a workload could lift what its limits are, but it does not get out.
#[inline(always)]
fn is_own_cgroup_file(who: Who, inode: *const c_void) -> bool {
    let folder = copied::<*const c_void>(inode, offset!(inode_private))
        .and_then(|file| copied::<*const c_void>(file, offset!(kernfs_parent)));
    let cgroup = folder.and_then(|folder| copied::<*const c_void>(folder, offset!(kernfs_priv)));
    cgroup.is_some_and(|cgroup| is_within(cgroup, who))
}

/// The socket behind a file, if it is one.
#[inline(always)]
pub fn socket_of(file: *const c_void) -> Option<*const c_void> {
    let inode: *const c_void = copied(file, offset!(file_inode))?;
    let mode: u16 = copied(inode, offset!(inode_mode))?;
    if mode & TYPE != SOCKET {
        return None;
    }
    copied(file, offset!(file_private))
}

/// splice and sendfile, which before Linux 6.5 send by no other hook. The loader leaves
/// this one out where it is not needed: every read and write comes here.
#[lsm(hook = "file_permission")]
pub fn lsm_write(ctx: LsmContext) -> i32 {
    let (file, mask): (*mut aya_ebpf::bindings::file, u32) = (ctx.arg(0), ctx.arg(1));
    if mask & MAY_WRITE == 0 {
        return ALLOW;
    }
    // SAFETY: an argument of the hook, and a field behind it.
    let mode: u16 = unsafe { number(pointer(file.cast(), offset!(file_inode)), offset!(inode_mode)) };
    if mode & TYPE != SOCKET {
        return ALLOW;
    }
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    // SAFETY: as above.
    let socket = unsafe { bpf_sock_from_file(file) };
    if socket.is_null() {
        return ALLOW;
    }
    super::socket::sending(who, socket.cast(), Hook::LsmWrite)
}

#[lsm(hook = "inode_unlink")]
pub fn lsm_unlink(ctx: LsmContext) -> i32 {
    changing(ctx.arg(0), Hook::LsmUnlink)
}

#[lsm(hook = "inode_rename")]
pub fn lsm_rename(ctx: LsmContext) -> i32 {
    changing(ctx.arg(0), Hook::LsmRename)
}

/// Nothing in a folder of the BPF file system is taken away: with its last pin a program
/// is gone.
#[inline(always)]
fn changing(folder: *const c_void, hook: Hook) -> i32 {
    // SAFETY: an argument of the hook, and a field behind it.
    let magic: u64 = unsafe { number(pointer(folder, offset!(inode_super)), offset!(super_magic)) };
    if magic != BPF {
        return ALLOW;
    }
    let who = bound();
    if !who.is_somebody() {
        return ALLOW;
    }
    denied(who, hook, Reason::KernelInterface, 0, 0)
}
