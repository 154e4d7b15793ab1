//! Servers whose answers carry secrets and come in pieces, cut wherever the path says:
//! `/FRAMING/CODING/AT`, where `AT` is an offset, or `each` for every byte alone.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use flate2::Compression;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use crate::origin::{Body, certificate};

/// A piece that nobody takes for so long was not waited for by anybody.
const TAKEN: Duration = Duration::from_secs(2);

/// One text in each coding, and a header for every answer.
pub struct Content {
    pub codings: [Coding; 3],
    header: String,
}

pub struct Coding {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    gzip: bool,
}

impl Content {
    /// `x-key` has this value. Stored data is gzip in which the text stands as it is.
    pub fn new(text: &str, header: &str) -> Result<Self> {
        let gzip = |level| -> Result<Vec<u8>> {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
            encoder.write_all(text.as_bytes())?;
            Ok(encoder.finish()?)
        };
        let codings = [
            Coding { name: "plain", bytes: text.into(), gzip: false },
            Coding { name: "gzip", bytes: gzip(Compression::best())?, gzip: true },
            Coding { name: "stored", bytes: gzip(Compression::none())?, gzip: true },
        ];
        Ok(Self { codings, header: header.to_owned() })
    }

    fn answer(&self, path: &str) -> Option<Answer<'_>> {
        let mut parts = path.strip_prefix('/')?.split('/');
        let (framing, coding, at) = (parts.next()?, parts.next()?, parts.next()?);
        let coding = self.codings.iter().find(|it| it.name == coding)?;
        let pieces: Vec<&[u8]> = match at {
            "each" => coding.bytes.chunks(1).collect(),
            at => coding.bytes.split_at_checked(at.parse().ok()?).map(|(one, two)| vec![one, two])?,
        };
        let mut headers = vec![("content-type", "text/plain".to_owned()), ("x-key", self.header.clone())];
        if coding.gzip {
            headers.push(("content-encoding", "gzip".to_owned()));
        }
        if framing == "length" {
            headers.push(("content-length", coding.bytes.len().to_string()));
        }
        let pieces = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        Some(Answer { headers, pieces, chunked: framing == "chunked" })
    }
}

struct Answer<'a> {
    headers: Vec<(&'static str, String)>,
    pieces: Vec<&'a [u8]>,
    chunked: bool,
}

/// Both servers; they end with the process.
pub struct Servers {
    pub h1: SocketAddr,
    pub h2: SocketAddr,
    pub ca_pem: String,
}

impl Servers {
    /// Serves `name` on loopback addresses that are not the proxy's.
    pub fn start(name: &str, content: Content) -> Result<Self> {
        let (mut tls, ca_pem) = certificate(&[name])?;
        let content = Arc::new(content);
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let h2 = start_h2(Arc::new(tls.clone()), Arc::clone(&content))?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let h1 = start_h1(Arc::new(tls), content)?;
        Ok(Self { h1, h2, ca_pem })
    }
}

/// Sends the next piece only when the last one was taken: one write, one read.
fn start_h1(tls: Arc<rustls::ServerConfig>, content: Arc<Content>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.2:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tls, content) = (Arc::clone(&tls), Arc::clone(&content));
            // How a client leaves is its own affair.
            std::thread::spawn(move || serve_h1(stream, tls, &content).is_ok());
        }
    });
    Ok(address)
}

