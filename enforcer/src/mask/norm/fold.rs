//! Characters that stand for ASCII, or for nothing.

use super::{
    escape::{Reader, Stop},
    find::leads,
};

/// What a character stands for: itself.
pub(super) const SELF: u8 = 0;
/// What a character stands for: nothing.
pub(super) const NOTHING: u8 = 1;
/// The first ligature; what is not one of these is an ASCII character.
const LIGATURES: u8 = 2;
const LIGATURE: [&str; 7] = ["ff", "fi", "fl", "ffi", "ffl", "st", "st"];

/// Characters one after the other whose compatibility decomposition is one ASCII character,
/// from the first on (below U+10000).
#[rustfmt::skip]
const COMPATIBLE: &[(u32, &str)] = &[
    (0x00a0, " "), (0x00aa, "a"), (0x00b2, "23"), (0x00b9, "1o"), (0x017f, "s"), (0x02b0, "h"),
    (0x02b2, "jr"), (0x02b7, "wy"), (0x02e1, "lsx"), (0x037e, ";"), (0x1d2c, "A"), (0x1d2e, "B"),
    (0x1d30, "DE"), (0x1d33, "GHIJKLMN"), (0x1d3c, "O"), (0x1d3e, "PRTUWa"), (0x1d47, "bde"),
    (0x1d4d, "g"), (0x1d4f, "km"), (0x1d52, "o"), (0x1d56, "ptu"), (0x1d5b, "v"), (0x1d62, "iruv"),
    (0x1d9c, "c"), (0x1da0, "f"), (0x1dbb, "z"), (0x1fef, "`"), (0x2000, "           "), (0x2024, "."),
    (0x202f, " "), (0x205f, " "), (0x2070, "0i"), (0x2074, "456789+"), (0x207c, "=()n0123456789+"),
    (0x208c, "=()"), (0x2090, "aeox"), (0x2095, "hklmnpst"), (0x2102, "C"), (0x210a, "gHHHh"),
    (0x2110, "IILl"), (0x2115, "N"), (0x2119, "PQRRR"), (0x2124, "Z"), (0x2128, "Z"), (0x212a, "K"),
    (0x212c, "BC"), (0x212f, "eEF"), (0x2133, "Mo"), (0x2139, "i"), (0x2145, "Ddeij"), (0x2160, "I"),
    (0x2164, "V"), (0x2169, "X"), (0x216c, "LCDMi"), (0x2174, "v"), (0x2179, "x"), (0x217c, "lcdm"),
    (0x2460, "123456789"), (0x24b6, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0"),
    (0x2c7c, "jV"), (0x3000, " "), (0xa7f2, "CFQ"), (0xfb29, "+"), (0xfe10, ","), (0xfe13, ":;!?"),
    (0xfe33, "__(){}"), (0xfe47, "[]"), (0xfe4d, "___,"), (0xfe52, "."), (0xfe54, ";:?!"),
    (0xfe59, "(){}"), (0xfe5f, "#&*+-<>="), (0xfe68, "\\$%@"),
    (0xff01, "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"),
];

/// Letters, digits and hyphens that look like ASCII in common typefaces: Cyrillic, Greek,
/// Armenian, Cherokee, Lisu, small capitals.
#[rustfmt::skip]
const LOOKALIKE: &[(u32, &str)] = &[
    (0x0131, "i"), (0x0237, "j"), (0x0251, "a"), (0x0261, "g"), (0x0269, "i"), (0x037f, "J"),
    (0x0391, "AB"), (0x0395, "EZH"), (0x0399, "IK"), (0x039c, "MN"), (0x039f, "O"), (0x03a1, "P"),
    (0x03a4, "TY"), (0x03a7, "X"), (0x03b1, "a"), (0x03b3, "y"), (0x03b9, "i"), (0x03bd, "v"),
    (0x03bf, "o"), (0x03c1, "p"), (0x03c3, "o"), (0x03c5, "u"), (0x03f1, "pcj"), (0x03f9, "C"),
    (0x0405, "SI"), (0x0408, "J"), (0x0410, "A"), (0x0412, "B"), (0x0415, "E"), (0x0417, "3"),
    (0x041a, "K"), (0x041c, "MHO"), (0x0420, "PCTY"), (0x0425, "X"), (0x042c, "b"), (0x0430, "a6"),
    (0x0433, "r"), (0x0435, "e"), (0x043e, "o"), (0x0440, "pc"), (0x0443, "y"), (0x0445, "x"),
    (0x0455, "si"), (0x0458, "j"), (0x0474, "Vv"), (0x04ae, "Yy"), (0x04ba, "hh"), (0x04c0, "I"),
    (0x04cf, "l"), (0x0501, "d"), (0x050c, "G"), (0x051a, "QqWw"), (0x053c, "L"), (0x054d, "U"),
    (0x054f, "S"), (0x0555, "O"), (0x0566, "q"), (0x0570, "h"), (0x0575, "j"), (0x0578, "n"),
    (0x057d, "u"), (0x0581, "g"), (0x0585, "o"), (0x13a0, "DRT"), (0x13aa, "AJE"), (0x13b3, "W"),
    (0x13b7, "M"), (0x13bb, "H"), (0x13c0, "G"), (0x13c3, "Z"), (0x13ce, "4"), (0x13d2, "R"),
    (0x13d4, "W"), (0x13d9, "VS"), (0x13de, "LC"), (0x13e2, "P"), (0x13e6, "K"), (0x13f4, "B"),
    (0x1d04, "c"), (0x1d0f, "o"), (0x1d20, "vwz"), (0x2010, "---"), (0x2212, "-"), (0xa4d0, "BP"),
    (0xa4d3, "DT"), (0xa4d6, "GK"), (0xa4d9, "JC"), (0xa4dc, "ZF"), (0xa4df, "MNLSR"), (0xa4e6, "VH"),
    (0xa4ea, "WXY"), (0xa4ee, "A"), (0xa4f0, "E"), (0xa4f2, "IOU"), (0xa731, "s"),
];

/// First and last of the characters that nobody sees (below U+10000).
const IGNORABLE: &[(u32, u32)] = &[
    (0x00ad, 0x00ad),
    (0x034f, 0x034f),
    (0x061c, 0x061c),
    (0x115f, 0x1160),
    (0x17b4, 0x17b5),
    (0x180b, 0x180f),
    (0x200b, 0x200f),
    (0x202a, 0x202e),
    (0x2060, 0x206f),
    (0x3164, 0x3164),
    (0xfe00, 0xfe0f),
    (0xfeff, 0xfeff),
    (0xffa0, 0xffa0),
    (0xfff0, 0xfff8),
];

/// Characters of a page: what one last byte in UTF-8 tells apart.
const PAGE: usize = 64;
/// Pages of the characters below U+10000.
const ALL_PAGES: usize = 0x1_0000 / PAGE;
/// Pages that hold something that does not stand for itself, and an empty one first.
const PAGES: usize = 64;

struct Tables {
    /// By page, which of `pages` it is.
    index: [u8; ALL_PAGES],
    pages: [[u8; PAGE]; PAGES],
}

static TABLES: Tables = build();

const fn build() -> Tables {
    let mut tables = Tables { index: [0; ALL_PAGES], pages: [[SELF; PAGE]; PAGES] };
    let mut used = 1;
    let mut i = 0;
    while i < IGNORABLE.len() {
        let mut code = IGNORABLE[i].0;
        while code <= IGNORABLE[i].1 {
            used = set(&mut tables, used, code, NOTHING);
            code += 1;
        }
        i += 1;
    }
    let mut value = LIGATURES;
    while (value as usize) < LIGATURES as usize + LIGATURE.len() {
        used = set(&mut tables, used, 0xfb00 + (value - LIGATURES) as u32, value);
        value += 1;
    }
    i = 0;
    while i < COMPATIBLE.len() + LOOKALIKE.len() {
        let row = if i < COMPATIBLE.len() { COMPATIBLE[i] } else { LOOKALIKE[i - COMPATIBLE.len()] };
        let text = row.1.as_bytes();
        let (mut at, mut code) = (0, row.0);
        while at < text.len() {
            used = set(&mut tables, used, code, text[at]);
            at += 1;
            code += 1;
        }
        i += 1;
    }
    tables
}

const fn set(tables: &mut Tables, used: u8, code: u32, value: u8) -> u8 {
    let (page, at) = (code as usize / PAGE, code as usize % PAGE);
    let mut used = used;
    if tables.index[page] == 0 {
        tables.index[page] = used;
        used += 1;
    }
    tables.pages[tables.index[page] as usize][at] = value;
    used
}

/// What a character of the planes above stands for.
fn above(code: u32) -> u8 {
    let letter = |code: u32| {
        let at = u8::try_from(code % 52).unwrap_or_default();
        if at < 26 { b'A' + at } else { b'a' - 26 + at }
    };
    match code {
        0x1_07a5 => b'q',
        0x1_bca0..=0x1_bca3 | 0x1_d173..=0x1_d17a => NOTHING,
        // Mathematical letters: thirteen alphabets.
        0x1_d400..=0x1_d6a3 => letter(code - 0x1_d400),
        0x1_d7ce..=0x1_d7ff => b'0' + u8::try_from((code - 0x1_d7ce) % 10).unwrap_or_default(),
        0x1_f12b => b'C',
        0x1_f12c => b'R',
        0x1_f130..=0x1_f149 => letter(code - 0x1_f130),
        0x1_fbf0..=0x1_fbf9 => b'0' + u8::try_from(code - 0x1_fbf0).unwrap_or_default(),
        // Tags: ASCII that nobody sees.
        0xe_0020..=0xe_007e => u8::try_from(code - 0xe_0000).unwrap_or_default(),
        0xe_0000..=0xe_0fff => NOTHING,
        _ => SELF,
    }
}

/// What a ligature stands for.
pub(super) fn ligature(value: u8) -> &'static str {
    value.checked_sub(LIGATURES).and_then(|at| LIGATURE.get(usize::from(at))).copied().unwrap_or_default()
}

