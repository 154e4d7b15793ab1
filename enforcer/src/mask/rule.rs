//! A detector as it is written down, and the rule that is compiled from it.
//!
//! A rule runs anchored at one position that the prefilter named, as a shape or a dense DFA
//! whose state is one number: it can stop at the end of a chunk and go on with the next one.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use regex_automata::{
    Anchored, Input,
    dfa::{Automaton as _, StartKind, dense},
    meta,
    util::{primitives::StateID, start},
};
use regex_syntax::hir::{
    Hir,
    literal::{ExtractKind, Extractor},
};

use super::{
    byteset::ByteSet,
    check::Check,
    detectors,
    error::MaskError,
    filter::{BEGINNING, fold},
    shape::Shape,
    types::Entity,
};

/// The longest match that a bounded pattern may have; it is also the most that a stream
/// is held back for one.
pub const PATTERN_MAX_BYTES: usize = 16 * 1024;
/// A value that is masked until its end mark (a private key) may be this long.
pub const SWALLOW_MAX_BYTES: u64 = 64 * 1024;
/// How far behind the beginning of a run its pivot can stand, in bytes.
pub(super) const PIVOT_MAX_BYTES: usize = 64;
/// More beginnings than this make a pattern too common to be looked for.
const BEGINNINGS_MAX: usize = 8192;
/// So many bytes at the beginning of a match can belong to its format.
const FIXED_BYTES: usize = 4;
/// With more ways to begin than this the format does not say how a match begins.
const FIXED_MAX: usize = 32;
/// A compiled pattern may take this much memory.
const DFA_MAX_BYTES: usize = 8 * 1024 * 1024;

/// Where a pattern is tried.
#[derive(Clone, Copy, Debug)]
pub enum Trigger {
    /// Where its own first bytes stand; they are taken from the pattern.
    Prefix,
    /// Wherever a byte of the first class does not follow one of the second: for
    /// patterns without a fixed beginning. Costs time on every byte.
    Run(ByteSet, ByteSet),
}

