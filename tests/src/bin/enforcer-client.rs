//! A Rust client as many are: rustls, with the host's roots or with its own.
//!
//! `enforcer-client native|compiled https://HOST:PORT/PATH` prints the answer's body.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [kind, url] = words.as_slice() else { bail!("native or compiled, and a URL") };
    let url: http::Uri = url.parse()?;
    let (host, port) = (url.host().context("no host")?, url.port_u16().unwrap_or(443));
    let config = ClientConfig::builder().with_root_certificates(roots(kind)?).with_no_client_auth();
    let name = ServerName::try_from(host.to_owned())?;
    let connection = ClientConnection::new(Arc::new(config), name)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect((host, port))?);
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    print!("{body}");
    Ok(())
}

fn roots(kind: &str) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    match kind {
        "native" => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        "compiled" => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        other => bail!("{other}: native or compiled"),
    }
    Ok(roots)
}
