//! A run that is decoded: base64, hex or base32, and gzip in these.
//!
//! What is found in the decoded bytes is a range of whole groups of digits (three bytes are
//! four digits of base64), and its placeholder is coded in the same way with as many bytes
//! around it as share its groups: what decodes the run finds the placeholder in it.

use std::io::Read as _;

use super::{
    error::MaskError,
    filter::Target,
    level::{Budget, Level, grow, tidy_bytes},
    map::Map,
    norm::Esc,
    scan::{Found, View},
};

/// How much of the beginning of a run has to look decoded: as much as the shortest value has.
const LOOK_BYTES: usize = super::exact::EXACT_MIN_BYTES;
/// A run that holds something compressed may have this many digits.
const ZIPPED_MAX_DIGITS: u64 = 256 * 1024;
/// A line of digits that is broken (MIME: 76, PEM: 64) has at least this many.
const LINE_MIN_DIGITS: u64 = 40;
/// So far lines may be indented, in bytes.
const INDENT_MAX_BYTES: usize = 16;

/// How bytes are written as digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Coding {
    /// RFC 4648, sections 4 and 5.
    Base64,
    /// RFC 4648, section 8, in either case.
    Hex,
    /// RFC 4648, section 6.
    Base32,
}

/// Whether something coded begins here.
pub(super) enum Start {
    No,
    Yes,
    /// It depends on what follows.
    Unknown,
}

impl Coding {
    pub(super) const ALL: [Self; 3] = [Self::Base64, Self::Hex, Self::Base32];

    /// Bits of a digit.
    const fn bits(self) -> u32 {
        match self {
            Self::Base64 => 6,
            Self::Hex => 4,
            Self::Base32 => 5,
        }
    }

    /// Digits and bytes of a group.
    fn group(self) -> (usize, usize) {
        match self {
            Self::Base64 => (4, 3),
            Self::Hex => (2, 1),
            Self::Base32 => (8, 5),
        }
    }

    /// So many bytes at its beginning always stay: a word does not wait because it could be
    /// one in base64. Values that are known wait by themselves.
    fn free(self) -> u64 {
        match self {
            Self::Base64 => 3,
            Self::Hex => 4,
            Self::Base32 => 5,
        }
    }

    /// The digits of these bytes.
    pub(super) fn free_digits(self) -> usize {
        let (digits, bytes) = self.group();
        usize::try_from(self.free()).unwrap_or(0) / bytes * digits
    }

    /// What a digit stands for.
    pub(super) fn value(self, digit: u8) -> Option<u8> {
        static VALUES: [[u8; 256]; 3] = [values(Coding::Base64), values(Coding::Hex), values(Coding::Base32)];
        let value = VALUES[self as usize][usize::from(digit)];
        (value != NO_DIGIT).then_some(value)
    }

