//! The grammars of the escapes, each with a bound.

use super::{Breaks, ESCAPE_MAX_BYTES, Esc, fold};

/// The longest text of a terminal's own (a window title) that is left out with its escape: too
/// short to hold a value that is looked for.
const TITLE_MAX: usize = 7;
/// Hexadecimal digits after `\xHH` that make it the beginning of a string in hexadecimal, as
/// PostgreSQL writes bytes.
const HEX_STRING: usize = 4;

/// Something that is undone as one. Small, so that it is handed over in a register.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    len: u8,
    given: [u8; 4],
    count: u8,
    /// It is quoted-printable.
    pub(super) quoted: bool,
    /// What it gives can belong to an escape of another layer.
    pub(super) layered: bool,
}

impl Unit {
    /// Raw bytes.
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Its normal form.
    pub(super) fn given(&self) -> &[u8] {
        &self.given[..usize::from(self.count)]
    }

    fn nothing(len: u8) -> Self {
        Self { len, given: [0; 4], count: 0, quoted: false, layered: false }
    }

    /// One byte, which may be a part of a character.
    fn byte(byte: u8, len: u8) -> Self {
        let shown = !matches!(byte, 0 | b'\r');
        Self {
            len,
            given: [byte, 0, 0, 0],
            count: u8::from(shown),
            quoted: false,
            layered: shown && (is_introducer(byte) || byte >= 0x80),
        }
    }

    fn text(text: &str, len: u8) -> Self {
        let mut unit = Self::nothing(len);
        for (slot, byte) in unit.given.iter_mut().zip(text.bytes()) {
            *slot = byte;
            unit.count += 1;
        }
        unit.layered = text.bytes().any(is_introducer);
        unit
    }

    /// A character, folded at once.
    fn code(code: u32, len: u8) -> Step {
        let char = char::from_u32(code).ok_or(Stop::Not)?;
        Ok(match (u8::try_from(code), fold::of(code)) {
            (Ok(byte @ 0..0x80), _) => Self::byte(byte, len),
            (_, fold::SELF) => Self::text(char.encode_utf8(&mut [0; 4]), len),
            (_, value) => Self::folded(value, len),
        })
    }

    /// What a character stands for.
    fn folded(value: u8, len: u8) -> Self {
        match value {
            b' '.. => Self::byte(value, len),
            fold::NOTHING => Self::nothing(len),
            _ => Self::text(fold::ligature(value), len),
        }
    }
}

/// Why something is no unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// It is none.
    Not,
    /// What follows will tell.
    Wait,
}

pub(super) type Step = Result<Unit, Stop>;

/// The bytes from a candidate on.
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    raw: &'a [u8],
    last: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(raw: &'a [u8], last: bool) -> Self {
        Self { raw, last }
    }

    /// A byte that has to be there.
    pub(super) fn byte(self, at: usize) -> Result<u8, Stop> {
        self.peek(at)?.ok_or(Stop::Not)
    }

    /// A byte that may be missing at the end.
    fn peek(self, at: usize) -> Result<Option<u8>, Stop> {
        match self.raw.get(at) {
            Some(byte) => Ok(Some(*byte)),
            None if self.last => Ok(None),
            None => Err(Stop::Wait),
        }
    }

    /// How many zeros stand here, up to the longest unit: padding is one.
    fn zeros(self) -> u8 {
        short(self.raw.iter().take(ESCAPE_MAX_BYTES).take_while(|b| **b == 0).count())
    }

    fn digit(self, at: usize, radix: u32) -> Result<u32, Stop> {
        char::from(self.byte(at)?).to_digit(radix).ok_or(Stop::Not)
    }

    fn hex(self, at: usize, digits: usize) -> Result<u32, Stop> {
        let mut value = 0_u32;
        for i in 0..digits {
            value = (value << 4) | self.digit(at + i, 16)?;
        }
        Ok(value)
    }

    /// One digit pair of quoted-printable that stands for a character one can see.
    fn pair(self, at: usize) -> Result<u8, Stop> {
        let digit = |at| match self.byte(at)? {
            b @ b'0'..=b'9' => Ok(b - b'0'),
            b @ b'A'..=b'F' => Ok(b - b'A' + 10),
            _ => Err(Stop::Not),
        };
        match digit(at)? << 4 | digit(at + 1)? {
            byte @ 0x20..=0x7e => Ok(byte),
            _ => Err(Stop::Not),
        }
    }
}

/// What is known of the stream before this.
#[derive(Clone, Copy)]
pub(super) struct Before {
    /// What escape characters are taken for in it.
    pub(super) esc: Esc,
    /// What an equals sign at a line's end is taken for behind it.
    pub(super) breaks: Breaks,
    /// It ends with quoted-printable that was undone.
    pub(super) follows: bool,
}

/// A length within `ESCAPE_MAX_BYTES`.
fn short(len: usize) -> u8 {
    debug_assert!(len <= ESCAPE_MAX_BYTES);
    u8::try_from(len).unwrap_or(u8::MAX)
}

