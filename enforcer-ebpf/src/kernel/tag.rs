//! Who is asking: the tag of the current task, of a socket, of a packet.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_get_current_ancestor_cgroup_id, bpf_skb_ancestor_cgroup_id};
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use enforcer_common::{FLOW_MADE, Flow, MAX_LEVEL, cfg};

use super::maps::{CFG, TAGS, config};

/// A workload and the cgroup by which it was recognised.
#[derive(Clone, Copy)]
pub struct Who {
    pub tag: u64,
    pub cgroup: u64,
}

impl Who {
    pub const NOBODY: Self = Self { tag: 0, cgroup: 0 };

    #[inline(always)]
    pub fn is_somebody(self) -> bool {
        self.tag != 0
    }
}

macro_rules! search {
    ($id_at:expr) => {{
        let levels = config(cfg::LEVELS);
        let mut found = Who::NOBODY;
        let mut level = MAX_LEVEL + 1;
        // From the inside out: a job that is known counts more than the scope that it
        // runs in. Bounded, so that the verifier of 6.1 follows it.
        while level > 0 {
            level -= 1;
            if levels & (1 << level) != 0 {
                // 0 at a level below the task's own.
                let id: u64 = $id_at(level as i32);
                // SAFETY: entries are only replaced whole, by the loader.
                if id != 0
                    && let Some(tag) = unsafe { TAGS.get(&id) }
                {
                    found = Who { tag: tag.id, cgroup: id };
                    break;
                }
            }
        }
        found
    }};
}

/// The tag of the current task: the innermost tagged cgroup that it is in.
#[inline(always)]
pub fn current() -> Who {
    // SAFETY: the helper takes a number and returns one.
    search!(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

/// The tag of the cgroup to which the socket of a packet belongs.
#[inline(always)]
pub fn of_packet(skb: *mut __sk_buff) -> Who {
    // SAFETY: `skb` is the context of the program.
    search!(|level| unsafe { bpf_skb_ancestor_cgroup_id(skb, level) })
}

/// The tag that was noted in a socket, if it is still in force: what a
/// released workload left behind is free.
#[inline(always)]
pub fn noted(flow: *const Flow) -> Who {
    if flow.is_null() {
        return Who::NOBODY;
    }
    // SAFETY: not null, and the verifier knows its size.
    let (tag, cgroup) = unsafe { ((*flow).tag, (*flow).cgroup) };
    if tag == 0 {
        return Who::NOBODY;
    }
    // SAFETY: as in `search`.
    match unsafe { TAGS.get(&cgroup) } {
        Some(entry) if entry.id == tag => Who { tag, cgroup },
        _ => Who::NOBODY,
    }
}

/// Whether the current task is one of the enforcer's own processes.
#[inline(always)]
pub fn is_own() -> bool {
    let id = config(cfg::OWN_ID);
    // SAFETY: the helper takes a number and returns one.
    id != 0 && id == unsafe { bpf_get_current_ancestor_cgroup_id(config(cfg::OWN_LEVEL) as i32) }
}

/// Notes in a new socket who has made it.
///
/// # Safety
/// `flow` is the storage of a socket and not null.
#[inline(always)]
pub unsafe fn stamp_made(flow: *mut Flow, who: Who) {
    // SAFETY: by the contract of this function.
    unsafe {
        stamp(flow, who);
        (*flow).flags = FLOW_MADE;
    }
}

/// Notes in a socket who uses it now, and forgets where it wanted to go before.
///
/// # Safety
/// `flow` is the storage of a socket and not null.
#[inline(always)]
pub unsafe fn stamp_used(flow: *mut Flow, who: Who) {
    // SAFETY: by the contract of this function.
    unsafe {
        // Made by nobody, or in another cgroup, which may not be tagged any more.
        let made = if (*flow).cgroup == who.cgroup { (*flow).flags & FLOW_MADE } else { 0 };
        if made == 0
            && let Some(none) = CFG.get_ptr_mut(cfg::NO_FOREIGN)
        {
            *none = 0;
        }
        stamp(flow, who);
        (*flow).flags = made;
    }
}

/// # Safety
/// `flow` is the storage of a socket and not null.
#[inline(always)]
unsafe fn stamp(flow: *mut Flow, who: Who) {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let uid = bpf_get_current_uid_gid() as u32;
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    // SAFETY: by the contract of this function.
    unsafe {
        (*flow).tag = who.tag;
        (*flow).cgroup = who.cgroup;
        (*flow).pid = pid;
        (*flow).uid = uid;
        (*flow).comm = comm;
    }
}
