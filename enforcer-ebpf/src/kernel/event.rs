//! Refusals, reported to user space: rate-limited for each tag, and what was
//! not reported is counted.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use enforcer_common::{EVENTS_PER_SECOND, Flow, Hook, Rate, Reason, RefusalRecord};

use super::maps::{EVENTS, RATE};
use super::tag::Who;

const SECOND: u64 = 1_000_000_000;

/// What was refused.
pub struct Refused {
    pub hook: Hook,
    pub reason: Reason,
    pub netns: u64,
    pub addr: [u32; 4],
    pub port: u16,
    pub family: u16,
    pub protocol: u16,
    pub detail: u32,
}

/// How many were suppressed since the last report, or nothing when this one is to be.
#[inline(always)]
fn admit(tag: u64, now: u64) -> Option<u32> {
    let Some(rate) = RATE.get_ptr_mut(&tag) else {
        // A full map is an LRU map: this does not fail for long.
        if RATE.insert(&tag, &Rate { window: now, count: 1, suppressed: 0 }, 0).is_err() {
            return Some(0);
        }
        return Some(0);
    };
    // SAFETY: values are 8-byte aligned; a race between two CPUs miscounts by one.
    unsafe {
        if now - (*rate).window > SECOND {
            (*rate).window = now;
            (*rate).count = 0;
        }
        if (*rate).count >= EVENTS_PER_SECOND {
            (*rate).suppressed += 1;
            return None;
        }
        (*rate).count += 1;
        let suppressed = (*rate).suppressed;
        (*rate).suppressed = 0;
        Some(suppressed)
    }
}

/// Reports what the current task was refused.
#[inline(always)]
pub fn refuse(who: Who, what: &Refused) {
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(suppressed) = admit(who.tag, now) else { return };
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let uid = bpf_get_current_uid_gid() as u32;
    submit(RefusalRecord {
        at: now,
        tag: who.tag,
        cgroup: who.cgroup,
        netns: what.netns,
        addr: what.addr,
        pid,
        uid,
        comm,
        port: what.port,
        family: what.family,
        protocol: what.protocol,
        what: what.hook as u16 | (what.reason as u16) << 8,
        detail: what.detail,
        suppressed,
    });
}

/// Reports a packet: the current task may be anybody, the socket's storage knows more.
#[inline(always)]
pub fn refuse_packet(who: Who, flow: *const Flow, what: &Refused) {
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(suppressed) = admit(who.tag, now) else { return };
    let (mut pid, mut uid, mut comm) = (0, 0, [0; 16]);
    if !flow.is_null() {
        // SAFETY: not null, and the verifier knows its size.
        unsafe {
            pid = (*flow).pid;
            uid = (*flow).uid;
            comm = (*flow).comm;
        }
    }
    submit(RefusalRecord {
        at: now,
        tag: who.tag,
        cgroup: who.cgroup,
        netns: what.netns,
        addr: what.addr,
        pid,
        uid,
        comm,
        port: what.port,
        family: what.family,
        protocol: what.protocol,
        what: what.hook as u16 | (what.reason as u16) << 8,
        detail: what.detail,
        suppressed,
    });
}

#[inline(always)]
fn submit(record: RefusalRecord) {
    if let Some(mut entry) = EVENTS.reserve::<RefusalRecord>(0) {
        entry.write(record);
        entry.submit(0);
    }
}
