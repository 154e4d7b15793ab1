//! What was found, how often, where and by which rule, and how it is told.
//!
//! **Invariant**: never the value, nor its length or hash. Names and paths can be secrets by
//! themselves: they are kept as they came, and only [`Masker::told`] hands them out, masked.

use std::sync::Arc;

use serde::Serialize;

use super::{
    json::Step,
    masker::Masker,
    part::Part,
    types::{Entity, MaskedText, Place},
};

/// Findings of one message that have an entry of their own for each place inside of it; those
/// beyond are counted by their place alone.
pub const PLACES_MAX: usize = 64;
/// Bytes of the name of a field, or of one in a path, that are told; a longer one is left out.
pub const TOLD_NAME_MAX_BYTES: usize = 64;
/// Steps of a path that are told.
pub const TOLD_STEPS_MAX: usize = 24;

/// Where inside of a place something stands, as closely as is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// In the parameter, cookie or field of a form of this name, as it was written.
    Field(Box<[u8]>),
    /// In JSON.
    Json(Vec<Step>),
    /// In a part that policy names, and by that name: one in the body could be a secret.
    Named(Part),
    /// In the text of this name that a model's answer is made of.
    Text(Box<str>),
    /// Up to this many bytes behind the beginning.
    FirstKib,
    FirstMib,
    Beyond,
}

impl At {
    /// The class of an offset.
    pub(super) fn offset(offset: u64) -> Self {
        match offset {
            0..0x400 => Self::FirstKib,
            0x400..0x10_0000 => Self::FirstMib,
            _ => Self::Beyond,
        }
    }
}

/// What was found, how often and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The kind of secret.
    pub entity: Entity,
    /// What knew it: a detector, `exact:NAME`, or `select` where policy named the part.
    pub rule: Arc<str>,
    /// How many placeholders stand for it.
    pub count: u32,
    /// Where.
    pub place: Place,
    pub(super) at: Option<At>,
}

impl Finding {
    fn is_like(&self, other: &Finding) -> bool {
        self.entity == other.entity && self.rule == other.rule && self.place == other.place
    }
}

/// A sum of findings: one entry for an entity, a rule and a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// One finding.
    pub(super) fn one(entity: &Entity, rule: &str, place: &Place, at: Option<At>) -> Self {
        let (entity, rule) = (entity.clone(), rule.into());
        Self(vec![Finding { entity, rule, count: 1, place: place.clone(), at }])
    }

    /// Counts more.
    pub(super) fn add(&mut self, mut finding: Finding) {
        if self.0.len() >= PLACES_MAX && !self.0.iter().any(|f| f.is_like(&finding) && f.at == finding.at) {
            finding.at = None;
        }
        match self.0.iter_mut().find(|f| f.is_like(&finding) && f.at == finding.at) {
            Some(known) => known.count = known.count.saturating_add(finding.count),
            None => self.0.push(finding),
        }
    }

    /// Adds what `other` found.
    pub fn merge(&mut self, other: &Findings) {
        other.0.iter().for_each(|finding| self.add(finding.clone()));
    }

    /// Adds what `other`, which looked at the same bytes, found by rules that found nothing here.
    pub fn merge_unknown(&mut self, other: &Findings) {
        let mine: Vec<Arc<str>> = self.0.iter().map(|finding| finding.rule.clone()).collect();
        other.0.iter().filter(|f| !mine.contains(&f.rule)).for_each(|finding| self.add(finding.clone()));
    }

    /// The same findings, all at one place.
    #[must_use]
    pub fn at(mut self, place: &Place) -> Self {
        for finding in std::mem::take(&mut self.0) {
            self.add(Finding { place: place.clone(), ..finding });
        }
        self
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each finding.
    pub fn iter(&self) -> std::slice::Iter<'_, Finding> {
        self.0.iter()
    }

    /// How many placeholders in all.
    pub fn total(&self) -> u32 {
        self.0.iter().fold(0, |sum, f| sum.saturating_add(f.count))
    }
}

