//! Traffic without end, one line an attempt (see `enforcer_tests::traffic`).
//!
//! `enforcer-traffic tagged` is a workload: it asks the peer's server over HTTPS and DNS
//! as allowed, and all the time tries to reach what it may not. `enforcer-traffic
//! untagged` is somebody else of the host, who must never notice anything.
#![allow(clippy::unwrap_used, reason = "without its set-up it ends, and says so")]

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use enforcer_tests::netns::{PEER4, PEER6};
use enforcer_tests::traffic::{Attempt, PAYLOAD, TAGGED_TTL};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, SockaddrStorage, connect, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const NAME: &str = "upstream.test";
/// What is not answered until then hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A question over UDP that is lost is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);
/// Between two attempts of one kind.
const PAUSE: Duration = Duration::from_millis(10);
const RARE: Duration = Duration::from_millis(50);
/// Between two bytes of a slow body.
const SLOW: Duration = Duration::from_millis(20);
/// At the peer: its HTTPS server, a port that nobody tagged may reach, an echo.
const HTTPS: u16 = 443;
const TRAP: u16 = 4444;
const ECHO: u16 = 4446;

fn main() {
    let who = std::env::args().nth(1);
    let kinds: Vec<std::thread::JoinHandle<()>> = match who.as_deref() {
        Some("tagged") => tagged(),
        Some("untagged") => untagged(),
        _ => panic!("tagged or untagged"),
    };
    kinds.into_iter().for_each(|kind| kind.join().unwrap());
}

/// Does it again and again, on a thread of its own; nobody who reads is the end.
fn forever(
    kind: &'static str,
    pause: Duration,
    mut what: impl FnMut() -> Result<()> + Send + 'static,
) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        loop {
            let attempt = Attempt::make(kind, &mut what);
            if writeln!(std::io::stdout(), "{attempt}").is_err() {
                std::process::exit(0);
            }
            std::thread::sleep(pause);
        }
    })
}

fn tagged() -> Vec<std::thread::JoinHandle<()>> {
    let client = Arc::new(Client::new().unwrap());
    let (keeper, slow) = (Arc::clone(&client), Arc::clone(&client));
    let mut kept = None;
    let mut turn = 0;
    vec![
        forever("https", PAUSE, move || client.connect().and_then(|mut stream| ask(&mut stream))),
        forever("keep-alive", RARE, move || {
            let mut stream = match kept.take() {
                Some(stream) => stream,
                None => keeper.connect()?,
            };
            ask(&mut stream)?;
            kept = Some(stream);
            Ok(())
        }),
        forever("upload", PAUSE, move || slow.connect().and_then(|mut stream| upload(&mut stream))),
        forever("dns", RARE, resolve),
        forever("escape", PAUSE, move || {
            turn += 1;
            escape(turn)
        }),
    ]
}

fn untagged() -> Vec<std::thread::JoinHandle<()>> {
    let long = TcpStream::connect((PEER4, ECHO)).unwrap();
    long.set_read_timeout(Some(PATIENCE)).unwrap();
    let datagrams = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
    datagrams.connect((PEER4, ECHO)).unwrap();
    datagrams.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut turn = 0_u64;
    vec![
        forever("fresh", PAUSE, move || {
            turn += 1;
            let to: IpAddr = if turn.is_multiple_of(2) { PEER4.into() } else { PEER6.into() };
            let stream = TcpStream::connect_timeout(&(to, ECHO).into(), PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            echo(&stream)
        }),
        forever("long", PAUSE, move || echo(&long)),
        forever("datagram", PAUSE, move || {
            datagrams.send(b"once more")?;
            let mut answer = [0; 16];
            let length = datagrams.recv(&mut answer)?;
            ensure!(&answer[..length] == b"once more", "another answer");
            Ok(())
        }),
    ]
}

fn echo(mut stream: &TcpStream) -> Result<()> {
    let mut answer = [0; 5];
    stream.write_all(b"again")?;
    stream.read_exact(&mut answer)?;
    ensure!(&answer == b"again", "another answer");
    Ok(())
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A client that trusts what a job's files say.
struct Client(Arc<ClientConfig>);

impl Client {
    fn new() -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        ensure!(!roots.is_empty(), "no roots");
        Ok(Self(Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())))
    }

    fn connect(&self) -> Result<Tls> {
        let to = SocketAddr::from((PEER4, HTTPS));
        let fd = marked(to, SockType::Stream)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(to)).context("connect")?;
        let name = ServerName::try_from(NAME)?;
        let connection = ClientConnection::new(Arc::clone(&self.0), name)?;
        Ok(StreamOwned::new(connection, TcpStream::from(fd)))
    }
}

