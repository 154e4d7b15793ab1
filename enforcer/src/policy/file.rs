//! The form of a policy file, as serde reads it.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::mask::Strategy;

use super::error::Findings;
use super::facts::Protocol;

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
    pub rules: Spanned<Vec<Spanned<RuleSource>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleSource {
    pub id: Spanned<String>,
    #[serde(default, rename = "description")]
    pub _description: Option<String>,
    pub mode: Option<Mode>,
    #[serde(default)]
    pub when: When,
    pub allow: Option<Spanned<bool>>,
    pub deny: Option<Spanned<String>>,
    pub passthrough: Option<Spanned<bool>>,
    pub mask: Option<Spanned<MaskSource>>,
    pub observe: Option<Spanned<bool>>,
    pub body: Option<BodySource>,
    pub durability: Option<DurabilitySource>,
    pub addresses: Option<Many<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct When {
    #[serde(default)]
    pub workload: WorkloadWhen,
    pub host: Option<Many<String>>,
    pub port: Option<Many<u16>>,
    pub protocol: Option<Many<Protocol>>,
    pub method: Option<Many<String>>,
    pub path: Option<Many<String>>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct WorkloadWhen {
    pub name: Option<Many<String>>,
    pub cgroup: Option<Many<String>>,
    #[serde(default)]
    pub labels: BTreeMap<String, Many<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskSource {
    pub request: Option<Many<MaskEntry>>,
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
            findings.push(&at, error.without_snippet().render_with_options(render), None);
            None
        }
    }
}
