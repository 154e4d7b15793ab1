//! Socket options: what a tagged process is refused, and the private options by
//! which the enforcer's own processes read flow records without a capability.

use core::ffi::c_void;
use core::mem::size_of;
use core::ptr;

use aya_ebpf::bindings::{BPF_TCP_CLOSE_WAIT, BPF_TCP_ESTABLISHED, BPF_TCP_SYN_RECV, bpf_sock};
use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::cgroup_sockopt;
use aya_ebpf::programs::SockoptContext;
use enforcer_common::{
    AF_INET, DatagramKey, Flow, FlowKey, Hook, IPPROTO_TCP, IPPROTO_UDP, OPT_FLOW, OPT_KEY, Reason,
    SOL_ENFORCER, mapped, option_refused,
};

use super::event::{Refused, refuse};
#[cfg(feature = "log")]
use super::log;
use super::maps::{FLOWS, asked, storage};
use super::tag;

const ALLOW: i32 = 1;
const DENY: i32 = 0;
/// Longer options the kernel shows only in part; left so, it fails the call with EFAULT.
const SHOWN: i32 = 4096;
/// The option is ours: the kernel does not see it, and the call succeeds.
const SWALLOW: i32 = -1;

#[cgroup_sockopt(setsockopt)]
pub fn setsockopt(ctx: SockoptContext) -> i32 {
    let c = ctx.sockopt;
    // SAFETY: fields of the context.
    let (sk, level, name) = unsafe { ((*c).__bindgen_anon_1.sk, (*c).level as u32, (*c).optname as u32) };
    if option_refused(level, name) {
        let mut who = tag::current();
        if !who.is_somebody() {
            // SAFETY: the socket of the context.
            who = tag::noted(unsafe { storage(sk.cast(), false) });
        }
        if who.is_somebody() {
            // SAFETY: fields of the socket of the context.
            let (family, protocol) = unsafe { ((*sk).family, (*sk).protocol) };
            refuse(
                who,
                &Refused {
                    hook: Hook::Setsockopt,
                    reason: Reason::SocketOption,
                    // SAFETY: the context of this program.
                    netns: unsafe { bpf_get_netns_cookie(c.cast()) },
                    addr: [0; 4],
                    port: 0,
                    family: family as u16,
                    protocol: protocol as u16,
                    detail: level << 16 | (name & 0xffff),
                },
            );
            return DENY;
        }
    }
    // SAFETY: fields of the context.
    unsafe {
        if (*c).optlen > SHOWN {
            (*c).optlen = 0;
        }
    }
    ALLOW
}

/// On the enforcer's own cgroup: which datagram's record is wanted.
#[cgroup_sockopt(setsockopt)]
pub fn own_setsockopt(ctx: SockoptContext) -> i32 {
    let c = ctx.sockopt;
    // SAFETY: fields of the context.
    let (sk, level, name) = unsafe { ((*c).__bindgen_anon_1.sk, (*c).level, (*c).optname) };
    if level != SOL_ENFORCER || name != OPT_KEY {
        // SAFETY: fields of the context.
        unsafe {
            if (*c).optlen > SHOWN {
                (*c).optlen = 0;
            }
        }
        return ALLOW;
    }
    // SAFETY: fields of the context; the bound is checked before the value is read.
    let key = unsafe {
        let value = (*c).__bindgen_anon_2.optval.cast::<DatagramKey>();
        if value.add(1).cast::<c_void>() > (*c).__bindgen_anon_3.optval_end {
            return DENY;
        }
        *value
    };
    let key = FlowKey {
        // SAFETY: the context of this program.
        netns: unsafe { bpf_get_netns_cookie(c.cast()) },
        addr: key.addr,
        port: key.port,
        protocol: IPPROTO_UDP,
    };
    // SAFETY: the socket of the context.
    let place = unsafe { asked(sk.cast(), true) };
    if place.is_null() {
        return DENY;
    }
    // SAFETY: not null; the record is copied out of the map at once.
    unsafe {
        match FLOWS.get(&key) {
            Some(flow) => copy(place, flow),
            None => (*place).tag = 0,
        }
        #[cfg(feature = "log")]
        log::given(log::Place::OwnSetsockopt, place, &key);
        (*c).optlen = SWALLOW;
    }
    ALLOW
}

