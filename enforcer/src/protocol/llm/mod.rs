//! APIs of language models: masked on the text that their clients put together, and not on
//! the bytes, in which a secret lies in pieces.
//!
//! ```text
//!  bytes --framing--> event --json, shape--> pieces of channels --StreamMasker each--> text
//!    SSE, NDJSON,       |                    all else, a whole    --Masker----------> text
//!    a list, frames     `-- nothing changed: the event goes out byte for byte
//!    of AWS, messages
//! ```
//! An event goes out when it has come, with its ids, in its place; of its pieces only what
//! cannot be the beginning of a secret. The rest stands in a later piece of its channel, or
//! in an event of its own before the one that ends the channel. There is no timer.

mod binary;
mod calls;
mod channel;
mod code;
mod eventstream;
mod events;
mod fences;
mod farewell;
mod framing;
mod json;
mod keep;
mod keys;
mod list;
mod models;
mod request;
mod shape;
mod sse;
mod stream;
mod strict;
mod template;
mod usage;
#[cfg(test)]
mod tests;

pub use channel::{CALL_MAX_BYTES, CHANNELS_MAX, ToolCall};
pub use code::CODES_MAX;
pub use farewell::{ends, error_event, limited, refusal};
pub use fences::CODE_MAX_BYTES;
pub use framing::{
    Answer, Framing, api, asks_for_events, asks_model, built_as, is_value, may_call, of_model, says_json,
    says_whole, speaks, speaks_grpc, speaks_messages,
};
pub use keep::{CALLS_MAX, Call, CallError, CallStream, Item, KEPT_MAX_BYTES, Step, whole_calls};
pub use models::{MODEL_MAX_BYTES, MODELS_MAX, models, of_address};
pub use request::LlmRequest;
pub use shape::Dialect;
pub use stream::LlmStream;
pub use usage::Usage;

use crate::mask::MaskError;

/// The longest event. What an image model draws comes in one.
pub const EVENT_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Why a stream cannot be masked and has to end.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LlmError {
    /// Of the masker itself.
    #[error(transparent)]
    Mask(#[from] MaskError),
    /// See [`EVENT_MAX_BYTES`].
    #[error("an event is longer than {EVENT_MAX_BYTES} bytes")]
    TooLong,
    /// See [`CHANNELS_MAX`], [`json::DEPTH_MAX`] and [`json::VALUES_MAX`].
    #[error("an event has too many values, or values too deep in each other, or too many texts are open")]
    TooMuch,
    /// A frame of AWS's event stream.
    #[error("a frame of the event stream is not what its lengths and checksums say")]
    Frame,
    /// Its lengths could be written anew, but not what it is called by.
    #[error("a secret stands beside the payload of a frame of the event stream")]
    Beside,
    /// It would no longer be what its signature says.
    #[error("a secret stands in a thinking block that is signed, which cannot be changed")]
    SignedThinking,
}

impl LlmError {
    /// A word for machines; the job may see it.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Mask(_) => "body-unreadable",
            Self::TooLong => "event-too-long",
            Self::TooMuch => "event-too-complex",
            Self::Frame => "event-frame-invalid",
            Self::Beside => "secret-in-frame",
            Self::SignedThinking => "signed-thinking",
        }
    }
}

impl From<json::JsonError> for LlmError {
    fn from(_: json::JsonError) -> Self {
        Self::TooMuch
    }
}
