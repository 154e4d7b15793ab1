//! Packets made by hand, and devices that send for others.

use super::{P4, P6, Technique, tech};
use crate::scene::Scene;

const VSOCK: Scene = Scene::Helper(&["relay-vsock", P4, "7777"]);

pub const ALL: &[Technique] = &[
    tech("icmp-datagram", &["icmp-dgram", P4], "HHHHH"),
    tech("icmp-datagram-ipv6", &["icmp-dgram", P6], "HHHHH"),
    tech("icmp-raw", &["icmp-raw", P4], "KKHHH"),
    tech("icmp-raw-ipv6", &["icmp-raw", "[fd77::2]:0"], "KKHHH"),
    tech("raw-gre", &["raw-protocol", P4, "47"], "KKHHH"),
    tech("raw-ipip", &["raw-protocol", P4, "4"], "KKHHH"),
    tech("raw-esp", &["raw-protocol", P4, "50"], "KKHHH"),
    tech("raw-ipv6-in-ipv4", &["raw-protocol", P4, "41"], "KKHHH"),
    tech("raw-unassigned-ipv6", &["raw-protocol", P6, "253"], "KKHHH"),
    tech("raw-header", &["hdrincl", P4], "KKHHH"),
    tech("raw-header-loopback", &["hdrincl-loopback", P4], "KKHHH"),
    tech("raw-fragments", &["fragments", P4], "KKHHH"),
    tech("l2tp", &["l2tp", P4], "NNNNN"),
    tech("packet-raw", &["packet-raw", P4], "KKLKL"),
    tech("packet-datagram", &["packet-dgram", P4], "KKLKL"),
    tech("packet-bypass", &["packet-bypass", P4], "KKHKH"),
    tech("packet-ring", &["packet-ring", P4], "KKHKH"),
    tech("vsock", &["by-vsock", "7777"], "NNNNN").scene(VSOCK),
    tech("uring-vsock", &["by-uring-vsock", "7777"], "NNNNN").scene(VSOCK),
    tech("tun", &["tun", P4], "KKKKL").scene(Scene::Damage),
    tech("macvlan", &["macvlan", P4], "KKKKH"),
    tech("macvlan-tcp", &["macvlan-tcp", P4], "KKKKH"),
];
