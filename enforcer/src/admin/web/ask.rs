//! The page's way to the loader: a few sockets, one question on each at a time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::{Notify, Semaphore};

use crate::admin::request::AdminReply;
use crate::net::ipc::Channel;

use super::WebRequest;
use super::limits::{ANSWER, TURN};

/// What is known, or why it is not, for people.
pub type Answering<'a> = Pin<Box<dyn Future<Output = Result<Value, String>> + Send + 'a>>;

/// Asks whoever knows.
pub trait Ask: Send + Sync {
    fn ask(&self, request: WebRequest) -> Answering<'_>;
}

/// The loader.
pub struct Lines {
    free: Arc<Mutex<Vec<Channel>>>,
    turns: Arc<Semaphore>,
    broken: Arc<Notify>,
}

impl Lines {
    pub fn new(lines: Vec<Channel>) -> io::Result<Self> {
        for line in &lines {
            line.set_patience(Some(ANSWER))?;
        }
        let turns = Arc::new(Semaphore::new(lines.len()));
        Ok(Self { free: Arc::new(Mutex::new(lines)), turns, broken: Arc::default() })
    }

    /// Told of when one of them is of no use any more: a new process gets new ones.
    pub fn broken(&self) -> Arc<Notify> {
        Arc::clone(&self.broken)
    }
}

impl Ask for Lines {
    fn ask(&self, request: WebRequest) -> Answering<'_> {
        Box::pin(async move {
            let busy = || "too much is asked at the same time: try again".to_owned();
            let turn = tokio::time::timeout(TURN, Arc::clone(&self.turns).acquire_owned()).await;
            let turn = turn.map_err(|_| busy())?.map_err(|_| busy())?;
            let free = Arc::clone(&self.free);
            // It goes on when nobody waits for it any more: a line that was left in the middle of
            // an answer would give it to the next who asks.
            let asked = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let line = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let line = line.ok_or(io::ErrorKind::NotConnected)?;
                line.send(&request, &[])?;
                let reply = line.recv::<AdminReply>()?.ok_or(io::ErrorKind::UnexpectedEof)?.0;
                free.lock().unwrap_or_else(PoisonError::into_inner).push(line);
                Ok::<_, io::Error>(reply)
            });
            let broken = |error: String| {
                self.broken.notify_one();
                tracing::error!("the service does not answer: {error}");
                "the service does not answer: try again, and look at its log".to_owned()
            };
            let reply = asked.await.map_err(|error| broken(error.to_string()))?;
            let reply = reply.map_err(|error| broken(error.to_string()))?;
            if reply.ok { Ok(reply.status) } else { Err(reply.message) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(message: &str) -> AdminReply {
        AdminReply { ok: true, message: String::new(), status: message.into() }
    }

    #[tokio::test]
    async fn a_line_that_breaks_is_used_no_more_and_others_are() {
        let (ours, theirs) = Channel::pair().unwrap();
        let (other, gone) = Channel::pair().unwrap();
        drop(gone);
        let lines = Lines::new(vec![ours, other]).unwrap();
        assert!(lines.ask(WebRequest::Status {}).await.unwrap_err().contains("does not answer"));
        let answers = std::thread::spawn(move || {
            for _ in 0..2 {
                assert!(matches!(theirs.recv().unwrap(), Some((WebRequest::Status {}, _))));
                theirs.send(&reply("well"), &[]).unwrap();
            }
        });
        for _ in 0..2 {
            assert_eq!(lines.ask(WebRequest::Status {}).await.unwrap(), "well");
        }
        answers.join().unwrap();
    }
}
