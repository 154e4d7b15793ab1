//! Globs over host names and over slash-separated texts.
//!
//! Both are anchored at both ends and linear in the text, whatever the pattern.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;

use super::cidr::{Cidr, CidrError};

/// Bytes of one glob.
pub const MAX_GLOB_BYTES: usize = 512;
/// Bytes of a host name (RFC 1035).
pub const MAX_HOST_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// Why a glob does not load.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("the glob is empty")]
    Empty,
    #[error("the glob is longer than {MAX_GLOB_BYTES} bytes")]
    TooLong,
    #[error("{0:?} has no meaning in a glob: only * and ** do")]
    Character(char),
    #[error("more than two asterisks in a row")]
    Asterisks,
    #[error("a path begins with / (or with **)")]
    PathStart,
    #[error("a canonical path never holds {0:?}")]
    PathNotCanonical(&'static str),
    #[error("* and ** stand only as the first label of a host: *.example.com, **.example.com")]
    HostWildcard,
    #[error("not a host name; write international names as A-labels (xn--...)")]
    HostName,
    #[error("an address in a form that no canonical host has: {0}")]
    Address(CidrError),
    #[error("the glob cannot be compiled")]
    Compile,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum HostPattern {
    Exact(Box<str>),
    /// `*.x`: the suffix with its dot; one label before it.
    OneLabel(Box<str>),
    /// `**.x`: the suffix with its dot; one label or more before it.
    Labels(Box<str>),
    Network(Cidr),
}

/// A host: exact, `*.` and a suffix, `**.` and a suffix, or an address or
/// network. Names never match addresses, nor addresses names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostGlob {
    text: Box<str>,
    pattern: HostPattern,
}

/// What one can look a glob up by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key<'a> {
    Exact(&'a str),
    /// With its dot; some label stands before it.
    Suffix(&'a str),
    Address(IpAddr),
    Network,
}

/// A host fact in the form that globs match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host<'a> {
    Name(&'a str),
    Address(IpAddr),
}

impl<'a> Host<'a> {
    /// `None` when the text is not canonical: then no rule may be trusted to
    /// match it, or to miss it.
    pub fn parse(text: &'a str) -> Option<Self> {
        let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Some(Host::Address(address.to_canonical()));
        }
        (is_name(text) && !text.bytes().any(|b| b.is_ascii_uppercase())).then_some(Host::Name(text))
    }
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_LABEL_BYTES
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label that begins with a digit is an address in one of the odd
    // forms that resolvers accept (127.1, 0x7f.1, 2130706433).
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_HOST_BYTES
        && text.split('.').all(label)
        && !last.starts_with(|c: char| c.is_ascii_digit())
}

impl HostGlob {
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > MAX_GLOB_BYTES {
            return Err(GlobError::TooLong);
        }
        match text.parse::<Cidr>() {
            Ok(cidr) => {
                return Ok(Self { text: text.into(), pattern: HostPattern::Network(cidr) });
            }
            Err(CidrError::Syntax) => {}
            Err(error) => return Err(GlobError::Address(error)),
        }
        let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let (suffix, wild): (&str, fn(Box<str>) -> HostPattern) =
            if let Some(suffix) = lower.strip_prefix("**.") {
                (suffix, HostPattern::Labels)
            } else if let Some(suffix) = lower.strip_prefix("*.") {
                (suffix, HostPattern::OneLabel)
            } else {
                (&lower, HostPattern::Exact)
            };
        if suffix.contains('*') {
            return Err(GlobError::HostWildcard);
        }
        if !is_name(suffix) {
            return Err(GlobError::HostName);
        }
        let start = if suffix.len() == lower.len() { 0 } else { lower.len() - suffix.len() - 1 };
        Ok(Self { pattern: wild(lower[start..].into()), text: lower.as_str().into() })
    }

    pub(super) fn key(&self) -> Key<'_> {
        match &self.pattern {
            HostPattern::Exact(name) => Key::Exact(name),
            HostPattern::OneLabel(suffix) | HostPattern::Labels(suffix) => Key::Suffix(suffix),
            HostPattern::Network(cidr) => cidr.only().map_or(Key::Network, Key::Address),
        }
    }

    pub fn matches(&self, host: Host<'_>) -> bool {
        match (&self.pattern, host) {
            (HostPattern::Network(cidr), Host::Address(address)) => cidr.contains(address),
            (HostPattern::Exact(name), Host::Name(host)) => **name == *host,
            (HostPattern::OneLabel(suffix), Host::Name(host)) => {
                host.strip_suffix(&**suffix).is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
            (HostPattern::Labels(suffix), Host::Name(host)) => {
                host.strip_suffix(&**suffix).is_some_and(|labels| !labels.is_empty())
            }
            _ => false,
        }
    }
}

