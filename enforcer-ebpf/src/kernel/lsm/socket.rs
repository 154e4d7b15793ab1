//! Sockets that the cgroup hooks do not see, or did not see in time.

use core::ffi::c_void;

use aya_ebpf::macros::lsm;
use aya_ebpf::programs::LsmContext;
use enforcer_common::{AF_INET, AF_INET6, Hook, IPPROTO_TCP, IPPROTO_UDP, Reason, family_allowed};

use super::super::maps::storage;
use super::super::tag::{self, Who};
use super::{ALLOW, copied, denied, is_within, offset, pointer};

/// State of a socket that is not connected.
const CLOSED: u8 = 7;

#[lsm(hook = "socket_create")]
pub fn lsm_create(ctx: LsmContext) -> i32 {
    let (family, kind, kernel): (u32, u32, i32) = (ctx.arg(0), ctx.arg(1), ctx.arg(3));
    if family_allowed(family) || kernel != 0 {
        return ALLOW;
    }
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    denied(who, Hook::LsmCreate, Reason::SocketFamily, family, kind)
}

/// Every way of sending but splice and sendfile before Linux 6.5.
#[lsm(hook = "socket_sendmsg")]
pub fn lsm_sendmsg(ctx: LsmContext) -> i32 {
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    sending(who, ctx.arg(0), Hook::LsmSendmsg)
}

/// The connect hooks look after TCP and UDP; sockets of other families may have been
/// made before their process was tagged.
#[lsm(hook = "socket_connect")]
pub fn lsm_connect(ctx: LsmContext) -> i32 {
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    let sk = socket(ctx.arg(0));
    let family = family(sk);
    if sk.is_null() || family_allowed(family) {
        return ALLOW;
    }
    denied(who, Hook::LsmConnect, Reason::SocketFamily, family, 0)
}

/// Whether this process may send by this socket now.
#[inline(always)]
pub fn sending(who: Who, socket_: *const c_void, hook: Hook) -> i32 {
    let sk = socket(socket_);
    if sk.is_null() {
        return ALLOW;
    }
    let family = family(sk);
    if family != AF_INET && family != AF_INET6 {
        if family_allowed(family) {
            return ALLOW;
        }
        return denied(who, hook, Reason::SocketFamily, family, 0);
    }
    if is_own(who, sk) {
        return ALLOW;
    }
    let protocol = u32::from(copied::<u16>(sk, offset!(sock_protocol)).unwrap_or(0));
    let state = copied::<u8>(sk, offset!(sock_state)).unwrap_or(0);
    if state == CLOSED && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) {
        // It names its destination: the connect and sendmsg hooks see that.
        return ALLOW;
    }
    denied(who, hook, Reason::ForeignSocket, family, protocol)
}

/// The socket's inner half, which may be gone.
#[inline(always)]
pub fn socket(socket: *const c_void) -> *mut c_void {
    // SAFETY: an argument of a hook.
    unsafe { pointer(socket, offset!(socket_sk)) }
}

#[inline(always)]
pub fn family(sk: *const c_void) -> u32 {
    copied::<u16>(sk, offset!(sock_family)).map_or(0, u32::from)
}

/// Whether an INET socket is one of this workload: made or taken up under its tag, or
/// accepted by a listener that was.
#[inline(always)]
fn is_own(who: Who, sk: *mut c_void) -> bool {
    // SAFETY: a typed pointer that is not null.
    let noted = tag::noted(unsafe { storage(sk, false) });
    noted.tag == who.tag || is_of_cgroup(who, sk)
}

/// Whether a socket was made in the workload's cgroup.
#[inline(always)]
pub fn is_of_cgroup(who: Who, sk: *const c_void) -> bool {
    copied::<*const c_void>(sk, offset!(sock_cgroup)).is_some_and(|cgroup| is_within(cgroup, who))
}

/// A descriptor that comes by a message, or is taken from another process: no socket of
/// the network, and nothing that could not be opened.
#[lsm(hook = "file_receive")]
pub fn lsm_receive(ctx: LsmContext) -> i32 {
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    let file: *const c_void = ctx.arg(0);
    let Some(socket) = super::file::socket_of(file) else {
        if super::task::is_bound() {
            return super::file::opening(who, file, Hook::LsmReceive);
        }
        return ALLOW;
    };
    let sk: *const c_void = copied(socket, offset!(socket_sk)).unwrap_or(core::ptr::null());
    let family = family(sk);
    let network = family == AF_INET || family == AF_INET6;
    if network && is_of_cgroup(who, sk) || !network && family_allowed(family) {
        return ALLOW;
    }
    denied(who, Hook::LsmReceive, Reason::ForeignSocket, family, 0)
}