/// What a character stands for: an ASCII character, `NOTHING`, a ligature, or `SELF`.
pub(super) fn of(code: u32) -> u8 {
    match usize::try_from(code) {
        Ok(at) if at < 0x1_0000 => TABLES.pages[usize::from(TABLES.index[at / PAGE])][at % PAGE],
        _ => above(code),
    }
}

/// The character that begins here and its length in bytes, if it does not stand for itself.
#[inline]
pub(super) fn read(r: Reader<'_>) -> Result<(u8, u8), Stop> {
    let first = r.byte(0)?;
    if !leads(first) {
        return Err(Stop::Not);
    }
    let last = |at| match r.byte(at)? {
        byte @ 0x80..=0xbf => Ok(u32::from(byte & 0x3f)),
        _ => Err(Stop::Not),
    };
    let given = |value, len| if value == SELF { Err(Stop::Not) } else { Ok((value, len)) };
    let (page, len) = match first {
        0xc2..=0xdf => (u32::from(first & 0x1f), 2),
        0xe1..=0xef => (u32::from(first & 0x0f) << 6 | last(1)?, 3),
        0xf0 | 0xf3 => {
            let top = u32::from(first & 0x07) << 6 | last(1)?;
            // Emoji share their first two bytes with the squared letters.
            if !matches!(top, 0x10 | 0x1b | 0x1d | 0x1f | 0xe0) {
                return Err(Stop::Not);
            }
            let code = (top << 6 | last(2)?) << 6;
            return given(above(code | last(3)?), 4);
        }
        _ => return Err(Stop::Not),
    };
    let index = usize::try_from(page).ok().and_then(|page| TABLES.index.get(page)).copied();
    match index {
        Some(index) if index != 0 => {
            let at = usize::try_from(last(usize::from(len) - 1)?).unwrap_or_default();
            given(TABLES.pages[usize::from(index)][at], len)
        }
        _ => Err(Stop::Not),
    }
}
