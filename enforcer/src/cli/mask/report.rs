//! What would be masked in one text, as people and programs read it.
//!
//! **Invariant**: of the text nothing is kept but what masking with everything leaves.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use crate::mask::{Explained, Known, MaskError, Masker, json};
use crate::session::read::visible;

/// Bytes of a line that are shown before and behind a placeholder.
const AROUND: usize = 48;

/// Everything that was found in one text.
#[derive(Serialize)]
pub struct Report {
    file: String,
    bytes: usize,
    /// How many placeholders there would be, by entity.
    counts: BTreeMap<String, u32>,
    findings: Vec<Found>,
}

#[derive(Serialize)]
struct Found {
    entity: String,
    rule: String,
    known: Known,
    confidence: f64,
    /// Both count from one; the column counts characters.
    line: usize,
    column: usize,
    /// Offsets of the first byte, and of the first behind.
    from: usize,
    to: usize,
    /// Where in JSON it stands, if all of the text is JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// The line as it would go out.
    masked: String,
}

/// A stretch of matches that overlap; it has one placeholder.
struct Union {
    from: usize,
    to: usize,
    entity: String,
    selected: bool,
    /// Where its placeholder begins in the masked text.
    at: usize,
}

impl Report {
    pub fn new(file: &str, text: &[u8], selected: &Masker, everything: &Masker) -> Result<Self, MaskError> {
        let found = selected.explain(text)?;
        let mut unions = unions(&found, &everything.explain(text)?);
        let masked = splice(text, &mut unions);
        let mut counts = BTreeMap::new();
        for union in unions.iter().filter(|union| union.selected) {
            *counts.entry(union.entity.clone()).or_default() += 1;
        }
        let starts: Vec<usize> = found.iter().map(|one| one.from).collect();
        let paths =
            if json::is_json(text) { json::paths_of(text, &starts) } else { vec![None; starts.len()] };
        let mut findings = Vec::with_capacity(found.len());
        let mut place = Place::default();
        for (one, path) in found.into_iter().zip(paths) {
            place.advance(text, one.from);
            let union = &unions[unions.partition_point(|union| union.to <= one.from)];
            findings.push(Found {
                entity: one.entity.to_string(),
                rule: one.rule,
                known: one.known,
                confidence: one.confidence,
                line: place.line,
                column: place.column,
                from: one.from,
                to: one.to,
                // A key can be a secret, too.
                path: path.map(|path| everything.text(&path).0.to_string()),
                masked: context(&masked, union),
            });
        }
        Ok(Self { file: visible(file), bytes: text.len(), counts, findings })
    }

    pub fn is_empty(&self) -> bool {
        self.findings.is_empty()
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        for one in &self.findings {
            let path = one.path.as_ref().map(|path| format!("  {}", visible(path))).unwrap_or_default();
            let known = match one.known {
                Known::Value => "a registered value".to_owned(),
                Known::Form => format!("its form, confidence {}", one.confidence),
            };
            // Writing to a string does not fail.
            writeln!(
                text,
                "{}:{}:{}  {}  by {} ({known})  bytes {}..{}{path}\n    {}",
                self.file, one.line, one.column, one.entity, one.rule, one.from, one.to, one.masked
            )
            .ok();
        }
        let total: u32 = self.counts.values().sum();
        if total == 0 {
            writeln!(text, "nothing would be masked in {} bytes", self.bytes).ok();
        } else {
            let counts: Vec<_> =
                self.counts.iter().map(|(entity, count)| format!("{count} {entity}")).collect();
            writeln!(text, "{total} would be masked: {}", counts.join(", ")).ok();
        }
        text
    }
}

/// Line and column of offsets that ascend.
struct Place {
    line: usize,
    column: usize,
    at: usize,
}

impl Default for Place {
    fn default() -> Self {
        Self { line: 1, column: 1, at: 0 }
    }
}

impl Place {
    fn advance(&mut self, text: &[u8], to: usize) {
        for &byte in &text[self.at..to] {
            match byte {
                b'\n' => (self.line, self.column) = (self.line + 1, 1),
                // A byte inside a character of UTF-8.
                0x80..=0xbf => {}
                _ => self.column += 1,
            }
        }
        self.at = to;
    }
}

