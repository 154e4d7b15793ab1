//! The one HTTP client for our own calls: discovery and keys of issuers, tokens of runners, webhooks.
//!
//! HTTP/1.1 over TLS that is verified in full, one connection a call. What comes back has
//! a size and a time, named by the caller. A redirect is an error that names its target:
//! nobody but the operator says where we go.
//!
//! **Invariant**: nothing of a job's traffic goes by here, and there is no way to skip the
//! verification of a server. Plain HTTP is for the host itself alone, and only where that
//! was asked for.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::tls::{TlsError, provider, upstream};

/// How many addresses of a name are tried.
const ATTEMPTS: usize = 4;
/// How long one address may take to be connected to.
const CONNECT: Duration = Duration::from_secs(3);
/// The most bytes of the head of an answer.
const MAX_HEAD: usize = 64 * 1024;
/// Letters of a server's redirect that are told.
const TOLD: usize = 200;

/// Why a call of ours has no answer. Nothing of the request's fields or of the answer's
/// body stands in it.
#[derive(Debug, thiserror::Error)]
pub enum OutgoingError {
    #[error("`{url}` cannot be asked: {why}")]
    Address { url: String, why: &'static str },
    #[error("{host} is not reached: {cause}")]
    Connect { host: String, cause: io::Error },
    #[error("{host} does not show a certificate that this host trusts: {cause}")]
    Tls { host: String, cause: io::Error },
    #[error("{host} broke off: {cause}")]
    Http { host: String, cause: hyper::Error },
    #[error("{host} sends us to `{to}`, and no redirect is followed: name the last address")]
    Redirect { host: String, to: String },
    #[error("{host} answers with status {status}")]
    Status {
        host: String,
        status: StatusCode,
        /// When to come again, if that is told in seconds (RFC 9110, section 10.2.3).
        retry_after: Option<Duration>,
    },
    #[error("the answer of {host} is longer than {limit} bytes")]
    TooLarge { host: String, limit: usize },
    #[error("{host} did not answer within {} s", .patience.as_secs())]
    Late { host: String, patience: Duration },
}

/// What one call may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most bytes of the answer's body.
    pub bytes: usize,
    /// From the name's resolution to the last byte.
    pub patience: Duration,
}

/// An answer; its status is 2xx unless any was asked for.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Asks servers of the operator's choice.
pub struct Client {
    tls: Arc<ClientConfig>,
    names: BTreeMap<String, Vec<IpAddr>>,
    plain_on_loopback: bool,
}

/// What is wanted of an answer.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// That the request was taken.
    Head,
    /// A body of so many bytes at most.
    Body(usize),
    /// The same of whatever status.
    Any(usize),
}

/// Where a request goes.
struct Place {
    host: String,
    port: u16,
    plain: bool,
}

