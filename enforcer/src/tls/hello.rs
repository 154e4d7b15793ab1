//! What a client says first.
//!
//! The bytes are read by rustls' own parser, which reassembles a ClientHello
//! from any number of segments and records, and are kept as they came, so that
//! they can be replayed to our own acceptor or to a target that policy lets
//! through unread.
//!
//! An encrypted ClientHello carries another name than the one in clear. Chrome
//! and Firefox send the extension with random content when they know no key of
//! the target (GREASE, RFC 9849, 6.2), and nobody can tell the two apart. Where
//! TLS ends here it is ignored and only the outer name counts: the certificate is
//! for that name, and so is the policy; a client that meant another one finds its
//! inner hello rejected. Where bytes pass unread the inner name would count, so
//! the extension is a fact of the [`Hello`].

use rustls::server::Acceptor;

/// The longest first flight that is looked at, in bytes: post-quantum key shares
/// fit several times.
pub const MAX_HELLO: usize = 64 * 1024;
/// The longest list of protocols that is kept.
const MAX_ALPN: usize = 16;

/// What is known of a client after its first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Lower case. None: the client named an address or nothing (RFC 6066, 3).
    pub sni: Option<String>,
    pub alpn: Vec<Vec<u8>>,
    /// An encrypted ClientHello is there, or what looks like one.
    pub ech: bool,
}

/// Why the first message cannot be used.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HelloError {
    #[error("the first bytes are no TLS handshake")]
    NotTls,
    #[error("the ClientHello is longer than {MAX_HELLO} bytes")]
    TooLong,
    #[error("the ClientHello is malformed: {0}")]
    Malformed(rustls::Error),
}

/// Reads a ClientHello piece by piece.
#[derive(Default)]
pub struct Peek {
    acceptor: Acceptor,
    raw: Vec<u8>,
}

/// Whether a ClientHello that rustls has accepted carries the extension, which
/// rustls does not tell; None: this walk and rustls' disagree on its form.
fn offers_ech(raw: &[u8]) -> Option<bool> {
    const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
    let mut records = Fields(raw);
    let mut message = Vec::new();
    let body = loop {
        records.take(3)?;
        message.extend_from_slice(records.vector(2)?);
        let mut whole = Fields(&message);
        if whole.take(1).is_some()
            && let Some(body) = whole.vector(3)
        {
            break body;
        }
    };
    let mut hello = Fields(body);
    hello.take(2 + 32)?;
    hello.vector(1)?;
    hello.vector(2)?;
    hello.vector(1)?;
    if hello.0.is_empty() {
        return Some(false);
    }
    let mut extensions = Fields(hello.vector(2)?);
    while !extensions.0.is_empty() {
        let kind = extensions.take(2)?;
        extensions.vector(2)?;
        if kind == ENCRYPTED_CLIENT_HELLO.to_be_bytes() {
            return Some(true);
        }
    }
    Some(false)
}

/// Takes fields off the front of a message.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (field, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(field)
    }

    /// A field behind its length, which takes so many bytes.
    fn vector(&mut self, length: usize) -> Option<&'a [u8]> {
        let length = self.take(length)?.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        self.take(length)
    }
}

/// Whether the first byte of a connection can be TLS: a handshake record.
pub fn is_tls(first: u8) -> bool {
    first == 0x16
}

impl Peek {
    /// Takes the next bytes; None until the message is whole.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<Hello>, HelloError> {
        if self.raw.is_empty() && bytes.first().is_some_and(|first| !is_tls(*first)) {
            return Err(HelloError::NotTls);
        }
        if self.raw.len() + bytes.len() > MAX_HELLO {
            return Err(HelloError::TooLong);
        }
        self.raw.extend_from_slice(bytes);
        let mut rest = bytes;
        while !rest.is_empty() {
            self.acceptor
                .read_tls(&mut rest)
                .map_err(|error| HelloError::Malformed(rustls::Error::General(error.to_string())))?;
            match self.acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let sni = hello.server_name().map(str::to_ascii_lowercase);
                    let alpn = hello.alpn().map(|all| all.take(MAX_ALPN).map(<[u8]>::to_vec).collect());
                    let ech = offers_ech(&self.raw).unwrap_or(true);
                    return Ok(Some(Hello { sni, alpn: alpn.unwrap_or_default(), ech }));
                }
                Ok(None) => {}
                Err((error, _alert)) => return Err(HelloError::Malformed(error)),
            }
        }
        Ok(None)
    }

    /// All bytes that were taken, to be replayed.
    pub fn into_raw(self) -> Vec<u8> {
        self.raw
    }
}
