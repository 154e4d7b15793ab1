//! Layers of policy: the host's, and below it those of organizations and of repositories.
//!
//! ```text
//!   host ─────────────────▶ organization ───────────▶ repository
//!   [policy] dir            ISSUER/org/NAME/          ISSUER/repo/NAME/
//!   says for everybody      says for its own jobs     says for its own jobs
//!      │                        │                         │
//!      └── delegate: organization, or repository          │
//!                               └── delegate: repository ─┘
//! ```
//!
//! A layer below can only narrow. Each is asked by itself, from the top; of its verdicts the
//! narrowest counts (deny, hold, allow), and what a layer below does not decide, or allows, stays as
//! those above it have it. Masks, `observe`, `body` and `durability` of all of them add up.
//!
//! It may widen where a rule above says `delegate`, and nowhere else: what that rule matches
//! is denied unless the layer that it names allows it. A layer between the two can still deny and hold.
//! To pass a connection unread has to be delegated by itself. Addresses that are not public are opened
//! by the host alone, at the rule that allows or that delegates.
//!
//! Two layers that both hold a request ask different people, of whom a question can have but one list:
//! it is denied, as for two rules of one layer (`held-by-two-rules`).
//!
//! A layer is chosen by who the job is, as a token has shown it. A job of which less is known has the
//! host's layer alone; what is delegated is denied to it.
//!
//! All layers are one [`Policy`], so that a statement is judged by one generation of all of them.
//! A layer below that does not load is the one that was good before, and without that denies
//! everything to its own jobs; others do not notice.
//!
//! **Invariant**: without a rule that delegates, no layer below makes an outcome wider. In doubt it
//! narrows, and in audit mode it only records.

mod judge;
mod read;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::workload::identity::{Assurance, Field};

use super::facts::{Fact, Facts, IdentityFacts};
use super::rule::{Deciding, Rule};
use super::{Mode, Policy, PolicyHash};

pub(super) use judge::Role;
pub use read::{Kept, LayerError, LayerProblem};
pub(super) use read::{kept, load};

/// Layers of all organizations and repositories.
pub const MAX_LAYERS: usize = 1_000;
/// Files of one of them.
pub const MAX_LAYER_FILES: usize = 64;
/// Rules of one of them.
pub const MAX_LAYER_RULES: usize = 1_000;
/// Values of all conditions of one of them.
pub const MAX_LAYER_VALUES: usize = 20_000;
/// Bytes of the files of one of them.
pub const MAX_LAYER_BYTES: u64 = 1024 * 1024;
/// Bytes of all their files together.
pub const MAX_LAYERS_BYTES: usize = 64 * 1024 * 1024;
/// Layers of the repositories of one organization.
pub const MAX_ORGANIZATION_LAYERS: usize = MAX_LAYERS / 2;
/// Bytes of the files of the repositories of one organization.
pub const MAX_ORGANIZATION_BYTES: usize = MAX_LAYERS_BYTES / 2;
/// Bytes of the name of a layer: its path in the folder of layers.
pub const MAX_LAYER_NAME_BYTES: usize = 256;

/// A layer below the host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Organization,
    Repository,
}

impl Level {
    pub fn as_str(self) -> &'static str {
        match self {
            Level::Organization => "organization",
            Level::Repository => "repository",
        }
    }
}

/// What a rule leaves to a layer below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delegation {
    pub to: Level,
    /// Whether that one may pass connections unread.
    pub passthrough: bool,
}

/// `ISSUER/org/NAME` or `ISSUER/repo/NAME`: the folder of a layer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerName {
    text: Arc<str>,
    level: Level,
}

