//! The decisions that need nothing but numbers.

pub const AF_INET: u32 = 2;
pub const AF_INET6: u32 = 10;
pub const SOCK_STREAM: u32 = 1;
pub const SOCK_DGRAM: u32 = 2;
pub const SOCK_RAW: u32 = 3;
pub const IPPROTO_TCP: u32 = 6;
pub const IPPROTO_UDP: u32 = 17;
pub const IPPROTO_MPTCP: u32 = 262;
pub const DNS_PORT: u16 = 53;

const SOL_IP: u32 = 0;
const SOL_SOCKET: u32 = 1;
const SOL_TCP: u32 = 6;
const SOL_IPV6: u32 = 41;
const SOL_PACKET: u32 = 263;
const SOL_XDP: u32 = 283;

/// Whether a tagged process may make this socket.
///
/// **Invariant**: only what the connect and sendmsg hooks see is allowed. MPTCP
/// is refused because its getpeername shows the proxy.
#[inline(always)]
pub const fn socket_allowed(family: u32, kind: u32, protocol: u32) -> bool {
    if family != AF_INET && family != AF_INET6 {
        return false;
    }
    match kind {
        SOCK_STREAM => protocol == 0 || protocol == IPPROTO_TCP,
        SOCK_DGRAM => protocol == 0 || protocol == IPPROTO_UDP,
        _ => false,
    }
}

/// Whether a tagged process is refused this socket option: whatever chooses an
/// interface, a route or a header, or makes the kernel itself send (IGMP, MLD); and
/// what chooses among the sockets of a port, which may be somebody else's of the same
/// user: the lookups here do not run that choice.
#[inline(always)]
pub const fn option_refused(level: u32, name: u32) -> bool {
    match level {
        // IP_OPTIONS, IP_FREEBIND, IP_TRANSPARENT, and four ways to join a group.
        SOL_IP => matches!(name, 4 | 15 | 19 | 35 | 39 | 42 | 46),
        // SO_BINDTODEVICE, SO_ATTACH_REUSEPORT_CBPF and _EBPF, SO_BINDTOIFINDEX.
        SOL_SOCKET => matches!(name, 25 | 51 | 52 | 62),
        // TCP_REPAIR.
        SOL_TCP => matches!(name, 19),
        // IPV6_2292RTHDR, IPV6_2292PKTOPTIONS, joins, IPV6_HOPOPTS, IPV6_RTHDRDSTOPTS, IPV6_RTHDR,
        // IPV6_DSTOPTS, IPV6_TRANSPARENT, IPV6_FREEBIND.
        SOL_IPV6 => matches!(name, 5 | 6 | 20 | 27 | 42 | 46 | 54 | 55 | 57 | 59 | 75 | 78),
        SOL_PACKET | SOL_XDP => true,
        _ => false,
    }
}

/// Whether a tagged process may make a socket of this family at all: AF_UNIX, AF_INET,
/// AF_INET6 and AF_NETLINK. What the others send, no other hook sees.
#[inline(always)]
pub const fn family_allowed(family: u32) -> bool {
    matches!(family, 1 | AF_INET | AF_INET6 | 16)
}

/// Whether a tagged process is refused this capability over the whole host; over
/// namespaces of its own it keeps it. These make packets, mount, load, trace, or reach
/// into the kernel: CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_MODULE, CAP_SYS_RAWIO,
/// CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_MKNOD, CAP_MAC_OVERRIDE,
/// CAP_MAC_ADMIN, CAP_PERFMON, CAP_BPF, CAP_CHECKPOINT_RESTORE.
#[inline(always)]
pub const fn capability_refused(capability: u32) -> bool {
    const REFUSED: u64 = 1 << 12
        | 1 << 13
        | 1 << 16
        | 1 << 17
        | 1 << 19
        | 1 << 21
        | 1 << 22
        | 1 << 27
        | 1 << 32
        | 1 << 33
        | 1 << 38
        | 1 << 39
        | 1 << 40;
    capability < 64 && REFUSED >> capability & 1 == 1
}

/// Whether the kernel routes this destination to loopback: 127.0.0.0/8, `::1`,
/// and the two unspecified addresses, mapped ones included.
#[inline(always)]
pub const fn is_loopback(addr: &[u32; 4]) -> bool {
    if crate::is_mapped(addr) {
        let v4 = u32::from_be(addr[3]);
        return v4 >> 24 == 127 || v4 == 0;
    }
    addr[0] == 0 && addr[1] == 0 && addr[2] == 0 && (addr[3] == 0 || addr[3] == 1_u32.to_be())
}

