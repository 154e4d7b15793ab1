//! One connection's session, and how it is written down.
//!
//! **Invariant**: every text that a job or a target controls passes the masker
//! that knows everything before it stands in an event.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use http::{HeaderMap, HeaderName, StatusCode};

use crate::approval::Desk;
use crate::mask::{Findings, MaskedText, Masker, Selection, Strategy};
use crate::policy::{Decision, Durability, Over, Policy, PolicyHash, Reason, Verdict, WouldDeny};
use crate::protocol::command::Risk;
use crate::protocol::http::canonical;
use crate::protocol::http::request::RequestFacts;
use crate::protocol::llm::{Call, Item};
use crate::session::{
    Direction, Event, Outcome, Session, SessionError, SessionHeader, SessionId, SessionKind,
};

use super::deny::Stop;
use super::{Found, Gate, Subject};

/// What a session begins with.
pub type Opened = SessionHeader;

/// A connection that is recorded. Dropping it closes the session.
pub struct Conn {
    pub subject: Arc<Subject>,
    session: Option<Session>,
    id: String,
    /// Where a connection goes, as far as that is known: an address first, then a name.
    towards: Mutex<Option<String>>,
    outcome: Mutex<Option<Outcome>>,
    statements: AtomicU32,
    /// Set once a request of it was held: grants may end with it.
    held: OnceLock<Desk>,
    found: Arc<Found>,
}

