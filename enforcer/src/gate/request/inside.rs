//! What policy wants to know of a body before it decides: it is read whole for that, and waits.
//!
//! **Invariant**: a body is read only if what is in it can change the verdict. What cannot be told of
//! it (a coding, a name that stands twice, messages that have not come yet) is told to policy as such.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;

use crate::policy::{Awaits, BodyFacts, Fact, INSPECT_CAP_BYTES, Policy, Told};
use crate::protocol::http::coding::{self, Coding, Decoder};
use crate::protocol::http::request::RequestFacts;
use crate::protocol::{grpc, llm};

use super::super::held::{Held, Room};
use super::super::{Forward, Stop, Whose};
use super::search::Search;
use super::{Asked, Steps, codings};

/// How long a body waits until it is looked into.
const TURN_WAIT: Duration = Duration::from_secs(10);
/// How much of a body is looked into before it is seen whether anybody still waits for it.
const PIECE_BYTES: usize = 256 * 1024;

/// A body that comes in.
pub(super) enum Inbound {
    Coming(Incoming),
    Read(Box<Read>),
}

/// One that was read already.
pub(super) struct Read {
    whole: Whole,
    pub held: Held,
}

impl Inbound {
    pub fn is_end_stream(&self) -> bool {
        match self {
            Self::Coming(body) => body.is_end_stream(),
            Self::Read(read) => read.held.is_end_stream(),
        }
    }

    fn room(&self) -> Room {
        match self {
            Self::Coming(_) => None,
            Self::Read(read) => read.held.room(),
        }
    }
}

/// All of a body.
#[derive(Debug, Clone, Default)]
pub(super) struct Whole {
    pub bytes: Bytes,
    pub trailers: Option<HeaderMap>,
}

/// Texts that were found out; `None`: nobody can tell.
type Texts = Option<Vec<String>>;

/// What is known of a body, if somebody asked.
#[derive(Debug, Default)]
pub(super) struct Inside {
    models: Option<Texts>,
    findings: Option<Texts>,
}

impl Inside {
    pub fn facts(&self) -> BodyFacts<'_> {
        BodyFacts { models: fact(self.models.as_ref(), true), findings: fact(self.findings.as_ref(), false) }
    }

    fn complete(&mut self, other: Self) {
        self.models = self.models.take().or(other.models);
        self.findings = self.findings.take().or(other.findings);
    }

    /// Of what nobody can look into.
    fn unclear(awaits: Awaits) -> Self {
        Self { models: awaits.models.then_some(None), findings: awaits.findings.then_some(None) }
    }
}

/// `some`: without any there is none of this.
fn fact(texts: Option<&Texts>, some: bool) -> Fact<Told<'_>> {
    match texts {
        None => Fact::Unknown,
        Some(None) => Fact::Known(Told::Unclear),
        Some(Some(texts)) if some && texts.is_empty() => Fact::Absent,
        Some(Some(texts)) => Fact::Known(Told::These(texts)),
    }
}

