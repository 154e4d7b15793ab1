//! What somebody with root does to programs that others have attached.
#![allow(unsafe_code, reason = "bpf(2)")]

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};

const MAP_LOOKUP: libc::c_int = 1;
const MAP_NEXT_KEY: libc::c_int = 4;
const PROG_LOAD: libc::c_int = 5;
const OBJ_GET: libc::c_int = 7;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const LINK_UPDATE: libc::c_int = 29;
const LINK_DETACH: libc::c_int = 34;
const TYPE_CGROUP_SKB: u32 = 8;
const TYPE_CGROUP_SOCK_ADDR: u32 = 18;
const EGRESS: u32 = 1;
const CONNECT4: u32 = 10;

/// Detaches the link that is pinned here; the pin stays.
pub fn detach(pin: &Path) -> Result<()> {
    let link = get(pin)?;
    bpf(LINK_DETACH, &mut [link.as_raw_fd().cast_unsigned()]).context("detaching")?;
    Ok(())
}

/// Has the link that is pinned here run this program.
pub fn update(pin: &Path, program: &Allows) -> Result<()> {
    let link = get(pin)?;
    let words = [link.as_raw_fd().cast_unsigned(), program.fd.as_raw_fd().cast_unsigned(), 0, 0];
    bpf(LINK_UPDATE, &mut { words }).context("updating")?;
    Ok(())
}

/// A program that lets everything pass.
pub struct Allows {
    fd: OwnedFd,
    attach_type: u32,
}

impl Allows {
    /// For packets that leave.
    pub fn egress() -> Result<Self> {
        Self::load(TYPE_CGROUP_SKB, EGRESS)
    }

    /// For connections over IPv4.
    pub fn connect4() -> Result<Self> {
        Self::load(TYPE_CGROUP_SOCK_ADDR, CONNECT4)
    }

    fn load(kind: u32, attach_type: u32) -> Result<Self> {
        // mov r0, 1; exit
        let instructions = [0x0000_0001_0000_00b7_u64, 0x95];
        let license = c"GPL";
        let mut words = [0_u32; 18];
        let mut put = |at: usize, value: u64| {
            let bytes = value.to_ne_bytes();
            for (word, half) in words[at..].iter_mut().zip(bytes.as_chunks::<4>().0) {
                *word = u32::from_ne_bytes(*half);
            }
        };
        put(0, u64::from(kind) | 2 << 32);
        put(2, instructions.as_ptr().expose_provenance() as u64);
        put(4, license.as_ptr().expose_provenance() as u64);
        // The name, after what the verifier would say, the kernel's version and flags.
        put(12, u64::from_ne_bytes(*b"stranger"));
        words[17] = attach_type;
        let fd = bpf(PROG_LOAD, &mut words).context("loading")?;
        // SAFETY: a new descriptor that nobody else has.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, attach_type })
    }

    /// Attaches it without a link: beside others, or so that nobody else may.
    pub fn attach(&self, cgroup: &Path, beside_others: bool) -> Result<()> {
        const ALLOW_MULTI: u32 = 2;
        self.without_link(PROG_ATTACH, cgroup, if beside_others { ALLOW_MULTI } else { 0 })
    }

    pub fn detach(&self, cgroup: &Path) -> Result<()> {
        self.without_link(PROG_DETACH, cgroup, 0)
    }

    fn without_link(&self, command: libc::c_int, cgroup: &Path, flags: u32) -> Result<()> {
        let dir = File::open(cgroup)?;
        let program = self.fd.as_raw_fd().cast_unsigned();
        bpf(command, &mut [dir.as_raw_fd().cast_unsigned(), program, self.attach_type, flags])?;
        Ok(())
    }
}

/// What the map that is pinned here holds: its keys, and their values.
pub fn contents(pin: &Path) -> Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let info = aya::maps::MapInfo::from_pin(pin)?;
    let map = get(pin)?;
    let mut key = vec![0_u8; usize::try_from(info.key_size())?];
    let mut value = vec![0_u8; usize::try_from(info.value_size())?];
    let mut next = key.clone();
    let mut found = BTreeMap::new();
    // Map, key, and where to write: the next key or the value.
    let ask = |command: libc::c_int, key: *const u8, to: *mut u8| {
        let mut words = [0_u64; 4];
        words[0] = map.as_raw_fd().cast_unsigned().into();
        (words[1], words[2]) = (key.expose_provenance() as u64, to.expose_provenance() as u64);
        // SAFETY: both are as long as the map has it, and live longer.
        let done = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size_of_val(&words)) };
        if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
    };
    let mut from = std::ptr::null();
    loop {
        match ask(MAP_NEXT_KEY, from, next.as_mut_ptr()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
            done => done.context("the next key")?,
        }
        key.copy_from_slice(&next);
        from = key.as_ptr();
        ask(MAP_LOOKUP, from, value.as_mut_ptr()).context("a value")?;
        found.insert(key.clone(), value.clone());
    }
}

fn get(pin: &Path) -> Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let address = path.as_ptr().expose_provenance() as u64;
    let bytes = address.to_ne_bytes();
    let halves = bytes.as_chunks::<4>().0;
    let mut words = [u32::from_ne_bytes(halves[0]), u32::from_ne_bytes(halves[1]), 0, 0];
    let fd = bpf(OBJ_GET, &mut words).with_context(|| format!("opening {}", pin.display()))?;
    // SAFETY: a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// bpf(2) with its attributes as words.
fn bpf<const N: usize>(command: libc::c_int, words: &mut [u32; N]) -> Result<RawFd> {
    let size = u32::try_from(size_of_val(words))?;
    // SAFETY: the attributes are as long as said; what they point to lives with the caller.
    let done = unsafe { libc::syscall(libc::SYS_bpf, command, words.as_mut_ptr(), size) };
    ensure!(done >= 0, std::io::Error::last_os_error());
    Ok(RawFd::try_from(done)?)
}
