//! Secrets of ten kinds, made up at random.

use enforcer_tests::chance::Chance;

const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const URL: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const DIGIT: &[u8] = b"0123456789";

/// How many kinds there are.
pub const KINDS: usize = 10;

/// A secret of this kind, with its checksum if it has one.
pub fn token(kind: usize, chance: &mut Chance) -> Vec<u8> {
    let mut text =
        |alphabet: &[u8], count| String::from_utf8_lossy(&chance.bytes_of(alphabet, count)).into_owned();
    let made = match kind % KINDS {
        0 => format!("AKIA{}", text(UPPER, 16)),
        1 => with_checksum("ghp_", &text(ALNUM, 30)),
        2 => format!("glpat-{}", text(ALNUM, 20)),
        3 => format!("xoxb-{}-{}-{}", text(DIGIT, 12), text(DIGIT, 12), text(ALNUM, 24)),
        4 => format!("sk_live_{}", text(ALNUM, 24)),
        5 => format!("SG.{}.{}", text(ALNUM, 22), text(ALNUM, 43)),
        6 => with_checksum("npm_", &text(ALNUM, 30)),
        7 => format!("AIza{}", text(ALNUM, 35)),
        8 => format!("eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.{}", text(URL, 43)),
        _ => format!("postgres://app:{}@db.internal:5432/app", text(ALNUM, 20)),
    };
    made.into_bytes()
}

/// As GitHub and npm do it: six digits of base 62 of the CRC-32 of the rest.
fn with_checksum(prefix: &str, random: &str) -> String {
    const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut sum = crc32(random.as_bytes());
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[(sum % 62) as usize];
        sum /= 62;
    }
    format!("{prefix}{random}{}", String::from_utf8_lossy(&digits))
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use enforcer::mask::{Masker, Selection};

    use super::*;

    #[test]
    fn every_kind_is_found_by_the_detectors() {
        let masker = Masker::new(&Selection::parse(["secrets"]).unwrap(), &[]).unwrap();
        let mut chance = Chance::seeded(3);
        for kind in 0..KINDS {
            let token = token(kind, &mut chance);
            let text = [&b"before "[..], &token, b" after"].concat();
            assert_eq!(masker.mask(&text).1.total(), 1, "{kind}");
        }
    }

    #[test]
    fn the_checksum_is_the_usual_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
