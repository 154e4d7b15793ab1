//! One response: masked, recorded, delivered.

use std::sync::Arc;

use http::{HeaderMap, Response, StatusCode, header};
use http_body::Body;

use crate::mask::{Masker, Selection};
use crate::protocol::grpc;
use crate::protocol::llm::{self, Answer};
use crate::session::{Direction, Side};

use super::along::Along;
use super::body::{Broken, Carry, Said};
use super::masking::Model;
use super::{Conn, Gate, Stop, WireBody, headers, request};

pub(super) struct Delivery<'a> {
    pub gate: &'a Gate,
    pub conn: &'a Arc<Conn>,
    pub statement: u32,
    pub masker: Option<&'a Masker>,
    /// What the masker was made of.
    pub selection: &'a Selection,
    /// What was asked for.
    pub path: &'a str,
    /// The answer to a HEAD request: its length is that of another body.
    pub head: bool,
}

impl Delivery<'_> {
    pub fn deliver(self, answer: Response<WireBody>) -> Result<Response<WireBody>, Stop> {
        let (mut parts, body) = answer.into_parts();
        let empty = body.is_end_stream();
        let codings = request::codings(&parts.headers);
        if codings.is_none() && self.masker.is_some() && !empty {
            let coding = parts.headers.get(header::CONTENT_ENCODING);
            let detail = format!("the response is coded as {coding:?}, or its messages are");
            let status = StatusCode::BAD_GATEWAY;
            return Err(Stop::failed(Side::Upstream, status, "coding-unsupported", detail));
        }
        let unmaskable = headers::unmaskable(parts.status, &parts.headers);
        if let (Some(why), Some(_), false) = (unmaskable, self.masker, empty) {
            let status = StatusCode::BAD_GATEWAY;
            let detail = format!("the response cannot be masked: {why}");
            return Err(Stop::failed(Side::Upstream, status, "coding-unsupported", detail));
        }
        headers::strip_hop_by_hop(&mut parts.headers);
        headers::strip_detours(&mut parts.headers);
        if let Some(masker) = self.masker {
            let mut found = headers::mask(&mut parts.headers, masker).map_err(Stop::found)?;
            found.merge(&headers::mask_reason(&mut parts.extensions, masker).map_err(Stop::found)?);
            self.conn.findings(self.statement, Direction::Response, &found);
            if !empty || self.head {
                headers::forget_the_bytes(&mut parts.headers);
            }
        }
        let recorded = self.conn.response_head(self.statement, parts.status, &parts.headers);
        recorded.map_err(Stop::log_unavailable)?;
        if empty {
            self.conn.flush().map_err(Stop::log_unavailable)?;
            return Ok(Response::from_parts(parts, body));
        }
        let model = self.model(&parts.headers)?;
        let plain = self.masker.filter(|_| codings.as_ref().is_some_and(Vec::is_empty));
        let known = plain.map(|_| self.conn.subject.exact(self.selection)).transpose();
        let body = Along::new(body, known.map_err(request::mask_unavailable)?);
        let carry = Carry {
            conn: self.conn,
            statement: self.statement,
            direction: Direction::Response,
            said: Said::of(parts.version, &parts.headers),
            // What cannot be masked is not recorded either.
            codings: codings.filter(|_| unmaskable.is_none()),
            parts: headers::body_parts(&parts.headers, self.masker),
            form: headers::is_form(&parts.headers),
            broken: Broken::default(),
            messages: grpc::Framing::of(&parts.headers),
            wire: self.masker,
            model,
            settings: &self.gate.settings,
        };
        let body = carry.body(body).map_err(|error| {
            let status = StatusCode::BAD_GATEWAY;
            Stop::failed(Side::Upstream, status, "body-unreadable", error.to_string())
        })?;
        // The version is that of the hop; hyper writes the one of this connection.
        parts.version = http::Version::HTTP_11;
        Ok(Response::from_parts(parts, body))
    }

    /// What is to be known of an answer of a model.
    fn model(&self, headers: &HeaderMap) -> Result<Option<Model>, Stop> {
        let answer = Answer::of(self.path, headers);
        if answer.is_none() && (self.masker.is_none() || !llm::says_whole(self.path, headers)) {
            return Ok(None);
        }
        let exact = self.conn.subject.exact(self.selection).map_err(request::mask_unavailable)?;
        Ok(Some(match answer {
            Some(answer) => Model::Answer(answer, exact),
            None => Model::Whole(exact),
        }))
    }
}
