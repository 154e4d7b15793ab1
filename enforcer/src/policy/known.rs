//! Facts as rules look at them: what several rules need is worked out once for all.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::BTreeMap;

use super::cel::MAX_CEL_TEXT_BYTES;
use super::facts::{Fact, Facts, Stage, Told};
use super::glob::{Host, undelimited};
use crate::protocol::llm;

/// Parameters of a query that conditions look at; a request with more is no request that
/// a rule which looks at them could allow.
pub const MAX_PARAMETERS: usize = 1_000;

/// Values by name, decoded. `None` is a value that is not UTF-8.
pub(super) type Parameters = BTreeMap<String, Vec<Option<String>>>;

pub(super) struct Known<'a> {
    pub facts: &'a Facts<'a>,
    pub host: Fact<Host<'a>>,
    /// With its delimiters as they are.
    pub path: Fact<Cow<'a, str>>,
    /// The path as a server reads it that cuts segments at `;`, if that is another one.
    pub plain: Option<String>,
    /// The method as a server reads it that does not mind the case, if that is another one.
    pub upper: Option<String>,
    /// Before everything can be known, a later stage may still come.
    pub stage: Fact<Stage>,
    query: OnceCell<Option<Parameters>>,
    split: OnceCell<Option<Parameters>>,
}

impl<'a> Known<'a> {
    /// None: the host is not in canonical form, and no rule can be trusted with it.
    /// What is asked of the facts in the end (`last`) can rely on the stage.
    pub fn of(facts: &'a Facts<'a>, last: bool) -> Option<Self> {
        let host = match facts.host {
            Fact::Known(host) => Fact::Known(Host::parse(host)?),
            Fact::Unknown => Fact::Unknown,
            Fact::Absent => Fact::Absent,
        };
        let path = match facts.path {
            Fact::Known(path) => Fact::Known(undelimited(path)),
            Fact::Unknown => Fact::Unknown,
            Fact::Absent => Fact::Absent,
        };
        let plain = path.as_ref().known().and_then(|path| without_parameters(path));
        let upper = facts.method.known().filter(|method| method.bytes().any(|b| b.is_ascii_lowercase()));
        let stage = if last || facts.stage == Stage::Http { Fact::Known(facts.stage) } else { Fact::Unknown };
        Some(Self {
            facts,
            host,
            path,
            plain,
            upper: upper.map(str::to_ascii_uppercase),
            stage,
            query: OnceCell::new(),
            split: OnceCell::new(),
        })
    }

    /// The path, in each way in which a server may read it; `None` if it is not known, or so long
    /// that what a condition says of it may be that it costs too much.
    pub fn paths(&self) -> Option<[&str; 2]> {
        let path: &str = self.path.as_ref().known().filter(|path| path.len() <= MAX_CEL_TEXT_BYTES)?;
        Some([path, self.plain.as_deref().unwrap_or(path)])
    }

    /// Whose API of a model is spoken at the path, as one server reads it or another (`plain`).
    pub fn provider(&self, plain: bool) -> Fact<&'static str> {
        let path = match &self.plain {
            Some(path) if plain => Fact::Known(path.as_str()),
            _ => self.path.as_ref().map(AsRef::as_ref),
        };
        match path.map(llm::of_model) {
            Fact::Known(Some(dialect)) => Fact::Known(dialect.provider()),
            Fact::Known(None) | Fact::Absent => Fact::Absent,
            Fact::Unknown => Fact::Unknown,
        }
    }

    /// How many models it asks for, each in a reading of its own.
    pub fn models(&self) -> usize {
        match self.facts.body.models {
            Fact::Known(Told::These(models)) => models.len().max(1),
            _ => 1,
        }
    }

    /// Whether a server that splits a query at `;`, too, reads another one.
    pub fn query_splits(&self) -> bool {
        self.facts.query.known().is_some_and(|query| query.contains(';'))
    }

    /// The query's parameters; `None` if there are too many.
    pub fn parameters(&self, split: bool) -> Option<&Parameters> {
        let cell = if split { &self.split } else { &self.query };
        let query = self.facts.query.known().unwrap_or_default();
        cell.get_or_init(|| parameters(query, split)).as_ref()
    }
}

fn parameters(query: &str, split: bool) -> Option<Parameters> {
    let mut found = Parameters::new();
    let pairs = query.split(|c| c == '&' || (split && c == ';')).filter(|pair| !pair.is_empty());
    for (count, pair) in pairs.enumerate() {
        if count == MAX_PARAMETERS {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = String::from_utf8_lossy(&decoded(name)).into_owned();
        found.entry(name).or_default().push(String::from_utf8(decoded(value)).ok());
    }
    Some(found)
}

/// As forms are decoded (WHATWG URL, section 5.1).
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high << 4 | low).ok(),
            _ => None,
        };
        out.push(match (escaped, byte) {
            (Some(meant), _) => meant,
            (None, b'+') => b' ',
            (None, byte) => byte,
        });
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

/// The path as a server reads it that cuts segments at `;`; None if none has one.
fn without_parameters(path: &str) -> Option<String> {
    const MARKS: [&str; 2] = [";", "%3B"];
    if !MARKS.iter().any(|mark| path.contains(mark)) {
        return None;
    }
    let cut = |segment: &str| {
        let end = MARKS.iter().filter_map(|mark| segment.find(mark)).min().unwrap_or(segment.len());
        segment[..end].to_owned()
    };
    let segments: Vec<String> = path.split('/').skip(1).map(cut).collect();
    let last = segments.len() - 1;
    let kept = segments.iter().enumerate().filter(|(at, segment)| *at == last || !segment.is_empty());
    Some(kept.map(|(_, segment)| format!("/{segment}")).collect())
}