/// Findings as they are told and recorded: all names in them are masked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Told(Vec<One>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct One {
    entity: Entity,
    rule: Arc<str>,
    count: u32,
    place: Place,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<ToldAt>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ToldAt {
    Field(MaskedText),
    Json(MaskedText),
    FirstKib,
    FirstMib,
    Beyond,
}

impl Masker {
    /// The findings as they may be told, with what this masker knows masked in their places. It
    /// has to be one that knows everything, whichever found them.
    pub fn told(&self, findings: &Findings) -> Told {
        let told = |finding: &Finding| {
            let Finding { entity, rule, count, place, at } = finding.clone();
            let place = match place {
                Place::Header(name) => Place::Header(self.text(name.as_str()).0),
                place => place,
            };
            One { entity, rule, count, place, at: at.map(|at| self.told_at(at)) }
        };
        Told(findings.iter().map(told).collect())
    }

    fn told_at(&self, at: At) -> ToldAt {
        match at {
            At::Field(name) => ToldAt::Field(self.text(&self.told_name(&name)).0),
            At::Json(steps) => ToldAt::Json(self.text(&self.told_path(&steps)).0),
            At::Named(Part::Json(path)) => ToldAt::Json(MaskedText::new(&path.to_string())),
            At::Named(Part::Header(name) | Part::Query(name) | Part::Cookie(name) | Part::Form(name)) => {
                ToldAt::Field(MaskedText::new(&name))
            }
            At::Text(path) => ToldAt::Json(self.text(&format!("$.{path}")).0),
            At::FirstKib => ToldAt::FirstKib,
            At::FirstMib => ToldAt::FirstMib,
            At::Beyond => ToldAt::Beyond,
        }
    }

    /// A name by itself: what stands around it could hide what it is.
    fn told_name(&self, name: &[u8]) -> String {
        if name.len() > TOLD_NAME_MAX_BYTES {
            return "?".to_owned();
        }
        self.mask(name).0.to_text().into_owned()
    }

