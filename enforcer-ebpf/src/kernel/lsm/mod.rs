//! The second tier: Linux Security Module hooks, where the kernel runs BPF programs there.
//!
//! It closes what the cgroup hooks cannot see: other socket families, connections that
//! were made before their process was tagged, and all the ways in which root leaves its
//! cgroup, takes the programs away, or has somebody outside send.
//!
//! Two kinds of hooks:
//!
//! - What is about the network holds for every process in a tagged cgroup.
//! - The rest holds for those that are *bound*: that have started a program in it, or are
//!   children of one that has. What only came in (a container runtime, or a service manager
//!   before it starts the service) still has to mount, to open logs and to drop privileges.
//!
//! **Invariant**: whoever is bound stays bound, with all its children, and who cannot be
//! marked does not start.
//!
//! The kernel's own structures are read by offsets that the loader found in the kernel's
//! BTF. Where a helper wants a typed pointer it is loaded, and else it is copied.

mod file;
mod socket;
mod task;
mod unix;

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::helpers::bpf_probe_read_kernel;
use enforcer_common::{Hook, MAX_LEVEL, Offsets, Reason};

use super::event::{Refused, refuse};
use super::maps::TAGS;
use super::tag::{self, Who};

/// Filled by the loader before anything is loaded; the kernel then knows it to be constant.
// SAFETY: zeros are a valid value.
#[unsafe(no_mangle)]
static OFFSETS: Offsets = unsafe { core::mem::zeroed() };

/// An offset as the loader has set it.
macro_rules! offset {
    ($name:ident) => {
        $crate::kernel::lsm::set(&$crate::kernel::lsm::OFFSETS.$name)
    };
}
use offset;

/// Volatile, since the compiler sees a zero.
#[inline(always)]
fn set(offset: &'static u32) -> u32 {
    // SAFETY: a reference.
    unsafe { ptr::read_volatile(offset) }
}

const ALLOW: i32 = 0;
/// `-EPERM`.
const DENY: i32 = -1;

/// Who the current task is, if it is bound.
#[inline(always)]
fn bound() -> Who {
    let who = tag::current();
    if who.is_somebody() && task::is_bound() { who } else { Who::NOBODY }
}

/// A field that is a typed pointer: the verifier knows to what.
///
/// # Safety
/// `base` is a typed pointer of the kernel that is not null.
#[inline(always)]
unsafe fn pointer(base: *const c_void, offset: u32) -> *mut c_void {
    // SAFETY: the kernel makes a fault of such a load a zero.
    unsafe { ptr::read_volatile(base.byte_add(offset as usize).cast()) }
}

/// A field that is a number, behind a typed pointer.
///
/// # Safety
/// As for [`pointer`].
#[inline(always)]
unsafe fn number<T: Copy>(base: *const c_void, offset: u32) -> T {
    // SAFETY: as above.
    unsafe { ptr::read_volatile(base.byte_add(offset as usize).cast()) }
}

/// A field behind any address: a copy, or `None` when there is nothing.
#[inline(always)]
fn copied<T>(base: *const c_void, offset: u32) -> Option<T> {
    if base.is_null() {
        return None;
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(base.byte_add(offset as usize).cast::<T>()) }.ok()
}

/// Whether this cgroup of the kernel is the one of the tag, or below it.
#[inline(always)]
fn is_within(cgroup: *const c_void, who: Who) -> bool {
    // SAFETY: entries are only replaced whole.
    let Some(tag) = (unsafe { TAGS.get(&who.cgroup) }) else {
        // It was lifted a moment ago.
        return true;
    };
    let level = tag.level;
    if level > MAX_LEVEL {
        return false;
    }
    let Some(depth) = copied::<u32>(cgroup, offset!(cgroup_level)) else { return false };
    if depth < level {
        return false;
    }
    let Some(ancestor) = copied::<*const c_void>(cgroup, offset!(cgroup_ancestors) + 8 * level) else {
        return false;
    };
    cgroup_id(ancestor) == Some(who.cgroup)
}

#[inline(always)]
fn cgroup_id(cgroup: *const c_void) -> Option<u64> {
    copied(copied(cgroup, offset!(cgroup_kn))?, offset!(kernfs_id))
}

/// Reports the refusal and is its result.
#[inline(always)]
fn denied(who: Who, hook: Hook, reason: Reason, family: u32, detail: u32) -> i32 {
    refuse(
        who,
        &Refused {
            hook,
            reason,
            netns: 0,
            addr: [0; 4],
            port: 0,
            family: family as u16,
            protocol: 0,
            detail,
        },
    );
    DENY
}
