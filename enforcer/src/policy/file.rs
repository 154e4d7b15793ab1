//! The form of a policy file, as serde reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::mask::Strategy;
use crate::workload::identity::{Assurance, Profile};

use super::error::Findings;
use super::facts::Protocol;
use super::layers::Level;
use super::limit::Per;
use super::near::near;
use super::requirement::{self, HoldStage, Need, Offers};

/// Events (scalars, sequences, mappings) that one file may expand to.
pub const MAX_YAML_NODES: usize = 200_000;
const MAX_YAML_DEPTH: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    #[default]
    Enforce,
    Audit,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PolicyFile {
    pub version: Spanned<u32>,
    pub name: Spanned<String>,
    #[serde(default, rename = "description")]
    pub _description: Option<String>,
    #[serde(default)]
    pub mode: Mode,
    /// Of the rules that name none.
    #[serde(default, deserialize_with = "given")]
    pub owner: Option<Spanned<String>>,
    pub rules: Spanned<Vec<Spanned<RuleSource>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleSource {
    pub id: Spanned<String>,
    #[serde(default, rename = "description")]
    pub _description: Option<String>,
    #[serde(default, deserialize_with = "given")]
    pub mode: Option<Mode>,
    #[serde(default, deserialize_with = "given")]
    pub owner: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "mapping")]
    pub when: When,
    #[serde(default, deserialize_with = "given")]
    pub allow: Option<Spanned<bool>>,
    #[serde(default, deserialize_with = "given")]
    pub deny: Option<Spanned<String>>,
    #[serde(default, deserialize_with = "given")]
    pub passthrough: Option<Spanned<bool>>,
    #[serde(default, deserialize_with = "given")]
    pub hold: Option<Spanned<HoldSource>>,
    #[serde(default, deserialize_with = "given")]
    pub delegate: Option<Spanned<DelegateSource>>,
    #[serde(default, deserialize_with = "given")]
    pub mask: Option<Spanned<MaskSource>>,
    #[serde(default, deserialize_with = "given")]
    pub observe: Option<Spanned<bool>>,
    #[serde(default, deserialize_with = "given")]
    pub body: Option<BodySource>,
    #[serde(default, deserialize_with = "given")]
    pub durability: Option<DurabilitySource>,
    #[serde(default, deserialize_with = "given")]
    pub addresses: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub limits: Option<Many<LimitSource>>,
}

/// So much in a window of time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LimitSource {
    #[serde(default, deserialize_with = "given")]
    pub requests: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    pub bytes_up: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    pub bytes_down: Option<u64>,
    #[serde(default, deserialize_with = "given")]
    pub tokens: Option<u64>,
    pub window: String,
    #[serde(default)]
    pub per: Per,
}

/// Who has to agree: at stages, or in all cases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HoldSource {
    pub message: Option<String>,
    pub needs: Option<Vec<Need>>,
    pub stages: Option<Vec<HoldStage>>,
    #[serde(default = "requirement::yes")]
    pub excludes_self: bool,
    #[serde(default = "requirement::ten_minutes")]
    pub open_seconds: u64,
    pub hold_seconds: Option<u64>,
    #[serde(default = "requirement::a_quarter")]
    pub retry_seconds: Option<u64>,
    #[serde(default)]
    pub keep_alive: bool,
    #[serde(default)]
    pub offers: Offers,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    #[serde(default, deserialize_with = "mapping")]
    pub workload: WorkloadWhen,
    #[serde(default, deserialize_with = "given")]
    pub identity: Option<Spanned<IdentityWhen>>,
    #[serde(default, deserialize_with = "given")]
    pub host: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub port: Option<Many<u16>>,
    #[serde(default, deserialize_with = "given")]
    pub protocol: Option<Many<Protocol>>,
    #[serde(default, deserialize_with = "given")]
    pub method: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub path: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub cel: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadWhen {
    #[serde(default, deserialize_with = "given")]
    pub name: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub cgroup: Option<Many<String>>,
    #[serde(default, deserialize_with = "mapping")]
    pub labels: BTreeMap<String, Many<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IdentityWhen {
    #[serde(default, deserialize_with = "given")]
    pub assurance: Option<Many<Assurance>>,
    #[serde(default, deserialize_with = "given")]
    pub provider: Option<Many<Profile>>,
    #[serde(default, deserialize_with = "given")]
    pub issuer: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub subject: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub repository: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub repository_id: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub r#ref: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub protected: Option<bool>,
    #[serde(default, deserialize_with = "given")]
    pub environment: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub event: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub workflow: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub actor: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub groups: Option<Many<String>>,
    #[serde(default, deserialize_with = "given")]
    pub roles: Option<Many<String>>,
}

/// What is written is meant: a key without a value would be no condition, and hold for everybody.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// The same for what has no value of its own but its parts.
fn mapping<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    struct Parts<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Parts<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("conditions; leave the key out if there are none")
        }

        fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
            T::deserialize(MapAccessDeserializer::new(map))
        }
    }
    deserializer.deserialize_any(Parts(PhantomData))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskSource {
    #[serde(default, deserialize_with = "given")]
    pub request: Option<Many<MaskEntry>>,
    #[serde(default, deserialize_with = "given")]
    pub response: Option<Many<MaskEntry>>,
}

