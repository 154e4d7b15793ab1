//! What a bound process does to others, to itself, and to the kernel.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_LOCAL_STORAGE_GET_F_CREATE, bpf_map_type, task_struct};
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_current_task_btf, bpf_task_storage_get};
use aya_ebpf::macros::{btf_map, lsm};
use aya_ebpf::programs::LsmContext;
use enforcer_common::{Hook, Reason, capability_refused, cfg};

use super::super::maps::{self, CFG};
use super::super::tag::{self, Who};
use super::{ALLOW, DENY, bound, copied, denied, is_within, number, offset, pointer};

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
/// Of an access that is asked for without a report.
const PTRACE_NO_AUDIT: u32 = 4;
const CAPABILITY_NO_AUDIT: u32 = 2;
/// A map without elements of its own takes this flag.
const NO_PREALLOC: usize = 1;

/// Storage of tasks, as the BTF of an object describes it.
#[repr(C)]
struct TaskStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_TASK_STORAGE as usize],
    key: *const i32,
    value: *const u64,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; NO_PREALLOC],
}

// SAFETY: a description, which nobody reads at run time.
unsafe impl Sync for TaskStorage {}

/// 1 for the tasks that are bound; freed by the kernel with them.
#[btf_map]
static BOUND: TaskStorage = TaskStorage {
    r#type: ptr::null(),
    key: ptr::null(),
    value: ptr::null(),
    max_entries: ptr::null(),
    map_flags: ptr::null(),
};

/// The mark of a task; null when there is no memory for it.
#[inline(always)]
fn mark(task: *mut task_struct) -> *mut u64 {
    let map = (&raw const BOUND).cast_mut().cast();
    // SAFETY: the verifier checks the type of both pointers.
    unsafe {
        bpf_task_storage_get(map, task, ptr::null_mut(), u64::from(BPF_LOCAL_STORAGE_GET_F_CREATE)).cast()
    }
}

/// The thread that stands for the process of the current task.
#[inline(always)]
fn leader() -> *mut task_struct {
    // SAFETY: the current task, and a field of it.
    unsafe { pointer(bpf_get_current_task_btf().cast(), offset!(task_leader)).cast() }
}

/// Whether the current task is bound. What cannot be known is.
#[inline(always)]
pub fn is_bound() -> bool {
    let mark = mark(leader());
    // SAFETY: not null.
    mark.is_null() || unsafe { *mark } != 0
}

/// Marks a task for as long as it lives.
#[inline(always)]
fn bind(task: *mut task_struct) -> bool {
    let mark = mark(task);
    if mark.is_null() {
        return false;
    }
    // SAFETY: not null.
    unsafe { *mark = 1 };
    true
}

/// Whether a process is one of the workload's own, and bound as it is: who has only been
/// brought into the cgroup, even by the workload, may be anybody.
#[inline(always)]
fn is_own_process(task: *mut task_struct, who: Who) -> bool {
    // SAFETY: an argument of the hook, and a field of it.
    let leader: *mut task_struct = unsafe { pointer(task.cast(), offset!(task_leader)).cast() };
    let map = (&raw const BOUND).cast_mut().cast();
    // SAFETY: the verifier checks the type of both pointers.
    let mark: *const u64 = unsafe { bpf_task_storage_get(map, leader, ptr::null_mut(), 0).cast() };
    // SAFETY: not null.
    if mark.is_null() || unsafe { *mark } == 0 {
        return false;
    }
    let task: *const c_void = task.cast();
    let cgroup = copied::<*const c_void>(task, offset!(task_cgroups))
        .and_then(|set| copied::<*const c_void>(set, offset!(css_set_cgroup)));
    cgroup.is_some_and(|cgroup| is_within(cgroup, who))
}

/// A program is started in a tagged cgroup: from here on the process is bound.
#[lsm(hook = "bprm_check_security")]
pub fn lsm_exec(ctx: LsmContext) -> i32 {
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    let bprm: *const c_void = ctx.arg(0);
    if is_executor(bprm) && !is_bound() {
        return ALLOW;
    }
    // Both: of several threads the one that starts the program becomes the leader.
    // SAFETY: the helper takes nothing.
    if bind(unsafe { bpf_get_current_task_btf() }) && bind(leader()) {
        return ALLOW;
    }
    denied(who, Hook::LsmExec, Reason::NoStorage, 0, 0)
}

