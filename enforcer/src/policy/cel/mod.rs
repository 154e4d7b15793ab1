//! Conditions written in CEL (the Common Expression Language).
//!
//! ```text
//! text --scan--> lengths, depth --cel::Parser--> tree --check--> typed nodes --eval--> Tri
//! ```
//!
//! The crate `cel` parses; what an expression means is decided here, since policy needs
//! what its interpreter has not: types that are checked when the policy is loaded, facts
//! that are not known yet, and a bound on the cost. What is left out (doubles, bytes,
//! `map`, `filter`, messages) does not load.
//!
//! **Invariant**: a fact that is not known yet makes `Maybe`, unless the expression has
//! the same value whatever the fact turns out to be. What cannot be evaluated for good (a
//! fact that does not exist, a key that is not there, a division by zero, too much work)
//! is `No` for a rule that lets through and `Yes` for every other.
//!
//! **Invariant**: an expression, however it was written and whatever it is asked about,
//! ends within `MAX_COST` steps and a bounded depth of calls.

mod check;
mod eval;
mod facts;
mod node;
mod scan;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::facts::Awaits;
use super::known::Known;
use super::rule::Tri;

use eval::{Eval, Short};
use node::Cond;

/// Bytes of one expression.
pub const MAX_CEL_BYTES: usize = 4096;
/// How deep parentheses, brackets, calls and operators may stand in one another.
pub const MAX_CEL_DEPTH: usize = 24;
/// How deep `exists`, `exists_one` and `all` may stand in one another.
pub const MAX_CEL_LOOPS: usize = 2;
/// Steps of one evaluation. A step is one operation, or 32 bytes of text looked at.
pub const MAX_CEL_COST: u32 = 20_000;
/// Bytes of a pattern of `matches`.
pub const MAX_CEL_PATTERN_BYTES: usize = 512;
/// Bytes that a pattern of `matches` may need once it is compiled.
pub const MAX_CEL_PATTERN_COMPILED_BYTES: usize = 64 * 1024;
/// Bytes of a text that is put together by an expression, or that a pattern is tried on.
pub const MAX_CEL_TEXT_BYTES: usize = 16 * 1024;

/// The stack on which policies are compiled. What `scan` lets through needs a small part of it;
/// the parser's frames are large where nothing is optimised.
pub(super) const STACK_BYTES: usize = 32 * 1024 * 1024;

/// What is wrong with an expression, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CelError {
    /// Bytes from the beginning of the expression.
    pub offset: usize,
    pub message: String,
    pub help: Option<String>,
}

impl CelError {
    fn new(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into(), help: None }
    }

    #[must_use]
    fn help(self, help: impl Into<String>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

/// An expression that loads.
#[derive(Debug, Clone)]
pub struct Expression {
    needs: Needs,
    /// Which part is asked first: if one is false, the others make no difference.
    first: usize,
    /// What stands between the outermost `&&`.
    parts: Vec<Cond>,
    /// How that was written.
    texts: Vec<Box<str>>,
}

/// What an expression looks at, of which there may be more than one reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    pub method: bool,
    pub path: bool,
    pub query: bool,
    pub headers: bool,
    /// Who the job is.
    pub identity: bool,
    /// How far that is known: only then it is seen whoever says it.
    pub assurance: bool,
    /// Whose API it is, of a request or of a tool call.
    pub provider: bool,
    /// Which model.
    pub model: bool,
    /// What detectors find.
    pub findings: bool,
    /// A tool call in the answer of a model.
    pub tool: bool,
    /// A block of code in its text.
    pub code: bool,
}

impl Needs {
    /// Anything that is known only of a request that was read.
    pub fn http(self) -> bool {
        let head = self.method || self.path || self.query || self.headers;
        head || self.provider || self.model || self.findings
    }

    /// What has to be known of the body of a request.
    pub fn body(self) -> Awaits {
        let request = !self.answer();
        Awaits { models: self.model && request, findings: self.findings && request }
    }

    /// Anything of the answer.
    pub fn answer(self) -> bool {
        self.tool || self.code
    }
}

