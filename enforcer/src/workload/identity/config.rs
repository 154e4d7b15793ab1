//! Whose tokens count: the section `[identity]` of the configuration.

use std::collections::{BTreeMap, BTreeSet};

use http::Uri;
use jsonwebtoken::Algorithm;
use serde::{Deserialize, Serialize};

use super::Field;
use super::mapping::{Expression, Mapping};

/// The most issuers.
const MAX_ISSUERS: usize = 64;
/// The longest leeway, in seconds: a token of that age has ended for everybody else.
const MAX_LEEWAY: u64 = 600;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Seconds for which a job keeps an identity, from the first token on.
    pub max_age_s: u64,
    /// Seconds by which an issuer's clock may be wrong.
    pub leeway_s: u64,
    /// Whether an issuer on this host may be asked by plain HTTP.
    pub http_on_loopback: bool,
    pub issuer: Vec<IssuerConfig>,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self { max_age_s: 24 * 3600, leeway_s: 60, http_on_loopback: false, issuer: Vec::new() }
    }
}

/// One whose tokens are accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerConfig {
    pub name: String,
    /// Exactly as `iss` has it.
    pub issuer: String,
    /// Ours, and nobody else's: what its tokens are made for.
    pub audience: String,
    #[serde(default)]
    pub profile: Profile,
    /// Of GitLab: its API, which says of a job without a token for us who it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job_api: Option<String>,
    /// How its tokens may be signed.
    #[serde(default = "algorithms")]
    pub algorithms: Vec<String>,
    /// Claims that are read in place of the profile's.
    #[serde(default)]
    pub claims: BTreeMap<Field, String>,
    /// Claims that must have one of these values.
    #[serde(default)]
    pub require: BTreeMap<String, Vec<String>>,
    /// Roles, each with the groups that give it.
    #[serde(default)]
    pub roles: BTreeMap<String, Vec<String>>,
}

fn algorithms() -> Vec<String> {
    vec!["RS256".to_owned()]
}

/// How an issuer's claims are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Github,
    Gitlab,
    Buildkite,
    Forgejo,
    Azure,
    #[default]
    Generic,
}

impl Profile {
    pub const ALL: [Profile; 6] = [
        Profile::Github,
        Profile::Gitlab,
        Profile::Buildkite,
        Profile::Forgejo,
        Profile::Azure,
        Profile::Generic,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Profile::Github => "github",
            Profile::Gitlab => "gitlab",
            Profile::Buildkite => "buildkite",
            Profile::Forgejo => "forgejo",
            Profile::Azure => "azure",
            Profile::Generic => "generic",
        }
    }
}

/// An issuer once its settings are checked.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    pub name: String,
    pub issuer: String,
    pub audience: String,
    pub profile: Profile,
    pub job_api: Option<String>,
    pub algorithms: Vec<Algorithm>,
    pub mapping: Mapping,
    pub require: BTreeMap<String, BTreeSet<String>>,
    /// Roles of each group.
    pub roles: BTreeMap<String, BTreeSet<String>>,
}

impl IdentityConfig {
    /// What is wrong with it, for whoever wrote it.
    pub fn check(&self) -> Result<(), String> {
        self.compile().map(drop)
    }

    pub(super) fn compile(&self) -> Result<Vec<Trusted>, String> {
        if self.max_age_s == 0 {
            return Err("[identity] max_age_s is at least 1: with 0 no job would have an identity".to_owned());
        }
        if self.leeway_s > MAX_LEEWAY {
            return Err(format!("[identity] leeway_s is {MAX_LEEWAY} at the most"));
        }
        if self.issuer.len() > MAX_ISSUERS {
            return Err(format!("there are more than {MAX_ISSUERS} issuers in [identity]"));
        }
        let (mut names, mut issuers) = (BTreeSet::new(), BTreeSet::new());
        let mut compiled = Vec::new();
        for issuer in &self.issuer {
            let wrong = |why: String| format!("the issuer `{}`: {why}", issuer.name);
            if !names.insert(&issuer.name) {
                return Err(wrong("another one is called so too".to_owned()));
            }
            if !issuers.insert(&issuer.issuer) {
                return Err(wrong(format!("`{}` stands there twice", issuer.issuer)));
            }
            compiled.push(issuer.compile(self.http_on_loopback).map_err(wrong)?);
        }
        Ok(compiled)
    }
}

