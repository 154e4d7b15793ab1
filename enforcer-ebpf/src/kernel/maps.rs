//! The maps, and socket storage for every kind of program.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::{Array, HashMap, LruHashMap, RingBuf};
use enforcer_common::{
    EVENT_BYTES, Flow, FlowKey, MAX_FLOWS, MAX_NETNS, MAX_TAGS, MAX_UNIX_ALLOW, Netns, Rate, Tag, UNIX_NAME,
    cfg,
};

/// Cgroup id to tag. Written before the first process enters the cgroup.
#[map]
pub static TAGS: HashMap<u64, Tag> = HashMap::with_max_entries(MAX_TAGS, 0);

#[map]
pub static CFG: Array<u64> = Array::with_max_entries(cfg::ENTRIES, 0);

/// Network namespace cookie to listeners.
#[map]
pub static NETNS: HashMap<u64, Netns> = HashMap::with_max_entries(MAX_NETNS, 0);

/// Source of a packet to what is known about its sender.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(MAX_FLOWS, 0);

#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);

#[map]
pub static RATE: LruHashMap<u64, Rate> = LruHashMap::with_max_entries(MAX_TAGS, 0);

/// Unix sockets outside that tagged processes may reach: by the name that their server gave them.
#[map]
pub static UNIX_ALLOW: HashMap<[u8; UNIX_NAME], u8> = HashMap::with_max_entries(MAX_UNIX_ALLOW, 0);

/// What is known about a socket; freed by the kernel with it.
#[btf_map]
static SOCKETS: SkStorage<Flow> = SkStorage::new();

/// On the enforcer's UDP listener: the record that was asked for last.
#[btf_map]
static ASKED: SkStorage<Flow> = SkStorage::new();

/// The value of one entry of `CFG`.
#[inline(always)]
pub fn config(index: u32) -> u64 {
    CFG.get(index).copied().unwrap_or(0)
}

/// The storage of a socket; with `create` it is made. Null when there is none.
///
/// # Safety
/// `sk` comes from the context of the program, or from a lookup.
#[inline(always)]
pub unsafe fn storage(sk: *mut c_void, create: bool) -> *mut Flow {
    // SAFETY: the verifier checks the type of both pointers.
    unsafe {
        bpf_sk_storage_get((&raw const SOCKETS).cast_mut().cast(), sk, ptr::null_mut(), u64::from(create))
            .cast()
    }
}

/// The scratch record of the enforcer's UDP listener.
///
/// # Safety
/// As for [`storage`].
#[inline(always)]
pub unsafe fn asked(sk: *mut c_void, create: bool) -> *mut Flow {
    // SAFETY: as above.
    unsafe {
        bpf_sk_storage_get((&raw const ASKED).cast_mut().cast(), sk, ptr::null_mut(), u64::from(create))
            .cast()
    }
}
