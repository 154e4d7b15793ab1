//! Certificate validation: chains that a careful client would refuse are served by
//! real TLS upstreams behind the proxy, and no leaf is minted for any of them.
//!
//! With `ENFORCER_VECTORS` set, x509-limbo's cases (`limbo.json.xz` in that folder,
//! read by the `xz` command) are served one after the other; without it, the
//! project's own few chains are all there is. It needs root: upstreams answer for any
//! address in a network namespace of the test's own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(dead_code, reason = "this suite uses a part of the kit")]

mod kit;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use enforcer::gate::{Gate, Settings, Subject, Subjects};
use enforcer::net::OrigDst;
use enforcer::net::sys::FlowRecord;
use enforcer::policy::{Policy, PolicyStore};
use enforcer::proxy::resolve::{Resolve, Resolving};
use enforcer::proxy::{
    FlowSource, Leaf, Leaves, Limits, Shared, UpstreamTls, Verifying, admission, pool, worker,
};
use enforcer::session::{Recording, RecordingOptions};
use enforcer::tls::upstream;
use enforcer::workload::Workload;
use kit::Authority;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};

const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: all
    allow: true
    addresses: [loopback, private, 0.0.0.0/0, "::/0"]
"#;
const TAG: u64 = 7;

fn policies() -> Arc<PolicyStore> {
    Arc::new(PolicyStore::fixed(Policy::from_text("test.yaml", POLICY).unwrap()))
}

#[derive(Deserialize)]
struct Limbo {
    testcases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    id: String,
    validation_kind: String,
    trusted_certs: Vec<String>,
    untrusted_intermediates: Vec<String>,
    peer_certificate: String,
    peer_certificate_key: Option<String>,
    validation_time: Option<String>,
    expected_result: String,
    expected_peer_name: Option<PeerName>,
    features: Vec<String>,
    extended_key_usage: Vec<String>,
    max_chain_depth: Option<u32>,
}

#[derive(Deserialize)]
struct PeerName {
    value: String,
}

/// What is known to differ: by whom, and in which direction.
#[derive(Deserialize)]
struct Deviation {
    id: String,
    expected: String,
}

/// Cases whose subject is not the verification of a chain as a client does it.
fn applies(case: &Case) -> bool {
    // We check no revocation list (soft-fail is what clients do), and a client
    // has no setting for the depth of a chain or for another key usage.
    case.validation_kind == "SERVER"
        && case.max_chain_depth.is_none()
        && !case.features.iter().any(|feature| feature == "has-crl")
        && case.extended_key_usage.iter().all(|usage| usage == "serverAuth")
        && case.expected_peer_name.is_some()
}

fn time(case: &Case) -> UnixTime {
    match &case.validation_time {
        None => UnixTime::now(),
        Some(text) => UnixTime::since_unix_epoch(Duration::from_secs(seconds(text))),
    }
}

/// Seconds since 1970 of `2024-01-01T00:00:00+00:00`; limbo writes no other zone.
fn seconds(text: &str) -> u64 {
    let field = |at: usize, len: usize| text[at..at + len].parse::<i64>().expect("a number");
    assert!(text.ends_with("+00:00") || text.ends_with('Z'), "{text}");
    let (year, month, day) = (field(0, 4), field(5, 2), field(8, 2));
    // Days since 1970 of a civil date (Howard Hinnant's algorithm).
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    u64::try_from(days * 86_400 + field(11, 2) * 3600 + field(14, 2) * 60 + field(17, 2)).expect("after 1970")
}

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
        Ok(Some(FlowRecord {
            orig_dst: OrigDst(destination),
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

struct Roots(Current);

impl UpstreamTls for Roots {
    fn config<'a>(&'a self, _tag: u64, _alpn: &'a [&'a [u8]]) -> Verifying<'a> {
        let config = Arc::clone(&self.0.lock().unwrap().as_ref().unwrap().config);
        Box::pin(async move { config })
    }
}

