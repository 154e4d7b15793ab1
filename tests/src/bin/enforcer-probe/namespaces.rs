//! What is about network namespaces: the first connects in one, and many connections
//! whose sources collide.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{PATIENCE, PAYLOAD, bind_socket, connect, option, socket, talk};

/// How long a namespace may take until it is served.
const SERVED: Duration = Duration::from_secs(10);
/// Where the ports of `attribute` begin: above those of the proxy.
const FIRST_PORT: u16 = 16_000;
/// Ports that it takes with each address of 127.0.0.0/8, and with `::1`.
const PORTS: [u16; 2] = [250, 7_000];

/// Connects until that is not refused any more; says how often and how long it was.
pub fn until_served(to: SocketAddr) -> io::Result<String> {
    let begun = Instant::now();
    let mut refused = 0;
    loop {
        let fd = socket(to, libc::SOCK_STREAM, 0)?;
        match connect(&fd, to) {
            Ok(()) => {
                let micros = begun.elapsed().as_micros();
                let said = talk(fd).unwrap_or_else(|error| error.to_string());
                return Ok(format!("refused={refused} micros={micros} {said}"));
            }
            Err(error) if begun.elapsed() > SERVED => return Err(error),
            // EPERM: no listeners. ECONNREFUSED: the moment before they listen.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ECONNREFUSED)) => {
                refused += 1;
                std::thread::sleep(Duration::from_micros(200));
            }
            Err(error) => return Err(error),
        }
    }
}

/// Arguments: a number among the processes of this namespace, how many connections, and
/// the workload's tag. Every connection has a source that other processes have at the
/// same time: the same port of another address, or all the same in another namespace;
/// and all processes go to the same destinations. The answer has to name each one.
pub fn attribute(args: &[String]) {
    let number = |at: usize| args[at].parse::<u32>().unwrap();
    let (process, count, tag) = (number(0), number(1), &args[2]);
    for index in 0..count {
        let (from, to) = if index % 2 == 0 { ends4(process, index / 2) } else { ends6(process, index / 2) };
        match one(from, to) {
            Ok(answer) if answer == format!("PROXY {to} {tag} enforcer-probe") => {}
            Ok(answer) => return println!("wrong {from} {to}: {answer}"),
            Err(error) => return println!("failed {from} {to}: {error}"),
        }
    }
    println!("ok {count}");
}

fn destination(index: u32) -> ([u8; 2], u16) {
    let bytes = index.to_be_bytes();
    ([bytes[2] % 4, bytes[3]], 1024 + u16::from_be_bytes([bytes[2], bytes[3]]) % 8000)
}

fn ends4(process: u32, index: u32) -> (SocketAddr, SocketAddr) {
    let ports = u32::from(PORTS[0]);
    let [.., high, low] = (index / ports).to_be_bytes();
    let process = u8::try_from(process + 1).unwrap();
    let from = Ipv4Addr::new(127, process, high, low);
    let port = FIRST_PORT + u16::try_from(index % ports).unwrap();
    let ([net, host], to) = destination(index);
    ((from, port).into(), (Ipv4Addr::new(198, 18, net, host), to).into())
}

/// There is one address only: the processes of a namespace have other ports each.
fn ends6(process: u32, index: u32) -> (SocketAddr, SocketAddr) {
    let ports = u32::from(PORTS[1]);
    let port = u32::from(FIRST_PORT) + process * ports + index % ports;
    let ([net, host], to) = destination(index);
    let there = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, net.into(), host.into());
    ((Ipv6Addr::LOCALHOST, u16::try_from(port).unwrap()).into(), (there, to).into())
}

fn one(from: SocketAddr, to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    bind_socket(&fd, from)?;
    connect(&fd, to)?;
    let mut stream = TcpStream::from(fd);
    stream.set_read_timeout(Some(PATIENCE * 20))?;
    stream.write_all(PAYLOAD)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A frame out of the interface of the cable; with `bypass` around its classifiers.
pub fn frame(to: SocketAddr, bypass: bool) -> io::Result<String> {
    let std::net::IpAddr::V4(to) = to.ip() else { return Err(io::ErrorKind::InvalidInput.into()) };
    let frames = enforcer_tests::frame::Frames::open(enforcer_tests::netns::WORK_INTERFACE)?;
    if bypass {
        frames.bypass()?;
    }
    frames.send(enforcer_tests::netns::WORK4, to, PAYLOAD)?;
    Ok("sent".to_owned())
}
