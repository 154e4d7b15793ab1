//! The masker: what is selected, compiled once, shared by all streams of a workload.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::{
    context::{Contexts, RULES},
    error::MaskError,
    exact::{ExactValue, Form},
    filter::{BEGINNING, Filter, Target},
    findings::{At, Findings},
    locate::{Locate, Outline},
    parts::Parts,
    rule::{self, Rule, SWALLOW_MAX_BYTES, Trigger},
    selection::{SET_ENTROPY, Selection},
    strategy::{Replacement, Strategy, SurrogateKey},
    stream::StreamMasker,
    types::{Entity, Masked, MaskedText, Place},
    unknown::UNKNOWN,
};

/// Compiled detectors and exact values. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Masker(Arc<Plan>);

/// Everything that a stream needs to know.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) filter: Filter,
    pub(super) runs: Runs,
    rules: Vec<Arc<Rule>>,
    literals: Vec<(Entity, Form)>,
    /// What tells values by their surroundings, if any of its rules was selected.
    pub(super) contexts: Option<&'static Contexts>,
    /// The entities of its rules.
    known: Vec<Entity>,
    strategies: Strategies,
    pub(super) parts: Parts,
    longest: usize,
    /// A value that is looked for has escape characters of its own.
    pub(super) escapes: bool,
}

/// What is done with matches: of each rule, of each literal, and with which key.
#[derive(Debug, Default)]
struct Strategies {
    rules: Vec<Strategy>,
    literals: Vec<Strategy>,
    contexts: Vec<Option<Strategy>>,
    key: Option<SurrogateKey>,
}

/// The patterns without a fixed beginning, one bit each.
#[derive(Debug)]
pub(super) struct Runs {
    /// Which of them can start with a byte.
    pub(super) starts: [u32; 256],
    /// Which of them can have a byte in second place.
    pub(super) seconds: [u32; 256],
    /// Which of them cannot start behind a byte.
    pub(super) follows: [u32; 256],
    pub(super) targets: Vec<(Target, Option<u8>)>,
}

impl Masker {
    /// Compiles what is selected; of the exact values those that the selection names.
    pub fn new(selection: &Selection, exact: &[ExactValue]) -> Result<Self, MaskError> {
        Self::keyed(selection, exact, None)
    }

    /// The same with a key for surrogates; without one there are placeholders in their place.
    pub fn keyed(
        selection: &Selection,
        exact: &[ExactValue],
        key: Option<SurrogateKey>,
    ) -> Result<Self, MaskError> {
        static ALL: OnceLock<Masker> = OnceLock::new();
        // What all workloads without values of their own have in common is compiled once.
        let common = *selection == Selection::All && exact.is_empty();
        if let Some(masker) = ALL.get().filter(|_| common) {
            return Ok(masker.clone());
        }
        let masker = Self::compile(selection, exact, key)?;
        Ok(if common { ALL.get_or_init(|| masker).clone() } else { masker })
    }

    fn compile(
        selection: &Selection,
        exact: &[ExactValue],
        key: Option<SurrogateKey>,
    ) -> Result<Self, MaskError> {
        let mut rules = Vec::new();
        let parts = Parts::new(selection, exact, key.as_ref())?;
        let mut strategies = Strategies { key, ..Strategies::default() };
        if !selection.is_none() {
            for rule in rule::builtin()? {
                let detector = &rule.detector;
                if let Some(strategy) = selection.of_detector(&detector.rule, &detector.set, &detector.entity)
                {
                    rules.push(rule.clone());
                    // What is masked before its end was seen has no value yet.
                    let early = detector.swallow && !strategy.is_fixed();
                    strategies.rules.push(if early { Strategy::Placeholder } else { strategy });
                }
            }
        }
        let mut literals = Vec::new();
        for value in exact {
            let Some(strategy) = selection.of_exact(value.entity().as_str()) else { continue };
            for form in value.forms() {
                literals.push((value.entity().clone(), form));
                strategies.literals.push(strategy);
            }
        }
        let context = |(rule, set, entity): (&str, &str, &str)| selection.of_detector(rule, set, entity);
        strategies.contexts = by_surroundings().map(context).collect();
        Ok(Self(Arc::new(Plan { parts, ..Plan::new(rules, literals, strategies) })))
    }