struct Loopback;

impl Resolve for Loopback {
    fn resolve<'a>(&'a self, _tag: u64, _name: &'a str) -> Resolving<'a> {
        Box::pin(async { Ok(vec![IpAddr::from([127, 0, 0, 1])]) })
    }
}

struct Signer {
    authority: Arc<Authority>,
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

/// The product's judgement of chains for a server whose key nobody has: limbo has no
/// key for most of its leaves, so the signature of the handshake counts as good.
#[derive(Debug)]
struct Keyless(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for Keyless {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.0.verify_server_cert(leaf, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

#[derive(Debug)]
struct At(UnixTime);

impl rustls::time_provider::TimeProvider for At {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[derive(Debug)]
struct Always(Arc<CertifiedKey>);

impl ResolvesServerCert for Always {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn der(pem: &str) -> Option<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok()
}

/// The leaf's own key; limbo has it for some cases, and a few of those are of kinds
/// that no server signs with any more.
fn own_key(case: &Case) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let key = PrivateKeyDer::from_pem_slice(case.peer_certificate_key.as_ref()?.as_bytes()).ok()?;
    rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).ok()
}

/// The server of a case; None if its certificates are not even PEM.
fn server(case: &Case, key: &PrivateKeyDer<'static>) -> Option<Arc<rustls::ServerConfig>> {
    let other = || rustls::crypto::aws_lc_rs::sign::any_supported_type(key).unwrap();
    let key = own_key(case).unwrap_or_else(other);
    let mut chain = vec![der(&case.peer_certificate)?];
    for pem in &case.untrusted_intermediates {
        chain.push(der(pem)?);
    }
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    Some(Arc::new(config.with_cert_resolver(Arc::new(Always(Arc::new(CertifiedKey::new(chain, key)))))))
}

/// What the proxy dials with, with the roots and at the time of a case; None if it
/// has no root at all, with which the service does not start.
fn client(case: &Case) -> Option<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    for root in &case.trusted_certs {
        // A root that cannot be read is no root; the chain is judged by the others.
        let _skipped = roots.add(der(root)?).is_err();
    }
    let verifier = upstream::verifier(roots).ok()?;
    let provider = enforcer::tls::provider();
    let builder = ClientConfig::builder_with_details(provider, Arc::new(At(time(case))));
    let builder =
        builder.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]).unwrap();
    let config = if own_key(case).is_some() {
        builder.with_webpki_verifier(verifier)
    } else {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Keyless(verifier)))
    };
    Some(Arc::new(config.with_no_client_auth()))
}

/// A proxy of its own, for one case at a time.
struct Lane {
    proxy: SocketAddr,
    current: Current,
    authority: Arc<Authority>,
    minted: Arc<AtomicUsize>,
    key: PrivateKeyDer<'static>,
    _recordings: tempfile::TempDir,
    _drain: enforcer::drain::Drain,
}

/// What came of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Got {
    /// The client finished its handshake, with a leaf.
    Leaf,
    /// The client got an alert, and nothing was minted.
    Refused,
    /// No client could ask for this, or no server offer it.
    Unspeakable,
}