/// Texts in pieces that are joined when they are used.
pub type Examples = &'static [&'static [&'static str]];

/// One detector, as written in `detectors` or in an operator's file.
#[derive(Clone, Debug)]
pub struct Detector {
    /// The name of the rule, in lower case with dashes: `github-pat`.
    pub rule: Cow<'static, str>,
    /// The entity; several detectors may share one.
    pub entity: Cow<'static, str>,
    /// The set: `secrets`, `pii`, ...
    pub set: Cow<'static, str>,
    /// A byte regex; a group named `secret` is what is masked, or else the whole match.
    pub pattern: Cow<'static, str>,
    /// How sure a match is, from 0 to 1.
    pub confidence: f32,
    /// Where it is tried.
    pub trigger: Trigger,
    /// A run is followed by this byte within [`PIVOT_MAX_BYTES`], or it is no match.
    pub pivot: Option<u8>,
    /// The byte before the match must not be one of these (escapes are seen through).
    pub not_after: Option<ByteSet>,
    /// The byte after the match must not be one of these.
    pub not_before: Option<ByteSet>,
    /// Checks of the secret part: checksum, entropy, character classes. All must hold.
    pub checks: [Check; CHECKS_MAX],
    /// Values of the secret part that stay.
    pub allow: Vec<Vec<u8>>,
    /// Once begun, masked until the pattern ends, without a bound on the pattern.
    pub swallow: bool,
    /// Texts that must be masked.
    pub examples: Examples,
    /// Texts that must stay as they are.
    pub counter: Examples,
}

/// How many checks a detector can have.
pub const CHECKS_MAX: usize = 3;

impl Detector {
    /// A detector without conditions, to be completed by the methods below.
    pub const fn new(
        rule: Cow<'static, str>,
        entity: Cow<'static, str>,
        set: Cow<'static, str>,
        pattern: Cow<'static, str>,
    ) -> Self {
        Self {
            rule,
            entity,
            set,
            pattern,
            confidence: 0.9,
            trigger: Trigger::Prefix,
            pivot: None,
            not_after: None,
            not_before: None,
            checks: [Check::None; CHECKS_MAX],
            allow: Vec::new(),
            swallow: false,
            examples: &[],
            counter: &[],
        }
    }

    /// A built-in one.
    pub(super) const fn fixed(
        rule: &'static str,
        entity: &'static str,
        set: &'static str,
        pattern: &'static str,
    ) -> Self {
        let (rule, entity) = (Cow::Borrowed(rule), Cow::Borrowed(entity));
        Self::new(rule, entity, Cow::Borrowed(set), Cow::Borrowed(pattern))
    }

    /// How sure a match is.
    #[must_use]
    pub const fn sure(mut self, confidence: f32) -> Self {
        self.confidence = confidence;
        self
    }

    /// Tried at runs instead of at its first bytes.
    #[must_use]
    pub const fn at_runs(mut self, starts: ByteSet, follows: ByteSet, pivot: Option<u8>) -> Self {
        self.trigger = Trigger::Run(starts, follows);
        self.pivot = pivot;
        self
    }

    /// Does not begin behind one of these bytes.
    #[must_use]
    pub const fn not_after(mut self, class: ByteSet) -> Self {
        self.not_after = Some(class);
        self
    }

    /// Does not end before one of these bytes.
    #[must_use]
    pub const fn not_before(mut self, class: ByteSet) -> Self {
        self.not_before = Some(class);
        self
    }

    /// Stands between bytes that are not of this class.
    #[must_use]
    pub const fn between(self, class: ByteSet) -> Self {
        self.not_after(class).not_before(class)
    }

    /// One more check; more than [`CHECKS_MAX`] do not fit, and a test of the tables says so.
    #[must_use]
    pub const fn check(mut self, check: Check) -> Self {
        let mut at = 0;
        while !matches!(self.checks[at], Check::None) {
            at += 1;
        }
        self.checks[at] = check;
        self
    }

    /// Masked from its beginning on until it ends.
    #[must_use]
    pub const fn swallowing(mut self) -> Self {
        self.swallow = true;
        self
    }

    /// Texts that must be masked.
    #[must_use]
    pub const fn yes(mut self, examples: Examples) -> Self {
        self.examples = examples;
        self
    }

    /// Texts that must stay.
    #[must_use]
    pub const fn no(mut self, counter: Examples) -> Self {
        self.counter = counter;
        self
    }

    /// Whether the value has to be seen whole before it is decided.
    fn checked(&self) -> bool {
        self.checks.iter().any(|check| *check != Check::None) || !self.allow.is_empty()
    }
}

/// A detector that was checked and compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) detector: Detector,
    pub(super) entity: Entity,
    /// What a match can begin with; nothing if the rule is tried at runs.
    pub(super) beginnings: Beginnings,
    /// Of a rule that is tried at runs, the bytes that a match can have in second place.
    pub(super) seconds: Vec<u8>,
    /// The longest match in bytes; none for a swallowing rule.
    pub(super) longest: Option<usize>,
    matcher: Matcher,
}

/// How a rule goes over bytes.
#[derive(Debug)]
enum Matcher {
    Shape(Shape),
    Dfa(Box<dense::DFA<Vec<u32>>>, Option<meta::Regex>),
}

/// How far a rule came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The state of the matcher.
    pub(super) state: u32,
    /// Where the longest match so far ends, as an offset into the same bytes as the input.
    pub(super) end: Option<usize>,
    /// Nothing that follows can change `end`.
    pub(super) over: bool,
}

impl Rule {
    /// Checks and compiles one detector.
    pub(super) fn compile(detector: &Detector) -> Result<Self, MaskError> {
        let fail = |reason: String| MaskError::Pattern { entity: detector.rule.to_string(), reason };
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(&detector.pattern)
            .map_err(|e| fail(e.to_string()))?;
        let longest = bounds(detector, &hir).map_err(fail)?;
        let matcher = match Shape::new(&hir) {
            Some(shape) => Matcher::Shape(shape),
            None => automaton(&detector.pattern).map_err(fail)?,
        };
        let entity = Entity::new(&detector.entity);
        let (beginnings, seconds) = (Beginnings::default(), Vec::new());
        let mut rule = Self { detector: detector.clone(), entity, beginnings, seconds, longest, matcher };
        match detector.trigger {
            Trigger::Prefix => {
                let beginnings = self::beginnings(&hir).or_else(|| rule.walk());
                let open = || fail("it does not begin with enough fixed bytes to be looked for".to_owned());
                rule.beginnings = beginnings.ok_or_else(open)?;
            }
            Trigger::Run(..) => rule.seconds = rule.second_bytes(),
        }
        Ok(rule)
    }

