//! A client that asks a model for a stream each time a line says so, and says how long the
//! first character of its text took, and the whole answer.

use std::io::{BufRead, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;

use super::relay;

type Stream = rustls::StreamOwned<rustls::ClientConnection, TcpStream>;

struct Asker {
    host: String,
    address: SocketAddr,
    config: Arc<rustls::ClientConfig>,
    request: Vec<u8>,
}

/// Where to ask.
#[derive(Debug, Clone)]
pub struct Place {
    pub host: String,
    /// Without one the name is resolved.
    pub address: Option<SocketAddr>,
    /// A file of certificates that are trusted.
    pub roots: PathBuf,
}

impl Place {
    /// From `HOST ADDRESS ROOTS`, where `-` is no address.
    pub fn parse(words: &[String]) -> Result<Self> {
        let [host, address, roots] = words else { bail!("HOST ADDRESS ROOTS") };
        let address = if address == "-" { None } else { Some(address.parse()?) };
        Ok(Self { host: host.clone(), address, roots: roots.into() })
    }
}

/// Asks for each line of the standard input: `fresh` by a connection of its own, `kept` by the
/// one that is there. Says the nanoseconds to the first character, and to the end.
pub fn run(place: &Place) -> Result<()> {
    let address = match place.address {
        Some(address) => address,
        None => (place.host.as_str(), 443).to_socket_addrs()?.next().context("no address")?,
    };
    let config = Arc::new(relay::client(&std::fs::read_to_string(&place.roots)?)?);
    let asker = Asker { host: place.host.clone(), address, config, request: request(&place.host) };
    let mut kept = asker.connect()?;
    for line in std::io::stdin().lock().lines() {
        let start = Instant::now();
        let first = match line?.as_str() {
            "kept" => asker.ask(&mut kept)?,
            _ => asker.ask(&mut asker.connect()?)?,
        };
        println!("{} {}", first.duration_since(start).as_nanos(), start.elapsed().as_nanos());
    }
    Ok(())
}

/// With a prompt of some length, as agents have.
fn request(host: &str) -> Vec<u8> {
    let prompt = "Look through the files of this folder and say what each of them is for. ".repeat(100);
    let messages = serde_json::json!([{ "role": "user", "content": prompt }]);
    let body = serde_json::json!({ "model": "m", "stream": true, "messages": messages }).to_string();
    format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         authorization: Bearer none\r\naccept: text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

impl Asker {
    fn connect(&self) -> Result<Stream> {
        let socket = TcpStream::connect(self.address)?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(self.host.clone())?;
        let connection = rustls::ClientConnection::new(Arc::clone(&self.config), name)?;
        Ok(rustls::StreamOwned::new(connection, socket))
    }

    /// When the first character came; reads to the end.
    fn ask(&self, stream: &mut Stream) -> Result<Instant> {
        stream.write_all(&self.request)?;
        stream.flush()?;
        let (mut seen, mut first, mut buffer) = (Vec::new(), None, [0; 16 * 1024]);
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                bail!("ended early: {}", String::from_utf8_lossy(&seen));
            }
            seen.extend_from_slice(&buffer[..read]);
            if first.is_none() && has_text(&seen) {
                first = Some(Instant::now());
            }
            if seen.ends_with(b"\r\n0\r\n\r\n") {
                return first.with_context(|| String::from_utf8_lossy(&seen).into_owned());
            }
        }
    }
}

/// Whether a delta has text.
fn has_text(seen: &[u8]) -> bool {
    const KEY: &[u8] = b"\"content\":\"";
    memchr::memmem::find_iter(seen, KEY).any(|at| seen.get(at + KEY.len()).is_some_and(|next| *next != b'"'))
}