impl LayerName {
    /// None: it is the name of no layer.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (_issuer, folder) = (parts.next()?, parts.next()?);
        let names = parts.clone().count();
        let level = match folder {
            "org" if names == 1 => Level::Organization,
            "repo" if names > 1 => Level::Repository,
            _ => return None,
        };
        // A colon comes after it where a rule is named.
        let fine = |part: &str| {
            let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '\\');
            !matches!(part, "" | "." | "..") && !part.contains(odd)
        };
        let good = text.len() <= MAX_LAYER_NAME_BYTES && text.split('/').all(fine);
        good.then(|| Self { text: text.into(), level })
    }

    /// `ISSUER/repo/ORGANIZATION`: stands in for the layers of all its repositories when nobody can
    /// say which there are.
    fn of_all(text: &str) -> Option<Self> {
        let (above, organization) = text.rsplit_once('/')?;
        let is_of_repositories = above.ends_with("/repo") && above.matches('/').count() == 1;
        (is_of_repositories && Self::parse(&format!("{text}/x")).is_some() && !organization.is_empty())
            .then(|| Self { text: text.into(), level: Level::Repository })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub fn level(&self) -> Level {
        self.level
    }

    /// The name of the issuer in the configuration.
    pub fn issuer(&self) -> &str {
        self.text.split('/').next().unwrap_or_default()
    }

    /// Whether this is the organization of that repository.
    fn is_above(&self, other: &Self) -> bool {
        let organization = other.of().split('/').next().unwrap_or_default();
        self.level == Level::Organization
            && other.level == Level::Repository
            && self.issuer() == other.issuer()
            && self.of() == organization
    }

    /// The organization or the repository, as the issuer's tokens name it.
    pub fn of(&self) -> &str {
        self.text.splitn(3, '/').nth(2).unwrap_or_default()
    }
}

impl fmt::Display for LayerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Where layers are, and whose they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayersFrom {
    pub dir: PathBuf,
    /// How far it has to be known who a job is; without a token nobody gets a layer that widens.
    pub assurance: Assurance,
    /// Names of issuers, and what stands in their tokens.
    pub issuers: BTreeMap<String, String>,
    /// Names of those whose tokens do not say of which repository a job is.
    pub nameless: BTreeSet<String>,
}

/// One layer of an organization or a repository, compiled.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    pub name: LayerName,
    pub policy: Arc<Policy>,
}

/// All layers below the host's.
#[derive(Debug)]
pub(super) struct Layers {
    assurance: Assurance,
    /// In the order of their names.
    all: BTreeMap<LayerName, Layer>,
    /// By the issuer as tokens have it.
    issuers: HashMap<Box<str>, Issuer>,
    hash: blake3::Hash,
    /// That, and the host's.
    whole: Option<PolicyHash>,
    pub holds: bool,
    pub tools: bool,
    /// One of their rules needs to know what is in bodies.
    pub bodies: bool,
}

#[derive(Debug, Default)]
struct Issuer {
    organizations: HashMap<Box<str>, Layer>,
    repositories: HashMap<Box<str>, Layer>,
}

impl Issuer {
    /// The layer of a repository. Of what is below a folder that cannot be read nobody knows whether
    /// there is one: what stands in for that denies.
    fn repository(&self, name: &str) -> Option<&Layer> {
        if let Some(own) = self.repositories.get(name) {
            return Some(own);
        }
        let groups = std::iter::successors(name.rsplit_once('/'), |(group, _)| group.rsplit_once('/'));
        let mut above = groups.filter_map(|(group, _)| self.repositories.get(group));
        above.find(|layer| layer.policy.missing)
    }
}

