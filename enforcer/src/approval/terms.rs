//! What a requirement of policy comes to for one job.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::people::Account;
use crate::policy::{JobFacts, Need, NoStage, Offers, Requirement};

/// What one approval demands: the requirement, seen for one job.
///
/// A grant serves only under the terms that it was given under, so that a rule that
/// has become stricter is not met by what was approved before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub needs: Vec<Need>,
    pub excludes_self: bool,
    pub actor: Option<Account>,
    pub authors: Vec<Account>,
    pub retry_seconds: Option<u64>,
    pub offers: Offers,
}

impl Terms {
    /// What people have to agree to for such a job.
    pub fn of(
        requirement: &Requirement,
        job: JobFacts<'_>,
        actor: Option<&Account>,
        authors: &[Account],
    ) -> Result<Self, NoStage> {
        Ok(Self {
            needs: requirement.stage(job)?.needs.clone(),
            excludes_self: requirement.excludes_self(),
            actor: actor.cloned(),
            authors: authors.to_vec(),
            retry_seconds: requirement.retry_seconds(),
            offers: requirement.offers(),
        })
    }

    /// How many people have to agree.
    pub fn quorum(&self) -> usize {
        self.needs.iter().map(|need| need.people).sum()
    }

    /// Those who never count.
    pub fn parties(&self) -> impl Iterator<Item = &Account> {
        self.actor.iter().chain(&self.authors)
    }

    pub fn retry(&self) -> Option<Duration> {
        self.retry_seconds.map(Duration::from_secs)
    }
}
