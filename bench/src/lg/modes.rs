//! What the tasks of the load generator do.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::spawn_local;

use super::h1::H1;
use super::{Tally, Target, h2};
use crate::machine::monotonic_ns;

/// Tasks that go on until the process ends.
pub struct Run {
    target: Arc<Target>,
    path: Rc<str>,
    pub tally: Rc<RefCell<Tally>>,
}

/// What every task has.
#[derive(Clone)]
struct Task {
    target: Arc<Target>,
    path: Rc<str>,
    tally: Rc<RefCell<Tally>>,
}

impl Task {
    /// Waits a little after an error, so that a dead target is not hammered.
    async fn note(&self, done: Result<()>) {
        if let Err(error) = done {
            self.tally.borrow_mut().failed(&error);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn done(&self, since: u64, bytes: u64) {
        let mut tally = self.tally.borrow_mut();
        tally.count += 1;
        tally.bytes += bytes;
        tally.latencies.push(monotonic_ns().saturating_sub(since));
    }

    async fn connected(&self) -> Result<H1> {
        Ok(H1::new(self.target.open().await?, &self.target.host, &self.path))
    }

    async fn one_after_the_other(&self) -> Result<()> {
        let mut connection = self.connected().await?;
        loop {
            let since = monotonic_ns();
            let bytes = connection.get().await?;
            self.done(since, bytes);
        }
    }

    async fn stream(&self, sender: &::h2::client::SendRequest<bytes::Bytes>) -> Result<()> {
        loop {
            let since = monotonic_ns();
            let bytes = h2::get(sender, &self.target.host, &self.path).await?;
            self.done(since, bytes);
        }
    }

    async fn one_connection(&self) -> Result<()> {
        let since = monotonic_ns();
        let bytes = self.connected().await?.get().await?;
        self.done(since, bytes);
        Ok(())
    }

    /// Latency counts from when a request was due if the one before was late
    /// (else a slow target would be asked less often), and from when the timer
    /// woke us otherwise: timers go by milliseconds.
    async fn at_times(&self, first: Duration, every: Duration) -> Result<()> {
        let mut connection = self.connected().await?;
        let mut due = tokio::time::Instant::now() + first;
        loop {
            let late = due.elapsed();
            tokio::time::sleep_until(due).await;
            let late = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
            let since = monotonic_ns().saturating_sub(late);
            let bytes = connection.get().await?;
            self.done(since, bytes);
            due += every;
        }
    }

    async fn events(&self) -> Result<()> {
        let mut connection = self.connected().await?;
        let mut line = Vec::new();
        connection
            .each(|piece| {
                let now = monotonic_ns();
                for byte in piece {
                    if *byte != b'\n' {
                        line.push(*byte);
                        continue;
                    }
                    if let Some(sent) = sent_at(&line) {
                        let mut tally = self.tally.borrow_mut();
                        tally.count += 1;
                        tally.latencies.push(now.saturating_sub(sent));
                    }
                    line.clear();
                }
            })
            .await?;
        anyhow::bail!("the events ended")
    }
}

fn sent_at(line: &[u8]) -> Option<u64> {
    std::str::from_utf8(line.strip_prefix(b"data: ")?).ok()?.parse().ok()
}

impl Run {
    pub fn new(target: Arc<Target>, path: String) -> Self {
        Self { target, path: path.into(), tally: Rc::default() }
    }

    fn task(&self) -> Task {
        Task { target: Arc::clone(&self.target), path: Rc::clone(&self.path), tally: Rc::clone(&self.tally) }
    }

    pub fn keep_alive(&self, connections: usize) {
        for task in (0..connections).map(|_| self.task()) {
            spawn_local(async move {
                loop {
                    let done = task.one_after_the_other().await;
                    task.note(done).await;
                }
            });
        }
    }

    pub fn multiplexed(&self, connections: usize, streams: usize) {
        for task in (0..connections).map(|_| self.task()) {
            spawn_local(async move {
                let sender = match h2::open(&task.target).await {
                    Ok(sender) => sender,
                    Err(error) => return task.tally.borrow_mut().failed(&error),
                };
                for _ in 0..streams {
                    let (task, sender) = (task.clone(), sender.clone());
                    spawn_local(async move {
                        loop {
                            let done = task.stream(&sender).await;
                            task.note(done).await;
                        }
                    });
                }
            });
        }
    }

    pub fn connections(&self, at_once: usize) {
        for task in (0..at_once).map(|_| self.task()) {
            spawn_local(async move {
                loop {
                    let done = task.one_connection().await;
                    task.note(done).await;
                }
            });
        }
    }

    pub fn at_rate(&self, connections: usize, rate: u64) {
        let count = u32::try_from(connections).unwrap_or(u32::MAX);
        let every = Duration::from_secs(1) * count / u32::try_from(rate).unwrap_or(u32::MAX);
        for (at, task) in (0..count).map(|at| (at, self.task())) {
            spawn_local(async move {
                loop {
                    let done = task.at_times(every * at / count, every).await;
                    task.note(done).await;
                }
            });
        }
    }

    /// The streams begin one after the other within `period`, so that their events
    /// do not come all at once.
    pub fn events(&self, connections: usize, period: Duration) {
        let count = u32::try_from(connections).unwrap_or(u32::MAX);
        for (at, task) in (0..count).map(|at| (at, self.task())) {
            spawn_local(async move {
                tokio::time::sleep(period * at / count).await;
                loop {
                    let done = task.events().await;
                    task.note(done).await;
                }
            });
        }
    }
}

/// One body, all of it.
pub async fn download(target: &Target, path: &str) -> Result<Tally> {
    let mut connection = H1::new(target.open().await?, &target.host, path);
    let since = monotonic_ns();
    let bytes = connection.get().await?;
    Ok(Tally { count: 1, bytes, latencies: vec![monotonic_ns() - since], ..Tally::default() })
}

#[cfg(test)]
mod tests {
    use super::sent_at;

    #[test]
    fn the_time_stands_in_the_data_of_an_event() {
        assert_eq!(sent_at(b"data: 123"), Some(123));
        assert_eq!(sent_at(b"event: tick"), None);
        assert_eq!(sent_at(b"data: x"), None);
    }
}
