//! One attempt to reach somebody, as a workload would make it: run inside of a
//! tagged cgroup by the suites. Prints what came of it in one line.
#![allow(unsafe_code, reason = "raw system calls are the point")]
#![allow(clippy::unwrap_used, reason = "a probe that cannot go on ends")]

mod abi;
mod calls;
mod host;
mod level;
mod loopback;
mod lsm;
mod namespaces;
mod options;
mod outside;
mod raw;
mod refuses;
mod unit;
mod uring;

use std::io::{self, BufRead, Read, Write};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};

const PAYLOAD: &[u8] = b"PROBE-SECRET";
const PATIENCE: Duration = Duration::from_millis(1500);
const PATIENCE_OF_ALL_S: u32 = 60;
const MPTCP: i32 = 262;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args[0] == "loader" {
        return loader(&args[1..]);
    }
    if args[0] == "attribute" {
        return namespaces::attribute(&args[1..]);
    }
    if args[0] == "refuses" {
        return said(Err(refuses::run(&args[1], &args[2], &args[3..])));
    }
    if args[0] == "lsm" {
        return said(lsm::attempt(&args[1..]));
    }
    // `as LEVEL CGROUP`, and then what is tried there.
    if args[0] == "as" {
        // Nothing that is tried takes long; what hangs ends.
        nix::unistd::alarm::set(PATIENCE_OF_ALL_S);
        return said(Err(level::enter(&args[1], &args[2], &args[3..])));
    }
    said(special(&args).unwrap_or_else(|| {
        let target = args.get(1).map(|a| a.parse::<SocketAddr>().unwrap());
        attempt(&args[0], target, args.get(2).map(String::as_str))
    }));
}

fn said(outcome: io::Result<String>) {
    match outcome {
        Ok(text) => println!("ok {text}"),
        Err(e) => println!("error {} {e}", e.raw_os_error().unwrap_or(0)),
    }
}

/// What takes other arguments than a destination.
fn special(args: &[String]) -> Option<io::Result<String>> {
    let kind = args[0].as_str();
    if kind.starts_with("by-") {
        return Some(outside::through(kind, &args[1]));
    }
    let to: SocketAddr = args.get(1)?.parse().ok()?;
    let number = |n: usize| args[n].parse::<i32>().unwrap();
    match kind {
        _ if kind.starts_with("relay-") => Some(outside::relay(kind, to, &args[2])),
        "victim" => Some(outside::victim(to, args.len() > 2)),
        "steal-connected" | "steal-fresh" => Some(outside::steal(kind, to, number(2), number(3))),
        "puppet" => {
            let words: Vec<u64> = args[3..].iter().map(|word| word.parse().unwrap()).collect();
            Some(outside::puppet(number(2), &words))
        }
        "take-connected" | "take-tcp" | "take-udp" => Some(outside::take(kind, to, &args[2])),
        _ => host::run(kind, to, &args[2..])
            .or_else(|| options::attempt(kind, to, args.get(2).map(String::as_str)))
            .or_else(|| raw::attempt(kind, to, args.get(2).map(String::as_str)))
            .or_else(|| calls::attempt(kind, to)),
    }
}

