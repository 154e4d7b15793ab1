//! The identity that a workload has now.
//!
//! ```text
//!  none ──start──▶ bound ──the same job again──▶ bound
//!   ▲                │
//!   └── end, or the age that it may have ◀───────┘      with the cgroup the slot is gone
//! ```

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use serde::{Deserialize, Serialize};

use super::replay::{JobId, Spent, TokenId};
use super::{Assurance, Claims, Identity, Refusal};

/// A job's identity, and what is needed to know it again.
#[derive(Debug, Clone)]
pub struct Bound {
    pub identity: Arc<Identity>,
    pub job: JobId,
    /// Tokens that the job has presented.
    pub tokens: Vec<TokenId>,
    pub since: u64,
    /// When it ends by its age, in seconds since 1970.
    pub until: u64,
}

/// Shared by all who ask about one workload.
#[derive(Debug, Default)]
pub struct Slot(ArcSwapOption<Bound>);

impl Slot {
    /// What holds now; `now` is in seconds since 1970.
    pub fn get(&self, now: u64) -> Option<Arc<Bound>> {
        self.0.load_full().filter(|bound| now < bound.until)
    }

    /// Takes what a token has shown. A job that has an identity keeps it: the same one may
    /// be shown again, with more assurance too, and another one is refused.
    pub fn bind(&self, new: Bound, now: u64) -> Result<Arc<Bound>, Refusal> {
        let Some(old) = self.get(now) else {
            let new = Arc::new(new);
            self.0.store(Some(Arc::clone(&new)));
            return Ok(new);
        };
        old.accepts(&new.identity)?;
        let better = old.identity.assurance <= new.identity.assurance;
        let identity = if better { new.identity } else { Arc::clone(&old.identity) };
        let mut tokens = old.tokens.clone();
        tokens.extend(new.tokens.into_iter().filter(|token| !old.tokens.contains(token)));
        // From its first token on: presenting another one makes nobody younger.
        let bound = Arc::new(Bound { identity, job: old.job, tokens, since: old.since, until: old.until });
        self.0.store(Some(Arc::clone(&bound)));
        Ok(bound)
    }

    pub fn clear(&self) -> Option<Arc<Bound>> {
        self.0.swap(None)
    }
}

/// As the loader keeps it for the next proxy, without looking at it.
#[derive(Serialize, Deserialize)]
struct Kept {
    claims: Claims,
    assurance: Assurance,
    job: JobId,
    tokens: Vec<TokenId>,
    since: u64,
    until: u64,
}

impl Bound {
    /// A job stays the one that it is. What it says of itself says nothing beside what was verified,
    /// and two that were verified are of one job, however each was.
    pub(super) fn accepts(&self, shown: &Identity) -> Result<(), Refusal> {
        let (known, shown_as) = (self.identity.assurance, shown.assurance);
        let comparable = known == shown_as || known.min(shown_as) > Assurance::Attested;
        match comparable && !self.identity.is_same_job(shown) {
            true => Err(Refusal::AnotherIdentity),
            false => Ok(()),
        }
    }

    /// The tokens that are nobody else's.
    pub fn spent(&self) -> Vec<Spent> {
        self.tokens.iter().map(|token| Spent { token: *token, job: self.job }).collect()
    }

    /// For the loader.
    pub fn to_kept(&self) -> Option<String> {
        let (claims, assurance) = (self.identity.claims.clone(), self.identity.assurance);
        let (tokens, since, until) = (self.tokens.clone(), self.since, self.until);
        serde_json::to_string(&Kept { claims, assurance, job: self.job, tokens, since, until }).ok()
    }

    /// What an earlier proxy bound, from the loader and nobody else.
    pub(super) fn from_kept(text: &str) -> Option<Self> {
        let Kept { claims, assurance, job, tokens, since, until } = serde_json::from_str(text).ok()?;
        let identity = Arc::new(Identity { claims, assurance });
        Some(Self { identity, job, tokens, since, until })
    }
}
