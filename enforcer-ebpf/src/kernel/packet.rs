//! The backstop: nothing of a tagged workload leaves but over loopback, and there
//! no datagram and no connection reaches anybody but the enforcer and the workload
//! itself.
//! Also here, because only here the source port is known: the flow records.

use core::ffi::c_void;

use aya_ebpf::bindings::{
    __sk_buff, BPF_TCP_CLOSE_WAIT, BPF_TCP_CLOSING, BPF_TCP_ESTABLISHED, BPF_TCP_FIN_WAIT1,
    BPF_TCP_FIN_WAIT2, BPF_TCP_LAST_ACK, BPF_TCP_NEW_SYN_RECV, BPF_TCP_TIME_WAIT, bpf_sock_tuple,
};
use aya_ebpf::helpers::generated::{bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_skb_load_bytes};
use aya_ebpf::macros::cgroup_skb;
use aya_ebpf::programs::SkBuffContext;
use enforcer_common::{
    AF_INET, FLOW_REDIRECTED, Flow, FlowKey, Hook, IPPROTO_TCP, IPPROTO_UDP, Reason, cfg, is_mapped, mapped,
};

use super::addr::{LOOPBACK6, Receiver, released};
use super::event::{Refused, refuse_packet};
#[cfg(feature = "log")]
use super::log::Word;
use super::maps::{FLOWS, NETNS, config, storage};
use super::tag::{self, Who};

const PASS: i32 = 1;
const DROP: i32 = 0;
/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;
const CURRENT_NETNS: u64 = u64::MAX;
const NEXT_TCP: u8 = 6;
const NEXT_UDP: u8 = 17;
const SYN: u16 = 2;
const ACK: u16 = 16;

/// On the parent of all jobs: what sockets send that were made there, also packets without
/// a socket of their own making, and sockets that no other hook has seen.
#[cgroup_skb]
pub fn egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let interface = interface(skb);
    let flow = stored(skb);
    let state = state(skb);
    // The first are most packets; the others are the kernel's own at the beginning and the
    // end of a connection.
    if interface == LOOPBACK
        && (is_under_way(state, flow) || matches!(state, BPF_TCP_TIME_WAIT | BPF_TCP_NEW_SYN_RECV))
    {
        return PASS;
    }
    let mut who = tag::noted(flow);
    if !who.is_somebody() {
        who = tag::of_packet(skb);
    }
    leaving(skb, interface, flow, who, Hook::Egress)
}

/// At the root: sockets that a tagged task has used, wherever they belong. Every packet of
/// the host comes here, so that nothing is looked at while workloads have used only what
/// they have made, and the hooks of their own cgroups stand.
#[cgroup_skb]
pub fn root_egress(ctx: SkBuffContext) -> i32 {
    if config(cfg::NO_FOREIGN) != 0 {
        return PASS;
    }
    let skb = ctx.skb.skb;
    let flow = stored(skb);
    if !is_noted(flow) {
        return PASS;
    }
    let interface = interface(skb);
    if interface == LOOPBACK && is_under_way(state(skb), flow) {
        return PASS;
    }
    leaving(skb, interface, flow, tag::noted(flow), Hook::RootEgress)
}

/// On the enforcer's own cgroup: nothing leaves from a loopback address. The kernel lets a
/// socket be bound to an address that the host does not have, and what then arrives over
/// loopback would be answered over the network, by the handshake or by the resolver.
#[cgroup_skb]
pub fn own_egress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    if interface(skb) == LOOPBACK {
        return PASS;
    }
    // SAFETY: the socket of the context, checked before its use; all kinds have these.
    let from_loopback = unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return PASS;
        }
        if (*sk).family == AF_INET {
            u32::from_be((*sk).src_ip4) >> 24 == 127
        } else {
            let word = |index: usize| core::ptr::read_volatile(&raw const (*sk).src_ip6[index]);
            [word(0), word(1), word(2), word(3)] == LOOPBACK6
        }
    };
    if from_loopback { DROP } else { PASS }
}

/// On the parent of all jobs: nobody connects to them from elsewhere.
#[cgroup_skb]
pub fn ingress(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    let interface = interface(skb);
    if interface == LOOPBACK {
        return PASS;
    }
    let who = tag::of_packet(skb);
    if !who.is_somebody() {
        return PASS;
    }
    refuse_packet(who, core::ptr::null(), &about(skb, Hook::Ingress, Reason::Inbound, interface));
    DROP
}

