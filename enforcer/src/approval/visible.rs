//! Text that a job wrote, made fit for the eyes of people who decide by it.
//!
//! What moves a cursor, turns the direction of writing, takes no room or only looks like
//! a space is written out as `<U+202E>`. A name in which letters of other scripts stand
//! is shown in A-labels, with what it would look like and whose letters those are.

use std::fmt;
use std::sync::{Arc, LazyLock};

use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::mask::MaskedText;

/// Bytes of a text on one line; of a longer one, head and tail are shown.
pub const LINE_MAX: usize = 512;
/// Bytes of a statement; of a longer one, head and tail are shown.
pub const TEXT_MAX: usize = 8 * 1024;
/// Marks above or below one letter; more could cover what stands around it.
pub const MARKS_MAX: usize = 3;

/// Text that is masked, and that shows what is in it.
///
/// **Invariant**: it is made of masked text only, or read from the journal, where
/// nothing else was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shown(Arc<str>);

impl Shown {
    /// On one line: a line break is written out, too.
    pub fn line(text: &MaskedText) -> Self {
        Self(visible(&shortened(text.as_str(), LINE_MAX), false).into())
    }

    /// On lines of its own.
    pub fn text(text: &MaskedText) -> Self {
        Self(visible(&shortened(text.as_str(), TEXT_MAX), true).into())
    }

    /// The name of a host, with or without a port.
    pub fn host(text: &MaskedText) -> Self {
        Self(host(&shortened(text.as_str(), LINE_MAX)).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Head and tail: what is bad about a statement must not be hidden by a long beginning.
fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut head = limit / 4 * 3;
    while !text.is_char_boundary(head) {
        head -= 1;
    }
    let mut tail = text.len() - limit / 4;
    while !text.is_char_boundary(tail) {
        tail += 1;
    }
    let (before, after) = (text.get(..head).unwrap_or_default(), text.get(tail..).unwrap_or_default());
    format!("{before}<{} bytes not shown>{after}", tail - head)
}

/// Invisible or moving: control, format, private and unassigned characters, separators,
/// every space but the plain one, and a pattern without dots.
static HIDDEN: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\u{2800}[\p{Zs}--\x20]]").ok()
});
static MARK: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\p{M}").ok());

fn is_hidden(c: char) -> bool {
    // Quick for almost all, and strict if the classes were not there.
    let strange = |c: char| one_of(&HIDDEN, c).unwrap_or(true);
    !matches!(c, ' '..='~') && strange(c)
}

fn one_of(class: &LazyLock<Option<Regex>>, c: char) -> Option<bool> {
    class.as_ref().map(|class| class.is_match(c.encode_utf8(&mut [0; 4])))
}

/// The text with everything hidden written out; line breaks and tabs stay if `lines`.
pub fn visible(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut marks = 0;
    for c in text.chars() {
        let mark = !c.is_ascii() && one_of(&MARK, c).unwrap_or(true);
        marks = if mark { marks + 1 } else { 0 };
        if lines && matches!(c, '\n' | '\t') || !is_hidden(c) && marks <= MARKS_MAX {
            out.push(c);
        } else {
            write_out(&mut out, c);
        }
    }
    out
}

fn write_out(out: &mut String, c: char) {
    out.push_str(&format!("<U+{:04X}>", u32::from(c)));
}

/// The name as it is sent, and what else it looks like.
pub fn host(name: &str) -> String {
    let labels = name.split(['.', ':', '[', ']']);
    let strange: Vec<String> = labels.filter_map(written).collect();
    let mut out = String::new();
    for c in visible(name, false).chars() {
        if c.is_ascii() { out.push(c) } else { write_out(&mut out, c) }
    }
    for label in strange {
        out.push_str(&format!(" <looks like {:?}: {}>", visible(&label, false), scripts(&label)));
    }
    out
}