fn attempt(technique: &str, target: Option<SocketAddr>, extra: Option<&str>) -> io::Result<String> {
    let wait = extra == Some("wait");
    let to = target.unwrap_or((Ipv4Addr::LOCALHOST, 0).into());
    match technique {
        "tcp" => connect_and_talk(&socket(to, libc::SOCK_STREAM, 0)?, to, wait),
        // The socket was made by somebody else and is handed over as standard input.
        "foreign-tcp" => connect_and_talk(&io::stdin().as_fd().try_clone_to_owned()?, to, false),
        "foreign-send" => send(&io::stdin().as_fd().try_clone_to_owned()?).map(|()| "sent".to_owned()),
        "inherited-send" => send(&inherited()?).map(|()| "sent".to_owned()),
        "foreign-udp" => {
            let fd = io::stdin().as_fd().try_clone_to_owned()?;
            connect(&fd, to)?;
            send(&fd).map(|()| "sent".to_owned())
        }
        "mptcp" => connect_and_talk(&socket(to, libc::SOCK_STREAM, MPTCP)?, to, wait),
        "fastopen" => fast_open(to),
        "fastopen-connect" => {
            let fd = socket(to, libc::SOCK_STREAM, 0)?;
            option(&fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN_CONNECT, &1_i32.to_ne_bytes())?;
            connect_and_talk(&fd, to, wait)
        }
        "bindtodevice" => {
            let fd = socket(to, libc::SOCK_STREAM, 0)?;
            option(&fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, b"work0\0")?;
            connect_and_talk(&fd, to, wait)
        }
        "ip-options" => {
            let fd = socket(to, libc::SOCK_STREAM, 0)?;
            option(&fd, libc::IPPROTO_IP, libc::IP_OPTIONS, &source_route())?;
            connect_and_talk(&fd, to, wait)
        }
        "uring" => uring::connect_and_talk(to, extra.unwrap_or_default()),
        "connected-wait" => {
            let fd = socket(to, libc::SOCK_STREAM, 0)?;
            connect(&fd, to)?;
            pause(true);
            send(&fd).map(|()| "sent".to_owned())
        }
        "bind-shared" => {
            let fd = socket(to, libc::SOCK_STREAM, 0)?;
            option(&fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, &1_i32.to_ne_bytes())?;
            bind_socket(&fd, to).map(|()| "bound".to_owned())
        }
        "uring-sendmsg" => udp(to, wait, |fd| uring::send_msg(fd, to)),
        "uring-flood" => uring::flood(to),
        "uring-setsockopt" => uring::set_options(to, extra.unwrap_or_default()),
        "donate-tcp" => donate(&socket(to, libc::SOCK_STREAM, 0)?),
        "donate-connected" => {
            let fd = socket(to, libc::SOCK_STREAM, 0)?;
            connect(&fd, to)?;
            donate(&fd)
        }
        "donate-udp" => donate(&socket(to, libc::SOCK_DGRAM, 0)?),
        "udplite" => raw(to, libc::SOCK_DGRAM, 136),
        "icmp-dgram" => raw(to, libc::SOCK_DGRAM, if to.is_ipv4() { 1 } else { 58 }),
        "icmp-raw" => raw(to, libc::SOCK_RAW, if to.is_ipv4() { 1 } else { 58 }),
        "bind" => bind(to, libc::SOCK_STREAM).map(|_| "bound".to_owned()),
        "bind-udp" => bind(to, libc::SOCK_DGRAM).map(|_| "bound".to_owned()),
        "listen" => listen(to),
        "own-loopback" => own_loopback(to.ip()),
        "frame" => namespaces::frame(to, extra == Some("bypass")),
        "until-served" => namespaces::until_served(to),
        "unspecified" => loopback::unspecified(to),
        "hold" => loopback::hold(to),
        "reset-from" | "tcp-from" => loopback::from_port(to, extra, technique == "reset-from"),
        "late-from" => loopback::late_from_port(to, extra),
        "late-dns" => loopback::late_dns(to),
        other => datagram(other, to, wait),
    }
}

