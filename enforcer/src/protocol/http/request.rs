//! What a request's head says, in canonical form, or why it says nothing valid.

use http::{Method, Uri, Version, header, request::Parts};

use super::canonical;

/// A request's head after canonicalisation: what policy sees is what is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestFacts {
    pub method: Method,
    /// Lower case, without trailing dot, or an IP literal.
    pub host: String,
    pub port: u16,
    pub tls: bool,
    pub path: String,
    pub query: Option<String>,
    pub version: &'static str,
    pub websocket: bool,
}

/// What the connection has established already.
#[derive(Debug, Clone, Copy)]
pub struct Established<'a> {
    /// The verified name of the upstream; `None` in plain HTTP.
    pub host: Option<&'a str>,
    pub port: u16,
    pub tls: bool,
}

/// Why a head is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("CONNECT is not carried")]
    Connect,
    #[error("TRACE is not carried: its answer shows what was sent in the client's name")]
    Trace,
    #[error("the request names no host, or more than one")]
    NoAuthority,
    #[error("the host is not valid: {0}")]
    BadAuthority(String),
    #[error("the request is for another host or port than the connection")]
    Misdirected,
    #[error("the path has no canonical form: {0}")]
    BadPath(String),
    #[error("only WebSocket upgrades are carried")]
    Upgrade,
    #[error("the length of the body is given more than once, or not as a number")]
    BadLength,
}

impl HeadError {
    pub fn reason(&self) -> &'static str {
        match self {
            HeadError::Connect => "connect-refused",
            HeadError::Trace => "trace-refused",
            HeadError::NoAuthority => "authority-missing",
            HeadError::BadAuthority(_) => "authority-invalid",
            HeadError::Misdirected => "authority-mismatch",
            HeadError::BadPath(_) => "path-not-canonical",
            HeadError::Upgrade => "upgrade-refused",
            HeadError::BadLength => "length-invalid",
        }
    }

    pub fn status(&self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            HeadError::Connect | HeadError::Trace => S::METHOD_NOT_ALLOWED,
            HeadError::NoAuthority | HeadError::BadAuthority(_) => S::BAD_REQUEST,
            HeadError::Misdirected => S::MISDIRECTED_REQUEST,
            HeadError::BadPath(_) | HeadError::BadLength => S::BAD_REQUEST,
            HeadError::Upgrade => S::NOT_IMPLEMENTED,
        }
    }
}

impl RequestFacts {
    /// Reads a head. SNI, `Host`, `:authority` and the verified name have to agree.
    pub fn read(parts: &Parts, established: Established<'_>) -> Result<Self, HeadError> {
        if parts.method == Method::CONNECT {
            return Err(HeadError::Connect);
        }
        if parts.method == Method::TRACE {
            return Err(HeadError::Trace);
        }
        let default_port = if established.tls { 443 } else { 80 };
        let authority = authority(parts)?;
        let authority = canonical::authority(authority, default_port)
            .map_err(|error| HeadError::BadAuthority(error.to_string()))?;
        if authority.port != established.port
            || established.host.is_some_and(|host| host != authority.host)
            || !scheme_agrees(&parts.uri, established.tls)
        {
            return Err(HeadError::Misdirected);
        }
        if parts.uri.path() == "*" && parts.method != Method::OPTIONS {
            return Err(HeadError::BadPath("an asterisk is asked for its options alone".to_owned()));
        }
        let path =
            canonical::path(parts.uri.path()).map_err(|error| HeadError::BadPath(error.to_string()))?;
        let websocket = upgrade(parts)?;
        if !one_length(parts) {
            return Err(HeadError::BadLength);
        }
        Ok(Self {
            method: parts.method.clone(),
            host: authority.host,
            port: authority.port,
            tls: established.tls,
            path,
            query: parts.uri.query().map(str::to_owned),
            version: version(parts.version),
            websocket,
        })
    }

    /// The host, with the port if it is not the scheme's own.
    pub fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        let host = if self.host.contains(':') && !self.host.starts_with('[') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        if self.port == default { host } else { format!("{host}:{}", self.port) }
    }

    /// Path and query, as they are sent.
    pub fn path_and_query(&self) -> String {
        match &self.query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }
}

/// Methods that some servers take in place of the one in the request line.
pub fn claimed_methods(parts: &Parts) -> Vec<String> {
    const FIELDS: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];
    let fields = FIELDS.iter().flat_map(|name| parts.headers.get_all(*name));
    let fields = fields.map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_ascii_uppercase());
    let pairs = parts.uri.query().unwrap_or_default().split('&');
    let query = pairs.filter_map(|pair| pair.strip_prefix("_method=")).map(str::to_ascii_uppercase);
    fields.chain(query).collect()
}

/// The one authority that a head names: URI and `Host` must not differ.
fn authority(parts: &Parts) -> Result<&str, HeadError> {
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(HeadError::NoAuthority);
    }
    let host = match host {
        Some(host) => Some(host.to_str().map_err(|_| HeadError::NoAuthority)?),
        None => None,
    };
    match (parts.uri.authority(), host) {
        (Some(uri), Some(host)) if !uri.as_str().eq_ignore_ascii_case(host) => Err(HeadError::Misdirected),
        (Some(uri), _) => Ok(uri.as_str()),
        (None, Some(host)) if !host.is_empty() => Ok(host),
        (None, _) => Err(HeadError::NoAuthority),
    }
}

/// Over HTTP/2 the frames say how long a body is, and this field is what a server
/// behind an HTTP/1.1 connection would go by.
fn one_length(parts: &Parts) -> bool {
    let mut lengths = parts.headers.get_all(header::CONTENT_LENGTH).iter();
    let Some(length) = lengths.next() else { return true };
    !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit) && lengths.next().is_none()
}

fn scheme_agrees(uri: &Uri, tls: bool) -> bool {
    match uri.scheme_str() {
        None => true,
        Some(scheme) => scheme == if tls { "https" } else { "http" },
    }
}

/// Whether the head asks for a WebSocket; other upgrades are refused, except
/// `h2c`, which a server may ignore (RFC 9110, section 7.8).
fn upgrade(parts: &Parts) -> Result<bool, HeadError> {
    let asked = |name: &str| {
        parts.headers.get_all(header::CONNECTION).iter().any(|value| {
            value.to_str().is_ok_and(|v| v.split(',').any(|t| t.trim().eq_ignore_ascii_case(name)))
        })
    };
    let Some(upgrade) = parts.headers.get(header::UPGRADE) else { return Ok(false) };
    if upgrade.as_bytes().eq_ignore_ascii_case(b"websocket")
        && asked("upgrade")
        && parts.method == Method::GET
        && parts.version == Version::HTTP_11
    {
        return Ok(true);
    }
    if upgrade.to_str().is_ok_and(|u| u.split(',').all(|t| t.trim().starts_with("h2"))) {
        return Ok(false);
    }
    Err(HeadError::Upgrade)
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