    /// Masks nothing; there is one of it.
    pub fn nothing() -> Self {
        static NOTHING: OnceLock<Masker> = OnceLock::new();
        let nothing = || Self(Arc::new(Plan::new(Vec::new(), Vec::new(), Strategies::default())));
        NOTHING.get_or_init(nothing).clone()
    }

    /// One rule and nothing else.
    pub(super) fn of_rule(rule: Arc<Rule>) -> Self {
        let strategies = Strategies { rules: vec![Strategy::Placeholder], ..Strategies::default() };
        Self(Arc::new(Plan::new(vec![rule], Vec::new(), strategies)))
    }

    /// All built-in detectors and no exact value.
    pub fn builtin_all() -> Result<Self, MaskError> {
        Self::new(&Selection::All, &[])
    }

    pub(super) fn plan(&self) -> Arc<Plan> {
        self.0.clone()
    }

    /// Whether nothing is ever replaced.
    pub fn is_noop(&self) -> bool {
        self.0.is_noop() && self.0.parts.is_empty()
    }

    /// The most bytes that a stream can be held back for.
    pub fn longest(&self) -> usize {
        self.0.longest
    }

    /// Masks a whole value.
    pub fn mask(&self, value: &[u8]) -> (Masked, Findings) {
        self.mask_at(Bytes::copy_from_slice(value), Place::Other)
    }

    /// Masks a whole value that stands at a place; without a finding nothing is copied.
    /// A value that cannot be masked (a limit of the stream) is replaced as a whole.
    pub fn mask_at(&self, value: Bytes, place: Place) -> (Masked, Findings) {
        if self.0.is_noop() {
            return (Masked::new(value), Findings::default());
        }
        StreamMasker::new(self.0.clone(), place.clone())
            .whole(&value)
            .unwrap_or_else(|_| whole(&Entity::new("UNMASKABLE"), "limit", &place))
    }

    /// Masks a text.
    pub fn text(&self, text: &str) -> (MaskedText, Findings) {
        self.text_at(text, Place::Other)
    }

    /// Masks a text that stands at a place.
    pub fn text_at(&self, text: &str, place: Place) -> (MaskedText, Findings) {
        let (masked, findings) = self.mask_at(Bytes::copy_from_slice(text.as_bytes()), place);
        (MaskedText::from(&masked), findings)
    }

    /// Masks a header field as it is to be *recorded*: of a field that carries a credential
    /// by its definition nothing but the scheme or the names of cookies is left.
    pub fn recorded_header(&self, name: &str, value: &[u8]) -> (MaskedText, MaskedText, Findings) {
        let (name, mut findings) = self.text(name);
        let lower = name.as_str().to_ascii_lowercase();
        let place = Place::Header(name.clone());
        let entity = Entity::new(&lower);
        let (value, found) = match lower.as_str() {
            "authorization" | "proxy-authorization" => credential(value, &entity, &place),
            "cookie"
            | "set-cookie"
            | "x-api-key"
            | "api-key"
            | "x-goog-api-key"
            | "private-token"
            | "x-auth-token"
            | "x-amz-security-token"
            | "x-vault-token" => whole(&entity, HEADER, &place),
            _ => self.mask_at(Bytes::copy_from_slice(value), place),
        };
        findings.merge(&found);
        (name, MaskedText::from(&value), findings)
    }

    /// A masker for one body.
    pub fn stream(&self) -> StreamMasker {
        self.located(Place::Body, Locate::Body(Outline::default()))
    }

    /// The same for a body that is a form.
    pub fn form_stream(&self) -> StreamMasker {
        self.located(Place::Body, Locate::Form(Outline::default()))
    }

