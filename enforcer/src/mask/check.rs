//! Checks of a candidate's value: what a regex cannot say.

use base64::Engine as _;

use super::{addresses, ids};

/// A check that a detector can name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// Holds for everything.
    None,
    /// Letters and digits, and an entropy of at least 3 bits a byte.
    Random,
    /// Shannon entropy of at least this many bits a byte.
    Entropy(f32),
    /// At least one digit.
    Digit,
    /// At least one letter.
    Letter,
    /// No placeholder: not one byte over and over, no `xxxx`, no `your_key`.
    Real,
    /// Letters of both cases.
    Mixed,
    /// No structure of words: letters, cases and digits change often.
    Scrambled,
    /// No variable, call or placeholder in the place of a password.
    Password,
    /// A password with at least three kinds of characters, one of them neither letter nor digit
    /// or not at the end.
    Strong,
    /// A password that is no name of a field or an order (`newpassword`, `enteryourpassword`).
    Phrase,
    /// None of the keys that their issuer has published in its samples.
    Unpublished,
    /// The check digit of payment cards.
    Luhn,
    /// The check of IBANs.
    Mod97,
    /// `user:password` in base64.
    Basic,
    /// Germany's tax id.
    Iso7064,
    /// France's number of social security.
    Nir,
    /// Spain's identity card.
    Dni,
    /// The Netherlands' number of citizens.
    Bsn,
    /// Poland's number of persons.
    Pesel,
    /// Brazil's tax id.
    Cpf,
    /// Italy's tax code.
    CodiceFiscale,
    /// The checksum of addresses of Bitcoin that begin with `bc1`.
    Bech32,
}

impl Check {
    /// The check of a name as it stands in a file: `random`, `entropy:3.5`, `luhn`.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "random" => Self::Random,
            "digit" => Self::Digit,
            "letter" => Self::Letter,
            "real" => Self::Real,
            "mixed" => Self::Mixed,
            "scrambled" => Self::Scrambled,
            "password" => Self::Password,
            "strong" => Self::Strong,
            "phrase" => Self::Phrase,
            "luhn" => Self::Luhn,
            "mod97" => Self::Mod97,
            "basic" => Self::Basic,
            "bech32" => Self::Bech32,
            "iso7064" => Self::Iso7064,
            "nir" => Self::Nir,
            "dni" => Self::Dni,
            "bsn" => Self::Bsn,
            "pesel" => Self::Pesel,
            "cpf" => Self::Cpf,
            "codice-fiscale" => Self::CodiceFiscale,
            _ => {
                let bits: f32 = name.strip_prefix("entropy:")?.parse().ok()?;
                (0.0..=8.0).contains(&bits).then_some(Self::Entropy(bits))?
            }
        })
    }

    /// Whether a value passes.
    pub(super) fn holds(self, value: &[u8]) -> bool {
        match self {
            Self::None => true,
            Self::Random => random(value),
            Self::Entropy(bits) => entropy(value) >= f64::from(bits),
            Self::Digit => value.iter().any(u8::is_ascii_digit),
            Self::Letter => value.iter().any(u8::is_ascii_alphabetic),
            Self::Real => real(value),
            Self::Mixed => {
                value.iter().any(u8::is_ascii_uppercase) && value.iter().any(u8::is_ascii_lowercase)
            }
            Self::Scrambled => scrambled(value),
            Self::Password => password(value),
            Self::Strong => strong(value),
            Self::Phrase => password(value) && !orders(value),
            Self::Unpublished => !published(value),
            Self::Luhn => luhn(value),
            Self::Mod97 => iban(value),
            Self::Basic => basic(value),
            Self::Bech32 => addresses::bech32(value),
            Self::Iso7064 => ids::iso7064(value),
            Self::Nir => ids::nir(value),
            Self::Dni => ids::dni(value),
            Self::Bsn => ids::bsn(value),
            Self::Pesel => ids::pesel(value),
            Self::Cpf => ids::cpf(value),
            Self::CodiceFiscale => ids::codice_fiscale(value),
        }
    }
}