    /// The digits of some bytes, like those of `sample`.
    fn encode(self, bytes: &[u8], sample: &[u8]) -> Vec<u8> {
        use base64::Engine as _;
        match self {
            Self::Base64 if sample.iter().any(|b| matches!(b, b'-' | b'_')) => {
                base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into_bytes()
            }
            Self::Base64 => base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes).into_bytes(),
            Self::Hex => bytes.iter().flat_map(|b| format!("{b:02x}").into_bytes()).collect(),
            Self::Base32 => base32(bytes),
        }
    }

    /// What stands in place of digits that begin `alignment` bytes behind the beginning of a
    /// group: the same digits of this text, between digits that fill the groups around it.
    pub(super) fn stand_in(self, text: &[u8], alignment: usize, replaced: &[u8]) -> Vec<u8> {
        let (digits, bytes) = self.group();
        let first = alignment * 8 / self.bits() as usize + usize::from(alignment > 0);
        let mut padded = text.to_vec();
        padded.resize(text.len().next_multiple_of(bytes), b'*');
        let mut out = vec![b'A'; (digits - first) % digits];
        out.extend(self.encode(&padded, replaced));
        out.resize(out.len() + (first + replaced.len()) % digits, b'A');
        out
    }

    /// Decodes whole digits; bits that are left over are dropped.
    fn decode(self, digits: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; digits.len()];
        let count = self.decode_to(digits, &mut bytes);
        bytes.truncate(count);
        bytes
    }

    /// The same into a buffer that is large enough; gives how many bytes there are.
    fn decode_to(self, digits: &[u8], bytes: &mut [u8]) -> usize {
        let (mut sum, mut bits, mut count) = (0_u32, 0, 0);
        for value in digits.iter().map_while(|digit| self.value(*digit)) {
            sum = (sum & 0xff) << self.bits() | u32::from(value);
            bits += self.bits();
            if bits >= 8 {
                bits -= 8;
                if let Some(byte) = bytes.get_mut(count) {
                    *byte = u8::try_from(sum >> bits & 0xff).unwrap_or(0);
                    count += 1;
                }
            }
        }
        count
    }

    /// How many digits have to look decoded.
    pub(super) const fn wanted(self) -> usize {
        (LOOK_BYTES * 8).div_ceil(self.bits() as usize)
    }

    /// The least of these.
    pub(super) const SHORTEST: usize = Self::Base64.wanted();

    /// Whether these digits, of a run that ends here or is `open`, begin something that was
    /// text, or compressed.
    pub(super) fn start(self, run: &[u8], open: bool) -> Start {
        let wanted = self.wanted();
        if !open && run.len() < wanted {
            return Start::No;
        }
        if self.is_refused(run) {
            return Start::No;
        }
        let digits = &run[..run.len().min(wanted)];
        let length = digits.iter().take_while(|digit| self.value(**digit).is_some()).count();
        if !open && length < wanted {
            return Start::No;
        }
        let mut decoded = [0; 2 * LOOK_BYTES];
        let count = self.decode_to(&digits[..length], &mut decoded);
        if !looks_decoded(&decoded[..count]) {
            Start::No
        } else if length == wanted {
            Start::Yes
        } else if open && length == run.len() {
            Start::Unknown
        } else {
            Start::No
        }
    }

    /// Whether the first two bytes tell already that nothing was coded here. Most runs are words.
    fn is_refused(self, run: &[u8]) -> bool {
        let digits = 16_u32.div_ceil(self.bits());
        let mut sum = 0;
        for at in 0..digits {
            let Some(value) = run.get(at as usize).and_then(|digit| self.value(*digit)) else { return false };
            sum = sum << self.bits() | u32::from(value);
        }
        let [.., first, second] = (sum >> (digits * self.bits() - 16)).to_be_bytes();
        !can_begin(first, second)
    }

    /// Whether text, or something compressed, can begin with the first two digits of a run. Quick,
    /// since it is asked wherever a word begins.
    #[inline]
    pub(super) fn opens(self, run: &[u8]) -> bool {
        static PAIRS: [[u64; 64]; 3] = [pairs(Coding::Base64), pairs(Coding::Hex), pairs(Coding::Base32)];
        let seconds = |digit: &u8| self.value(*digit).map_or(0, |v| PAIRS[self as usize][usize::from(v)]);
        match run {
            [] => true,
            [first] => seconds(first) != 0,
            [first, second, ..] => self.value(*second).is_some_and(|v| seconds(first) >> v & 1 == 1),
        }
    }
}

/// By the value of the first digit, a bit for each second one with which something can begin.
const fn pairs(coding: Coding) -> [u64; 64] {
    let (bits, mut pairs) = (coding.bits(), [0; 64]);
    let mut pair = 0_u32;
    while pair < 1 << (2 * bits) {
        // What two digits tell of 16 bits, and all that may stand behind.
        let rest = 16 - 2 * bits;
        let mut behind = 0;
        while behind < 1 << rest {
            let [.., first, second] = (pair << rest | behind).to_be_bytes();
            if can_begin(first, second) {
                pairs[(pair >> bits) as usize] |= 1 << (pair & ((1 << bits) - 1));
            }
            behind += 1;
        }
        pair += 1;
    }
    pairs
}