/// On the enforcer's own cgroup: the record of an accepted connection, once, or
/// of the datagram that was asked for.
#[cgroup_sockopt(getsockopt)]
pub fn own_getsockopt(ctx: SockoptContext) -> i32 {
    let c = ctx.sockopt;
    // SAFETY: fields of the context.
    let (sk, level, name) = unsafe { ((*c).__bindgen_anon_1.sk, (*c).level, (*c).optname) };
    if level != SOL_ENFORCER || name != OPT_FLOW {
        // SAFETY: fields of the context.
        unsafe {
            if (*c).optlen > SHOWN {
                (*c).optlen = 0;
            }
        }
        return ALLOW;
    }
    // SAFETY: fields of the context; the bound is checked before the value is written.
    let value = unsafe {
        let value = (*c).__bindgen_anon_2.optval.cast::<Flow>();
        if value.add(1).cast::<c_void>() > (*c).__bindgen_anon_3.optval_end {
            return DENY;
        }
        value
    };
    // SAFETY: a field of the socket of the context.
    if unsafe { (*sk).protocol } == IPPROTO_UDP {
        // SAFETY: the socket of the context.
        let place = unsafe { asked(sk.cast(), false) };
        if place.is_null() {
            return DENY;
        }
        // SAFETY: not null, and the value has room.
        unsafe {
            copy(value, place);
            // A record is given for one question only.
            (*place).tag = 0;
        }
    } else {
        // SAFETY: a field of the socket of the context.
        let state = unsafe { ptr::read_volatile(&raw const (*sk).state) };
        // SAFETY: the socket of the context, and the value has room.
        unsafe { take_record(c.cast(), sk, value, is_alive(state)) };
    }
    // SAFETY: fields of the context.
    unsafe {
        // Volatile: two fields that are written as one, the verifier refuses.
        ptr::write_volatile(&raw mut (*c).optlen, size_of::<Flow>() as i32);
        ptr::write_volatile(&raw mut (*c).retval, 0);
    }
    ALLOW
}

/// A connection that is over can still be accepted, but it has left its port to the
/// next one, which may be another workload's. With Fast Open one is accepted in the
/// first of these states.
#[inline(always)]
fn is_alive(state: u32) -> bool {
    matches!(state, BPF_TCP_SYN_RECV | BPF_TCP_ESTABLISHED | BPF_TCP_CLOSE_WAIT)
}

/// The record of an accepted connection: there is one only once.
///
/// # Safety
/// `sk` is the socket of the context, and `value` has room for a record.
#[inline(always)]
unsafe fn take_record(ctx: *mut c_void, sk: *mut bpf_sock, value: *mut Flow, alive: bool) {
    // SAFETY: by the contract of this function.
    unsafe { (*value).tag = 0 };
    if !alive {
        return;
    }
    let key = peer(ctx, sk);
    // SAFETY: the value has room; the record is copied before it is removed.
    unsafe {
        if let Some(flow) = FLOWS.get(&key) {
            copy(value, flow);
        }
    }
    // A stale entry and a reused port would name the wrong workload. That
    // there is none is the answer for a connection that nobody redirected.
    if FLOWS.remove(&key).is_err() {
        // SAFETY: the value has room.
        unsafe { (*value).tag = 0 };
    }
    // SAFETY: the value has room.
    #[cfg(feature = "log")]
    unsafe {
        log::given(log::Place::OwnGetsockopt, value, &key);
    }
}

/// The other end of an accepted socket.
#[inline(always)]
fn peer(ctx: *mut c_void, sk: *mut bpf_sock) -> FlowKey {
    // SAFETY: fields of the socket of the context, read one by one.
    unsafe {
        // Both are read always: of a choice between the fields the compiler
        // makes a computed pointer, which the verifier refuses.
        let v4 = ptr::read_volatile(&raw const (*sk).dst_ip4);
        let v6 = [
            ptr::read_volatile(&raw const (*sk).dst_ip6[0]),
            ptr::read_volatile(&raw const (*sk).dst_ip6[1]),
            ptr::read_volatile(&raw const (*sk).dst_ip6[2]),
            ptr::read_volatile(&raw const (*sk).dst_ip6[3]),
        ];
        let addr = if (*sk).family == AF_INET { mapped(v4) } else { v6 };
        let port = u16::from_be(ptr::read_volatile(&raw const (*sk).dst_port));
        FlowKey { netns: bpf_get_netns_cookie(ctx), addr, port: u32::from(port), protocol: IPPROTO_TCP }
    }
}

/// Word by word: what the compiler makes of an assignment copies bytes in a loop.
///
/// # Safety
/// Both are valid for a record.
#[inline(always)]
unsafe fn copy(to: *mut Flow, from: *const Flow) {
    let (to, from) = (to.cast::<u64>(), from.cast::<u64>());
    let mut word = 0;
    while word < size_of::<Flow>() / size_of::<u64>() {
        // SAFETY: by the contract of this function; a record is a whole number of words.
        unsafe { ptr::write_volatile(to.add(word), ptr::read_volatile(from.add(word))) };
        word += 1;
    }
}
