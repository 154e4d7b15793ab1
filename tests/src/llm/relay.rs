//! A plain TLS relay in a process of its own, as a proxy is: ends TLS at both sides, and looks at
//! nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::HOSTS;
use super::asker::Place;
use crate::origin::certified;

/// What a relay says of itself when it is there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Relay {
    pub address: SocketAddr,
    pub ca_pem: String,
}

/// Relays every connection to the host at this place until the standard input ends; says as a
/// line of JSON where it is.
pub fn run(place: &Place) -> Result<()> {
    let to = place.address.context("a relay needs an address")?;
    let host = ServerName::try_from(place.host.clone())?;
    let (tls, ca_pem) = certified(&HOSTS)?;
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let connector = TlsConnector::from(Arc::new(client(&std::fs::read_to_string(&place.roots)?)?));
    std::thread::spawn(|| {
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink()).ok();
        std::process::exit(0);
    });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("{}", serde_json::to_string(&Relay { address: listener.local_addr()?, ca_pem })?);
        loop {
            let (stream, _) = listener.accept().await?;
            let (acceptor, connector, host) = (acceptor.clone(), connector.clone(), host.clone());
            tokio::spawn(async move {
                // Whom it fails sees it.
                relay(stream, acceptor, connector, host, to).await.ok();
            });
        }
    })
}

async fn relay(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    host: ServerName<'static>,
    to: SocketAddr,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut near = acceptor.accept(stream).await?;
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let mut far = connector.connect(host, stream).await?;
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