/// The layers of one job.
pub(super) enum Selected<'a> {
    /// From the top.
    These([Option<&'a Layer>; 2]),
    /// It is not known yet who the job is.
    Unknown,
}

impl Layers {
    fn new(assurance: Assurance, issuers: &BTreeMap<String, String>, layers: Vec<Layer>) -> Self {
        let all: BTreeMap<_, _> = layers.into_iter().map(|layer| (layer.name.clone(), layer)).collect();
        let mut by_issuer: HashMap<Box<str>, Issuer> = HashMap::new();
        for layer in all.values() {
            let Some(issuer) = issuers.get(layer.name.issuer()) else { continue };
            let issuer = by_issuer.entry(issuer.as_str().into()).or_default();
            let of = match layer.name.level() {
                Level::Organization => &mut issuer.organizations,
                Level::Repository => &mut issuer.repositories,
            };
            of.insert(layer.name.of().into(), layer.clone());
        }
        let hash = hash_of(all.values().map(|layer| (layer.name.as_str(), layer.policy.hash())));
        let holds = all.values().any(|layer| layer.policy.holds);
        let tools = all.values().any(|layer| layer.policy.tools);
        let bodies = all.values().any(|layer| layer.policy.bodies);
        Self { assurance, all, issuers: by_issuer, hash, whole: None, holds, tools, bodies }
    }

    pub fn all(&self) -> impl Iterator<Item = &Layer> {
        self.all.values()
    }

    /// The same below a host's layer of this hash.
    pub fn below(self, host: &PolicyHash) -> Self {
        Self { whole: Some(whole(host, &self.hash)), ..self }
    }

    pub fn whole(&self) -> Option<&PolicyHash> {
        self.whole.as_ref()
    }

    /// Those of a job. What is not known of it selects nothing.
    pub fn of(&self, identity: Fact<IdentityFacts<'_>>) -> Selected<'_> {
        let identity = match identity {
            Fact::Unknown => return Selected::Unknown,
            Fact::Absent => return Selected::These([None, None]),
            Fact::Known(identity) => identity,
        };
        let named = identity.claims.get(Field::Repository).and_then(|repository| {
            let (organization, _) = repository.split_once('/')?;
            Some((organization, repository, self.issuers.get(identity.claims.issuer.as_str())?))
        });
        match named {
            Some((organization, repository, issuer)) if identity.assurance >= self.assurance => {
                let organization = issuer.organizations.get(organization);
                Selected::These([organization, issuer.repository(repository)])
            }
            _ => Selected::These([None, None]),
        }
    }
}

impl Policy {
    /// The layers below the host's, and how many rules each has.
    pub fn layers(&self) -> Vec<(&LayerName, usize)> {
        let layers = self.layers.iter().flat_map(|layers| layers.all());
        layers.map(|layer| (&layer.name, layer.policy.len())).collect()
    }

    /// The names of those that a job has.
    pub fn layers_of(&self, facts: &Facts<'_>) -> Vec<&str> {
        match self.layers.as_ref().map(|layers| layers.of(facts.identity)) {
            Some(Selected::These(layers)) => {
                layers.into_iter().flatten().map(|layer| layer.name.as_str()).collect()
            }
            Some(Selected::Unknown) | None => Vec::new(),
        }
    }

    /// Rules below the host's that let through what no rule above delegates, and that keep nothing
    /// from a rule behind them.
    pub fn idle(&self) -> Vec<&str> {
        let delegates = |policy: &Self, to: Level| {
            let is = |rule: &Rule| matches!(&rule.deciding, Some(Deciding::Delegate(it)) if it.to == to);
            policy.rules.iter().any(|rule| rule.mode == Mode::Enforce && is(rule))
        };
        let mut idle = Vec::new();
        let Some(layers) = &self.layers else { return idle };
        for layer in layers.all() {
            let level = layer.name.level();
            let mut above = layers.all().filter(|above| above.name.is_above(&layer.name));
            if delegates(self, level) || above.any(|above| delegates(&above.policy, level)) {
                continue;
            }
            let rules = layer.policy.rules.iter().rev();
            let opens = |rule: &Rule| matches!(rule.deciding, Some(Deciding::Allow | Deciding::Passthrough));
            let after = rules.take_while(|rule| rule.deciding.is_none() || opens(rule));
            // What it limits, or adds, has an effect.
            let only = |rule: &&Arc<Rule>| opens(rule) && rule.limits.is_empty() && !rule.adding.is_any();
            let found: Vec<_> = after.filter(only).map(|rule| rule.id.as_str()).collect();
            idle.extend(found.into_iter().rev());
        }
        idle
    }
}

/// Over names and hashes of layers, in their order.
fn hash_of<'a>(layers: impl Iterator<Item = (&'a str, &'a PolicyHash)>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for part in layers.flat_map(|(name, hash)| [name, hash.as_str()]) {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
    }
    hasher.finalize()
}

fn whole(host: &PolicyHash, layers: &blake3::Hash) -> PolicyHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(host.as_str().as_bytes()).update(layers.as_bytes());
    PolicyHash::new(hasher.finalize())
}
