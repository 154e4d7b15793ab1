//! Puts the steps together, and asks issuers in between.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use jsonwebtoken::Algorithm;

use super::config::Trusted;
use super::fetch::Fetch;
use super::keys::{Cache, Key, Next};
use super::replay::{JobId, Replay, Spent, TokenId};
use super::slot::{Bound, Slot};
use super::token::{MAX_TOKEN, Unverified, short};
use super::{Assurance, Identity, IdentityConfig, Refusal, gitlab, mapping};
use crate::secret::SecretText;

/// Verifies tokens, and knows which job presented which.
pub struct Verifier {
    issuers: Vec<Issuer>,
    leeway: u64,
    max_age: u64,
    replay: Mutex<Replay>,
    fetch: Box<dyn Fetch>,
}

struct Issuer {
    trusted: Trusted,
    cache: Mutex<Cache>,
    /// Held by the one that asks; a token whose key is known waits for nobody.
    asking: tokio::sync::Mutex<()>,
}

/// A token that was verified for a job.
#[derive(Debug)]
pub struct Presented {
    pub(super) identity: Identity,
    pub(super) token: TokenId,
    /// What the job would be known by that comes with another token of it.
    pub(super) otherwise: Option<TokenId>,
}

impl Presented {
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether it is the token that this job has shown before. Another one may be that of the next
    /// job of the same run.
    pub fn is_of(&self, bound: &Bound) -> bool {
        bound.tokens.iter().any(|token| token.id == self.token.id)
    }
}

impl Verifier {
    /// An error says what is wrong with the configuration.
    pub fn new(config: &IdentityConfig, fetch: Box<dyn Fetch>) -> Result<Self, String> {
        let issuer =
            |trusted| Issuer { trusted, cache: Mutex::default(), asking: tokio::sync::Mutex::default() };
        let issuers = config.compile()?.into_iter().map(issuer).collect();
        let (leeway, max_age) = (config.leeway_s, config.max_age_s);
        Ok(Self { issuers, leeway, max_age, replay: Mutex::default(), fetch })
    }

    /// The identity that a token shows. Nothing is bound by it yet.
    pub async fn verify(&self, token: &SecretText, now: SystemTime) -> Result<Presented, Refusal> {
        let now = seconds(now);
        if self.issuers.is_empty() {
            return Err(Refusal::NoIssuers);
        }
        let token = Unverified::parse(token.expose())?;
        let named = token.issuer()?;
        let issuer = self.issuers.iter().find(|it| it.trusted.issuer == named);
        let issuer = issuer.ok_or_else(|| Refusal::UnknownIssuer { issuer: short(named) })?;
        let alg = token.algorithm(&issuer.trusted)?;
        let key = self.key(issuer, token.kid.as_deref(), alg).await?;
        let verified = token.verify(&issuer.trusted, alg, &key, now, self.leeway)?;
        let claims = mapping::map(&issuer.trusted, &verified.subject, &verified.claims)?;
        let identity = Identity { claims, assurance: Assurance::Oidc };
        let token = TokenId { id: verified.id, ends: verified.ends };
        // Who shows the API the token that this job has for GitLab is this job, or nobody.
        let number = verified.claims.get("job_id").and_then(|number| number.as_str());
        let number = number.filter(|_| issuer.trusted.job_api.is_some());
        let ends = now.saturating_add(self.max_age);
        let otherwise = number.map(|number| TokenId { id: gitlab::id(&issuer.trusted, number), ends });
        Ok(Presented { identity, token, otherwise })
    }

    /// The identity that a provider's API says of a job's own token. That one is for whomever the job
    /// calls, and not for us alone: what comes of it is worth less.
    pub async fn vouched(
        &self,
        issuer: &str,
        token: &SecretText,
        now: SystemTime,
    ) -> Result<Presented, Refusal> {
        if token.expose().len() > MAX_TOKEN {
            return Err(Refusal::TooLong);
        }
        let trusted = self.issuers.iter().map(|it| &it.trusted).find(|it| it.issuer == issuer);
        let asked = trusted.and_then(|trusted| Some((trusted, trusted.job_api.as_deref()?)));
        let (trusted, api) = asked.ok_or_else(|| Refusal::NoApi { issuer: short(issuer) })?;
        let answer = self.fetch.job(api, token).await;
        let answer =
            answer.map_err(|error| Refusal::Api { issuer: trusted.name.clone(), why: error.to_string() })?;
        let job = gitlab::read(trusted, &answer)?;
        let claims = mapping::map(trusted, &job.subject, &job.claims)?;
        let identity = Identity { claims, assurance: Assurance::Api };
        // It is another job's for as long as that one could be known by it.
        let ends = seconds(now).saturating_add(self.max_age);
        Ok(Presented { identity, token: TokenId { id: job.id, ends }, otherwise: None })
    }

