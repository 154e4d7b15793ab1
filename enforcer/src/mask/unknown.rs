//! What looks like a credential, but nothing knows it: by the shape of one run of token
//! characters, and by little of what stands around it.
//!
//! A token is made by a machine: its characters change their class at every second place, and
//! hardly any comes twice. Names do neither. Hashes do both, but in hex, or behind the name of
//! their function; what wraps at a fixed width is coded data.

/// The rule and its entity.
pub(super) const UNKNOWN: (&str, &str) = ("unknown-credential", "UNKNOWN_CREDENTIAL");
/// The shortest run that is judged, in bytes.
pub(super) const UNKNOWN_MIN_BYTES: usize = 20;
/// The longest: what is longer is data.
pub(super) const UNKNOWN_MAX_BYTES: usize = 200;

/// Letters of one case in a row that machines hardly write.
const WORD_LETTERS: usize = 6;
/// What stands before digests: names of their functions, and of fields of lock files.
const DIGESTS: [&[u8]; 14] = [
    b"sha1",
    b"sha256",
    b"sha384",
    b"sha512",
    b"sha-256",
    b"md5",
    b"h1:",
    b"base64,",
    b"integrity",
    b"checksum",
    b"digest",
    b"nonce",
    b"dnskey",
    b"fingerprint",
];

/// Whether a run between `before` and `after` looks like a credential.
pub(super) fn looks_like_credential(before: &[u8], run: &[u8], after: &[u8]) -> bool {
    if !(UNKNOWN_MIN_BYTES..=UNKNOWN_MAX_BYTES).contains(&run.len()) || is_called(before, after) {
        return false;
    }
    let named = before.trim_ascii_end();
    let named = named.strip_suffix(b"\"").unwrap_or(named).trim_ascii_end();
    let near = &named[named.len().saturating_sub(24)..];
    let around = [near, run].concat().to_ascii_lowercase();
    let is_digest = DIGESTS.iter().any(|name| memchr::memmem::find(&around, name).is_some());
    if is_digest || is_wrapped(before, run, after) || is_identifier(before) || is_coded_text(run) {
        return false;
    }
    // Public keys of SSH, and symbols of Rust and C++.
    if [&b"AAAA"[..], b"_R", b"_ZN"].iter().any(|beginning| run.starts_with(beginning)) {
        return false;
    }
    // `name=value`, or parts of a path or a name of a file, each by itself.
    run.split(|b| matches!(b, b'=' | b'.' | b'~')).any(is_random)
}

/// Behind the name of an id, of a place, or of where a list goes on. Who has the id of a session
/// is in it.
fn is_identifier(before: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] =
        [b"etag", b"location", b"marker", b"nexttoken", b"continuationtoken", b"cursor", b"pagetoken"];
    let operator = |b: &u8| matches!(b, b' ' | b'\t' | b'"' | b'\'' | b'\\' | b':' | b'=');
    let end = before.len() - before.iter().rev().take_while(|b| operator(b)).count();
    if !before[end..].iter().any(|b| matches!(b, b':' | b'=')) {
        return false;
    }
    let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let name = &before[end - before[..end].iter().rev().take_while(|b| part(b)).count()..end];
    let lower: Vec<u8> =
        name.iter().filter(|b| b.is_ascii_alphanumeric()).map(u8::to_ascii_lowercase).collect();
    let is_id = match name {
        [.., b'I', b'd'] | [.., b'_' | b'-', b'i' | b'I', b'd' | b'D'] | [b'i' | b'I', b'd' | b'D'] => true,
        [.., last, b'I', b'D'] => last.is_ascii_lowercase(),
        _ => false,
    };
    (is_id && !lower.ends_with(b"sessionid") && !lower.ends_with(b"sid"))
        || NAMES.iter().any(|no| lower.ends_with(no))
}

/// All of a text is a single token. Of one in a coding that is looked at where the coding is, since
/// its name stands there.
fn is_one_token(text: &[u8]) -> bool {
    text.iter().all(|b| b.is_ascii_alphanumeric() || b"+/-_=.~".contains(b))
}

