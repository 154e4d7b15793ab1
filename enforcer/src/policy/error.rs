//! What is wrong with policy files, and where.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use miette::{Diagnostic, NamedSource, SourceSpan};

/// One error at one place of one file.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{file}:{line}:{column}: {message}")]
pub struct Finding {
    pub file: String,
    pub line: u64,
    /// In characters, from 1.
    pub column: u64,
    pub message: String,
    #[help]
    pub help: Option<String>,
    #[source_code]
    text: NamedSource<Arc<str>>,
    #[label("here")]
    span: SourceSpan,
}

/// Why a policy does not load.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum PolicyError {
    #[error("the policy is invalid: {}", first(.findings))]
    Invalid {
        #[related]
        findings: Vec<Finding>,
    },
    #[error("cannot read {}", path.display())]
    #[diagnostic(help("the policy folder and its files must be readable by the enforcer"))]
    Read { path: PathBuf, source: io::Error },
    #[error("no policy file (*.yaml) in {}", path.display())]
    #[diagnostic(help("write one: everything is denied until then"))]
    Empty { path: PathBuf },
    #[error("more than {most} {what} in {}", path.display())]
    TooMany { path: PathBuf, what: &'static str, most: usize },
    #[error("no thread can be started to read the policy")]
    Thread { source: io::Error },
    #[error("reading the policy has failed in the enforcer itself")]
    #[diagnostic(help("this is a defect of the enforcer: report it, with the policy"))]
    Broken,
    #[error("cannot watch {}", path.display())]
    Watch { path: PathBuf, source: notify::Error },
}

impl PolicyError {
    pub fn findings(&self) -> &[Finding] {
        match self {
            PolicyError::Invalid { findings } => findings,
            _ => &[],
        }
    }
}

fn first(findings: &[Finding]) -> String {
    match findings {
        [] => "no detail".to_owned(),
        [one] => one.to_string(),
        [one, rest @ ..] => format!("{one} (and {} more)", rest.len()),
    }
}

/// Collects the errors of one file.
pub(super) struct Findings<'a> {
    file: &'a str,
    text: Arc<str>,
    pub list: Vec<Finding>,
}

impl<'a> Findings<'a> {
    pub fn new(file: &'a str, text: &str) -> Self {
        Self { file, text: text.into(), list: Vec::new() }
    }

    pub fn push(&mut self, at: &serde_saphyr::Location, message: impl Into<String>, help: Option<&str>) {
        let start = self.start_of(at);
        let length = at.span().byte_len().and_then(|length| usize::try_from(length).ok());
        self.add(start, length.unwrap_or(1), (at.line(), at.column()), message.into(), help);
    }

    /// The same for a place within a text: `offset` bytes from its beginning.
    pub fn push_within(
        &mut self,
        at: &serde_saphyr::Location,
        (text, offset): (&str, usize),
        message: impl Into<String>,
        help: Option<&str>,
    ) {
        let start = self.start_of(at);
        let found = start + within(&self.text[start..], text, offset);
        let before = &self.text[..found];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.add(found, 1, (count(line), count(column)), message.into(), help);
    }

    fn add(
        &mut self,
        start: usize,
        length: usize,
        (line, column): (u64, u64),
        message: String,
        help: Option<&str>,
    ) {
        // A mapping's span is long; its first line is enough to point at.
        let rest = self.text[start..].find('\n').unwrap_or(self.text.len() - start);
        let length = length.min(rest.max(1)).min(self.text.len() - start);
        self.list.push(Finding {
            file: self.file.to_owned(),
            line,
            column,
            message,
            help: help.map(str::to_owned),
            text: NamedSource::new(self.file, Arc::clone(&self.text)).with_language("yaml"),
            span: (start, length).into(),
        });
    }

    fn start_of(&self, at: &serde_saphyr::Location) -> usize {
        let start = at.span().byte_offset().and_then(|offset| usize::try_from(offset).ok());
        start.unwrap_or_else(|| self.offset_of(at)).min(self.text.len())
    }

    fn offset_of(&self, at: &serde_saphyr::Location) -> usize {
        let line = usize::try_from(at.line().max(1) - 1).unwrap_or(usize::MAX);
        let column = usize::try_from(at.column().max(1) - 1).unwrap_or(usize::MAX);
        let before: usize = self.text.split_inclusive('\n').take(line).map(str::len).sum();
        let rest = &self.text[before..];
        let inside = rest.char_indices().nth(column).map_or(rest.len(), |(index, _)| index);
        before + inside
    }
}

/// Where in a scalar's source the byte `offset` of its text stands. White space is folded
/// in YAML, quotes and some characters are escaped: what is no white space comes in the
/// same order in both.
fn within(source: &str, text: &str, offset: usize) -> usize {
    let visible = |(_, c): &(usize, char)| !c.is_whitespace();
    let mut source = source.char_indices();
    let mut last = 0;
    for (at, c) in text.char_indices().filter(visible) {
        let Some((found, _)) = source.find(|(_, other)| *other == c) else { break };
        last = found;
        if at >= offset {
            break;
        }
    }
    last
}
