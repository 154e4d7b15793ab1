//! The load generator. One thread; what it says is one JSON line.

mod h1;
mod h2;
mod idle;
mod modes;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::{machine, stats, tls};
use h1::H1;

/// The time within which event streams begin: some of the times between two events.
const STAGGER: Duration = Duration::from_millis(100);

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Requests on connections that stay, one after the other
    H1,
    /// The same with several streams on each connection
    H2,
    /// A connection for each request
    Connect,
    /// One large body
    Download,
    /// Requests at a fixed rate
    Rate,
    /// Events as they come
    Sse,
    /// Connections that do nothing after one request
    Idle,
}

#[derive(clap::Args)]
pub struct Args {
    #[arg(long, value_enum)]
    mode: Mode,
    /// Where the client connects to
    #[arg(long)]
    connect: SocketAddr,
    /// What is asked of a proxy by CONNECT, if it wants that
    #[arg(long)]
    authority: Option<String>,
    /// The port of the upstream, which requests name
    #[arg(long)]
    port: u16,
    /// The roots that are trusted
    #[arg(long)]
    roots: PathBuf,
    #[arg(long, default_value = "/s")]
    path: String,
    #[arg(long, default_value_t = 1)]
    connections: usize,
    /// Streams of each HTTP/2 connection
    #[arg(long, default_value_t = 1)]
    streams: usize,
    /// Requests a second of all connections together
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    /// Seconds before measuring begins
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Seconds of measuring
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// The proxy's processes
    #[arg(long, value_delimiter = ',')]
    proxy: Vec<u32>,
    /// The upstream's process
    #[arg(long)]
    upstream: u32,
}

/// What was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Measured {
    pub seconds: f64,
    /// Requests, connections or events.
    pub count: u64,
    pub bytes: u64,
    pub errors: u64,
    pub first_error: String,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub proxy_cpu_ns: u64,
    pub upstream_cpu_ns: u64,
    pub lg_cpu_ns: u64,
    /// The share of the machine that others used.
    pub foreign: f64,
}

pub type Stream = TlsStream<TcpStream>;

/// How connections are made.
pub struct Target {
    connect: SocketAddr,
    authority: Option<String>,
    /// What requests say whom they are for.
    pub host: String,
    tls: Arc<ClientConfig>,
}

impl Target {
    pub async fn open(&self) -> Result<Stream> {
        let mut tcp = TcpStream::connect(self.connect).await?;
        tcp.set_nodelay(true)?;
        if let Some(authority) = &self.authority {
            let ask = format!("CONNECT {authority} HTTP/1.1\r\nhost: {authority}\r\n\r\n");
            tcp.write_all(ask.as_bytes()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                ensure!(tcp.read_buf(&mut head).await? > 0, "closed at CONNECT");
            }
            ensure!(
                head.starts_with(b"HTTP/1.1 200") || head.starts_with(b"HTTP/1.0 200"),
                "CONNECT refused"
            );
        }
        let name = ServerName::try_from(tls::NAME)?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.context("TLS")
    }
}

impl Target {
    async fn ask_once(&self, h2: bool) -> Result<u64> {
        if h2 {
            h2::get(&h2::open(self).await?, &self.host, "/s").await
        } else {
            H1::new(self.open().await?, &self.host, "/s").get().await
        }
    }
}

/// What the tasks of one run add up.
#[derive(Debug, Default)]
pub struct Tally {
    pub count: u64,
    pub bytes: u64,
    pub errors: u64,
    pub first_error: String,
    pub latencies: Vec<u64>,
}

impl Tally {
    pub fn failed(&mut self, error: &anyhow::Error) {
        if self.errors == 0 {
            self.first_error = format!("{error:#}");
        }
        self.errors += 1;
    }
}

/// CPU times and the clock at one moment.
struct Moment {
    at: u64,
    busy: u64,
    proxy: u64,
    upstream: u64,
    own: u64,
}

impl Moment {
    fn now(args: &Args) -> Result<Self> {
        Ok(Self {
            at: machine::monotonic_ns(),
            busy: machine::busy_ns()?,
            proxy: machine::cpu_ns(&args.proxy)?,
            upstream: machine::cpu_ns(&[args.upstream])?,
            own: machine::cpu_ns(&[std::process::id()])?,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "nanoseconds of minutes are exact")]
fn measured(before: &Moment, after: &Moment, mut tally: Tally) -> Measured {
    let wall = (after.at - before.at) as f64;
    let (proxy, upstream) = (after.proxy - before.proxy, after.upstream - before.upstream);
    let own = after.own - before.own;
    let cpus = machine::cpus() as f64;
    let others = (after.busy - before.busy) as f64 - (proxy + upstream + own) as f64;
    Measured {
        seconds: wall / 1e9,
        count: tally.count,
        bytes: tally.bytes,
        errors: tally.errors,
        p50_ns: stats::percentile(&mut tally.latencies, 50),
        p99_ns: stats::percentile(&mut tally.latencies, 99),
        first_error: tally.first_error,
        proxy_cpu_ns: proxy,
        upstream_cpu_ns: upstream,
        lg_cpu_ns: own,
        foreign: (others / (wall * cpus)).max(0.0),
    }
}

pub fn run(args: Args) -> Result<()> {
    machine::pin_to(0)?;
    let config = tls::client(&args.roots, args.mode == Mode::H2)?;
    let (connect, authority) = (args.connect, args.authority.clone());
    let host = format!("{}:{}", tls::NAME, args.port);
    let target = Arc::new(Target { connect, authority, host, tls: config });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        // The first connection mints, and haproxy even closes it after that.
        drop(target.ask_once(args.mode == Mode::H2).await);
        if args.mode == Mode::Idle {
            return idle::run(&target, &args.path, args.connections).await;
        }
        let measured = if args.mode == Mode::Download {
            let before = Moment::now(&args)?;
            let tally = modes::download(&target, &args.path).await?;
            measured(&before, &Moment::now(&args)?, tally)
        } else {
            window(&args, &target).await?
        };
        println!("{}", serde_json::to_string(&measured)?);
        Ok(())
    })
}

/// Starts the tasks, lets them warm up, and measures what they do then.
async fn window(args: &Args, target: &Arc<Target>) -> Result<Measured> {
    let run = modes::Run::new(Arc::clone(target), args.path.clone());
    match args.mode {
        Mode::H1 => run.keep_alive(args.connections),
        Mode::H2 => run.multiplexed(args.connections, args.streams),
        Mode::Connect => run.connections(args.connections),
        Mode::Rate => run.at_rate(args.connections, args.rate),
        Mode::Sse => run.events(args.connections, STAGGER),
        Mode::Download | Mode::Idle => {}
    }
    tokio::time::sleep(Duration::from_secs_f64(args.warm)).await;
    run.tally.take();
    let before = Moment::now(args)?;
    tokio::time::sleep(Duration::from_secs_f64(args.seconds)).await;
    let after = Moment::now(args)?;
    Ok(measured(&before, &after, run.tally.take()))
}
