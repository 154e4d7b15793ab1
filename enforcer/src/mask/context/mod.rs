//! Values without a form of their own that stand behind the name of a vendor or of a secret.
//!
//! A search for such names would stop at every second line, so it goes the other way round:
//! the scanner finds runs of token characters, and here it is asked what stands before them.

mod begins;
mod head;
mod label;
mod own;
mod value;
mod vendors;

use std::sync::OnceLock;

use self::{
    begins::Begins,
    head::{Head, NAME_AHEAD, NAME_MAX, credential_ends},
    label::{Join, Label},
    own::own,
    value::Form,
    vendors::{COMMON, GROUPS, OPEN},
};

/// How many bytes before a run are wanted.
pub(super) const LOOK_BEHIND: usize = 128;
/// The shortest run that is asked about.
pub(super) const RUN_MIN: usize = 12;
/// The longest that can be a secret.
pub(super) const RUN_MAX: usize = 1280;
/// Values without a vendor are at least this long, or digits of hex.
const GENERIC_MIN: usize = 20;
/// The least length of such digits.
const GENERIC_HEX_MIN: usize = 16;
/// And at most.
const GENERIC_MAX: usize = 256;

/// The rules that are known by what stands before a value, or by a whole run: with their
/// entities and sets.
pub(super) const RULES: [(&str, &str, &str); 5] = [
    ("vendor-credential", "VENDOR_CREDENTIAL", "secrets"),
    ("generic-credential", "GENERIC_CREDENTIAL", "secrets"),
    ("token-form", "TOKEN", "secrets"),
    ("bitcoin-address", "BTC_ADDRESS", "financial"),
    ("ethereum-address", "ETH_ADDRESS", "financial"),
];

/// What part of a run is a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ContextHit {
    /// Index into [`RULES`].
    pub(super) rule: u16,
    /// Offset of its first byte in the run.
    pub(super) from: usize,
    /// Offset of the byte behind it.
    pub(super) to: usize,
}

/// A vendor that was found in a label.
#[derive(Clone, Copy, Debug)]
struct Vendor {
    name: &'static str,
    common: bool,
    /// Some groups, or none for a vendor of many forms.
    groups: [u8; 4],
    count: u8,
}

/// The names of all vendors and the words for a credential.
#[derive(Debug)]
pub(super) struct Contexts {
    vendors: Vec<Vendor>,
    names: Names,
    words: Names,
    /// With which letters one of both begins.
    begins: Begins,
}

/// How many sets of three letters or digits there are.
const TRIPLES: usize = 36 * 36 * 36;
/// Names by their first three bytes.
#[derive(Debug)]
struct Names {
    /// By three bytes, where their names begin in `sorted`.
    heads: Vec<u16>,
    /// Indices of the names; in their order where three bytes are the same.
    sorted: Vec<u16>,
}

impl Names {
    fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut all: Vec<(usize, u16)> = Vec::new();
        for (index, name) in (0..).zip(names) {
            let name = name.as_bytes();
            let first = triple(name, 0);
            // Of a shorter name any byte may be the third.
            let thirds = if name.len() > 2 { first..first + 1 } else { first..first + 36 };
            all.extend(thirds.map(|triple| (triple, index)));
        }
        all.sort_unstable();
        let head = |triple| u16::try_from(all.partition_point(|(t, _)| *t < triple)).unwrap_or(u16::MAX);
        Self {
            heads: (0..=TRIPLES).map(head).collect(),
            sorted: all.iter().map(|(_, index)| *index).collect(),
        }
    }

    /// Which of them can stand in a text at an offset.
    fn at(&self, text: &[u8], at: usize) -> impl Iterator<Item = usize> {
        let triple = triple(text, at);
        let range = usize::from(self.heads[triple])..usize::from(self.heads[triple + 1]);
        self.sorted[range].iter().map(|index| usize::from(*index))
    }
}