/// Stretches of matches that overlap, each under the name of its first selected one.
fn unions(selected: &[Explained], everything: &[Explained]) -> Vec<Union> {
    let selected = selected.iter().map(|one| (one, true));
    let mut all: Vec<_> = selected.chain(everything.iter().map(|one| (one, false))).collect();
    all.sort_by_key(|(one, selected)| (one.from, !selected));
    let mut unions: Vec<Union> = Vec::new();
    for (one, selected) in all {
        match unions.last_mut().filter(|union| one.from < union.to) {
            Some(union) => {
                union.to = union.to.max(one.to);
                if selected && !union.selected {
                    union.entity = one.entity.to_string();
                    union.selected = true;
                }
            }
            None => unions.push(Union {
                from: one.from,
                to: one.to,
                entity: one.entity.to_string(),
                selected,
                at: 0,
            }),
        }
    }
    unions
}

/// The text with a placeholder for each stretch, whose place is noted in it.
fn splice(text: &[u8], unions: &mut [Union]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut done = 0;
    for union in unions {
        out.extend_from_slice(&text[done..union.from]);
        union.at = out.len();
        out.extend_from_slice(placeholder(&union.entity).as_bytes());
        done = union.to;
    }
    out.extend_from_slice(&text[done..]);
    out
}

fn placeholder(entity: &str) -> String {
    format!("[MASKED:{entity}]")
}

/// The line around a placeholder, or what fits of it.
fn context(masked: &[u8], union: &Union) -> String {
    let end = union.at + placeholder(&union.entity).len();
    let before = &masked[union.at.saturating_sub(AROUND)..union.at];
    let begin = before.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let behind = &masked[end..masked.len().min(end + AROUND)];
    let stop = behind.iter().position(|&b| b == b'\n').unwrap_or(behind.len());
    let line = [&before[begin..], &masked[union.at..end], &behind[..stop]].concat();
    visible(String::from_utf8_lossy(&line).trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{ExactValue, Selection};
    use crate::secret::SecretBytes;

    fn report(text: &str, select: &[&str]) -> Report {
        let value = ExactValue::new("deploy", &SecretBytes::from("obviously fake")).unwrap();
        let values = [value];
        let selected = Masker::new(&Selection::parse(select).unwrap(), &values).unwrap();
        let everything = Masker::new(&Selection::All, &values).unwrap();
        Report::new("f", text.as_bytes(), &selected, &everything).unwrap()
    }

    #[test]
    fn matches_are_told_with_their_place_and_never_shown() {
        let text = "first\n\u{e4}: obviously fake, me@example.org\tend\n";
        let all = report(text, &["all"]);
        let places: Vec<_> = all.findings.iter().map(|f| (f.line, f.column, &*f.entity)).collect();
        assert_eq!(places, [(2, 4, "DEPLOY"), (2, 20, "EMAIL")]);
        let shown = all.text() + &serde_json::to_string(&all).unwrap();
        assert!(!shown.contains("obviously") && !shown.contains("me@"), "{shown}");
        assert!(all.text().contains("\u{e4}: [MASKED:DEPLOY], [MASKED:EMAIL]\\tend"), "{}", all.text());
        assert!(all.text().ends_with("2 would be masked: 1 DEPLOY, 1 EMAIL\n"));
        let pii = report(text, &["pii"]);
        assert_eq!(pii.findings.len(), 1);
        let shown = pii.text();
        assert!(!shown.contains("obviously"), "what is not selected is not shown either: {shown}");
        assert!(report("nothing", &["all"]).text().contains("nothing would be masked"));
    }

    #[test]
    fn what_stands_in_json_has_a_path() {
        let json =
            report(r#"{"a": [{"mail": "me@example.org", "you@example.org": "obviously fake"}]}"#, &["all"]);
        let paths: Vec<_> = json.findings.iter().map(|f| f.path.as_deref().unwrap()).collect();
        assert_eq!(paths[0], "$.a[0].mail");
        assert_eq!(paths[2], "$.a[0][\"[MASKED:EMAIL]\"]", "{paths:?}");
        assert_eq!(report("me@example.org", &["all"]).findings[0].path, None);
    }

    #[test]
    fn a_long_line_is_cut_around_the_match() {
        let text = format!("{}obviously fake{}", "x".repeat(500), "y".repeat(500));
        let shown = report(&text, &["all"]).findings.remove(0).masked;
        assert_eq!(shown, format!("{}[MASKED:DEPLOY]{}", "x".repeat(AROUND), "y".repeat(AROUND)));
    }
}