    /// The beginnings of a pattern whose text does not tell them: all that its matcher takes.
    fn walk(&self) -> Option<Beginnings> {
        let mut known = vec![(Vec::new(), self.start()?)];
        for _ in 0..BEGINNING {
            let mut longer = Vec::new();
            for (text, state) in &known {
                for byte in 0..=255_u8 {
                    let progress = self.run(&[byte], 0, *state, false);
                    if !progress.over {
                        longer.push(([&text[..], &[byte]].concat(), progress.state));
                    }
                }
                if longer.len() > 4 * BEGINNINGS_MAX {
                    return None;
                }
            }
            known = longer;
        }
        Beginnings::of(known.iter().filter_map(|(text, _)| text[..].try_into().ok()).collect())
    }

    fn second_bytes(&self) -> Vec<u8> {
        let (Trigger::Run(starts, _), Some(start)) = (self.detector.trigger, self.start()) else {
            return Vec::new();
        };
        let firsts: Vec<u8> = (0..=255).filter(|b| starts.has(*b)).collect();
        let lives = |second| firsts.iter().any(|first| !self.run(&[*first, second], 0, start, false).over);
        (0..=255).filter(|second| lives(*second)).collect()
    }

    /// How many bytes at the beginning of the secret part the format prescribes.
    pub(super) fn fixed_bytes(&self) -> usize {
        let mut fixed: Vec<&[u8]> = self.beginnings.folded.iter().map(|all| &all[..FIXED_BYTES]).collect();
        fixed.dedup();
        let many = fixed.is_empty() || fixed.len() > FIXED_MAX;
        let open = many || self.detector.pattern.contains("(?<secret>");
        if open { 0 } else { FIXED_BYTES }
    }

    /// Whether a match is final as soon as it is one, so that what precedes its end need
    /// not wait for the rest.
    pub(super) fn commits(&self) -> bool {
        let group = match &self.matcher {
            Matcher::Shape(shape) => shape.has_group(),
            Matcher::Dfa(_, captures) => captures.is_some(),
        };
        !group && !self.detector.checked() && self.detector.not_before.is_none()
    }

    /// Whether it is masked until its end mark, without a bound on the pattern.
    pub(super) fn swallow(&self) -> bool {
        self.detector.swallow
    }

    /// Whether a match can begin behind this byte.
    pub(super) fn may_follow(&self, byte: u8) -> bool {
        self.detector.not_after.is_none_or(|class| !class.has(byte))
    }

    /// The state before the first byte.
    pub(super) fn start(&self) -> Option<u32> {
        match &self.matcher {
            Matcher::Shape(_) => Some(Shape::START),
            // There are no look-arounds in a pattern, so the byte before makes no difference.
            Matcher::Dfa(dfa, _) => {
                let config = start::Config::new().anchored(Anchored::Yes);
                dfa.start_state(&config).ok().map(|state| state.as_u32())
            }
        }
    }

    /// Goes on with `hay[from..]`. `last` says that nothing follows.
    pub(super) fn run(&self, hay: &[u8], from: usize, state: u32, last: bool) -> Progress {
        match &self.matcher {
            Matcher::Shape(shape) => {
                let (state, end, over) = shape.run(hay, from, state);
                // What must not follow is seen with the next byte.
                let waits = self.detector.not_before.is_some() && end == Some(hay.len());
                Progress { state, end, over: last || (over && !waits) }
            }
            Matcher::Dfa(dfa, _) => run_dfa(dfa, hay, from, state, last),
        }
    }

