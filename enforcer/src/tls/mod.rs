//! Leaf certificates, their signer, and both sides of TLS.
//!
//! The CA's key is in a process of its own (`signer`), which parses nothing but
//! names; the proxy asks it for one leaf a name and keeps those (`leaf`). What
//! the proxy offers a client is in `server`, what it demands of a target in
//! `upstream`, and what a client says first in `hello`.
//!
//! **Invariant**: there is no way to skip the verification of an upstream.

pub mod ca;
pub mod hello;
pub mod leaf;
pub mod server;
pub mod signer;
pub mod upstream;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;

/// What goes wrong with certificates on our side.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {cause}", path = .path.display())]
    File { path: PathBuf, cause: String },
    #[error(
        "the CA is damaged ({0}); remove ca.pem and ca.key to have a new one made, which running jobs will not trust"
    )]
    Ca(String),
    #[error("`{0}` is not a name that a certificate is made for")]
    Name(String),
    #[error("the signer makes no more certificates for now: over {} a second", signer::LEAVES_PER_SECOND)]
    RateLimited,
    #[error("the signer did not answer: {0}")]
    Signer(String),
    #[error("no certificate of the host's roots can be used; install ca-certificates")]
    NoRoots,
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
    #[error(transparent)]
    Mint(#[from] rcgen::Error),
}

/// The one cryptography of this program: aws-lc-rs, which offers X25519MLKEM768.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Whether an error of a client's handshake says that it does not trust our
/// certificate: its roots are compiled in, or pinned (RFC 8446, 6.2).
pub fn client_pins_roots(error: &rustls::Error) -> bool {
    use rustls::AlertDescription::{BadCertificate, CertificateUnknown, UnknownCA};
    matches!(error, rustls::Error::AlertReceived(UnknownCA | BadCertificate | CertificateUnknown))
}