    /// A masker for a part of a body that begins at an offset.
    pub fn stream_from(&self, offset: u64) -> StreamMasker {
        self.located(Place::Body, Locate::Offset(offset))
    }

    /// A masker for a text in a body, of this name.
    pub fn stream_of_text(&self, name: &str) -> StreamMasker {
        self.located(Place::Body, Locate::Fixed(At::Text(name.into())))
    }

    /// A masker for one stream at a place.
    pub fn stream_at(&self, place: Place) -> StreamMasker {
        let locate = match place {
            Place::WebSocket => Locate::Body(Outline::default()),
            _ => Locate::default(),
        };
        self.located(place, locate)
    }

    pub(super) fn located(&self, place: Place, locate: Locate) -> StreamMasker {
        StreamMasker::located(self.0.clone(), place, locate)
    }
}

/// Keeps the scheme of a credential (`Bearer`, `Basic`, `AWS4-HMAC-SHA256`), if it is one.
fn credential(value: &[u8], entity: &Entity, place: &Place) -> (Masked, Findings) {
    const SCHEMES: [&str; 7] =
        ["Bearer", "Basic", "Token", "Digest", "Negotiate", "AWS4-HMAC-SHA256", "GoogleLogin"];
    let (masked, findings) = whole(entity, HEADER, place);
    let first = value.split(|&b| b == b' ').next().unwrap_or_default();
    let scheme = SCHEMES.iter().find(|s| s.as_bytes().eq_ignore_ascii_case(first));
    let masked = match scheme {
        Some(scheme) => Masked::new(format!("{scheme} {}", masked.to_text()).into()),
        None => masked,
    };
    (masked, findings)
}

/// What knows a header that carries a credential by its definition.
const HEADER: &str = "header";

fn whole(entity: &Entity, rule: &str, place: &Place) -> (Masked, Findings) {
    (Masked::new(entity.placeholder().into()), Findings::one(entity, rule, place, None))
}

impl Plan {
    fn new(rules: Vec<Arc<Rule>>, literals: Vec<(Entity, Form)>, strategies: Strategies) -> Self {
        let (mut beginnings, mut firsts) = (Vec::new(), Vec::new());
        let mut runs = Runs { starts: [0; 256], seconds: [0; 256], follows: [0; 256], targets: Vec::new() };
        let (mut longest, mut escapes) = (0, false);
        for (index, (_, form)) in (0_u32..).zip(&literals) {
            let bytes = form.bytes.expose();
            longest = longest.max(bytes.len());
            escapes |= form.plain && bytes.contains(&b'\x1b');
            if let Some(beginning) = bytes.first_chunk::<BEGINNING>() {
                beginnings.push((*beginning, Target::Literal(index)));
                firsts.extend(form.firsts());
            }
        }
        for (index, rule) in (0_u32..).zip(&rules) {
            let target = Target::Rule(index);
            let swallowed = usize::try_from(SWALLOW_MAX_BYTES).unwrap_or(usize::MAX);
            longest = longest.max(rule.longest.unwrap_or(swallowed));
            beginnings.extend(rule.beginnings.folded.iter().map(|b| (*b, target)));
            firsts.extend_from_slice(&rule.beginnings.firsts);
            if let Trigger::Run(starts, follows) = rule.detector.trigger {
                let bit = 1 << runs.targets.len();
                for byte in 0..=255_u8 {
                    runs.starts[usize::from(byte)] |= if starts.has(byte) { bit } else { 0 };
                    runs.follows[usize::from(byte)] |= if follows.has(byte) { bit } else { 0 };
                }
                for second in &rule.seconds {
                    runs.seconds[usize::from(*second)] |= bit;
                }
                runs.targets.push((target, rule.detector.pivot));
            }
        }
        let contexts = strategies.contexts.iter().any(Option::is_some).then(Contexts::get);
        let known = by_surroundings().map(|(_, _, entity)| Entity::new(entity)).collect();
        let filter = Filter::new(&beginnings, &firsts);
        let parts = Parts::default();
        Self { filter, runs, rules, literals, contexts, known, strategies, parts, longest, escapes }
    }

