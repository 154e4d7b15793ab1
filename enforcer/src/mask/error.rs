//! What can go wrong when masking is set up or runs.

use std::sync::Arc;

use super::types::Entity;

/// Why a masker could not be made, or why a stream cannot be masked and must end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MaskError {
    /// An exact value is too short to be told from ordinary text.
    #[error(
        "the value of {entity} has {length} bytes; at least {minimum} are needed, since a shorter one would be found in ordinary text: leave it out or make it longer"
    )]
    TooShort {
        /// The name under which it was to be registered.
        entity: String,
        /// Its length in bytes.
        length: usize,
        /// The least that is taken.
        minimum: usize,
    },
    /// Nearly nothing is left of an exact value when its escapes are undone, as they are in all text.
    #[error(
        "of the value of {entity} {length} bytes are left when its escapes are undone; at least {minimum} are needed, since less would be found in ordinary text: leave it out or make it longer"
    )]
    TooLittle {
        /// The name under which it was to be registered.
        entity: String,
        /// The bytes that are left.
        length: usize,
        /// The least that is taken.
        minimum: usize,
    },
    /// An exact value is longer than a stream can be held back for.
    #[error("the value of {entity} has {length} bytes; at most {maximum} can be looked for in a stream")]
    TooLong {
        /// The name under which it was to be registered.
        entity: String,
        /// Its length in bytes.
        length: usize,
        /// The most that is taken.
        maximum: usize,
    },
    /// A selection names something that there is no detector for.
    #[error("unknown mask set or entity `{name}`; known sets: {sets}; known entities: {entities}")]
    UnknownName {
        /// What was written.
        name: String,
        /// The sets, separated by commas.
        sets: String,
        /// The entities, separated by commas.
        entities: String,
    },
    /// A pattern has no upper bound, or is wrong in another way, and does not load.
    #[error("the pattern of {entity} does not load: {reason}")]
    Pattern {
        /// The detector.
        entity: String,
        /// What is wrong.
        reason: String,
    },
    /// A stream opened more possible matches at once than the limit.
    #[error("more than {limit} possible secrets were open at once: the stream cannot be masked and ends")]
    TooManyOpen {
        /// The limit, a number of candidates.
        limit: usize,
    },
    /// A value that is masked until its end mark went on for longer than the limit.
    #[error("{entity} did not end within {limit} bytes: the stream cannot be masked and ends")]
    NoEnd {
        /// The detector.
        entity: String,
        /// The limit in bytes.
        limit: u64,
    },
    /// Policy lets nothing through that holds this.
    #[error("{entity} was found, and policy denies what holds it")]
    Denied {
        /// What was found.
        entity: Entity,
        /// What knew it.
        rule: Arc<str>,
    },
    /// A person has to agree to what has this, and where it is masked nobody can be asked.
    #[error(
        "{entity} was found, and the strategy `hold` denies what has it; people are asked by a rule with `hold` \
         whose `cel` looks at `findings`"
    )]
    Held {
        /// What was found.
        entity: Entity,
        /// What knew it.
        rule: Arc<str>,
    },
    /// A body of which policy names parts is said to be JSON, and is none.
    #[error("policy masks a part of the body, which is said to be JSON but cannot be read as such")]
    NotJson,
    /// The key of surrogates has the wrong length.
    #[error(
        "the key of surrogates has {length} bytes; it needs {wanted}, at random: `openssl rand {wanted}`"
    )]
    Key {
        /// Its length.
        length: usize,
        /// What it needs.
        wanted: usize,
    },
    /// Codings stand in codings, deeper than they are looked into.
    #[error("more than {limit} codings stand in each other: the stream cannot be masked and ends")]
    TooDeep {
        /// The limit, a number of levels.
        limit: u8,
    },
    /// More was being decoded at once than the limit.
    #[error("more than {limit} coded values were open at once: the stream cannot be masked and ends")]
    TooManyLevels {
        /// The limit, a number of levels.
        limit: usize,
    },
    /// A stream would have to keep more in memory until it is decided than the limit.
    #[error(
        "more than {limit} bytes would have to be kept until it is known what they are: the stream cannot be masked and ends"
    )]
    TooMuchKept {
        /// The limit in bytes.
        limit: usize,
    },
    /// Something compressed inside of the text is larger than is looked into.
    #[error("something compressed in the text has more than {limit} bytes: it cannot be masked")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// A match was found that begins in what went out already. No text can do that: it is a
    /// defect of the masker, and the stream ends before more of the value goes out.
    #[error(
        "{entity} was found to begin before what had gone out already: this is a defect of the masker, please report it; the stream ends"
    )]
    TooLate {
        /// What was found.
        entity: Entity,
    },
    /// Something compressed inside of the text cannot be read.
    #[error("something in the text looks like {coding} and cannot be read: it cannot be masked")]
    Unreadable {
        /// Which coding.
        coding: &'static str,
    },
}

impl MaskError {
    /// The same, by this rule.
    pub(super) fn by(mut self, name: impl FnOnce() -> Arc<str>) -> Self {
        if let Self::Denied { rule, .. } | Self::Held { rule, .. } = &mut self {
            *rule = name();
        }
        self
    }
}
