//! An upstream that writes down what arrives, byte for byte, and answers every
//! whole request with 200.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::wire::{self, Request};
use crate::kit::origin::Origin;

/// What arrived.
#[derive(Debug, Default)]
pub struct Arrived {
    /// Whole requests in their order, over all connections.
    pub whole: Vec<Request>,
    /// Requests of which the end never came.
    pub partial: Vec<Request>,
    /// Bytes that are no request in the one form that is allowed here.
    pub wrong: Vec<String>,
}

/// The upstream's side of the test.
pub struct Witness {
    arrived: Arc<Mutex<Arrived>>,
    accepting: JoinHandle<()>,
    /// Ends when all connections have.
    open: mpsc::Receiver<()>,
}

impl Witness {
    pub fn start(tls: Option<Arc<rustls::ServerConfig>>) -> (Self, Origin) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        let arrived = Arc::<Mutex<Arrived>>::default();
        let seen = Arc::clone(&arrived);
        let (alive, open) = mpsc::channel(1);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, seen, alive) = (tls.clone(), Arc::clone(&seen), alive.clone());
                tokio::spawn(async move {
                    match tls {
                        None => watch(stream, &seen).await,
                        Some(tls) => {
                            let accepted = tokio_rustls::TlsAcceptor::from(tls).accept(stream).await;
                            watch(accepted.expect("the proxy's handshake"), &seen).await;
                        }
                    }
                    drop(alive);
                });
            }
        });
        let origin = Origin { address, accepted: Arc::default() };
        (Self { arrived, accepting, open }, origin)
    }

    /// Waits for the end of all connections.
    pub async fn finish(mut self) -> Arrived {
        self.accepting.abort();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.open.recv()).await;
        assert!(ended.is_ok(), "an upstream connection outlives the proxy");
        std::mem::take(&mut self.arrived.lock().unwrap())
    }
}

async fn watch<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, seen: &Mutex<Arrived>) {
    let (mut bytes, mut answered) = (Vec::new(), 0);
    // A connection that is cut ends in an error, which is an end like any other.
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        let read = match wire::requests(&bytes, wire::From::Proxy) {
            Ok(read) => read,
            Err(why) => {
                let why = format!("{why}, in {:?}", String::from_utf8_lossy(&bytes));
                return seen.lock().unwrap().wrong.push(why);
            }
        };
        let whole = read.requests.into_iter().filter(|request| request.complete);
        let new: Vec<Request> = whole.skip(answered).collect();
        answered += new.len();
        let answers = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".repeat(new.len());
        seen.lock().unwrap().whole.extend(new);
        if stream.write_all(answers.as_bytes()).await.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
    let read = wire::requests(&bytes, wire::From::Proxy).unwrap_or_default();
    let mut seen = seen.lock().unwrap();
    if read.left > 0 {
        seen.wrong.push("a part of a head".to_owned());
    }
    seen.partial.extend(read.requests.into_iter().filter(|request| !request.complete));
}