/// Whether text in UTF-8 or UTF-16, or something compressed, can begin with two bytes.
const fn can_begin(first: u8, second: u8) -> bool {
    match [first, second] {
        [0x1f, second] => second == 0x8b,
        [0, second] => is_plain(second),
        [0xc2..=0xf4, second] => matches!(second, 0x80..0xc0),
        [first, second] => is_plain(first) && (second == 0 || is_plain(second) || second >= 0xc2),
    }
}

/// Stands for none in a table of values.
const NO_DIGIT: u8 = 0xff;

const fn values(coding: Coding) -> [u8; 256] {
    let mut table = [NO_DIGIT; 256];
    let mut index = 0;
    while index < 256 {
        #[expect(clippy::cast_possible_truncation, reason = "below 256")]
        let digit = index as u8;
        table[index] = match (coding, digit) {
            (Coding::Base64 | Coding::Base32, b'A'..=b'Z') => digit - b'A',
            (Coding::Base64, b'a'..=b'z') => digit - b'a' + 26,
            (Coding::Base64, b'0'..=b'9') => digit - b'0' + 52,
            (Coding::Base64, b'+' | b'-') => 62,
            (Coding::Base64, b'/' | b'_') => 63,
            (Coding::Base32, b'2'..=b'7') => digit - b'2' + 26,
            (Coding::Hex, b'0'..=b'9') => digit - b'0',
            (Coding::Hex, b'a'..=b'f') => digit - b'a' + 10,
            (Coding::Hex, b'A'..=b'F') => digit - b'A' + 10,
            _ => NO_DIGIT,
        };
        index += 1;
    }
    table
}

fn base32(bytes: &[u8]) -> Vec<u8> {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut out = Vec::new();
    for group in bytes.chunks(5) {
        let sum = (0..5).fold(0_u64, |sum, at| sum << 8 | u64::from(group.get(at).copied().unwrap_or(0)));
        let count = (group.len() * 8).div_ceil(5);
        out.extend((0..count).map(|at| DIGITS[(sum >> (35 - 5 * at) & 31) as usize]));
    }
    out
}

const fn is_plain(byte: u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~')
}

/// Whether bytes are the beginning of text in UTF-8 or UTF-16, or of something compressed.
fn looks_decoded(bytes: &[u8]) -> bool {
    const GZIP: [u8; 3] = [0x1f, 0x8b, 8];
    // Quick, since most of what is asked about is neither.
    if bytes.iter().any(|b| *b < 0x80 && *b != 0 && !is_plain(*b)) && bytes.first() != Some(&GZIP[0]) {
        return false;
    }
    let zipped = || bytes.iter().zip(&GZIP).all(|(a, b)| a == b);
    let wide = |first: usize| {
        bytes.iter().enumerate().all(|(at, b)| if at % 2 == first { is_plain(*b) } else { *b == 0 })
    };
    let utf8 = || match str::from_utf8(bytes) {
        Ok(text) => text.bytes().all(|b| is_plain(b) || b >= 0x80),
        Err(error) => {
            error.error_len().is_none()
                && bytes[..error.valid_up_to()].iter().all(|b| is_plain(*b) || *b >= 0x80)
        }
    };
    utf8() || zipped() || wide(0) || wide(1)
}

/// A run that is being decoded.
#[derive(Debug)]
pub(super) struct Coded {
    coding: Coding,
    /// From digits, as they are counted, to positions of the normal form.
    digits: Map,
    /// Digits that were decoded.
    count: u64,
    /// Digits behind these, of a group that is not full.
    group: Vec<u8>,
    /// Where it begins, and where the next digit is looked for.
    from: u64,
    at: u64,
    /// Up to where all that is at hand from the beginning on are digits.
    reach: u64,
    /// Digits of the line so far.
    line: u64,
    /// Decoded bytes from the last decided group on, and their position.
    bytes: Vec<u8>,
    base: u64,
    kind: Kind,
    depth: u8,
}

