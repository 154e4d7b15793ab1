//! From an issuer's claims to ours.
//!
//! An expression names a claim, `a.b` one within another, `{a}/{b}` puts a text together of
//! several. `x|y` is the first that is there, and `?` at the end says that there may be none.
//! A claim that is null or an empty text is not there.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::config::{Profile, Trusted};
use super::{Claims, Field, MAX_GROUPS, MAX_TEXT, Refusal};

/// Where a field comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expression {
    alternatives: Vec<Vec<Part>>,
    optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Claim(String),
}

/// All fields of a profile.
#[derive(Debug, Clone, Default)]
pub struct Mapping(BTreeMap<Field, Expression>);

/// What is known of each profile's claims, from the documentation of its makers.
fn profile(profile: Profile) -> &'static [(Field, &'static str)] {
    use Field as F;
    match profile {
        // https://docs.github.com/en/actions/reference/security/oidc
        Profile::Github => &[
            (F::Repository, "repository"),
            (F::RepositoryId, "repository_id"),
            (F::Ref, "ref"),
            (F::RefProtected, "ref_protected?"),
            (F::Sha, "sha"),
            (F::Workflow, "job_workflow_ref|workflow_ref|workflow"),
            (F::Environment, "environment?"),
            (F::Event, "event_name"),
            (F::RunId, "run_id"),
            (F::RunAttempt, "run_attempt?"),
            (F::JobId, "check_run_id?"),
            (F::Actor, "actor"),
        ],
        // https://docs.gitlab.com/ci/secrets/id_token_authentication/
        Profile::Gitlab => &[
            (F::Repository, "project_path"),
            (F::RepositoryId, "project_id"),
            (F::Ref, "ref_path|ref"),
            (F::RefProtected, "ref_protected?"),
            (F::Sha, "sha?"),
            (F::Workflow, "ci_config_ref_uri?"),
            (F::Environment, "environment?"),
            (F::Event, "pipeline_source?"),
            (F::RunId, "pipeline_id"),
            (F::JobId, "job_id"),
            (F::Actor, "user_login"),
            (F::Groups, "groups_direct?"),
        ],
        // https://buildkite.com/docs/agent/v3/cli-oidc
        Profile::Buildkite => &[
            (F::Repository, "{organization_slug}/{pipeline_slug}"),
            (F::RepositoryId, "pipeline_id?"),
            (F::Ref, "refs/tags/{build_tag}|refs/heads/{build_branch}"),
            (F::Sha, "build_commit"),
            (F::Workflow, "pipeline_slug"),
            (F::Event, "build_source?"),
            (F::RunId, "build_number"),
            (F::JobId, "job_id"),
        ],
        // https://forgejo.org/docs/next/user/actions/security-openid-connect/
        Profile::Forgejo => &[
            (F::Repository, "repository"),
            (F::RepositoryId, "repository_id?"),
            (F::Ref, "ref"),
            (F::RefProtected, "ref_protected?"),
            (F::Sha, "sha"),
            (F::Workflow, "workflow_ref|workflow"),
            (F::Event, "event_name"),
            (F::RunId, "run_id"),
            (F::RunAttempt, "run_attempt?"),
            (F::Actor, "actor"),
        ],
        // https://learn.microsoft.com/rest/api/azure/devops/distributedtask/oidctoken/create
        Profile::Azure => &[
            (F::Repository, "rpo_uri"),
            (F::RepositoryId, "rpo_id"),
            (F::Ref, "rpo_ref"),
            (F::Sha, "rpo_ver"),
            (F::Workflow, "{sub}"),
            (F::RunId, "run_id"),
        ],
        Profile::Generic => &[(F::Groups, "groups?")],
    }
}

impl Mapping {
    pub fn of(of: Profile) -> Self {
        let parsed =
            profile(of).iter().filter_map(|(field, text)| Some((*field, Expression::parse(text).ok()?)));
        Self(parsed.collect())
    }

    pub fn set(&mut self, field: Field, expression: Expression) {
        self.0.insert(field, expression);
    }
}

impl Expression {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let (text, optional) = text.strip_suffix('?').map_or((text, false), |text| (text, true));
        let alternatives = text.split('|').map(parts).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { alternatives, optional })
    }
}

