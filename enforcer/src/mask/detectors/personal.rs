//! Personal data.

use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

const LOCAL: ByteSet = ByteSet::ALNUM.with(b"._+-");
const CARD_START: ByteSet = ByteSet::NONE.range(b'2', b'6');

const fn pii(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "pii", pattern)
}

/// The table.
pub(super) static PERSONAL: &[Detector] = &[
    pii("email", "EMAIL", r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}")
        .at_runs(ByteSet::ALNUM, LOCAL, Some(b'@'))
        .not_after(LOCAL)
        .yes(&[&["write to jane.doe+x@example", ".org, please"], &["\\njane@example", ".org"]])
        .no(&[&["@decorator and user@localhost"]]),
    pii(
        "card-number",
        "CARD_NUMBER",
        r"(?:4[0-9]{3}|5[1-5][0-9]{2}|2[2-7][0-9]{2}|6011|65[0-9]{2})(?:[ -]?[0-9]{4}){3}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}",
    )
    .at_runs(CARD_START, ByteSet::DIGIT, None)
    .between(ByteSet::DIGIT)
    .check(Check::Luhn)
    .yes(&[&["card 4111 1111", " 1111 1111."], &["3782822463", "10005"]])
    .no(&[&["4111 1111 1111 1112"], &["1700000000000"]]),
    pii("iban", "IBAN", r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?")
        .at_runs(ByteSet::UPPER, ByteSet::ALNUM, None)
        .between(ByteSet::ALNUM)
        .check(Check::Mod97)
        .yes(&[&["GB82 WEST 1234", " 5698 7654 32"], &["DE893704", "00440532013000"]])
        .no(&[&["GB82WEST12345698765433"]]),
];