/// By a socket for datagrams, of which only DNS gets anywhere.
fn datagram(technique: &str, to: SocketAddr, wait: bool) -> io::Result<String> {
    match technique {
        "udp-ip-options" => udp(to, wait, |fd| {
            option(fd, libc::IPPROTO_IP, libc::IP_OPTIONS, &source_route())?;
            send_to(fd, to, 0)
        }),
        "udp-sendto" => udp(to, wait, |fd| send_to(fd, to, 0)),
        "udp-sendmsg" => udp(to, wait, |fd| send_msg(fd, to, 0, 0, &[])),
        // The first packet of a QUIC connection: a long header, padded.
        "quic" => udp(to, wait, |fd| {
            let mut initial = [&[0xc3, 0, 0, 0, 1, 8][..], PAYLOAD].concat();
            initial.resize(1200, 0);
            send_bytes_to(fd, to, 0, &initial)
        }),
        "udp-retopts" | "dns-retopts" => {
            udp(to, wait, |fd| send_msg(fd, to, libc::IPPROTO_IP, libc::IP_RETOPTS, &source_route()))
        }
        "dns-pktinfo4" => udp(to, wait, |fd| {
            let mut info = nix::net::if_::if_nametoindex("work0")?.to_ne_bytes().to_vec();
            info.extend([0; 8]);
            send_msg(fd, to, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
        }),
        "udp-sendmmsg" => udp(to, wait, |fd| send_mmsg(fd, to)),
        "udp-connect" => udp(to, wait, |fd| connect(fd, to).and_then(|()| send(fd))),
        "udp-rthdr" => udp(to, wait, |fd| {
            option(fd, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &routing_header(4, 0))?;
            send_to(fd, to, 0)
        }),
        "igmp" => udp(to, wait, |fd| {
            let IpAddr::V4(group) = to.ip() else { return Err(io::ErrorKind::InvalidInput.into()) };
            let mut request = group.octets().to_vec();
            request.extend([0; 4]);
            option(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, &request)?;
            // The kernel reports at a time of its own within this second.
            std::thread::sleep(PATIENCE);
            Ok(())
        }),
        "dns-pktinfo" => udp(to, wait, |fd| {
            // Any source address, but out of the cable's interface.
            let mut info = vec![0; 16];
            info.extend(nix::net::if_::if_nametoindex("work0")?.to_ne_bytes());
            send_msg(fd, to, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
        }),
        "dns-rthdr" => {
            udp(to, wait, |fd| send_msg(fd, to, libc::IPPROTO_IPV6, libc::IPV6_RTHDR, &routing_header(2, 1)))
        }
        "dns" => dns(to, false),
        "dns-connect" => dns(to, true),
        other => panic!("no technique {other}"),
    }
}

/// A loader that does nothing but hold what it has loaded, until it is killed.
/// Arguments: object, pins, attach, own, jobs, a cgroup to tag.
fn loader(args: &[String]) {
    let config = enforcer::kernel::KernelConfig {
        object: (&args[0]).into(),
        pins: (&args[1]).into(),
        attach: (&args[2]).into(),
        own: (&args[3]).into(),
        jobs: (&args[4]).into(),
        tcp_port: 15001,
        dns_port: 15053,
        lsm: enforcer::kernel::LsmConfig::default(),
        tc: enforcer::kernel::Tc::Auto,
    };
    let loaded = enforcer::kernel::Kernel::load_or_adopt(config)
        .and_then(|mut kernel| kernel.tag(args[5].as_ref(), 7001, 0).map(|_| kernel));
    match loaded {
        Ok(_kernel) => {
            println!("loaded");
            std::thread::sleep(Duration::from_secs(60));
        }
        Err(e) => println!("refused {e} {e:?}"),
    }
}

/// A loose source route whose first hop is the peer, whatever the destination says.
fn source_route() -> Vec<u8> {
    const LOOSE_SOURCE_ROUTE: u8 = 131;
    // Padded to whole words by an end of the list.
    vec![LOOSE_SOURCE_ROUTE, 7, 4, 10, 77, 0, 2, 0]
}

/// A routing header whose only hop is the peer. As an option the kernel takes type 4
/// (RFC 8754, section 2), as a control message type 2 (RFC 6275, section 6.4).
fn routing_header(kind: u8, left: u8) -> Vec<u8> {
    let mut header = vec![0, 2, kind, left, 0, 0, 0, 0];
    header.extend(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2).octets());
    header
}

/// Gives a socket of its own to whoever is at the other end of standard input.
fn donate(socket: &OwnedFd) -> io::Result<String> {
    use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, sendmsg};
    let fds = [socket.as_raw_fd()];
    let given = [ControlMessage::ScmRights(&fds)];
    sendmsg::<UnixAddr>(0, &[io::IoSlice::new(b"x")], &given, MsgFlags::empty(), None)?;
    Ok("given".to_owned())
}

/// The descriptor that the suite leaves open beside the standard ones.
fn inherited() -> io::Result<OwnedFd> {
    const NUMBER: i32 = 9;
    // SAFETY: F_GETFD has no effect; it fails if the number is no descriptor.
    check(unsafe { libc::fcntl(NUMBER, libc::F_GETFD) })?;
    // SAFETY: nobody else in this process uses it.
    Ok(unsafe { OwnedFd::from_raw_fd(NUMBER) })
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_size(result: isize) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn socket(to: SocketAddr, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) })?;
    // SAFETY: a new descriptor.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let patience = libc::timeval {
        tv_sec: PATIENCE.as_secs().cast_signed(),
        tv_usec: i64::from(PATIENCE.subsec_micros()),
    };
    // SAFETY: two integers.
    let patience: [u8; 16] = unsafe { std::mem::transmute(patience) };
    option(&fd, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &patience)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &patience)?;
    Ok(fd)
}

