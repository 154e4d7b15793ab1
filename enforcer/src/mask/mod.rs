//! Finding and replacing secrets and personal data.
//!
//! ```text
//! Detector --compile--> Rule \
//!                             Plan (prefilter, DFAs, literals) --> Masker --> StreamMasker
//! ExactValue --codings--> literals /
//! ```
//!
//! `docs/masking.md` says what is promised and what is not. No I/O here, and no value in
//! any error or finding.

mod addresses;
mod border;
mod byteset;
mod check;
mod coded;
mod context;
mod custom;
mod detectors;
mod error;
mod exact;
mod explain;
mod filter;
#[cfg(fuzzing)]
pub mod fuzzing;
mod findings;
mod ids;
pub mod json;
mod lanes;
mod level;
mod locate;
mod map;
mod masker;
mod norm;
mod pairs;
mod part;
mod names;
mod parts;
mod rule;
mod runs;
mod scan;
mod selection;
mod shape;
mod strategy;
mod stream;
#[cfg(test)]
mod tests;
mod types;
mod unknown;
#[cfg(test)]
mod vectors;

pub use border::{Messages, Passed, SPLIT_MESSAGES_MAX, SPLIT_MIN_BYTES};
pub use custom::{CUSTOM_FILE_MAX_BYTES, CUSTOM_MAX, CUSTOM_TEXTS_MAX, Custom, CustomError, CustomErrors};
pub use error::MaskError;
pub use exact::{EXACT_MAX_BYTES, EXACT_MIN_BYTES, ExactValue};
pub use explain::{Explained, Known, Listed, listed};
pub use findings::{Finding, Findings, PLACES_MAX, TOLD_NAME_MAX_BYTES, TOLD_STEPS_MAX, Told};
pub use level::{DEPTH_MAX, EXPANDED_MAX_BYTES, LEVELS_MAX};
pub use masker::Masker;
pub use names::suspicious_name;
pub use part::{PART_NAME_MAX_BYTES, Part};
pub use parts::{BodyParts, PART_VALUE_MAX_BYTES};
pub use rule::{PATTERN_MAX_BYTES, SWALLOW_MAX_BYTES};
pub use scan::OPEN_MAX;
pub use selection::{
    Layer, SET_ACCOUNTS, SET_ENTROPY, SET_EXACT, SET_FINANCIAL, SET_NATIONAL, SET_PII, SET_SECRETS,
    SET_THREATS, Selection,
};
pub use strategy::{
    FORM_MIN_BYTES, KEEP_LAST_MIN_BYTES, REPLACEMENT_EXTRA_BYTES, Replacement, SURROGATE_KEY_BYTES, Strategy,
    SurrogateKey,
};
pub use stream::{KEPT_MAX_BYTES, StreamMasker};
pub use types::{Entity, Masked, MaskedText, Place};

/// The patterns of all built-in detectors as `(set, entity, pattern)`, for those who measure
/// other ways to look for them.
#[doc(hidden)]
pub fn patterns() -> Vec<(String, String, String)> {
    detectors::all().map(|d| (d.set.to_string(), d.entity.to_string(), d.pattern.to_string())).collect()
}