    /// The part of `hay[start..end]` to be masked, if the conditions hold.
    pub(super) fn verify(&self, hay: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
        if let (Some(class), Some(&next)) = (self.detector.not_before, hay.get(end))
            && class.has(next)
        {
            return None;
        }
        let (from, to) = match &self.matcher {
            Matcher::Shape(shape) if shape.has_group() => shape.group(hay, start, end)?,
            Matcher::Dfa(_, Some(regex)) => {
                let mut groups = regex.create_captures();
                let input = Input::new(hay).range(start..end).anchored(Anchored::Yes);
                regex.captures(input, &mut groups);
                let secret = groups.get_group_by_name("secret")?;
                (secret.start, secret.end)
            }
            _ => (start, end),
        };
        let value = hay.get(from..to).filter(|value| !value.is_empty())?;
        let holds = self.detector.checks.iter().all(|check| check.holds(value))
            && !self.detector.allow.iter().any(|allowed| allowed == value);
        holds.then_some((from, to))
    }
}

fn run_dfa(dfa: &dense::DFA<Vec<u32>>, hay: &[u8], from: usize, state: u32, last: bool) -> Progress {
    let mut end = None;
    // The number is one that this automaton gave out; any other begins dead.
    let mut state = StateID::new(state as usize).unwrap_or(StateID::ZERO);
    for (at, &byte) in hay.iter().enumerate().skip(from) {
        state = dfa.next_state(state, byte);
        if dfa.is_special_state(state) {
            if dfa.is_match_state(state) {
                end = Some(at);
            } else if dfa.is_dead_state(state) || dfa.is_quit_state(state) {
                return Progress { state: state.as_u32(), end, over: true };
            }
        }
    }
    // A match is seen one byte late; at the end of what there is, ask for it.
    if dfa.is_match_state(dfa.next_eoi_state(state)) {
        end = Some(hay.len());
    }
    Progress { state: state.as_u32(), end, over: last }
}

/// An automaton, for what is no shape.
fn automaton(pattern: &str) -> Result<Matcher, String> {
    let syntax = regex_automata::util::syntax::Config::new().unicode(false).utf8(false);
    let dfa = dense::Builder::new()
        .syntax(syntax)
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(DFA_MAX_BYTES))
                .determinize_size_limit(Some(4 * DFA_MAX_BYTES)),
        )
        .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
        .build(pattern)
        .map_err(|e| e.to_string())?;
    let captures = if pattern.contains("(?<secret>") {
        let regex = meta::Builder::new()
            .syntax(syntax)
            .configure(meta::Config::new().utf8_empty(false))
            .build(pattern)
            .map_err(|e| e.to_string())?;
        Some(regex)
    } else {
        None
    };
    Ok(Matcher::Dfa(Box::new(dfa), captures))
}

/// All built-in rules, compiled once in the life of the process.
pub(super) fn builtin() -> Result<&'static [Arc<Rule>], MaskError> {
    static RULES: OnceLock<Result<Vec<Arc<Rule>>, MaskError>> = OnceLock::new();
    RULES
        .get_or_init(|| detectors::all().map(|d| Rule::compile(d).map(Arc::new)).collect())
        .as_deref()
        .map_err(Clone::clone)
}

/// The longest match, or why the pattern does not load.
fn bounds(detector: &Detector, hir: &Hir) -> Result<Option<usize>, String> {
    let properties = hir.properties();
    if !properties.look_set().is_empty() {
        return Err("it uses ^, $ or \\b; use not_after and not_before".to_owned());
    }
    if properties.minimum_len().unwrap_or(0) < BEGINNING {
        return Err(format!("its shortest match is shorter than {BEGINNING} bytes"));
    }
    if !(0.0..=1.0).contains(&detector.confidence) {
        return Err(format!("its confidence is {}, and must be between 0 and 1", detector.confidence));
    }
    if detector.swallow {
        let conditions =
            detector.checked() || detector.not_before.is_some() || detector.pattern.contains("(?<secret>");
        return if conditions {
            Err("what swallows can have no condition on its end".to_owned())
        } else {
            Ok(None)
        };
    }
    match properties.maximum_len() {
        None => Err("it has no upper bound: replace * and + by {m,n}".to_owned()),
        Some(longest) if longest > PATTERN_MAX_BYTES => {
            Err(format!("its longest match has {longest} bytes, the limit is {PATTERN_MAX_BYTES}"))
        }
        Some(longest) => Ok(Some(longest)),
    }
}