/// A statement that is open for most of a second.
fn upload(stream: &mut Tls) -> Result<()> {
    const PIECES: usize = 35;
    let head = format!("POST / HTTP/1.1\r\nhost: {NAME}\r\ncontent-length: {PIECES}\r\n\r\n");
    stream.write_all(head.as_bytes()).context("the request")?;
    for _ in 0..PIECES {
        std::thread::sleep(SLOW);
        stream.write_all(b"x").context("the body")?;
    }
    answer(stream)
}

/// One request and its whole answer.
fn ask(stream: &mut Tls) -> Result<()> {
    let head = format!("GET / HTTP/1.1\r\nhost: {NAME}\r\n\r\n");
    stream.write_all(head.as_bytes()).context("the request")?;
    answer(stream)
}

fn answer(stream: &mut Tls) -> Result<()> {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !answer.ends_with(b"hello\n") {
        let read = stream.read(&mut buffer).context("the answer")?;
        answer.extend(&buffer[..read]);
        ensure!(read > 0, "no whole answer: {:?}", String::from_utf8_lossy(&answer));
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(&answer));
    Ok(())
}

/// A question for the address of the server, as a stub resolver asks it.
fn resolve() -> Result<()> {
    let fd = marked((PEER4, 53).into(), SockType::Datagram)?;
    let socket = UdpSocket::from(fd);
    socket.set_read_timeout(Some(ASK_AGAIN))?;
    // One question for recursion, RFC 1035, section 4.1.
    let mut question = b"\x4e\x4f\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00".to_vec();
    for label in NAME.split('.') {
        question.push(u8::try_from(label.len())?);
        question.extend(label.as_bytes());
    }
    question.extend(b"\x00\x00\x01\x00\x01");
    socket.send_to(&question, (PEER4, 53)).context("the question")?;
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer).context("the answer")?;
    ensure!(answer[..length].ends_with(&PEER4.octets()), "another answer");
    Ok(())
}

/// One way out after the other. An answer of the peer's, or a datagram that was taken, is
/// a failure of the enforcer's; what else comes of it is the sniffer's to judge.
fn escape(turn: usize) -> Result<()> {
    let peers: [IpAddr; 2] = [PEER4.into(), PEER6.into()];
    let to = SocketAddr::from((peers[turn % 2], TRAP));
    let there = SockaddrStorage::from(to);
    match turn / 2 % 3 {
        0 | 1 => {
            let fast_open = turn / 2 % 3 == 1;
            let fd = marked(to, SockType::Stream)?;
            let begun = if fast_open {
                sendto(fd.as_raw_fd(), PAYLOAD, &there, MsgFlags::from_bits_retain(nix::libc::MSG_FASTOPEN))
                    .map(drop)
            } else {
                connect(fd.as_raw_fd(), &there)
            };
            let mut stream = TcpStream::from(fd);
            // Whoever refuses it, or answers it with something else, has stopped it.
            let mut answer = Vec::new();
            let sent = begun.is_ok() && (fast_open || stream.write_all(PAYLOAD).is_ok());
            if sent && stream.shutdown(Shutdown::Write).is_ok() {
                let _read = stream.read_to_end(&mut answer).is_err();
            }
            ensure!(!answer.starts_with(b"REAL"), "ESCAPED to {to}");
        }
        _ => {
            let fd = marked(to, SockType::Datagram)?;
            if sendto(fd.as_raw_fd(), PAYLOAD, &there, MsgFlags::empty()).is_ok() {
                bail!("ESCAPED: a datagram to {to} was taken");
            }
        }
    }
    Ok(())
}

/// A socket whose packets are known on the wire.
fn marked(to: SocketAddr, kind: SockType) -> Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, kind, SockFlag::SOCK_CLOEXEC, None).context("socket")?;
    let ttl = i32::from(TAGGED_TTL);
    match to {
        SocketAddr::V4(_) => setsockopt(&fd, sockopt::Ipv4Ttl, &ttl)?,
        SocketAddr::V6(_) => setsockopt(&fd, sockopt::Ipv6Ttl, &ttl)?,
    }
    let patience = TimeVal::new(i64::try_from(PATIENCE.as_secs())?, 0);
    setsockopt(&fd, sockopt::ReceiveTimeout, &patience)?;
    setsockopt(&fd, sockopt::SendTimeout, &patience)?;
    Ok(fd)
}