/// A word for a credential in a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Word {
    /// Where it begins.
    from: usize,
    /// Where it ends.
    to: usize,
    /// Whether it can be nothing else.
    strong: bool,
}

/// Words for credentials; `key` and `auth` mean other things, too.
const WORDS: [(&str, bool); 24] = [
    ("apikey", true),
    ("apitoken", true),
    ("accesskey", true),
    ("accesstoken", true),
    ("authtoken", true),
    ("authkey", true),
    ("privatekey", true),
    ("secretkey", true),
    ("clientsecret", true),
    ("signingkey", true),
    ("encryptionkey", true),
    ("masterkey", true),
    ("password", true),
    ("passwd", true),
    ("passphrase", true),
    ("secret", true),
    ("token", true),
    ("credentials", true),
    ("credential", true),
    ("creds", true),
    ("auth", false),
    ("access", false),
    ("private", false),
    ("key", false),
];

/// What behind a word says that the value is something else: an id, a name, a place, a hash.
const NOT_VALUES: [&str; 40] = [
    "id",
    "ids",
    "name",
    "names",
    "url",
    "uri",
    "path",
    "file",
    "dir",
    "type",
    "kind",
    "length",
    "len",
    "size",
    "version",
    "hash",
    "checksum",
    "sha",
    "sha1",
    "sha256",
    "md5",
    "digest",
    "fingerprint",
    "thumbprint",
    "count",
    "limit",
    "expiry",
    "expires",
    "class",
    "field",
    "column",
    "header",
    "prefix",
    "suffix",
    "format",
    "endpoint",
    "host",
    "usage",
    "index",
    "label",
];

/// What before a word says that the value may be seen by all.
const PUBLIC: [&str; 16] = [
    "public",
    "pub",
    "csrf",
    "xsrf",
    "site",
    "primary",
    "foreign",
    "sort",
    "cache",
    "partition",
    "object",
    "bucket",
    "translation",
    "commit",
    "dedup",
    "idempotency",
];

/// What before `token` says that it only tells where to go on, or which request it was.
const CURSORS: [&str; 10] = [
    "next",
    "page",
    "pagination",
    "continuation",
    "change",
    "sync",
    "clientrequest",
    "clientidempotency",
    "lifecycleaction",
    "purchase",
];