    fn told_path(&self, steps: &[Step]) -> String {
        let mut path = "$".to_owned();
        for step in steps.iter().take(TOLD_STEPS_MAX) {
            match step {
                Step::Index(index) => path.push_str(&format!("[{index}]")),
                Step::Key(None) => path.push_str(".?"),
                Step::Key(Some(key)) if key.len() > TOLD_NAME_MAX_BYTES => path.push_str(".?"),
                Step::Key(Some(key)) => super::json::push_key(&mut path, self.told_name(key).as_bytes()),
            }
        }
        if steps.len() > TOLD_STEPS_MAX {
            path.push_str("...");
        }
        path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mask::{ExactValue, Selection};
    use crate::secret::SecretBytes;

    const SECRET: &str = "obviously fake";

    fn everything() -> Masker {
        let value = ExactValue::new("deploy", &SecretBytes::from(SECRET)).unwrap();
        Masker::new(&Selection::All, &[value]).unwrap()
    }

    fn told(masker: &Masker, findings: &Findings) -> Vec<String> {
        let told = serde_json::to_value(masker.told(findings)).unwrap();
        let one = |one: &serde_json::Value| {
            let text = |key: &str| one[key].to_string().replace('"', "");
            format!("{} {} {} {} {}", text("entity"), text("rule"), text("count"), text("place"), text("at"))
        };
        told.as_array().unwrap().iter().map(one).collect()
    }

    fn body(text: &str, cut: usize) -> Vec<String> {
        let masker = everything();
        let mut stream = masker.stream();
        let (first, second) = text.as_bytes().split_at(cut.min(text.len()));
        for part in [first, second] {
            stream.push(part.to_vec().into()).unwrap();
        }
        stream.finish().unwrap();
        told(&masker, stream.findings())
    }

    #[test]
    fn what_stands_in_json_is_told_with_its_path_wherever_it_is_cut() {
        let text = r#"{"a": [1, {"mail": "me@example.org", "k": "obviously fake"}], "obviously fake": "you@example.org"}"#;
        for cut in 0..text.len() {
            assert_eq!(
                body(text, cut),
                [
                    "EMAIL email 1 body {json:$.a[1].mail}",
                    "DEPLOY exact:DEPLOY 1 body {json:$.a[1].k}",
                    "DEPLOY exact:DEPLOY 1 body {json:$.?}",
                    "EMAIL email 1 body {json:$[\\[MASKED:DEPLOY]\\]}",
                ],
                "{cut}"
            );
        }
    }

    #[test]
    fn what_stands_elsewhere_is_told_with_the_class_of_its_offset() {
        for (before, class) in [(0, "first-kib"), (2000, "first-mib"), (1 << 20, "beyond")] {
            let text = format!("{}{SECRET}", "x ".repeat(before / 2));
            assert_eq!(body(&text, 3), [format!("DEPLOY exact:DEPLOY 1 body {class}")]);
        }
        // Of JSON only the beginning is kept.
        let text = format!("{{\"a\": \"{}\", \"b\": \"{SECRET}\"}}", "x ".repeat(10_000));
        assert_eq!(body(&text, 3), ["DEPLOY exact:DEPLOY 1 body first-mib"]);
        let broken = format!("{{\"a\" 1, {SECRET}");
        assert_eq!(body(&broken, 3), ["DEPLOY exact:DEPLOY 1 body first-kib"]);
    }

    #[test]
    fn parts_of_heads_are_told_by_their_names() {
        let masker = everything();
        let query = masker.query("a=1&k=obviously%20fake&b=me%40example.org").unwrap().1;
        assert_eq!(
            told(&masker, &query),
            ["DEPLOY exact:DEPLOY 1 query {field:k}", "EMAIL email 1 query {field:b}"]
        );
        let cookie = masker.header("cookie", b"a=1; sid=obviously fake").unwrap().1;
        assert_eq!(told(&masker, &cookie), ["DEPLOY exact:DEPLOY 1 {header:cookie} {field:sid}"]);
        let header = masker.header("x-obviously fake", b"me@example.org").unwrap().1;
        assert_eq!(told(&masker, &header), ["EMAIL email 1 {header:x-[MASKED:DEPLOY]} null"]);
    }

    #[test]
    fn names_that_are_secrets_or_long_are_not_told() {
        let masker = everything();
        let query = masker.query("obviously%20fake=me%40example.org").unwrap().1;
        let all = told(&masker, &query).join("\n");
        assert!(all.contains("EMAIL") && all.contains("[MASKED:DEPLOY]") && !all.contains("fake"), "{all}");
        for (length, path) in [(TOLD_NAME_MAX_BYTES, true), (TOLD_NAME_MAX_BYTES + 1, false)] {
            let text = format!("{{\"{}\": \"{SECRET}\"}}", "x".repeat(length));
            assert_eq!(body(&text, 1)[0].contains("xxx"), path, "{length}");
        }
        for (depth, cut) in [(TOLD_STEPS_MAX, false), (TOLD_STEPS_MAX + 1, true)] {
            let text = format!("{}\"{SECRET}\"", "[".repeat(depth));
            assert_eq!(body(&text, 1)[0].ends_with("...}"), cut, "{depth}");
        }
    }

    #[test]
    fn places_have_an_entry_each_up_to_a_limit() {
        for (many, entries) in [(PLACES_MAX, PLACES_MAX), (PLACES_MAX + 9, PLACES_MAX + 1)] {
            let text = format!("[{}]", vec![format!("\"{SECRET}\""); many].join(","));
            let all = body(&text, 1);
            assert_eq!(all.len(), entries);
        }
        let (mut one, mut other) = (Findings::default(), Findings::default());
        let place = Place::Body;
        let by = |rule| Findings::one(&Entity::new(rule), rule, &place, None);
        one.merge(&by("a"));
        other.merge(&by("a"));
        other.merge(&by("b"));
        one.merge_unknown(&other);
        assert_eq!(one.iter().map(|f| (&*f.rule, f.count)).collect::<Vec<_>>(), [("a", 1), ("b", 1)]);
    }
}
