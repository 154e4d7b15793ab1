//! Map keys, map values and the numbers that name things across the boundary.

use core::mem::size_of;

/// Changes whenever a layout below changes: pinned maps of another version are not adopted.
pub const ABI_VERSION: u64 = 2;

/// Deepest cgroup level at which a tag is looked for (the root is level 0).
pub const MAX_LEVEL: u32 = 15;
/// Most cgroups that can be tagged at the same time.
pub const MAX_TAGS: u32 = 4096;
/// Most network namespaces that can be served at the same time.
pub const MAX_NETNS: u32 = 4096;
/// Flow records kept; an LRU map evicts early when it is small, so it is not.
pub const MAX_FLOWS: u32 = 65_536;
/// Size of the ring buffer of refusals, in bytes.
pub const EVENT_BYTES: u32 = 256 * 1024;
/// Refusals reported for one tag in one second; the rest are counted.
pub const EVENTS_PER_SECOND: u32 = 100;
/// Set in the key of `RATE` where a tag's refusals in namespaces that are not served are
/// counted, beside its others: a flood of those must not hide that one is needed.
pub const RATE_OF_NAMESPACES: u64 = 1 << 63;
/// The same for all who are no workload: any user of the host could fill the recording.
pub const STRANGERS_PER_SECOND: u32 = 1;

/// Indices of the `CFG` array, whose values are `u64`.
pub mod cfg {
    /// Bit `n` is set when a cgroup of level `n` is tagged.
    pub const LEVELS: u32 = 0;
    /// One of the `MODE_*` values.
    pub const MODE: u32 = 1;
    /// `ABI_VERSION` of the programs that made the maps.
    pub const ABI: u32 = 2;
    /// Id of the enforcer's own cgroup.
    pub const OWN_ID: u32 = 3;
    /// Level of the enforcer's own cgroup.
    pub const OWN_LEVEL: u32 = 4;
    /// 1: somebody changed what was attached, and no operator has looked at it. For the loader.
    pub const TAMPERED: u32 = 5;
    /// 1: every socket that a workload has used so far it has made itself, so that the packet
    /// hooks of tagged cgroups see all that workloads send. Written by the loader that
    /// makes the maps, cleared by the programs, and when hooks of a cgroup are missing.
    pub const NO_FOREIGN: u32 = 6;
    /// A thread group's id, until an LSM program has seen it in bpf(2): then 0. By this a
    /// loader knows that the kernel calls those programs at all.
    pub const LSM_PROBE: u32 = 7;
    /// Number of the inode of systemd's executor; 0 where there is none.
    pub const EXECUTOR_INODE: u32 = 8;
    /// Its device as the kernel has it: the major number from bit 20 on.
    pub const EXECUTOR_DEVICE: u32 = 9;
    /// Number of entries.
    pub const ENTRIES: u32 = 10;

    /// Tagged processes are redirected.
    pub const MODE_REDIRECT: u64 = 0;
    /// Tagged processes have no network at all.
    pub const MODE_DENY: u64 = 1;
}

/// Level of the private socket options of the enforcer's own cgroup; no protocol uses it.
pub const SOL_ENFORCER: i32 = 0x454e;
/// getsockopt: the flow record of an accepted connection (consumed) or of the datagram that `OPT_KEY` named.
pub const OPT_FLOW: i32 = 1;
/// setsockopt on the UDP listener: names the datagram (`DatagramKey`) whose record `OPT_FLOW` returns next.
pub const OPT_KEY: i32 = 2;

/// An IPv4 address in the form in which all addresses are kept.
pub const fn mapped(ipv4_be: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), ipv4_be]
}

/// Whether the four words are `::ffff:a.b.c.d`.
pub const fn is_mapped(addr: &[u32; 4]) -> bool {
    addr[0] == 0 && addr[1] == 0 && addr[2] == 0xffff_u32.to_be()
}

/// Value of `TAGS`, whose key is a cgroup id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// The workload.
    pub id: u64,
    /// Reserved for switches of one workload.
    pub flags: u32,
    /// Level of the tagged cgroup, from which the level mask is rebuilt.
    pub level: u32,
}

/// Value of `NETNS`, whose key is a network namespace's cookie: where its listeners are.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Netns {
    pub tcp_port: u16,
    pub dns_port: u16,
    /// `NETNS_NO_IPV6` or nothing.
    pub flags: u32,
}

/// The namespace has no `::1`: IPv6 destinations are refused there.
pub const NETNS_NO_IPV6: u32 = 1;

/// What is known about a tagged process's socket: the value of its socket
/// storage, and of `FLOWS` once the socket sends through the proxy.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// The workload; 0 is nobody.
    pub tag: u64,
    /// Id of the tagged cgroup, by which a tag is known to be still in force.
    pub cgroup: u64,
    /// Cookie of the client's socket.
    pub cookie: u64,
    /// Cookie of its network namespace.
    pub netns: u64,
    /// Where the process wanted to go.
    pub addr: [u32; 4],
    pub pid: u32,
    pub uid: u32,
    pub comm: [u8; 16],
    pub port: u16,
    /// Address family of the client's socket.
    pub family: u16,
    pub protocol: u16,
    /// `FLOW_*` bits.
    pub flags: u16,
}

/// The destination was rewritten; `addr` and `port` hold the original.
pub const FLOW_REDIRECTED: u16 = 1;
/// The workload that uses the socket has made it: the socket belongs to a tagged cgroup,
/// whose packet hooks see what it sends.
pub const FLOW_MADE: u16 = 2;
/// The socket is a listener of the enforcer's own; nobody else's is sent anything.
pub const FLOW_OWN: u16 = 4;