/// What begins here.
pub(super) fn read(r: Reader<'_>, before: Before) -> Step {
    match r.byte(0)? {
        b'\\' => backslash(r),
        b'%' => percent(r),
        b'&' => entity(r),
        b'=' => equals(r, before),
        0x1b if before.esc == Esc::Sequence => terminal(r),
        0 => Ok(Unit::nothing(r.zeros())),
        b'\r' => Ok(Unit::nothing(1)),
        _ => foreign(r),
    }
}

/// What begins here with a byte that is not ASCII.
#[inline]
pub(super) fn foreign(r: Reader<'_>) -> Step {
    fold::read(r).map(|(value, len)| Unit::folded(value, len))
}

/// Whether an escape of text begins with this byte.
pub(super) fn is_introducer(byte: u8) -> bool {
    matches!(byte, b'\\' | b'%' | b'&' | b'=' | 0x1b)
}

/// Whether this byte can stand inside an escape.
pub(super) fn is_body(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'#' | b'{')
}

/// Whether this byte can complete an escape that something in it interrupted.
pub(super) fn goes_on(byte: u8) -> bool {
    is_body(byte) || matches!(byte, b';' | b'}')
}

/// What a letter stands for after a backslash, if that is all; 0 if not.
const SIMPLE: [u8; 256] = {
    let mut table = [0; 256];
    let pairs = *b"n\nt\tr\rb\x08f\x0c\"\"''//\\\\";
    let mut i = 0;
    while i < pairs.len() {
        table[pairs[i] as usize] = pairs[i + 1];
        i += 2;
    }
    table
};

fn backslash(r: Reader<'_>) -> Step {
    let second = r.byte(1)?;
    let simple = SIMPLE[usize::from(second)];
    if simple != 0 {
        return Ok(Unit::byte(simple, 2));
    }
    match second {
        b'u' if r.byte(2)? == b'{' => braced(r),
        b'u' => utf16(r, b'\\'),
        b'U' => Unit::code(r.hex(2, 8)?, 10),
        b'x' => hex_byte(r),
        b'0'..=b'3' => {
            let value = r.digit(1, 8)? << 6 | r.digit(2, 8)? << 3 | r.digit(3, 8)?;
            Ok(Unit::byte(u8::try_from(value).unwrap_or_default(), 4))
        }
        _ => Err(Stop::Not),
    }
}

fn hex_byte(r: Reader<'_>) -> Step {
    let value = r.hex(2, 2)?;
    let string = (4..4 + HEX_STRING).try_fold(true, |all, at| {
        if !all {
            return Ok(false);
        }
        Ok(r.peek(at)?.is_some_and(|b| b.is_ascii_hexdigit()))
    })?;
    if string {
        return Err(Stop::Not);
    }
    Ok(Unit::byte(u8::try_from(value).unwrap_or_default(), 4))
}

/// `\u{41}`.
fn braced(r: Reader<'_>) -> Step {
    let mut value = 0_u32;
    for at in 3..12 {
        match r.byte(at)? {
            b'}' if at > 3 => return Unit::code(value, short(at + 1)),
            _ if at == 11 => break,
            _ => value = value << 4 | r.digit(at, 16)?,
        }
    }
    Err(Stop::Not)
}

/// `\u0041` or `%u0041`, and a pair of surrogates.
fn utf16(r: Reader<'_>, introducer: u8) -> Step {
    let high = r.hex(2, 4)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Unit::code(high, 6);
    }
    if r.byte(6)? != introducer || r.byte(7)? != b'u' {
        return Err(Stop::Not);
    }
    match r.hex(8, 4)? {
        low @ 0xdc00..=0xdfff => Unit::code(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00), 12),
        _ => Err(Stop::Not),
    }
}

fn percent(r: Reader<'_>) -> Step {
    if r.byte(1)? == b'u' {
        return utf16(r, b'%');
    }
    Ok(Unit::byte(u8::try_from(r.hex(1, 2)?).unwrap_or_default(), 3))
}

/// Names of characters that are ASCII, or that nobody sees.
const NAMES: [(&[u8], &str); 45] = [
    (b"amp", "&"),
    (b"AMP", "&"),
    (b"apos", "'"),
    (b"ast", "*"),
    (b"bsol", "\\"),
    (b"colon", ":"),
    (b"comma", ","),
    (b"commat", "@"),
    (b"dollar", "$"),
    (b"equals", "="),
    (b"excl", "!"),
    (b"grave", "`"),
    (b"gt", ">"),
    (b"GT", ">"),
    (b"Hat", "^"),
    (b"hyphen", "-"),
    (b"lbrace", "{"),
    (b"lbrack", "["),
    (b"lcub", "{"),
    (b"lowbar", "_"),
    (b"lpar", "("),
    (b"lsqb", "["),
    (b"lt", "<"),
    (b"LT", "<"),
    (b"nbsp", " "),
    (b"NewLine", "\n"),
    (b"num", "#"),
    (b"percnt", "%"),
    (b"period", "."),
    (b"plus", "+"),
    (b"quest", "?"),
    (b"quot", "\""),
    (b"QUOT", "\""),
    (b"rbrace", "}"),
    (b"rbrack", "]"),
    (b"rcub", "}"),
    (b"rpar", ")"),
    (b"rsqb", "]"),
    (b"semi", ";"),
    (b"shy", ""),
    (b"sol", "/"),
    (b"Tab", "\t"),
    (b"vert", "|"),
    (b"zwj", ""),
    (b"zwnj", ""),
];
const NAME_MAX: usize = 7;