impl Contexts {
    /// The tables, made once in the life of the process.
    pub(super) fn get() -> &'static Self {
        static CONTEXTS: OnceLock<Contexts> = OnceLock::new();
        CONTEXTS.get_or_init(Self::new)
    }

    fn new() -> Self {
        let mut vendors: Vec<Vendor> = Vec::new();
        let mut add = |name: &'static str, group: Option<u8>| {
            let at = vendors.iter().position(|v| v.name == name).unwrap_or_else(|| {
                let common = COMMON.split(' ').any(|c| c == name);
                vendors.push(Vendor { name, common, groups: [0; 4], count: 0 });
                vendors.len() - 1
            });
            let vendor = &mut vendors[at];
            if let (Some(group), Some(slot)) = (group, vendor.groups.get_mut(usize::from(vendor.count))) {
                *slot = group;
                vendor.count += 1;
            }
        };
        for (group, entry) in (0..).zip(GROUPS) {
            entry.names.split(' ').for_each(|name| add(name, Some(group)));
        }
        OPEN.split(' ').for_each(|name| add(name, None));
        let names = Names::of(vendors.iter().map(|vendor| vendor.name));
        let words = Names::of(WORDS.iter().map(|(word, _)| *word));
        let all = vendors.iter().map(|vendor| vendor.name).chain(WORDS.iter().map(|(word, _)| *word));
        let begins = Begins::of(all);
        Self { vendors, names, words, begins }
    }

    /// What part of a run is a secret: of the first `length` bytes of `text`, in which it may be
    /// seen what stands behind them. `before` are up to [`LOOK_BEHIND`] bytes before it.
    pub(super) fn judge(&self, before: &[u8], text: &[u8], length: usize) -> Option<ContextHit> {
        let (run, after) = text.split_at(length);
        let head = Head::of(text, length);
        if length > RUN_MAX || !head.plausible() {
            return None;
        }
        if let Some((form, from, to)) = own(run, head.equals()) {
            // Letters before the first digit may be out: see `hold`.
            let from = from.max(run.iter().position(u8::is_ascii_digit).unwrap_or(0)).min(to);
            return Some(ContextHit { rule: 2 + form, from, to });
        }
        // A call, or the name of a type.
        if after.first().is_some_and(|b| matches!(b, b'(' | b'{' | b'<')) {
            return None;
        }
        let before = &before[before.len().saturating_sub(LOOK_BEHIND)..];
        let to = run.len() - dots(run);
        for from in head.starts().filter(|from| *from < to) {
            let wanted = |line: &[u8]| self.begins.in_line(line);
            let label = match from {
                0 => Label::read(before, wanted),
                _ => {
                    let mut all = [0_u8; LOOK_BEHIND + NAME_MAX];
                    all[..before.len()].copy_from_slice(before);
                    all[before.len()..before.len() + from].copy_from_slice(&run[..from]);
                    Label::read(&all[..before.len() + from], wanted)
                }
            };
            let Some(label) = label else { continue };
            if let Some(rule) = self.weigh(&label, &run[from..to]) {
                return Some(ContextHit { rule, from, to });
            }
        }
        None
    }

    /// From which of its bytes on a run that `expects` has to wait: where a value begins that a
    /// name stands before, or the first digit of one that stands for itself.
    pub(super) fn hold(&self, before: &[u8], begun: &[u8]) -> Option<usize> {
        if self.is_named(before) {
            return Some(0);
        }
        let head = &begun[..begun.len().min(NAME_MAX)];
        let named = head.iter().enumerate().find_map(|(at, byte)| match byte {
            b'=' => Some(at + 1),
            b'-' | b'_' | b'.' if credential_ends(&head[..at]) => Some(at + 1),
            _ => None,
        });
        let digit = begun.iter().position(u8::is_ascii_digit);
        named.into_iter().chain(digit).min()
    }

    /// Whether a run behind `before` that so far reads `begun` could be a secret: true for every
    /// beginning of a run in which `judge` finds one.
    pub(super) fn expects(&self, before: &[u8], begun: &[u8]) -> bool {
        begun.len() <= own::LONGEST.max(NAME_MAX + NAME_AHEAD)
            || own::goes_on(begun)
            || self.is_named(before)
            || Head::of(begun, begun.len()).starts().any(|from| from > 0)
    }

    /// Whether `judge` would look at a label here.
    fn is_named(&self, before: &[u8]) -> bool {
        Label::read(before, |line| self.begins.in_line(line)).is_some()
    }

    /// The rule by which a value behind a label is a secret.
    fn weigh(&self, label: &Label, value: &[u8]) -> Option<u16> {
        let word = self.word(label);
        if word.is_some_and(|word| of_site(label, word)) {
            return None;
        }
        if let Some((vendor, end)) = self.vendor(label) {
            let word = word.filter(|w| w.to > end || w.strong);
            if self.of_vendor(*vendor, word.is_some(), label.join, value) {
                return Some(0);
            }
            // A vendor whose values are digits of hex has no others.
            let groups = &vendor.groups[..usize::from(vendor.count)];
            if !groups.is_empty() && groups.iter().all(|g| GROUPS[usize::from(*g)].form == Form::Hex) {
                return None;
            }
        }
        let word = word?;
        generic(label, word, value).then_some(1)
    }

    /// The last word for a credential in a label; of those that end alike the longest.
    fn word(&self, label: &Label) -> Option<Word> {
        let text = label.text();
        let mut best: Option<Word> = None;
        for from in 0..text.len() {
            for index in self.words.at(text, from) {
                let (word, strong) = WORDS[index];
                let to = from + word.len();
                if text[from..].starts_with(word.as_bytes()) && best.is_none_or(|best| to > best.to) {
                    best = Some(Word { from, to, strong });
                }
            }
        }
        best
    }

    /// The vendor that is named last, and where its name ends.
    fn vendor(&self, label: &Label) -> Option<(&Vendor, usize)> {
        let text = label.text();
        for at in (0..text.len().saturating_sub(1)).rev() {
            for index in self.names.at(text, at) {
                let vendor = &self.vendors[index];
                let name = vendor.name.as_bytes();
                if !text[at..].starts_with(name) {
                    continue;
                }
                let end = at + name.len();
                let word = || WORDS.iter().any(|(word, _)| text[end..].starts_with(word.as_bytes()));
                let whole = label.begins(at) && (label.begins(end) || word());
                if whole || (!vendor.common && name.len() >= 7) {
                    return Some((vendor, end));
                }
            }
        }
        None
    }

    fn of_vendor(&self, vendor: Vendor, word: bool, join: Join, value: &[u8]) -> bool {
        if !value::real(value) || wordy(value) {
            return false;
        }
        let groups = &vendor.groups[..usize::from(vendor.count)];
        let fits = groups.iter().any(|group| {
            let group = &GROUPS[usize::from(*group)];
            let more = match (vendor.common, word) {
                (false, true) => group.max,
                (true, true) => 8,
                _ => 2,
            };
            (group.min..=group.max + more).contains(&value.len()) && group.form.holds(value)
        });
        let mixed = value::mixed(value);
        if fits
            && (word || (join == Join::Operator && (mixed || !vendor.common)) || (!vendor.common && mixed))
            && (word || !constant(value))
        {
            return true;
        }
        groups.is_empty() && word && value.len() >= 16 && value::random(value, 3.0)
    }
}