/// What a label looks like, if that is not ASCII.
fn written(label: &str) -> Option<String> {
    if !label.is_ascii() {
        return Some(label.to_owned());
    }
    let coded = label.get(..4).filter(|begin| begin.eq_ignore_ascii_case("xn--")).and(label.get(4..))?;
    Some(punycode(coded).unwrap_or_else(|| "\u{fffd}".to_owned()))
}

/// What Punycode stands for (RFC 3492, section 6.2).
fn punycode(coded: &str) -> Option<String> {
    let (basic, deltas) = coded.rsplit_once('-').unwrap_or(("", coded));
    let mut out: Vec<char> = basic.chars().collect();
    let (mut n, mut i, mut bias) = (128u32, 0u32, 72u32);
    let mut digits = deltas.bytes();
    while digits.len() > 0 {
        let before = i;
        let mut weight = 1u32;
        for k in (36u32..).step_by(36) {
            let digit = match digits.next()? {
                letter @ b'a'..=b'z' => u32::from(letter - b'a'),
                letter @ b'A'..=b'Z' => u32::from(letter - b'A'),
                number @ b'0'..=b'9' => u32::from(number - b'0') + 26,
                _ => return None,
            };
            i = i.checked_add(digit.checked_mul(weight)?)?;
            let threshold = k.saturating_sub(bias).clamp(1, 26);
            if digit < threshold {
                break;
            }
            weight = weight.checked_mul(36 - threshold)?;
        }
        let length = u32::try_from(out.len()).ok()? + 1;
        let mut delta = (i - before) / if before == 0 { 700 } else { 2 };
        delta += delta / length;
        bias = 0;
        while delta > 455 {
            delta /= 35;
            bias += 36;
        }
        bias += 36 * delta / (delta + 38);
        n = n.checked_add(i / length)?;
        i %= length;
        out.insert(usize::try_from(i).ok()?, char::from_u32(n)?);
        i += 1;
    }
    Some(out.into_iter().collect())
}

/// Scripts whose letters stand in names that exist.
const SCRIPTS: [&str; 18] = [
    "Latin",
    "Cyrillic",
    "Greek",
    "Armenian",
    "Cherokee",
    "Georgian",
    "Hebrew",
    "Arabic",
    "Devanagari",
    "Bengali",
    "Tamil",
    "Thai",
    "Han",
    "Hiragana",
    "Katakana",
    "Hangul",
    "Ethiopic",
    "Coptic",
];

static CLASSES: LazyLock<Vec<(&str, Regex)>> = LazyLock::new(|| {
    let class = |script| Some((script, Regex::new(&format!(r"\p{{Script={script}}}")).ok()?));
    SCRIPTS.into_iter().filter_map(class).collect()
});
static LETTER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\p{L}").ok());

