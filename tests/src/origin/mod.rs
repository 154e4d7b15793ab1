//! A server of a test's own that speaks what clients want to hear: HTTP/1.1 and
//! HTTP/2 over TLS, event streams of LLM APIs, WebSocket, gRPC, git, and the files of
//! package indexes.

pub(crate) mod answer;
mod git;
mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};

pub use answer::{completion, message};

pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// What the answers are made of.
pub struct Content {
    /// Stands in answers; clients must not see it.
    pub token: String,
    /// Files below `/files`, and repositories below `/git`.
    pub folder: PathBuf,
}

/// In pieces, so that no scanner takes it for a secret of ours.
pub fn token() -> String {
    ["gh", "p_", "A1b2C3d4E5f6", "G7h8I9j0K1l2", "M3n4O5p6Q7r8"].concat()
}

impl Content {
    /// With that token.
    pub fn of(folder: &Path) -> Self {
        Self { token: token(), folder: folder.to_owned() }
    }
}

/// Puts into this folder what clients ask for; `url` stands in it as its address.
pub fn make_content(folder: &Path, url: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/clients/make_content.py");
    let made = Command::new("python3").arg(script).arg(folder).arg(url).status()?;
    ensure!(made.success(), "the content of the server: {made}");
    Ok(())
}

/// What requests share.
struct Site {
    content: Content,
    /// One for each event of `/live` that a client has seen.
    next: Arc<tokio::sync::Semaphore>,
}

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub h2: bool,
}

/// A running server; it ends with the process.
pub struct Origin {
    pub address: SocketAddr,
    pub ca_pem: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Origin {
    /// Serves `name` on a loopback address that is not the proxy's.
    pub fn start(name: &str, content: Content) -> Result<Self> {
        Self::start_at("127.0.0.2:0", name, content)
    }

    /// The same at a given address.
    pub fn start_at(address: &str, name: &str, content: Content) -> Result<Self> {
        let (tls, ca_pem) = certificate(&[name])?;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let next = Arc::new(tokio::sync::Semaphore::new(0));
        let (noted, site) = (Arc::clone(&seen), Arc::new(Site { content, next }));
        let address = listen(address, tls, move |request, h2| {
            let line = Seen {
                method: request.method().to_string(),
                target: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
                h2,
            };
            noted.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            let site = Arc::clone(&site);
            async move { answer::answer(request, &site).await }
        })?;
        Ok(Self { address, ca_pem, seen })
    }

    /// The requests that came since this was asked for the last time.
    pub fn take_seen(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Both versions of HTTP are offered; the other half is the root of the certificate.
pub(crate) fn certificate(names: &[&str]) -> Result<(rustls::ServerConfig, String)> {
    let (mut tls, ca_pem) = certified(names)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((tls, ca_pem))
}

/// The same without a protocol by name.
pub(crate) fn certified(names: &[&str]) -> Result<(rustls::ServerConfig, String)> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let leaf = CertificateParams::new(names)?.signed_by(&key, &ca)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    Ok((tls, ca.pem()))
}

/// Serves HTTP over TLS at an address until the process ends; the handler is told whether
/// a request came by HTTP/2.
pub(crate) fn listen<H, F>(address: &str, tls: rustls::ServerConfig, handler: H) -> Result<SocketAddr>
where
    H: Fn(Request<Incoming>, bool) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = std::net::TcpListener::bind(address).with_context(|| address.to_owned())?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let (tls, handler) = (Arc::new(tls), Arc::new(handler));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, handler) = (Arc::clone(&tls), Arc::clone(&handler));
                tokio::spawn(async move {
                    // Why a client did not come further is seen at the client.
                    serve(stream, tls, handler).await.ok();
                });
            }
        });
    });
    Ok(address)
}

async fn serve<H, F>(stream: TcpStream, tls: Arc<rustls::ServerConfig>, handler: Arc<H>) -> Result<()>
where
    H: Fn(Request<Incoming>, bool) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Body>> + Send + 'static,
{
    stream.set_nodelay(true)?;
    let stream = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await.context("handshake")?;
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answered = handler(request, h2);
        async move { Ok::<Response<Body>, Infallible>(answered.await) }
    });
    let io = TokioIo::new(stream);
    // How a client leaves is its own affair.
    if h2 {
        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(io, service)
            .await
            .ok();
    } else {
        let builder = hyper::server::conn::http1::Builder::new();
        builder.serve_connection(io, service).with_upgrades().await.ok();
    }
    Ok(())
}
