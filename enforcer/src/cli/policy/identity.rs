//! Who a job is said to be, in tests of policies and in questions about them.

use std::collections::BTreeMap;

use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::policy::{Fact, IdentityFacts, LayerName, Level};
use crate::workload::identity::{Assurance, Claims, Field, Profile};

/// An identity in the words of policies. Nothing is verified by it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Source {
    assurance: Option<Assurance>,
    provider: Profile,
    issuer: String,
    subject: String,
    repository: Option<String>,
    repository_id: Option<String>,
    r#ref: Option<String>,
    protected: Option<bool>,
    sha: Option<String>,
    workflow: Option<String>,
    environment: Option<String>,
    event: Option<String>,
    run_id: Option<String>,
    attempt: Option<String>,
    job_id: Option<String>,
    actor: Option<String>,
    groups: Vec<String>,
    roles: Vec<String>,
}

/// Who the job is; of the assurance `oidc` unless it says another one.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Source")]
pub struct Stated {
    claims: Claims,
    assurance: Assurance,
}

impl From<Source> for Stated {
    fn from(source: Source) -> Self {
        let texts = [
            (Field::Repository, source.repository),
            (Field::RepositoryId, source.repository_id),
            (Field::Ref, source.r#ref),
            (Field::Sha, source.sha),
            (Field::Workflow, source.workflow),
            (Field::Environment, source.environment),
            (Field::Event, source.event),
            (Field::RunId, source.run_id),
            (Field::RunAttempt, source.attempt),
            (Field::JobId, source.job_id),
            (Field::Actor, source.actor),
        ];
        let claims = Claims {
            provider: source.provider,
            issuer: source.issuer,
            subject: source.subject,
            texts: texts.into_iter().filter_map(|(field, text)| Some((field, text?))).collect(),
            ref_protected: source.protected,
            groups: source.groups,
            roles: source.roles,
        };
        Self { claims, assurance: source.assurance.unwrap_or(Assurance::Oidc) }
    }
}

impl Stated {
    /// Of a job of the repository of a layer; an organization has many.
    pub fn of_repository(issuer: &str, layer: &LayerName) -> Option<Self> {
        let repository = (layer.level() == Level::Repository).then(|| layer.of().to_owned())?;
        let source = Source { issuer: issuer.to_owned(), repository: Some(repository), ..Source::default() };
        Some(source.into())
    }

    /// An issuer that is said by its name in the configuration, or not at all.
    pub fn complete(&mut self, issuers: &BTreeMap<String, String>, otherwise: Option<&String>) {
        let issuer = &mut self.claims.issuer;
        let known = if issuer.is_empty() { otherwise } else { issuers.get(issuer.as_str()) };
        if let Some(known) = known {
            issuer.clone_from(known);
        }
    }

    pub fn facts(&self) -> Fact<IdentityFacts<'_>> {
        match self.assurance {
            Assurance::None => Fact::Absent,
            assurance => Fact::Known(IdentityFacts { claims: &self.claims, assurance }),
        }
    }
}

/// The same on a command line.
#[derive(Args, Debug, Default)]
pub struct Told {
    /// Who the job is (repeatable): `repository=octo/app`, `protected=true`, `groups=admins`,
    /// `assurance=attested`, ...; `oidc` unless it says another assurance
    #[arg(long = "identity", value_name = "NAME=VALUE", value_parser = pair)]
    pairs: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("{text:?}: write NAME=VALUE"))?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Told {
    /// None: nobody has said who it is.
    pub fn stated(&self) -> Result<Option<Stated>, String> {
        let mut all = Map::new();
        for (name, value) in &self.pairs {
            let value = match (name.as_str(), value.as_str()) {
                ("protected", "true" | "false") => Value::Bool(value == "true"),
                ("groups" | "roles", _) => {
                    let mut list = all.remove(name).unwrap_or_else(|| Value::Array(Vec::new()));
                    list.as_array_mut().into_iter().for_each(|list| list.push(value.as_str().into()));
                    list
                }
                _ => value.as_str().into(),
            };
            if all.insert(name.clone(), value).is_some() {
                return Err(format!("--identity says `{name}` twice"));
            }
        }
        if all.is_empty() {
            return Ok(None);
        }
        serde_json::from_value(Value::Object(all)).map(Some).map_err(|error| format!("--identity: {error}"))
    }
}