fn option(fd: &OwnedFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
    let length = libc::socklen_t::try_from(value.len()).unwrap();
    // SAFETY: the kernel reads that many bytes.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, value.as_ptr().cast(), length) }).map(drop)
}

/// The address as the kernel wants it.
fn raw_address(to: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: zero is valid.
    let mut storage: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let length = match to {
        SocketAddr::V4(v4) => {
            // SAFETY: the storage is larger than any address.
            let a = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in>() };
            a.sin_family = 2;
            a.sin_port = v4.port().to_be();
            a.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            // SAFETY: as above.
            let a = unsafe { &mut *(&raw mut storage).cast::<libc::sockaddr_in6>() };
            a.sin6_family = 10;
            a.sin6_port = v6.port().to_be();
            a.sin6_addr.s6_addr = v6.ip().octets();
            a.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, libc::socklen_t::try_from(length).unwrap())
}

fn connect(fd: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = raw_address(to);
    // SAFETY: an address of that length.
    check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

fn send(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: the kernel reads that many bytes.
    check_size(unsafe { libc::send(fd.as_raw_fd(), PAYLOAD.as_ptr().cast(), PAYLOAD.len(), 0) })
}

fn send_to(fd: &OwnedFd, to: SocketAddr, flags: i32) -> io::Result<()> {
    send_bytes_to(fd, to, flags, PAYLOAD)
}

fn send_bytes_to(fd: &OwnedFd, to: SocketAddr, flags: i32, bytes: &[u8]) -> io::Result<()> {
    let (address, length) = raw_address(to);
    // SAFETY: a payload and an address of those lengths.
    check_size(unsafe {
        libc::sendto(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            flags,
            (&raw const address).cast(),
            length,
        )
    })
}

fn message(address: &mut libc::sockaddr_storage, length: u32, part: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: zero is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_name = (&raw mut *address).cast();
    message.msg_namelen = length;
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message
}

fn part() -> libc::iovec {
    libc::iovec { iov_base: PAYLOAD.as_ptr().cast_mut().cast(), iov_len: PAYLOAD.len() }
}

/// With a control message, unless that is empty.
fn send_msg(fd: &OwnedFd, to: SocketAddr, level: i32, kind: i32, control: &[u8]) -> io::Result<()> {
    let (mut address, length) = raw_address(to);
    let mut part = part();
    let mut message = message(&mut address, length, &mut part);
    let mut buffer = [0_u64; 16];
    if !control.is_empty() {
        let size = u32::try_from(control.len()).unwrap();
        message.msg_control = buffer.as_mut_ptr().cast();
        // SAFETY: the buffer is larger than any header with its value.
        unsafe {
            message.msg_controllen = libc::CMSG_SPACE(size) as usize;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(size) as usize;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(control.as_ptr(), control.len());
        }
    }
    // SAFETY: everything it points to is alive.
    check_size(unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const message, 0) })
}

fn send_mmsg(fd: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (mut address, length) = raw_address(to);
    let mut part = part();
    let message = message(&mut address, length, &mut part);
    let mut batch =
        [libc::mmsghdr { msg_hdr: message, msg_len: 0 }, libc::mmsghdr { msg_hdr: message, msg_len: 0 }];
    // SAFETY: everything it points to is alive.
    check(unsafe { libc::sendmmsg(fd.as_raw_fd(), batch.as_mut_ptr(), 2, 0) }).map(drop)
}

/// Says that it is ready and waits for a line: meanwhile the test tags this process.
fn pause(wait: bool) {
    if wait {
        println!("ready");
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).unwrap();
    }
}

fn connect_and_talk(fd: &OwnedFd, to: SocketAddr, wait: bool) -> io::Result<String> {
    pause(wait);
    connect(fd, to)?;
    talk(fd.try_clone()?)
}

