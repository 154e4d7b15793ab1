//! The service in a network namespace with a cable, traffic from tagged and untagged
//! processes, and a sniffer at the far end.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::{Cable, PEER4};
use enforcer_tests::service::{Service, Upstream};
use enforcer_tests::sniffer::{Packet, Sniffer, contains};
use enforcer_tests::traffic::{Log, PAYLOAD, TAGGED_TTL};
use enforcer_tests::wait::within;

const NAME: &str = "upstream.test";
const TRAFFIC: &str = env!("CARGO_BIN_EXE_enforcer-traffic");
const POLICY: &str = r#"
version: 1
name: soak
rules:
  - id: allowed
    when: {host: upstream.test}
    allow: true
    addresses: [private]
"#;
/// How long traffic may take to begin.
const BEGINS: Duration = Duration::from_secs(30);
const PORT_HTTPS: u16 = 443;
const PORT_TRAP: u16 = 4444;
const PORT_ECHO: u16 = 4446;

/// Fields are dropped in this order: traffic before the service, that before its namespace.
pub struct World {
    pub tagged: Traffic,
    pub untagged: Traffic,
    _outside: Cgroup,
    pub service: Service,
    sniffer: Sniffer,
    _upstream: Upstream,
    _cable: Cable,
}

/// A process and what it has tried.
pub struct Traffic {
    process: Child,
    pub log: Log,
}

impl Traffic {
    fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let log = Log::of(process.stdout.take().unwrap());
        Self { process, log }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        // What runs as a job is killed with its cgroup.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl World {
    pub fn new() -> Self {
        let cable = Cable::new().unwrap();
        let upstream = Upstream::at_peer(&cable, NAME, "hello\n".to_owned()).unwrap();
        answer_everybody(&cable);
        let sniffer = Sniffer::start(&cable).unwrap();
        let netns = format!("--net=/run/netns/{}", cable.work.name());
        let service = Service::start_at(&cable, &[], NAME, &upstream.ca_pem, POLICY).unwrap();
        let outside = service.cgroup.child("outside").unwrap();
        let tagged = Traffic::start(service.command(&["run", "--", TRAFFIC, "tagged"]).unwrap());
        let untagged = Traffic::start(in_cgroup(&netns, outside.path()));
        let world = Self {
            tagged,
            untagged,
            _outside: outside,
            service,
            sniffer,
            _upstream: upstream,
            _cable: cable,
        };
        world.wait_for_traffic();
        world
    }

    fn wait_for_traffic(&self) {
        for (log, kinds) in [
            (&self.tagged.log, &["https", "keep-alive", "upload", "dns", "escape"][..]),
            (&self.untagged.log, &["fresh", "long", "datagram"][..]),
        ] {
            for kind in kinds {
                let came = within(BEGINS, || log.has(|it| it.kind == *kind && it.is_ok()));
                assert!(came.is_some(), "no {kind}: {:?}", log.all(|it| it.kind == *kind).last());
            }
        }
    }

    /// What has got out of a tagged process since the last time. What is left after the
    /// known traffic of others is nobody's, and so counts, too.
    pub fn leaked(&self) -> Vec<Packet> {
        let packets = self.sniffer.packets().unwrap();
        self.sniffer.clear().unwrap();
        packets.into_iter().filter(|it| is_tagged(it) || !is_known(it)).collect()
    }
}

fn is_tagged(packet: &Packet) -> bool {
    let at = if packet.destination.is_ipv4() { 8 } else { 7 };
    packet.bytes.get(at) == Some(&TAGGED_TTL) || contains(&packet.bytes, PAYLOAD)
}

/// Of the proxy to the upstream, or of the untagged process to the echo.
fn is_known(packet: &Packet) -> bool {
    let header = if packet.destination.is_ipv4() { 20 } else { 40 };
    let port = packet.bytes.get(header + 2..header + 4).map(|port| u16::from_be_bytes([port[0], port[1]]));
    let to_upstream =
        packet.protocol == 6 && packet.destination == IpAddr::V4(PEER4) && port == Some(PORT_HTTPS);
    to_upstream || matches!(packet.protocol, 6 | 17) && port == Some(PORT_ECHO)
}

fn in_cgroup(netns: &str, cgroup: &Path) -> Command {
    let script = format!("echo $$ > {}/cgroup.procs; exec {TRAFFIC} untagged", cgroup.display());
    let mut command = Command::new("nsenter");
    command.args([netns, "sh", "-c", &script]);
    command
}

/// At the far end: whoever escapes gets an answer, and so does whoever may ask.
fn answer_everybody(cable: &Cable) {
    let bind =
        |port| move || (TcpListener::bind(("::", port)).unwrap(), UdpSocket::bind(("::", port)).unwrap());
    let (trap, taken) = cable.peer.run(bind(PORT_TRAP)).unwrap();
    let (echo, datagrams) = cable.peer.run(bind(PORT_ECHO)).unwrap();
    std::thread::spawn(move || {
        for mut stream in trap.incoming().flatten() {
            // The client may be gone: its packets have been seen all the same.
            drop(stream.read(&mut [0; 64]).and_then(|_| stream.write_all(b"REAL")));
        }
    });
    std::thread::spawn(move || while taken.recv(&mut [0; 64]).is_ok() {});
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream).is_ok());
        }
    });
    std::thread::spawn(move || {
        let mut datagram = [0; 64];
        while let Ok((length, from)) = datagrams.recv_from(&mut datagram) {
            drop(datagrams.send_to(&datagram[..length], from));
        }
    });
}
