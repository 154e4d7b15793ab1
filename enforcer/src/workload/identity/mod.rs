//! Who a job is: claims of a token that was verified.
//!
//! ```text
//!            issuer, alg, key      signature        audience, times     claims mapped
//!  token ──▶ of the list?     ──▶ by that key? ──▶ ours, now?      ──▶ all there?     ──▶ jti
//!                 │ unknown key                                                           │
//!                 ▼                                                   another job's: no ◀─┤
//!            one refetch of the issuer's keys                                             ▼
//!                                                                           Identity (oidc)
//! ```
//!
//! What a token says is decided by [`token`], [`mapping`], [`keys`] and [`replay`], which do no
//! I/O and have no clock; [`Verifier`] asks the issuer between their steps.
//!
//! Signatures are judged by `jsonwebtoken` with aws-lc-rs, the cryptography that TLS has here
//! too. `openidconnect` would bring `rsa` (RUSTSEC-2023-0071) and a second set of curves, and
//! the discovery that it adds is two documents. Of `jsonwebtoken` only keys and signatures are
//! used: which claims must be there, and what they may be, is said here.
//!
//! A GitLab job without a token for us shows the one that it has for GitLab itself; what GitLab's
//! API says of it ([`gitlab`]) is mapped by the same rules, and is an identity of assurance `api`.
//!
//! **Invariant**: only the verifier makes an [`Identity`] of assurance `oidc` or `api`. A token's expiry
//! gates its acceptance alone: jobs outlive their tokens.

pub mod config;
pub mod fetch;
mod gitlab;
pub mod keys;
pub mod mapping;
pub mod replay;
pub mod slot;
pub mod token;
mod verifier;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

pub use config::{IdentityConfig, IssuerConfig, Profile};
pub use token::Refusal;
pub use verifier::{Presented, Verifier};

/// The longest text of a claim, in bytes.
pub const MAX_TEXT: usize = 1024;
/// The most groups of one identity.
pub const MAX_GROUPS: usize = 256;

/// How far it is known who a job is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Assurance {
    /// Nobody said anything.
    #[default]
    None,
    /// The job's own hook said it; the kernel knows which job that is, and no more.
    Attested,
    /// The provider's API said it of the job's own token.
    Api,
    /// A token for us, signed by its issuer.
    Oidc,
}

impl Assurance {
    pub const ALL: [Assurance; 4] = [Assurance::None, Assurance::Attested, Assurance::Api, Assurance::Oidc];

    pub fn as_str(self) -> &'static str {
        match self {
            Assurance::None => "none",
            Assurance::Attested => "attested",
            Assurance::Api => "api",
            Assurance::Oidc => "oidc",
        }
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A part of an identity, by the name that it has in the configuration and in the recording;
/// in policies `ref_protected` is `protected`, and `run_attempt` is `attempt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Field {
    Repository,
    RepositoryId,
    Ref,
    RefProtected,
    Sha,
    Workflow,
    Environment,
    Event,
    RunId,
    RunAttempt,
    JobId,
    Actor,
    Groups,
}

impl Field {
    pub fn as_str(self) -> &'static str {
        match self {
            Field::Repository => "repository",
            Field::RepositoryId => "repository_id",
            Field::Ref => "ref",
            Field::RefProtected => "ref_protected",
            Field::Sha => "sha",
            Field::Workflow => "workflow",
            Field::Environment => "environment",
            Field::Event => "event",
            Field::RunId => "run_id",
            Field::RunAttempt => "run_attempt",
            Field::JobId => "job_id",
            Field::Actor => "actor",
            Field::Groups => "groups",
        }
    }
}

/// What is said of a job, in the same words for all providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    pub provider: Profile,
    /// As it stands in the token; empty if there was none.
    #[serde(default)]
    pub issuer: String,
    #[serde(default)]
    pub subject: String,
    /// Without `ref_protected` and `groups`, which are no texts.
    #[serde(default)]
    pub texts: BTreeMap<Field, String>,
    #[serde(default)]
    pub ref_protected: Option<bool>,
    #[serde(default)]
    pub groups: Vec<String>,
    /// What groups give, by the configuration.
    #[serde(default)]
    pub roles: Vec<String>,
}

impl Claims {
    pub fn get(&self, field: Field) -> Option<&str> {
        self.texts.get(&field).map(String::as_str)
    }

    /// Whether each part is as long as it may be.
    fn within_limits(&self) -> bool {
        let lists = self.groups.iter().chain(&self.roles);
        let texts = self.texts.values().chain(lists).chain([&self.issuer, &self.subject]);
        self.groups.len() <= MAX_GROUPS && texts.into_iter().all(|text| text.len() <= MAX_TEXT)
    }
}

/// Who a job is, and how far that is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Identity {
    claims: Claims,
    assurance: Assurance,
}

impl Identity {
    /// What the job's hook says of itself. Issuer, subject, groups and roles come of tokens
    /// alone; None if a text is too long.
    pub fn attested(claims: Claims) -> Option<Self> {
        let (issuer, subject) = Default::default();
        let claims = Claims { issuer, subject, groups: Vec::new(), roles: Vec::new(), ..claims };
        claims.within_limits().then_some(Self { claims, assurance: Assurance::Attested })
    }

    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    pub fn assurance(&self) -> Assurance {
        self.assurance
    }

    /// Whether both are of the same job: a second token of a job has other times and another jti.
    pub fn is_same_job(&self, other: &Self) -> bool {
        let of = |it: &Self| {
            let texts = [Field::Repository, Field::RepositoryId, Field::RunId, Field::JobId];
            let texts = texts.map(|field| it.claims.get(field).map(str::to_owned));
            (it.claims.issuer.clone(), it.claims.subject.clone(), texts)
        };
        of(self) == of(other)
    }
}
