//! A plain TLS relay: ends TLS at both sides, and looks at nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::HOSTS;
use crate::origin::certified;

/// A running relay; it ends with the process.
pub struct Relay {
    pub address: SocketAddr,
    pub ca_pem: String,
}

impl Relay {
    /// Relays every connection to `host` at this address, which has these roots.
    pub fn start(host: &'static str, to: SocketAddr, ca_pem: &str) -> Result<Self> {
        let (tls, own) = certified(&HOSTS)?;
        let acceptor = TlsAcceptor::from(Arc::new(tls));
        let connector = TlsConnector::from(Arc::new(client(ca_pem)?));
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                while let Ok((stream, _)) = listener.accept().await {
                    let (acceptor, connector) = (acceptor.clone(), connector.clone());
                    tokio::spawn(async move {
                        // Whom it fails sees it.
                        relay(stream, acceptor, connector, host, to).await.ok();
                    });
                }
            });
        });
        Ok(Self { address, ca_pem: own })
    }
}

async fn relay(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    host: &'static str,
    to: SocketAddr,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut near = acceptor.accept(stream).await?;
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut far = connector.connect(ServerName::try_from(host)?, stream).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// Verifies by these roots alone, and resumes nothing.
pub fn client(ca_pem: &str) -> Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
        roots.add(certificate?)?;
    }
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}
