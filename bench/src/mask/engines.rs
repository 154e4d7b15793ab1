//! The engine, and other ways to look for the same patterns.

use aho_corasick::{AhoCorasick, AhoCorasickBuilder, AhoCorasickKind};
use anyhow::{Context, Result};
use bytes::Bytes;
use enforcer::mask::{ExactValue, Masker, SET_SECRETS, Selection, patterns};
use enforcer::secret::Secret;
use enforcer_tests::chance::Chance;
use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};

use super::keywords;
use super::texts::{BLOCK, Text};

/// What a lazy automaton may take.
const CACHE: usize = 256 * 1024 * 1024;
/// How much of a text the slowest way gets.
const A_LITTLE: usize = 1024 * 1024;

/// A way to look for secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Serialize)]
pub enum Engine {
    /// This one, a stream of 64 KiB blocks.
    Ours,
    /// This one, a stream of 256-byte chunks.
    Chunks,
    /// This one with 200 exact values and no pattern.
    Exact200,
    /// This one with 4,000 exact values and no pattern.
    Exact4000,
    /// An Aho-Corasick automaton of keywords, then the patterns of those found on the whole block.
    Keywords,
    /// One set of all patterns, then each pattern that matched.
    Set,
    /// Each pattern by itself.
    Loop,
    /// Nothing but a copy of each block to one place.
    Copy,
}

impl Engine {
    pub const ALL: [Self; 8] = [
        Self::Ours,
        Self::Chunks,
        Self::Exact200,
        Self::Exact4000,
        Self::Keywords,
        Self::Set,
        Self::Loop,
        Self::Copy,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ours => "enforcer, 64 KiB blocks",
            Self::Chunks => "enforcer, 256-byte chunks",
            Self::Exact200 => "enforcer, 200 exact values",
            Self::Exact4000 => "enforcer, 4,000 exact values",
            Self::Keywords => "keywords, then patterns (as gitleaks)",
            Self::Set => "RegexSet, then patterns",
            Self::Loop => "pattern by pattern",
            Self::Copy => "memcpy, 64 KiB at a time",
        }
    }
}

/// All of them, compiled.
pub struct Engines {
    pub masker: Masker,
    exact: [Masker; 2],
    set: RegexSet,
    rules: Vec<Regex>,
    keywords: AhoCorasick,
    /// By keyword, whose it is.
    owners: Vec<usize>,
    /// Those without one.
    always: Vec<usize>,
}

impl Engines {
    pub fn new() -> Result<Self> {
        let masker = Masker::new(&Selection::parse([SET_SECRETS])?, &[])?;
        let texts: Vec<String> =
            patterns().into_iter().filter(|(set, ..)| set == SET_SECRETS).map(|(.., it)| it).collect();
        let set =
            RegexSetBuilder::new(&texts).unicode(false).size_limit(CACHE).dfa_size_limit(CACHE).build()?;
        let rule = |text: &String| RegexBuilder::new(text).unicode(false).size_limit(CACHE).build();
        let rules = texts.iter().map(rule).collect::<Result<Vec<_>, _>>()?;
        let (mut words, mut owners, mut always) = (Vec::new(), Vec::new(), Vec::new());
        for (owner, text) in texts.iter().enumerate() {
            let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(text)?;
            let its = keywords::of(&hir);
            if its.is_empty() {
                always.push(owner);
            }
            owners.extend(its.iter().map(|_| owner));
            words.extend(its);
        }
        let keywords = AhoCorasickBuilder::new()
            .ascii_case_insensitive(true)
            .kind(Some(AhoCorasickKind::DFA))
            .build(&words)
            .context("the automaton of keywords")?;
        let exact = [exact(200)?, exact(4_000)?];
        Ok(Self { masker, exact, set, rules, keywords, owners, always })
    }

    /// How many patterns there are, and how many of them have no keyword.
    pub fn patterns(&self) -> (usize, usize) {
        (self.rules.len(), self.always.len())
    }

    /// Goes through a text once, or through the beginning of it: how many bytes it read, and
    /// how many matches it saw.
    pub fn run(&self, engine: Engine, text: &Text) -> Result<(usize, usize)> {
        Ok(match engine {
            Engine::Ours => (text.bytes, stream(&self.masker, &text.blocks, BLOCK)?),
            Engine::Chunks => (text.bytes, stream(&self.masker, &text.blocks, 256)?),
            Engine::Exact200 => (text.bytes, stream(&self.exact[0], &text.blocks, BLOCK)?),
            Engine::Exact4000 => (text.bytes, stream(&self.exact[1], &text.blocks, BLOCK)?),
            Engine::Keywords => (text.bytes, text.blocks.iter().map(|it| self.by_keywords(it)).sum()),
            Engine::Set => (text.bytes, text.blocks.iter().map(|it| self.by_set(it)).sum()),
            Engine::Loop => {
                let some = &text.blocks[..text.blocks.len().min(A_LITTLE / BLOCK)];
                let found =
                    some.iter().map(|it| self.rules.iter().map(|rule| count(rule, it)).sum::<usize>());
                (some.iter().map(Bytes::len).sum(), found.sum())
            }
            Engine::Copy => {
                let mut into = vec![0; BLOCK];
                for block in &text.blocks {
                    std::hint::black_box(&mut into).copy_from_slice(std::hint::black_box(&block[..BLOCK]));
                }
                (text.blocks.len() * BLOCK, 0)
            }
        })
    }

    fn by_keywords(&self, block: &[u8]) -> usize {
        let mut wanted = vec![false; self.rules.len()];
        self.always.iter().for_each(|rule| wanted[*rule] = true);
        for found in self.keywords.find_overlapping_iter(block) {
            wanted[self.owners[found.pattern().as_usize()]] = true;
        }
        let rules = self.rules.iter().zip(&wanted).filter(|(_, wanted)| **wanted);
        rules.map(|(rule, _)| count(rule, block)).sum()
    }

    fn by_set(&self, block: &[u8]) -> usize {
        self.set.matches(block).iter().map(|rule| count(&self.rules[rule], block)).sum()
    }
}

fn count(rule: &Regex, block: &[u8]) -> usize {
    rule.find_iter(block).count()
}

/// One stream that gets so many bytes at a time.
fn stream(masker: &Masker, blocks: &[Bytes], chunk: usize) -> Result<usize> {
    let mut stream = masker.stream();
    for block in blocks {
        let mut rest = block.clone();
        while !rest.is_empty() {
            let next = rest.split_to(rest.len().min(chunk));
            std::hint::black_box(stream.push(next)?);
        }
    }
    std::hint::black_box(stream.finish()?);
    Ok(stream.findings().total() as usize)
}

/// Random values of 32 letters and digits.
fn exact(count: usize) -> Result<Masker> {
    const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut chance = Chance::seeded(7);
    let values = (0..count)
        .map(|at| Ok(ExactValue::new(&format!("VALUE_{at}"), &Secret::new(chance.bytes_of(ALNUM, 32)))?))
        .collect::<Result<Vec<_>>>()?;
    Ok(Masker::new(&Selection::parse(["exact"])?, &values)?)
}
