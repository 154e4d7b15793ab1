//! Which facts an expression may name, and of which type they are.

use crate::mask::Entity;
use crate::policy::facts::{Protocol, Stage};
use crate::policy::glob::undelimited;
use crate::policy::identity::TextPart;
use crate::policy::near;
use crate::protocol::command::Effect;
use crate::protocol::llm;
use crate::workload::identity::{Assurance, Field, Profile};

/// A fact that is text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFact {
    Name,
    Cgroup,
    Host,
    Protocol,
    Stage,
    Method,
    Path,
    Identity(TextPart),
    Assurance,
    Llm(LlmPart),
}

/// What is known of a tool call in a model's answer, as text, or of a request to a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LlmPart {
    Provider,
    Model,
    Name,
    Arguments,
    /// Of a block of code.
    Language,
    Code,
}

/// A fact that is a map. The values of `Labels` are text, those of the others lists of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapFact {
    Labels,
    Query,
    Headers,
}

/// A fact that is a list of texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListFact {
    Groups,
    Roles,
    /// What a command in a tool call would do.
    Effects,
    /// What detectors find in a request.
    Findings,
    /// And one in a block of code.
    CodeEffects,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    Text(TextFact),
    Port,
    /// True or false: whether the ref is protected.
    Protected,
    List(ListFact),
    Map(MapFact),
}

/// Full names. One before the dot is a group, and no fact.
const FACTS: &[(&str, Fact)] = &[
    ("workload.name", Fact::Text(TextFact::Name)),
    ("workload.cgroup", Fact::Text(TextFact::Cgroup)),
    ("workload.labels", Fact::Map(MapFact::Labels)),
    ("identity.assurance", Fact::Text(TextFact::Assurance)),
    ("identity.provider", Fact::Text(TextFact::Identity(TextPart::Provider))),
    ("identity.issuer", Fact::Text(TextFact::Identity(TextPart::Issuer))),
    ("identity.subject", Fact::Text(TextFact::Identity(TextPart::Subject))),
    ("identity.repository", of(Field::Repository)),
    ("identity.repository_id", of(Field::RepositoryId)),
    ("identity.ref", of(Field::Ref)),
    ("identity.protected", Fact::Protected),
    ("identity.sha", of(Field::Sha)),
    ("identity.workflow", of(Field::Workflow)),
    ("identity.environment", of(Field::Environment)),
    ("identity.event", of(Field::Event)),
    ("identity.run_id", of(Field::RunId)),
    ("identity.attempt", of(Field::RunAttempt)),
    ("identity.job_id", of(Field::JobId)),
    ("identity.actor", of(Field::Actor)),
    ("identity.groups", Fact::List(ListFact::Groups)),
    ("identity.roles", Fact::List(ListFact::Roles)),
    ("destination.host", Fact::Text(TextFact::Host)),
    ("destination.port", Fact::Port),
    ("protocol", Fact::Text(TextFact::Protocol)),
    ("stage", Fact::Text(TextFact::Stage)),
    ("http.method", Fact::Text(TextFact::Method)),
    ("http.path", Fact::Text(TextFact::Path)),
    ("http.query", Fact::Map(MapFact::Query)),
    ("http.headers", Fact::Map(MapFact::Headers)),
    ("findings", Fact::List(ListFact::Findings)),
    ("llm.provider", Fact::Text(TextFact::Llm(LlmPart::Provider))),
    ("llm.model", Fact::Text(TextFact::Llm(LlmPart::Model))),
    ("llm.tool.name", Fact::Text(TextFact::Llm(LlmPart::Name))),
    ("llm.tool.arguments", Fact::Text(TextFact::Llm(LlmPart::Arguments))),
    ("llm.tool.effects", Fact::List(ListFact::Effects)),
    ("llm.code.language", Fact::Text(TextFact::Llm(LlmPart::Language))),
    ("llm.code.text", Fact::Text(TextFact::Llm(LlmPart::Code))),
    ("llm.code.effects", Fact::List(ListFact::CodeEffects)),
];

const fn of(field: Field) -> Fact {
    Fact::Text(TextFact::Identity(TextPart::Of(field)))
}