/// One way in which a server may read a request.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reading {
    /// The method in capitals.
    pub upper: bool,
    /// The path without parameters of its segments.
    pub plain: bool,
    /// The query split at `;`, too.
    pub split: bool,
    /// Which of the models.
    pub model: usize,
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, CelError> {
        let pieces = scan::scan(text)?;
        let parser = cel::parser::Parser::new();
        // The parser is generated code that unwraps here and there.
        let parsed = catch_unwind(AssertUnwindSafe(|| parser.parse_with_source_info(text)))
            .map_err(|_| CelError::new(0, "this is no expression that can be read"))?;
        let (tree, source) = parsed.map_err(|errors| syntax(text, &errors))?;
        let (conds, needs) = check::check(text, &tree, &source)?;
        let (parts, texts) = if conds.len() == pieces.len() {
            (conds, pieces.into_iter().map(one_line).collect())
        } else {
            (vec![Cond::And(conds)], vec![one_line(text)])
        };
        // Most rules of a host are told apart by the path.
        let first = parts.iter().position(Cond::compares_path).unwrap_or_default();
        Ok(Self { needs, first, parts, texts })
    }

    pub fn needs(&self) -> Needs {
        self.needs
    }

    /// What every path begins with for which it can hold. That part is asked first: what the
    /// others cost, or that they fail, makes no difference.
    pub fn begins(&self) -> &str {
        self.parts.get(self.first).map_or("", Cond::path_begins)
    }

    /// Whether it holds for a rule that lets something through (`grants`), or for one
    /// that does not. A request that can be read in two ways is let through if it holds
    /// for both, and is refused if it holds for either.
    pub fn holds(&self, known: &Known<'_>, grants: bool) -> Tri {
        let tris = self.readings(known).map(|reading| {
            let mut eval = self.eval(known, reading);
            tri(self.parts(&mut eval), grants)
        });
        let worst = if grants { tris.min() } else { tris.max() };
        worst.unwrap_or(Tri::Maybe)
    }

    /// Whether it looks at who the job is, and nobody has said that so that it could be seen.
    pub fn misses_who(&self, known: &Known<'_>) -> bool {
        self.needs.identity && super::identity::seen(known.facts.identity, self.needs.assurance).is_err()
    }

    fn eval<'a>(&self, known: &'a Known<'a>, reading: Reading) -> Eval<'a> {
        Eval::new(known, reading, self.needs)
    }

    fn parts<'a>(&'a self, eval: &mut Eval<'a>) -> Result<bool, Short> {
        let (before, rest) = self.parts.split_at(self.first);
        let (first, after) = rest.split_at(rest.len().min(1));
        eval.all(first.iter().chain(before).chain(after))
    }

    /// Why it is not simply true: the part of it that is false, not known, or fails.
    pub fn why(&self, known: &Known<'_>, grants: bool) -> Option<String> {
        let wanted = self.holds(known, grants);
        let reading = self
            .readings(known)
            .find(|reading| tri(self.parts(&mut self.eval(known, *reading)), grants) == wanted)?;
        let told = |wanted: fn(&Result<bool, Short>) -> bool| {
            self.texts.iter().zip(&self.parts).find_map(|(text, cond)| {
                let value = self.eval(known, reading).cond(cond);
                wanted(&value).then_some((text, value))
            })
        };
        let (text, value) = told(|value| *value == Ok(false))
            .or_else(|| told(|value| matches!(value, Err(Short::Unknown(_)))))
            .or_else(|| told(|value| matches!(value, Err(Short::Failed(_)))))?;
        Some(match value {
            Ok(_) => format!("`{text}` is false"),
            Err(Short::Unknown(fact)) => format!("`{text}` needs `{fact}`, which is not known yet"),
            Err(Short::Failed(why)) => {
                let counts = if grants { "false for what lets through" } else { "true for what does not" };
                format!("`{text}` cannot be evaluated: {why}; that counts as {counts}")
            }
        })
    }

    /// At least one reading.
    fn readings(&self, known: &Known<'_>) -> impl Iterator<Item = Reading> {
        let ways = |differs: bool| [false, true].into_iter().take(1 + usize::from(differs));
        let upper = self.needs.method && known.upper.is_some();
        let plain = (self.needs.path || self.needs.provider) && known.plain.is_some();
        let split = self.needs.query && known.query_splits();
        let models = if self.needs.body().models { known.models() } else { 1 };
        ways(upper).flat_map(move |upper| {
            ways(plain).flat_map(move |plain| {
                ways(split).flat_map(move |split| {
                    (0..models).map(move |model| Reading { upper, plain, split, model })
                })
            })
        })
    }
}

fn tri(value: Result<bool, Short>, grants: bool) -> Tri {
    match value {
        Ok(holds) => holds.into(),
        Err(Short::Unknown(_)) => Tri::Maybe,
        Err(Short::Failed(_)) => (!grants).into(),
    }
}

/// The first thing that the parser did not understand.
fn syntax(text: &str, errors: &cel::ParseErrors) -> CelError {
    let Some(first) = errors.errors.first() else { return CelError::new(0, "this is no expression") };
    let (line, column) = first.pos;
    let line = usize::try_from(line).unwrap_or(1).max(1) - 1;
    let column = usize::try_from(column).unwrap_or(1).max(1) - 1;
    let before: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(before..).unwrap_or_default();
    let inside = rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at);
    let message = first.msg.strip_prefix("Syntax error: ").unwrap_or(&first.msg);
    let message: String = message.chars().take(200).collect();
    CelError::new((before + inside).min(text.len()), format!("the expression does not parse: {message}"))
        .help("as in `http.method in [\"GET\", \"HEAD\"] && http.path.startsWith(\"/v1/\")`")
}

fn one_line(text: &str) -> Box<str> {
    text.split_whitespace().collect::<Vec<_>>().join(" ").into()
}
