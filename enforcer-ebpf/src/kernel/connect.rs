//! connect and sendmsg: TCP goes to the proxy, DNS to the resolver, and the
//! rest of a tagged process's datagrams nowhere.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::cgroup_sock_addr;
use aya_ebpf::programs::SockAddrContext;
use enforcer_common::{
    AF_INET6, DNS_PORT, FLOW_REDIRECTED, Hook, IPPROTO_TCP, IPPROTO_UDP, NETNS_NO_IPV6, Reason, SOCK_DGRAM,
    SOCK_STREAM, cfg, is_loopback, is_mapped, mapped, specified_loopback,
};

use super::addr::{Address, LOOPBACK4, LOOPBACK6, receiver, tag_of_listener};
use super::event::{Refused, refuse};
#[cfg(feature = "log")]
use super::log::Word;
use super::maps::{NETNS, config, storage};
use super::tag::{self, Who};

const ALLOW: i32 = 1;
const DENY: i32 = 0;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    connect(Address::new(ctx.sock_addr, false), Hook::Connect4)
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    connect(Address::new(ctx.sock_addr, true), Hook::Connect6)
}

#[cgroup_sock_addr(sendmsg4)]
pub fn sendmsg4(ctx: SockAddrContext) -> i32 {
    sendmsg(Address::new(ctx.sock_addr, false), Hook::Sendmsg4)
}

#[cgroup_sock_addr(sendmsg6)]
pub fn sendmsg6(ctx: SockAddrContext) -> i32 {
    sendmsg(Address::new(ctx.sock_addr, true), Hook::Sendmsg6)
}

/// The task decides; a socket that a tagged task has used stays tagged in other hands.
#[inline(always)]
fn asker(address: &Address) -> Who {
    let current = tag::current();
    if current.is_somebody() {
        return current;
    }
    // SAFETY: the socket of the context.
    tag::noted(unsafe { storage(address.sk(), false) })
}

#[inline(always)]
fn refused(address: &Address, hook: Hook, reason: Reason, who: Who) -> i32 {
    refuse(
        who,
        &Refused {
            hook,
            reason,
            netns: address.netns(),
            addr: address.get(),
            port: address.port(),
            family: address.family() as u16,
            protocol: address.protocol() as u16,
            detail: address.kind(),
        },
    );
    DENY
}

#[inline(always)]
fn connect(address: Address, hook: Hook) -> i32 {
    let who = asker(&address);
    if !who.is_somebody() {
        return untagged(&address, hook);
    }
    let tcp = match (address.kind(), address.protocol()) {
        (SOCK_STREAM, IPPROTO_TCP) => true,
        (SOCK_DGRAM, IPPROTO_UDP) => false,
        _ => return refused(&address, hook, Reason::SocketType, who),
    };
    if config(cfg::MODE) == cfg::MODE_DENY {
        return refused(&address, hook, Reason::DenyMode, who);
    }
    if tcp || address.port() == DNS_PORT {
        return match try_redirect(&address, hook, who, tcp) {
            Ok(()) => ALLOW,
            Err(reason) => refused(&address, hook, reason, who),
        };
    }
    // A UDP socket that is connected elsewhere cannot send: the packet hooks see
    // to it. The call itself succeeds, because resolvers probe for source
    // addresses in this way; on loopback nothing is probed.
    let addr = address.get();
    if is_loopback(&addr) && tag_of_listener(address.raw(), false, &addr, address.port()) != who.tag {
        return refused(&address, hook, Reason::LoopbackUdp, who);
    }
    match direct(&address, hook, who) {
        Ok(()) => ALLOW,
        Err(reason) => refused(&address, hook, reason, who),
    }
}

#[inline(always)]
fn sendmsg(address: Address, hook: Hook) -> i32 {
    let who = asker(&address);
    if !who.is_somebody() {
        return untagged(&address, hook);
    }
    if config(cfg::MODE) == cfg::MODE_DENY {
        return refused(&address, hook, Reason::DenyMode, who);
    }
    if address.kind() != SOCK_DGRAM || address.protocol() != IPPROTO_UDP {
        return refused(&address, hook, Reason::SocketType, who);
    }
    let port = address.port();
    if port == DNS_PORT {
        return match try_redirect(&address, hook, who, false) {
            Ok(()) => ALLOW,
            Err(reason) => refused(&address, hook, reason, who),
        };
    }
    let addr = address.get();
    if is_loopback(&addr) {
        if resends_redirected(&address, &addr, port) {
            decided!(hook, Word::Redirected, who, addr, port);
            return ALLOW;
        }
        if tag_of_listener(address.raw(), false, &addr, port) == who.tag {
            return match direct(&address, hook, who) {
                Ok(()) => ALLOW,
                Err(reason) => refused(&address, hook, reason, who),
            };
        }
        return refused(&address, hook, Reason::LoopbackUdp, who);
    }
    refused(&address, hook, Reason::Udp, who)
}