/// The storage of the socket that sends this packet. Of what is no full socket (a
/// handshake or its end, which the kernel sees to) there is none.
#[inline(always)]
fn stored(skb: *mut __sk_buff) -> *mut Flow {
    // SAFETY: the socket of the context; the helper looks whether it is a full one.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() { core::ptr::null_mut() } else { storage(sk.cast(), false) }
    }
}

/// Whether a tagged task has used the socket; its tag may have been lifted since.
#[inline(always)]
fn is_noted(flow: *const Flow) -> bool {
    // SAFETY: not null, and the verifier knows its size.
    !flow.is_null() && unsafe { (*flow).tag } != 0
}

#[inline(always)]
fn is_redirected(flow: *const Flow) -> bool {
    // SAFETY: not null, and the verifier knows its size.
    !flow.is_null() && unsafe { (*flow).flags } & FLOW_REDIRECTED != 0
}

/// Read once in a program: of two places the compiler makes a computed pointer into the
/// context, which the verifier refuses.
#[inline(always)]
fn interface(skb: *mut __sk_buff) -> u32 {
    // SAFETY: a field of the context.
    unsafe { core::ptr::read_volatile(&raw const (*skb).ifindex) }
}

/// The state of the socket that sends this packet; 0 when there is none.
#[inline(always)]
fn state(skb: *mut __sk_buff) -> u32 {
    // SAFETY: the socket of the context, checked before its use; all kinds have a state.
    unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() { 0 } else { core::ptr::read_volatile(&raw const (*sk).state) }
    }
}

/// Whether this is of a connection to the proxy that was opened before: there nothing is
/// to be looked at any more, and most packets are such.
#[inline(always)]
fn is_under_way(state: u32, flow: *const Flow) -> bool {
    if flow.is_null() {
        return false;
    }
    // SAFETY: not null.
    let (flags, protocol) = unsafe { ((*flow).flags, (*flow).protocol) };
    flags & FLOW_REDIRECTED != 0
        && u32::from(protocol) == IPPROTO_TCP
        && matches!(
            state,
            BPF_TCP_ESTABLISHED
                | BPF_TCP_FIN_WAIT1
                | BPF_TCP_FIN_WAIT2
                | BPF_TCP_CLOSE_WAIT
                | BPF_TCP_CLOSING
                | BPF_TCP_LAST_ACK
        )
}

#[inline(always)]
fn leaving(skb: *mut __sk_buff, interface: u32, flow: *mut Flow, who: Who, hook: Hook) -> i32 {
    if !who.is_somebody() {
        return if interface == LOOPBACK && is_redirected(flow) { unclaimed(skb, flow, hook) } else { PASS };
    }
    if interface != LOOPBACK {
        refuse_packet(who, flow, &about(skb, hook, Reason::OffLoopback, interface));
        return DROP;
    }
    let Some(packet) = Packet::parse(skb) else {
        refuse_packet(who, flow, &about(skb, hook, Reason::OffLoopback, interface));
        return DROP;
    };
    let udp = packet.protocol == NEXT_UDP;
    let passes = if udp {
        config(cfg::MODE) != cfg::MODE_DENY
            && (to_resolver(flow, &packet) || packet.receiver(skb, false).is_some_and(|it| it.tag == who.tag))
    } else {
        // Where nobody listens, the kernel refuses.
        !packet.opens || packet.receiver(skb, true).is_none_or(|it| it.own || it.tag == who.tag)
    };
    if passes {
        decided!(hook, Word::Passed, who, packet.to, packet.to_port);
        if packet.opens {
            record(flow, &packet, who, hook);
        }
        return PASS;
    }
    let reason = if udp { Reason::LoopbackUdp } else { Reason::LoopbackTcp };
    let mut what = about(skb, hook, reason, interface);
    what.addr = packet.to;
    what.port = packet.to_port;
    what.protocol = u16::from(packet.protocol);
    refuse_packet(who, flow, &what);
    DROP
}