fn entity(r: Reader<'_>) -> Step {
    if r.byte(1)? == b'#' {
        return numeric(r);
    }
    let mut end = 1;
    let name = loop {
        match r.peek(end) {
            Ok(Some(byte)) if byte.is_ascii_alphabetic() && end <= NAME_MAX => end += 1,
            Ok(Some(b';')) => break &r.raw[1..end],
            Ok(_) => return Err(Stop::Not),
            Err(_) if NAMES.iter().any(|(name, _)| name.starts_with(&r.raw[1..end])) => {
                return Err(Stop::Wait);
            }
            Err(_) => return Err(Stop::Not),
        }
    };
    let found = NAMES.iter().find(|(known, _)| *known == name).ok_or(Stop::Not)?;
    Ok(Unit::text(found.1, short(end + 1)))
}

/// `&#65;` or `&#x41;`; the semicolon may be missing.
fn numeric(r: Reader<'_>) -> Step {
    let (first, radix) = if r.byte(2)? | 0x20 == b'x' { (3, 16) } else { (2, 10) };
    let mut value = 0_u32;
    for at in first..ESCAPE_MAX_BYTES {
        let byte = r.peek(at)?;
        match byte.and_then(|b| char::from(b).to_digit(radix)) {
            Some(digit) => value = value.saturating_mul(radix).saturating_add(digit),
            None if at == first => return Err(Stop::Not),
            None => return Unit::code(value, short(at) + u8::from(byte == Some(b';'))),
        }
    }
    Err(Stop::Not)
}

/// Quoted-printable. `k=41` is also how a value is given, so one pair alone is undone only
/// where it is `=3D`, the one character that has to be escaped, and where what follows is no
/// value in hexadecimal that begins with `3D`. Of pairs side by side all are undone.
fn equals(r: Reader<'_>, before: Before) -> Step {
    let first = r.byte(1)?;
    let len = match (first, before.breaks) {
        (b'\n', Breaks::Soft) => Some(2),
        (b'\r', Breaks::Soft) if r.byte(2)? == b'\n' => Some(3),
        _ => None,
    };
    if let Some(len) = len {
        return Ok(Unit { quoted: true, ..Unit::nothing(len) });
    }
    let byte = r.pair(1)?;
    let unit = Unit { quoted: true, ..Unit::byte(byte, 3) };
    if before.follows {
        return Ok(unit);
    }
    if r.peek(3)? == Some(b'=') {
        match r.pair(4) {
            Err(Stop::Not) => {}
            Err(Stop::Wait) => return Err(Stop::Wait),
            Ok(_) => return Ok(unit),
        }
    }
    if byte != b'=' {
        return Err(Stop::Not);
    }
    for at in 3..7 {
        if !matches!(r.peek(at)?, Some(b'0'..=b'9' | b'A'..=b'F')) {
            return Ok(unit);
        }
    }
    Err(Stop::Not)
}

/// Control sequences of terminals. An escape character alone is left out too.
fn terminal(r: Reader<'_>) -> Step {
    let len = match r.peek(1)? {
        Some(b'[') => control(r),
        Some(b']') => title(r),
        Some(b'(' | b')' | b'*' | b'+') => match r.byte(2) {
            Ok(0x30..=0x7e) => Ok(3),
            Ok(_) => Err(Stop::Not),
            Err(stop) => Err(stop),
        },
        Some(b'\\') => Ok(2),
        _ => Err(Stop::Not),
    };
    match len {
        Ok(len) => Ok(Unit::nothing(short(len))),
        Err(Stop::Not) => Ok(Unit::nothing(1)),
        Err(Stop::Wait) => Err(Stop::Wait),
    }
}

fn control(r: Reader<'_>) -> Result<usize, Stop> {
    for at in 2..ESCAPE_MAX_BYTES {
        match r.byte(at)? {
            0x20..=0x3f => {}
            0x40..=0x7e => return Ok(at + 1),
            _ => break,
        }
    }
    Err(Stop::Not)
}

/// A command to the terminal, with a text so short that no value fits in.
fn title(r: Reader<'_>) -> Result<usize, Stop> {
    let mut at = 2;
    while at < 6 && r.byte(at)?.is_ascii_digit() {
        at += 1;
    }
    if r.byte(at)? == b';' {
        at += 1;
    }
    for end in at..=at + TITLE_MAX {
        match r.byte(end)? {
            0x07 => return Ok(end + 1),
            0x1b if r.byte(end + 1)? == b'\\' => return Ok(end + 2),
            0x20..=0x7e => {}
            _ => break,
        }
    }
    Err(Stop::Not)
}
