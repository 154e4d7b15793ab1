//! What stands before a value: an operator, and a name on the left of it.

/// How many bytes of the label are looked at.
const LABEL_MAX: usize = 160;

/// What joins the name and the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Join {
    /// White space, or a dash.
    Space,
    /// An operator: `=`, `:`, `=>`, a comma between arguments, the end of a tag.
    Operator,
}

/// The text on the left of a value, in lower case and without separators.
pub(super) struct Label {
    pub(super) join: Join,
    /// Stands as `,name:"` does in code that was made small for browsers, where all is public.
    pub(super) minified: bool,
    text: [u8; LABEL_MAX],
    /// Whether a word begins at a byte of the text.
    begins: [bool; LABEL_MAX],
    len: usize,
}

const fn space(b: u8) -> bool {
    matches!(b, b' ' | b'\t')
}

const fn quote(b: u8) -> bool {
    matches!(b, b'"' | b'\'' | b'`')
}

impl Label {
    /// Reads `before` from its end. None if nothing there can be the name of a value, or if the
    /// line on which it stands is not `wanted`, which is asked first: most are not.
    pub(super) fn read(before: &[u8], wanted: impl FnOnce(&[u8]) -> bool) -> Option<Self> {
        let (join, line) = line(before)?;
        if wanted(&line[line.len().saturating_sub(LABEL_MAX)..]) {
            Self::of(before, join, line)
        } else {
            None
        }
    }

    fn of(before: &[u8], join: Join, line: &[u8]) -> Option<Self> {
        let mut label = Self {
            join,
            minified: minified(before, line),
            text: [0; LABEL_MAX],
            begins: [false; LABEL_MAX],
            len: 0,
        };
        let (mut before_last, mut last) = (b' ', b' ');
        for &b in &line[line.len().saturating_sub(LABEL_MAX)..] {
            if b.is_ascii_alphanumeric() {
                label.text[label.len] = b.to_ascii_lowercase();
                label.begins[label.len] =
                    !last.is_ascii_alphanumeric() || (last.is_ascii_lowercase() && b.is_ascii_uppercase());
                // The last capital of several begins the word that goes on in small letters.
                if b.is_ascii_lowercase() && last.is_ascii_uppercase() && before_last.is_ascii_uppercase() {
                    label.begins[label.len - 1] = true;
                }
                label.len += 1;
            }
            before_last = last;
            last = b;
        }
        (label.len > 0).then_some(label)
    }

    /// The text.
    pub(super) fn text(&self) -> &[u8] {
        &self.text[..self.len]
    }

    /// Whether a word begins at an offset, or the text ends there.
    pub(super) fn begins(&self, at: usize) -> bool {
        at >= self.len || self.begins[at]
    }
}

/// What joins a value to what stands before it, and the text in which its name can stand.
fn line(before: &[u8]) -> Option<(Join, &[u8])> {
    let (join, end) = joined(before)?;
    let line = key(before, end).unwrap_or_else(|| name(&before[..end]));
    (!line.is_empty()).then_some((join, line))
}

/// The operator at the end of `before`, and where what is on its left ends.
fn joined(before: &[u8]) -> Option<(Join, usize)> {
    /// Where the bytes begin that end at `end`, at `most` so many, and are all alike.
    #[inline]
    fn back(before: &[u8], mut end: usize, most: usize, what: impl Fn(u8) -> bool) -> usize {
        let least = end.saturating_sub(most);
        while end > least && what(before[end - 1]) {
            end -= 1;
        }
        end
    }
    let opened = back(before, before.len(), 12, |b| {
        space(b) || quote(b) || matches!(b, b'(' | b'[' | b'{' | b'\\' | b'$')
    });
    // A value can stand on the line behind its tag or its key.
    let wrapped = back(before, opened, 40, |b| space(b) || quote(b) || matches!(b, b'\n' | b'\r'));
    let from = match before[..wrapped].last() {
        Some(b'>' | b':' | b'=') => wrapped,
        _ => opened,
    };
    let operator =
        back(before, from, 5, |b| matches!(b, b'=' | b':' | b'>' | b'<' | b',' | b'|' | b'?' | b'!'));
    if operator < from {
        // `#{`, `<<` and comparisons say nothing about a value.
        let found = &before[operator..from];
        if found == b"<" || found == b"!=" || found == b"==" || found == b"===" || found == b"!==" {
            return None;
        }
        let end =
            back(before, operator, 8, |b| space(b) || quote(b) || matches!(b, b')' | b']' | b'.' | b'\\'));
        return Some((Join::Operator, end));
    }
    let end =
        back(before, before.len(), 4, |b| space(b) || quote(b) || matches!(b, b'-' | b'_' | b'(' | b'.'));
    (end < before.len()).then_some((Join::Space, end))
}

/// The key in quotes that ends at `end` and stands before a colon, as in JSON: nothing else on its
/// line names the value.
fn key(before: &[u8], end: usize) -> Option<&[u8]> {
    let rest = before.get(end..)?;
    let quote = *rest.first().filter(|b| quote(**b))?;
    let colon = rest.iter().skip(1).find(|b| !space(**b));
    let begin = before[..end].iter().rposition(|b| *b == quote)?;
    (colon == Some(&b':')).then(|| &before[begin + 1..end])
}

/// The part of the line on which a name can stand.
fn name(left: &[u8]) -> &[u8] {
    let begin = left.iter().rposition(|b| matches!(b, b'\n' | b'\r' | b';' | b'{' | b'}' | b'&' | b'?'));
    begin.map_or(left, |at| &left[at + 1..])
}

/// Whether a name without quotes and a value in quotes stand together without a space.
fn minified(before: &[u8], line: &[u8]) -> bool {
    let name = line.len() - line.iter().rev().take_while(|b| b.is_ascii_alphanumeric()).count();
    before.ends_with(b":\"") && !line.ends_with(b"\"") && (name == 0 || line[name - 1] == b',')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(before: &str) -> Option<(Join, String)> {
        let label = Label::read(before.as_bytes(), |_| true)?;
        Some((label.join, String::from_utf8(label.text().to_vec()).unwrap()))
    }

    #[test]
    fn the_name_and_the_operator_are_found() {
        for (before, name) in [
            ("x; String apiToken = \"", "stringapitoken"),
            ("{\"api_token\": \"", "apitoken"),
            ("System.setProperty(\"API_TOKEN\", \"", "systemsetpropertyapitoken"),
            ("<apiToken>\n    ", "apitoken"),
            ("api-token ?= '", "apitoken"),
            ("{\n  \"apiToken\" => `", "apitoken"),
        ] {
            let (join, text) = read(before).unwrap();
            assert_eq!(join, Join::Operator, "{before}");
            assert!(text.ends_with(name.trim_start_matches("<")), "{before}: {text}");
        }
        assert_eq!(read("box SECRET "), Some((Join::Space, "boxsecret".to_owned())));
        assert_eq!(read("if token == \""), None);
        assert_eq!(read("token\n"), None);
    }
}
