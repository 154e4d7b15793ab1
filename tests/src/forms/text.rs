//! Digits for bytes, other character sets, and what is not seen.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};

use super::Class::{BlockOrFlag, Must, MustDecoded};
use super::{Given, Listed, as_it_is};
use crate::chance::Chance;

pub const FORMS: &[Listed] = &[
    ("plain", Must, |it, _| Some(it.whole()), as_it_is),
    ("base64", MustDecoded, |it, _| Some(it.inside(STANDARD.encode(it.secret).as_bytes())), base64),
    (
        "base64, no padding",
        MustDecoded,
        |it, _| Some(it.inside(STANDARD_NO_PAD.encode(it.secret).as_bytes())),
        base64,
    ),
    ("base64, url-safe", MustDecoded, |it, _| Some(it.inside(URL_SAFE.encode(it.secret).as_bytes())), base64),
    ("base64, any alignment", MustDecoded, aligned, base64),
    ("base64, url-safe, any alignment", MustDecoded, aligned_url, base64),
    ("base64 in lines of 76", MustDecoded, |it, _| Some(mime(it, 76, "\r\n")), base64),
    ("base64 in lines of 64", MustDecoded, |it, _| Some(mime(it, 64, "\n")), base64),
    (
        "base64 of base64",
        MustDecoded,
        |it, _| Some(it.inside(STANDARD.encode(STANDARD.encode(it.secret)).as_bytes())),
        base64,
    ),
    (
        "Basic",
        MustDecoded,
        |it, _| {
            let user = [b"user:", it.secret].concat();
            Some(it.inside(format!("Authorization: Basic {}", STANDARD.encode(user)).as_bytes()))
        },
        base64,
    ),
    (
        "data: URI",
        MustDecoded,
        |it, _| Some(it.inside(format!("data:text/plain;base64,{}", STANDARD.encode(it.secret)).as_bytes())),
        base64,
    ),
    ("hex", MustDecoded, |it, _| Some(it.inside(&each(it.secret, "", |b| format!("{b:02x}")))), hex),
    ("HEX", MustDecoded, |it, _| Some(it.inside(&each(it.secret, "", |b| format!("{b:02X}")))), hex),
    ("hex of both cases", MustDecoded, mixed_hex, hex),
    (
        "hex with colons",
        MustDecoded,
        |it, _| Some(it.inside(&each(it.secret, ":", |b| format!("{b:02x}")))),
        hex,
    ),
    (
        "bytea",
        MustDecoded,
        |it, _| Some(it.inside(&[b"\\x", &each(it.secret, "", |b| format!("{b:02x}"))[..]].concat())),
        hex,
    ),
    ("base32", BlockOrFlag, |it, _| Some(it.inside(base32(it.secret).as_bytes())), from_base32),
    ("UTF-16LE with a mark", MustDecoded, |it, _| utf16(it, true, false), from_utf16),
    ("UTF-16BE with a mark", MustDecoded, |it, _| utf16(it, true, true), from_utf16),
    ("UTF-16LE", MustDecoded, |it, _| utf16(it, false, false), from_utf16),
    ("UTF-16BE", MustDecoded, |it, _| utf16(it, false, true), from_utf16),
    ("UTF-32LE", BlockOrFlag, |it, _| utf32(it), |out| vec![without(out, &["\0"])]),
    ("zero-width spaces", MustDecoded, |it, _| between(it, "\u{200b}"), invisible),
    ("one zero-width joiner", MustDecoded, |it, chance| one(it, chance, "\u{200d}"), invisible),
    ("one soft hyphen", MustDecoded, |it, chance| one(it, chance, "\u{ad}"), invisible),
    ("one word joiner", MustDecoded, |it, chance| one(it, chance, "\u{2060}"), invisible),
    ("one NUL", MustDecoded, |it, chance| one(it, chance, "\0"), invisible),
    ("one colour", MustDecoded, |it, chance| one(it, chance, "\u{1b}[31m"), invisible),
    ("variation selectors", MustDecoded, |it, _| between(it, "\u{fe0f}"), invisible),
    ("full width", MustDecoded, |it, _| wide(it), narrow),
];

