//! The words that a match of a pattern must have in it, as scanners with a keyword list
//! write them down by hand.

use regex_syntax::hir::{Hir, HirKind};

/// Shorter words are worth nothing.
const SHORTEST: usize = 3;
/// More alternatives than this are no keyword.
const MOST: usize = 32;

/// One of these, in lower case, stands in every match; none if no such word is known.
pub fn of(hir: &Hir) -> Vec<String> {
    best(hir).unwrap_or_default()
}

/// How good a set is: by its shortest word.
fn worth(set: &[String]) -> usize {
    set.iter().map(String::len).min().unwrap_or(0)
}

fn best(hir: &Hir) -> Option<Vec<String>> {
    let found = match hir.kind() {
        HirKind::Capture(capture) => return best(&capture.sub),
        HirKind::Repetition(it) if it.min > 0 => return best(&it.sub),
        HirKind::Alternation(subs) => {
            let mut all = Vec::new();
            for sub in subs {
                all.extend(best(sub)?);
            }
            all
        }
        HirKind::Concat(subs) => return in_sequence(subs),
        _ => in_sequence(std::slice::from_ref(hir))?,
    };
    (worth(&found) >= SHORTEST && found.len() <= MOST).then_some(found)
}

/// The best of the fixed runs, and of what one of the parts has.
fn in_sequence(subs: &[Hir]) -> Option<Vec<String>> {
    let mut candidates: Vec<Vec<String>> = Vec::new();
    let mut run = String::new();
    for sub in subs {
        if let Some(text) = fixed(sub) {
            run.push_str(&text);
            continue;
        }
        candidates.push(vec![std::mem::take(&mut run)]);
        if subs.len() > 1 {
            candidates.extend(best(sub));
        }
    }
    candidates.push(vec![run]);
    candidates.into_iter().filter(|set| worth(set) >= SHORTEST).max_by_key(|set| worth(set))
}

/// The text of a part that has but one, case aside.
fn fixed(hir: &Hir) -> Option<String> {
    match hir.kind() {
        HirKind::Literal(literal) if literal.0.is_ascii() => {
            Some(String::from_utf8_lossy(&literal.0).to_ascii_lowercase())
        }
        HirKind::Class(class) => {
            let mut bytes = Vec::new();
            match class {
                regex_syntax::hir::Class::Bytes(set) => {
                    set.iter().take(3).for_each(|range| bytes.extend(range.start()..=range.end()));
                }
                regex_syntax::hir::Class::Unicode(_) => return None,
            }
            match *bytes {
                [one, two] if one.is_ascii_uppercase() && one.to_ascii_lowercase() == two => {
                    Some(char::from(two).to_string())
                }
                _ => None,
            }
        }
        HirKind::Capture(capture) => fixed(&capture.sub),
        HirKind::Concat(subs) => subs.iter().map(fixed).collect(),
        HirKind::Repetition(it) if it.max == Some(it.min) && it.min < 16 => {
            fixed(&it.sub).map(|text| text.repeat(it.min as usize))
        }
        _ => None,
    }
}

#[test]
fn keywords_are_what_every_match_has() {
    let of = |pattern: &str| {
        let parser = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
        of(&parser.unwrap())
    };
    assert_eq!(of("gh[ps]_[a-z]{4}"), Vec::<String>::new());
    assert_eq!(of("sk_live_[a-z]{4}"), ["sk_live_"]);
    assert_eq!(of("(?i)secret[_-]key.{0,9}=[a-z]{4}"), ["secret"]);
    assert_eq!(of("(?:twilio|sendgrid)[a-z]{9}"), ["twilio", "sendgrid"]);
    assert_eq!(of("[a-z]{9}"), Vec::<String>::new());
}