impl Lane {
    async fn start() -> Self {
        let authority = Arc::new(Authority::new());
        let minted = Arc::new(AtomicUsize::new(0));
        let current = Current::default();
        let recordings = tempfile::tempdir().unwrap();
        let recording = Recording::open(recordings.path(), RecordingOptions::default()).unwrap();
        let workload = Workload {
            tag: TAG,
            cgroup: 1,
            cgroup_path: "/jobs/test".to_owned(),
            name: "test".to_owned(),
            labels: BTreeMap::new(),
            uid: 1000,
            command: Vec::new(),
            secrets: Vec::new(),
        };
        let subjects = Subjects::default();
        subjects.insert(Arc::new(Subject::new(Arc::new(workload), &[]).unwrap()));
        let limits = Arc::new(Limits::default());
        let config = authority.server(&["any.test"], false, &[]);
        let signer = Signer { authority: Arc::clone(&authority), minted: Arc::clone(&minted), config };
        let shared = Arc::new(Shared {
            gate: Gate { policies: policies(), recording, subjects, settings: Settings::default() },
            pool: pool::Pool::new(Arc::clone(&limits)),
            limits,
            admission: admission::Admission::default(),
            resolver: Box::new(Loopback),
            flows: Box::new(Flows(Arc::clone(&current))),
            leaves: Box::new(signer),
            upstream: Box::new(Roots(Arc::clone(&current))),
            dns: None,
        });
        let (drain, watch) = enforcer::drain::channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        tokio::spawn(worker::accept(shared, listener, watch));
        let key =
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(KeyPair::generate().unwrap().serialize_der()));
        Self { proxy, current, authority, minted, key, _recordings: recordings, _drain: drain }
    }

    async fn judge(&self, case: &Case) -> Got {
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
        let stream = TcpStream::connect(self.proxy).await.unwrap();
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
    #[derive(Debug)]
    struct Believing(Arc<WebPkiServerVerifier>);
    impl ServerCertVerifier for Believing {
        fn verify_server_cert(
            &self,
            leaf: &CertificateDer<'_>,
            chain: &[CertificateDer<'_>],
            _name: &ServerName<'_>,
            ocsp: &[u8],
            now: UnixTime,
        ) -> Result<ServerCertVerified, rustls::Error> {
            let name = ServerName::try_from("any.test").unwrap();
            self.0.verify_server_cert(leaf, chain, &name, ocsp, now)
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls12_signature(message, leaf, signature)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            leaf: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            self.0.verify_tls13_signature(message, leaf, signature)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    }
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let verifier = Believing(upstream::verifier(roots).unwrap());
    let config = ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Arc::new(config.with_no_client_auth())
}

fn read_limbo(dir: &Path) -> (Limbo, BTreeMap<String, String>) {
    let path = dir.join("limbo.json.xz");
    let out = Command::new("xz").arg("-dc").arg(&path).output().expect("the xz command");
    assert!(out.status.success(), "xz: {}", String::from_utf8_lossy(&out.stderr));
    let limbo = serde_json::from_slice(&out.stdout).expect("limbo's format");
    let pinned = std::fs::read_to_string(dir.join("limbo-rustls-deviations.json")).expect("the pinned list");
    let pinned: Vec<Deviation> = serde_json::from_str(&pinned).expect("the pinned list's format");
    (limbo, pinned.into_iter().map(|one| (one.id, one.expected)).collect())
}

/// In a network namespace in which every address is this machine's own.
fn everywhere() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
    for args in ["link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo"] {
        let done = Command::new("ip").args(args.split(' ')).status().unwrap();
        assert!(done.success(), "ip {args}");
    }
}

/// Cases that differ from what is wanted, and how many were judged.
#[derive(Default)]
struct Tally {
    leaf: usize,
    refused: usize,
    unspeakable: usize,
    known: usize,
    differ: Vec<String>,
}

fn serve_all(cases: &[Case], pinned: &BTreeMap<String, String>) -> Tally {
    everywhere();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let lane = Lane::start().await;
        let mut tally = Tally::default();
        for case in cases {
            let got = lane.judge(case).await;
            match got {
                Got::Leaf => tally.leaf += 1,
                Got::Refused => tally.refused += 1,
                Got::Unspeakable => tally.unspeakable += 1,
            }
            let want = if case.expected_result == "SUCCESS" { Got::Leaf } else { Got::Refused };
            if got == want || got == Got::Unspeakable {
                continue;
            }
            if pinned.get(&case.id) == Some(&case.expected_result) {
                tally.known += 1;
            } else {
                tally.differ.push(format!("{}: wanted {}, got {got:?}", case.id, case.expected_result));
            }
        }
        tally
    })
}