impl IssuerConfig {
    /// Whether its tokens say of which repository a job is, as ORGANIZATION/NAME. Those of Azure have
    /// a URL, unless the configuration says what to read.
    pub fn names_repositories(&self) -> bool {
        let repository = Field::Repository;
        match self.profile {
            Profile::Azure | Profile::Generic => self.claims.contains_key(&repository),
            Profile::Github | Profile::Gitlab | Profile::Buildkite | Profile::Forgejo => true,
        }
    }

    fn compile(&self, plain: bool) -> Result<Trusted, String> {
        let plain_name = |name: &str| {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            (1..=64).contains(&name.len()) && name.bytes().all(fine)
        };
        if !plain_name(&self.name) {
            return Err("a name has at most 64 letters, digits, `-`, `_` and `.`".to_owned());
        }
        [Some(&self.issuer), self.job_api.as_ref()]
            .into_iter()
            .flatten()
            .try_for_each(|it| url(it, plain))?;
        if self.job_api.is_some() && self.profile != Profile::Gitlab {
            return Err("`job_api` is for the profile `gitlab`: nobody else has one".to_owned());
        }
        if self.audience.is_empty() {
            return Err("it needs an `audience`: what its tokens for this host are made for".to_owned());
        }
        let algorithms = self.algorithms.iter().map(|name| algorithm(name)).collect::<Result<Vec<_>, _>>()?;
        if algorithms.is_empty() {
            return Err("`algorithms` is empty: no token would be accepted".to_owned());
        }
        let mut mapping = Mapping::of(self.profile);
        for (field, text) in &self.claims {
            let parsed =
                Expression::parse(text).map_err(|why| format!("claims.{}: {why}", field.as_str()))?;
            mapping.set(*field, parsed);
        }
        let mut roles: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (role, groups) in &self.roles {
            if !plain_name(role) {
                return Err(format!("the role `{role}` has other letters than a name"));
            }
            for group in groups {
                roles.entry(group.clone()).or_default().insert(role.clone());
            }
        }
        let require = self.require.iter();
        Ok(Trusted {
            name: self.name.clone(),
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            profile: self.profile,
            job_api: self.job_api.clone(),
            algorithms,
            mapping,
            require: require.map(|(claim, of)| (claim.clone(), of.iter().cloned().collect())).collect(),
            roles,
        })
    }
}

/// An address of an issuer, as its tokens have it or as it is asked at.
fn url(text: &str, plain: bool) -> Result<(), String> {
    let uri: Uri = text.parse().map_err(|_| format!("`{text}` is no URL"))?;
    let scheme = uri.scheme_str();
    if uri.host().is_none() || !(scheme == Some("https") || plain && scheme == Some("http")) {
        return Err(format!("`{text}` is no https URL"));
    }
    if uri.query().is_some() || text.contains(['#', '@']) {
        return Err(format!("`{text}` has parts that no issuer has"));
    }
    Ok(())
}

/// **Invariant**: nothing symmetric: whoever verifies with a secret could sign with it, and an
/// issuer's public key is no secret.
fn algorithm(name: &str) -> Result<Algorithm, String> {
    let known = match name {
        "RS256" => Algorithm::RS256,
        "RS384" => Algorithm::RS384,
        "RS512" => Algorithm::RS512,
        "PS256" => Algorithm::PS256,
        "PS384" => Algorithm::PS384,
        "PS512" => Algorithm::PS512,
        "ES256" => Algorithm::ES256,
        "ES384" => Algorithm::ES384,
        "EdDSA" => Algorithm::EdDSA,
        _ => {
            return Err(format!(
                "`{name}` is no algorithm that is accepted: RS256, RS384, RS512, PS256, PS384, PS512, ES256, \
                 ES384 and EdDSA are"
            ));
        }
    };
    Ok(known)
}
