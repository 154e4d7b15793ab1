//! What is offered to a client.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{TlsError, provider};

/// The one configuration; a connection's own is a copy of it that shares all
/// that is large.
pub struct Downstream {
    base: ServerConfig,
}

#[derive(Debug)]
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Nobody;

impl ResolvesServerCert for Nobody {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

impl Downstream {
    pub fn new() -> Result<Self, TlsError> {
        let mut base = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Nobody));
        // Resumption by tickets alone: no state a session. rustls resumes only
        // under the same server name, and our own checks come before it.
        base.session_storage = Arc::new(NoServerSessionStorage {});
        base.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()?;
        base.max_early_data_size = 0;
        Ok(Self { base })
    }

    /// For one connection: this leaf, and the protocol that the upstream took.
    pub fn config(&self, leaf: Arc<CertifiedKey>, alpn: Option<&[u8]>) -> Arc<ServerConfig> {
        let mut config = self.base.clone();
        config.cert_resolver = Arc::new(One(leaf));
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        Arc::new(config)
    }
}
