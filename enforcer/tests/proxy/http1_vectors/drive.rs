//! One payload on its way through the proxy.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::recorded;
use super::witness::{Arrived, Witness};
use crate::kit::{self, Kit, Options, PATIENCE};

/// How long a connection that may stay open is watched for its end.
pub const QUIET: Duration = Duration::from_millis(300);

/// How a payload travels.
#[derive(Debug, Clone, Copy)]
pub struct Way {
    pub tls: bool,
    /// The whole body is held before anything goes out.
    pub held: bool,
}

pub const WAYS: [Way; 4] = [
    Way { tls: false, held: false },
    Way { tls: true, held: true },
    Way { tls: true, held: false },
    Way { tls: false, held: true },
];

/// What happened to one payload.
pub struct Seen {
    pub way: Way,
    pub sent: Vec<u8>,
    /// Final status codes that the client got.
    pub statuses: Vec<u16>,
    /// The proxy closed the connection of itself.
    pub closed: bool,
    pub arrived: Arrived,
    pub recorded: recorded::Session,
}

/// Sends the bytes that `bytes` makes for this authority, cut at `cut`. After such answers
/// nobody waits for the end of the connection longer than `patience` says.
pub async fn send(
    way: Way,
    cut: usize,
    bytes: impl FnOnce(&str) -> Vec<u8>,
    patience: impl Fn(&[u16]) -> Duration,
) -> Result<Seen, String> {
    let (give, take) = tokio::sync::oneshot::channel();
    let upstream: kit::Start = Box::new(|tls| {
        let (witness, origin) = Witness::start(tls);
        drop(give.send(witness));
        origin
    });
    let options = Options {
        plain: !way.tls,
        policy: Some(super::POLICY),
        upstream: Some(upstream),
        ..Options::default()
    };
    let mut kit = Kit::start(options).await;
    let witness = take.await.unwrap();
    let host = if way.held { "held.test" } else { "allowed.test" };
    let sent = bytes(&format!("{host}:{}", kit.upstream.port()));
    let (answer, closed) = if way.tls {
        let stream = kit.tls(host, &[b"http/1.1"]).await.unwrap();
        let ends = Ends::of(stream.get_ref().0);
        talk(stream, ends, &sent, cut, patience).await?
    } else {
        let stream = TcpStream::connect(kit.proxy).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let ends = Ends::of(&stream);
        talk(stream, ends, &sent, cut, patience).await?
    };
    let drained = kit.drain.take().unwrap().drain(Duration::from_secs(5)).await;
    if drained != enforcer::drain::Drained::Clean {
        return Err("the proxy does not come to an end".to_owned());
    }
    let arrived = witness.finish().await;
    let mut recorded = Err(String::new());
    let ended = async || {
        recorded = recorded::session(kit.recordings.path());
        recorded.as_ref().map_or(true, |session| session.outcome != "open")
    };
    kit::until("the session's end is recorded", ended).await;
    let recorded = recorded?;
    Ok(Seen { way, sent, statuses: statuses(&answer), closed, arrived, recorded })
}

/// Both ends of a connection on loopback, as /proc/net/tcp writes them.
struct Ends {
    far: String,
    near: String,
}

impl Ends {
    fn of(stream: &TcpStream) -> Self {
        let text = |address: SocketAddr| format!("0100007F:{:04X}", address.port());
        Self { far: text(stream.peer_addr().unwrap()), near: text(stream.local_addr().unwrap()) }
    }

    /// Whether the far end has read all that arrived, or is gone.
    fn all_read(&self) -> bool {
        let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
        let far = table.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
        let mut far = far.filter(|fields| fields[1..3] == [&self.far, &self.near]);
        // The fifth field is `tx_queue:rx_queue`.
        far.next().is_none_or(|fields| fields[4].ends_with(":00000000"))
    }
}

/// Sends and reads until the end: the answer, and whether the end came before
/// this side closed its own half, when its `patience` with these answers was over.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    ends: Ends,
    bytes: &[u8],
    cut: usize,
    patience: impl Fn(&[u16]) -> Duration,
) -> Result<(Vec<u8>, bool), String> {
    let (first, second) = bytes.split_at(cut);
    // The proxy may have closed already.
    drop(stream.write_all(first).await);
    drop(stream.flush().await);
    if cut > 0 {
        kit::until("the first piece is read by itself", async || ends.all_read()).await;
    }
    drop(stream.write_all(second).await);
    drop(stream.flush().await);
    let mut answer = Vec::new();
    let begun = Instant::now();
    loop {
        if tokio::time::timeout(QUIET, to_end(&mut stream, &mut answer)).await.is_ok() {
            return Ok((answer, true));
        }
        if begun.elapsed() > patience(&statuses(&answer)) {
            break;
        }
    }
    drop(stream.shutdown().await);
    match tokio::time::timeout(PATIENCE, to_end(&mut stream, &mut answer)).await {
        Ok(()) => Ok((answer, false)),
        Err(_) => Err("the connection hangs".to_owned()),
    }
}

/// A reset is an end, too.
async fn to_end<S: AsyncRead + Unpin>(stream: &mut S, answer: &mut Vec<u8>) {
    while let Ok(1..) = stream.read_buf(answer).await {}
}

fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).filter(|status| *status >= 200).collect()
}