impl<F: Forward> Steps<'_, F> {
    /// What has to be known of a body, and the policy that is then the newest.
    pub(super) async fn inside(
        &self,
        facts: &RequestFacts,
        parts: &Parts,
        body: &mut Option<Inbound>,
    ) -> Result<(Arc<Policy>, Inside), Stop> {
        let mut inside = Inside::default();
        loop {
            let policy = self.gate.policies.current();
            let awaits = self.awaits(&policy, facts, parts, &inside);
            if !awaits.any() {
                return Ok((policy, inside));
            }
            let messages = facts.websocket || grpc::Framing::of(&parts.headers).is_some();
            let found = match messages {
                true => Inside::unclear(awaits),
                false => {
                    let whole = self.read(body).await?;
                    let room = body.as_ref().and_then(Inbound::room);
                    self.look(awaits, facts, parts, whole, room).await?
                }
            };
            inside.complete(found);
        }
    }

    /// Why a request is not judged: what has to be known of its body could not be read.
    pub(super) async fn unread(&self, facts: &RequestFacts, parts: &Parts, stop: Stop) -> Stop {
        let conn = &self.scope.conn;
        let policy = self.gate.policies.current();
        let decision = self.decide(&policy, facts, parts, &Inside::default());
        let masker = match conn.subject.masker(&decision.request_mask) {
            Ok(masker) => masker,
            Err(error) => return super::mask_unavailable(error),
        };
        match conn.statement(self.statement, facts, masker.as_ref()) {
            Ok(()) => self.late(stop).await,
            Err(error) => Stop::log_unavailable(error),
        }
    }

    fn awaits(&self, policy: &Policy, facts: &RequestFacts, parts: &Parts, inside: &Inside) -> Awaits {
        let subject = &self.scope.conn.subject;
        let whose = subject.whose.now();
        let asked = Asked::new(&subject.facts, Whose::facts(whose.as_deref()), facts, parts, inside.facts());
        asked.awaits(policy)
    }

    /// Reads all of it, once.
    async fn read(&self, body: &mut Option<Inbound>) -> Result<Whole, Stop> {
        let coming = match body.take() {
            Some(Inbound::Coming(coming)) => coming,
            Some(Inbound::Read(read)) => {
                let whole = read.whole.clone();
                *body = Some(Inbound::Read(read));
                return Ok(whole);
            }
            None => return Ok(Whole::default()),
        };
        if coming.is_end_stream() {
            *body = Some(Inbound::Coming(coming));
            return Ok(Whole::default());
        }
        let (collected, room) = self.collected(coming, INSPECT_CAP_BYTES).await?.into_parts();
        let whole = Whole { trailers: collected.trailers().cloned(), bytes: collected.to_bytes() };
        let trailers = std::future::ready(whole.trailers.clone().map(Ok));
        let again = Full::new(whole.bytes.clone()).with_trailers(trailers).collect().await;
        let held = match again {
            Ok(again) => Held::new(again, room),
            Err::<_, std::convert::Infallible>(never) => match never {},
        };
        *body = Some(Inbound::Read(Box::new(Read { whole: whole.clone(), held })));
        Ok(whole)
    }

    /// Looks into a body on a thread for such work. That goes on a while where its request has gone,
    /// so that room and turn stay taken until it ends.
    async fn look(
        &self,
        awaits: Awaits,
        facts: &RequestFacts,
        parts: &Parts,
        body: Whole,
        room: Room,
    ) -> Result<Inside, Stop> {
        let subject = &self.scope.conn.subject;
        let found =
            awaits.findings.then(|| Search::new(subject)).transpose().map_err(super::mask_unavailable)?;
        let Ok(turn) = tokio::time::timeout(TURN_WAIT, subject.held.turn()).await else {
            return Err(Stop::denied(StatusCode::TOO_MANY_REQUESTS, "too-many-searches"));
        };
        let waited_for = Arc::new(());
        let looking = Looking {
            facts: facts.clone(),
            method: parts.method.clone(),
            fields: parts.headers.clone(),
            limits: self.gate.settings.decoded.clone(),
            body,
            waited_for: Arc::downgrade(&waited_for),
        };
        let look = move || {
            let _taken = (room, turn);
            Inside {
                models: awaits.models.then(|| looking.models()),
                findings: found.map(|search| search.all(&looking)),
            }
        };
        let looked = tokio::task::spawn_blocking(look).await;
        drop(waited_for);
        Ok(looked.unwrap_or_else(|_| Inside::unclear(awaits)))
    }
}

/// A whole request that is looked into.
pub(super) struct Looking {
    pub facts: RequestFacts,
    pub method: Method,
    pub fields: HeaderMap,
    limits: coding::Limits,
    pub body: Whole,
    /// Dead when nobody waits for what is found.
    waited_for: Weak<()>,
}

impl Looking {
    /// Those that it asks for; what decodes to more than may be read whole is not read for them.
    fn models(&self) -> Texts {
        let mut plain = Vec::new();
        let most = usize::try_from(INSPECT_CAP_BYTES).unwrap_or(usize::MAX);
        self.decoded(&self.unframed()?, &mut |piece| {
            plain.extend_from_slice(&piece);
            (plain.len() <= most).then_some(())
        })?;
        llm::models(&self.facts.path, self.facts.query.as_deref(), &self.fields, &plain)
    }

    /// The bytes below AWS's framing, and how they are coded; `None` if they cannot be read.
    pub fn unframed(&self) -> Option<Unframed> {
        Some(match coding::aws::below_frames(&self.fields) {
            None => {
                Unframed { bytes: self.body.bytes.clone(), codings: codings(&self.fields)?, framed: false }
            }
            Some(codings) => {
                Unframed { bytes: coding::aws::unframed(&self.body.bytes)?, codings, framed: true }
            }
        })
    }

    /// Shows the decoded bytes; `None` if they cannot be read, or if `see` has seen enough.
    pub fn decoded(&self, body: &Unframed, see: &mut dyn FnMut(Bytes) -> Option<()>) -> Option<()> {
        let Unframed { bytes, codings, .. } = body;
        let mut see = |piece: Bytes| {
            self.waited_for.upgrade()?;
            see(piece)
        };
        if codings.is_empty() {
            let mut rest = bytes.clone();
            while !rest.is_empty() {
                see(rest.split_to(rest.len().min(PIECE_BYTES)))?;
            }
            return Some(());
        }
        if bytes.is_empty() {
            return Some(());
        }
        let mut decoder = Decoder::within(codings, self.limits.clone()).ok()?;
        decoder.push(bytes.clone());
        decoder.finish();
        while let Some(piece) = decoder.next().ok()? {
            see(piece)?;
        }
        Some(())
    }
}

/// A body as it is coded, without frames.
pub(super) struct Unframed {
    pub bytes: Bytes,
    pub codings: Vec<Coding>,
    /// Whether frames were around it.
    pub framed: bool,
}
