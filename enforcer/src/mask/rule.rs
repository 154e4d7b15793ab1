//! A detector as it is written down, and the rule that is compiled from it.
//!
//! A rule runs anchored at one position that the prefilter named, as a dense DFA whose
//! state is one number: it can stop at the end of a chunk and go on with the next one.

use std::sync::{Arc, OnceLock};

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

use super::{detectors, error::MaskError, filter::WINDOW, types::Entity};

/// The longest match that a bounded pattern may have; it is also the most that a stream
/// is held back for one.
pub const PATTERN_MAX_BYTES: usize = 16 * 1024;
/// A value that is masked until its end mark (a private key) may be this long.
pub const SWALLOW_MAX_BYTES: u64 = 64 * 1024;
/// How far behind the beginning of a run its pivot can stand, in bytes.
pub(super) const PIVOT_MAX_BYTES: usize = 64;
/// More first windows than this make a pattern too common to be looked for.
const WINDOWS_MAX: usize = 4096;
/// A compiled pattern may take this much memory.
const DFA_MAX_BYTES: usize = 8 * 1024 * 1024;

/// A class of bytes.
pub type Class = fn(u8) -> bool;

/// Where a pattern is tried.
#[derive(Clone, Copy, Debug)]
pub enum Trigger {
    /// Where its own first four bytes stand; they are taken from the pattern.
    Prefix,
    /// Wherever a byte of the first class does not follow one of the second: for
    /// patterns without a fixed beginning. Costs time on every byte.
    Run(Class, Class),
}

/// One detector, as written in `detectors`.
#[derive(Clone, Copy, Debug)]
pub struct Detector {
    /// The entity; several detectors may share one.
    pub entity: &'static str,
    /// The set: `secrets` or `pii`.
    pub set: &'static str,
    /// A byte regex; a group named `secret` is what is masked, or else the whole match.
    pub pattern: &'static str,
    /// Where it is tried.
    pub trigger: Trigger,
    /// A run is followed by this byte within [`PIVOT_MAX_BYTES`], or it is no match.
    pub pivot: Option<u8>,
    /// The byte before the match must not be one of these (escapes are seen through).
    pub not_after: Option<Class>,
    /// The byte after the match must not be one of these.
    pub not_before: Option<Class>,
    /// A check of the secret part: checksum, entropy, character classes.
    pub check: Option<Class2>,
    /// Once begun, masked until the pattern ends, without a bound on the pattern.
    pub swallow: bool,
    /// Texts that must be masked, in pieces that are joined when the tests run.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests read it"))]
    pub examples: &'static [&'static [&'static str]],
    /// Texts that must stay as they are, in pieces.
    #[cfg_attr(not(test), expect(dead_code, reason = "the tests read it"))]
    pub counter: &'static [&'static [&'static str]],
}

/// A check of a whole value.
pub type Class2 = fn(&[u8]) -> bool;

impl Detector {
    /// A detector without conditions, to be completed by struct update.
    pub const fn new(set: &'static str, entity: &'static str, pattern: &'static str) -> Self {
        Self {
            entity,
            set,
            pattern,
            trigger: Trigger::Prefix,
            pivot: None,
            not_after: None,
            not_before: None,
            check: None,
            swallow: false,
            examples: &[],
            counter: &[],
        }
    }
}

/// A detector that was checked and compiled.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) detector: Detector,
    pub(super) entity: Entity,
    pub(super) windows: Vec<[u8; WINDOW]>,
    /// Of a rule that is tried at runs, the bytes that a match can have in second place.
    pub(super) seconds: Vec<u8>,
    /// The longest match in bytes; none for a swallowing rule.
    pub(super) longest: Option<usize>,
    dfa: dense::DFA<Vec<u32>>,
    captures: Option<meta::Regex>,
}

/// How far a rule came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    /// The state of the automaton.
    pub(super) state: StateID,
    /// Where the longest match so far ends, as an offset into the same bytes as the input.
    pub(super) end: Option<usize>,
    /// Nothing that follows can change `end`.
    pub(super) over: bool,
}

impl Rule {
    /// Checks and compiles one detector.
    pub(super) fn compile(detector: &Detector) -> Result<Self, MaskError> {
        let fail = |reason: String| MaskError::Pattern { entity: detector.entity.to_owned(), reason };
        let syntax = regex_automata::util::syntax::Config::new().unicode(false).utf8(false);
        let hir = regex_syntax::ParserBuilder::new()
            .unicode(false)
            .utf8(false)
            .build()
            .parse(detector.pattern)
            .map_err(|e| fail(e.to_string()))?;
        let longest = bounds(detector, &hir).map_err(fail)?;
        let windows = match detector.trigger {
            Trigger::Prefix => windows(&hir).map_err(fail)?,
            Trigger::Run(..) => Vec::new(),
        };
        let dfa = dense::Builder::new()
            .syntax(syntax)
            .configure(
                dense::Config::new()
                    .start_kind(StartKind::Anchored)
                    .dfa_size_limit(Some(DFA_MAX_BYTES))
                    .determinize_size_limit(Some(4 * DFA_MAX_BYTES)),
            )
            .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
            .build(detector.pattern)
            .map_err(|e| fail(e.to_string()))?;
        let captures = if detector.pattern.contains("(?<secret>") {
            let regex = meta::Builder::new()
                .syntax(syntax)
                .configure(meta::Config::new().utf8_empty(false))
                .build(detector.pattern)
                .map_err(|e| fail(e.to_string()))?;
            Some(regex)
        } else {
            None
        };
        let entity = Entity::new(detector.entity);
        let seconds = Vec::new();
        let mut rule = Self { detector: *detector, entity, windows, seconds, longest, dfa, captures };
        rule.seconds = rule.second_bytes();
        Ok(rule)
    }