fn scripts(label: &str) -> String {
    let mut found: Vec<&str> = Vec::new();
    let mut note = |script| {
        if !found.contains(&script) {
            found.push(script);
        }
    };
    for c in label.chars() {
        let mut bytes = [0; 4];
        let text: &str = c.encode_utf8(&mut bytes);
        match CLASSES.iter().find(|(_, class)| class.is_match(text)) {
            Some((script, _)) => note(script),
            None if one_of(&LETTER, c).unwrap_or(true) => note("another script"),
            None => {}
        }
    }
    match found.as_slice() {
        [] => "no letters".to_owned(),
        [one] => format!("letters of {one}"),
        many => format!("MIXED letters of {}", many.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_is_written_out() {
        for (text, want) in [
            ("plain text, \"quoted\" <b>", "plain text, \"quoted\" <b>"),
            ("r\u{e9}sum\u{e9} \u{4e2d}\u{6587} \u{1f600}", "r\u{e9}sum\u{e9} \u{4e2d}\u{6587} \u{1f600}"),
            ("a\u{1b}[2Jb", "a<U+001B>[2Jb"),
            ("a\rb\0", "a<U+000D>b<U+0000>"),
            ("\u{7f}\u{85}\u{9b}", "<U+007F><U+0085><U+009B>"),
            ("a\u{202e}cod.exe\u{2066}", "a<U+202E>cod.exe<U+2066>"),
            ("a\u{200b}\u{200d}\u{feff}\u{ad}b", "a<U+200B><U+200D><U+FEFF><U+00AD>b"),
            ("a\u{a0}b\u{3000}c\u{2003}", "a<U+00A0>b<U+3000>c<U+2003>"),
            ("\u{2028}\u{2029}", "<U+2028><U+2029>"),
            ("\u{e000}\u{e0041}\u{115f}\u{3164}\u{2800}", "<U+E000><U+E0041><U+115F><U+3164><U+2800>"),
            ("\u{fe0f}\u{10ffff}", "<U+FE0F><U+10FFFF>"),
        ] {
            assert_eq!(visible(text, false), want, "{text:?}");
            assert_eq!(visible(text, true), want, "{text:?}");
        }
        assert_eq!(visible("a\n\tb", false), "a<U+000A><U+0009>b");
        assert_eq!(visible("a\n\tb", true), "a\n\tb");
    }

    #[test]
    fn no_control_character_and_no_bidi_control_is_ever_left() {
        for c in ('\0'..=char::MAX).filter(|c| c.is_control() || "\u{200e}\u{200f}\u{61c}".contains(*c)) {
            assert!(!visible(&c.to_string(), false).contains(c), "{c:?}");
        }
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            assert!(!visible(&c.to_string(), true).contains(c), "{c:?}");
        }
    }

    #[test]
    fn marks_do_not_pile_up() {
        let text = |marks| format!("a{}", "\u{301}".repeat(marks));
        assert_eq!(visible(&text(MARKS_MAX), false), text(MARKS_MAX));
        assert_eq!(visible(&text(MARKS_MAX + 1), false), text(MARKS_MAX) + "<U+0301>");
    }

    #[test]
    fn names_that_look_like_others_say_so() {
        for (name, want) in [
            ("api.example.com:443", "api.example.com:443"),
            ("[2001:db8::1]:443", "[2001:db8::1]:443"),
            (
                "xn--pple-43d.com",
                "xn--pple-43d.com <looks like \"\u{430}pple\": MIXED letters of Cyrillic and Latin>",
            ),
            (
                "xn--80ak6aa92e.com",
                "xn--80ak6aa92e.com <looks like \"\u{430}\u{440}\u{440}\u{4cf}\u{435}\": letters of Cyrillic>",
            ),
            ("XN--mnchen-3ya.de", "XN--mnchen-3ya.de <looks like \"m\u{fc}nchen\": letters of Latin>"),
            (
                "g\u{43e}ogle.com",
                "g<U+043E>ogle.com <looks like \"g\u{43e}ogle\": MIXED letters of Latin and Cyrillic>",
            ),
            ("xn--99999999.com", "xn--99999999.com <looks like \"\u{fffd}\": no letters>"),
            ("a\u{202e}.com", "a<U+202E>.com <looks like \"a<U+202E>\": letters of Latin>"),
        ] {
            assert_eq!(host(name), want, "{name}");
        }
    }

    #[test]
    fn of_what_is_long_both_ends_are_shown() {
        let text = |length: usize| format!("head{}tail", "\u{e9}".repeat((length - 8) / 2));
        assert_eq!(shortened(&text(LINE_MAX), LINE_MAX), text(LINE_MAX));
        let long = shortened(&text(LINE_MAX + 2), LINE_MAX);
        assert!(long.starts_with("head") && long.ends_with("tail"), "{long}");
        assert!(long.contains("<2 bytes not shown>"), "{long}");
        assert!(long.len() < LINE_MAX + 32, "{}", long.len());
        for limit in LINE_MAX..LINE_MAX + 4 {
            shortened(&text(4 * LINE_MAX), limit);
        }
    }
}
