//! An issuer's keys, and when they are asked for.
//!
//! ```text
//!  none ──▶ asked ──▶ fresh ──(max-age)──▶ old ──▶ asked again
//!             │         │                            │ failed
//!             │         └── a key that is not there: │
//!             ▼             one refetch in a while   ▼
//!        nobody asks again before the pause is over, and no old key is used
//! ```

use std::sync::Arc;
use std::time::{Duration, Instant};

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The most keys of one issuer that are kept.
pub const MAX_KEYS: usize = 64;
/// How long keys are used if the issuer does not say it.
const FRESH: Duration = Duration::from_secs(3600);
/// The shortest and the longest time, whatever it says.
const FRESH_MIN: Duration = Duration::from_secs(60);
const FRESH_MAX: Duration = Duration::from_secs(24 * 3600);
/// Between two refetches for keys that are not there: whoever invents keys asks the issuer
/// no more often than that.
pub const REFETCH_PAUSE: Duration = Duration::from_secs(30);
/// Between two attempts of which the first failed.
pub const RETRY_PAUSE: Duration = Duration::from_secs(5);

/// A public key.
#[derive(Debug, Clone)]
pub struct Key {
    kid: Option<String>,
    alg: Option<KeyAlgorithm>,
    family: AlgorithmFamily,
    key: DecodingKey,
}

impl Key {
    /// None is a key that no signature is verified with: a symmetric one, one for encryption,
    /// or of a kind that is not known.
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        if jwk.common.public_key_use.as_ref().is_some_and(|usage| *usage != PublicKeyUse::Signature) {
            return None;
        }
        let family = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
            AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
            AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
            _ => return None,
        };
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self { kid: jwk.common.key_id, alg: jwk.common.key_algorithm, family, key })
    }

    fn fits(&self, alg: Algorithm) -> bool {
        let same = |own: KeyAlgorithm| Algorithm::try_from(own).is_ok_and(|own| own == alg);
        alg.family() == self.family && self.alg.is_none_or(same)
    }

    pub(super) fn signed(&self, alg: Algorithm, message: &[u8], signature: &str) -> bool {
        self.fits(alg) && jsonwebtoken::crypto::verify(signature, message, &self.key, alg).unwrap_or(false)
    }
}

/// The keys of a document that an issuer publishes (RFC 7517, section 5).
pub fn read(document: &[u8]) -> Result<Vec<Key>, &'static str> {
    #[derive(Deserialize)]
    struct Document {
        keys: Vec<Value>,
    }
    let document: Document = serde_json::from_slice(document).map_err(|_| "its keys are not readable")?;
    if document.keys.len() > MAX_KEYS {
        return Err("it has more keys than are kept");
    }
    let keys: Vec<Key> = document.keys.into_iter().filter_map(Key::read).collect();
    if keys.is_empty() { Err("it has no key for signatures") } else { Ok(keys) }
}

/// The keys of one issuer as they were fetched last.
#[derive(Debug, Default)]
pub struct Cache {
    keys: Arc<Vec<Key>>,
    fresh_until: Option<Instant>,
    refetched: Option<Instant>,
    failed: Option<(Instant, String)>,
}

/// What is to be done for a token.
#[derive(Debug)]
pub enum Next {
    Use(Key),
    /// Ask the issuer, and then this again.
    Fetch,
    /// No such key, and it was asked a moment ago.
    Unknown,
    /// It could not be asked a moment ago.
    Unavailable(String),
}

impl Cache {
    /// A token without `kid` needs an issuer with one key that fits.
    pub fn next(&self, kid: Option<&str>, alg: Algorithm, now: Instant) -> Next {
        if self.fresh_until.is_none_or(|until| now >= until) {
            return self.retry(now);
        }
        let mut fitting = self.keys.iter().filter(|key| key.fits(alg));
        let found = match kid {
            Some(kid) => fitting.find(|key| key.kid.as_deref() == Some(kid)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        };
        match found {
            Some(key) => Next::Use(key.clone()),
            None if self.refetched.is_some_and(|at| now.duration_since(at) < REFETCH_PAUSE) => Next::Unknown,
            None => match self.retry(now) {
                Next::Unavailable(_) => Next::Unknown,
                next => next,
            },
        }
    }

    fn retry(&self, now: Instant) -> Next {
        match &self.failed {
            Some((at, why)) if now.duration_since(*at) < RETRY_PAUSE => Next::Unavailable(why.clone()),
            _ => Next::Fetch,
        }
    }

    /// The issuer is asked. If its keys are fresh, this is the one refetch of a while.
    pub fn asks(&mut self, now: Instant) {
        if self.fresh_until.is_some_and(|until| now < until) {
            self.refetched = Some(now);
        }
    }

    pub fn took(&mut self, keys: Vec<Key>, max_age: Option<Duration>, now: Instant) {
        self.keys = Arc::new(keys);
        self.fresh_until = Some(now + max_age.unwrap_or(FRESH).clamp(FRESH_MIN, FRESH_MAX));
        self.failed = None;
    }

    pub fn failed(&mut self, why: String, now: Instant) {
        self.failed = Some((now, why));
    }
}

#[cfg(test)]
mod tests;