/// Whether a value is text and no placeholder: people write one byte over and over, or say what
/// belongs there, and noise is hardly ever UTF-8.
pub(super) fn real(value: &[u8]) -> bool {
    const WORDS: [&[u8]; 12] = [
        b"xxxx",
        b"****",
        b"....",
        b"your_",
        b"your-",
        b"yourkey",
        b"yourtoken",
        b"placeholder",
        b"changeme",
        b"_here",
        b"-here",
        b"redacted",
    ];
    let lower = value.to_ascii_lowercase();
    str::from_utf8(value).is_ok()
        && entropy(value) >= 2.0
        && !WORDS.iter().any(|word| memchr::memmem::find(&lower, word).is_some())
}

/// The share of distinct bytes and digits that random tokens have and words have not.
pub(super) fn random(value: &[u8]) -> bool {
    value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic) && entropy(value) >= 3.0
}

/// How many pieces of one kind a value falls into: words give few and long ones
/// (`Picture`, `2024`), what is random gives many short ones.
pub(super) fn pieces(value: &[u8]) -> usize {
    let mut pieces = 0;
    let mut last = 0_u8;
    for &b in value {
        let kind = match b {
            b'a'..=b'z' => 1,
            b'A'..=b'Z' => 2,
            b'0'..=b'9' => 3,
            _ => 0,
        };
        // A capital begins a word that goes on in small letters.
        let same = kind == last || (last == 2 && kind == 1);
        if kind != 0 && !same {
            pieces += 1;
        }
        last = kind;
    }
    pieces
}

/// No structure of words.
pub(super) fn scrambled(value: &[u8]) -> bool {
    let letters = value.iter().filter(|b| b.is_ascii_alphanumeric()).count();
    letters * 10 <= pieces(value) * if value.len() < 24 { 30 } else { 36 }
}

/// No variable, call, path or placeholder.
fn password(value: &[u8]) -> bool {
    const WORDS: [&[u8]; 19] = [
        b"anonymous",
        b"userid",
        b"username",
        b"password",
        b"passwd",
        b"pass",
        b"pwd",
        b"xxx",
        b"***",
        b"secret",
        b"test",
        b"user",
        b"null",
        b"none",
        b"true",
        b"false",
        b"undefined",
        b"changeme",
        b"...",
    ];
    let lower = value.to_ascii_lowercase();
    let odd = value.iter().any(|b| matches!(b, b'(' | b'[' | b'{' | b'}' | b'<' | b'>'));
    let variable = matches!(value.first(), Some(b'$' | b'%' | b'#' | b'@' | b'&' | b'*'));
    !odd && !variable && entropy(value) > 1.5 && !WORDS.iter().any(|word| lower == *word) && real(value)
}

/// Begins as names of fields and texts in forms do.
fn orders(value: &[u8]) -> bool {
    const BEGINNINGS: [&str; 14] = [
        "change", "confirm", "current", "enter", "example", "forgot", "input", "new", "old", "pass",
        "repeat", "reset", "user", "your",
    ];
    BEGINNINGS.iter().any(|word| value.starts_with(word.as_bytes()))
}

/// Several kinds of characters, as rules for passwords want them.
fn strong(value: &[u8]) -> bool {
    let digits = value.iter().any(u8::is_ascii_digit);
    let letters = value.iter().any(u8::is_ascii_alphabetic);
    let both = value.iter().any(u8::is_ascii_uppercase) && value.iter().any(u8::is_ascii_lowercase);
    let marks = value
        .iter()
        .any(|b| matches!(b, b'!' | b'@' | b'#' | b'$' | b'%' | b'^' | b'&' | b'*' | b'?' | b'~'));
    let inner = value.len() >= 8 && value[1..value.len() - 1].iter().any(|b| b"!@#$^&*~".contains(b));
    let long = value.len() >= 12 && both && scrambled(value);
    password(value)
        && letters
        && ((marks && (digits || both)) || (digits && both && value.len() >= 8) || inner || long)
}

