//! Which job has presented which token.
//!
//! A token belongs to the first job that presents it, until it has expired. The table never
//! forgets one before: when it is full, more are refused.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Refusal;

/// The most tokens of all jobs that have not expired.
pub const MAX_TOKENS: usize = 65_536;
/// The most of one job: a job can have as many made as it likes.
pub const MAX_TOKENS_OF_JOB: usize = 64;

/// What one job is known by: a number that no other one ever has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobId(Uuid);

impl JobId {
    pub fn new() -> Self {
        Self(Uuid::new_v4())
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Default for JobId {
    fn default() -> Self {
        Self::new()
    }
}

/// By what a token is known, and when it has ended, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenId {
    pub id: [u8; 32],
    pub ends: u64,
}

/// A token, and whose it is until it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub token: TokenId,
    pub job: JobId,
}

#[derive(Debug, Default)]
pub struct Replay {
    by_token: HashMap<[u8; 32], (JobId, u64)>,
    of_job: HashMap<JobId, usize>,
    /// When the next one ends, as far as is known.
    next: u64,
}

impl Replay {
    /// The job presents a token. It may do so again; nobody else may.
    pub fn present(&mut self, token: TokenId, job: JobId, now: u64) -> Result<(), Refusal> {
        if let Some((owner, ends)) = self.by_token.get(&token.id)
            && now < *ends
        {
            return if *owner == job { Ok(()) } else { Err(Refusal::AnothersToken) };
        }
        if now >= self.next {
            self.sweep(now);
        }
        let own = self.of_job.get(&job).copied().unwrap_or_default();
        if self.by_token.len() >= MAX_TOKENS || own >= MAX_TOKENS_OF_JOB {
            return Err(Refusal::TooMany);
        }
        self.by_token.insert(token.id, (job, token.ends));
        self.of_job.insert(job, own + 1);
        self.next = self.next.min(token.ends);
        Ok(())
    }

    fn sweep(&mut self, now: u64) {
        self.by_token.retain(|_, (_, ends)| now < *ends);
        self.of_job.clear();
        for (job, _) in self.by_token.values() {
            *self.of_job.entry(*job).or_default() += 1;
        }
        self.next = self.by_token.values().map(|(_, ends)| *ends).min().unwrap_or(u64::MAX);
    }

    /// All that have not ended, for who comes after.
    pub fn spent(&self, now: u64) -> Vec<Spent> {
        let all = self
            .by_token
            .iter()
            .map(|(id, (job, ends))| Spent { token: TokenId { id: *id, ends: *ends }, job: *job });
        all.filter(|spent| now < spent.token.ends).collect()
    }

    /// What somebody before took down. What is known by now stays as it is.
    pub fn know(&mut self, spent: &[Spent], now: u64) {
        for one in spent.iter().filter(|one| now < one.token.ends) {
            if let Err(refusal) = self.present(one.token, one.job, now) {
                tracing::warn!(%refusal, "a token that was presented before");
            }
        }
    }

    pub fn len(&self) -> usize {
        self.by_token.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_token.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: usize, ends: u64) -> TokenId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&(number as u64).to_le_bytes());
        TokenId { id, ends }
    }

    #[test]
    fn a_token_is_of_the_first_job_until_it_ends() {
        let (mut replay, one, two) = (Replay::default(), JobId::new(), JobId::new());
        replay.present(token(1, 100), one, 10).unwrap();
        replay.present(token(1, 100), one, 99).unwrap();
        assert_eq!(replay.present(token(1, 100), two, 99), Err(Refusal::AnothersToken));
        // By then it is refused as expired, before anybody looks here.
        replay.present(token(2, 200), two, 100).unwrap();
        assert_eq!(replay.len(), 1);
    }

    #[test]
    fn who_comes_after_knows_whose_tokens_are_whose() {
        let (mut replay, one, two) = (Replay::default(), JobId::new(), JobId::new());
        replay.present(token(1, 100), one, 10).unwrap();
        replay.present(token(2, 50), one, 10).unwrap();
        let mut next = Replay::default();
        next.present(token(3, 100), two, 40).unwrap();
        next.know(&replay.spent(49), 49);
        assert_eq!(next.len(), 3);
        assert_eq!(next.present(token(1, 100), two, 49), Err(Refusal::AnothersToken));
        assert_eq!(next.present(token(2, 50), two, 49), Err(Refusal::AnothersToken));
        next.present(token(1, 100), one, 49).unwrap();
        // Whose it is does not change, and what has ended is not taken down.
        next.know(&[Spent { token: token(3, 100), job: one }], 49);
        next.present(token(3, 100), two, 49).unwrap();
        assert_eq!(replay.spent(50).len(), 1);
        let mut last = Replay::default();
        last.know(&replay.spent(49), 50);
        assert_eq!(last.len(), 1);
    }

    #[test]
    fn a_job_has_so_many_tokens_and_takes_no_room_from_others() {
        let (mut replay, one, two) = (Replay::default(), JobId::new(), JobId::new());
        for number in 0..MAX_TOKENS_OF_JOB {
            replay.present(token(number, 100), one, 10).unwrap();
        }
        assert_eq!(replay.present(token(MAX_TOKENS_OF_JOB, 100), one, 10), Err(Refusal::TooMany));
        replay.present(token(0, 100), one, 10).unwrap();
        replay.present(token(MAX_TOKENS_OF_JOB, 100), two, 10).unwrap();
        // When they have ended there is room again.
        replay.present(token(MAX_TOKENS_OF_JOB + 1, 200), one, 100).unwrap();
        assert_eq!(replay.len(), 1);
    }

    #[test]
    fn the_table_has_an_end_and_forgets_nothing_before_its_time() {
        let mut replay = Replay::default();
        for number in 0..MAX_TOKENS {
            replay.present(token(number, 100), JobId(Uuid::from_u128(number as u128)), 10).unwrap();
        }
        let late = JobId::new();
        assert_eq!(replay.present(token(MAX_TOKENS, 100), late, 10), Err(Refusal::TooMany));
        assert_eq!(replay.present(token(0, 100), late, 10), Err(Refusal::AnothersToken));
        replay.present(token(MAX_TOKENS, 200), late, 100).unwrap();
        assert_eq!(replay.len(), 1);
    }
}
