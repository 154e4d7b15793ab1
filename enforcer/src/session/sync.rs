//! Getting records onto the disk: one thread, one fsync for all who wait.

use std::fs::File;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::SessionError;
use super::dir::Dir;

/// How far the recording has come, in bytes since it was opened.
#[derive(Debug, Clone, Default)]
struct Progress {
    synced: u64,
    /// An fsync failed: nothing up to this position is known to be on disk.
    lost: Option<(u64, String)>,
}

#[derive(Default)]
struct State {
    /// `None` after an fsync failed, until there is a new segment.
    file: Option<Arc<File>>,
    written: u64,
    wanted: u64,
    synced: u64,
    failed: Option<String>,
    stop: bool,
    fsyncs: u64,
}

struct Inner {
    dir: Arc<Dir>,
    state: Mutex<State>,
    wake: Condvar,
    progress: watch::Sender<Progress>,
}

/// The flusher; dropping it flushes once more and ends its thread.
pub struct Sync {
    inner: Arc<Inner>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Sync {
    pub fn start(dir: Arc<Dir>, interval: Duration) -> Result<Self, SessionError> {
        let inner = Arc::new(Inner {
            dir,
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: watch::Sender::new(Progress::default()),
        });
        let theirs = Arc::clone(&inner);
        let thread = std::thread::Builder::new()
            .name("recording-sync".to_owned())
            .spawn(move || theirs.run(interval))
            .map_err(|error| SessionError::Unwritable { cause: error.to_string() })?;
        Ok(Self { inner, thread: Some(thread) })
    }

    /// From now on this file is the one to flush.
    pub fn watch(&self, file: Arc<File>) {
        let mut state = self.inner.lock();
        state.file = Some(file);
        state.failed = None;
    }

    /// `bytes` more have been written; says the position behind them. They are
    /// in vain if the segment was lost in the meantime.
    pub fn wrote(&self, bytes: u64) -> Result<u64, SessionError> {
        let mut state = self.inner.lock();
        match (&state.file, &state.failed) {
            (None, Some(cause)) => Err(SessionError::Unwritable { cause: cause.clone() }),
            _ => {
                state.written += bytes;
                Ok(state.written)
            }
        }
    }

    /// What the last fsync of the current segment failed with.
    pub fn failure(&self) -> Option<String> {
        self.inner.lock().failed.clone()
    }

    /// How many fsyncs there have been.
    #[cfg(test)]
    pub fn fsyncs(&self) -> u64 {
        self.inner.lock().fsyncs
    }

    /// Waits until everything up to `position` is on disk.
    pub async fn reached(&self, position: u64) -> Result<(), SessionError> {
        let mut progress = self.inner.progress.subscribe();
        {
            let mut state = self.inner.lock();
            state.wanted = state.wanted.max(position);
        }
        self.inner.wake.notify_one();
        let done = progress
            .wait_for(|now| {
                now.synced >= position || now.lost.as_ref().is_some_and(|(end, _)| *end >= position)
            })
            .await
            .map_err(|_| SessionError::Unwritable { cause: "the flusher has ended".to_owned() })?;
        match &done.lost {
            Some((end, cause)) if *end >= position => Err(SessionError::Unwritable { cause: cause.clone() }),
            _ => Ok(()),
        }
    }
}

impl Drop for Sync {
    fn drop(&mut self) {
        self.inner.lock().stop = true;
        self.inner.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the flusher of the recording panicked");
        }
    }
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, interval: Duration) {
        loop {
            let (file, upto, stop) = self.next(interval);
            if let Some(file) = file {
                self.flush(&file, upto);
            }
            if stop {
                return;
            }
        }
    }

    /// Sleeps until somebody waits or the interval is over.
    fn next(&self, interval: Duration) -> (Option<Arc<File>>, u64, bool) {
        let state = self.lock();
        let idle = |state: &mut State| (state.wanted <= state.synced || state.file.is_none()) && !state.stop;
        let (state, _) =
            self.wake.wait_timeout_while(state, interval, idle).unwrap_or_else(PoisonError::into_inner);
        let file = if state.written > state.synced { state.file.clone() } else { None };
        (file, state.written, state.stop)
    }

    /// **Invariant**: a file whose fsync failed is never flushed again: the kernel
    /// has dropped the pages, and a second fsync would call them written.
    fn flush(&self, file: &Arc<File>, upto: u64) {
        let result = file.sync_data().and_then(|()| still_linked(file)).and_then(|()| self.dir.still_there());
        let mut state = self.lock();
        state.fsyncs += 1;
        state.synced = upto;
        let current = state.file.as_ref().is_some_and(|current| Arc::ptr_eq(current, file));
        let lost = match result {
            Ok(()) => None,
            Err(error) => {
                if current {
                    // What was written while the fsync ran is as lost as the rest.
                    state.synced = state.written;
                    state.file = None;
                    state.failed = Some(error.to_string());
                }
                Some((state.synced, error.to_string()))
            }
        };
        drop(state);
        self.progress.send_modify(|progress| {
            if lost.is_none() {
                progress.synced = upto;
            } else {
                progress.lost = lost;
            }
        });
    }
}

/// A segment that somebody has removed is written to in vain.
fn still_linked(file: &File) -> std::io::Result<()> {
    use std::os::unix::fs::MetadataExt;
    if file.metadata()?.nlink() == 0 {
        return Err(std::io::Error::other("the segment has been removed"));
    }
    Ok(())
}