/// Of a socket that was redirected, and whose tag was lifted before it began: the proxy
/// would take an older record of this source, of somebody else, for its own. Elsewhere
/// such a socket goes as it likes.
#[inline(always)]
fn unclaimed(skb: *mut __sk_buff, flow: *mut Flow, hook: Hook) -> i32 {
    let Some(packet) = Packet::parse(skb) else { return PASS };
    let udp = packet.protocol == NEXT_UDP;
    if !udp && !packet.opens {
        return PASS;
    }
    // SAFETY: it was redirected, so there is one; the namespace is that of the redirect.
    let netns = unsafe { (*flow).netns };
    // SAFETY: entries are only replaced whole.
    let Some(served) = (unsafe { NETNS.get(&netns) }) else { return PASS };
    if packet.to_port != if udp { served.dns_port } else { served.tcp_port } {
        return PASS;
    }
    let protocol = if udp { IPPROTO_UDP } else { IPPROTO_TCP };
    let key = FlowKey { netns, addr: packet.from, port: u32::from(packet.from_port), protocol };
    // That there is none is as good.
    let _gone = FLOWS.remove(&key).is_err();
    let mut what = about(skb, hook, Reason::EnforcerPort, LOOPBACK);
    what.addr = packet.to;
    what.port = packet.to_port;
    what.protocol = u16::from(packet.protocol);
    refuse_packet(Who::NOBODY, flow, &what);
    DROP
}

/// Makes the record of a redirected connection. Its first packet has not arrived anywhere
/// yet: the proxy finds the record however early it accepts.
#[cfg_attr(not(feature = "log"), allow(unused_variables, reason = "only the log names them"))]
#[inline(always)]
fn record(flow: *mut Flow, packet: &Packet, who: Who, hook: Hook) {
    if flow.is_null() {
        return;
    }
    // SAFETY: not null; the namespace is that of the redirect.
    let (flags, netns) = unsafe { ((*flow).flags, (*flow).netns) };
    if flags & FLOW_REDIRECTED == 0 {
        return;
    }
    let key = FlowKey { netns, addr: packet.from, port: u32::from(packet.from_port), protocol: IPPROTO_TCP };
    // SAFETY: not null. Without a record the proxy closes the connection.
    if FLOWS.insert(&key, unsafe { &*flow }, 0).is_err() {
        // An older one would name somebody else. That there is none is as good.
        let _gone = FLOWS.remove(&key).is_err();
        return;
    }
    decided!(hook, Word::Recorded, who, packet.from, packet.from_port);
}

/// Whether this is a redirected datagram; if so its record is made.
#[inline(always)]
fn to_resolver(flow: *mut Flow, packet: &Packet) -> bool {
    if flow.is_null() {
        return false;
    }
    // SAFETY: not null.
    if unsafe { (*flow).flags } & FLOW_REDIRECTED == 0 {
        return false;
    }
    // SAFETY: not null; the namespace is that of the redirect.
    let netns = unsafe { (*flow).netns };
    // SAFETY: entries are only replaced whole.
    let Some(served) = (unsafe { NETNS.get(&netns) }) else { return false };
    if packet.to_port != served.dns_port {
        return false;
    }
    let key = FlowKey { netns, addr: packet.from, port: u32::from(packet.from_port), protocol: IPPROTO_UDP };
    // SAFETY: not null.
    FLOWS.insert(&key, unsafe { &*flow }, 0).is_ok()
}

#[inline(always)]
fn about(skb: *mut __sk_buff, hook: Hook, reason: Reason, interface: u32) -> Refused {
    // SAFETY: a field of the context.
    let family = if u16::from_be(unsafe { (*skb).protocol } as u16) == 0x0800 { 2 } else { 10 };
    Refused { hook, reason, netns: 0, addr: [0; 4], port: 0, family, protocol: 0, detail: interface }
}

/// What is needed of the headers. A packet of cgroup programs begins at the network header.
struct Packet {
    from: [u32; 4],
    to: [u32; 4],
    from_port: u16,
    to_port: u16,
    protocol: u8,
    /// The first packet of a TCP connection.
    opens: bool,
}

impl Packet {
    #[inline(always)]
    fn parse(skb: *mut __sk_buff) -> Option<Self> {
        // Both kinds are at least so long.
        let mut head = [0_u32; 5];
        load(skb, 0, &mut head)?;
        match u32::from_be(head[0]) >> 28 {
            4 => Self::parse4(skb, &head),
            6 => Self::parse6(skb, &head),
            _ => None,
        }
    }

