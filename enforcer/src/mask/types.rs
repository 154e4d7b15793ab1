//! What masking hands out: masked bytes, masked text, and findings without values.

use std::{borrow::Cow, fmt, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// The name of a kind of secret, in `SCREAMING_SNAKE`: `AWS_ACCESS_KEY_ID`, `GITHUB_TOKEN`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Entity(Arc<str>);

impl Entity {
    /// Makes a name out of any text: upper case, everything but letters and digits becomes `_`.
    pub fn new(name: &str) -> Self {
        let clean: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
            .collect();
        Self(clean.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands in place of the value.
    pub fn placeholder(&self) -> String {
        format!("[MASKED:{}]", self.0)
    }
}

impl fmt::Display for Entity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bytes in which what the masker knows has been replaced.
///
/// **Invariant**: only `mask` can make one that is not empty, and the recording takes nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masked(Bytes);

impl Masked {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// No bytes at all.
    pub fn empty() -> Self {
        Self::default()
    }

    /// Masked bytes in another writing: escaped, coded, or in a frame. Nothing that was not
    /// masked may be added.
    pub fn written<B: Into<Bytes>>(&self, write: impl FnOnce(&[u8]) -> B) -> Self {
        Self(write(&self.0).into())
    }

    /// Masked bytes after each other; those of a single one are not copied.
    pub fn join(mut parts: Vec<Self>) -> Self {
        parts.retain(|part| !part.is_empty());
        match parts.len() {
            0 | 1 => parts.pop().unwrap_or_default(),
            _ => Self(parts.iter().map(Self::as_bytes).collect::<Vec<_>>().concat().into()),
        }
    }

    /// The masked bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The masked bytes, to be sent on; a reference count, not a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes as text; what is not UTF-8 becomes U+FFFD.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// A part of masked bytes is masked (the start of a body that is recorded up to a limit).
    pub fn slice(&self, range: impl std::ops::RangeBounds<usize>) -> Self {
        Self(self.0.slice(range))
    }
}

/// Text in which what the masker knows has been replaced. Only `mask` can make one
/// out of text that is not written in this program.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct MaskedText(Arc<str>);

impl MaskedText {
    pub(super) fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Text of this program's own.
    pub fn fixed(text: &'static str) -> Self {
        Self(text.into())
    }

    /// The masked text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&Masked> for MaskedText {
    fn from(masked: &Masked) -> Self {
        Self::new(&masked.to_text())
    }
}

impl fmt::Display for MaskedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where in a unit something was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Place {
    /// The header of this name.
    Header(MaskedText),
    /// A body.
    Body,
    /// The path of a request.
    Path,
    /// The query of a request.
    Query,
    /// A trailer.
    Trailer,
    /// An archive in a body, which cannot be masked.
    Archive,
    /// A WebSocket message.
    WebSocket,
    /// The name of a host.
    Host,
    /// A name or a text in DNS.
    Dns,
    /// Anywhere else.
    Other,
}
