//! The built-in detectors, after the formats that the issuers document.
//!
//! Examples are not secrets, and stand in pieces so that secret scanners stay quiet.
//! Formats whose matches can be long must not begin inside a word: a text that repeats their
//! beginning would otherwise open a match at each, and each would be followed to its end. The
//! order matters only for the name on a placeholder, if two begin at one place.

mod accounts;
mod chat;
mod cloud;
mod financial;
mod forges;
mod hashes;
mod llm;
mod national;
mod passwords;
mod payment;
mod personal;
mod saas;
mod threats;
mod web;

use super::{byteset::ByteSet, check::Check, custom, rule::Detector};

const fn secret(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "secrets", pattern)
}

/// A format whose beginning is a mark that nothing else has: it is one also where it stands
/// inside of a word, or else a letter before or behind it would hide it.
const fn marked(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    secret(rule, entity, pattern).check(Check::Real)
}

/// A format that is a word of its own, and of which people write placeholders.
const fn token(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    secret(rule, entity, pattern).between(ByteSet::ALNUM).check(Check::Real)
}

const A16: &str = "ABCDEFGHIJKLMNOP";
const M20: &str = "a1B2c3D4e5F6g7H8i9J0";
const H16: &str = "0123456789abcdef";
const U36: &str = "01234567-89ab-cdef-0123-456789abcdef";

/// All of them, and the operator's own.
pub(super) fn all() -> impl Iterator<Item = &'static Detector> {
    [
        web::WEB,
        cloud::CLOUD,
        forges::FORGES,
        llm::LLM,
        payment::PAYMENT,
        chat::CHAT,
        saas::SAAS,
        hashes::HASHES,
        passwords::PASSWORDS,
        personal::PERSONAL,
        financial::FINANCIAL,
        threats::THREATS,
        national::NATIONAL,
        accounts::ACCOUNTS,
    ]
    .into_iter()
    .flatten()
    .chain(custom::installed())
}
