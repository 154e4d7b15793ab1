//! Masking of bytes.

use std::sync::LazyLock;

use bytes::Bytes;
use enforcer::mask::{ExactValue, MaskError, Masker, Selection};
use enforcer::secret::Secret;

use super::{chosen, cut, same};
use crate::forms::{self, Given};

/// The longest value that is made of an input.
const VALUE_MAX: usize = 64;
/// A value of fewer different bytes can be seen in what stands in its place.
const DIFFERENT_MIN: usize = 6;

/// Everything, with two known values that begin alike.
pub(super) fn everything() -> &'static Masker {
    static ALL: LazyLock<Masker> = LazyLock::new(|| {
        let known = ["obviously-fake-value/1", "obviously\\\"fake%41", "abababab"];
        let value = |it: &str| ExactValue::new("known", &Secret::new(it.as_bytes().to_vec())).unwrap();
        Masker::new(&Selection::All, &known.map(value)).unwrap()
    });
    &ALL
}

/// What comes out.
pub(super) fn masked(masker: &Masker, chunks: Vec<Bytes>) -> Result<Vec<u8>, MaskError> {
    let mut stream = masker.stream();
    let mut out = Vec::new();
    for chunk in chunks {
        out.extend_from_slice(stream.push(chunk)?.as_bytes());
    }
    out.extend_from_slice(stream.finish()?.as_bytes());
    Ok(out)
}

/// How much is open at once depends on how much is looked at in one go: of two cuts one can reach
/// a limit, and the other not.
pub(super) fn is_by_chance(error: &MaskError) -> bool {
    matches!(error, MaskError::TooManyOpen { .. } | MaskError::TooManyLevels { .. })
}

/// Masking in pieces gives what masking the whole does.
pub fn any_cut_is_the_same(data: &[u8]) {
    let (mut chance, text) = chosen(data);
    let whole = masked(everything(), vec![Bytes::copy_from_slice(text)]);
    let pieces = masked(everything(), cut(text, &mut chance));
    match (&pieces, &whole) {
        (Err(error), _) | (_, Err(error)) if is_by_chance(error) => {}
        (Ok(pieces), Ok(whole)) => same(pieces, whole),
        (Err(pieces), Err(whole)) => assert_eq!(pieces.to_string(), whole.to_string()),
        _ => panic!("cut: {pieces:?}, whole: {whole:?} of {}", text.escape_ascii()),
    }
}

/// A value that is known does not come out in any form, however it is cut.
pub fn no_known_value_comes_out(data: &[u8]) {
    let (mut chance, text) = chosen(data);
    let length = text.len().min(VALUE_MAX);
    let (value, behind) = text.split_at(length);
    // Of a value that is nothing but escapes nothing would be left to be found.
    let solid = &b"Kq7xW"[..];
    let value = if chance.one_in(2) { [solid, value].concat() } else { [value, solid].concat() };
    let value = value.trim_ascii();
    // Terminals' escapes in a value, and these in another coding, are looked for by `random` only.
    if value.iter().any(|byte| matches!(byte, 0 | 0x1b)) {
        return;
    }
    let different: std::collections::BTreeSet<u8> = value.iter().copied().collect();
    let Ok(known) = ExactValue::new("known", &Secret::new(value.to_vec())) else { return };
    let form = &forms::all()[chance.below(forms::all().len())];
    // What stands in its place, and what stands around it, is not it.
    let around = [&b"{\"it\": \""[..], b"\"}\n"];
    let shown = [around[0], b"[MASKED:KNOWN]", around[1], behind].concat();
    if different.len() < DIFFERENT_MIN || form.shows(&shown, value) {
        return;
    }
    let Some(body) = form.body(&Given { secret: value, around }, &mut chance) else { return };
    let body = [&body[..], behind].concat();
    let masker = Masker::new(&Selection::parse(["exact"]).unwrap(), &[known]).unwrap();
    let mut stream = masker.stream();
    let mut out = Vec::new();
    for chunk in cut(&body, &mut chance) {
        match stream.push(chunk) {
            Ok(masked) => out.extend_from_slice(masked.as_bytes()),
            Err(error) => {
                assert!(!matches!(error, MaskError::TooLate { .. }), "{error}: {}", body.escape_ascii());
                break;
            }
        }
    }
    // Behind an error it says the same again.
    if let Ok(rest) = stream.finish() {
        out.extend_from_slice(rest.as_bytes());
    }
    let begins = form.shows_beginning(&out, around[0], value);
    let (name, body, out_text) = (form.name, body.escape_ascii(), out.escape_ascii());
    assert!(!begins && !form.shows(&out, value), "{name}: of {body} came {out_text}");
}
