//! The service in a network namespace with a cable, and a sniffer at its far end.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::{Cable, Netns, PEER4};
use enforcer_tests::service::{Service, Upstream};
use enforcer_tests::sniffer::{Packet, Sniffer};

pub const NAME: &str = "upstream.test";
pub const PAYLOAD: &[u8] = b"PROBE-SECRET";
pub const PROBE: &str = env!("CARGO_BIN_EXE_enforcer-probe");
pub const REFUSED: &str = "error 1 ";
pub const TLS_PORT: u16 = 443;
const TCP: u8 = 6;
const SYN: u8 = 2;
/// At the peer, for connections that stay.
pub const ECHO_PORT: u16 = 4446;

/// `asked.test` is a name that only the host's own resolver could know.
const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: allowed
    when: {host: [upstream.test, asked.test]}
    allow: true
    addresses: [private]
"#;

/// Fields are dropped in this order: the service before its namespace.
pub struct World {
    pub outside: Cgroup,
    pub service: Service,
    pub sniffer: Sniffer,
    pub upstream: Upstream,
    pub cable: Cable,
}

impl World {
    pub fn new() -> Self {
        Self::started_by(&[])
    }

    /// The service is started by this command.
    pub fn started_by(wrapper: &[&str]) -> Self {
        let cable = Cable::new().unwrap();
        let upstream = Upstream::at_peer(&cable, NAME, "hello\n".to_owned()).unwrap();
        answer_everybody(&cable);
        let sniffer = Sniffer::start(&cable).unwrap();
        let service = Service::start_at(&cable, wrapper, NAME, &upstream.ca_pem, POLICY).unwrap();
        let outside = service.cgroup.child("outside").unwrap();
        sniffer.clear().unwrap();
        Self { service, outside, sniffer, upstream, cable }
    }

    /// What came over the cable since the last time.
    pub fn leaked(&self) -> Vec<Packet> {
        let packets = self.sniffer.packets().unwrap();
        self.sniffer.clear().unwrap();
        packets
    }

    /// A shell command by an untagged process in the same network namespace.
    pub fn untagged(&self, script: &str) -> String {
        self.in_cgroup(self.outside.path(), script)
    }

    /// A shell command by a process that comes into this cgroup.
    pub fn in_cgroup(&self, cgroup: &Path, script: &str) -> String {
        self.in_netns(cgroup, &self.cable.work, script)
    }

    /// A shell command in a cgroup and a network namespace.
    pub fn in_netns(&self, cgroup: &Path, netns: &Netns, script: &str) -> String {
        let out = Self::command_in(cgroup, netns, script).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// The same, to be started.
    pub fn command_in_cgroup(&self, cgroup: &Path, script: &str) -> Command {
        Self::command_in(cgroup, &self.cable.work, script)
    }

    fn command_in(cgroup: &Path, netns: &Netns, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        let script = format!("echo $$ > '{}/cgroup.procs'; {script}", cgroup.display());
        command.args([&format!("--net=/run/netns/{}", netns.name()), "sh", "-c", &script]);
        command
    }

    pub fn job(&self, script: &str) -> String {
        self.service.job(script).unwrap().0.trim().to_owned()
    }

    /// A shell command in the cgroup of a job that runs already, with nothing else of a job.
    pub fn tagged(&self, script: &str) -> String {
        self.in_cgroup(&self.cgroup_of(""), script)
    }

    /// The same in another network namespace.
    pub fn tagged_in(&self, netns: &Netns, script: &str) -> String {
        self.in_netns(&self.cgroup_of(""), netns, script)
    }

    pub fn tagged_command(&self, script: &str) -> Command {
        Self::command_in(&self.cgroup_of(""), &self.cable.work, script)
    }

    pub fn tagged_in_command(&self, netns: &Netns, script: &str) -> Command {
        Self::command_in(&self.cgroup_of(""), netns, script)
    }

    /// The cgroup of a job that runs and whose name begins like this.
    pub fn cgroup_of(&self, job: &str) -> PathBuf {
        let jobs = std::fs::read_dir(self.service.cgroup.path().join("jobs")).unwrap().flatten();
        let mut jobs =
            jobs.filter(|it| it.file_name().to_string_lossy().starts_with(job)).map(|it| it.path());
        jobs.find(|it| it.is_dir()).unwrap()
    }

    #[track_caller]
    pub fn nothing_leaves(&self, script: &str) -> String {
        let accepted = self.upstream.accepted.load(Ordering::SeqCst);
        let said = self.job(script);
        let packets = self.leaked();
        assert!(packets.is_empty(), "{script}: {said}: {packets:?}");
        assert_eq!(self.upstream.accepted.load(Ordering::SeqCst), accepted, "{script}: {said}");
        said
    }
}

/// At the far end, on the port that nobody may reach: answers over TCP, takes datagrams.
fn answer_everybody(cable: &Cable) {
    let bind = || (TcpListener::bind(("::", 4444)).unwrap(), UdpSocket::bind(("::", 4444)).unwrap());
    let (listener, datagrams) = cable.peer.run(bind).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut buffer = [0; 64];
            if stream.read(&mut buffer).is_ok() {
                // The client may be gone: the packet has been seen all the same.
                drop(stream.write_all(b"REAL"));
            }
        }
    });
    let echo = cable.peer.run(|| TcpListener::bind((PEER4, ECHO_PORT)).unwrap()).unwrap();
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).is_ok());
        }
    });
    std::thread::spawn(move || while datagrams.recv(&mut [0; 64]).is_ok() {});
}

/// On the connection of a proxy, as far as ports tell.
pub fn is_to_upstream(packet: &Packet) -> bool {
    let port = packet.bytes.get(22..24).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    packet.protocol == TCP && packet.destination == IpAddr::V4(PEER4) && port == Some(TLS_PORT)
}

/// The end of a connection that was there: a killed process leaves that to the kernel.
pub fn is_old_connection(packet: &Packet) -> bool {
    is_to_upstream(packet) && packet.bytes.get(33).is_some_and(|flags| flags & SYN == 0)
}