/// The first five bytes that a match can have, if the text of its pattern tells them.
fn beginnings(hir: &Hir) -> Option<Beginnings> {
    // As few bytes of a repeated class as are enough: each multiplies what there is.
    (1..=BEGINNING).find_map(|repeated| beginnings_with(hir, repeated))
}

fn beginnings_with(hir: &Hir, repeated: usize) -> Option<Beginnings> {
    let mut extractor = Extractor::new();
    extractor
        .kind(ExtractKind::Prefix)
        .limit_class(256)
        .limit_repeat(repeated)
        .limit_literal_len(2 * BEGINNING)
        .limit_total(16 * BEGINNINGS_MAX);
    let mut prefixes = extractor.extract(hir);
    prefixes.keep_first_bytes(BEGINNING);
    prefixes.dedup();
    let texts = prefixes.literals()?.iter().map(|literal| literal.as_bytes().try_into().ok());
    Beginnings::of(texts.collect::<Option<_>>()?)
}

/// What a match of a pattern can begin with.
#[derive(Debug, Clone, Default)]
pub(super) struct Beginnings {
    /// As the filter folds it.
    pub(super) folded: Vec<[u8; BEGINNING]>,
    /// The first two bytes as they are.
    pub(super) firsts: Vec<[u8; 2]>,
}

impl Beginnings {
    /// None if there are none, or too many.
    fn of(texts: Vec<[u8; BEGINNING]>) -> Option<Self> {
        let mut firsts: Vec<[u8; 2]> = texts.iter().map(|[first, second, ..]| [*first, *second]).collect();
        let mut folded: Vec<_> = texts.into_iter().map(|text| text.map(fold)).collect();
        folded.sort_unstable();
        folded.dedup();
        firsts.sort_unstable();
        firsts.dedup();
        (1..=BEGINNINGS_MAX).contains(&folded.len()).then_some(Self { folded, firsts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pattern: &'static str) -> Result<Rule, MaskError> {
        Rule::compile(&Detector::fixed("TEST", "TEST", "secrets", pattern))
    }

    #[test]
    fn what_has_no_bound_or_no_beginning_does_not_load() {
        for (pattern, why) in [
            ("tok_[a-z]+", "no upper bound"),
            ("tok_[a-z]{1,20000}", "the limit is"),
            ("[a-z]{8}", "fixed bytes"),
            ("ab", "shorter than"),
            (r"\btok_[a-z]{8}", "not_after"),
            ("tok_[a-z", "unclosed"),
        ] {
            let error = load(pattern).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains("TEST"), "{pattern}: {error}");
        }
    }

    #[test]
    fn every_detector_loads_and_most_need_no_automaton() {
        let started = std::time::Instant::now();
        let mut failed = Vec::new();
        let mut automata = Vec::new();
        for detector in detectors::all() {
            let before = started.elapsed();
            match Rule::compile(detector) {
                Ok(rule) if matches!(rule.matcher, Matcher::Dfa(..)) => {
                    automata.push((detector.rule.clone(), started.elapsed().saturating_sub(before)));
                }
                Ok(_) => {}
                Err(error) => failed.push(error.to_string()),
            }
        }
        println!("{} automata in {:?}: {automata:?}", automata.len(), started.elapsed());
        assert!(failed.is_empty(), "{failed:#?}");
        assert!(automata.len() * 3 < detectors::all().count(), "{automata:?}");
        let mut names: Vec<_> = detectors::all().map(|d| d.rule.as_ref()).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all, "a rule's name is given twice");
    }

    #[test]
    fn beginnings_come_from_the_pattern() {
        let rule = load("gh[pousr]_[A-Za-z0-9]{36,255}").unwrap();
        assert_eq!(rule.beginnings.folded.len(), 5 * 36);
        assert_eq!(rule.beginnings.firsts, [*b"gh"]);
        assert_eq!(rule.longest, Some(4 + 255));
        assert_eq!(load("SG\\.[a-z]{20}").unwrap().beginnings.folded.len(), 26 * 26);
    }
}
