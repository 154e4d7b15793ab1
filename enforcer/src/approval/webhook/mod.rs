//! Tells others, by HTTP, of what waits for people and how it ended.
//!
//! ```text
//!  desk ── tell ──▶ a task for each message ──▶ a turn (AT_ONCE) ──▶ POST ──▶ 2xx: sent
//!            │            ▲                                            │
//!            │            └──── after a pause, ATTEMPTS at most ◀──────┤ no answer, 5xx, 408, 429
//!            └── QUEUE are on their way: dropped                       └ else: failed
//! ```
//!
//! **Invariant**: nobody waits for it. The desk hands a message over and goes on, however slow or
//! broken the other side is; what could not be sent is counted, and shown by `enforcer status`.
//! What an approval needs is in its journal: a message is a hint, and nothing is decided by an
//! answer to one.
//!
//! Messages of one approval may overtake each other when one of them is sent again; a question that
//! is over meanwhile is not asked any more. A restart of the proxy forgets what was not sent yet.

mod chat;
pub mod config;
mod message;
mod sign;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::config::{Format, Kind, WebhookConfig, address};
use self::message::Message;
use self::sign::Signer;
use super::ids::ApprovalId;
use super::record::Approval;
use crate::outgoing::{Client, OutgoingError};
use crate::secret::SecretText;

pub use message::Sender;

/// Messages that are on their way to one webhook, those that are to be sent again too.
const QUEUE: usize = 1024;
/// Attempts at the same time.
const AT_ONCE: usize = 4;

/// How patient it is.
#[derive(Debug, Clone)]
struct Pace {
    /// For one attempt.
    patience: Duration,
    /// Before each attempt after the first, at least.
    pauses: Vec<Duration>,
    /// And at most, whatever the other side asks for.
    longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        let pauses = [1, 5, 20, 60, 120].map(Duration::from_secs).to_vec();
        Self { patience: Duration::from_secs(10), pauses, longest: Duration::from_secs(600) }
    }
}

/// All places where approvals are told of. Without one it does nothing.
#[derive(Default)]
pub struct Webhooks {
    hooks: Vec<Arc<Hook>>,
    sender: Arc<Sender>,
    runtime: Option<Handle>,
    /// Set when the question is over.
    open: Mutex<HashMap<ApprovalId, Arc<AtomicBool>>>,
}

/// What of a webhook stands in files that only root can read.
pub struct Secrets {
    pub url: SecretText,
    pub secret: Option<SecretText>,
}

struct Hook {
    name: String,
    format: Format,
    events: Vec<Kind>,
    /// Or why nothing is sent.
    way: Result<Way, String>,
    client: Arc<Client>,
    pace: Pace,
    room: Arc<Semaphore>,
    turns: Semaphore,
    counts: Counts,
    /// Why the last message that failed did.
    last: Mutex<Option<String>>,
}

struct Way {
    url: SecretText,
    signer: Option<Signer>,
}

#[derive(Default)]
struct Counts {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
    outdated: AtomicU64,
}

/// One message on its way.
struct Told {
    id: String,
    approval: Arc<Approval>,
    sender: Arc<Sender>,
    /// Of a question: whether it is over.
    over: Option<Arc<AtomicBool>>,
}

impl Webhooks {
    /// Sends from this runtime. Each webhook comes with what stands in its files, or with why that is
    /// not known.
    pub fn new(
        hooks: impl IntoIterator<Item = (WebhookConfig, Result<Secrets, String>)>,
        sender: Sender,
        client: Client,
        runtime: Handle,
    ) -> Self {
        Self::with_pace(hooks, sender, client, runtime, &Pace::default())
    }

    fn with_pace(
        hooks: impl IntoIterator<Item = (WebhookConfig, Result<Secrets, String>)>,
        sender: Sender,
        client: Client,
        runtime: Handle,
        pace: &Pace,
    ) -> Self {
        // To this host alone, by the client's own rule.
        let client = Arc::new(client.with_plain_on_loopback(true));
        let hook = |(config, secrets): (WebhookConfig, Result<Secrets, String>)| {
            let way = secrets.and_then(Way::new);
            if let Err(why) = &way {
                tracing::error!(webhook = config.name, "nothing is told by a webhook: {why}");
            }
            Arc::new(Hook {
                name: config.name,
                format: config.format,
                events: config.events,
                way,
                client: Arc::clone(&client),
                pace: pace.clone(),
                room: Arc::new(Semaphore::new(QUEUE)),
                turns: Semaphore::new(AT_ONCE),
                counts: Counts::default(),
                last: Mutex::default(),
            })
        };
        let hooks = hooks.into_iter().map(hook).collect();
        Self { hooks, sender: Arc::new(sender), runtime: Some(runtime), open: Mutex::default() }
    }

    /// Tells what an approval is now. It waits for nothing.
    pub(super) fn tell(&self, approval: Approval) {
        let Some(runtime) = self.runtime.as_ref().filter(|_| !self.hooks.is_empty()) else { return };
        let (kind, over) = (Kind::of(&approval.standing), self.over(&approval));
        let told = Arc::new(Told {
            id: format!("msg_{}", uuid::Uuid::new_v4().simple()),
            approval: Arc::new(approval),
            sender: Arc::clone(&self.sender),
            over,
        });
        for hook in self.hooks.iter().filter(|hook| hook.way.is_ok() && hook.events.contains(&kind)) {
            match Arc::clone(&hook.room).try_acquire_owned() {
                Ok(room) => drop(runtime.spawn(Arc::clone(hook).deliver(Arc::clone(&told), room))),
                Err(_) => hook.failed(&hook.counts.dropped, &told, "too many messages wait"),
            }
        }
    }