/// Text in base64: what is in it is looked at by itself.
fn is_coded_text(run: &[u8]) -> bool {
    use base64::Engine as _;
    let digits: Vec<u8> = run
        .iter()
        .filter(|b| **b != b'=')
        .map(|b| match b {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    let whole = &digits[..digits.len() - usize::from(digits.len() % 4 == 1)];
    let forgiving = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
    );
    forgiving.decode(whole).is_ok_and(|text| {
        !is_one_token(&text) && text.iter().all(|b| matches!(b, b' '..=b'~' | b'\n' | b'\r' | b'\t'))
    })
}

/// A name of something that is called, or of a field; a part of a name of AWS or of a hashed host, or in the midst of marks.
fn is_called(before: &[u8], after: &[u8]) -> bool {
    let word = before.rsplit(|b| matches!(b, b' ' | b'"' | b'\'' | b'\n')).next().unwrap_or_default();
    let is_open = before.ends_with(b"`") && !after.starts_with(b"`");
    if matches!(before.last(), Some(b'{' | b'^'))
        || is_open
        || word.starts_with(b"arn:")
        || word.starts_with(b"|1|")
    {
        return true;
    }
    after.first().is_some_and(|b| matches!(b, b'(' | b'[' | b'<' | b'{' | b'!' | b'^' | b'#' | b'$'))
}

/// Lines of coded data: alone on its line, and as wide as tools wrap it, or behind such a line.
fn is_wrapped(before: &[u8], run: &[u8], after: &[u8]) -> bool {
    let alone =
        after.first().is_none_or(|b| matches!(b, b'\r' | b'\n' | b'"' | b'\'' | b'\\' | b'-' | b' ' | b'}'));
    if !alone {
        return false;
    }
    // What stands on its own line before it, and the line above.
    let begin = before.iter().rposition(|b| matches!(b, b'\n' | b'\r')).map_or(0, |at| at + 1);
    let lead = before[begin..].trim_ascii();
    let above = before[..begin].split(|b| matches!(b, b'\n' | b'\r')).rfind(|l| !l.trim_ascii().is_empty());
    let comment = |line: &[u8]| {
        line.iter().take_while(|b| matches!(b, b'/' | b'!' | b'#' | b'*' | b' ' | b'\t')).count()
    };
    let is_comment = !lead.is_empty() && comment(lead) == lead.len();
    let quoted = lead.len() <= 4 && lead.last().is_some_and(|b| matches!(b, b'"' | b'\''));
    let least = if is_comment {
        UNKNOWN_MIN_BYTES.max(run.len())
    } else if quoted {
        44
    } else {
        56
    };
    let wide = |line: &[u8]| {
        let line = &line[if is_comment { comment(line) } else { 0 }..];
        // Something can be named before the first line.
        let line = line.trim_ascii().rsplit(|b| *b == b' ').next().unwrap_or_default();
        let line = line.strip_suffix(b"\\n\"").unwrap_or(line).trim_ascii();
        line.len() >= least && line.iter().all(|b| b.is_ascii_alphanumeric() || b"+/-_=\"'\\,".contains(b))
    };
    (lead.is_empty() && (60..=76).contains(&run.len()) && !after.starts_with(b" "))
        || ((lead.is_empty() || is_comment || quoted) && above.is_some_and(wide))
}

/// Whether a part of a run is like what machines make.
fn is_random(part: &[u8]) -> bool {
    let part = part.trim_ascii();
    if part.len() < UNKNOWN_MIN_BYTES {
        return false;
    }
    let count = |is: fn(&u8) -> bool| part.iter().filter(|b| is(b)).count();
    let (digits, upper) = (count(u8::is_ascii_digit), count(u8::is_ascii_uppercase));
    let (lower, other) = (count(u8::is_ascii_lowercase), part.len() - count(u8::is_ascii_alphanumeric));
    let hex = part.iter().all(|b| b.is_ascii_hexdigit() || *b == b'-' || *b == b'_');
    // Of random base64 one in thirty-two is no letter and no digit; names have more.
    if hex || digits < 2 || digits * 16 < part.len() || lower < 3 || other * 12 > part.len() {
        return false;
    }
    let mixed = upper >= 3;
    if (!mixed && part.len() < 28)
        || is_drawing(part)
        || has_word(part)
        || is_named(part)
        || is_sequence(part)
    {
        return false;
    }
    let class = |b: u8| match b {
        b'0'..=b'9' => 0,
        b'A'..=b'Z' => 1,
        b'a'..=b'z' => 2,
        _ => 3,
    };
    let changes = part.windows(2).filter(|pair| class(pair[0]) != class(pair[1])).count();
    // Random base62 changes its class at 62 of 100 places, base36 at 40.
    let least = if mixed { 42 } else { 28 };
    changes * 100 >= least * (part.len() - 1) && is_various(part)
}

/// A stretch of letters of one case that reads like a word.
fn has_word(part: &[u8]) -> bool {
    let stretch = |is: fn(&u8) -> bool| part.split(|b| !is(b)).map(<[u8]>::len).max().unwrap_or_default();
    // In what is long a stretch of letters comes by chance.
    let most = WORD_LETTERS + part.len() / 48;
    stretch(u8::is_ascii_lowercase) > most || stretch(u8::is_ascii_uppercase) > most
}

/// The path of a drawing in SVG: commands of one letter, and numbers.
fn is_drawing(part: &[u8]) -> bool {
    part.iter().all(|b| b.is_ascii_digit() || b"-MmZzLlHhVvCcSsQqTtAa".contains(b))
}

/// Words written together, `LikeThis` or `like_that`: about half of it is in them. In
/// what is random it is about a quarter.
fn is_named(part: &[u8]) -> bool {
    let (mut inside, mut at) = (0, 0);
    while at < part.len() {
        let capital = usize::from(part[at].is_ascii_uppercase());
        let small = part[at + capital..].iter().take_while(|b| b.is_ascii_lowercase()).count();
        if small + capital >= 3 && small >= 2 {
            inside += small + capital;
        }
        at += (small + capital).max(1);
    }
    inside * 2 + 2 > part.len()
}

/// Alphabets and counters: what follows is what comes next.
fn is_sequence(part: &[u8]) -> bool {
    let next = part.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) <= 1).count();
    next * 3 > part.len()
}