    #[inline(always)]
    fn parse4(skb: *mut __sk_buff, ip: &[u32; 5]) -> Option<Self> {
        let header = (u32::from_be(ip[0]) >> 24 & 0xf) * 4;
        // Offset 9; and fragments after the first carry no ports.
        let protocol = (u32::from_be(ip[2]) >> 16 & 0xff) as u8;
        let fragment = u32::from_be(ip[1]) & 0x1fff;
        let mut packet =
            Self { from: mapped(ip[3]), to: mapped(ip[4]), from_port: 0, to_port: 0, protocol, opens: false };
        if fragment == 0 {
            match protocol {
                NEXT_UDP => packet.ports(skb, header)?,
                NEXT_TCP => packet.segment(skb, header)?,
                _ => {}
            }
        }
        Some(packet)
    }

    /// Extension headers are not followed: no allowed socket makes them, so
    /// whatever has one is not UDP for us and is dropped.
    #[inline(always)]
    fn parse6(skb: *mut __sk_buff, ip: &[u32; 5]) -> Option<Self> {
        let mut rest = [0_u32; 5];
        load(skb, 20, &mut rest)?;
        let next = (u32::from_be(ip[1]) >> 8 & 0xff) as u8;
        let mut packet = Self {
            from: [ip[2], ip[3], ip[4], rest[0]],
            to: [rest[1], rest[2], rest[3], rest[4]],
            from_port: 0,
            to_port: 0,
            protocol: next,
            opens: false,
        };
        match next {
            NEXT_UDP => packet.ports(skb, 40)?,
            NEXT_TCP => packet.segment(skb, 40)?,
            // ICMPv6.
            58 => {}
            _ => return None,
        }
        Some(packet)
    }

    #[inline(always)]
    fn ports(&mut self, skb: *mut __sk_buff, offset: u32) -> Option<()> {
        let mut ports = [0_u16; 2];
        load(skb, offset, &mut ports)?;
        self.from_port = u16::from_be(ports[0]);
        self.to_port = u16::from_be(ports[1]);
        Some(())
    }

    #[inline(always)]
    fn segment(&mut self, skb: *mut __sk_buff, offset: u32) -> Option<()> {
        let mut tcp = [0_u16; 7];
        load(skb, offset, &mut tcp)?;
        self.from_port = u16::from_be(tcp[0]);
        self.to_port = u16::from_be(tcp[1]);
        self.opens = u16::from_be(tcp[6]) & (SYN | ACK) == SYN;
        Some(())
    }

    /// The socket that would get this packet.
    #[inline(always)]
    fn receiver(&self, skb: *mut __sk_buff, tcp: bool) -> Option<Receiver> {
        // SAFETY: zero is valid for every variant of the union.
        let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
        let size = if is_mapped(&self.to) {
            tuple.__bindgen_anon_1.ipv4.saddr = self.from[3];
            tuple.__bindgen_anon_1.ipv4.daddr = self.to[3];
            tuple.__bindgen_anon_1.ipv4.sport = self.from_port.to_be();
            tuple.__bindgen_anon_1.ipv4.dport = self.to_port.to_be();
            12
        } else {
            tuple.__bindgen_anon_1.ipv6.saddr = self.from;
            tuple.__bindgen_anon_1.ipv6.daddr = self.to;
            tuple.__bindgen_anon_1.ipv6.sport = self.from_port.to_be();
            tuple.__bindgen_anon_1.ipv6.dport = self.to_port.to_be();
            36
        };
        // SAFETY: the context, and a tuple of that size; what is found is released once.
        unsafe {
            released(if tcp {
                bpf_sk_lookup_tcp(skb.cast(), &raw mut tuple, size, CURRENT_NETNS, 0)
            } else {
                bpf_sk_lookup_udp(skb.cast(), &raw mut tuple, size, CURRENT_NETNS, 0)
            })
        }
    }
}

#[inline(always)]
fn load<T>(skb: *mut __sk_buff, offset: u32, into: &mut T) -> Option<()> {
    let size = core::mem::size_of::<T>() as u32;
    // SAFETY: `into` has `size` bytes, and any bytes are valid for the arrays it is called with.
    let done =
        unsafe { bpf_skb_load_bytes(skb.cast::<c_void>(), offset, core::ptr::from_mut(into).cast(), size) };
    (done == 0).then_some(())
}
