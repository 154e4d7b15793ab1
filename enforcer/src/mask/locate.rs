//! Where in a stream something stands. Nothing is read for it until something is found.

use bytes::Bytes;

use super::{findings::At, json::Walker};

/// The beginning of a body that is kept to tell a place in it by its name.
const KEPT_BYTES: usize = 16 * 1024;

/// What tells places in a stream.
#[derive(Debug, Default)]
pub(super) enum Locate {
    /// Nothing is told but the place itself.
    #[default]
    Nowhere,
    /// Everything stands at one place.
    Fixed(At),
    /// By the offset in a body of which so many bytes came before.
    Offset(u64),
    /// By names in JSON, as far as it is kept, and by the offset.
    Body(Outline),
    /// By the name of a piece of `a=1&b=2`, as far as it is kept, and by the offset.
    Form(Outline),
    /// The same of a text that is there as a whole: a query, or cookies.
    Pieces(u8, Bytes),
}

impl Locate {
    /// Takes what comes, while everything before `decided` was told.
    pub(super) fn keep(&mut self, chunk: &[u8], decided: u64) {
        match self {
            Self::Body(outline) | Self::Form(outline) if decided > KEPT_BYTES as u64 => {
                drop(std::mem::take(outline));
                *self = Self::Offset(0);
            }
            Self::Body(outline) => {
                let first = chunk.iter().find(|b| !matches!(b, b' ' | b'\t' | b'\r' | b'\n'));
                // A byte order mark begins with 0xef.
                if outline.kept.is_empty() && !matches!(first, None | Some(b'{' | b'[' | 0xef)) {
                    *self = Self::Offset(0);
                } else {
                    outline.keep(chunk);
                }
            }
            Self::Form(outline) => outline.keep(chunk),
            Self::Nowhere | Self::Fixed(_) | Self::Offset(_) | Self::Pieces(..) => {}
        }
    }

    /// Memory that is kept, in bytes.
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Body(outline) | Self::Form(outline) => outline.kept.capacity() + outline.walker.kept(),
            Self::Nowhere | Self::Fixed(_) | Self::Offset(_) | Self::Pieces(..) => 0,
        }
    }

    /// Tells places by their offset from here on.
    pub(super) fn forget(&mut self) {
        if let Self::Body(_) | Self::Form(_) = self {
            *self = Self::Offset(0);
        }
    }

    /// Where a position is.
    pub(super) fn at(&mut self, position: u64) -> Option<At> {
        let offset = usize::try_from(position).unwrap_or(usize::MAX);
        match self {
            Self::Nowhere => None,
            Self::Fixed(at) => Some(at.clone()),
            Self::Offset(before) => Some(At::offset(*before + position)),
            Self::Body(outline) => Some(outline.path(offset).unwrap_or_else(|| At::offset(position))),
            Self::Form(outline) => {
                let name = outline.kept.get(..=offset).and_then(|text| piece(b'&', text, offset));
                Some(name.unwrap_or_else(|| At::offset(position)))
            }
            Self::Pieces(separator, text) => piece(*separator, text, offset),
        }
    }
}

/// The name of the piece in which an offset is; none of what stands in the name itself.
fn piece(separator: u8, text: &[u8], offset: usize) -> Option<At> {
    let before = text.get(..offset)?;
    let begin = before.iter().rposition(|b| *b == separator).map_or(0, |at| at + 1);
    let equals = before[begin..].iter().position(|b| *b == b'=')?;
    Some(At::Field(before[begin..begin + equals].trim_ascii().into()))
}

/// The beginning of a body, and how far it was walked.
#[derive(Debug, Default)]
pub(super) struct Outline {
    kept: Vec<u8>,
    walker: Walker,
    walked: usize,
    /// It is no JSON from here on.
    broken: bool,
}

impl Outline {
    fn keep(&mut self, chunk: &[u8]) {
        let room = KEPT_BYTES - self.kept.len();
        super::level::grow(&mut self.kept, chunk.len().min(room));
        self.kept.extend_from_slice(&chunk[..chunk.len().min(room)]);
    }

    /// The path of an offset that is not before the last one that was asked for.
    fn path(&mut self, offset: usize) -> Option<At> {
        while self.walked <= offset && !self.broken {
            self.broken = self.walker.step(*self.kept.get(self.walked)?).is_err();
            self.walked += 1;
        }
        (self.walked == offset + 1 && !self.broken).then(|| At::Json(self.walker.steps()))
    }
}
