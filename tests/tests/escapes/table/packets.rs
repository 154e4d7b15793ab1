//! Packets made by hand, and devices that send for others.

use super::{P4, P6, Technique, tech};
use crate::scene::Scene;

const VSOCK: Scene = Scene::Helper(&["relay-vsock", P4, "7777"]);

pub const ALL: &[Technique] = &[
    tech("icmp-datagram", &["icmp-dgram", P4], "HHHHHH"),
    tech("icmp-datagram-ipv6", &["icmp-dgram", P6], "HHHHHH"),
    tech("icmp-raw", &["icmp-raw", P4], "KKKHHH"),
    tech("icmp-raw-ipv6", &["icmp-raw", "[fd77::2]:0"], "KKKHHH"),
    tech("raw-gre", &["raw-protocol", P4, "47"], "KKKHHH"),
    tech("raw-ipip", &["raw-protocol", P4, "4"], "KKKHHH"),
    tech("raw-esp", &["raw-protocol", P4, "50"], "KKKHHH"),
    tech("raw-ipv6-in-ipv4", &["raw-protocol", P4, "41"], "KKKHHH"),
    tech("raw-unassigned-ipv6", &["raw-protocol", P6, "253"], "KKKHHH"),
    tech("raw-header", &["hdrincl", P4], "KKKHHH"),
    tech("raw-header-loopback", &["hdrincl-loopback", P4], "KKKHHH"),
    tech("raw-fragments", &["fragments", P4], "KKKHHH"),
    tech("l2tp", &["l2tp", P4], "NNNNNN").on("6.1", "HHHHHH").on("6.12", "HHHHHH"),
    tech("packet-raw", &["packet-raw", P4], "KKKLKL").on("lsm", "KKKHKH"),
    tech("packet-datagram", &["packet-dgram", P4], "KKKLKL").on("lsm", "KKKHKH"),
    tech("packet-bypass", &["packet-bypass", P4], "KKKHKH"),
    tech("packet-ring", &["packet-ring", P4], "KKKHKH"),
    tech("vsock", &["by-vsock", "7777"], "NNNNNN")
        .on("6.1", "LKKLKL")
        .on("6.12", "LKKLKL")
        .on("lsm", "HKKHKH")
        .scene(VSOCK),
    tech("uring-vsock", &["by-uring-vsock", "7777"], "NNNNNN")
        .on("6.1", "LKKLKL")
        .on("6.12", "LKKLKL")
        .on("lsm", "HKKHKH")
        .scene(VSOCK),
    tech("tun", &["tun", P4], "KKKKKL").on("lsm", "KKKKKH").scene(Scene::Damage),
    tech("macvlan", &["macvlan", P4], "KKKKKH"),
    tech("macvlan-tcp", &["macvlan-tcp", P4], "KKKKKH"),
];
