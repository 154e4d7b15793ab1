//! The address of a sock_addr program, in one form for both families.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{BPF_TCP_CLOSE, bpf_sock, bpf_sock_addr, bpf_sock_tuple};
use aya_ebpf::helpers::generated::{
    bpf_get_netns_cookie, bpf_sk_lookup_tcp, bpf_sk_lookup_udp, bpf_sk_release,
};
use enforcer_common::{FLOW_OWN, is_mapped, mapped, specified_loopback};

use super::maps::storage;
use super::tag;

/// The netns argument that means "that of the context".
const CURRENT_NETNS: u64 = u64::MAX;
pub const LOOPBACK4: u32 = 0x7f00_0001_u32.to_be();
pub const LOOPBACK6: [u32; 4] = [0, 0, 0, 1_u32.to_be()];

/// The context of connect, sendmsg, recvmsg, bind and getpeername programs.
#[derive(Clone, Copy)]
pub struct Address {
    ctx: *mut bpf_sock_addr,
    /// The hook is one of IPv6, so the address is in `user_ip6`.
    v6: bool,
}

impl Address {
    #[inline(always)]
    pub fn new(ctx: *mut bpf_sock_addr, v6: bool) -> Self {
        Self { ctx, v6 }
    }

    #[inline(always)]
    pub fn sk(&self) -> *mut c_void {
        // SAFETY: the kernel's context, which has this field in all these programs.
        unsafe { (*self.ctx).__bindgen_anon_1.sk.cast() }
    }

    #[inline(always)]
    pub fn raw(&self) -> *mut c_void {
        self.ctx.cast()
    }

    /// Element by element and volatile: LLVM otherwise computes a pointer into
    /// the context, which the verifier refuses.
    #[inline(always)]
    pub fn get(&self) -> [u32; 4] {
        let a = self.ctx;
        // SAFETY: fields of the context.
        unsafe {
            if self.v6 {
                [
                    ptr::read_volatile(&raw const (*a).user_ip6[0]),
                    ptr::read_volatile(&raw const (*a).user_ip6[1]),
                    ptr::read_volatile(&raw const (*a).user_ip6[2]),
                    ptr::read_volatile(&raw const (*a).user_ip6[3]),
                ]
            } else {
                mapped(ptr::read_volatile(&raw const (*a).user_ip4))
            }
        }
    }

    #[inline(always)]
    pub fn set(&self, addr: &[u32; 4]) {
        let a = self.ctx;
        // SAFETY: fields of the context.
        unsafe {
            if self.v6 {
                ptr::write_volatile(&raw mut (*a).user_ip6[0], addr[0]);
                ptr::write_volatile(&raw mut (*a).user_ip6[1], addr[1]);
                ptr::write_volatile(&raw mut (*a).user_ip6[2], addr[2]);
                ptr::write_volatile(&raw mut (*a).user_ip6[3], addr[3]);
            } else {
                ptr::write_volatile(&raw mut (*a).user_ip4, addr[3]);
            }
        }
    }

    /// In host byte order. Read as 32 bits: a narrow access is refused.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        // SAFETY: a field of the context.
        u16::from_be(unsafe { ptr::read_volatile(&raw const (*self.ctx).user_port) } as u16)
    }

    #[inline(always)]
    pub fn set_port(&self, port: u16) {
        // SAFETY: a field of the context.
        unsafe { ptr::write_volatile(&raw mut (*self.ctx).user_port, u32::from(port.to_be())) }
    }

    /// Whether the socket is neither connected nor listens.
    #[inline(always)]
    pub fn is_closed(&self) -> bool {
        // SAFETY: the socket of the context, checked before its use.
        unsafe {
            let sk = (*self.ctx).__bindgen_anon_1.sk;
            !sk.is_null() && (*sk).state == BPF_TCP_CLOSE
        }
    }

    #[inline(always)]
    pub fn kind(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { ptr::read_volatile(&raw const (*self.ctx).type_) }
    }

    #[inline(always)]
    pub fn protocol(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { ptr::read_volatile(&raw const (*self.ctx).protocol) }
    }

    /// The family of the socket, which may be IPv6 in an IPv4 hook.
    #[inline(always)]
    pub fn family(&self) -> u32 {
        // SAFETY: a field of the context.
        unsafe { ptr::read_volatile(&raw const (*self.ctx).family) }
    }

    #[inline(always)]
    pub fn netns(&self) -> u64 {
        // SAFETY: the context of this program.
        unsafe { bpf_get_netns_cookie(self.ctx.cast()) }
    }
}

/// The socket that would get what is sent to an address.
#[derive(Clone, Copy)]
pub struct Receiver {
    /// 0 when it belongs to nobody.
    pub tag: u64,
    /// It is a listener of the enforcer's own.
    pub own: bool,
}

/// The socket that would get what is sent to this loopback address.
#[inline(always)]
pub fn receiver(ctx: *mut c_void, tcp: bool, addr: &[u32; 4], port: u16) -> Option<Receiver> {
    let addr = specified_loopback(addr);
    // SAFETY: zero is valid for every variant of the union.
    let mut tuple: bpf_sock_tuple = unsafe { core::mem::zeroed() };
    let size = if is_mapped(&addr) {
        tuple.__bindgen_anon_1.ipv4.saddr = LOOPBACK4;
        tuple.__bindgen_anon_1.ipv4.daddr = addr[3];
        tuple.__bindgen_anon_1.ipv4.dport = port.to_be();
        12
    } else {
        tuple.__bindgen_anon_1.ipv6.saddr = LOOPBACK6;
        tuple.__bindgen_anon_1.ipv6.daddr = addr;
        tuple.__bindgen_anon_1.ipv6.dport = port.to_be();
        36
    };
    // SAFETY: the context of this program, and a tuple of that size.
    let found = unsafe {
        if tcp {
            bpf_sk_lookup_tcp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0)
        } else {
            bpf_sk_lookup_udp(ctx, &raw mut tuple, size, CURRENT_NETNS, 0)
        }
    };
    // SAFETY: what a lookup has returned.
    unsafe { released(found) }
}

/// The tag of the socket that would get what is sent to this loopback address:
/// 0 when there is none, or when it belongs to nobody.
#[inline(always)]
pub fn tag_of_listener(ctx: *mut c_void, tcp: bool, addr: &[u32; 4], port: u16) -> u64 {
    receiver(ctx, tcp, addr, port).map_or(0, |receiver| receiver.tag)
}

/// What is known about a socket that a lookup found; the socket is let go.
///
/// # Safety
/// `found` is what a lookup returned, and not used afterwards.
#[inline(always)]
pub unsafe fn released(found: *mut bpf_sock) -> Option<Receiver> {
    if found.is_null() {
        return None;
    }
    // SAFETY: not null, and released once; the storage is checked before it is read.
    unsafe {
        let flow = storage(found.cast(), false);
        let tag = tag::noted(flow).tag;
        let own = !flow.is_null() && (*flow).flags & FLOW_OWN != 0;
        bpf_sk_release(found.cast());
        Some(Receiver { tag, own })
    }
}