    pub(super) fn is_noop(&self) -> bool {
        self.rules.is_empty() && self.literals.is_empty() && self.contexts.is_none()
    }

    pub(super) fn rule(&self, index: u32) -> &Rule {
        &self.rules[index as usize]
    }

    pub(super) fn literal(&self, index: u32) -> &Form {
        &self.literals[index as usize].1
    }

    /// Whether what this rule finds by its surroundings was selected.
    pub(super) fn wants(&self, context: u16) -> bool {
        self.strategies.contexts.get(usize::from(context)).is_some_and(Option::is_some)
    }

    /// What stands in place of a match whose value, with its codings undone, is this; an error
    /// if the message must not go on.
    pub(super) fn replacement(&self, target: Target, value: &[u8]) -> Result<Replacement, MaskError> {
        let fixed = match target {
            Target::Literal(_) | Target::Context(_) => 0,
            Target::Rule(index) => self.rule(index).fixed_bytes(),
        };
        let key = self.strategies.key.as_ref();
        let replaced = self.strategy(target).replacement(self.entity(target), value, fixed, key);
        replaced.map_err(|error| error.by(|| self.name(target)))
    }

    /// The name of what finds this.
    pub(super) fn name(&self, target: Target) -> Arc<str> {
        match target {
            Target::Literal(_) => format!("exact:{}", self.entity(target)).into(),
            Target::Rule(index) => (&*self.rule(index).detector.rule).into(),
            Target::Context(index) => {
                by_surroundings().nth(index as usize).map_or("", |(rule, _, _)| rule).into()
            }
        }
    }

    /// Whether a match can be replaced before its end was seen.
    pub(super) fn early(&self, target: Target) -> bool {
        let strategy = self.strategy(target);
        strategy.is_fixed() && strategy != Strategy::Observe
    }

    pub(super) fn strategy(&self, target: Target) -> Strategy {
        match target {
            Target::Literal(index) => self.strategies.literals[index as usize],
            Target::Rule(index) => self.strategies.rules[index as usize],
            Target::Context(index) => self.strategies.contexts[index as usize].unwrap_or_default(),
        }
    }

    pub(super) fn entity(&self, target: Target) -> &Entity {
        match target {
            Target::Literal(index) => &self.literals[index as usize].0,
            Target::Rule(index) => &self.rule(index).entity,
            Target::Context(index) => &self.known[index as usize],
        }
    }
}

/// Rules that look at runs and at what stands around them, with their sets and entities: those of
/// `context`, and last the one of `unknown`.
pub(super) fn by_surroundings() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let contexts = RULES.iter().map(|(rule, entity, set)| (*rule, *set, *entity));
    contexts.chain([(UNKNOWN.0, SET_ENTROPY, UNKNOWN.1)])
}

/// The index among them of what nothing knows.
pub(super) const UNKNOWN_INDEX: u16 = 5;
const _: () = assert!(UNKNOWN_INDEX as usize == RULES.len());

impl Runs {
    /// The next offset before `to` at which one of the rules in `near` can begin, and which.
    #[inline(never)]
    pub(super) fn next(&self, data: &[u8], near: u32, from: usize, to: usize) -> Option<(usize, u32)> {
        let mut before = from.checked_sub(1).map_or(b'\n', |at| data[at]);
        for (at, &byte) in data.iter().enumerate().take(to).skip(from) {
            let starts = self.starts[usize::from(byte)] & near & !self.follows[usize::from(before)];
            before = byte;
            if starts != 0 {
                let starts = starts & data.get(at + 1).map_or(u32::MAX, |b| self.seconds[usize::from(*b)]);
                if starts != 0 {
                    return Some((at, starts));
                }
            }
        }
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}