/// One thing to be masked: a name, or a name or a part of the message with what is done to it.
pub(super) enum MaskEntry {
    Name(String),
    Chosen(Box<Chosen>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    pub set: Option<String>,
    pub entity: Option<String>,
    pub rule: Option<String>,
    pub select: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub strategy: Strategy,
}

impl<'de> Deserialize<'de> for MaskEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;
        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = MaskEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a set, an entity, or {entity: NAME, strategy: STRATEGY}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(MaskEntry::Name(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let chosen = Chosen::deserialize(MapAccessDeserializer::new(map))?;
                Ok(MaskEntry::Chosen(Box::new(chosen)))
            }
        }
        deserializer.deserialize_any(EntryVisitor)
    }
}

/// A layer below that decides: its name, or that and how far it may go.
pub(super) enum DelegateSource {
    To(Level),
    Chosen(Delegated),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Delegated {
    pub to: Level,
    #[serde(default)]
    pub passthrough: bool,
}

impl<'de> Deserialize<'de> for DelegateSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DelegateVisitor;
        impl<'de> Visitor<'de> for DelegateVisitor {
            type Value = DelegateSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`organization`, `repository`, or {to: LAYER, passthrough: true}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                Level::deserialize(text.into_deserializer()).map(DelegateSource::To)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                Delegated::deserialize(MapAccessDeserializer::new(map)).map(DelegateSource::Chosen)
            }
        }
        deserializer.deserialize_any(DelegateVisitor)
    }
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BodySource {
    Stream,
    Inspect,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum DurabilitySource {
    PageCache,
    Fsync,
}

/// One value or a list of values, each with its place.
pub(super) type Many<T> = Spanned<OneOrMany<T>>;

pub(super) enum OneOrMany<T> {
    One(T),
    Many(Vec<Spanned<T>>),
}

/// The values with their places.
pub(super) fn each<T>(many: &Many<T>) -> Vec<(&T, Location)> {
    match &many.value {
        OneOrMany::One(value) => vec![(value, many.referenced)],
        OneOrMany::Many(values) => values.iter().map(|v| (&v.value, v.referenced)).collect(),
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor(PhantomData))
    }
}

struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        T::deserialize(text.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        T::deserialize(number.into_deserializer()).map(OneOrMany::One)
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
        Err(E::custom("a true or false that is meant as text needs quotes"))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = seq.next_element()? {
            values.push(value);
        }
        Ok(OneOrMany::Many(values))
    }
}

/// Reads YAML into `T`; a failure becomes a finding with its place.
pub(super) fn read_yaml<'de, T: Deserialize<'de>>(text: &'de str, findings: &mut Findings<'_>) -> Option<T> {
    let mut budget = serde_saphyr::Budget::default();
    budget.max_nodes = MAX_YAML_NODES;
    budget.max_depth = MAX_YAML_DEPTH;
    budget.max_documents = 1;
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.with_snippet = false;
    match serde_saphyr::from_str_with_options::<T>(text, options) {
        Ok(value) => Some(value),
        Err(error) => {
            let at = error.location().unwrap_or(Location::UNKNOWN);
            let formatter = serde_saphyr::UserMessageFormatter;
            let mut render = serde_saphyr::RenderOptions::new(&formatter);
            render.snippets = serde_saphyr::SnippetMode::Off;
            let message = error.without_snippet().render_with_options(render);
            findings.push(&at, &*message, meant(&message).as_deref());
            None
        }
    }
}

/// A message that a name is not known says which are.
fn meant(message: &str) -> Option<String> {
    let (unknown, known) = message.strip_prefix("unknown ")?.split_once("`, expected one of ")?;
    let (_, unknown) = unknown.split_once('`')?;
    let known = known.split_once(" at line").map_or(known, |(known, _)| known);
    near(unknown, known.split(", ")).map(|near| format!("did you mean `{near}`?"))
}