#[test]
fn no_leaf_is_minted_for_a_chain_that_limbo_wants_refused() {
    let Some(dir) = std::env::var_os("ENFORCER_VECTORS").map(PathBuf::from) else {
        return own_chains_are_judged();
    };
    let (limbo, pinned) = read_limbo(&dir);
    let cases: Vec<Case> = limbo.testcases.into_iter().filter(applies).collect();
    let lanes = std::thread::available_parallelism().map_or(1, usize::from);
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let parts = cases.chunks(cases.len().div_ceil(lanes));
        let lanes: Vec<_> = parts.map(|part| scope.spawn(|| serve_all(part, &pinned))).collect();
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    println!(
        "{} chains served: {} got a leaf, {} were refused; {} cannot be served or asked for; {} differ as pinned",
        cases.len(),
        sum(|t| t.leaf),
        sum(|t| t.refused),
        sum(|t| t.unspeakable),
        sum(|t| t.known),
    );
    let differ: Vec<&String> = tallies.iter().flat_map(|tally| &tally.differ).collect();
    assert!(differ.is_empty(), "{differ:#?}");
    assert!(sum(|t| t.refused) > 8000 && sum(|t| t.leaf) > 800 && sum(|t| t.unspeakable) < 100);
}

struct Chain {
    root: CertificateDer<'static>,
    leaf: CertificateDer<'static>,
}

/// A root and a leaf below it, as `change` makes the leaf.
fn chain(change: impl FnOnce(&mut CertificateParams)) -> Chain {
    let key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    // Two roots of one name would be told apart by their signatures alone.
    root.distinguished_name.push(DnType::CommonName, format!("root {:?}", key.public_key_raw()));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let certificate = root.self_signed(&key).expect("a root");
    let issuer = Issuer::new(root, key);
    let mut leaf = CertificateParams::new(vec!["a.test".to_owned()]).expect("a name");
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut leaf);
    let leaf = leaf.signed_by(&KeyPair::generate().expect("a key"), &issuer).expect("a leaf");
    Chain { root: certificate.der().clone(), leaf: leaf.der().clone() }
}

fn judge(roots: &[&Chain], chain: &Chain, name: &'static str) -> Result<(), &'static str> {
    let mut store = RootCertStore::empty();
    for other in roots {
        store.add(other.root.clone()).expect("a root");
    }
    let verifier: Arc<dyn ServerCertVerifier> = upstream::verifier(store).expect("roots");
    let name = ServerName::try_from(name).expect("a name");
    verifier
        .verify_server_cert(&chain.leaf, &[], &name, &[], UnixTime::now())
        .map(|_| ())
        .map_err(|error| upstream::reason(&error))
}

#[test]
fn own_chains_are_judged() {
    let good = chain(|_| {});
    assert_eq!(judge(&[&good], &good, "a.test"), Ok(()));
    assert_eq!(judge(&[&good], &good, "b.test"), Err("upstream-certificate-wrong-host"));
    let stranger = chain(|_| {});
    assert_eq!(judge(&[&stranger], &good, "a.test"), Err("upstream-certificate-unknown-issuer"));
    let day = Duration::from_secs(86_400);
    let expired = chain(|leaf| leaf.not_after = (SystemTime::now() - day).into());
    assert_eq!(judge(&[&expired], &expired, "a.test"), Err("upstream-certificate-expired"));
    let early = chain(|leaf| leaf.not_before = (SystemTime::now() + day).into());
    assert_eq!(judge(&[&early], &early, "a.test"), Err("upstream-certificate-not-yet-valid"));
    let client = chain(|leaf| leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert_eq!(judge(&[&client], &client, "a.test"), Err("upstream-certificate-wrong-purpose"));
    let common_name_only = chain(|leaf| leaf.subject_alt_names = Vec::new());
    assert_eq!(
        judge(&[&common_name_only], &common_name_only, "a.test"),
        Err("upstream-certificate-wrong-host")
    );
}