fn talk(fd: OwnedFd) -> io::Result<String> {
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(PAYLOAD)?;
    let peer = stream.peer_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(format!("peer={peer} {answer}"))
}

fn fast_open(to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    // Twice: the first gets the cookie, the second carries data in the SYN.
    send_to(&fd, to, libc::MSG_FASTOPEN)?;
    drop(fd);
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    send_to(&fd, to, libc::MSG_FASTOPEN)?;
    let mut stream = TcpStream::from(fd);
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn udp(to: SocketAddr, wait: bool, how: impl FnOnce(&OwnedFd) -> io::Result<()>) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_DGRAM, 0)?;
    pause(wait);
    how(&fd)?;
    Ok("sent".to_owned())
}

fn raw(to: SocketAddr, kind: i32, protocol: i32) -> io::Result<String> {
    let fd = socket(to, kind, protocol)?;
    let mut echo = vec![if to.is_ipv4() { 8 } else { 128 }, 0, 0, 0, 0, 1, 0, 1];
    echo.extend(PAYLOAD);
    let (address, length) = raw_address(to);
    // SAFETY: a packet and an address of those lengths.
    check_size(unsafe {
        libc::sendto(fd.as_raw_fd(), echo.as_ptr().cast(), echo.len(), 0, (&raw const address).cast(), length)
    })?;
    Ok("sent".to_owned())
}

fn dns(to: SocketAddr, connected: bool) -> io::Result<String> {
    let fd = std::net::UdpSocket::from(socket(to, libc::SOCK_DGRAM, 0)?);
    let mut buffer = [0; 512];
    let mut answers = Vec::new();
    if connected {
        fd.connect(to)?;
    }
    // Two questions from one socket, as resolvers ask for A and AAAA.
    for question in ["A?", "AAAA?"] {
        if connected {
            fd.send(question.as_bytes())?;
            let length = fd.recv(&mut buffer)?;
            answers.push(format!("from={} {}", fd.peer_addr()?, String::from_utf8_lossy(&buffer[..length])));
        } else {
            fd.send_to(question.as_bytes(), to)?;
            let (length, from) = fd.recv_from(&mut buffer)?;
            answers.push(format!("from={from} {}", String::from_utf8_lossy(&buffer[..length])));
        }
    }
    Ok(answers.join(" | "))
}

fn bind(to: SocketAddr, kind: i32) -> io::Result<OwnedFd> {
    let fd = socket(to, kind, 0)?;
    bind_socket(&fd, to)?;
    Ok(fd)
}

fn bind_socket(fd: &OwnedFd, to: SocketAddr) -> io::Result<()> {
    let (address, length) = raw_address(to);
    // SAFETY: an address of that length.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) }).map(drop)
}

/// Waits to be pulled from: the answer is the payload.
fn listen(to: SocketAddr) -> io::Result<String> {
    let listener = TcpListener::bind(to)?;
    println!("ready");
    let mut comes = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    if nix::poll::poll(&mut comes, PollTimeout::try_from(PATIENCE).unwrap())? == 0 {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let (mut stream, from) = listener.accept()?;
    stream.write_all(PAYLOAD)?;
    Ok(format!("accepted {from}"))
}

/// Talks to a server of its own on loopback, over TCP and UDP.
fn own_loopback(ip: IpAddr) -> io::Result<String> {
    let listener = TcpListener::bind((ip, 0))?;
    let address = listener.local_addr()?;
    let server =
        std::thread::spawn(move || -> io::Result<()> { listener.accept()?.0.write_all(b"own server") });
    let mut stream = TcpStream::connect(address)?;
    let peer = stream.peer_addr()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    server.join().unwrap()?;
    let there = std::net::UdpSocket::bind((ip, 0))?;
    let here = std::net::UdpSocket::bind((ip, 0))?;
    here.set_read_timeout(Some(PATIENCE))?;
    there.set_read_timeout(Some(PATIENCE))?;
    here.send_to(b"ping", there.local_addr()?)?;
    let mut buffer = [0; 16];
    let (length, from) = there.recv_from(&mut buffer)?;
    there.send_to(&buffer[..length], from)?;
    let length = here.recv(&mut buffer)?;
    Ok(format!("{answer} same-peer={} udp={length}", peer == address))
}
