//! The kernel half without the rest of the service: programs, cgroups, namespaces,
//! a sniffer, and stand-ins for the proxy.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::new_without_default, reason = "what it makes is not for default use")]
#![allow(unsafe_code, reason = "what a child does between fork and exec")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::cgroup::{self, Cgroup};
use crate::netns::{Cable, Netns, PEER4, PEER6};
use crate::sniffer::{Packet, Sniffer};
use enforcer::kernel::{Kernel, KernelConfig, LsmConfig, LsmMode, Refusal, Tc};
use enforcer::net::sys;

pub const PAYLOAD: &[u8] = b"PROBE-SECRET";
pub const TAG: u64 = 7001;
pub const OTHER_TAG: u64 = 7002;
pub const REAL_PORT: u16 = 4444;
pub const TCP_PORT: u16 = 15001;
pub const DNS_PORT: u16 = 15053;

/// One test at a time: at the root of a machine there is room for one enforcer.
pub static TURN: Mutex<()> = Mutex::new(());

/// Everything a test needs. Fields are dropped in this order.
pub struct World {
    pub kernel: Option<Kernel>,
    pub refusals: Vec<Refusal>,
    pub sniffer: Sniffer,
    pub job: Cgroup,
    pub other_job: Cgroup,
    pub jobs: Cgroup,
    pub outside: Cgroup,
    pub own: Cgroup,
    _root: Cgroup,
    pub cable: Cable,
    pub config: KernelConfig,
    pub records: Arc<Mutex<Vec<sys::FlowRecord>>>,
    pub mount: PathBuf,
    _turn: MutexGuard<'static, ()>,
}

impl World {
    pub fn new() -> Self {
        Self::of(object())
    }

    /// With this kernel half.
    pub fn of(object: PathBuf) -> Self {
        Self::made(object, LsmMode::Off, Tc::Auto)
    }

    /// With filters on interfaces, as before Linux 6.6, and served.
    pub fn with_filters() -> Self {
        let mut world = Self::made(object(), LsmMode::Off, Tc::Filters);
        world.serve();
        world.sniffer.clear().unwrap();
        world
    }

    /// With the second tier, where the kernel has it, and served. To attach it takes long
    /// in a virtual machine: tests that are not about it do without.
    pub fn with_lsm() -> Self {
        let mut world = Self::made(object(), LsmMode::Auto, Tc::Auto);
        world.serve();
        world.sniffer.clear().unwrap();
        world
    }

    /// With the second tier as this says, and not served.
    pub fn in_mode(mode: LsmMode) -> Self {
        Self::made(object(), mode, Tc::Auto)
    }

    fn made(object: PathBuf, mode: LsmMode, tc: Tc) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let name = format!("enf-test-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let root = Cgroup::at_root(&name).unwrap();
        let own = root.child("own").unwrap();
        let jobs = root.child("jobs").unwrap();
        let (job, other_job) = (jobs.child("job").unwrap(), jobs.child("other").unwrap());
        let outside = root.child("outside").unwrap();
        own.add(std::process::id()).unwrap();
        let attach = match std::env::var_os("ENFORCER_TEST_ATTACH") {
            Some(below) => {
                let below = PathBuf::from(below);
                cgroup::mount().unwrap().join(below.strip_prefix("/").unwrap_or(&below))
            }
            None => root.path().to_owned(),
        };
        let mount = std::env::temp_dir().join(&name);
        let config = KernelConfig {
            object,
            pins: mount.join("enforcer"),
            attach,
            own: own.path().to_owned(),
            jobs: jobs.path().to_owned(),
            tcp_port: TCP_PORT,
            dns_port: DNS_PORT,
            lsm: LsmConfig { mode, ..LsmConfig::default() },
            tc,
        };
        let cable = Cable::new().unwrap();
        serve_peer(&cable);
        let sniffer = Sniffer::start(&cable).unwrap();
        let mut world = Self {
            kernel: Some(load(&config)),
            refusals: Vec::new(),
            sniffer,
            job,
            other_job,
            jobs,
            outside,
            own,
            _root: root,
            cable,
            config,
            records: Arc::default(),
            mount,
            _turn: turn,
        };
        let path = world.job.path().to_owned();
        world.kernel().tag(&path, TAG, 0).unwrap();
        let path = world.other_job.path().to_owned();
        world.kernel().tag(&path, OTHER_TAG, 0).unwrap();
        world
    }

    /// With listeners and something that answers like the proxy.
    pub fn served() -> Self {
        let mut world = Self::new();
        world.serve();
        world.sniffer.clear().unwrap();
        world
    }

    pub fn serve(&mut self) {
        let netns = self.cable.work.file().try_clone().unwrap();
        self.serve_file(&netns);
    }

    /// The same in another namespace.
    pub fn serve_in(&mut self, netns: &Netns) {
        self.serve_file(netns.file());
    }

    fn serve_file(&mut self, netns: &File) {
        let listeners = self.kernel().open_listeners(Some(netns)).unwrap();
        assert!(listeners.has_ipv6());
        let [tcp4, tcp6, udp4, udp6] = listeners.into_fds().unwrap();
        for fd in [tcp4, tcp6] {
            stand_in(fd, self.records.clone());
        }
        for fd in [udp4, udp6] {
            stand_in_resolver(fd);
        }
    }

    pub fn kernel(&mut self) -> &mut Kernel {
        self.kernel.as_mut().unwrap()
    }

    pub fn spawn(&self, cgroup: &Cgroup, args: &[&str]) -> Child {
        self.spawn_with(cgroup, args, Stdio::piped())
    }