/// How many dots end a run: up to three are the end of a sentence.
fn dots(run: &[u8]) -> usize {
    run.iter().rev().take(3).take_while(|b| **b == b'.').count()
}

/// The number of the three bytes at an offset; what is not there counts as the first letter.
fn triple(text: &[u8], at: usize) -> usize {
    let code = |at: usize| text.get(at).map_or(0, |b| code(*b));
    (code(at) * 36 + code(at + 1)) * 36 + code(at + 2)
}

/// The number of a small letter or a digit, below 36.
fn code(byte: u8) -> usize {
    const CODES: [u8; 256] = {
        let mut codes = [0; 256];
        let mut index = 0;
        while index < 36 {
            let byte = if index < 26 { b'a' + index } else { b'0' + index - 26 };
            codes[byte as usize] = index;
            index += 1;
        }
        codes
    };
    usize::from(CODES[usize::from(byte)])
}

/// Whether it is the key of a site, which stands in each of its pages.
fn of_site(label: &Label, word: Word) -> bool {
    label.text()[..word.from].ends_with(b"site")
}

/// Whether it is a token of pages or of requests.
fn goes_on(label: &Label, word: Word) -> bool {
    let before = &label.text()[..word.from];
    label.text()[word.from..].starts_with(b"token")
        && CURSORS.iter().any(|no| before.ends_with(no.as_bytes()) && label.begins(before.len() - no.len()))
}