impl Conn {
    pub fn begin(gate: &Gate, subject: Arc<Subject>, opened: Opened) -> Result<Self, SessionError> {
        let destination = opened.destination.filter(|_| opened.kind == SessionKind::Connection);
        let towards = destination.map(|to| SocketAddr::new(to.ip().to_canonical(), to.port()).to_string());
        let session = gate.recording.begin(opened)?;
        let id = session.id().to_string();
        Ok(Self {
            subject,
            session: Some(session),
            id,
            towards: Mutex::new(towards),
            outcome: Mutex::default(),
            statements: AtomicU32::new(0),
            held: OnceLock::new(),
            found: Arc::clone(&gate.found),
        })
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// As it stands in the recording.
    pub fn session(&self) -> Option<SessionId> {
        self.session.as_ref().map(Session::id)
    }

    /// From now on the end of the session is an event for the approvals.
    pub fn holds(&self, desk: &Desk) {
        self.held.get_or_init(|| desk.clone());
    }

    pub fn next_statement(&self) -> u32 {
        self.statements.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// From now on it is known by this name.
    pub fn is_towards(&self, name: &str) {
        *self.towards.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
    }

    /// How the session ends. The first one counts: it names the true reason.
    pub fn settle(&self, outcome: Outcome) {
        if matches!(outcome, Outcome::Denied { .. }) {
            let towards = self.towards.lock().unwrap_or_else(PoisonError::into_inner).clone();
            towards.iter().for_each(|to| self.subject.note_refused(to));
        }
        let mut settled = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        settled.get_or_insert(outcome);
    }

    /// One part of a session of many was denied: that it came to its end does not hide it.
    pub fn settle_denied(&self, towards: &str, reason: &'static str) {
        self.subject.note_refused(towards);
        let mut settled = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*settled, None | Some(Outcome::Completed)) {
            *settled = Some(Outcome::Denied { reason });
        }
    }

    pub fn text(&self, text: &str) -> MaskedText {
        self.subject.everything().text(text).0
    }

    pub fn record(&self, event: &Event) -> Result<(), SessionError> {
        match &self.session {
            Some(session) => session.record(event),
            None => Ok(()),
        }
    }

    /// Records an event together with the next one, or with [`Conn::flush`].
    pub fn draft(&self, event: &Event) -> Result<(), SessionError> {
        match &self.session {
            Some(session) => session.draft(event),
            None => Ok(()),
        }
    }

    /// What was drafted is in the page cache when this returns.
    pub fn flush(&self) -> Result<(), SessionError> {
        match &self.session {
            Some(session) => session.flush(),
            None => Ok(()),
        }
    }

    pub async fn record_durable(&self, event: &Event) -> Result<(), SessionError> {
        match &self.session {
            Some(session) => session.record_durable(event).await,
            None => Ok(()),
        }
    }

    /// Drafts what is asked for; of the query without the parts that policy masks as a whole.
    pub fn statement(
        &self,
        id: u32,
        facts: &RequestFacts,
        masker: Option<&Masker>,
    ) -> Result<(), SessionError> {
        self.is_towards(&facts.authority());
        self.draft(&Event::Statement {
            statement: id,
            method: self.text(facts.method.as_str()),
            authority: self.text(&facts.authority()),
            path: self.text(&facts.path),
            query: facts.query.as_deref().map(|query| self.query(&canonical::query(query), masker)),
            version: facts.version,
        })
    }

    fn query(&self, query: &str, masker: Option<&Masker>) -> MaskedText {
        match masker.map(|masker| masker.query(query)) {
            None => self.text(query),
            Some(Ok((masked, _))) => self.text(masked.as_str()),
            Some(Err(_)) => MaskedText::fixed("[a part of it is denied]"),
        }
    }

    /// Drafts what policy said; on disk before it returns if it is a denial, or if
    /// that is wanted.
    pub async fn verdict(
        &self,
        statement: Option<u32>,
        policy: &Policy,
        decision: &Decision,
    ) -> Result<(), SessionError> {
        let event = Event::Verdict {
            statement,
            verdict: decision.verdict.as_str(),
            rule: decision.rule.as_ref().map(|rule| self.text(rule.as_str())),
            reason: decision.reason.as_str(),
            message: decision.message.as_deref().map(|message| self.text(message)),
            policy: policy.hash().as_str().to_owned(),
            audit: decision.audit.as_ref().map(|audit| self.audit(audit)),
        };
        let durable = matches!(decision.verdict, Verdict::Deny | Verdict::Hold)
            || decision.durability == Durability::Fsync;
        if durable { self.record_durable(&event).await } else { self.draft(&event) }
    }

    /// The same about a tool call in an answer, or a block of code.
    pub async fn tool_verdict(
        &self,
        id: u32,
        policy: &Policy,
        decision: &Decision,
        call: &Call,
        risks: &[Risk],
    ) -> Result<(), SessionError> {
        let event = Event::ToolVerdict {
            statement: id,
            code: call.item == Item::Code,
            name: self.text(&call.name),
            arguments: self.text(&call.arguments),
            risks: risks.to_vec(),
            verdict: decision.verdict.as_str(),
            rule: decision.rule.as_ref().map(|rule| self.text(rule.as_str())),
            reason: decision.reason.as_str(),
            message: decision.message.as_deref().map(|message| self.text(message)),
            policy: policy.hash().as_str().to_owned(),
            audit: decision.audit.as_ref().map(|audit| self.audit(audit)),
            observe: decision.observe,
        };
        let durable = matches!(decision.verdict, Verdict::Deny | Verdict::Hold);
        if durable { self.record_durable(&event).await } else { self.draft(&event) }
    }

    /// Records a denial that the proxy itself pronounces, on disk.
    pub async fn refused(
        &self,
        statement: Option<u32>,
        policy: &Policy,
        stop: &Stop,
    ) -> Result<(), SessionError> {
        self.record_durable(&Event::Verdict {
            statement,
            verdict: Verdict::Deny.as_str(),
            rule: stop.rule.as_deref().map(|rule| self.text(rule)),
            reason: stop.reason,
            message: stop.message.as_deref().map(|message| self.text(message)),
            policy: policy.hash().as_str().to_owned(),
            audit: None,
        })
        .await
    }

    /// Records what was over a limit on its way: cut, or told of since the rule is in audit mode.
    pub fn over(&self, statement: u32, policy: &PolicyHash, over: &Over, audit: bool) {
        let (verdict, reason) = match audit {
            true => (Verdict::Allow, Reason::PolicyAllow),
            false => (Verdict::Deny, over.reason()),
        };
        let (rule, message) = (over.rule.clone(), Some(over.to_string().into()));
        let would = WouldDeny { rule: Some(rule), reason: over.reason(), message };
        self.note(&Event::Verdict {
            statement: Some(statement),
            verdict: verdict.as_str(),
            rule: Some(self.text(over.rule.as_str())),
            reason: reason.as_str(),
            message: would.message.as_deref().map(|message| self.text(message)),
            policy: policy.as_str().to_owned(),
            audit: audit.then(|| self.audit(&would)),
        });
    }

    /// Drafts the head that goes out.
    pub fn request_head(&self, statement: u32, headers: &HeaderMap) -> Result<(), SessionError> {
        let headers = self.header_texts(headers);
        let direction = Direction::Request;
        self.draft(&Event::Head { statement, direction, status: None, headers })
    }

    /// Drafts the head that comes back.
    pub fn response_head(
        &self,
        statement: u32,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Result<(), SessionError> {
        let headers = self.header_texts(headers);
        let direction = Direction::Response;
        self.draft(&Event::Head { statement, direction, status: Some(status.as_u16()), headers })
    }

    pub fn trailers(
        &self,
        statement: u32,
        direction: Direction,
        trailers: &HeaderMap,
    ) -> Result<(), SessionError> {
        let headers = self.header_texts(trailers);
        self.record(&Event::Trailers { statement, direction, headers })
    }

    /// Counts what was found in a message, and writes it down.
    pub fn findings(&self, statement: u32, direction: Direction, findings: &Findings) {
        self.tell(Some(statement), direction, findings);
    }

    fn tell(&self, statement: Option<u32>, direction: Direction, findings: &Findings) {
        if !findings.is_empty() {
            self.found.add(direction, findings);
            let findings = self.subject.everything().told(findings);
            self.note(&Event::Findings { statement, direction, findings });
        }
    }

    /// Whether policy does not let this name of a host be told to anybody, since data seems to
    /// be sent in it. What is found is recorded.
    pub fn carries_data(&self, statement: Option<u32>, name: &str, selection: &Selection) -> bool {
        let Some((findings, strategy)) = selection.name_of_host(name) else { return false };
        self.tell(statement, Direction::Request, &findings);
        strategy != Strategy::Observe
    }

    /// Records why something failed. A recording that does not take this has
    /// failed already and stops the next request.
    pub fn error(&self, side: crate::session::Side, reason: &'static str, detail: &str) {
        let detail = self.text(detail);
        self.note(&Event::Error { side, reason, detail });
    }

    pub fn note(&self, event: &Event) {
        if let Err(error) = self.record(event) {
            tracing::error!(session = %self.id, %error, "an event was not recorded");
        }
    }

    fn audit(&self, audit: &WouldDeny) -> MaskedText {
        let rule = audit.rule.as_ref().map_or("none", |rule| rule.as_str());
        let word = if audit.reason == Reason::PolicyHold { "hold" } else { "deny" };
        self.text(&format!("{word}; reason={}; rule={rule}", audit.reason.as_str()))
    }

    fn header_texts(&self, headers: &HeaderMap) -> Vec<(MaskedText, MaskedText)> {
        let everything = self.subject.everything();
        let text = |name: &HeaderName, value: &[u8]| {
            let (name, value, _) = everything.recorded_header(name.as_str(), value);
            (name, value)
        };
        headers.iter().map(|(name, value)| text(name, value.as_bytes())).collect()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        let settled = self.outcome.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(session) = self.session.take() {
            self.held.get().iter().for_each(|desk| desk.session_ended(session.id()));
            let outcome = settled.unwrap_or(Outcome::Cancelled);
            if let Err(error) = session.close(&outcome) {
                tracing::error!(session = %self.id, %error, "the end of a session is not recorded");
            }
        }
    }
}