impl fmt::Display for HostGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[derive(Debug, Clone)]
enum TextPattern {
    Exact,
    /// A literal followed by `**`; the length of the literal.
    Prefix(usize),
    Regex(regex::bytes::Regex),
}

/// `*` stands for any characters but `/`, `**` for any characters.
#[derive(Debug, Clone)]
pub struct TextGlob {
    text: Box<str>,
    pattern: TextPattern,
}

impl TextGlob {
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.is_empty() {
            return Err(GlobError::Empty);
        }
        if text.len() > MAX_GLOB_BYTES {
            return Err(GlobError::TooLong);
        }
        if let Some(c) = text.chars().find(|c| matches!(c, '?' | '[' | ']' | '{' | '}' | '\\')) {
            return Err(GlobError::Character(c));
        }
        if text.contains("***") {
            return Err(GlobError::Asterisks);
        }
        let pattern = match text.find('*') {
            None => TextPattern::Exact,
            Some(at) if &text[at..] == "**" => TextPattern::Prefix(at),
            Some(_) => {
                let source = regex::escape(text).replace(r"\*\*", "(?:.|\\n)*").replace(r"\*", "[^/]*");
                let built = regex::bytes::RegexBuilder::new(&format!(r"\A(?:{source})\z"))
                    .unicode(false)
                    .dot_matches_new_line(true)
                    .build();
                TextPattern::Regex(built.map_err(|_| GlobError::Compile)?)
            }
        };
        Ok(Self { text: text.into(), pattern })
    }

    /// A glob over canonical paths.
    pub fn parse_path(text: &str) -> Result<Self, GlobError> {
        let glob = Self::parse(&undelimited(text))?;
        if !text.starts_with('/') && !text.starts_with("**") {
            return Err(GlobError::PathStart);
        }
        let not_canonical = ["//", "/./", "/../", "#", "\\"]
            .into_iter()
            .find(|part| text.contains(part))
            .or_else(|| ["/.", "/.."].into_iter().find(|end| text.ends_with(end)));
        match not_canonical {
            Some(part) => Err(GlobError::PathNotCanonical(part)),
            None => Ok(glob),
        }
    }

    /// What every text begins with that it matches.
    pub(super) fn begins(&self) -> &str {
        self.text.split('*').next().unwrap_or_default()
    }

    pub fn matches(&self, text: &str) -> bool {
        match &self.pattern {
            TextPattern::Exact => *self.text == *text,
            TextPattern::Prefix(length) => text.as_bytes().starts_with(&self.text.as_bytes()[..*length]),
            TextPattern::Regex(regex) => regex.is_match(text.as_bytes()),
        }
    }
}

/// A path in which delimiters stand as they are, escaped or not (RFC 3986, 2.2): most
/// servers read both as the same. An asterisk would mean something else in a glob.
pub(super) fn undelimited(path: &str) -> Cow<'_, str> {
    const DELIMITERS: &[u8] = b":@!$&'()+,=";
    if !path.contains('%') {
        return Cow::Borrowed(path);
    }
    let mut out = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let meant = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match meant.filter(|byte| DELIMITERS.contains(byte)) {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                out.push('%');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

impl fmt::Display for TextGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