#[derive(Debug)]
enum Kind {
    Text(Box<Level>),
    /// All that was decoded is something compressed: it is looked into at its end.
    Zipped,
}

impl Coded {
    /// One that begins at a position, and of which so many digits are at hand.
    pub(super) fn new(
        coding: Coding,
        position: u64,
        digits: usize,
        (depth, esc): (u8, Esc),
        budget: &mut Budget,
    ) -> Result<Self, MaskError> {
        let kind = Kind::Text(Box::new(Level::below(depth + 1, esc, budget)?));
        Ok(Self {
            coding,
            digits: Map::at(0, position),
            count: 0,
            group: Vec::new(),
            from: position,
            at: position,
            reach: position + digits as u64,
            line: 0,
            bytes: Vec::new(),
            base: 0,
            kind,
            depth: depth + 1,
        })
    }

    pub(super) fn close(self, budget: &mut Budget) {
        if let Kind::Text(level) = self.kind {
            level.close(budget);
        }
    }

    /// Whether something compressed is being gathered.
    pub(super) fn gathers(&self) -> bool {
        match &self.kind {
            Kind::Text(level) => level.gathers(),
            Kind::Zipped => true,
        }
    }

    /// Gives memory back that is not needed to wait for more, and says how much is.
    pub(super) fn tidy(&mut self) -> usize {
        let below = match &mut self.kind {
            Kind::Text(level) => size_of::<Level>() + level.tidy(),
            Kind::Zipped => 0,
        };
        tidy_bytes(&mut self.group) + tidy_bytes(&mut self.bytes) + self.digits.tidy() + below
    }

    /// Whether this one decodes a group that begins at a position.
    pub(super) fn covers(&self, coding: Coding, position: u64) -> bool {
        let size = self.coding.group().0 as u64;
        let group = || self.digits.back(position).is_some_and(|at| at % size == 0);
        let ahead = || position < self.reach && (position - self.from).is_multiple_of(size);
        coding == self.coding && position >= self.from && if position < self.at { group() } else { ahead() }
    }

    /// Decodes what is new. Gives up to which position of the normal form it is decided, or
    /// nothing at its end.
    pub(super) fn advance(
        &mut self,
        view: &View<'_>,
        budget: &mut Budget,
        out: &mut Vec<Found>,
    ) -> Result<Option<u64>, MaskError> {
        let mut fresh = Vec::new();
        let over = self.read(view, &mut fresh);
        grow(&mut self.bytes, fresh.len());
        self.bytes.extend_from_slice(&fresh);
        if self.base == 0 && self.bytes.starts_with(&[0x1f, 0x8b, 8]) {
            if let Kind::Text(level) = std::mem::replace(&mut self.kind, Kind::Zipped) {
                level.close(budget);
            }
            if self.count > ZIPPED_MAX_DIGITS {
                return Err(MaskError::TooLarge { limit: ZIPPED_MAX_DIGITS });
            }
            if over {
                self.unzip(view, budget, out)?;
                return Ok(None);
            }
            return Ok(Some(self.digits.start(self.coding.free_digits() as u64)));
        }
        let Kind::Text(level) = &mut self.kind else { return Ok(None) };
        let mut found = Vec::new();
        let decided = level.push(view.plan, budget, &fresh, over, &mut found)?;
        for found in found {
            if !self.is_known(view, &found) {
                out.push(self.outside(view, found));
            }
        }
        if over {
            return Ok(None);
        }
        // What is decided ends with a group.
        let (digits, bytes) = self.coding.group();
        let groups = (decided / bytes as u64).max(self.coding.free() / bytes as u64);
        let groups = groups.min((self.base + self.bytes.len() as u64) / bytes as u64);
        let done = usize::try_from(groups * bytes as u64 - self.base).unwrap_or(usize::MAX);
        self.bytes.drain(..done.min(self.bytes.len()));
        self.base = groups * bytes as u64;
        let hold = self.digits.start(groups * digits as u64);
        self.digits.forget(groups * digits as u64);
        Ok(Some(hold))
    }

