//! Escapes: characters that are written as something else, each or only some.

use super::Class::{BlockOrFlag, Must, MustDecoded};
use super::{Given, Listed};
use crate::chance::Chance;

pub const FORMS: &[Listed] = &[
    ("percent, all", MustDecoded, |it, _| Some(it.inside(&all(it.secret, |b| format!("%{b:02X}")))), percent),
    (
        "percent, lower case",
        MustDecoded,
        |it, _| Some(it.inside(&all(it.secret, |b| format!("%{b:02x}")))),
        percent,
    ),
    ("percent, as libraries do", MustDecoded, |it, _| Some(it.inside(&libraries(it.secret))), percent),
    (
        "percent, one",
        MustDecoded,
        |it, chance| Some(it.inside(&one(it.secret, chance, |b| format!("%{b:02x}"), plus))),
        percent,
    ),
    (
        "percent, twice",
        MustDecoded,
        |it, _| Some(it.inside(&all(it.secret, |b| format!("%25{b:02X}")))),
        percent,
    ),
    ("JSON", Must, |it, _| Some(it.inside(&json(it.text()?, false))), backslash),
    ("JSON, with \\/", MustDecoded, |it, _| Some(it.inside(&json(it.text()?, true))), backslash),
    ("JSON, \\u", MustDecoded, |it, _| Some(it.inside(&units(it.text()?))), backslash),
    ("JSON, one \\u", MustDecoded, |it, chance| one_unit(it, chance), backslash),
    (
        "JSON in JSON",
        Must,
        |it, _| {
            let once = json(it.text()?, false);
            Some(it.inside(&json(std::str::from_utf8(&once).ok()?, false)))
        },
        backslash,
    ),
    (
        "JSON in JSON in JSON",
        MustDecoded,
        |it, _| {
            let mut text = it.text()?.to_owned();
            for _ in 0..3 {
                text = String::from_utf8(json(&text, false)).ok()?;
            }
            Some(it.inside(text.as_bytes()))
        },
        backslash,
    ),
    (
        "JSON in JSON, \\u",
        MustDecoded,
        |it, _| Some(it.inside(&json(&String::from_utf8(units(it.text()?)).ok()?, false))),
        backslash,
    ),
    ("\\x", MustDecoded, |it, _| Some(it.inside(&all(it.secret, |b| format!("\\x{b:02x}")))), backslash),
    ("octal", BlockOrFlag, |it, _| Some(it.inside(&all(it.secret, |b| format!("\\{b:03o}")))), backslash),
    (
        "HTML, decimal",
        MustDecoded,
        |it, _| {
            Some(it.inside(
                it.text()?.chars().map(|c| format!("&#{};", u32::from(c))).collect::<String>().as_bytes(),
            ))
        },
        html,
    ),
    (
        "HTML, hex",
        MustDecoded,
        |it, _| {
            Some(it.inside(
                it.text()?.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect::<String>().as_bytes(),
            ))
        },
        html,
    ),
    (
        "HTML, names",
        MustDecoded,
        |it, _| {
            let text = it
                .text()?
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;")
                .replace('"', "&quot;");
            Some(it.inside(text.as_bytes()))
        },
        html,
    ),
    (
        "quoted-printable",
        MustDecoded,
        |it, _| Some(it.inside(&all(it.secret, |b| format!("={b:02X}")))),
        printable,
    ),
    (
        "quoted-printable, soft breaks",
        BlockOrFlag,
        |it, chance| {
            let text = it.ascii().filter(|text| !text.contains('='))?;
            let (before, after) = text.split_at(chance.between(1, text.len() - 1));
            Some(it.inside(format!("=3D=3D{before}=\r\n{after}").as_bytes()))
        },
        printable,
    ),
    (
        "percent of base64",
        MustDecoded,
        |it, _| {
            use base64::Engine as _;
            let digits = base64::engine::general_purpose::STANDARD.encode(it.secret);
            Some(it.inside(&libraries(digits.as_bytes())))
        },
        |out| percent(out).iter().flat_map(|text| (super::text::FORMS[1].3)(text)).collect(),
    ),
    (
        "base64 of JSON",
        MustDecoded,
        |it, _| {
            use base64::Engine as _;
            let text = format!("{{\"key\":\"{}\"}}", String::from_utf8(json(it.text()?, true)).ok()?);
            Some(it.inside(base64::engine::general_purpose::STANDARD.encode(text).as_bytes()))
        },
        |out| (super::text::FORMS[1].3)(out).iter().flat_map(|text| backslash(text)).collect(),
    ),
    (
        "hex of percent",
        MustDecoded,
        |it, _| {
            let text = libraries(it.secret);
            Some(it.inside(text.iter().map(|b| format!("{b:02x}")).collect::<String>().as_bytes()))
        },
        |out| (super::text::FORMS[11].3)(out).iter().flat_map(|text| percent(text)).collect(),
    ),
    (
        "JSON of percent",
        MustDecoded,
        |it, _| {
            let text = String::from_utf8(all(it.secret, |b| format!("%{b:02X}"))).ok()?;
            Some(it.inside(&units(&text)))
        },
        |out| backslash(out).iter().flat_map(|text| percent(text)).collect(),
    ),
];

fn all(bytes: &[u8], form: impl Fn(u8) -> String) -> Vec<u8> {
    bytes.iter().flat_map(|byte| form(*byte).into_bytes()).collect()
}