    pub fn spawn_with(&self, cgroup: &Cgroup, args: &[&str], stdin: Stdio) -> Child {
        let procs = File::options().write(true).open(cgroup.path().join("cgroup.procs")).unwrap();
        let netns = self.cable.work.file().try_clone().unwrap();
        let mut command = Command::new(probe());
        command.args(args).stdin(stdin).stdout(Stdio::piped());
        // SAFETY: only system calls, no memory is allocated.
        unsafe {
            command.pre_exec(move || {
                nix::unistd::write(&procs, b"0")?;
                if libc::setns(netns.as_raw_fd(), libc::CLONE_NEWNET) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        command.spawn().unwrap()
    }

    pub fn probe_in(&self, cgroup: &Cgroup, args: &[&str]) -> String {
        let done = self.spawn(cgroup, args).wait_with_output().unwrap();
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// A tagged process tries.
    pub fn tagged(&self, technique: &str, to: impl ToString) -> String {
        self.probe_in(&self.job, &[technique, &to.to_string()])
    }

    /// An untagged process in the same network namespace tries.
    pub fn untagged(&self, technique: &str, to: impl ToString) -> String {
        self.probe_in(&self.outside, &[technique, &to.to_string()])
    }

    /// What came over the cable since the last time.
    pub fn leaked(&self) -> Vec<Packet> {
        let packets = self.sniffer.packets().unwrap();
        self.sniffer.clear().unwrap();
        packets
    }

    #[track_caller]
    pub fn nothing_leaked(&self, what: &str) {
        let packets = self.leaked();
        assert!(packets.is_empty(), "{what}: {packets:?}");
    }

    #[track_caller]
    pub fn refused_with(&mut self, hook: &str, reason: &str) -> Refusal {
        let new = self.kernel().poll_refusals();
        self.refusals.extend(new);
        let found = self.refusals.iter().rev().find(|r| r.hook == hook && r.reason == reason);
        found.unwrap_or_else(|| panic!("no {hook}/{reason} in {:#?}", self.refusals)).clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(kernel) = self.kernel.take() {
            kernel.release().unwrap();
        } else {
            enforcer::kernel::release(&self.config.pins).unwrap();
        }
        std::fs::remove_dir(&self.mount).unwrap();
    }
}

/// What fails half-way leaves pins, for the next loader to adopt; a test cleans up.
pub fn load(config: &KernelConfig) -> Kernel {
    Kernel::load_or_adopt(config.clone()).unwrap_or_else(|e| {
        enforcer::kernel::release(&config.pins).unwrap();
        panic!("{e}: {}", tail(&format!("{e:?}")));
    })
}

/// The end of what the verifier says: the beginning is every instruction.
pub fn tail(text: &str) -> &str {
    let from = text.len().saturating_sub(3000);
    &text[text.ceil_char_boundary(from)..]
}

/// Where cargo built it, or beside the test in a virtual machine.
pub fn probe() -> PathBuf {
    let this = std::env::current_exe().unwrap();
    let mut places = this.ancestors().skip(1).take(2).map(|folder| folder.join("enforcer-probe"));
    places.find(|path| path.is_file()).expect("enforcer-probe is built beside the tests")
}

pub fn object() -> PathBuf {
    std::env::var_os("ENFORCER_BPF_OBJECT").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/enforcer.bpf.o")),
        PathBuf::from,
    )
}

pub fn real4() -> SocketAddr {
    (PEER4, REAL_PORT).into()
}

pub fn real6() -> SocketAddr {
    (PEER6, REAL_PORT).into()
}

pub fn mapped() -> String {
    format!("[::ffff:{PEER4}]:{REAL_PORT}")
}

/// At the far end: answers REAL over TCP, and listens for datagrams.
pub fn serve_peer(cable: &Cable) {
    let (listener, datagrams) = cable
        .peer
        .run(|| {
            let datagrams = UdpSocket::bind(("::", REAL_PORT)).unwrap();
            (TcpListener::bind(("::", REAL_PORT)).unwrap(), datagrams)
        })
        .unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                if stream.read(&mut buffer).is_ok() {
                    // The client may be gone: the packet has been seen all the same.
                    drop(stream.write_all(b"REAL"));
                }
            });
        }
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while datagrams.recv(&mut buffer).is_ok() {}
    });
}

/// Accepts like the proxy: no record, no answer.
pub fn stand_in(fd: OwnedFd, records: Arc<Mutex<Vec<sys::FlowRecord>>>) {
    let listener = TcpListener::from(fd);
    listener.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // An error is what a test gets that takes the programs away.
            let Ok(Some(record)) = sys::flow_of(stream.as_fd()) else { continue };
            assert!(matches!(sys::flow_of(stream.as_fd()), Ok(None)), "a record is taken once");
            records.lock().unwrap().push(record.clone());
            std::thread::spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
                let mut buffer = [0; 64];
                if stream.read(&mut buffer).is_ok() {
                    drop(stream.write_all(answer(&record).as_bytes()));
                }
            });
        }
    });
}

/// What the stand-in answers who sends it something.
pub fn answer(record: &sys::FlowRecord) -> String {
    format!("PROXY {} {} {}", record.orig_dst, record.tag, record.comm)
}

pub fn stand_in_resolver(fd: OwnedFd) {
    let socket = UdpSocket::from(fd);
    socket.set_nonblocking(false).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = match sys::udp_flow_of(socket.as_fd(), from).unwrap() {
                Some(r) => {
                    format!("{} for {} {}", String::from_utf8_lossy(&buffer[..length]), r.orig_dst, r.tag)
                }
                None => "NOBODY".to_owned(),
            };
            drop(socket.send_to(answer.as_bytes(), from));
        }
    });
}

pub const EPERM: &str = "error 1 ";