    /// For a question, what tells that it is over, which it is with whatever else is told of it.
    fn over(&self, approval: &Approval) -> Option<Arc<AtomicBool>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if approval.standing.is_pending() {
            return Some(Arc::clone(open.entry(approval.id).or_default()));
        }
        if let Some(over) = open.remove(&approval.id) {
            over.store(true, Ordering::Relaxed);
        }
        None
    }

    /// For `enforcer status`.
    pub fn status(&self) -> Vec<Value> {
        self.hooks.iter().map(|hook| hook.status()).collect()
    }
}

impl Way {
    fn new(Secrets { url, secret }: Secrets) -> Result<Self, String> {
        address(url.expose()).map_err(|why| format!("it {why}"))?;
        let signer = secret.map(|secret| Signer::new(secret.expose())).transpose();
        Ok(Self { url, signer: signer.map_err(|why| format!("its secret {why}"))? })
    }
}

/// What is not worth another attempt.
enum Failure {
    Again {
        why: String,
        /// Not before that.
        after: Option<Duration>,
    },
    Final(String),
}

impl Hook {
    async fn deliver(self: Arc<Self>, told: Arc<Told>, _room: OwnedSemaphorePermit) {
        let mut pauses = self.pace.pauses.iter();
        loop {
            match self.attempt(&told).await {
                Some(Ok(())) => {
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                None => {
                    self.counts.outdated.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                Some(Err(Failure::Final(why))) => return self.failed(&self.counts.failed, &told, &why),
                Some(Err(Failure::Again { why, after })) => match pauses.next() {
                    Some(pause) => {
                        let asked = after.unwrap_or_default().min(self.pace.longest);
                        tokio::time::sleep(asked.max(*pause)).await;
                    }
                    None => return self.failed(&self.counts.failed, &told, &why),
                },
            }
        }
    }

    /// None: nobody is asked that any more.
    async fn attempt(&self, told: &Told) -> Option<Result<(), Failure>> {
        // It is never closed.
        let _turn = self.turns.acquire().await.ok()?;
        if told.over.as_ref().is_some_and(|over| over.load(Ordering::Relaxed)) {
            return None;
        }
        let Ok(way) = &self.way else { return None };
        let request = match self.request(way, told) {
            Ok(request) => request,
            Err(error) => return Some(Err(Failure::Final(error.to_string()))),
        };
        let sent = Box::pin(self.client.tell(request, self.pace.patience)).await;
        Some(sent.map_err(|error| failure(&error)))
    }

    fn request(&self, way: &Way, told: &Told) -> Result<Request<Bytes>, http::Error> {
        let message = Message::new(&told.id, &told.approval, &told.sender);
        let body = match self.format {
            Format::Generic => json!(message),
            Format::Slack => chat::slack(&message),
            Format::Teams => chat::teams(&message),
        };
        let body = Bytes::from(body.to_string());
        let mut request = Request::post(way.url.expose()).header(CONTENT_TYPE, "application/json");
        if let Some(signer) = &way.signer {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            request = request
                .header("webhook-id", &told.id)
                .header("webhook-timestamp", now)
                .header("webhook-signature", signer.sign(&told.id, now, &body));
        }
        request.body(body)
    }

    fn failed(&self, count: &AtomicU64, told: &Told, why: &str) {
        count.fetch_add(1, Ordering::Relaxed);
        let approval = told.approval.id;
        tracing::warn!(webhook = self.name, %approval, "a webhook was not told: {why}");
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.to_owned());
    }

    fn status(&self) -> Value {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        json!({
            "name": self.name,
            "format": self.format.as_str(),
            "sent": count(&self.counts.sent),
            "failed": count(&self.counts.failed),
            "dropped": count(&self.counts.dropped),
            "outdated": count(&self.counts.outdated),
            "waiting": QUEUE - self.room.available_permits(),
            "last_failure": *self.last.lock().unwrap_or_else(PoisonError::into_inner),
            "problem": self.way.as_ref().err(),
        })
    }
}

/// In words in which the address does not stand, which may be a secret as a whole.
fn failure(error: &OutgoingError) -> Failure {
    match error {
        OutgoingError::Status { host, status, retry_after } => {
            let why = format!("{host} answers with status {status}");
            let again = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status);
            if again || status.is_server_error() {
                Failure::Again { why, after: *retry_after }
            } else {
                Failure::Final(why)
            }
        }
        OutgoingError::Redirect { host, .. } => Failure::Final(format!(
            "{host} sends us elsewhere, and no redirect is followed: name the last address"
        )),
        OutgoingError::Address { why, .. } => Failure::Final(format!("it cannot be asked: {why}")),
        OutgoingError::Connect { .. }
        | OutgoingError::Tls { .. }
        | OutgoingError::Http { .. }
        | OutgoingError::TooLarge { .. }
        | OutgoingError::Late { .. } => Failure::Again { why: error.to_string(), after: None },
    }
}
