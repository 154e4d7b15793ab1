//! What masks a body, by what it is: its bytes as they come, or the text of a model's API.

use bytes::Bytes;

use crate::mask::{Findings, Masked, Masker, StreamMasker};
use crate::protocol::llm::{Answer, LlmRequest, LlmStream, ToolCall};

use super::BodyError;

/// A body of a model's API.
#[derive(Debug, Clone)]
pub enum Model {
    /// A request or an answer in one piece, and what knows the known values of what masks it.
    Whole(Masker),
    /// An answer in events, the same.
    Answer(Answer, Masker),
}

impl Model {
    pub fn answer(&self) -> Option<Answer> {
        match self {
            Self::Whole(_) => None,
            Self::Answer(answer, _) => Some(*answer),
        }
    }
}

/// The masker of one body.
pub(super) enum Masking {
    Bytes(Box<StreamMasker>),
    Whole(Box<LlmRequest>),
    Answer(Box<LlmStream>),
}

impl Masking {
    /// Of what goes out.
    pub fn wire(masker: &Masker, model: Option<Model>, form: bool) -> Self {
        match model {
            None if form => Self::Bytes(Box::new(masker.form_stream())),
            None => Self::Bytes(Box::new(masker.stream())),
            Some(Model::Whole(exact)) => Self::Whole(Box::new(LlmRequest::new(masker, exact))),
            Some(Model::Answer(answer, exact)) => {
                Self::Answer(Box::new(LlmStream::new(answer, masker, exact, true)))
            }
        }
    }

    /// Of a copy, which nobody reads on: nothing in it ends a stream.
    pub fn copy(masker: &Masker, model: Option<(Answer, Masker)>, form: bool) -> Self {
        match model {
            None if form => Self::Bytes(Box::new(masker.form_stream())),
            None => Self::Bytes(Box::new(masker.stream())),
            Some((answer, exact)) => Self::Answer(Box::new(LlmStream::new(answer, masker, exact, false))),
        }
    }

    pub fn push(&mut self, bytes: Bytes) -> Result<Masked, BodyError> {
        Ok(match self {
            Self::Bytes(stream) => stream.push(bytes)?,
            Self::Whole(stream) => stream.push(bytes)?,
            Self::Answer(stream) => stream.push(bytes)?,
        })
    }

    pub fn finish(&mut self) -> Result<Masked, BodyError> {
        Ok(match self {
            Self::Bytes(stream) => stream.finish()?,
            Self::Whole(stream) => stream.finish()?,
            Self::Answer(stream) => stream.finish()?,
        })
    }

    pub fn findings(&self) -> Findings {
        match self {
            Self::Bytes(stream) => stream.findings().clone(),
            Self::Whole(stream) => stream.findings(),
            Self::Answer(stream) => stream.findings(),
        }
    }

    /// Whether anything is held back.
    pub fn holds(&self) -> bool {
        match self {
            Self::Bytes(stream) => stream.held() > 0,
            Self::Whole(_) => false,
            Self::Answer(stream) => stream.held() > 0,
        }
    }

    pub fn take_calls(&mut self) -> Vec<ToolCall> {
        match self {
            Self::Answer(stream) => stream.take_calls(),
            Self::Bytes(_) | Self::Whole(_) => Vec::new(),
        }
    }

    /// What tells a client in its own API why an answer ends here.
    pub fn farewell(&self, error: &BodyError) -> Option<Bytes> {
        match (self, error) {
            (Self::Answer(stream), BodyError::Model(error)) => Some(stream.farewell(error)),
            _ => None,
        }
    }
}