/// Whether a value without a vendor is a secret.
fn generic(label: &Label, word: Word, value: &[u8]) -> bool {
    let hex = value::hex(value);
    let min = if hex { GENERIC_HEX_MIN } else { GENERIC_MIN };
    if label.join != Join::Operator || label.minified || !(min..=GENERIC_MAX).contains(&value.len()) {
        return false;
    }
    let text = label.text();
    let (before, behind) = (&text[..word.from], &text[word.to..]);
    let auth = !word.strong && behind.is_empty() && text.ends_with(b"auth") && value.len() >= 32;
    if !(word.strong || auth) || behind.len() > 12 || !label.begins(word.to) {
        return false;
    }
    if NOT_VALUES.iter().any(|no| behind.starts_with(no.as_bytes())) {
        return false;
    }
    if PUBLIC.iter().any(|no| before.ends_with(no.as_bytes())) || goes_on(label, word) {
        return false;
    }
    if !value::real(value) || wordy(value) {
        return false;
    }
    if value::uuid(value) {
        return behind.is_empty() && !before.ends_with(b"client");
    }
    let bits = match value.len() {
        _ if !hex => 3.5,
        0..24 => 2.75,
        _ => 3.0,
    };
    value::random(value, bits) || value::dense(value)
}

/// Whether a value is the name of a constant.
fn constant(value: &[u8]) -> bool {
    value.contains(&b'_') && value.iter().all(|b| b.is_ascii_uppercase() || *b == b'_')
}

/// Whether a value reads like names, a path or a call.
fn wordy(value: &[u8]) -> bool {
    let slashes = value.iter().filter(|b| **b == b'/').count();
    value.starts_with(b"/") || value.starts_with(b"./") || slashes * 10 > value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(before: &str, run: &str) -> Option<(u16, String)> {
        let hit = Contexts::get().judge(before.as_bytes(), format!("{run}\"").as_bytes(), run.len())?;
        Some((hit.rule, run[hit.from..hit.to].to_owned()))
    }

    #[test]
    fn a_vendor_or_a_word_makes_a_value_a_secret() {
        let value = ["Zf3D0LXCM3EIMbgJ", "pUNnkRtOfOueHznB"].concat();
        for before in
            ["api_token = \"", "\"clientSecret\": \"", "<password>\n  ", "setProperty(\"API_KEY\", \""]
        {
            assert_eq!(judge(before, &value), Some((1, value.clone())), "{before}");
        }
        assert_eq!(judge("adafruit: ", &value), Some((0, value.clone())));
        assert_eq!(judge("", &format!("x_api_key={value}")), Some((1, value.clone())));
        for before in ["public_key = \"", "token_id = \"", "checksum: ", "name = \"", "", "token == \""] {
            assert_eq!(judge(before, &value), None, "{before}");
        }
        assert_eq!(judge("api_token = \"", "some-ordinary-words-2"), None);
        assert_eq!(judge("api_token = \"", "xxxxxxxxxxxxxxxxxxxx1"), None);
    }

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config { cases: 400, failure_persistence: None, ..Default::default() })]
        #[test]
        fn what_is_found_in_a_run_was_expected_at_every_cut(
            before in proptest::sample::select(vec!["", "token: ", "adafruit_key = \"", "x ", "<apiKey>\n "]),
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "eyJrIjoi", "a1B2c3D4e5F6g7H8i9J0", "0123456789abcdef0123", "=", ".", "-", "_", "token", "key", "abc8Q~",
                "pat", "-us12", "_mmk", "....", "ABCD", "asana",
            ]), 1..40),
        ) {
            let run = parts.concat();
            let contexts = Contexts::get();
            let text = format!("{run} ");
            let hit = Some(&run).filter(|run| run.len() >= RUN_MIN);
            if let Some(hit) = hit.and_then(|run| contexts.judge(before.as_bytes(), text.as_bytes(), run.len())) {
                for cut in 0..=run.len() {
                    let begun = &run.as_bytes()[..cut];
                    proptest::prop_assert!(contexts.expects(before.as_bytes(), begun), "{} {} {}", before, run, cut);
                    // And nothing of it is out by then.
                    let hold = contexts.hold(before.as_bytes(), begun).unwrap_or(cut);
                    proptest::prop_assert!(hold <= hit.from || cut <= hit.from, "{} {} {}: {:?}", before, run, cut, hold);
                }
            }
        }
    }
}