/// systemd since 255 starts a program of its own in the cgroup of the service, which
/// makes its mounts and then becomes the service. That is one file of the host, whatever
/// others are called, started by process 1, and only by who is not bound yet.
#[inline(always)]
fn is_executor(bprm: *const c_void) -> bool {
    let number = maps::config(cfg::EXECUTOR_INODE);
    if number == 0 || !is_child_of_first() {
        return false;
    }
    let inode = copied::<*const c_void>(bprm, offset!(bprm_file))
        .and_then(|file| copied::<*const c_void>(file, offset!(file_inode)));
    let Some(inode) = inode else { return false };
    let device = copied::<*const c_void>(inode, offset!(inode_super))
        .and_then(|of| copied::<u32>(of, offset!(super_device)));
    copied::<u64>(inode, offset!(inode_number)) == Some(number)
        && device.map(u64::from) == Some(maps::config(cfg::EXECUTOR_DEVICE))
}

/// Whether the current process was started by process 1 of the host, or left to it.
#[inline(always)]
fn is_child_of_first() -> bool {
    // SAFETY: the helper takes nothing.
    let task: *const c_void = unsafe { bpf_get_current_task_btf() }.cast();
    copied::<*const c_void>(task, offset!(task_parent))
        .and_then(|parent| copied::<i32>(parent, offset!(task_tgid)))
        == Some(1)
}

/// The children of who is bound are; and none starts in another cgroup.
#[lsm(hook = "task_alloc")]
pub fn lsm_clone(ctx: LsmContext) -> i32 {
    let who = bound();
    if !who.is_somebody() {
        return ALLOW;
    }
    let (task, flags): (*mut task_struct, u64) = (ctx.arg(0), ctx.arg(1));
    if flags & CLONE_INTO_CGROUP != 0 {
        return denied(who, Hook::LsmClone, Reason::ForeignCgroup, 0, 0);
    }
    if bind(task) {
        return ALLOW;
    }
    denied(who, Hook::LsmClone, Reason::NoStorage, 0, 0)
}

/// Programs, maps and links are nobody's in a job; and this is where the loader learns
/// that the kernel calls these programs at all.
#[lsm(hook = "bpf")]
pub fn lsm_bpf(ctx: LsmContext) -> i32 {
    let who = bound();
    if who.is_somebody() {
        let command: u32 = ctx.arg(0);
        return denied(who, Hook::LsmBpf, Reason::KernelInterface, 0, command);
    }
    if let Some(asked) = CFG.get_ptr_mut(cfg::LSM_PROBE) {
        // SAFETY: an aligned number that only the loader and this set.
        unsafe {
            if *asked != 0 && *asked == bpf_get_current_pid_tgid() >> 32 {
                *asked = 0;
            }
        }
    }
    ALLOW
}

#[lsm(hook = "ptrace_access_check")]
pub fn lsm_ptrace(ctx: LsmContext) -> i32 {
    let who = bound();
    let (child, mode): (*mut task_struct, u32) = (ctx.arg(0), ctx.arg(1));
    if !who.is_somebody() || is_own_process(child, who) {
        return ALLOW;
    }
    if mode & PTRACE_NO_AUDIT != 0 {
        // As ps asks about everybody.
        return DENY;
    }
    denied(who, Hook::LsmPtrace, Reason::ForeignProcess, 0, mode)
}

#[lsm(hook = "task_kill")]
pub fn lsm_kill(ctx: LsmContext) -> i32 {
    let who = bound();
    let (target, signal): (*mut task_struct, u32) = (ctx.arg(0), ctx.arg(2));
    if !who.is_somebody() || is_own_process(target, who) {
        return ALLOW;
    }
    denied(who, Hook::LsmKill, Reason::ForeignProcess, 0, signal)
}

/// Over the host's own user namespace only: what a job does in one of its own stays there.
#[lsm(hook = "capable")]
pub fn lsm_capable(ctx: LsmContext) -> i32 {
    let (userns, capability, options): (*const c_void, u32, u32) = (ctx.arg(1), ctx.arg(2), ctx.arg(3));
    if !capability_refused(capability) {
        return ALLOW;
    }
    // SAFETY: an argument of the hook.
    let level: u32 = unsafe { number(userns, offset!(userns_level)) };
    if level != 0 {
        return ALLOW;
    }
    let who = bound();
    if !who.is_somebody() {
        return ALLOW;
    }
    if options & CAPABILITY_NO_AUDIT != 0 {
        // As for every allocation of memory.
        return DENY;
    }
    denied(who, Hook::LsmCapable, Reason::Capability, 0, capability)
}
