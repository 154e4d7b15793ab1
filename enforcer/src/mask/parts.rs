//! Parts of a message that policy names: masked as a whole, or left alone.
//!
//! What is named is found by its name, so it needs no form that anybody knows: a password
//! in a form, a header of one's own.

mod body;
#[cfg(test)]
mod tests;

use bytes::{Bytes, BytesMut};

use super::{
    error::MaskError,
    exact::ExactValue,
    findings::{At, Findings},
    locate::Locate,
    masker::Masker,
    part::Part,
    selection::Selection,
    strategy::{Replacement, Strategy, SurrogateKey},
    stream::StreamMasker,
    types::{Entity, Masked, MaskedText, Place},
};

pub use body::{BodyParts, PART_VALUE_MAX_BYTES};

/// What knows a part that policy names.
const SELECT: &str = "select";

/// What policy says of parts.
#[derive(Debug, Default)]
pub(super) struct Parts {
    always: Vec<(Part, Strategy)>,
    /// What at least one rule leaves alone, with what the others mask in it.
    exempt: Vec<(Part, Masker)>,
    /// What is masked by itself, with what others look for in it and treat more strictly.
    beside: Vec<(Part, Masker)>,
    key: Option<SurrogateKey>,
}

impl Parts {
    pub(super) fn new(
        selection: &Selection,
        exact: &[ExactValue],
        key: Option<&SurrogateKey>,
    ) -> Result<Self, MaskError> {
        let always: Vec<(Part, Strategy)> =
            selection.parts().into_iter().map(|(part, strategy)| (part.clone(), strategy)).collect();
        let masker = |(part, others): (&Part, Selection)| {
            Ok((part.clone(), Masker::keyed(&others, exact, key.cloned())?))
        };
        let beside = always
            .iter()
            .filter_map(|(part, strategy)| Some((part, selection.stricter_beside(part, *strategy)?)))
            .map(masker)
            .collect::<Result<_, MaskError>>()?;
        let exempt = selection.exempt().into_iter().map(masker).collect::<Result<_, MaskError>>()?;
        Ok(Self { always, exempt, beside, key: key.cloned() })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.always.is_empty() && self.exempt.is_empty()
    }

    fn always(&self, is: impl Fn(&Part) -> bool) -> Option<(&Part, Strategy)> {
        self.always.iter().find(|(part, _)| is(part)).map(|(part, strategy)| (part, *strategy))
    }

    fn exempt(&self, is: impl Fn(&Part) -> bool) -> Option<&Masker> {
        self.exempt.iter().find(|(part, _)| is(part)).map(|(_, masker)| masker)
    }

    /// What stands in place of the whole value of a part. An error if another rule lets nothing go
    /// out with what is in it; what another rule would mask more strictly is a placeholder.
    fn replaced(
        &self,
        part: &Part,
        strategy: Strategy,
        value: &[u8],
    ) -> Result<(Vec<u8>, Entity), MaskError> {
        let entity = part.entity();
        let mut strategy = strategy;
        if let Some((_, others)) = self.beside.iter().find(|(other, _)| other == part) {
            // In queries and forms a plus is a space.
            let spaced: Vec<u8> = value.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
            for text in [value, &spaced] {
                let (_, found) = others.whole(text, Place::Other)?;
                if !found.is_empty() {
                    strategy = strategy.max(Strategy::Placeholder);
                }
            }
        }
        let replaced = strategy.replacement(&entity, value, 0, self.key.as_ref());
        let text = match replaced.map_err(|error| error.by(|| SELECT.into()))? {
            Replacement::Text(text) => text,
            Replacement::Placeholder | Replacement::Observe => entity.placeholder().into_bytes(),
        };
        Ok((text, entity))
    }
}

/// A text of `name=value` pieces.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pieces {
    /// `Cookie: a=1; b=2`
    Cookies,
    /// `Set-Cookie: a=1; Path=/`: only the first one is a cookie.
    SetCookie,
    /// `?a=1&b=2`
    Query,
}

impl Pieces {
    fn is(self, part: &Part, name: &[u8]) -> bool {
        match (self, part) {
            (Self::Cookies | Self::SetCookie, Part::Cookie(wanted)) => wanted.as_bytes() == name,
            (Self::Query, Part::Query(wanted)) => is_encoded(wanted, name),
            _ => false,
        }
    }
}

/// Whether a name of a query or a form, as it is encoded there, is this one.
fn is_encoded(wanted: &str, name: &[u8]) -> bool {
    let mut wanted = wanted.bytes();
    let mut rest = name;
    while let Some((&first, after)) = rest.split_first() {
        let hex = |at: usize| after.get(at).and_then(|b| char::from(*b).to_digit(16));
        let byte = match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                rest = &after[2..];
                u8::try_from(high * 16 + low).unwrap_or_default()
            }
            _ => {
                rest = after;
                if first == b'+' { b' ' } else { first }
            }
        };
        if wanted.next() != Some(byte) {
            return false;
        }
    }
    wanted.next().is_none()
}

