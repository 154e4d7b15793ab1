//! A proxy on loopback with everything around it in this process: a CA, a signer
//! that counts, an upstream, and a source of flow records in place of the kernel.

pub mod client;
pub mod origin;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use enforcer::gate::{Gate, Settings, Subject, Subjects};
use enforcer::mask::ExactValue;
use enforcer::net::OrigDst;
use enforcer::net::sys::FlowRecord;
use enforcer::proxy::dns::{DnsServer, OverTcp};
use enforcer::proxy::resolve::{Resolve, Resolving};
use enforcer::proxy::{
    FlowSource, Leaf, Leaves, Limits, Shared, UpstreamTls, Verifying, admission, pool, worker,
};
use enforcer::secret::SecretBytes;
use enforcer::session::{Recording, RecordingOptions};
use enforcer::workload::Workload;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};

pub const SECRET: &str = "obviously-fake-deploy-key-0123456789";
const TAG: u64 = 7;
/// Two authorities of one name would be taken for each other.
static SERIAL: AtomicUsize = AtomicUsize::new(0);

/// A certificate authority.
pub struct Authority {
    pub certificate: CertificateDer<'static>,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("test CA {serial}"));
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: rcgen::Issuer::new(params, key) }
    }

    pub fn server(&self, names: &[&str], expired: bool, alpn: &[&[u8]]) -> Arc<rustls::ServerConfig> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        if expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config = rustls::ServerConfig::builder().with_no_client_auth();
        let mut config = config.with_single_cert(vec![leaf], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }

    pub fn client(&self, alpn: &[&[u8]]) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let config = rustls::ClientConfig::builder().with_root_certificates(roots);
        let mut config = config.with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Arc::new(config)
    }
}

struct Signer {
    authority: Arc<Authority>,
    signed: Arc<AtomicUsize>,
}

impl Leaves for Signer {
    fn server_config<'a>(&'a self, name: &'a str, alpn: Option<&'a [u8]>) -> Leaf<'a> {
        self.signed.fetch_add(1, Ordering::Relaxed);
        let config = self.authority.server(&[name], false, alpn.as_slice());
        Box::pin(async move { Ok(config) })
    }
}

struct Trusting(Arc<Authority>);

impl UpstreamTls for Trusting {
    fn config<'a>(&'a self, _tag: u64, alpn: &'a [&'a [u8]]) -> Verifying<'a> {
        let config = self.0.client(alpn);
        Box::pin(async move { config })
    }
}

struct Fixed(SocketAddr);

impl FlowSource for Fixed {
    fn flow_of(&self, _stream: &TcpStream) -> std::io::Result<Option<FlowRecord>> {
        Ok(Some(FlowRecord {
            orig_dst: OrigDst(self.0),
            tag: TAG,
            cgroup: 1,
            pid: 1,
            uid: 1000,
            comm: "test".to_owned(),
            cookie: 1,
            netns: 1,
        }))
    }
}

struct Loopback(Arc<AtomicUsize>);

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _tag: u64, _name: &'a str) -> Resolving<'a> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

/// A running proxy and its upstream.
pub struct Kit {
    pub proxy: SocketAddr,
    pub upstream: SocketAddr,
    /// Connections that the upstream accepted.
    pub accepted: Arc<AtomicUsize>,
    pub signed: Arc<AtomicUsize>,
    pub authority: Arc<Authority>,
    pub recordings: tempfile::TempDir,
    pub signal: Arc<tokio::sync::Notify>,
    pub requests: origin::Requests,
    /// Names that were asked for.
    pub resolved: Arc<AtomicUsize>,
    pub drain: Option<enforcer::drain::Drain>,
}

/// Starts another upstream than the usual one; it is given what it needs for TLS.
pub type Start = Box<dyn FnOnce(Option<Arc<rustls::ServerConfig>>) -> origin::Origin>;

#[derive(Default)]
pub struct Options {
    pub upstream: Option<Start>,
    pub expired: bool,
    pub untrusted: bool,
    pub plain: bool,
    pub h1_only: bool,
    /// The kernel names a workload of which nobody told the proxy.
    pub unknown: bool,
    /// The client thinks that it speaks to a name server.
    pub dns: bool,
    pub limits: Limits,
    /// What the upstream answers to everything, byte for byte, over HTTP/1.1.
    pub script: Option<&'static [u8]>,
}

impl Kit {
    pub async fn start(options: Options) -> Self {
        let public = Arc::new(Authority::new());
        let authority = Arc::new(Authority::new());
        let signed = Arc::new(AtomicUsize::new(0));
        let issuer = if options.untrusted { Arc::new(Authority::new()) } else { Arc::clone(&public) };
        let h1_only = options.h1_only || options.script.is_some();
        let alpn: &[&[u8]] = if h1_only { &[b"http/1.1"] } else { &[b"h2", b"http/1.1"] };
        let names = ["allowed.test", "held.test", "masked.test", "unread.test"];
        let tls = (!options.plain).then(|| issuer.server(&names, options.expired, alpn));
        let signal = Arc::new(tokio::sync::Notify::new());
        let origin = match options.upstream {
            Some(start) => start(tls),
            None => origin::Origin::start(tls, Arc::clone(&signal), options.script).await,
        };

        let recordings = tempfile::tempdir().unwrap();
        let recording = Recording::open(recordings.path(), RecordingOptions::default()).unwrap();
        let secret = ExactValue::new("DEPLOY_KEY", &SecretBytes::from(SECRET)).unwrap();
        let workload = Workload {
            tag: TAG,
            cgroup: 1,
            cgroup_path: "/jobs/test".to_owned(),
            name: "test".to_owned(),
            labels: std::collections::BTreeMap::new(),
            uid: 1000,
            command: Vec::new(),
            secrets: vec![secret],
        };
        let subjects = Subjects::default();
        if !options.unknown {
            subjects.insert(Arc::new(Subject::new(Arc::new(workload), &[]).unwrap()));
        }
        let gate = Gate { policies: super::policies(), recording, subjects, settings: Settings::default() };
        let limits = Arc::new(options.limits.clone());
        let resolved = Arc::new(AtomicUsize::new(0));
        let original = if options.dns { SocketAddr::from(([192, 0, 2, 53], 53)) } else { origin.address };
        let shared = Arc::new_cyclic(|weak: &std::sync::Weak<Shared>| Shared {
            gate,
            pool: pool::Pool::new(Arc::clone(&limits)),
            limits,
            admission: admission::Admission::default(),
            resolver: Box::new(Loopback(Arc::clone(&resolved))),
            flows: Box::new(Fixed(original)),
            leaves: Box::new(Signer { authority: Arc::clone(&authority), signed: Arc::clone(&signed) }),
            upstream: Box::new(Trusting(public)),
            dns: Some(Box::new(OverTcp(DnsServer::new(weak.clone())))),
        });
        let (drain, watch) = enforcer::drain::channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        tokio::spawn(worker::accept(shared, listener, watch));
        Self {
            proxy,
            upstream: origin.address,
            accepted: origin.accepted,
            signed,
            authority,
            recordings,
            signal,
            requests: origin.requests,
            resolved,
            drain: Some(drain),
        }
    }

    /// Everything that was written, as bytes.
    pub fn recorded(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.recordings.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default()).collect()
    }

    /// Waits until the recording says so.
    pub async fn recorded_text(&self, text: &str) -> String {
        for _ in 0..500 {
            let all = String::from_utf8_lossy(&self.recorded()).into_owned();
            if all.contains(text) {
                return all;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the recording never said {text}: {}", String::from_utf8_lossy(&self.recorded()));
    }
}
