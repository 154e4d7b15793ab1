//! Tokens whose mark stands in the middle or at the end, where no search can begin: a whole run
//! is looked at.

use super::super::{addresses, byteset::ByteSet, check};
use super::value::{Form, hex, mixed, random};

/// The longest of them, but for what is signed, with the end of a sentence.
pub(super) const LONGEST: usize = 96;

/// Whether a run that is longer can still become one.
pub(super) fn goes_on(begun: &[u8]) -> bool {
    begun.starts_with(b"ey")
}

/// The part of a run that is such a token (0), or an address of Bitcoin (1) or Ethereum (2).
/// `equals` is where its first `=` is.
pub(super) fn own(run: &[u8], equals: Option<usize>) -> Option<(u16, usize, usize)> {
    let to = run.len() - super::dots(run);
    let part = |from: usize| Some((form(run.get(from..to)?)?, from, to));
    // `name=token`: behind the first `=` that is no padding.
    part(0).or_else(|| part(equals? + 1))
}

fn form(value: &[u8]) -> Option<u16> {
    match value {
        [b'1' | b'3', ..] if (26..=35).contains(&value.len()) => addresses::base58check(value).then_some(1),
        [b'0', b'x', digits @ ..] if digits.len() == 40 => {
            (digits.iter().all(u8::is_ascii_hexdigit) && mixed(digits)).then_some(2)
        }
        _ => token(value).then_some(0),
    }
}

/// Beginnings that words have, too: the length and the bytes behind them tell.
const BEGINNINGS: [(&[u8], Form, usize, usize); 11] = [
    (b"s.", Form::Alnum, 24, 24),
    (b"ion_", Form::Alnum, 42, 42),
    (b"nfp_", Form::Alnum, 36, 36),
    (b"nfc_", Form::Alnum, 36, 36),
    (b"nfo_", Form::Alnum, 36, 36),
    (b"KEY", Form::Word, 53, 56),
    (b"key_", Form::Hex, 64, 64),
    (b"test_", Form::Hex, 31, 35),
    (b"live_", Form::Hex, 31, 35),
    (b"re_", Form::Word, 33, 33),
    (b"sk_live_", Form::Alnum, 40, 40),
];

/// A beginning, and behind it what looks drawn by a machine.
fn begun(value: &[u8]) -> bool {
    BEGINNINGS.iter().any(|(beginning, form, min, max)| {
        value.strip_prefix(*beginning).is_some_and(|rest| {
            (*min..=*max).contains(&rest.len())
                && form.holds(rest)
                && random(rest, 3.0)
                && (*form == Form::Hex || rest.iter().any(u8::is_ascii_uppercase) || rest.len() > 24)
        })
    })
}

fn token(value: &[u8]) -> bool {
    match value {
        [b's' | b'i' | b'n' | b'K' | b'k' | b't' | b'l' | b'r', ..] if begun(value) => true,
        [_, _, _, b'0'..=b'9', b'Q', b'~', ..] => azure(value),
        [.., b'_', b'm', b'm', b'k'] => maxmind(value),
        [b'p', b'a', b't', ..] => airtable(value),
        [b'e', b'y', ..] => signed(value),
        [.., b'-', b'u', b's', _] | [.., b'-', b'u', b's', _, _] => mailchimp(value),
        [b'M' | b'N' | b'O', ..] if discord(value) => true,
        _ if value.get(14..23) == Some(&b".atlasv1."[..]) => terraform(value),
        _ => false,
    }
}

/// Client secrets of Microsoft Entra: three bytes, a digit, `Q~`, and 31 to 34 more.
fn azure(value: &[u8]) -> bool {
    const SET: ByteSet = ByteSet::TOKEN.with(b"~");
    (37..=40).contains(&value.len()) && SET.holds(value) && check::entropy(value) >= 3.3 && mixed(&value[6..])
}

/// `id_key_mmk`.
fn maxmind(value: &[u8]) -> bool {
    value.len() == 40
        && value[6] == b'_'
        && Form::Alnum.holds(&value[..6])
        && Form::Alnum.holds(&value[7..36])
}

/// `pat` and 14 bytes, a dot, and hex.
fn airtable(value: &[u8]) -> bool {
    (80..=86).contains(&value.len())
        && value[17] == b'.'
        && Form::Alnum.holds(&value[..17])
        && Form::Alnum.holds(&value[18..])
        && mixed(&value[18..])
}

/// Something signed whose header does not decode: parts in base64, joined by dots.
fn signed(value: &[u8]) -> bool {
    let mut parts = value.splitn(4, |b| *b == b'.');
    let long = |part: Option<&[u8]>, least| part.is_some_and(|p| p.len() >= least && Form::Word.holds(p));
    value.len() >= 80
        && long(parts.next(), 17)
        && long(parts.next(), 17)
        && mixed(value)
        && check::scrambled(value)
}

/// Digits of hex, and the data centre.
fn mailchimp(value: &[u8]) -> bool {
    let digits = value.len() - value.iter().rev().take_while(|b| **b != b'-').count() - 1;
    digits == 32 && hex(&value[..32]) && value[digits + 3..].iter().all(u8::is_ascii_digit)
}

/// An id, `.atlasv1.`, and the key.
fn terraform(value: &[u8]) -> bool {
    (83..=93).contains(&value.len()) && Form::Alnum.holds(&value[..14]) && mixed(&value[23..])
}

/// An id in base64, a time, a signature.
fn discord(value: &[u8]) -> bool {
    let mut parts = value.split(|b| *b == b'.');
    let (Some(id), Some(time), Some(sign), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    (23..=28).contains(&id.len())
        && time.len() == 6
        && (27..=40).contains(&sign.len())
        && [id, time, sign].iter().all(|part| Form::Word.holds(part))
        && mixed(id)
        && mixed(sign)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(run: &str) -> Option<(u16, usize, usize)> {
        own(run.as_bytes(), super::super::Head::of(run.as_bytes(), run.len()).equals())
    }

    #[test]
    fn marks_in_the_middle_are_seen() {
        let long = "a1B2c3D4e5F6g7H8i9J0".repeat(5);
        for token in [
            ["abc8", "Q~", &long[..32]].concat(),
            ["client_secret=abc7", "Q~", &long[..33]].concat(),
            ["ABC123_", &long[..29], "_mmk"].concat(),
            ["patABCdef12345678.", &"0123456789abcdef".repeat(4)].concat(),
            [&"0123456789abcdef".repeat(2), "-us12"].concat(),
            ["MTAx", &long[..20], ".abcdef.", &long[..28]].concat(),
            ["abcdefghijklmn", ".atlasv1.", &long[..67]].concat(),
            ["s.", &long[..24]].concat(),
            ["ion_", &long[..42]].concat(),
            ["live_", "951bc382db9abad29c", "68634761dd6e19a7b"].concat(),
        ] {
            assert!(whole(&token).is_some(), "{token}");
        }
        for other in
            ["abc8Q~short", "path.to.some.thing.else", "eyes-on-the-road.eyes-on-the-road", "check-us12"]
        {
            assert!(whole(other).is_none(), "{other}");
        }
    }
}