/// A replacement as it can stand in a query or a form.
fn encoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &byte in text {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b':' => out.push(byte),
            _ => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
        }
    }
    out
}

impl Masker {
    /// Masks a value that stands at a place; an error if the message must not go on.
    pub fn whole(&self, value: &[u8], place: Place) -> Result<(Masked, Findings), MaskError> {
        Self::all_of(self.stream_at(place), value)
    }

    fn all_of(mut stream: StreamMasker, value: &[u8]) -> Result<(Masked, Findings), MaskError> {
        let mut out = BytesMut::from(stream.push(Bytes::copy_from_slice(value))?.as_bytes());
        out.extend_from_slice(stream.finish()?.as_bytes());
        Ok((Masked::new(out.freeze()), stream.findings().clone()))
    }

    /// Masks the value of a header field, by what policy says of the field or of cookies in it.
    pub fn header(&self, name: &str, value: &[u8]) -> Result<(Masked, Findings), MaskError> {
        let place = || Place::Header(MaskedText::new(name));
        let plan = self.plan();
        let this = |part: &Part| matches!(part, Part::Header(wanted) if wanted.eq_ignore_ascii_case(name));
        if let Some((part, strategy)) = plan.parts.always(this) {
            let (text, entity) = plan.parts.replaced(part, strategy, value)?;
            let findings = Findings::one(&entity, SELECT, &place(), None);
            return Ok((Masked::new(text.into()), findings));
        }
        let masker = plan.parts.exempt(this).unwrap_or(self);
        let pieces = match name.to_ascii_lowercase().as_str() {
            "cookie" => Pieces::Cookies,
            "set-cookie" => Pieces::SetCookie,
            _ => return masker.whole(value, place()),
        };
        masker.pieces(pieces, value, &place())
    }

    /// Masks a query, by what policy says of its parameters.
    pub fn query(&self, query: &str) -> Result<(MaskedText, Findings), MaskError> {
        let (masked, findings) = self.pieces(Pieces::Query, query.as_bytes(), &Place::Query)?;
        Ok((MaskedText::from(&masked), findings))
    }

    /// Masks a text of pieces: those that policy names by themselves, all that is between
    /// them together.
    fn pieces(&self, kind: Pieces, text: &[u8], place: &Place) -> Result<(Masked, Findings), MaskError> {
        let plan = self.plan();
        let separator = if kind == Pieces::Query { b'&' } else { b';' };
        let between = |text: &[u8]| {
            let locate = Locate::Pieces(separator, Bytes::copy_from_slice(text));
            Self::all_of(self.located(place.clone(), locate), text)
        };
        if plan.parts.is_empty() {
            return between(text);
        }
        let (mut out, mut findings, mut plain) = (BytesMut::new(), Findings::default(), 0);
        let mut at = 0;
        for piece in text.split(|b| *b == separator) {
            let begin = at;
            at += piece.len() + 1;
            if kind == Pieces::SetCookie && begin > 0 {
                break;
            }
            let Some(equals) = piece.iter().position(|b| *b == b'=') else { continue };
            let (name, value) = (piece[..equals].trim_ascii(), &piece[equals + 1..]);
            let this = |part: &Part| kind.is(part, name);
            let new = if let Some((part, strategy)) = plan.parts.always(this) {
                let (text, entity) = plan.parts.replaced(part, strategy, value)?;
                let at = Some(At::Named(part.clone()));
                findings.merge(&Findings::one(&entity, SELECT, place, at));
                if kind == Pieces::Query { encoded(&text) } else { text }
            } else if let Some(others) = plan.parts.exempt(this) {
                let (masked, found) = others.whole(value, place.clone())?;
                findings.merge(&found);
                masked.as_bytes().to_vec()
            } else {
                continue;
            };
            let (masked, found) = between(&text[plain..=begin + equals])?;
            findings.merge(&found);
            out.extend_from_slice(masked.as_bytes());
            out.extend_from_slice(&new);
            plain = begin + piece.len();
        }
        let (masked, found) = between(&text[plain..])?;
        findings.merge(&found);
        out.extend_from_slice(masked.as_bytes());
        Ok((Masked::new(out.freeze()), findings))
    }

    /// What masks the parts of a body that policy names, if it names any that a body of
    /// this type can have.
    pub fn body_parts(&self, content_type: &[u8]) -> Option<BodyParts> {
        BodyParts::new(self.plan(), content_type)
    }
}
