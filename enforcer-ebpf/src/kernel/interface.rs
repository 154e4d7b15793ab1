//! On interfaces: sockets that no hook of a cgroup sees. The frames of AF_PACKET and its
//! like go to an interface without any of the programs for internet sockets.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use enforcer_common::{AF_INET, AF_INET6, Hook, Reason};

use super::event::{Refused, refuse_packet};
use super::tag::{self, Who};

/// The next program, or the packet goes on (`TC_ACT_UNSPEC`, which tcx calls `TCX_NEXT`).
const NEXT: i32 = -1;
/// The packet is dropped; `send` says ENOBUFS (`TC_ACT_SHOT`).
const SHOT: i32 = 2;

/// On what leaves by an interface other than `lo`. Internet sockets have passed the hooks
/// of their cgroup, and what is forwarded has no socket: nobody pays for those here.
#[classifier]
pub fn tc_egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: fields of the context; the socket is checked before it is read.
    let (family, interface) = unsafe {
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return NEXT;
        }
        ((*sk).family, (*skb).ifindex)
    };
    if family == AF_INET || family == AF_INET6 {
        return NEXT;
    }
    let who = tag::of_packet(skb);
    if !who.is_somebody() {
        return NEXT;
    }
    refuse(skb, who, Hook::TcEgress, family, interface);
    SHOT
}

/// On the host's end of a cable into a namespace where everybody is tagged: all of their
/// traffic is on their own loopback, and what comes here has come around that.
#[classifier]
pub fn tc_wall(_ctx: TcContext) -> i32 {
    SHOT
}

#[inline(always)]
fn refuse(skb: *mut __sk_buff, who: Who, hook: Hook, family: u32, interface: u32) {
    // SAFETY: a field of the context.
    let protocol = u16::from_be(unsafe { (*skb).protocol } as u16);
    refuse_packet(
        who,
        core::ptr::null(),
        &Refused {
            hook,
            reason: Reason::OffLoopback,
            netns: 0,
            addr: [0; 4],
            port: 0,
            family: family as u16,
            protocol,
            detail: interface,
        },
    );
}
