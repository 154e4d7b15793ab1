//! Checksums of addresses of Bitcoin (base58check and bech32).

use aws_lc_rs::digest::{SHA256, digest};

const BASE58: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BECH32: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// An address of 25 bytes whose last four are the checksum of the others.
pub(super) fn base58check(text: &[u8]) -> bool {
    let mut bytes = [0_u8; 25];
    for b in text {
        let Some(digit) = BASE58.iter().position(|c| c == b) else {
            return false;
        };
        let mut carry = digit;
        for byte in bytes.iter_mut().rev() {
            carry += usize::from(*byte) * 58;
            *byte = u8::try_from(carry & 0xff).unwrap_or(0);
            carry >>= 8;
        }
        if carry != 0 {
            return false;
        }
    }
    let (payload, sum) = bytes.split_at(21);
    let twice = digest(&SHA256, digest(&SHA256, payload).as_ref());
    payload.iter().any(|b| *b != 0) && twice.as_ref().starts_with(sum)
}

/// BIP 173 and BIP 350: the polynomial over the name and the data.
pub(super) fn bech32(text: &[u8]) -> bool {
    let lower = text.to_ascii_lowercase();
    let Some(split) = lower.iter().rposition(|b| *b == b'1') else {
        return false;
    };
    let (name, data) = (&lower[..split], &lower[split + 1..]);
    let mut values: Vec<u32> = name.iter().map(|b| u32::from(b >> 5)).collect();
    values.push(0);
    values.extend(name.iter().map(|b| u32::from(b & 31)));
    for b in data {
        let Some(value) = BECH32.iter().position(|c| c == b) else {
            return false;
        };
        values.push(u32::try_from(value).unwrap_or(0));
    }
    const STEPS: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    let sum = values.iter().fold(1_u32, |sum, value| {
        let top = sum >> 25;
        let next = (sum & 0x01ff_ffff) << 5 ^ value;
        STEPS
            .iter()
            .enumerate()
            .fold(next, |next, (bit, step)| if top >> bit & 1 == 1 { next ^ step } else { next })
    });
    sum == 1 || sum == 0x2bc8_30a3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_addresses() {
        assert!(base58check(b"1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"));
        assert!(base58check(b"3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy"));
        assert!(!base58check(b"1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN3") && !base58check(b"111111"));
        assert!(bech32(b"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"));
        assert!(!bech32(b"bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdx"));
    }
}