impl Fact {
    pub fn named(name: &str) -> Option<Self> {
        FACTS.iter().find(|(known, _)| *known == name).map(|(_, fact)| *fact)
    }

    pub fn name(self) -> &'static str {
        FACTS.iter().find(|(_, fact)| *fact == self).map_or("a fact", |(name, _)| *name)
    }
}

/// Whether facts begin with this name and a dot.
pub fn is_group(name: &str) -> Option<&'static str> {
    let begins = |full: &&str| full.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
    FACTS.iter().map(|(full, _)| *full).find(begins).and_then(|full| full.get(..name.len()))
}

/// What stands next behind `group.`, or at the beginning.
fn parts(group: Option<&str>) -> impl Iterator<Item = &'static str> + Clone {
    FACTS.iter().filter_map(move |(full, _)| {
        let rest = match group {
            Some(group) => full.strip_prefix(group)?.strip_prefix('.')?,
            None => full,
        };
        Some(rest.split_once('.').map_or(rest, |(first, _)| first))
    })
}

/// What may stand after `group.`, or at the beginning.
pub fn names(group: Option<&str>) -> String {
    let mut names: Vec<&str> = parts(group).collect();
    names.dedup();
    names.join(", ")
}

/// The one that was meant, if one is spelled nearly so.
pub fn near(name: &str) -> Option<&'static str> {
    let Some((group, field)) = name.rsplit_once('.') else { return near::near(name, parts(None)) };
    let meant = near::near(field, parts(Some(group)))?;
    let full = |full: &&str| {
        full.strip_prefix(group).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == meant)
    };
    FACTS.iter().map(|(full, _)| *full).find(full)
}

/// Why this fact never is, and never holds, such a text.
pub fn never(fact: TextFact, text: &str) -> Option<String> {
    let one_of =
        |names: Vec<&str>| (!names.contains(&text)).then(|| format!("it is one of {}", names.join(", ")));
    match fact {
        TextFact::Protocol => one_of(Protocol::ALL.map(Protocol::as_str).to_vec()),
        TextFact::Stage => one_of(Stage::ALL.map(Stage::as_str).to_vec()),
        TextFact::Method => text
            .bytes()
            .any(|b| b.is_ascii_lowercase())
            .then(|| "a method is written in capitals: GET".into()),
        TextFact::Assurance => one_of(Assurance::ALL.map(Assurance::as_str).to_vec()),
        TextFact::Identity(TextPart::Provider) => one_of(Profile::ALL.map(Profile::as_str).to_vec()),
        TextFact::Llm(LlmPart::Language) => text
            .bytes()
            .any(|b| b.is_ascii_uppercase() || b.is_ascii_whitespace())
            .then(|| "a language is one word in small letters: bash".into()),
        TextFact::Llm(LlmPart::Provider) => one_of(llm::Dialect::PROVIDERS.to_vec()),
        TextFact::Host
        | TextFact::Path
        | TextFact::Name
        | TextFact::Cgroup
        | TextFact::Identity(_)
        | TextFact::Llm(_) => never_holds(fact, text),
    }
}

/// Why this is never an element of such a list.
pub fn never_in(list: ListFact, text: &str) -> Option<String> {
    let effects = Effect::ALL.map(Effect::as_str);
    match list {
        ListFact::Effects | ListFact::CodeEffects if !effects.contains(&text) => {
            Some(format!("an effect is one of {}", effects.join(", ")))
        }
        ListFact::Findings if Entity::new(text).as_str() != text => {
            let meant = Entity::new(text);
            Some(format!("an entity is in capitals, digits and `_`, as in {:?}", meant.as_str()))
        }
        _ => None,
    }
}

/// The same for a part of it.
pub fn never_holds(fact: TextFact, text: &str) -> Option<String> {
    match fact {
        TextFact::Host if text.bytes().any(|b| b.is_ascii_uppercase()) => {
            Some("a host is in small letters here".to_owned())
        }
        TextFact::Path if *undelimited(text) != *text => {
            Some(format!("such delimiters are not escaped here: {:?}", undelimited(text)))
        }
        TextFact::Path if text.contains('?') => Some("the query is in `http.query`".to_owned()),
        _ => None,
    }
}
