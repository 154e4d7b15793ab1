//! One thread, one runtime, one copy of each listener's descriptor.
//!
//! A listener is duplicated, not opened again with `SO_REUSEPORT`: that would let
//! anybody with the same uid take a share of the connections.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use crate::drain::Watch;

use super::Shared;
use super::connection::serve_connection;

/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);
/// How often idle upstream connections are looked over.
const SWEEP: Duration = Duration::from_secs(10);

/// Ends when the listeners of a namespace are to be closed: its sender is dropped.
pub type Closed = watch::Receiver<()>;

/// All threads that serve connections.
pub struct Workers {
    listeners: Vec<mpsc::UnboundedSender<(StdListener, Closed)>>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads, at least one.
    pub fn start(shared: &Arc<Shared>, count: usize, watch: &Watch) -> io::Result<Self> {
        let mut workers = Workers { listeners: Vec::new(), threads: Vec::new() };
        for number in 0..count.max(1) {
            let (to, from) = mpsc::unbounded_channel();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let (shared, watch) = (Arc::clone(shared), watch.clone());
            let thread = std::thread::Builder::new().name(format!("proxy-{number}"));
            let thread = thread.spawn(move || runtime.block_on(work(shared, from, watch)))?;
            workers.listeners.push(to);
            workers.threads.push(thread);
        }
        Ok(workers)
    }

    /// Serves a listener on `threads` of them, the `first` and those after it, until
    /// it is closed or the drain begins.
    pub fn listen(
        &self,
        listener: &StdListener,
        closed: &Closed,
        first: usize,
        threads: usize,
    ) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let count = self.listeners.len();
        for worker in self.listeners.iter().cycle().skip(first % count.max(1)).take(threads.min(count)) {
            // A worker that is gone is draining, and takes no listener.
            drop(worker.send((listener.try_clone()?, closed.clone())));
        }
        Ok(())
    }

    pub fn count(&self) -> usize {
        self.listeners.len()
    }

    /// Waits for all threads; call it after the drain.
    pub fn join(self) {
        drop(self.listeners);
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

async fn work(
    shared: Arc<Shared>,
    mut listeners: mpsc::UnboundedReceiver<(StdListener, Closed)>,
    mut watch: Watch,
) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            biased;
            () = watch.graceful() => break,
            listener = listeners.recv() => match listener {
                Some((listener, closed)) => match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let accepting = accept(Arc::clone(&shared), listener, watch.clone());
                        tokio::spawn(until_closed(accepting, closed));
                    }
                    Err(error) => tracing::error!(%error, "a listener is not usable"),
                },
                None => break,
            },
            _ = sweep.tick() => shared.pool.sweep(),
        }
    }
    // Connections keep clones of the watch and need this runtime: it lives until
    // the drain is over and `join` drops the channel.
    drop(watch);
    while listeners.recv().await.is_some() {}
}

/// Serves until the listeners of its namespace are closed; then what served is gone.
pub async fn until_closed(serving: impl Future<Output = ()>, mut closed: Closed) {
    tokio::select! {
        biased;
        // Nothing is ever sent: this is the end of the sender.
        _ = closed.changed() => {}
        () = serving => {}
    }
}

/// Accepts until the drain begins.
pub async fn accept(shared: Arc<Shared>, listener: TcpListener, mut watch: Watch) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = watch.graceful() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                let serving = serve_connection(Arc::clone(&shared), stream, client, watch.clone());
                tokio::spawn(Box::pin(serving));
            }
            Err(error) => {
                // Out of descriptors or memory: a tight loop would make it worse.
                tracing::warn!(%error, "accepting failed");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