/// In a text in which something is escaped these would be, too.
fn plus(byte: u8) -> bool {
    matches!(byte, b'%' | b'+' | b'&' | b'=') || !byte.is_ascii_graphic()
}

/// `encodeURIComponent`.
fn libraries(bytes: &[u8]) -> Vec<u8> {
    all(bytes, |b| {
        if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) {
            char::from(b).to_string()
        } else {
            format!("%{b:02X}")
        }
    })
}

fn one(bytes: &[u8], chance: &mut Chance, form: impl Fn(u8) -> String, also: impl Fn(u8) -> bool) -> Vec<u8> {
    let which = chance.below(bytes.len());
    let of = |(at, byte): (usize, &u8)| {
        if at == which || also(*byte) { form(*byte).into_bytes() } else { vec![*byte] }
    };
    bytes.iter().enumerate().flat_map(of).collect()
}

/// The body of a JSON string.
fn json(text: &str, slash: bool) -> Vec<u8> {
    let quoted = serde_json::to_string(text).unwrap_or_default();
    let inner = &quoted[1..quoted.len() - 1];
    if slash { inner.replace('/', "\\/").into_bytes() } else { inner.as_bytes().to_vec() }
}

fn units(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(|unit| format!("\\u{unit:04x}").into_bytes()).collect()
}

fn one_unit(it: &Given<'_>, chance: &mut Chance) -> Option<Vec<u8>> {
    let text = it.text()?;
    let which = chance.below(text.chars().count());
    let mut out = Vec::new();
    for (at, c) in text.chars().enumerate() {
        let alone = c.to_string();
        out.extend(if at == which { units(&alone) } else { json(&alone, false) });
    }
    Some(it.inside(&out))
}

fn digits(text: &[u8], radix: u32) -> Option<u32> {
    text.iter().try_fold(0_u32, |sum, b| sum.checked_mul(radix)?.checked_add(char::from(*b).to_digit(radix)?))
}

/// What undoes one escape at the beginning of some bytes: what it gives, and its length.
type Undo = fn(&[u8]) -> Option<(Vec<u8>, usize)>;

/// Undoes an escape wherever `at` knows one, up to four times over: each stage counts.
fn stages(out: &[u8], at: Undo) -> Vec<Vec<u8>> {
    let mut text = out.to_vec();
    let mut found = vec![text.clone()];
    for _ in 0..4 {
        let mut next = Vec::with_capacity(text.len());
        let mut from = 0;
        while from < text.len() {
            match at(&text[from..]) {
                Some((bytes, length)) => {
                    next.extend(bytes);
                    from += length;
                }
                None => {
                    next.push(text[from]);
                    from += 1;
                }
            }
        }
        if next == text {
            break;
        }
        found.push(next.clone());
        text = next;
    }
    found
}

fn percent(out: &[u8]) -> Vec<Vec<u8>> {
    stages(out, |text| match text {
        [b'%', a, b, ..] => Some((vec![u8::try_from(digits(&[*a, *b], 16)?).ok()?], 3)),
        _ => None,
    })
}

fn printable(out: &[u8]) -> Vec<Vec<u8>> {
    stages(out, |text| match text {
        [b'=', b'\r', b'\n', ..] => Some((Vec::new(), 3)),
        [b'=', a, b, ..] => Some((vec![u8::try_from(digits(&[*a, *b], 16)?).ok()?], 3)),
        _ => None,
    })
}

fn html(out: &[u8]) -> Vec<Vec<u8>> {
    stages(out, |text| {
        let end = text.iter().take(12).position(|b| *b == b';')?;
        let code = match text.get(1..end)? {
            [b'#', b'x', hex @ ..] if text[0] == b'&' => digits(hex, 16)?,
            [b'#', decimal @ ..] if text[0] == b'&' => digits(decimal, 10)?,
            b"amp" => 38,
            b"lt" => 60,
            b"gt" => 62,
            b"quot" => 34,
            _ => return None,
        };
        Some((char::from_u32(code)?.to_string().into_bytes(), end + 1))
    })
}

fn backslash(out: &[u8]) -> Vec<Vec<u8>> {
    stages(out, |text| match text {
        [b'\\', b'u', a, b, c, d, rest @ ..] => {
            let first = digits(&[*a, *b, *c, *d], 16)?;
            if let (0xd800..=0xdbff, [b'\\', b'u', e, f, g, h, ..]) = (first, rest) {
                let second = digits(&[*e, *f, *g, *h], 16)?;
                let whole = 0x10000 + ((first - 0xd800) << 10) + second.checked_sub(0xdc00)?;
                return Some((char::from_u32(whole)?.to_string().into_bytes(), 12));
            }
            Some((char::from_u32(first)?.to_string().into_bytes(), 6))
        }
        [b'\\', b'x', a, b, ..] => Some((vec![u8::try_from(digits(&[*a, *b], 16)?).ok()?], 4)),
        [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] => {
            Some((vec![u8::try_from(digits(&[*a, *b, *c], 8)?).ok()?], 4))
        }
        [b'\\', b'n', ..] => Some((b"\n".to_vec(), 2)),
        [b'\\', b't', ..] => Some((b"\t".to_vec(), 2)),
        [b'\\', b'r', ..] => Some((b"\r".to_vec(), 2)),
        [b'\\', c @ (b'"' | b'\\' | b'/'), ..] => Some((vec![*c], 2)),
        _ => None,
    })
}