    /// Reads digits, and says whether the run has ended.
    fn read(&mut self, view: &View<'_>, fresh: &mut Vec<u8>) -> bool {
        let (size, _) = self.coding.group();
        let mut at = view.offset(self.at);
        loop {
            match view.data.get(at).copied() {
                Some(byte) if self.coding.value(byte).is_some() => {
                    self.group.push(byte);
                    self.line += 1;
                    at += 1;
                    if self.group.len() == size {
                        fresh.extend(self.coding.decode(&self.group));
                        self.count += size as u64;
                        self.group.clear();
                    }
                }
                Some(b'\n') if self.line >= LINE_MIN_DIGITS => match self.next_line(view, at) {
                    Some(Some(next)) => {
                        let digit = self.count + self.group.len() as u64;
                        let (from, to) = (view.base + at as u64, view.base + next as u64);
                        self.digits.unit(digit, 0, from, to - from);
                        self.line = 0;
                        at = next;
                    }
                    Some(None) => break,
                    None => return self.end(view, at, fresh),
                },
                Some(_) => return self.end(view, at, fresh),
                None if view.last => return self.end(view, at, fresh),
                None => break,
            }
        }
        self.at = view.base + at as u64;
        false
    }

    /// Where the digits go on behind a line's end: `None` if they do not, `Some(None)` if
    /// that is not known.
    fn next_line(&self, view: &View<'_>, at: usize) -> Option<Option<usize>> {
        let rest = &view.data[at + 1..];
        let indent = rest.iter().take(INDENT_MAX_BYTES).take_while(|b| matches!(b, b' ' | b'\t')).count();
        match rest.get(indent) {
            Some(byte) if self.coding.value(*byte).is_some() => Some(Some(at + 1 + indent)),
            None if !view.last => Some(None),
            _ => None,
        }
    }

    fn end(&mut self, view: &View<'_>, at: usize, fresh: &mut Vec<u8>) -> bool {
        fresh.extend(self.coding.decode(&self.group));
        self.count += self.group.len() as u64;
        self.group.clear();
        self.at = view.base + at as u64;
        true
    }

    /// Whether a match is a value whose digits are looked for by themselves, and in one piece:
    /// these were found where they stand.
    fn is_known(&self, view: &View<'_>, found: &Found) -> bool {
        let Target::Literal(index) = found.target else { return false };
        let form = view.plan.literal(index);
        let whole = form.plain && found.end - found.start == form.bytes.expose().len() as u64;
        let (digits, bytes) = self.coding.group();
        let first = found.start / bytes as u64 * digits as u64;
        let last = (found.end.div_ceil(bytes as u64) * digits as u64).min(self.count);
        let (start, end) = (self.digits.start(first), self.digits.end(last));
        if !whole || end - start != last - first {
            return false;
        }
        // Digits of both alphabets in one run are looked for nowhere else.
        let digits = view.data.get(view.offset(start)..view.offset(end)).unwrap_or_default();
        let has = |pair: [u8; 2]| digits.iter().any(|digit| pair.contains(digit));
        !(has([b'+', b'/']) && has([b'-', b'_']))
    }

