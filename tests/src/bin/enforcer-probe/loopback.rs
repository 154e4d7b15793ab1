//! Attempts on what is redirected to loopback, and on what may go there directly.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use super::{PATIENCE, PAYLOAD, bind_socket, connect, option, pause, send, socket, talk};

/// Connects to the unspecified address from a socket that is bound to `to`: with a
/// listener of its own on loopback, and the kernel to choose who is meant.
pub fn unspecified(to: SocketAddr) -> io::Result<String> {
    let own: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::LOCALHOST, to.port()).into(),
        SocketAddr::V6(_) => (Ipv6Addr::LOCALHOST, to.port()).into(),
    };
    let anywhere: SocketAddr = match to {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, to.port()).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, to.port()).into(),
    };
    let listener = TcpListener::bind(own)?;
    listener.set_nonblocking(true)?;
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    bind_socket(&fd, (to.ip(), 0).into())?;
    connect(&fd, anywhere)?;
    if listener.accept().is_ok() {
        return Ok("own".to_owned());
    }
    talk(fd)
}

/// Takes an address without listening there, waits for a line, then listens and
/// gives everybody who comes the same answer.
pub fn hold(to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    bind_socket(&fd, to)?;
    pause(true);
    nix::sys::socket::listen(&fd, nix::sys::socket::Backlog::new(8)?)?;
    println!("listening");
    let listener = TcpListener::from(fd);
    loop {
        let (mut stream, _) = listener.accept()?;
        stream.read_exact(&mut [0; PAYLOAD.len()])?;
        stream.write_all(b"STOLEN")?;
    }
}

/// Connects from a certain port of loopback and sends something; then resets the
/// connection, or waits for an answer.
pub fn from_port(to: SocketAddr, port: Option<&str>, reset: bool) -> io::Result<String> {
    let port: u16 = port.and_then(|port| port.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    bind_socket(&fd, (Ipv4Addr::LOCALHOST, port).into())?;
    connect(&fd, to)?;
    if !reset {
        return talk(fd);
    }
    let mut stream = TcpStream::from(fd);
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(PAYLOAD)?;
    let linger = [1_i32.to_ne_bytes(), 0_i32.to_ne_bytes()].concat();
    option(&stream.into(), libc::SOL_SOCKET, libc::SO_LINGER, &linger)?;
    Ok("reset".to_owned())
}

/// As `from_port`, but the kernel sends the first packet only with the first bytes, after
/// a line has come.
pub fn late_from_port(to: SocketAddr, port: Option<&str>) -> io::Result<String> {
    /// Since Linux 4.15; libc has no name for it.
    const TCP_FASTOPEN_NO_COOKIE: i32 = 34;
    let port: u16 = port.and_then(|port| port.parse().ok()).ok_or(io::ErrorKind::InvalidInput)?;
    let fd = socket(to, libc::SOCK_STREAM, 0)?;
    option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, &1_i32.to_ne_bytes())?;
    for name in [TCP_FASTOPEN_NO_COOKIE, libc::TCP_FASTOPEN_CONNECT] {
        option(&fd, libc::IPPROTO_TCP, name, &1_i32.to_ne_bytes())?;
    }
    bind_socket(&fd, (Ipv4Addr::LOCALHOST, port).into())?;
    connect(&fd, to)?;
    pause(true);
    talk(fd)
}

/// Asks by a connected socket, after a line has come.
pub fn late_dns(to: SocketAddr) -> io::Result<String> {
    let fd = socket(to, libc::SOCK_DGRAM, 0)?;
    connect(&fd, to)?;
    pause(true);
    send(&fd)?;
    let mut answer = [0; 256];
    let length = UdpSocket::from(fd).recv(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