    /// From now on the workload is this job. A token of another job is refused.
    pub fn bind(&self, slot: &Slot, shown: Presented, now: SystemTime) -> Result<Arc<Bound>, Refusal> {
        let (now, Presented { identity, token, otherwise }) = (seconds(now), shown);
        let mut replay = self.replay();
        let bound = slot.get(now);
        // First: a token that is not taken is not this job's for that.
        bound.as_ref().map_or(Ok(()), |bound| bound.accepts(&identity))?;
        let job = bound.map_or_else(JobId::new, |bound| bound.job);
        replay.present(token, job, now)?;
        let mut tokens = vec![token];
        if let Some(other) = otherwise {
            match replay.present(other, job, now) {
                Ok(()) => tokens.push(other),
                // What is signed for us counts, and not who was quicker with what is not.
                Err(refusal) => tracing::warn!(%refusal, "another job was known by this one's own token"),
            }
        }
        slot.bind(self.bound(identity, job, tokens, now), now)
    }

    /// The same for what a job says of itself, which is worth what it is.
    pub fn attest(&self, slot: &Slot, identity: Identity, now: SystemTime) -> Result<Arc<Bound>, Refusal> {
        let now = seconds(now);
        let _one_at_a_time = self.replay();
        let job = slot.get(now).map_or_else(JobId::new, |bound| bound.job);
        slot.bind(self.bound(identity, job, Vec::new(), now), now)
    }

    /// Tokens that jobs presented to an earlier proxy, of jobs that have ended too.
    pub fn know(&self, spent: &[Spent], now: SystemTime) {
        self.replay().know(spent, seconds(now));
    }

    /// What an earlier proxy bound; None if it has ended, or cannot be read.
    pub fn restore(&self, slot: &Slot, kept: &str, now: SystemTime) -> Option<Arc<Bound>> {
        let (now, bound) = (seconds(now), Bound::from_kept(kept)?);
        let mut replay = self.replay();
        if now >= bound.until {
            return None;
        }
        for token in bound.tokens.iter().filter(|token| now < token.ends) {
            replay.present(*token, bound.job, now).ok()?;
        }
        slot.bind(bound, now).ok()
    }

    fn bound(&self, identity: Identity, job: JobId, tokens: Vec<TokenId>, since: u64) -> Bound {
        let until = since.saturating_add(self.max_age);
        Bound { identity: Arc::new(identity), job, tokens, since, until }
    }

    fn replay(&self) -> MutexGuard<'_, Replay> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn key(&self, issuer: &Issuer, kid: Option<&str>, alg: Algorithm) -> Result<Key, Refusal> {
        if let Some(known) = issuer.key(kid, alg) {
            return known;
        }
        let _asking = issuer.asking.lock().await;
        // Whoever asked before may have got it.
        if let Some(known) = issuer.key(kid, alg) {
            return known;
        }
        issuer.cache().asks(Instant::now());
        let fetched = self.fetch.keys(&issuer.trusted.issuer).await;
        match fetched {
            Ok((keys, max_age)) => issuer.cache().took(keys, max_age, Instant::now()),
            Err(error) => {
                tracing::warn!(issuer = issuer.trusted.name, %error, "the keys of an issuer");
                issuer.cache().failed(error.to_string(), Instant::now());
            }
        }
        issuer.key(kid, alg).unwrap_or_else(|| Err(issuer.unknown_key()))
    }
}

impl Issuer {
    /// None: it has to be asked.
    fn key(&self, kid: Option<&str>, alg: Algorithm) -> Option<Result<Key, Refusal>> {
        match self.cache().next(kid, alg, Instant::now()) {
            Next::Use(key) => Some(Ok(key)),
            Next::Unknown => Some(Err(self.unknown_key())),
            Next::Unavailable(why) => Some(Err(Refusal::NoKeys { issuer: self.trusted.name.clone(), why })),
            Next::Fetch => None,
        }
    }

    fn unknown_key(&self) -> Refusal {
        Refusal::UnknownKey { issuer: self.trusted.name.clone() }
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
