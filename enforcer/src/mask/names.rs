//! Host names that carry data: labels in hex, base32 or base64 that decode to text.

use base64::Engine as _;

use super::{
    check,
    findings::Findings,
    selection::{SET_THREATS, Selection},
    strategy::Strategy,
    types::{Entity, Place},
};

/// The rule, its set and its entity.
pub(super) const ENCODED: (&str, &str, &str) = ("encoded-hostname", SET_THREATS, "ENCODED_HOSTNAME");

/// The longest name of a host (RFC 1035).
pub(super) const NAME_MAX_BYTES: usize = 253;
/// Shorter labels decode to text by chance.
const HEX_MIN: usize = 12;
const BASE32_MIN: usize = 16;
const BASE64_MIN: usize = 16;
/// A label without a meaning of this length is no name of a server.
const DENSE_MIN: usize = 40;

impl Selection {
    /// What is found in the name of a host, and what is to be done about it: a name cannot be
    /// masked, so everything but [`Strategy::Observe`] denies it. `None` if nothing was selected
    /// that finds something.
    pub fn name_of_host(&self, host: &str) -> Option<(Findings, Strategy)> {
        let entity = suspicious_name(host)?;
        let strategy = self.of_detector(ENCODED.0, ENCODED.1, ENCODED.2)?;
        Some((Findings::one(&entity, ENCODED.0, &Place::Host, None), strategy))
    }
}

/// Whether a name looks as if data were sent in it, as `ENCODED_HOSTNAME`.
pub fn suspicious_name(host: &str) -> Option<Entity> {
    // The last two labels are somebody's registered name.
    let labels: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let own = labels.len().saturating_sub(2);
    labels[..own].iter().any(|label| carries(label.as_bytes())).then(|| Entity::new(ENCODED.2))
}

fn carries(label: &[u8]) -> bool {
    hex(label).is_some_and(|text| readable(&text))
        || base32(label).is_some_and(|text| begins_readable(&text))
        || base64(label).is_some_and(|text| readable(&text))
        || dense(label)
}

/// Only printable bytes, most of them letters and digits.
fn readable(text: &[u8]) -> bool {
    let words = text.iter().filter(|b| b.is_ascii_alphanumeric()).count();
    text.iter().all(|b| (b' '..=b'~').contains(b)) && words * 3 >= text.len() * 2
}

fn begins_readable(text: &[u8]) -> bool {
    let printable = text.iter().filter(|b| (b' '..=b'~').contains(*b)).count();
    text.iter().take(5).all(|b| (b' '..=b'~').contains(b)) && printable * 5 >= text.len() * 3
}

fn hex(label: &[u8]) -> Option<Vec<u8>> {
    if label.len() < HEX_MIN || !label.len().is_multiple_of(2) {
        return None;
    }
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    label.chunks(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

fn base32(label: &[u8]) -> Option<Vec<u8>> {
    if label.len() < BASE32_MIN || !label.iter().any(u8::is_ascii_digit) {
        return None;
    }
    let (mut bits, mut held, mut out) = (0_u32, 0, Vec::new());
    for b in label {
        let value = match b.to_ascii_lowercase() {
            b @ b'a'..=b'z' => b - b'a',
            b @ b'2'..=b'7' => b - b'2' + 26,
            _ => return None,
        };
        bits = (bits << 5 | u32::from(value)) & 0xfff;
        held += 5;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).unwrap_or(0));
        }
    }
    Some(out)
}

fn base64(label: &[u8]) -> Option<Vec<u8>> {
    if label.len() < BASE64_MIN {
        return None;
    }
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(label).ok()
}

/// Long, without words, and no hash in hex.
fn dense(label: &[u8]) -> bool {
    label.len() >= DENSE_MIN
        && !label.iter().all(u8::is_ascii_hexdigit)
        && !label.contains(&b'-')
        && check::entropy(label) >= 4.0
        && check::scrambled(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_decode_to_text_are_seen() {
        for host in [
            "7365637265745f6b65793d31323334.exfil.example.com",
            "JBSWY3DPEHPK3PXP.exfil.example.com",
            "4a6f686e446f65.53656372657431.x.example.com",
            "c2VjcmV0LWtleS0xMjM0NQ.x.example.com",
        ] {
            assert!(suspicious_name(host).is_some(), "{host}");
        }
        for host in [
            "api.github.com",
            "registry.npmjs.org",
            "d111111abcdef8.cloudfront.net",
            "a1b2c3d4e5f60718293a4b5c6d7e8f90.elb.us-east-1.amazonaws.com",
            "productionresultssa12.blob.core.windows.net",
            "objects-origin.githubusercontent.com",
            "7365637265745f6b65793d31323334.com",
        ] {
            assert!(suspicious_name(host).is_none(), "{host}");
        }
    }

    #[test]
    fn policy_says_what_becomes_of_such_a_name() {
        let name = "7365637265745f6b65793d31323334.exfil.example.com";
        let selected = |names: &[&str]| Selection::parse(names).unwrap().name_of_host(name);
        assert!(selected(&[]).is_none() && selected(&["all"]).is_none() && selected(&["secrets"]).is_none());
        for names in [["threats"], ["ENCODED_HOSTNAME"], ["encoded-hostname"]] {
            let (findings, strategy) = selected(&names).unwrap();
            assert_eq!((findings.total(), strategy), (1, Strategy::Placeholder), "{names:?}");
        }
        let threats = Selection::parse(["threats"]).unwrap();
        assert!(threats.name_of_host("api.github.com").is_none());
    }
}
