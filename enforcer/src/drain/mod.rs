//! Graceful and immediate shutdown with a deadline.
//!
//! ```text
//!   Running --drain()--> Graceful --all watches dropped--> done
//!                           |
//!                           +--deadline--> Immediate --> done
//! ```
//! Only [`Drain`] causes edges; tasks observe them through a [`Watch`] and are
//! counted by it, so a task that keeps its watch is a task that is waited for.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Running,
    Graceful,
    Immediate,
}

/// Starts the shutdown and waits for the end of it.
#[derive(Debug)]
pub struct Drain {
    phase: watch::Sender<Phase>,
    gone: mpsc::Receiver<()>,
}

/// Observes the shutdown. Dropping the last clone lets the drain finish.
#[derive(Debug, Clone)]
pub struct Watch {
    phase: watch::Receiver<Phase>,
    _alive: mpsc::Sender<()>,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Everybody left by themselves.
    Clean,
    /// Somebody was cut at the deadline.
    Cut,
}

pub fn channel() -> (Drain, Watch) {
    let (phase_tx, phase_rx) = watch::channel(Phase::Running);
    let (alive_tx, alive_rx) = mpsc::channel(1);
    (Drain { phase: phase_tx, gone: alive_rx }, Watch { phase: phase_rx, _alive: alive_tx })
}

impl Drain {
    /// Asks everybody to finish, waits until `deadline`, then tells them to stop at once.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.phase.send_replace(Phase::Graceful);
        // Nothing is ever sent: `recv` returns when the last sender is gone.
        if tokio::time::timeout(deadline, self.gone.recv()).await.is_ok() {
            return Drained::Clean;
        }
        self.phase.send_replace(Phase::Immediate);
        self.gone.recv().await;
        Drained::Cut
    }
}

impl Watch {
    /// Returns when a shutdown, graceful or immediate, has begun.
    pub async fn graceful(&mut self) {
        self.at_least(Phase::Graceful).await;
    }

    /// Returns when the deadline of a shutdown has passed.
    pub async fn immediate(&mut self) {
        self.at_least(Phase::Immediate).await;
    }

    pub fn is_draining(&self) -> bool {
        *self.phase.borrow() >= Phase::Graceful
    }

    async fn at_least(&mut self, phase: Phase) {
        if self.phase.wait_for(|now| *now >= phase).await.is_err() {
            // The drain was dropped without being used: there will be no shutdown.
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_drain_ends_when_the_last_watch_is_dropped() {
        let (drain, mut watch) = channel();
        let task = tokio::spawn(async move { watch.graceful().await });
        assert_eq!(drain.drain(Duration::from_secs(10)).await, Drained::Clean);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_task_that_stays_is_cut_at_the_deadline() {
        let (drain, mut watch) = channel();
        let task = tokio::spawn(async move { watch.immediate().await });
        assert_eq!(drain.drain(Duration::from_millis(20)).await, Drained::Cut);
        task.await.unwrap();
    }
}