/// Key of `FLOWS`: the source of a packet as the proxy sees it. The namespace
/// and the address are part of it, because a port alone is forged by `bind(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    pub netns: u64,
    pub addr: [u32; 4],
    pub port: u32,
    pub protocol: u32,
}

/// Value of the socket option `OPT_KEY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramKey {
    pub addr: [u32; 4],
    pub port: u32,
    pub reserved: u32,
}

/// One record of the ring buffer: something was refused.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefusalRecord {
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub at: u64,
    pub tag: u64,
    pub cgroup: u64,
    pub netns: u64,
    pub addr: [u32; 4],
    pub pid: u32,
    pub uid: u32,
    pub comm: [u8; 16],
    pub port: u16,
    pub family: u16,
    pub protocol: u16,
    /// A `Hook` in the low byte, a `Reason` in the high one.
    pub what: u16,
    /// The option (level << 16 | name), the socket's type, the interface, the capability,
    /// the signal, the mode of access, or the command of bpf(2).
    pub detail: u32,
    /// Refusals of this tag that were counted and not reported since the last record.
    pub suppressed: u32,
}

/// Where the LSM programs find the fields of the kernel's own structures, in bytes.
///
/// The loader takes them from the kernel's BTF: one object is for all kernels.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    pub socket_sk: u32,
    pub sock_family: u32,
    pub sock_state: u32,
    pub sock_protocol: u32,
    pub sock_cgroup: u32,
    pub unix_addr: u32,
    pub unix_peer: u32,
    pub unix_address_len: u32,
    pub unix_address_name: u32,
    pub cgroup_level: u32,
    pub cgroup_kn: u32,
    pub cgroup_ancestors: u32,
    pub kernfs_id: u32,
    pub kernfs_parent: u32,
    pub kernfs_priv: u32,
    pub task_leader: u32,
    pub task_cgroups: u32,
    pub css_set_cgroup: u32,
    pub file_inode: u32,
    pub file_mode: u32,
    pub file_private: u32,
    pub inode_mode: u32,
    pub inode_super: u32,
    pub inode_private: u32,
    pub super_magic: u32,
    pub userns_level: u32,
    pub bprm_file: u32,
    pub inode_number: u32,
    pub super_device: u32,
    pub task_parent: u32,
    pub task_tgid: u32,
}

/// Bytes of the name of a Unix socket: a path that ends with zeros, or a zero and an
/// abstract name that ends with zeros.
pub const UNIX_NAME: usize = 108;
/// Most Unix sockets outside that tagged processes may reach.
pub const MAX_UNIX_ALLOW: u32 = 256;

/// Value of `RATE`, whose key is a tag.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    pub window: u64,
    pub count: u32,
    pub suppressed: u32,
}

const _: () = {
    assert!(size_of::<Tag>() == 16);
    assert!(size_of::<Netns>() == 8);
    assert!(size_of::<Flow>() == 80);
    assert!(size_of::<FlowKey>() == 32);
    assert!(size_of::<DatagramKey>() == 24);
    assert!(size_of::<RefusalRecord>() == 88);
    assert!(size_of::<Rate>() == 16);
    assert!(size_of::<Offsets>() == 31 * 4);
};

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $number:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant = $number,)* }

        impl $name {
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }
    };
}

named!(
    /// The program that refused.
    Hook {
        Connect4 = 1 "connect4",
        Connect6 = 2 "connect6",
        Sendmsg4 = 3 "sendmsg4",
        Sendmsg6 = 4 "sendmsg6",
        Bind4 = 5 "bind4",
        Bind6 = 6 "bind6",
        SockCreate = 7 "sock_create",
        Setsockopt = 8 "setsockopt",
        Egress = 9 "egress",
        RootEgress = 10 "root_egress",
        Ingress = 11 "ingress",
        TcEgress = 13 "tc_egress",
        LsmCreate = 32 "lsm_create",
        LsmSendmsg = 33 "lsm_sendmsg",
        LsmConnect = 34 "lsm_connect",
        LsmReceive = 35 "lsm_receive",
        LsmWrite = 36 "lsm_write",
        LsmOpen = 37 "lsm_open",
        LsmClone = 38 "lsm_clone",
        LsmBpf = 39 "lsm_bpf",
        LsmPtrace = 40 "lsm_ptrace",
        LsmKill = 41 "lsm_kill",
        LsmCapable = 42 "lsm_capable",
        LsmUnixStream = 43 "lsm_unix",
        LsmUnixSend = 44 "lsm_unix_send",
        LsmUnlink = 45 "lsm_unlink",
        LsmRename = 46 "lsm_rename",
        LsmExec = 47 "lsm_exec",
    }
);

named!(
    /// Why it refused.
    Reason {
        SocketType = 1 "socket-type",
        Udp = 2 "udp",
        SocketOption = 3 "socket-option",
        NetnsNotServed = 4 "netns-not-served",
        EnforcerPort = 5 "enforcer-port",
        OffLoopback = 6 "off-loopback",
        Inbound = 7 "inbound",
        DenyMode = 8 "deny-mode",
        NoStorage = 9 "no-storage",
        NoIpv6 = 10 "no-ipv6-listener",
        LoopbackUdp = 11 "loopback-udp",
        LoopbackTcp = 12 "loopback-tcp",
        SocketFamily = 32 "socket-family",
        ForeignSocket = 33 "foreign-socket",
        ForeignCgroup = 34 "foreign-cgroup",
        ForeignProcess = 35 "foreign-process",
        ForeignUnix = 36 "foreign-unix",
        KernelInterface = 37 "kernel-interface",
        Capability = 38 "capability",
    }
);
