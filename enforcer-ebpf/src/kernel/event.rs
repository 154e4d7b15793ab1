//! Refusals, reported to user space: rate-limited for each tag, and what was
//! not reported is counted.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::helpers::{bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_uid_gid};
use enforcer_common::{
    EVENTS_PER_SECOND, Flow, Hook, RATE_OF_NAMESPACES, Rate, Reason, RefusalRecord, STRANGERS_PER_SECOND,
};

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

/// Who is to be named with a refusal.
struct Process {
    pid: u32,
    uid: u32,
    comm: [u8; 16],
}

/// How many were suppressed since the last report, or nothing when this one is to be.
#[inline(always)]
fn admit(tag: u64, reason: Reason, now: u64) -> Option<u32> {
    let key = if matches!(reason, Reason::NetnsNotServed) { tag | RATE_OF_NAMESPACES } else { tag };
    let Some(rate) = RATE.get_ptr_mut(&key) else {
        // Without an entry nothing is counted, and all is reported.
        return match RATE.insert(&key, &Rate { window: now, count: 1, suppressed: 0 }, 0) {
            Ok(()) | Err(_) => Some(0),
        };
    };
    // SAFETY: values are 8-byte aligned; a race between two CPUs miscounts by one.
    unsafe {
        if now - (*rate).window > SECOND {
            (*rate).window = now;
            (*rate).count = 0;
        }
        let most = if tag == 0 { STRANGERS_PER_SECOND } else { EVENTS_PER_SECOND };
        if (*rate).count >= most {
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
    decided!(what.hook, what.reason, who, what.addr, what.port);
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(suppressed) = admit(who.tag, what.reason, now) else { return };
    let process = Process {
        pid: (bpf_get_current_pid_tgid() >> 32) as u32,
        uid: bpf_get_current_uid_gid() as u32,
        comm: bpf_get_current_comm().unwrap_or([0; 16]),
    };
    submit(who, what, &process, now, suppressed);
}

/// Reports a packet: the current task may be anybody, the socket's storage knows more.
#[inline(always)]
pub fn refuse_packet(who: Who, flow: *const Flow, what: &Refused) {
    decided!(what.hook, what.reason, who, what.addr, what.port);
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(suppressed) = admit(who.tag, what.reason, now) else { return };
    let mut process = Process { pid: 0, uid: 0, comm: [0; 16] };
    if !flow.is_null() {
        // SAFETY: not null, and the verifier knows its size.
        unsafe {
            process.pid = (*flow).pid;
            process.uid = (*flow).uid;
            process.comm = (*flow).comm;
        }
    }
    submit(who, what, &process, now, suppressed);
}

/// A full ring loses the record: the refusal itself has happened all the same.
#[inline(always)]
fn submit(who: Who, what: &Refused, process: &Process, now: u64, suppressed: u32) {
    let Some(mut entry) = EVENTS.reserve::<RefusalRecord>(0) else { return };
    entry.write(RefusalRecord {
        at: now,
        tag: who.tag,
        cgroup: who.cgroup,
        netns: what.netns,
        addr: what.addr,
        pid: process.pid,
        uid: process.uid,
        comm: process.comm,
        port: what.port,
        family: what.family,
        protocol: what.protocol,
        what: what.hook as u16 | (what.reason as u16) << 8,
        detail: what.detail,
        suppressed,
    });
    entry.submit(0);
}
