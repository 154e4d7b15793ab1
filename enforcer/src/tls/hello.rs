//! What a client says first.
//!
//! The bytes are read by rustls' own parser, which reassembles a ClientHello
//! from any number of segments and records, and are kept as they came, so that
//! they can be replayed to our own acceptor or to a target that policy lets
//! through unread. The encrypted ClientHello extension cannot be told from its
//! GREASE form (RFC 9849); it is ignored, and only the outer name counts: the
//! certificate is for that name, and so is the policy.

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
                    return Ok(Some(Hello { sni, alpn: alpn.unwrap_or_default() }));
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
