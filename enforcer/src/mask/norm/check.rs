//! What holds of every normal form, for tests and for fuzzing.

use super::{BODY_MAX, ESCAPE_MAX_BYTES, Normal, Normaliser};
use crate::mask::map::Map;

/// So many bytes of an input say where the rest is cut.
pub(super) const CUTS: usize = 6;

/// However bytes are cut, their normal form is the same, and so is the way back from it.
pub(in crate::mask) fn the_normal_form_is_the_same_for_any_cut(data: &[u8]) {
    let (cuts, raw) = data.split_at(CUTS.min(data.len()));
    let expected = whole(raw);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| usize::from(*cut) * (raw.len() + 1) / 256).collect();
    cuts.sort_unstable();
    for cuts in [cuts, (0..raw.len()).collect()] {
        let (bytes, map) = pieces(raw, &cuts);
        assert_eq!(bytes.escape_ascii().to_string(), expected.bytes.escape_ascii().to_string());
        // Inside of a unit that gives several bytes nobody asks.
        let borders = |at: &usize| *at == 0 || expected.raw(*at) != expected.raw(*at - 1);
        for at in (0..=bytes.len()).filter(borders) {
            let back = (map.start(at as u64), map.end(at as u64));
            assert_eq!(back, (expected.raw(at) as u64, expected.raw_end(at) as u64), "byte {at}");
        }
    }
}

/// The normal form of text that is pushed in pieces, and the way back.
pub(super) fn pieces(raw: &[u8], cuts: &[usize]) -> (Vec<u8>, Map) {
    let mut state = Normaliser::default();
    let (mut bytes, mut map) = (Vec::new(), Map::at(0, 0));
    let mut waiting = Vec::new();
    let mut at = 0;
    for cut in cuts.iter().copied().chain([raw.len()]) {
        waiting.extend_from_slice(&raw[at..cut]);
        at = cut;
        let last = cut == raw.len();
        if !last && state.is_plain(&waiting) {
            bytes.append(&mut waiting);
            continue;
        }
        let before = (at - waiting.len()) as u64;
        let mut out = Normal::default();
        let taken = state.push(&waiting, last, &mut out);
        check(&waiting[..taken], &out);
        for unit in out.escapes() {
            let (normal, input) = ((bytes.len() + unit.norm) as u64, before + unit.raw as u64);
            map.unit(normal, unit.norm_len as u64, input, unit.raw_len as u64);
        }
        waiting.drain(..taken);
        assert!(waiting.len() <= ESCAPE_MAX_BYTES + BODY_MAX, "{} bytes wait", waiting.len());
        assert!(!last || waiting.is_empty());
        bytes.extend_from_slice(&out.bytes);
    }
    (bytes, map)
}

pub(super) fn whole(raw: &[u8]) -> Normal {
    let mut out = Normal::default();
    assert_eq!(Normaliser::default().push(raw, true, &mut out), raw.len());
    check(raw, &out);
    out
}

/// The units and the bytes between them are all of what was taken, in order.
fn check(raw: &[u8], out: &Normal) {
    let (mut norm, mut at) = (0, 0);
    for escape in out.escapes() {
        let between = escape.raw - at;
        assert_eq!(out.bytes[norm..norm + between], raw[at..escape.raw]);
        assert_eq!(escape.norm, norm + between);
        assert!(escape.raw_len > 0 && escape.raw_len <= ESCAPE_MAX_BYTES);
        assert!(escape.norm_len <= escape.raw_len);
        norm = escape.norm + escape.norm_len;
        at = escape.raw + escape.raw_len;
        for inside in escape.norm..norm {
            assert_eq!((out.raw(inside), out.raw_end(inside + 1)), (escape.raw, at));
        }
    }
    assert_eq!(out.bytes[norm..], raw[at..]);
    assert_eq!((out.raw(out.bytes.len()), out.raw_end(0)), (raw.len(), 0));
    for i in 0..out.bytes.len() {
        let (from, to) = (out.raw(i), out.raw_end(i + 1));
        assert!(from < to && to <= out.raw(i + 1).max(to) && out.raw(i + 1) <= raw.len());
        assert!(out.raw_end(i) <= from || out.raw_end(i) == to, "one unit gave both, or they are apart");
    }
}
