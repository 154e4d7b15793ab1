//! Bodies that are held in memory before anything goes out.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Collected;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes that are held for one workload at the same time.
const BUDGET: usize = 128 * 1024 * 1024;
/// Bytes that one permit stands for.
const UNIT: usize = 64 * 1024;

/// What a workload may have held; who comes when there is no room waits.
#[derive(Debug, Clone)]
pub struct Budget(Arc<Semaphore>);

impl Default for Budget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET / UNIT)))
    }
}

/// Room for one body; it is given back when this is dropped.
pub type Room = Option<OwnedSemaphorePermit>;

impl Budget {
    /// Waits for room for so many bytes.
    pub async fn room(&self, bytes: usize) -> Room {
        // Nobody closes the semaphore.
        Arc::clone(&self.0).acquire_many_owned(units(bytes)).await.ok()
    }

    /// Room for so many bytes, if there is any now.
    pub fn room_now(&self, bytes: usize) -> Room {
        Arc::clone(&self.0).try_acquire_many_owned(units(bytes)).ok()
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
    use super::*;

    #[tokio::test]
    async fn a_body_takes_what_it_may_become_and_never_more_than_there_is() {
        let budget = Budget::default();
        let all = budget.room(usize::MAX).await;
        assert_eq!(budget.0.available_permits(), 0);
        assert!(budget.room_now(1).is_none());
        drop(all);
        let _small = budget.room(0).await;
        let _large = budget.room_now(UNIT + 1);
        assert_eq!(budget.0.available_permits(), BUDGET / UNIT - 3);
    }
}