    fn second_bytes(&self) -> Vec<u8> {
        let (Trigger::Run(starts, _), Some(start)) = (self.detector.trigger, self.start()) else {
            return Vec::new();
        };
        let firsts: Vec<u8> = (0..=255).filter(|b| starts(*b)).collect();
        let lives = |second| firsts.iter().any(|first| !self.run(&[*first, second], 0, start, false).over);
        (0..=255).filter(|second| lives(*second)).collect()
    }

    /// Whether a match is final as soon as it is one, so that what precedes its end need
    /// not wait for the rest.
    pub(super) fn commits(&self) -> bool {
        self.captures.is_none() && self.detector.check.is_none() && self.detector.not_before.is_none()
    }

    /// The state before the first byte.
    pub(super) fn start(&self) -> Option<StateID> {
        // There are no look-arounds in a pattern, so the byte before makes no difference.
        self.dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).ok()
    }

    /// Goes on with `hay[from..]`. `last` says that nothing follows.
    pub(super) fn run(&self, hay: &[u8], from: usize, mut state: StateID, last: bool) -> Progress {
        let mut end = None;
        for (at, &byte) in hay.iter().enumerate().skip(from) {
            state = self.dfa.next_state(state, byte);
            if self.dfa.is_special_state(state) {
                if self.dfa.is_match_state(state) {
                    end = Some(at);
                } else if self.dfa.is_dead_state(state) || self.dfa.is_quit_state(state) {
                    return Progress { state, end, over: true };
                }
            }
        }
        // A match is seen one byte late; at the end of what there is, ask for it.
        if self.dfa.is_match_state(self.dfa.next_eoi_state(state)) {
            end = Some(hay.len());
        }
        Progress { state, end, over: last }
    }

    /// The part of `hay[start..end]` to be masked, if the conditions hold.
    pub(super) fn verify(&self, hay: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
        if let (Some(class), Some(&next)) = (self.detector.not_before, hay.get(end))
            && class(next)
        {
            return None;
        }
        let (from, to) = match &self.captures {
            None => (start, end),
            Some(regex) => {
                let mut groups = regex.create_captures();
                let input = Input::new(hay).range(start..end).anchored(Anchored::Yes);
                regex.captures(input, &mut groups);
                let secret = groups.get_group_by_name("secret")?;
                (secret.start, secret.end)
            }
        };
        let holds = from < to && self.detector.check.is_none_or(|check| check(&hay[from..to]));
        holds.then_some((from, to))
    }
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
    if properties.minimum_len().unwrap_or(0) < WINDOW {
        return Err(format!("its shortest match is shorter than {WINDOW} bytes"));
    }
    if detector.swallow {
        let conditions = detector.check.is_some()
            || detector.not_before.is_some()
            || detector.pattern.contains("(?<secret>");
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

/// The first four bytes that a match can have.
fn windows(hir: &Hir) -> Result<Vec<[u8; WINDOW]>, String> {
    let mut extractor = Extractor::new();
    extractor
        .kind(ExtractKind::Prefix)
        .limit_class(256)
        .limit_repeat(WINDOW)
        .limit_literal_len(2 * WINDOW)
        .limit_total(4 * WINDOWS_MAX);
    let mut prefixes = extractor.extract(hir);
    prefixes.keep_first_bytes(WINDOW);
    prefixes.dedup();
    let common = || "it does not begin with enough fixed bytes to be looked for".to_owned();
    let literals = prefixes.literals().ok_or_else(common)?;
    let mut windows = Vec::with_capacity(literals.len());
    for literal in literals {
        windows.push(<[u8; WINDOW]>::try_from(literal.as_bytes()).map_err(|_| common())?);
    }
    windows.sort_unstable();
    windows.dedup();
    if windows.is_empty() || windows.len() > WINDOWS_MAX { Err(common()) } else { Ok(windows) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pattern: &'static str) -> Result<Rule, MaskError> {
        Rule::compile(&Detector::new("secrets", "TEST", pattern))
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
    fn windows_come_from_the_pattern() {
        let rule = load("gh[pousr]_[A-Za-z0-9]{36,255}").unwrap();
        assert_eq!(rule.windows.len(), 5);
        assert_eq!(rule.longest, Some(4 + 255));
        assert_eq!(load("SG\\.[a-z]{20}").unwrap().windows.len(), 26);
    }
}
