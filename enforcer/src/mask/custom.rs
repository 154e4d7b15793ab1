//! Detectors of an operator's own, as they stand in YAML, each with its tests beside it.
//!
//! **Invariant**: a detector loads only if its pattern is bounded, each of its examples is found
//! and none of its counter-examples is.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use miette::{Diagnostic, NamedSource, SourceSpan};
use serde::Deserialize;
use serde_saphyr::{Location, Spanned};

use super::{
    byteset::ByteSet,
    check::Check,
    masker::Masker,
    rule::{CHECKS_MAX, Detector, Rule},
    selection::{SET_EXACT, SET_SECRETS},
};

/// Detectors of an operator's own, in all files together.
pub const CUSTOM_MAX: usize = 500;
/// Bytes of one file of detectors.
pub const CUSTOM_FILE_MAX_BYTES: usize = 1024 * 1024;
/// Examples, counter-examples or allowed values of one detector, each.
pub const CUSTOM_TEXTS_MAX: usize = 100;
/// Bytes of a name: of a rule, an entity or a set.
const NAME_MAX_BYTES: usize = 64;

/// What is wrong with a detector, and where.
#[derive(Debug, Clone, thiserror::Error, Diagnostic)]
#[error("{file}:{line}: {message}")]
pub struct CustomError {
    /// The file's name.
    pub file: String,
    /// The line, from one.
    pub line: u64,
    /// What is wrong.
    pub message: String,
    #[source_code]
    text: NamedSource<String>,
    #[label("here")]
    span: SourceSpan,
}

/// Everything that is wrong with the files of detectors.
#[derive(Debug, thiserror::Error, Diagnostic)]
#[error("detectors do not load: {}", .errors.first().map(ToString::to_string).unwrap_or_default())]
pub struct CustomErrors {
    /// Each error.
    #[related]
    pub errors: Vec<CustomError>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: Spanned<u32>,
    detectors: Vec<Spanned<Source>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    id: Spanned<String>,
    entity: Spanned<String>,
    set: Option<Spanned<String>>,
    pattern: Spanned<String>,
    confidence: Option<Spanned<f32>>,
    #[serde(default)]
    checks: Vec<Spanned<String>>,
    not_after: Option<Spanned<String>>,
    not_before: Option<Spanned<String>>,
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    examples: Vec<Spanned<String>>,
    #[serde(default)]
    counter_examples: Vec<Spanned<String>>,
}

/// Detectors that are checked and can be installed.
#[derive(Debug, Default)]
pub struct Custom(Vec<Detector>);

static INSTALLED: OnceLock<Vec<Detector>> = OnceLock::new();

/// Those that were installed.
pub(super) fn installed() -> impl Iterator<Item = &'static Detector> {
    INSTALLED.get().into_iter().flatten()
}

impl Custom {
    /// Reads and tests the detectors of files, given by name and text.
    pub fn load(files: &[(String, String)]) -> Result<Self, CustomErrors> {
        let mut loader = Loader::default();
        for (name, text) in files {
            loader.file(name, text);
        }
        if loader.errors.is_empty() {
            Ok(Self(loader.detectors))
        } else {
            Err(CustomErrors { errors: loader.errors })
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts them into force beside the built-in ones, for the rest of this process's life. It has
    /// to be done before anything is masked or a policy is read; says whether it was.
    #[must_use]
    pub fn install(self) -> bool {
        INSTALLED.set(self.0).is_ok()
    }
}

#[derive(Default)]
struct Loader {
    detectors: Vec<Detector>,
    ids: BTreeSet<String>,
    errors: Vec<CustomError>,
}

/// The file that is being read.
#[derive(Clone, Copy)]
struct Open<'a> {
    name: &'a str,
    text: &'a str,
}

impl Loader {
    fn file(&mut self, name: &str, text: &str) {
        let open = Open { name, text };
        if text.len() > CUSTOM_FILE_MAX_BYTES {
            return self.wrong(
                open,
                &Location::UNKNOWN,
                format!("the file has more than {CUSTOM_FILE_MAX_BYTES} bytes"),
            );
        }
        let mut options = serde_saphyr::Options::default();
        options.with_snippet = false;
        let file: File = match serde_saphyr::from_str_with_options(text, options) {
            Ok(file) => file,
            Err(error) => {
                let at = error.location().unwrap_or(Location::UNKNOWN);
                let formatter = serde_saphyr::UserMessageFormatter;
                let mut render = serde_saphyr::RenderOptions::new(&formatter);
                render.snippets = serde_saphyr::SnippetMode::Off;
                return self.wrong(open, &at, error.without_snippet().render_with_options(render));
            }
        };
        if file.version.value != 1 {
            self.wrong(
                open,
                &file.version.referenced,
                "this is no version of the format: write `version: 1`",
            );
        }
        for source in &file.detectors {
            if self.ids.len() >= CUSTOM_MAX {
                return self.wrong(
                    open,
                    &source.referenced,
                    format!("there are more than {CUSTOM_MAX} detectors"),
                );
            }
            self.detector(open, &source.referenced, &source.value);
        }
    }

    fn wrong(&mut self, open: Open<'_>, at: &Location, message: impl Into<String>) {
        let line = at.line().max(1);
        let before = usize::try_from(line - 1).unwrap_or(usize::MAX);
        let start: usize = open.text.split_inclusive('\n').take(before).map(str::len).sum();
        let length = open.text[start..].lines().next().map_or(0, str::len);
        self.errors.push(CustomError {
            file: open.name.to_owned(),
            line,
            message: message.into(),
            text: NamedSource::new(open.name, open.text.to_owned()),
            span: (start, length).into(),
        });
    }