/// The address that a connection to `addr`, which is loopback, really arrives at.
#[inline(always)]
pub const fn specified_loopback(addr: &[u32; 4]) -> [u32; 4] {
    if addr[3] != 0 {
        return *addr;
    }
    if crate::is_mapped(addr) { crate::mapped(0x7f00_0001_u32.to_be()) } else { [0, 0, 0, 1_u32.to_be()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Hook, Reason, mapped};

    #[test]
    fn only_plain_tcp_and_udp_sockets_are_allowed() {
        for family in [AF_INET, AF_INET6] {
            assert!(socket_allowed(family, SOCK_STREAM, 0));
            assert!(socket_allowed(family, SOCK_STREAM, IPPROTO_TCP));
            assert!(socket_allowed(family, SOCK_DGRAM, IPPROTO_UDP));
            for (kind, protocol) in [
                (SOCK_STREAM, IPPROTO_MPTCP),
                (SOCK_STREAM, 132),
                (SOCK_DGRAM, 1),
                (SOCK_DGRAM, 58),
                (SOCK_DGRAM, 136),
                (SOCK_RAW, 1),
                (SOCK_RAW, IPPROTO_TCP),
                (5, 132),
                (6, 33),
            ] {
                assert!(!socket_allowed(family, kind, protocol), "{kind} {protocol}");
            }
        }
        assert!(!socket_allowed(17, SOCK_DGRAM, 0));
    }

    #[test]
    fn families_that_no_other_hook_sees_are_refused() {
        for family in [1, AF_INET, AF_INET6, 16] {
            assert!(family_allowed(family), "{family}");
        }
        // AF_UNSPEC, AF_PACKET, AF_ALG, AF_VSOCK, AF_XDP, and what is not known yet.
        for family in [0, 17, 38, 40, 44, 60, u32::MAX] {
            assert!(!family_allowed(family), "{family}");
        }
    }

    #[test]
    fn capabilities_that_reach_the_host_are_refused() {
        for capability in [12, 13, 16, 17, 19, 21, 22, 27, 32, 33, 38, 39, 40] {
            assert!(capability_refused(capability), "{capability}");
        }
        // CAP_CHOWN, CAP_KILL, CAP_SETUID, CAP_SETPCAP, CAP_NET_BIND_SERVICE, CAP_SYS_CHROOT.
        for capability in [0, 5, 7, 8, 10, 18, 41, 63, 64, u32::MAX] {
            assert!(!capability_refused(capability), "{capability}");
        }
    }

    #[test]
    fn options_that_choose_a_route_or_make_the_kernel_send_are_refused() {
        for (level, name) in [
            (0, 4),
            (0, 35),
            (1, 25),
            (1, 51),
            (1, 52),
            (1, 62),
            (6, 19),
            (41, 57),
            (41, 6),
            (41, 75),
            (41, 78),
            (263, 20),
            (283, 1),
        ] {
            assert!(option_refused(level, name), "{level} {name}");
        }
        // SO_REUSEADDR, TCP_NODELAY, IPV6_V6ONLY, IP_TOS, TCP_FASTOPEN_CONNECT.
        for (level, name) in [(1, 2), (6, 1), (41, 26), (0, 1), (6, 30)] {
            assert!(!option_refused(level, name), "{level} {name}");
        }
    }

    #[test]
    fn loopback_is_recognised_in_every_form() {
        let v4 = |a: u32| mapped(a.to_be());
        assert!(is_loopback(&v4(0x7f00_0001)));
        assert!(is_loopback(&v4(0x7fff_fffe)));
        assert!(is_loopback(&v4(0)));
        assert!(is_loopback(&[0, 0, 0, 1_u32.to_be()]));
        assert!(is_loopback(&[0; 4]));
        assert!(!is_loopback(&v4(0x8000_0000)));
        assert!(!is_loopback(&v4(0x0a00_0001)));
        assert!(!is_loopback(&[0, 0, 0, 2_u32.to_be()]));
        assert_eq!(specified_loopback(&v4(0)), v4(0x7f00_0001));
        assert_eq!(specified_loopback(&[0; 4]), [0, 0, 0, 1_u32.to_be()]);
        assert_eq!(specified_loopback(&v4(0x7f00_0005)), v4(0x7f00_0005));
    }

    #[test]
    fn names_survive_the_boundary() {
        for number in 0..=u8::MAX {
            if let Some(hook) = Hook::from_number(number) {
                assert_eq!(hook as u8, number);
            }
            if let Some(reason) = Reason::from_number(number) {
                assert_eq!(reason as u8, number);
                assert!(
                    reason
                        .as_str()
                        .bytes()
                        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                );
            }
        }
    }
}
