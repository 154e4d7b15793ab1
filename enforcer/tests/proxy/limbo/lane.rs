//! A proxy that judges the chain of one case at a time.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use enforcer::net::sys::FlowRecord;
use enforcer::proxy::{FlowSource, Leaf, Leaves, Limits, UpstreamTls, Verifying};
use enforcer::tls::upstream;
use rcgen::KeyPair;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};

use super::case::{Case, client, server};
use super::lenient::Lenient;
use crate::kit::serving::{self, Around, Serving, serve};
use crate::kit::{self, Authority};

const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: all
    allow: true
    addresses: [loopback, private, 0.0.0.0/0, "::/0"]
"#;

/// What the lane's upstream is for the case at hand.
struct Slot {
    destination: SocketAddr,
    config: Arc<ClientConfig>,
}

type Current = Arc<Mutex<Option<Slot>>>;

struct Flows(Current);

impl FlowSource for Flows {
    fn flow_of(&self, _stream: &TcpStream) -> std::io::Result<Option<FlowRecord>> {
        let destination = self.0.lock().unwrap().as_ref().unwrap().destination;
        Ok(Some(serving::flow_to(destination)))
    }
}

struct Roots(Current);

impl UpstreamTls for Roots {
    fn config<'a>(&'a self, _tag: u64, _alpn: &'a [&'a [u8]]) -> Verifying<'a> {
        let config = Arc::clone(&self.0.lock().unwrap().as_ref().unwrap().config);
        Box::pin(async move { config })
    }
}

struct Signer {
    minted: Arc<AtomicUsize>,
    /// One certificate does for all: what matters is whether one is made.
    config: Arc<rustls::ServerConfig>,
}

impl Leaves for Signer {
    fn server_config<'a>(&'a self, _name: &'a str, _alpn: Option<&'a [u8]>) -> Leaf<'a> {
        self.minted.fetch_add(1, Ordering::SeqCst);
        let config = Arc::clone(&self.config);
        Box::pin(async move { Ok(config) })
    }
}

/// A proxy of its own, for one case at a time.
pub struct Lane {
    serving: Serving,
    current: Current,
    authority: Arc<Authority>,
    minted: Arc<AtomicUsize>,
    key: PrivateKeyDer<'static>,
}

/// What came of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// The client finished its handshake, with a leaf.
    Leaf,
    /// The client got an alert, and nothing was minted.
    Refused,
    /// No client could ask for this, or no server offer it.
    Unspeakable,
}

impl Lane {
    pub async fn start() -> Self {
        let authority = Arc::new(Authority::new());
        let minted = Arc::new(AtomicUsize::new(0));
        let current = Current::default();
        let config = authority.server(&["any.test"], false, &[]);
        let serving = serve(Around {
            approvals: None,
            policy: POLICY,
            policies: None,
            secret: None,
            known: true,
            limits: Limits::default(),
            resolver: Box::new(kit::Loopback(Arc::default())),
            flows: Box::new(Flows(Arc::clone(&current))),
            leaves: Box::new(Signer { minted: Arc::clone(&minted), config }),
            upstream: Box::new(Roots(Arc::clone(&current))),
        })
        .await;
        let key =
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der()));
        Self { serving, current, authority, minted, key }
    }

    pub async fn judge(&self, case: &Case) -> Got {
        let name = &case.expected_peer_name.as_ref().unwrap().value;
        let (Ok(name), Some(server), Some(config)) =
            (ServerName::try_from(name.clone()), server(case, &self.key), client(case))
        else {
            return Got::Unspeakable;
        };
        let (ip, any) = match &name {
            ServerName::IpAddress(ip) => {
                let ip = IpAddr::from(*ip);
                (ip, if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })
            }
            _ => (IpAddr::from([127, 0, 0, 1]), "127.0.0.1:0"),
        };
        // A port of its own: the pool believes what it verified at another one.
        let listener = TcpListener::bind(any).await.unwrap();
        let destination = SocketAddr::new(ip, listener.local_addr().unwrap().port());
        *self.current.lock().unwrap() = Some(Slot { destination, config });
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let accepted = tokio_rustls::TlsAcceptor::from(Arc::clone(&server)).accept(stream).await;
                if let Ok(mut stream) = accepted {
                    let mut sink = tokio::io::sink();
                    tokio::io::copy(&mut stream, &mut sink).await.ok();
                }
            }
        });
        let before = self.minted.load(Ordering::SeqCst);
        let stream = TcpStream::connect(self.serving.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(believing(&self.authority));
        let handshake = connector.connect(name, stream).await;
        serving.abort();
        match (handshake.is_ok(), self.minted.load(Ordering::SeqCst) - before) {
            (true, 1) => Got::Leaf,
            (false, 0) => Got::Refused,
            (shook, minted) => panic!("{}: handshake {shook}, {minted} leaves", case.id),
        }
    }
}

/// A client that takes the authority's leaf for whatever name it asked for.
fn believing(authority: &Authority) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let verifier = upstream::verifier(roots).unwrap();
    let name = Some(ServerName::try_from("any.test").unwrap());
    let verifier = Lenient { verifier, name, keyless: false };
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Arc::new(config.with_no_client_auth())
}
