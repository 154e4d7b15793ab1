//! socket and bind: which sockets a tagged process may have, and whose the enforcer's ports are.

use core::ptr;

use aya_ebpf::helpers::generated::bpf_get_netns_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use enforcer_common::{FLOW_OWN, Hook, Reason, socket_allowed};

use super::addr::Address;
use super::event::{Refused, refuse};
#[cfg(feature = "log")]
use super::log::Word;
use super::maps::{NETNS, storage};
use super::tag;

const ALLOW: i32 = 1;
const DENY: i32 = 0;

#[cgroup_sock(sock_create)]
pub fn sock_create(ctx: SockContext) -> i32 {
    let who = tag::current();
    if !who.is_somebody() {
        return ALLOW;
    }
    let sock = ctx.sock;
    // SAFETY: fields of the context.
    let (family, kind, protocol) = unsafe {
        (
            ptr::read_volatile(&raw const (*sock).family),
            ptr::read_volatile(&raw const (*sock).type_),
            ptr::read_volatile(&raw const (*sock).protocol),
        )
    };
    let reason = if socket_allowed(family, kind, protocol) {
        // SAFETY: the socket of the context.
        let flow = unsafe { storage(sock.cast(), true) };
        if !flow.is_null() {
            // SAFETY: not null.
            unsafe { tag::stamp_made(flow, who) };
            decided!(Hook::SockCreate, Word::Allowed, who, [0; 4], 0);
            return ALLOW;
        }
        Reason::NoStorage
    } else {
        Reason::SocketType
    };
    refuse(
        who,
        &Refused {
            hook: Hook::SockCreate,
            reason,
            // SAFETY: the context of this program.
            netns: unsafe { bpf_get_netns_cookie(sock.cast()) },
            addr: [0; 4],
            port: 0,
            family: family as u16,
            protocol: protocol as u16,
            detail: kind,
        },
    );
    DENY
}

#[cgroup_sock_addr(bind4)]
pub fn bind4(ctx: SockAddrContext) -> i32 {
    bind(Address::new(ctx.sock_addr, false), Hook::Bind4)
}

#[cgroup_sock_addr(bind6)]
pub fn bind6(ctx: SockAddrContext) -> i32 {
    bind(Address::new(ctx.sock_addr, true), Hook::Bind6)
}

/// In a served namespace nobody else takes the enforcer's ports, tagged or not:
/// whoever did would be given the traffic of every workload.
#[inline(always)]
fn bind(address: Address, hook: Hook) -> i32 {
    let who = tag::current();
    let port = address.port();
    // SAFETY: entries are only replaced whole.
    let taken = match unsafe { NETNS.get(&address.netns()) } {
        Some(served) => port != 0 && (port == served.tcp_port || port == served.dns_port),
        None => false,
    };
    if taken && !tag::is_own() {
        refuse(
            who,
            &Refused {
                hook,
                reason: Reason::EnforcerPort,
                netns: address.netns(),
                addr: address.get(),
                port,
                family: address.family() as u16,
                protocol: address.protocol() as u16,
                detail: address.kind(),
            },
        );
        return DENY;
    }
    if taken {
        // By this the connect hooks know that it is really ours who listens.
        // SAFETY: the socket of the context.
        let flow = unsafe { storage(address.sk(), true) };
        if flow.is_null() {
            return DENY;
        }
        // SAFETY: not null.
        unsafe { (*flow).flags = FLOW_OWN };
        decided!(hook, Word::Own, who, address.get(), port);
        return ALLOW;
    }
    // One that is connected is not bound any more: the kernel is about to say so.
    if who.is_somebody() && address.is_closed() {
        // A socket made before the tag: from here on the packet hooks know it.
        // SAFETY: the socket of the context.
        let flow = unsafe { storage(address.sk(), true) };
        if flow.is_null() {
            return DENY;
        }
        // SAFETY: not null.
        unsafe { tag::stamp_used(flow, who) };
        decided!(hook, Word::Allowed, who, address.get(), port);
    }
    ALLOW
}