/// FNV-1a, 64 bits.
fn fnv(value: &[u8]) -> u64 {
    value.iter().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// Keys for Google's services that stand in its own samples and documents, by their hashes.
fn published(value: &[u8]) -> bool {
    PUBLISHED.binary_search(&fnv(value)).is_ok()
}

/// Sorted.
const PUBLISHED: [u64; 16] = [
    0x08b5_4596_2adc_7d8b,
    0x1211_3c2e_6979_f447,
    0x294c_63f8_344d_5df1,
    0x29a3_36c7_244f_48dd,
    0x515c_b771_a423_8032,
    0x6835_e0f2_8883_2a40,
    0x6acb_d824_bd32_bbd4,
    0x816c_d10f_db11_ead0,
    0x8288_18f8_3325_7868,
    0x99b2_7263_46a1_e92a,
    0xadbd_04e3_fe1b_6d49,
    0xc73f_1e61_952e_6987,
    0xc800_bf21_00a2_1c67,
    0xdb94_22f1_dd33_2dcc,
    0xe754_678e_a2b1_4ef1,
    0xe766_6dbb_286c_6c2e,
];

/// Shannon entropy in bits a byte.
pub(super) fn entropy(value: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for &b in value {
        counts[usize::from(b)] += 1;
    }
    let total: f64 = counts.iter().map(|&c| f64::from(c)).sum();
    let share = |c: &u32| f64::from(*c) / total;
    counts.iter().filter(|c| **c > 0).map(|c| -share(c) * share(c).log2()).sum()
}

/// `user:password` in base64 (RFC 7617).
pub(super) fn basic(value: &[u8]) -> bool {
    let digits = value.trim_ascii_end();
    let digits = digits.split(|&b| b == b'=').next().unwrap_or_default();
    let forgiving = base64::engine::GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        base64::engine::general_purpose::NO_PAD.with_decode_allow_trailing_bits(true),
    );
    let Ok(text) = forgiving.decode(digits) else {
        return false;
    };
    text.contains(&b':') && !text.iter().any(u8::is_ascii_control) && str::from_utf8(&text).is_ok()
}

/// The check digit of payment cards (ISO/IEC 7812-1).
pub(super) fn luhn(value: &[u8]) -> bool {
    let digits = value.iter().rev().filter(|b| b.is_ascii_digit());
    let sum: u32 = digits
        .enumerate()
        .map(|(index, b)| {
            let digit = u32::from(b - b'0');
            let doubled = digit * 2;
            if index % 2 == 0 { digit } else { doubled / 10 + doubled % 10 }
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The check of IBANs (ISO 13616: modulo 97 over the text turned by four).
pub(super) fn iban(value: &[u8]) -> bool {
    let text: Vec<u8> = value.iter().copied().filter(u8::is_ascii_alphanumeric).collect();
    let Some((head, tail)) = text.split_at_checked(4) else {
        return false;
    };
    let rest = tail.iter().chain(head).fold(0_u32, |rest, &b| match b {
        b'0'..=b'9' => (rest * 10 + u32::from(b - b'0')) % 97,
        _ => (rest * 100 + u32::from(b.to_ascii_uppercase() - b'A') + 10) % 97,
    });
    rest == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_examples() {
        assert!(luhn(b"4111 1111 1111 1111") && !luhn(b"4111 1111 1111 1112"));
        assert!(iban(b"GB82 WEST 1234 5698 7654 32") && !iban(b"GB82 WEST 1234 5698 7654 33"));
        assert!(basic(b"QWxhZGRpbjpvcGVuIHNlc2FtZQ==") && !basic(b"understanding"));
        assert_eq!(Check::parse("entropy:3.5"), Some(Check::Entropy(3.5)));
        assert!(Check::parse("entropy:9").is_none() && Check::parse("other").is_none());
        assert!(!real(b"xxxxxxxxxxxxxxxxxxxx1") && real(b"a1b2c3d4"));
        assert!(random(b"a1b2c3d4e5f6g7h8") && !random(b"aaaaaaaaaaaaaaa1"));
    }
}