fn serve_h1(stream: TcpStream, tls: Arc<rustls::ServerConfig>, content: &Content) -> Result<()> {
    stream.set_nodelay(true)?;
    let taken = Taken::of(&stream)?;
    let connection = rustls::ServerConnection::new(tls)?;
    let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
    loop {
        let (mut first, mut line) = (String::new(), String::new());
        anyhow::ensure!(stream.read_line(&mut first)? > 0, "the client is gone");
        while line != "\r\n" {
            line.clear();
            anyhow::ensure!(stream.read_line(&mut line)? > 0, "half a request");
        }
        let to = stream.get_mut();
        let path = first.split(' ').nth(1).unwrap_or_default();
        let Some(answer) = content.answer(path) else {
            to.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")?;
            continue;
        };
        let mut head = "HTTP/1.1 200 OK\r\n".to_owned();
        if answer.chunked {
            head += "transfer-encoding: chunked\r\n";
        }
        for (name, value) in &answer.headers {
            head += &format!("{name}: {value}\r\n");
        }
        to.write_all((head + "\r\n").as_bytes())?;
        for piece in answer.pieces {
            to.flush()?;
            taken.wait()?;
            if answer.chunked {
                to.write_all(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
            } else {
                to.write_all(piece)?;
            }
        }
        if answer.chunked {
            to.write_all(b"0\r\n\r\n")?;
        }
        to.flush()?;
    }
}

/// Asks the kernel whether the other end, on this host, has read all that came to it:
/// by sock_diag(7), for `/proc/net/tcp` walks through a table of all sockets.
struct Taken {
    kernel: OwnedFd,
    request: Vec<u8>,
}

impl Taken {
    /// Of a netlink message's header, and where the answer has its `idiag_rqueue`.
    const HEADER: usize = 16;
    const SOCK_DIAG_BY_FAMILY: [u8; 2] = 20_u16.to_ne_bytes();
    const QUEUE: std::ops::Range<usize> = 72..76;

    fn of(stream: &TcpStream) -> Result<Self> {
        let (SocketAddr::V4(other), SocketAddr::V4(own)) = (stream.peer_addr()?, stream.local_addr()?) else {
            anyhow::bail!("this is for version 4");
        };
        let place = |ip: Ipv4Addr| [ip.octets(), [0; 4], [0; 4], [0; 4]].concat();
        let (family, protocol) = (libc::AF_INET.to_ne_bytes()[0], libc::IPPROTO_TCP.to_ne_bytes()[0]);
        // `inet_diag_req_v2`: one socket, in any state, on any interface, by no cookie.
        let body = [
            &[family, protocol, 0, 0, 0xff, 0xff, 0xff, 0xff][..],
            &other.port().to_be_bytes(),
            &own.port().to_be_bytes(),
            &place(*other.ip()),
            &place(*own.ip()),
            &[0; 4],
            &[0xff; 8],
        ]
        .concat();
        let length = u32::try_from(Self::HEADER + body.len())?.to_ne_bytes();
        // NLM_F_REQUEST, no sequence, no port.
        let header = [&length[..], &Self::SOCK_DIAG_BY_FAMILY, &1_u16.to_ne_bytes(), &[0; 8]].concat();
        let flags = SockFlag::SOCK_CLOEXEC;
        let kernel =
            socket(AddressFamily::Netlink, SockType::Raw, flags, Some(SockProtocol::NetlinkSockDiag))?;
        Ok(Self { kernel, request: [header, body].concat() })
    }

    fn wait(&self) -> Result<()> {
        let until = Instant::now() + TAKEN;
        while Instant::now() < until {
            let (fd, mut answer) = (self.kernel.as_raw_fd(), [0; 512]);
            send(fd, &self.request, MsgFlags::empty())?;
            let length = recv(fd, &mut answer, MsgFlags::empty())?;
            let answer = answer.get(..length).unwrap_or_default();
            anyhow::ensure!(answer.get(4..6) == Some(&Self::SOCK_DIAG_BY_FAMILY), "the client is gone");
            if answer.get(Self::QUEUE).context("a short answer")? == [0; 4] {
                return Ok(());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        anyhow::bail!("a piece was not taken")
    }
}

/// Each piece is a DATA frame of its own, whoever reads when.
fn start_h2(tls: Arc<rustls::ServerConfig>, content: Arc<Content>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.2:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, content) = (Arc::clone(&tls), Arc::clone(&content));
                tokio::spawn(async move { serve_h2(stream, tls, content).await.is_ok() });
            }
        });
    });
    Ok(address)
}

async fn serve_h2(
    stream: tokio::net::TcpStream,
    tls: Arc<rustls::ServerConfig>,
    content: Arc<Content>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await?;
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let response = response(&content, request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    Ok(builder.serve_connection(TokioIo::new(stream), service).await?)
}

fn response(content: &Content, path: &str) -> Response<Body> {
    let Some(answer) = content.answer(path) else {
        let mut response =
            Response::new(http_body_util::Empty::new().map_err(|it| match it {}).boxed_unsync());
        *response.status_mut() = http::StatusCode::NOT_FOUND;
        return response;
    };
    let frames: Vec<_> = answer.pieces.iter().map(|it| Bytes::copy_from_slice(it)).map(Frame::data).collect();
    let mut response =
        Response::new(StreamBody::new(futures_util::stream::iter(frames.into_iter().map(Ok))).boxed_unsync());
    for (name, value) in answer.headers {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