impl Client {
    /// The host's roots, and those of `ca_file` if there is one; `names` have fixed addresses.
    pub fn new(ca_file: Option<&Path>, names: BTreeMap<String, Vec<IpAddr>>) -> Result<Self, TlsError> {
        let mut tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_webpki_verifier(upstream::verifier(upstream::roots(ca_file)?)?)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), names, plain_on_loopback: false })
    }

    /// Plain HTTP too, where the server is on this host.
    #[must_use]
    pub fn with_plain_on_loopback(self, allowed: bool) -> Self {
        Self { plain_on_loopback: allowed, ..self }
    }

    /// Sends a request with a whole URI; any status but 2xx is an error.
    pub async fn send(&self, request: Request<Bytes>, limits: Limits) -> Result<Answer, OutgoingError> {
        self.ask_in_time(request, Wanted::Body(limits.bytes), limits.patience).await
    }

    /// The same for who says in the body what is wrong: any status is an answer, but for redirects.
    pub async fn send_for_any(
        &self,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Answer, OutgoingError> {
        self.ask_in_time(request, Wanted::Any(limits.bytes), limits.patience).await
    }

    /// Sends a request to somebody who has nothing to say but that it was taken: of the answer no
    /// more is read than its head.
    pub async fn tell(&self, request: Request<Bytes>, patience: Duration) -> Result<(), OutgoingError> {
        self.ask_in_time(request, Wanted::Head, patience).await.map(drop)
    }

    async fn ask_in_time(
        &self,
        request: Request<Bytes>,
        wanted: Wanted,
        patience: Duration,
    ) -> Result<Answer, OutgoingError> {
        let place = self.place(request.uri())?;
        let asked = Box::pin(self.ask(&place, request, wanted));
        match tokio::time::timeout(patience, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(OutgoingError::Late { host: place.host, patience }),
        }
    }

    fn place(&self, uri: &Uri) -> Result<Place, OutgoingError> {
        let wrong = |why| OutgoingError::Address { url: without_query(uri), why };
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("a user name or a password does not belong there"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        let plain = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => false,
            Some(scheme) if *scheme == Scheme::HTTP && self.plain_on_loopback && is_loopback(&host) => true,
            _ => return Err(wrong("only https is spoken")),
        };
        let port = authority.port_u16().unwrap_or(if plain { 80 } else { 443 });
        Ok(Place { host, port, plain })
    }

    async fn ask(
        &self,
        place: &Place,
        request: Request<Bytes>,
        wanted: Wanted,
    ) -> Result<Answer, OutgoingError> {
        let stream = self.connect(place).await?;
        if place.plain {
            return exchange(place, stream, request, wanted).await;
        }
        let failed = |cause| OutgoingError::Tls { host: place.host.clone(), cause };
        let name =
            ServerName::try_from(place.host.clone()).map_err(|error| failed(io::Error::other(error)))?;
        let connector = tokio_rustls::TlsConnector::from(Arc::clone(&self.tls));
        let stream = connector.connect(name, stream).await.map_err(failed)?;
        exchange(place, stream, request, wanted).await
    }

    async fn connect(&self, place: &Place) -> Result<TcpStream, OutgoingError> {
        let failed = |cause| OutgoingError::Connect { host: place.host.clone(), cause };
        let mut addresses: Vec<SocketAddr> = match self.names.get(&place.host) {
            Some(fixed) => fixed.iter().map(|ip| SocketAddr::new(*ip, place.port)).collect(),
            None => {
                let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
                found.map_err(failed)?.collect()
            }
        };
        if place.plain {
            addresses.retain(|address| address.ip().is_loopback());
        }
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses.into_iter().take(ATTEMPTS) {
            match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(failed(last))
    }
}

/// One request and its answer on a connection of their own.
async fn exchange<S>(
    place: &Place,
    stream: S,
    request: Request<Bytes>,
    wanted: Wanted,
) -> Result<Answer, OutgoingError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |cause| OutgoingError::Http { host: place.host.clone(), cause };
    let mut http = hyper::client::conn::http1::Builder::new();
    let (mut sender, connection) =
        http.max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // It ends when the answer has been read, or is dropped with this call.
    let connection = AbortOnDrop(tokio::spawn(connection));
    let answer = sender.send_request(in_origin_form(place, request)?).await.map_err(broken)?;
    let (head, mut body) = answer.into_parts();
    if head.status.is_redirection() {
        let to = head.headers.get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        let to = to.chars().take(TOLD).collect();
        return Err(OutgoingError::Redirect { host: place.host.clone(), to });
    }
    if !head.status.is_success() && !matches!(wanted, Wanted::Any(_)) {
        let seconds = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = seconds.map(Duration::from_secs);
        return Err(OutgoingError::Status { host: place.host.clone(), status: head.status, retry_after });
    }
    let (status, headers) = (head.status, head.headers);
    let (Wanted::Body(limit) | Wanted::Any(limit)) = wanted else {
        return Ok(Answer { status, headers, body: Bytes::new() });
    };
    let too_large = || OutgoingError::TooLarge { host: place.host.clone(), limit };
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(broken)?.into_data() {
            if bytes.len() + data.len() > limit {
                return Err(too_large());
            }
            bytes.extend_from_slice(&data);
        }
    }
    drop(connection);
    Ok(Answer { status, headers, body: bytes.into() })
}

/// As HTTP/1.1 has it on the wire: the path alone, and the host in a field.
fn in_origin_form(place: &Place, request: Request<Bytes>) -> Result<Request<Full<Bytes>>, OutgoingError> {
    let wrong = |uri: &Uri| OutgoingError::Address { url: without_query(uri), why: "it is no URL" };
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().map_or(place.host.as_str(), |authority| authority.as_str());
    let host = HeaderValue::from_str(authority).map_err(|_| wrong(&head.uri))?;
    head.headers.insert(HOST, host);
    let agent = HeaderValue::from_static(concat!("enforcer/", env!("CARGO_PKG_VERSION")));
    head.headers.insert(USER_AGENT, agent);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().map_err(|_| wrong(&head.uri))?;
    Ok(Request::from_parts(head, Full::new(body)))
}

/// A query may hold a secret of the one who made the address.
fn without_query(uri: &Uri) -> String {
    let scheme = uri.scheme_str().map_or_else(String::new, |scheme| format!("{scheme}://"));
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}{host}{}", uri.path())
}

/// Whether a host's name, or its address, is of this host.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests;
