//! A process as systemd starts it in a unit, with the drop-in that `enforcer scope harden`
//! writes: what stands there is applied line by line, and a line that this does not know
//! is an error, so that none is taken for granted.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use enforcer::net::sys;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::check;

/// A user that runs nothing else.
const OWN: u32 = 65533;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const ERRNO: u32 = 0x0005_0000;
/// Offsets in `struct seccomp_data`: the number, the architecture, the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const FIRST: u32 = 16;
const NATIVE: u32 = 0xc000_003e;
/// Numbers from here on are another instruction set, which is not native.
const X32: u32 = 0x4000_0000;

/// What a drop-in forbids by numbers of calls and families.
#[derive(Default)]
struct Filter {
    families: Option<Vec<u32>>,
    calls: Vec<u32>,
    native: bool,
}

/// `folder` has the drop-in, `unit.conf`, and a file that nobody may open, `nothing`.
pub fn enter(folder: &Path) -> io::Result<()> {
    let text = fs::read_to_string(folder.join("unit.conf"))?;
    let lines = text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    let settings: Vec<(&str, &str)> = lines.map(|line| line.split_once('=').unwrap()).collect();
    descriptors()?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let mut filter = Filter::default();
    for (key, value) in settings {
        match key {
            "InaccessiblePaths" => hide(value.trim_start_matches('-'), folder)?,
            "BindReadOnlyPaths" => show_read_only(value)?,
            "ProtectControlGroups" => read_only_cgroups()?,
            "CapabilityBoundingSet" => bounding(value.trim_start_matches('~'))?,
            "RestrictAddressFamilies" => {
                filter.families = Some(value.split(' ').map(family).collect());
            }
            "SystemCallFilter" => filter.calls = calls(value.strip_prefix('~').unwrap()),
            "SystemCallArchitectures" => filter.native = value == "native",
            // At a boot: the service is there already.
            "After" | "Wants" => {}
            // Below, and by the suite, which puts its helpers elsewhere.
            "NoNewPrivileges" | "PrivateNetwork" => assert_eq!(value, "yes"),
            other => panic!("how is {other} applied?"),
        }
    }
    nix::unistd::setgroups(&[])?;
    let (uid, gid) = (nix::unistd::Uid::from_raw(OWN), nix::unistd::Gid::from_raw(OWN));
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)?;
    assert!(text.contains("NoNewPrivileges=yes"));
    nix::sys::prctl::set_no_new_privs()?;
    sys::set_filter(&filter.program())
}

/// systemd hands on the standard ones, and `StandardInput=null`; a Unix socket by which
/// the suite speaks to this process stays.
fn descriptors() -> io::Result<()> {
    // SAFETY: it closes descriptors; this process has made none yet.
    check(unsafe { libc::close_range(3, libc::c_uint::MAX, 0) })?;
    if sys::leads_out(0)? {
        sys::duplicate_to(File::open("/dev/null")?.as_raw_fd(), 0)?;
    }
    Ok(())
}

fn hide(path: &str, folder: &Path) -> io::Result<()> {
    let none = None::<&str>;
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e),
        Ok(meta) if meta.is_dir() => {
            let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            Ok(mount(Some("none"), path, Some("tmpfs"), flags, Some("mode=0"))?)
        }
        Ok(_) => Ok(mount(Some(&folder.join("nothing")), path, none, MsFlags::MS_BIND, none)?),
    }
}

/// `-SOURCE:PLACE`: none where there is no such source.
fn show_read_only(value: &str) -> io::Result<()> {
    let (source, place) = value.trim_start_matches('-').split_once(':').unwrap();
    let none = None::<&str>;
    if value.starts_with('-') && !Path::new(source).exists() {
        return Ok(());
    }
    mount(Some(source), place, none, MsFlags::MS_BIND, none)?;
    mount(none, place, none, MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, none)?;
    Ok(())
}

fn read_only_cgroups() -> io::Result<()> {
    let none = None::<&str>;
    for place in sys::mounts_of(&fs::read_to_string("/proc/self/mountinfo")?, "cgroup2") {
        mount(Some(&place), &place, none, MsFlags::MS_BIND, none)?;
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, &place, none, flags, none)?;
    }
    Ok(())
}

fn bounding(dropped: &str) -> io::Result<()> {
    for name in dropped.split(' ') {
        let number = capability(name);
        sys::drop_bounding(number)?;
    }
    Ok(())
}

/// As include/uapi/linux/capability.h numbers them.
fn capability(name: &str) -> i32 {
    match name {
        "CAP_DAC_READ_SEARCH" => 2,
        "CAP_NET_ADMIN" => 12,
        "CAP_NET_RAW" => 13,
        "CAP_SYS_MODULE" => 16,
        "CAP_SYS_RAWIO" => 17,
        "CAP_SYS_PTRACE" => 19,
        "CAP_SYS_ADMIN" => 21,
        "CAP_SYS_BOOT" => 22,
        "CAP_SYS_RESOURCE" => 24,
        "CAP_MAC_OVERRIDE" => 32,
        "CAP_MAC_ADMIN" => 33,
        "CAP_PERFMON" => 38,
        "CAP_BPF" => 39,
        other => panic!("no number of {other}"),
    }
}

fn family(name: &str) -> u32 {
    let number = match name {
        "AF_UNIX" => libc::AF_UNIX,
        "AF_INET" => libc::AF_INET,
        "AF_INET6" => libc::AF_INET6,
        "AF_NETLINK" => libc::AF_NETLINK,
        other => panic!("no number of {other}"),
    };
    number.cast_unsigned()
}

fn calls(names: &str) -> Vec<u32> {
    let of = |name| match name {
        "@keyring" => vec![libc::SYS_add_key, libc::SYS_keyctl, libc::SYS_request_key],
        "io_uring_setup" => vec![libc::SYS_io_uring_setup],
        other => panic!("no number of {other}"),
    };
    names.split(' ').flat_map(of).map(|number| u32::try_from(number).unwrap()).collect()
}

impl Filter {
    fn program(&self) -> Vec<(u16, u8, u8, u32)> {
        let refuse = |errno: i32| (RETURN, 0, 0, ERRNO | errno.cast_unsigned());
        let foreign = if self.native { KILL } else { ALLOW };
        let mut code = vec![
            (LOAD, 0, 0, ARCHITECTURE),
            (EQUAL, 1, 0, NATIVE),
            (RETURN, 0, 0, foreign),
            (LOAD, 0, 0, NUMBER),
            (AT_LEAST, 0, 1, X32),
            (RETURN, 0, 0, foreign),
        ];
        for call in &self.calls {
            code.extend([(EQUAL, 0, 1, *call), refuse(libc::EPERM)]);
        }
        if let Some(families) = &self.families {
            let socket = u32::try_from(libc::SYS_socket).unwrap();
            code.extend([(EQUAL, 1, 0, socket), (RETURN, 0, 0, ALLOW), (LOAD, 0, 0, FIRST)]);
            for family in families {
                code.extend([(EQUAL, 0, 1, *family), (RETURN, 0, 0, ALLOW)]);
            }
            code.push(refuse(libc::EAFNOSUPPORT));
        }
        code.push((RETURN, 0, 0, ALLOW));
        code
    }
}
