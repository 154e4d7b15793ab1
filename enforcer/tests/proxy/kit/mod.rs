//! A proxy on loopback with everything around it in this process: a CA, a signer
//! that counts, an upstream, and a source of flow records in place of the kernel.

mod authority;
pub mod client;
mod llm;
pub mod origin;
pub mod serving;
pub mod websocket;

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

pub use authority::Authority;
use enforcer::net::sys::FlowRecord;
use enforcer::proxy::resolve::{Resolve, Resolving};
use enforcer::proxy::{FlowSource, Leaf, Leaves, Limits, UpstreamTls, Verifying};
use serving::{Around, serve};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

pub const SECRET: &str = "obviously-fake-deploy-key-0123456789";
/// The policy of a kit that is not given another one.
const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: secrets
    when: { host: masked.test }
    mask: { request: [exact], response: [exact] }
  - id: loopback
    when: { host: "**.test" }
    addresses: [loopback]
  - id: unread
    when: { host: unread.test }
    passthrough: true
  - id: held
    when: { host: [allowed.test, masked.test], path: /echo/held }
    body: inspect
  - id: path
    when: { host: allowed.test, path: [/denied, "/denied/**"] }
    deny: not this path
  - id: delete
    when: { host: masked.test, method: DELETE }
    deny: nothing is deleted from here
  - id: run
    when: { host: masked.test, path: "/v1/*:run" }
    deny: nothing is run from here
  - id: rest
    when: { host: [allowed.test, masked.test, other.test, "*.open.test"] }
    allow: true
"#;
/// How long something may take that comes at once on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until this holds, or panics with what did not come.
pub async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds().await {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The folder of what others collected, of which this file is wanted.
pub fn vectors(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("ENFORCER_VECTORS");
    if folder.is_none() {
        // Not by `println!`, which is shown for a failure only.
        let text = format!("ENFORCER_VECTORS is not set: {name} was NOT run\n");
        std::io::stderr().write_all(text.as_bytes()).unwrap();
    }
    folder.map(PathBuf::from)
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The next frame of HTTP/2: its kind, its flags and what it holds.
pub async fn read_frame(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let mut payload = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
    stream.read_exact(&mut payload).await?;
    Ok((head[3], head[4], payload))
}

struct Signer {
    never: bool,
    authority: Arc<Authority>,
    signed: Arc<AtomicUsize>,
}

impl Leaves for Signer {
    fn server_config<'a>(&'a self, name: &'a str, alpn: Option<&'a [u8]>) -> Leaf<'a> {
        self.signed.fetch_add(1, Ordering::Relaxed);
        if self.never {
            return Box::pin(std::future::pending());
        }
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
        Ok(Some(serving::flow_to(self.0)))
    }
}

/// Every name is this machine, and is counted.
pub struct Loopback(pub Arc<AtomicUsize>);

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
    pub scene: origin::Scene,
    /// Names that were asked for.
    pub resolved: Arc<AtomicUsize>,
    pub drain: Option<enforcer::drain::Drain>,
    /// Counters of what was found.
    pub found: Arc<enforcer::gate::Found>,
    /// The workload.
    pub subject: Arc<enforcer::gate::Subject>,
}

/// Starts another upstream than the usual one; it is given what it needs for TLS.
pub type Start = Box<dyn FnOnce(Option<Arc<rustls::ServerConfig>>) -> origin::Origin>;

#[derive(Default)]
pub struct Options {
    pub policy: Option<&'static str>,
    /// One that may change.
    pub policies: Option<Arc<enforcer::policy::PolicyStore>>,
    pub upstream: Option<Start>,
    pub expired: bool,
    pub untrusted: bool,
    pub plain: bool,
    pub h1_only: bool,
    /// The kernel names a workload of which nobody told the proxy.
    pub unknown: bool,
    /// Whoever waits for a leaf waits for ever.
    pub never_signs: bool,
    /// The client thinks that it speaks to a name server.
    pub dns: bool,
    pub limits: Limits,
    /// Where people are asked.
    pub approvals: Option<enforcer::approval::Desk>,
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
        let scene = origin::Scene::default();
        let origin = match options.upstream {
            Some(start) => start(tls),
            None => origin::Origin::start(tls, scene.clone(), options.script).await,
        };

        let resolved = Arc::new(AtomicUsize::new(0));
        let original = if options.dns { SocketAddr::from(([192, 0, 2, 53], 53)) } else { origin.address };
        let serving = serve(Around {
            policy: options.policy.unwrap_or(POLICY),
            policies: options.policies,
            secret: Some(SECRET),
            known: !options.unknown,
            limits: options.limits,
            resolver: Box::new(Loopback(Arc::clone(&resolved))),
            flows: Box::new(Fixed(original)),
            leaves: Box::new(Signer {
                never: options.never_signs,
                authority: Arc::clone(&authority),
                signed: Arc::clone(&signed),
            }),
            upstream: Box::new(Trusting(public)),
            approvals: options.approvals,
        })
        .await;
        Self {
            proxy: serving.address,
            upstream: origin.address,
            accepted: origin.accepted,
            signed,
            authority,
            recordings: serving.recordings,
            scene,
            resolved,
            drain: Some(serving.drain),
            found: serving.found,
            subject: serving.subject,
        }
    }

    /// Everything that was written, as bytes.
    pub fn recorded(&self) -> Vec<u8> {
        let files = std::fs::read_dir(self.recordings.path()).unwrap();
        files.flat_map(|file| std::fs::read(file.unwrap().path()).unwrap_or_default()).collect()
    }

    /// The events of this kind that were recorded.
    pub fn events(&self, kind: &str) -> Vec<serde_json::Value> {
        let bytes = self.recorded();
        let begins = memchr::memmem::find_iter(&bytes, br#"{"event":"#);
        let read = |at| serde_json::Deserializer::from_slice(&bytes[at..]).into_iter().next()?.ok();
        begins.filter_map(read).filter(|event: &serde_json::Value| event["event"] == kind).collect()
    }

    /// Waits until the recording says so.
    pub async fn recorded_text(&self, text: &str) -> String {
        until(&format!("the recording says {text}"), async || self.recorded_says(text)).await;
        String::from_utf8_lossy(&self.recorded()).into_owned()
    }

    pub fn recorded_says(&self, text: &str) -> bool {
        memchr::memmem::find(&self.recorded(), text.as_bytes()).is_some()
    }
}