/// Whether hardly anything comes twice: at least nine tenths of the entropy that random
/// characters of this length have.
fn is_various(part: &[u8]) -> bool {
    let length = f64::from(u32::try_from(part.len()).unwrap_or(u32::MAX));
    super::check::entropy(part) >= 0.86 * length.min(44.0).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str) -> bool {
        looks_like_credential(b"x = \"", text.as_bytes(), b"\"")
    }

    #[test]
    fn what_machines_make_looks_like_a_credential() {
        // In pieces, so that no scanner takes them for real ones.
        for parts in [
            ["q7Gz2XmW9sKp", "4Lr8TvYbN3cD"],
            ["Zk3_9fQx-2LmP", "v8RtY6wBn1Hs"],
            ["token=aB3dE5gH7", "jK9mN2pQ4sT6v"],
            ["x9k2m4n8b7v3c1z5l6", "j0h4g8f2d6s9a3p7"],
        ] {
            assert!(is(&parts.concat()), "{parts:?}");
        }
    }

    #[test]
    fn names_hashes_and_coded_data_do_not() {
        for text in [
            "550e8400-e29b-41d4-a716-446655440000",
            "d41d8cd98f00b204e9800998ecf8427ed41d8cd9",
            "getElementsByTagNameNS2AndMore3",
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
            "src/main/java/org/example/Http2Client3Test4.java",
            "some-long-kebab-case-name-with-v2-and-v3",
            "sha512-Zk39fQx2LmPv8RtY6wBn1HsZk39fQx2LmPv8RtY6wBn1Hs==",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1A2b",
            "01234567890123456789012345678901",
            "_ZN4core3fmt9Formatter9write_str17h",
        ] {
            assert!(!is(text), "{text}");
        }
        let token = ["q7Gz2XmW9sKp", "4Lr8TvYbN3cD"].concat();
        for before in ["\"VersionId\": \"", "etag=", "next_token: ", "arn:aws:x:y:1:z/", "x = {", "|1|abc=|"]
        {
            assert!(!looks_like_credential(before.as_bytes(), token.as_bytes(), b"\""), "{before}");
        }
        for before in ["\"sessionId\": \"", "valid=", "PHPSESSID: ", "x: "] {
            assert!(looks_like_credential(before.as_bytes(), token.as_bytes(), b"\""), "{before}");
        }
        assert!(!is("eyJuYW1lIjogIm5vdGhpbmcgc2VjcmV0IiwgIm4iOiAxMn0"), "text in base64");
        assert!(!is("12.9V12H4zm5-6v2h14V7zm0M9h3v-1H5.2L7"), "a drawing");
        let above = format!("    b\"{}\"\n    b\"", token.repeat(2));
        assert!(!looks_like_credential(above.as_bytes(), token.as_bytes(), b"\" "), "in quoted lines");
        assert!(!looks_like_credential(b"data:image/png;base64,", token.as_bytes(), b"\""));
        assert!(!looks_like_credential(b"integrity: ", token.as_bytes(), b"\n"));
        assert!(!looks_like_credential(b"x = ", token.as_bytes(), b"("));
        let line = token.repeat(3);
        let before = format!("{}\n", &line[..64]);
        assert!(!looks_like_credential(before.as_bytes(), token.as_bytes(), b"\n-----END"), "the last line");
        assert!(!looks_like_credential(b"\n", &line.as_bytes()[..64], b"\n"), "a whole line");
    }

    #[test]
    fn lengths_have_two_sides() {
        let token = ["q7Gz2XmW9sKp", "4Lr8TvYbN3cD"].concat();
        assert!(is(&token[..UNKNOWN_MIN_BYTES]) && !is(&token[..UNKNOWN_MIN_BYTES - 1]));
        let mut state = 7;
        assert!((0..9).any(|_| is(&random(&mut state, UNKNOWN_MAX_BYTES))));
        assert!((0..9).all(|_| !is(&random(&mut state, UNKNOWN_MAX_BYTES + 1))));
    }

    fn random(state: &mut u64, length: usize) -> String {
        let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut next = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(alphabet[usize::try_from(*state >> 33).unwrap() % alphabet.len()])
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn most_of_what_is_random_is_found() {
        let mut state = 11;
        for (length, least) in [(24, 650), (32, 750), (40, 750), (64, 750)] {
            let found = (0..1000).filter(|_| is(&random(&mut state, length))).count();
            assert!(found >= least, "{found} of 1000 with {length} characters");
        }
    }
}
