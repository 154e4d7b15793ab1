//! A connection that policy relays unread to a named host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::policy::Decision;
use crate::session::Event;

use super::connection::{Carried, ClientStream, alert_and_close};
use super::dial::{Dial, dial};
use super::error::ProxyError;
use super::plan::Alert;

/// Bytes that one direction may hold.
const BUFFER: usize = 32 * 1024;

pub(super) async fn relay(
    carried: &Carried,
    mut stream: ClientStream,
    host: &str,
    decision: &Decision,
) -> Result<(), ProxyError> {
    let to = Dial {
        tag: carried.conn.subject.workload.tag,
        host,
        port: carried.original.port(),
        addresses: &decision.addresses,
        original: carried.original.ip(),
    };
    let upstream = match Box::pin(dial(&carried.shared, to)).await {
        Ok(upstream) => upstream,
        Err(error) => {
            alert_and_close(&mut stream, Alert::InternalError).await;
            return Err(error);
        }
    };
    let counts = [AtomicU64::new(0), AtomicU64::new(0)];
    let (client_read, client_write) = tokio::io::split(stream);
    let (server_read, server_write) = upstream.into_split();
    let mut watch = carried.watch.clone();
    let done = tokio::select! {
        biased;
        () = watch.immediate() => Err(ProxyError::Draining),
        () = idle(&counts, carried.shared.limits.relay_idle_timeout()) => Err(ProxyError::RelayIdle),
        done = async {
            tokio::try_join!(
                pump(client_read, server_write, &counts[0]),
                pump(server_read, client_write, &counts[1]),
            )
        } => done.map(|_| ()).map_err(ProxyError::Relay),
    };
    let [sent, received] = counts.map(AtomicU64::into_inner);
    carried.conn.note(&Event::Passthrough { sent, received });
    done
}

/// Half-close goes on as half-close.
async fn pump<R, W>(mut from: R, mut to: W, count: &AtomicU64) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
        to.flush().await?;
        count.fetch_add(read as u64, Ordering::Relaxed);
    }
}

/// Returns when nothing moved for the whole of `timeout`.
async fn idle(counts: &[AtomicU64; 2], timeout: Duration) {
    let mut before = None;
    loop {
        let now = [counts[0].load(Ordering::Relaxed), counts[1].load(Ordering::Relaxed)];
        if before == Some(now) {
            return;
        }
        before = Some(now);
        tokio::time::sleep(timeout).await;
    }
}