/// Everybody else goes where they like, but not to our listeners: a record that
/// a workload left there could be taken for theirs.
#[inline(always)]
fn untagged(address: &Address, hook: Hook) -> i32 {
    // Most go elsewhere: what costs more is looked up for the others only.
    if !is_loopback(&address.get()) {
        return ALLOW;
    }
    let port = address.port();
    // SAFETY: entries are only replaced whole.
    let ours = match unsafe { NETNS.get(&address.netns()) } {
        Some(served) => port == served.tcp_port || port == served.dns_port,
        None => false,
    };
    if !ours || tag::is_own() {
        return ALLOW;
    }
    refused(address, hook, Reason::EnforcerPort, Who::NOBODY)
}

/// A connected socket of IPv6 with a mapped destination comes here on every
/// send, with the address that connect6 has already rewritten.
#[inline(always)]
fn resends_redirected(address: &Address, addr: &[u32; 4], port: u16) -> bool {
    if address.family() != AF_INET6 || !is_mapped(addr) || addr[3] != LOOPBACK4 {
        return false;
    }
    // SAFETY: the socket of the context.
    let flow = unsafe { storage(address.sk(), false) };
    if flow.is_null() {
        return false;
    }
    // SAFETY: not null; entries are only replaced whole.
    unsafe {
        (*flow).flags & FLOW_REDIRECTED != 0
            && NETNS.get(&address.netns()).is_some_and(|served| served.dns_port == port)
    }
}

/// Notes where the socket wanted to go and rewrites the address.
#[inline(always)]
fn try_redirect(address: &Address, hook: Hook, who: Who, tcp: bool) -> Result<(), Reason> {
    let addr = address.get();
    let port = address.port();
    if tcp && is_loopback(&addr) && tag_of_listener(address.raw(), true, &addr, port) == who.tag {
        // What the kernel makes of the unspecified address depends on where the
        // socket is bound: it may be somebody else's listener than the one above.
        address.set(&specified_loopback(&addr));
        return direct(address, hook, who);
    }
    let netns = address.netns();
    // SAFETY: entries are only replaced whole.
    let served = unsafe { NETNS.get(&netns) }.ok_or(Reason::NetnsNotServed)?;
    let over_ipv4 = is_mapped(&addr);
    if !over_ipv4 && served.flags & NETNS_NO_IPV6 != 0 {
        return Err(Reason::NoIpv6);
    }
    let listener = if tcp { served.tcp_port } else { served.dns_port };
    let to = if over_ipv4 { mapped(LOOPBACK4) } else { LOOPBACK6 };
    // Nobody there is a refused connection. Somebody else has taken the port where
    // bind(2) does not see it: before we came, or by the kernel's choice of a port.
    if receiver(address.raw(), tcp, &to, listener).is_some_and(|it| !it.own) {
        return Err(Reason::EnforcerPort);
    }
    // SAFETY: the socket of the context.
    let flow = unsafe { storage(address.sk(), true) };
    if flow.is_null() {
        return Err(Reason::NoStorage);
    }
    // SAFETY: not null; connect holds the lock of a TCP socket.
    unsafe {
        tag::stamp_used(flow, who);
        (*flow).cookie = bpf_get_socket_cookie(address.raw());
        (*flow).netns = netns;
        (*flow).addr = addr;
        (*flow).port = port;
        (*flow).family = address.family() as u16;
        (*flow).protocol = address.protocol() as u16;
        (*flow).flags |= FLOW_REDIRECTED;
    }
    address.set(&to);
    address.set_port(listener);
    decided!(hook, Word::Redirected, who, addr, port);
    Ok(())
}

/// The address stays as it is, but the socket is this workload's from now on.
#[cfg_attr(not(feature = "log"), allow(unused_variables, reason = "only the log names the hook"))]
#[inline(always)]
fn direct(address: &Address, hook: Hook, who: Who) -> Result<(), Reason> {
    // SAFETY: the socket of the context.
    let flow = unsafe { storage(address.sk(), true) };
    if flow.is_null() {
        return Err(Reason::NoStorage);
    }
    // SAFETY: not null.
    unsafe { tag::stamp_used(flow, who) };
    decided!(hook, Word::Direct, who, address.get(), address.port());
    Ok(())
}
