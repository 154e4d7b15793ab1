//! Unix sockets of processes outside: whoever listens there could send on a job's behalf.
//!
//! A socket belongs to the cgroup in which it was made. Those that were handed down (the
//! standard streams of a job may be such) go on talking to whom they are connected to.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use enforcer_common::{Hook, Reason, UNIX_NAME};

use super::super::maps::UNIX_ALLOW;
use super::super::tag::Who;
use super::socket::is_of_cgroup;
use super::{ALLOW, bound, copied, denied, offset};

const AF_UNIX: u32 = 1;
/// Bytes of the family, which stands before the name.
const FAMILY: u32 = 2;

/// Streams and sequenced packets.
#[lsm(hook = "unix_stream_connect")]
pub fn lsm_unix(ctx: LsmContext) -> i32 {
    let who = bound();
    if !who.is_somebody() {
        return ALLOW;
    }
    let listener: *const c_void = ctx.arg(1);
    reaching(who, listener, Hook::LsmUnixStream)
}

/// Datagrams, one by one, and their connect.
#[lsm(hook = "unix_may_send")]
pub fn lsm_unix_send(ctx: LsmContext) -> i32 {
    let who = bound();
    if !who.is_somebody() {
        return ALLOW;
    }
    let (from, to): (*const c_void, *const c_void) = (ctx.arg(0), ctx.arg(1));
    let (Some(from), Some(to)) =
        (copied::<*const c_void>(from, offset!(socket_sk)), copied::<*const c_void>(to, offset!(socket_sk)))
    else {
        return ALLOW;
    };
    let connected = copied::<*const c_void>(from, offset!(unix_peer)) == Some(to);
    if connected && !is_of_cgroup(who, from) {
        return ALLOW;
    }
    reaching(who, to, Hook::LsmUnixSend)
}

#[inline(always)]
fn reaching(who: Who, peer: *const c_void, hook: Hook) -> i32 {
    if is_of_cgroup(who, peer) || is_allowed(peer) {
        return ALLOW;
    }
    denied(who, hook, Reason::ForeignUnix, AF_UNIX, 0)
}

/// By the name that the server gave its socket, which nobody in a job chooses.
#[inline(always)]
fn is_allowed(peer: *const c_void) -> bool {
    let Some(address) = copied::<*const c_void>(peer, offset!(unix_addr)) else { return false };
    let Some(length) = copied::<u32>(address, offset!(unix_address_len)) else { return false };
    if length <= FAMILY || length > FAMILY + UNIX_NAME as u32 {
        return false;
    }
    let mut name = [0_u8; UNIX_NAME];
    // SAFETY: at most as many bytes as the name has; the helper checks the address.
    let done = unsafe {
        bpf_probe_read_kernel(
            name.as_mut_ptr().cast(),
            length - FAMILY,
            address.byte_add((offset!(unix_address_name) + FAMILY) as usize),
        )
    };
    // SAFETY: entries are only replaced whole.
    done == 0 && unsafe { UNIX_ALLOW.get(&name) }.is_some()
}