fn parts(text: &str) -> Result<Vec<Part>, &'static str> {
    if text.is_empty() {
        return Err("a claim has a name");
    }
    if !text.contains(['{', '}']) {
        return Ok(vec![Part::Claim(text.to_owned())]);
    }
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        let (name, after) =
            from.strip_prefix('{').and_then(|from| from.split_once('}')).ok_or("a brace too many")?;
        if name.is_empty() || name.contains('{') {
            return Err("the name of a claim stands between braces");
        }
        if !before.is_empty() {
            parts.push(Part::Text(before.to_owned()));
        }
        parts.push(Part::Claim(name.to_owned()));
        rest = after;
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    Ok(parts)
}

/// A claim by its name, or within others. Names with dots go first: some issuers name theirs by URL.
fn find<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        find(claims.get(first)?.as_object()?, rest)
    });
    found.filter(|value| !value.is_null() && value.as_str() != Some(""))
}

/// Reads a verified token's claims as the issuer's profile says.
pub(super) fn map(issuer: &Trusted, subject: &str, claims: &Map<String, Value>) -> Result<Claims, Refusal> {
    for (name, values) in &issuer.require {
        let value = find(claims, name).map(|value| scalar(name, value)).transpose()?;
        if !value.is_some_and(|value| values.contains(&value)) {
            return Err(Refusal::Required { claim: name.clone() });
        }
    }
    let mut mapped = Claims {
        provider: issuer.profile,
        issuer: issuer.issuer.clone(),
        subject: subject.to_owned(),
        ..Claims::default()
    };
    for (field, expression) in &issuer.mapping.0 {
        match field {
            Field::RefProtected => mapped.ref_protected = flag(*field, expression, claims)?,
            Field::Groups => mapped.groups = list(*field, expression, claims)?,
            _ => {
                if let Some(text) = text(*field, expression, claims)? {
                    mapped.texts.insert(*field, text);
                }
            }
        }
    }
    let of_groups = mapped.groups.iter().filter_map(|group| issuer.roles.get(group)).flatten();
    mapped.roles = of_groups.collect::<std::collections::BTreeSet<_>>().into_iter().cloned().collect();
    match mapped.within_limits() {
        true => Ok(mapped),
        false => Err(Refusal::claim("sub", "is too long")),
    }
}

/// The value of the first alternative that is there; an error if there is none and must be one.
fn first<T>(
    field: Field,
    expression: &Expression,
    mut of: impl FnMut(&[Part]) -> Result<Option<T>, Refusal>,
) -> Result<Option<T>, Refusal> {
    for alternative in &expression.alternatives {
        if let Some(found) = of(alternative)? {
            return Ok(Some(found));
        }
    }
    if expression.optional { Ok(None) } else { Err(Refusal::Unmapped { field: field.as_str() }) }
}

fn text(
    field: Field,
    expression: &Expression,
    claims: &Map<String, Value>,
) -> Result<Option<String>, Refusal> {
    first(field, expression, |parts| {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Claim(name) => match find(claims, name) {
                    Some(value) => text.push_str(&scalar(name, value)?),
                    None => return Ok(None),
                },
            }
        }
        if text.len() > MAX_TEXT {
            return Err(Refusal::claim(field.as_str(), "is too long"));
        }
        Ok(Some(text))
    })
}

/// A text, or a whole number: some issuers write their ids so.
fn scalar(name: &str, value: &Value) -> Result<String, Refusal> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_u64() => Ok(number.to_string()),
        _ => Err(Refusal::claim(name, "is no text")),
    }
}

/// GitHub and GitLab write theirs as a text.
fn flag(field: Field, expression: &Expression, claims: &Map<String, Value>) -> Result<Option<bool>, Refusal> {
    first(field, expression, |parts| {
        let [Part::Claim(name)] = parts else { return Err(Refusal::claim(field.as_str(), "is no claim")) };
        match find(claims, name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text == "true" => Ok(Some(true)),
            Some(Value::String(text)) if text == "false" => Ok(Some(false)),
            Some(_) => Err(Refusal::claim(name, "is neither true nor false")),
        }
    })
}

fn list(field: Field, expression: &Expression, claims: &Map<String, Value>) -> Result<Vec<String>, Refusal> {
    let found = first(field, expression, |parts| {
        let [Part::Claim(name)] = parts else { return Err(Refusal::claim(field.as_str(), "is no claim")) };
        let Some(value) = find(claims, name) else { return Ok(None) };
        let texts =
            value.as_array().map(|values| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let Some(Some(texts)) = texts else { return Err(Refusal::claim(name, "is no list of texts")) };
        if texts.len() > MAX_GROUPS || texts.iter().any(|text| text.len() > MAX_TEXT) {
            return Err(Refusal::claim(name, "is too long"));
        }
        Ok(Some(texts.into_iter().map(str::to_owned).collect()))
    });
    Ok(found?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
