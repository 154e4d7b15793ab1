//! recvmsg and getpeername: a redirected socket sees the peer that it asked for.

use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::FLOW_REDIRECTED;

use super::addr::{Address, LOOPBACK4, LOOPBACK6};
#[cfg(feature = "log")]
use super::log::{Place, Word};
use super::maps::{NETNS, storage};
#[cfg(feature = "log")]
use super::tag;

/// These programs may not refuse.
const ALLOW: i32 = 1;

#[cgroup_sock_addr(recvmsg4)]
pub fn recvmsg4(ctx: SockAddrContext) -> i32 {
    restore(Address::new(ctx.sock_addr, false), true)
}

#[cgroup_sock_addr(recvmsg6)]
pub fn recvmsg6(ctx: SockAddrContext) -> i32 {
    restore(Address::new(ctx.sock_addr, true), true)
}

#[cgroup_sock_addr(getpeername4)]
pub fn getpeername4(ctx: SockAddrContext) -> i32 {
    restore(Address::new(ctx.sock_addr, false), false)
}

#[cgroup_sock_addr(getpeername6)]
pub fn getpeername6(ctx: SockAddrContext) -> i32 {
    restore(Address::new(ctx.sock_addr, true), false)
}

/// With `resolver` only the answers of our own resolver are renamed: an
/// unconnected socket may get datagrams from others as well.
#[inline(always)]
fn restore(address: Address, resolver: bool) -> i32 {
    // SAFETY: the socket of the context.
    let flow = unsafe { storage(address.sk(), false) };
    if flow.is_null() {
        return ALLOW;
    }
    // SAFETY: not null.
    let (flags, addr, port) = unsafe { ((*flow).flags, (*flow).addr, (*flow).port) };
    if flags & FLOW_REDIRECTED == 0 {
        return ALLOW;
    }
    if resolver {
        let from = address.get();
        let ours = from[3] == LOOPBACK4 || from[3] == LOOPBACK6[3];
        // SAFETY: entries are only replaced whole.
        let dns = unsafe { NETNS.get(&address.netns()) }.map_or(0, |served| served.dns_port);
        if !ours || address.port() != dns {
            return ALLOW;
        }
    }
    address.set(&addr);
    address.set_port(port);
    decided!(
        if resolver { Place::Recvmsg } else { Place::Getpeername },
        Word::Restored,
        tag::noted(flow),
        addr,
        port
    );
    ALLOW
}