fn each(bytes: &[u8], gap: &str, form: impl Fn(u8) -> String) -> Vec<u8> {
    bytes.iter().map(|byte| form(*byte)).collect::<Vec<_>>().join(gap).into_bytes()
}

/// The surroundings are in the base64, too.
fn aligned(it: &Given<'_>, chance: &mut Chance) -> Option<Vec<u8>> {
    let mut whole = vec![b'x'; chance.below(3)];
    whole.extend(it.whole());
    Some(STANDARD.encode(whole).into_bytes())
}

fn aligned_url(it: &Given<'_>, chance: &mut Chance) -> Option<Vec<u8>> {
    let mut whole = vec![b'x'; chance.below(3)];
    whole.extend(it.whole());
    Some(URL_SAFE_NO_PAD.encode(whole).into_bytes())
}

fn mime(it: &Given<'_>, width: usize, end: &str) -> Vec<u8> {
    let mut text = b"before it there are some words, so that it is somewhere in the lines: ".to_vec();
    text.extend(it.whole());
    let digits = STANDARD.encode(text);
    let lines: Vec<&[u8]> = digits.as_bytes().chunks(width).collect();
    lines.join(end.as_bytes())
}

fn mixed_hex(it: &Given<'_>, chance: &mut Chance) -> Option<Vec<u8>> {
    let digits = each(it.secret, "", |b| format!("{b:02x}"));
    let mixed: Vec<u8> =
        digits.iter().map(|b| if chance.one_in(2) { b.to_ascii_uppercase() } else { *b }).collect();
    Some(it.inside(&mixed))
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_')
}

/// What the runs of digits decode to, at each alignment, twice over; line breaks in them do
/// not count.
fn base64(out: &[u8]) -> Vec<Vec<u8>> {
    let once = base64_once(out);
    let twice: Vec<Vec<u8>> = once.iter().flat_map(|text| base64_once(text)).collect();
    [once, twice].concat()
}

fn base64_once(out: &[u8]) -> Vec<Vec<u8>> {
    let joined: Vec<u8> = out.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    let mut found = Vec::new();
    for text in [out, &joined] {
        for run in text.split(|b| !is_base64(*b)).filter(|run| run.len() >= 8) {
            let run: Vec<u8> = run
                .iter()
                .map(|b| match b {
                    b'-' => b'+',
                    b'_' => b'/',
                    other => *other,
                })
                .collect();
            for skip in 0..4 {
                let part = &run[skip..];
                let part = &part[..part.len() - usize::from(part.len() % 4 == 1)];
                let loose = base64::engine::GeneralPurposeConfig::new()
                    .with_decode_allow_trailing_bits(true)
                    .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
                let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, loose);
                found.extend(engine.decode(part));
            }
        }
    }
    found
}

fn hex(out: &[u8]) -> Vec<Vec<u8>> {
    let plain = without(out, &[":"]);
    let mut found = Vec::new();
    for run in plain.split(|b| !b.is_ascii_hexdigit()).filter(|run| run.len() >= 16) {
        for skip in 0..2 {
            let digit = |b: u8| char::from(b).to_digit(16).and_then(|it| u8::try_from(it).ok()).unwrap_or(0);
            let pairs = run[skip..].chunks_exact(2);
            found.push(pairs.map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect());
        }
    }
    found
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

fn base32(bytes: &[u8]) -> String {
    let mut out = String::new();
    for group in bytes.chunks(5) {
        let bits =
            group.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte)) << (8 * (5 - group.len()));
        for digit in 0..(group.len() * 8).div_ceil(5) {
            out.push(char::from(BASE32[(bits >> (35 - 5 * digit) & 31) as usize]));
        }
    }
    while !out.len().is_multiple_of(8) {
        out.push('=');
    }
    out
}