    fn detector(&mut self, open: Open<'_>, at: &Location, source: &Source) {
        let errors = self.errors.len();
        self.names(open, source);
        let mut detector = Detector::new(
            Cow::Owned(source.id.value.clone()),
            Cow::Owned(source.entity.value.clone()),
            Cow::Owned(source.set.as_ref().map_or(SET_SECRETS, |set| &set.value).to_owned()),
            Cow::Owned(source.pattern.value.clone()),
        );
        if let Some(confidence) = &source.confidence {
            if !(0.0..=1.0).contains(&confidence.value) {
                self.wrong(open, &confidence.referenced, "a confidence is a number from 0 to 1");
            }
            detector = detector.sure(confidence.value);
        }
        for (class, slot) in
            [(&source.not_after, &mut detector.not_after), (&source.not_before, &mut detector.not_before)]
        {
            let Some(class) = class else { continue };
            *slot = class_of(&class.value);
            if slot.is_none() {
                let message =
                    format!("`{}` is no class: use digit, letter, alnum, word, token or base64", class.value);
                self.wrong(open, &class.referenced, message);
            }
        }
        if source.checks.len() > CHECKS_MAX {
            return self.wrong(open, at, format!("a detector has at most {CHECKS_MAX} checks"));
        }
        for check in &source.checks {
            match Check::parse(&check.value) {
                Some(parsed) => detector = detector.check(parsed),
                None => {
                    let message = format!(
                        "`{}` is no check: use random, digit, letter, real, luhn, mod97, basic or entropy:BITS",
                        check.value
                    );
                    self.wrong(open, &check.referenced, message);
                }
            }
        }
        detector.allow = source.allow.iter().map(|value| value.value.clone().into_bytes()).collect();
        if self.errors.len() == errors {
            self.try_out(open, at, source, &detector);
        }
        if self.errors.len() == errors {
            self.detectors.push(detector);
        }
    }

    fn names(&mut self, open: Open<'_>, source: &Source) {
        let lower = |text: &str| {
            let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
            text.starts_with(|c: char| c.is_ascii_lowercase())
                && text.bytes().all(fine)
                && text.len() <= NAME_MAX_BYTES
        };
        let id = &source.id;
        if !lower(&id.value) {
            self.wrong(
                open,
                &id.referenced,
                "an id has lower-case letters, digits and dashes: acme-deploy-token",
            );
        }
        let known = super::selection::all_names().any(|(rule, _, _)| rule == id.value);
        if known || !self.ids.insert(id.value.clone()) {
            self.wrong(open, &id.referenced, format!("another detector has the id `{}`", id.value));
        }
        let entity = &source.entity.value;
        let upper = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let begins = entity.starts_with(|c: char| c.is_ascii_uppercase());
        if !begins || !entity.bytes().all(upper) || entity.len() > NAME_MAX_BYTES {
            self.wrong(
                open,
                &source.entity.referenced,
                "an entity is written in capitals: ACME_DEPLOY_TOKEN",
            );
        }
        if let Some(set) = &source.set
            && (!lower(&set.value) || ["all", SET_EXACT].contains(&set.value.as_str()))
        {
            let message = "a set has lower-case letters, digits and dashes, and is neither `all` nor `exact`";
            self.wrong(open, &set.referenced, message);
        }
    }

    /// Compiles a detector and runs its tests.
    fn try_out(&mut self, open: Open<'_>, at: &Location, source: &Source, detector: &Detector) {
        for (texts, what) in [(&source.examples, "examples"), (&source.counter_examples, "counter_examples")]
        {
            if texts.is_empty() {
                let why = if what == "examples" { "must be masked" } else { "look like it and must stay" };
                self.wrong(open, at, format!("`{what}` is missing: write texts that {why}"));
            }
        }
        if [&source.examples, &source.counter_examples, &source.allow]
            .iter()
            .any(|t| t.len() > CUSTOM_TEXTS_MAX)
        {
            return self.wrong(
                open,
                at,
                format!("a detector has at most {CUSTOM_TEXTS_MAX} texts of a kind"),
            );
        }
        let masker = match Rule::compile(detector).map(|rule| Masker::of_rule(Arc::new(rule))) {
            Ok(masker) => masker,
            Err(error) => return self.wrong(open, &source.pattern.referenced, error.to_string()),
        };
        let finds = |text: &str| masker.mask(text.as_bytes()).1.total() > 0;
        for example in source.examples.iter().filter(|example| !finds(&example.value)) {
            self.wrong(open, &example.referenced, format!("`{}` does not find this example", detector.rule));
        }
        for counter in source.counter_examples.iter().filter(|counter| finds(&counter.value)) {
            self.wrong(open, &counter.referenced, format!("`{}` finds this counter-example", detector.rule));
        }
    }
}

fn class_of(name: &str) -> Option<ByteSet> {
    Some(match name {
        "digit" => ByteSet::DIGIT,
        "letter" => ByteSet::LETTER,
        "alnum" => ByteSet::ALNUM,
        "word" => ByteSet::WORD,
        "token" => ByteSet::TOKEN,
        "base64" => ByteSet::BASE64,
        _ => return None,
    })
}