    /// A match in the decoded bytes, as one in the normal form.
    fn outside(&self, view: &View<'_>, found: Found) -> Found {
        let (digits, bytes) = self.coding.group();
        let (digits, bytes) = (digits as u64, bytes as u64);
        let known = self.base + self.bytes.len() as u64;
        // The first digits may be out.
        let free = self.coding.free();
        let first = (found.start / bytes * bytes).max(free);
        let behind = (found.end.div_ceil(bytes) * bytes).min(known).max(first);
        let found = Found { start: found.start.max(free), end: found.end.max(free), ..found };
        let slice = |from: u64, to: u64| {
            let index = |at: u64| usize::try_from(at.saturating_sub(self.base)).unwrap_or(usize::MAX);
            self.bytes.get(index(from)..index(to)).unwrap_or_default()
        };
        let placeholder = || view.plan.entity(found.target).placeholder().into_bytes();
        let mut text = slice(first, found.start).to_vec();
        text.extend(found.text.unwrap_or_else(placeholder));
        text.extend_from_slice(slice(found.end, behind));
        // As many bytes in the last group as there were: the padding stays right.
        while text.len() as u64 % bytes != (behind - first) % bytes {
            text.push(b'*');
        }
        let first_digit = first / bytes * digits;
        let last_digit = (behind.div_ceil(bytes) * digits).min(self.count);
        let start = self.digits.start(first_digit);
        let end = self.digits.end(last_digit);
        let sample = &view.data[view.offset(start)..view.offset(end).min(view.data.len())];
        let text = Some(self.coding.encode(&text, sample));
        Found { start: view.map.start(start), end: view.map.end(end), text, ..found }
    }

    /// Looks into what is compressed; a finding replaces all of it.
    fn unzip(&self, view: &View<'_>, budget: &mut Budget, out: &mut Vec<Found>) -> Result<(), MaskError> {
        let mut text = Vec::new();
        let most = budget.expanded + 1;
        let read = flate2::read::MultiGzDecoder::new(&self.bytes[..]).take(most).read_to_end(&mut text);
        if text.len() as u64 >= most {
            return Err(MaskError::TooLarge { limit: super::level::EXPANDED_MAX_BYTES });
        }
        budget.expanded -= text.len() as u64;
        if read.is_err() {
            return Err(MaskError::Unreadable { coding: "gzip" });
        }
        let mut level = Level::below(self.depth, view.esc, budget)?;
        let mut found = Vec::new();
        let result = level.push(view.plan, budget, &text, true, &mut found);
        level.close(budget);
        result?;
        if let Some(first) = found.into_iter().find(|found| !found.observed) {
            let all = Found { start: 0, end: self.base + self.bytes.len() as u64, ..first };
            out.push(self.outside(view, all));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What may stand in a coding: text in UTF-8 and in both orders of UTF-16, and gzip.
    fn decoded() -> impl Strategy<Value = Vec<u8>> {
        let plain = "[ -~\\t\\r\\n]{9,20}".prop_map(String::into_bytes);
        let foreign = "[ -~\u{a1}-\u{d7ff}\u{10000}-\u{10ffff}]{9,20}".prop_map(String::into_bytes);
        let wide = ("[ -~]{9,20}", any::<bool>()).prop_map(|(text, little)| {
            let pair = |byte| if little { [byte, 0] } else { [0, byte] };
            text.bytes().flat_map(pair).collect()
        });
        let zipped =
            prop::collection::vec(any::<u8>(), 9..20).prop_map(|rest| [vec![0x1f, 0x8b, 8], rest].concat());
        prop_oneof![plain, foreign, wide, zipped]
    }

    proptest! {
        #[test]
        fn what_was_coded_is_begun_to_be_decoded_at_every_cut(bytes in decoded()) {
            for coding in Coding::ALL {
                let digits = coding.encode(&bytes, b"");
                prop_assert!(coding.opens(&digits), "{:?}", coding);
                prop_assert!(matches!(coding.start(&digits, false), Start::Yes), "{:?}", coding);
                for cut in 1..digits.len() {
                    let begun = &digits[..cut];
                    let begins = coding.opens(begun) && !matches!(coding.start(begun, true), Start::No);
                    prop_assert!(begins, "{:?} {}", coding, cut);
                }
            }
        }
    }
}
