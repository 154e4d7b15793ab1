//! Bodies that are held in memory before anything goes out, and whose turn it is to be looked into.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Collected;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that are held for one workload at the same time.
const BUDGET: usize = 128 * 1024 * 1024;
/// Bytes that one permit stands for.
const UNIT: usize = 64 * 1024;
/// Bodies of one workload that are looked into at the same time.
const TURNS: usize = 2;

/// Bodies of all workloads that are looked into at the same time: one on each processor, since more
/// would not be faster.
static HOST: LazyLock<Arc<Semaphore>> = LazyLock::new(|| {
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    Arc::new(Semaphore::new(processors))
});

/// What a workload may have held and looked into; who comes when there is no room waits.
#[derive(Debug, Clone)]
pub struct Budget {
    room: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

impl Default for Budget {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(BUDGET / UNIT)), turns: Arc::new(Semaphore::new(TURNS)) }
    }
}

/// Room for one body; it is given back when all of these are dropped.
pub type Room = Option<Arc<OwnedSemaphorePermit>>;

/// Leave to look into a body, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    _of_workload: OwnedSemaphorePermit,
    _of_host: OwnedSemaphorePermit,
}

impl Budget {
    /// Waits for room for so many bytes.
    pub async fn room(&self, bytes: usize) -> Room {
        // Nobody closes the semaphore.
        Arc::clone(&self.room).acquire_many_owned(units(bytes)).await.ok().map(Arc::new)
    }

    /// Room for so many bytes, if there is any now.
    pub fn room_now(&self, bytes: usize) -> Room {
        Arc::clone(&self.room).try_acquire_many_owned(units(bytes)).ok().map(Arc::new)
    }

    /// Waits until it is this workload's turn. One that has many bodies waits for itself and not
    /// the others for it.
    pub async fn turn(&self) -> Option<Turn> {
        let _of_workload = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        let _of_host = Arc::clone(&HOST).acquire_owned().await.ok()?;
        Some(Turn { _of_workload, _of_host })
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.min(BUDGET).div_ceil(UNIT).max(1)).unwrap_or(u32::MAX)
}

/// A whole body, and the room that it takes until it has gone out.
#[derive(Debug)]
pub struct Held {
    body: Collected<Bytes>,
    room: Room,
}

impl Held {
    pub fn new(body: Collected<Bytes>, room: Room) -> Self {
        Self { body, room }
    }

    /// Its room, for who goes on with these bytes whether the request is still there or not.
    pub fn room(&self) -> Room {
        self.room.clone()
    }

    /// What is given the room that was made has to keep it.
    pub fn into_parts(self) -> (Collected<Bytes>, Room) {
        (self.body, self.room)
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_takes_what_it_may_become_and_never_more_than_there_is() {
        let budget = Budget::default();
        let all = budget.room(usize::MAX).await;
        assert_eq!(budget.room.available_permits(), 0);
        assert!(budget.room_now(1).is_none());
        drop(all);
        let _small = budget.room(0).await;
        let large = budget.room_now(UNIT + 1);
        assert_eq!(budget.room.available_permits(), BUDGET / UNIT - 3);
        let held = Held::new(http_body_util::Empty::<Bytes>::new().collect().await.unwrap(), large);
        let kept = held.room();
        drop(held);
        assert_eq!(budget.room.available_permits(), BUDGET / UNIT - 3);
        drop(kept);
        assert_eq!(budget.room.available_permits(), BUDGET / UNIT - 1);
    }

    #[tokio::test]
    async fn a_workload_with_many_bodies_takes_turns() {
        use futures_util::FutureExt;
        let (one, other) = (Budget::default(), Budget::default());
        let mut turns = Vec::new();
        while let Some(turn) = one.turn().now_or_never() {
            turns.push(turn);
        }
        let processors = std::thread::available_parallelism().unwrap().get();
        assert_eq!(turns.len(), TURNS.min(processors));
        if processors > TURNS {
            assert!(other.turn().now_or_never().is_some());
        }
        turns.pop();
        assert!(one.turn().now_or_never().is_some());
    }
}
