//! Where money goes: addresses of chains that have a beginning of their own. Those that have
//! none, and are known by their checksum, are found with the token runs.

use super::M20;
use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

const fn financial(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "financial", pattern).between(ByteSet::ALNUM)
}

/// The table.
pub(super) static FINANCIAL: &[Detector] = &[
    financial("bitcoin-segwit", "BTC_ADDRESS", "bc1[ac-hj-np-z02-9]{11,71}")
        .check(Check::Bech32)
        .yes(&[&["bc1qar0srrr7xfkvy5l", "643lydnw9re59gtzzwf5mdq"]])
        .no(&[&["bc1qar0srrr7xfkvy5l", "643lydnw9re59gtzzwf5mdp"]]),
    financial("bitcoin-segwit-upper", "BTC_ADDRESS", "BC1[AC-HJ-NP-Z02-9]{11,71}")
        .check(Check::Bech32)
        .yes(&[&["BC1QW508D6QEJXTDG4Y5", "R3ZARVARY0C5XW7KV8F3T4"]]),
    financial("extended-private-key", "WALLET_KEY", "[xyz]prv[1-9A-HJ-NP-Za-km-z]{100,112}").yes(&[&[
        "xprv",
        "a1B2c3D4e5F6g7H8i9J1",
        "a1B2c3D4e5F6g7H8i9J1",
        "a1B2c3D4e5F6g7H8i9J1",
        "a1B2c3D4e5F6g7H8i9J1",
        "a1B2c3D4e5F6g7H8i9J1",
    ]]),
    financial(
        "eth-private-key",
        "WALLET_KEY",
        "(?i:private_?key|mnemonic_?key)[\"' ]{0,2}[:=][\"' ]{0,3}(?<secret>0x[0-9a-fA-F]{64})",
    )
    .check(Check::Random)
    .yes(&[&["private_key = 0x", "0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"]])
    .no(&[&["private_key = ", M20]]),
];
