//! One payload on its way through the proxy.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::kit::{self, Kit, Options};
use crate::recorded;
use crate::witness::{Arrived, Witness};

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

/// Sends the bytes that `bytes` makes for this authority, cut at `cut`.
pub async fn send(way: Way, cut: usize, bytes: impl FnOnce(&str) -> Vec<u8>) -> Result<Seen, String> {
    let (give, take) = tokio::sync::oneshot::channel();
    let upstream: kit::Start = Box::new(|tls| {
        let (witness, origin) = Witness::start(tls);
        drop(give.send(witness));
        origin
    });
    let options = Options { plain: !way.tls, upstream: Some(upstream), ..Options::default() };
    let mut kit = Kit::start(options).await;
    let witness = take.await.unwrap();
    let host = if way.held { "held.test" } else { "allowed.test" };
    let sent = bytes(&format!("{host}:{}", kit.upstream.port()));
    let (answer, closed) = if way.tls {
        talk(kit.tls(host, &[b"http/1.1"]).await.unwrap(), &sent, cut).await?
    } else {
        let stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
        stream.set_nodelay(true).unwrap();
        talk(stream, &sent, cut).await?
    };
    let drained = kit.drain.take().unwrap().drain(Duration::from_secs(5)).await;
    if drained != enforcer::drain::Drained::Clean {
        return Err("the proxy does not come to an end".to_owned());
    }
    let arrived = witness.finish().await;
    let mut recorded = recorded::session(kit.recordings.path())?;
    for _ in 0..500 {
        if recorded.outcome != "cut" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        recorded = recorded::session(kit.recordings.path())?;
    }
    Ok(Seen { way, sent, statuses: statuses(&answer), closed, arrived, recorded })
}

/// Sends and reads until the end: the answer, and whether the end came before
/// this side closed its own half.
async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    bytes: &[u8],
    cut: usize,
) -> Result<(Vec<u8>, bool), String> {
    let (first, second) = bytes.split_at(cut);
    // The proxy may have closed already.
    drop(stream.write_all(first).await);
    drop(stream.flush().await);
    if cut > 0 {
        // Not a wait: it makes the proxy see two pieces. Were it too short, the cut would not be tested.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    drop(stream.write_all(second).await);
    drop(stream.flush().await);
    let mut answer = Vec::new();
    let reading = to_end(&mut stream, &mut answer);
    if tokio::time::timeout(Duration::from_millis(300), reading).await.is_ok() {
        return Ok((answer, true));
    }
    drop(stream.shutdown().await);
    let reading = to_end(&mut stream, &mut answer);
    match tokio::time::timeout(Duration::from_secs(5), reading).await {
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