fn from_base32(out: &[u8]) -> Vec<Vec<u8>> {
    let value = |b: u8| BASE32.iter().position(|it| *it == b);
    let mut found = Vec::new();
    for run in out.split(|b| value(*b).is_none()).filter(|run| run.len() >= 13) {
        for skip in 0..8.min(run.len()) {
            let mut bits = 0_u64;
            let mut count = 0;
            let mut bytes = Vec::new();
            for digit in run[skip..].iter().filter_map(|b| value(*b)) {
                bits = bits << 5 | digit as u64;
                count += 5;
                if count >= 8 {
                    count -= 8;
                    bytes.push((bits >> count).to_le_bytes()[0]);
                    bits &= (1 << count) - 1;
                }
            }
            found.push(bytes);
        }
    }
    found
}

fn utf16(it: &Given<'_>, mark: bool, big: bool) -> Option<Vec<u8>> {
    it.text()?;
    let whole = String::from_utf8(it.whole()).ok()?;
    let marked = if mark { format!("\u{feff}{whole}") } else { whole };
    let bytes = |unit: u16| if big { unit.to_be_bytes() } else { unit.to_le_bytes() };
    Some(marked.encode_utf16().flat_map(bytes).collect())
}

fn from_utf16(out: &[u8]) -> Vec<Vec<u8>> {
    let mut found = vec![without(out, &["\0"])];
    for skip in 0..2.min(out.len()) {
        for big in [false, true] {
            let unit = |pair: &[u8]| {
                let pair = [pair[0], pair[1]];
                if big { u16::from_be_bytes(pair) } else { u16::from_le_bytes(pair) }
            };
            let units: Vec<u16> = out[skip..].chunks_exact(2).map(unit).collect();
            found.push(String::from_utf16_lossy(&units).into_bytes());
        }
    }
    found
}

fn utf32(it: &Given<'_>) -> Option<Vec<u8>> {
    it.ascii()?;
    Some(it.whole().iter().flat_map(|byte| u32::from(*byte).to_le_bytes()).collect())
}

/// Something between each two characters.
fn between(it: &Given<'_>, what: &str) -> Option<Vec<u8>> {
    let text = it.ascii()?;
    let parts: Vec<String> = text.chars().map(String::from).collect();
    Some(it.inside(parts.join(what).as_bytes()))
}

/// Something in one place.
fn one(it: &Given<'_>, chance: &mut Chance, what: &str) -> Option<Vec<u8>> {
    let text = it.ascii()?;
    let (before, after) = text.split_at(chance.between(1, text.len() - 1));
    Some(it.inside(format!("{before}{what}{after}").as_bytes()))
}

fn wide(it: &Given<'_>) -> Option<Vec<u8>> {
    let text: String =
        it.ascii()?.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap_or(c)).collect();
    Some(it.inside(text.as_bytes()))
}

fn narrow(out: &[u8]) -> Vec<Vec<u8>> {
    let text = String::from_utf8_lossy(out);
    let narrow = |c: char| match u32::from(c) {
        wide @ 0xff01..=0xff5e => char::from_u32(wide - 0xfee0).unwrap_or(c),
        _ => c,
    };
    vec![text.chars().map(narrow).collect::<String>().into_bytes()]
}

const INVISIBLE: &[&str] = &["\u{200b}", "\u{200d}", "\u{ad}", "\u{2060}", "\0", "\u{1b}[31m", "\u{fe0f}"];

fn invisible(out: &[u8]) -> Vec<Vec<u8>> {
    vec![without(out, INVISIBLE)]
}

/// Without any of these.
fn without(out: &[u8], what: &[&str]) -> Vec<u8> {
    let mut text = out.to_vec();
    for it in what {
        let mut next = Vec::with_capacity(text.len());
        let mut from = 0;
        for at in memchr::memmem::find_iter(&text, it.as_bytes()) {
            next.extend_from_slice(&text[from..at]);
            from = at + it.len();
        }
        next.extend_from_slice(&text[from..]);
        text = next;
    }
    text
}
