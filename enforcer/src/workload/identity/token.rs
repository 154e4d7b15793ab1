//! One token: what it must look like, who signed it, for whom and until when.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::config::Trusted;
use super::keys::Key;

/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 16 * 1024;
/// Letters of a foreign text that a refusal tells.
const TOLD: usize = 100;

/// Why a token is refused. It is told to the job: nothing of the token stands in it but
/// names, and what its own claims say of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no issuer is configured, so that no token can be verified: ask the operator for [identity]")]
    NoIssuers,
    #[error("the token is longer than {MAX_TOKEN} bytes")]
    TooLong,
    #[error("this is no signed token: {0}")]
    NoToken(&'static str),
    #[error("`{issuer}` is no issuer that is known here: ask the operator to add it to [identity]")]
    UnknownIssuer { issuer: String },
    #[error("a token of {issuer} is not accepted with the algorithm `{alg}`")]
    Algorithm { issuer: String, alg: String },
    #[error("{issuer} has no key like the one that the token names")]
    UnknownKey { issuer: String },
    #[error("the keys of {issuer} are not to be had: {why}; try again in a while")]
    NoKeys { issuer: String, why: String },
    #[error("`{issuer}` has no `job_api` here: ask the operator for it, or request a token for us")]
    NoApi { issuer: String },
    #[error("the API of {issuer} does not say whose job this is: {why}")]
    Api { issuer: String, why: String },
    #[error("the token was not signed by {issuer}")]
    Signature { issuer: String },
    #[error("the token is not for us alone: request one for the audience `{wanted}`")]
    Audience { wanted: String },
    #[error("the token has expired: request a new one")]
    Expired,
    #[error("the token is not valid yet: the clock of this host or of its issuer is wrong")]
    NotYet,
    #[error("the claim `{claim}` {why}")]
    Claim { claim: String, why: &'static str },
    #[error("no claim of the token is `{field}` here: see `claims` of its issuer in [identity]")]
    Unmapped { field: &'static str },
    #[error("the claim `{claim}` has not the value that the operator demands")]
    Required { claim: String },
    #[error("the token was presented by another job: request one for this job")]
    AnothersToken,
    #[error("this job is another one already: `enforcer job end` ends that one")]
    AnotherIdentity,
    #[error("the API was asked for this job too often: wait a minute")]
    TooOften,
    #[error("too many tokens were presented: wait until some have expired")]
    TooMany,
    #[error("what the job says of itself is too long")]
    TooLongClaims,
}

impl Refusal {
    pub(super) fn claim(claim: &str, why: &'static str) -> Self {
        Refusal::Claim { claim: short(claim), why }
    }

    /// A word for the recording.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::NoIssuers => "no-issuers",
            Refusal::TooLong | Refusal::TooLongClaims => "too-long",
            Refusal::NoToken(_) => "no-token",
            Refusal::UnknownIssuer { .. } => "unknown-issuer",
            Refusal::Algorithm { .. } => "algorithm",
            Refusal::UnknownKey { .. } => "unknown-key",
            Refusal::NoKeys { .. } => "no-keys",
            Refusal::NoApi { .. } => "no-api",
            Refusal::Api { .. } => "api",
            Refusal::Signature { .. } => "signature",
            Refusal::Audience { .. } => "audience",
            Refusal::Expired => "expired",
            Refusal::NotYet => "not-yet-valid",
            Refusal::Claim { .. } => "claim",
            Refusal::Unmapped { .. } => "unmapped",
            Refusal::Required { .. } => "required",
            Refusal::AnothersToken => "token-of-another-job",
            Refusal::AnotherIdentity => "another-identity",
            Refusal::TooOften => "too-often",
            Refusal::TooMany => "too-many-tokens",
        }
    }
}

/// A header as we read it. What else stands in it says nothing to us, `jwk` and `jku` least:
/// a token does not bring its own key.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

/// A token of which nothing is verified yet.
pub(super) struct Unverified<'a> {
    signed: &'a [u8],
    signature: &'a str,
    pub alg: String,
    pub kid: Option<String>,
    claims: Map<String, Value>,
}

/// A token that its issuer signed for us, and that is valid now.
pub(super) struct Verified {
    pub subject: String,
    pub claims: Map<String, Value>,
    /// What makes it the one that it is: `jti`, or without one all that was signed.
    pub id: [u8; 32],
    /// When nobody accepts it any more, in seconds since 1970.
    pub ends: u64,
}

impl<'a> Unverified<'a> {
    pub fn parse(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > MAX_TOKEN {
            return Err(Refusal::TooLong);
        }
        let three = "it has not three parts with dots between them";
        let (signed, signature) = token.rsplit_once('.').ok_or(Refusal::NoToken(three))?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::NoToken(three))?;
        if claims.contains('.') {
            return Err(Refusal::NoToken(three));
        }
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part);
        let header = decoded(header).ok().and_then(|text| serde_json::from_slice::<Header>(&text).ok());
        let header = header.ok_or(Refusal::NoToken("its header is not readable"))?;
        if header.crit.is_some() {
            return Err(Refusal::NoToken("its header demands what is not known here"));
        }
        let claims = decoded(claims).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let claims = claims.ok_or(Refusal::NoToken("its claims are not readable"))?;
        let Header { alg, kid, .. } = header;
        Ok(Self { signed: signed.as_bytes(), signature, alg, kid, claims })
    }

    /// Who says that he signed it.
    pub fn issuer(&self) -> Result<&str, Refusal> {
        self.claims.get("iss").and_then(Value::as_str).ok_or_else(|| Refusal::claim("iss", "is no text"))
    }

    /// Among those that the issuer may use.
    pub fn algorithm(&self, issuer: &Trusted) -> Result<Algorithm, Refusal> {
        let named = |alg: &&Algorithm| format!("{alg:?}") == self.alg;
        issuer
            .algorithms
            .iter()
            .find(named)
            .copied()
            .ok_or_else(|| Refusal::Algorithm { issuer: issuer.name.clone(), alg: short(&self.alg) })
    }

    /// Everything but the claims' meaning; `now` is in seconds since 1970.
    pub fn verify(
        self,
        issuer: &Trusted,
        alg: Algorithm,
        key: &Key,
        now: u64,
        leeway: u64,
    ) -> Result<Verified, Refusal> {
        if !key.signed(alg, self.signed, self.signature) {
            return Err(Refusal::Signature { issuer: issuer.name.clone() });
        }
        if self.issuer()? != issuer.issuer {
            return Err(Refusal::UnknownIssuer { issuer: short(self.issuer()?) });
        }
        self.audience(&issuer.audience)?;
        let ends = self.times(now, leeway)?;
        let texts = |name| match self.claims.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.as_str())),
            Some(_) => Err(Refusal::claim(name, "is no text")),
        };
        let subject = texts("sub")?.ok_or_else(|| Refusal::claim("sub", "is missing"))?.to_owned();
        let mut hash = blake3::Hasher::new();
        hash.update(issuer.issuer.as_bytes());
        match texts("jti")? {
            Some(jti) => hash.update(b"\0jti\0").update(jti.as_bytes()),
            None => hash.update(b"\0all\0").update(self.signed),
        };
        Ok(Verified { subject, id: *hash.finalize().as_bytes(), ends, claims: self.claims })
    }

    /// **Invariant**: for us alone. Whoever else a token is for could present it here.
    fn audience(&self, wanted: &str) -> Result<(), Refusal> {
        let ours = match self.claims.get("aud") {
            Some(Value::String(one)) => one == wanted,
            Some(Value::Array(all)) => matches!(&all[..], [Value::String(one)] if one == wanted),
            _ => return Err(Refusal::claim("aud", "is missing, or no text")),
        };
        if ours { Ok(()) } else { Err(Refusal::Audience { wanted: wanted.to_owned() }) }
    }

    fn times(&self, now: u64, leeway: u64) -> Result<u64, Refusal> {
        let time = |name| match self.claims.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(time) => Ok(Some(time)),
                None => Err(Refusal::claim(name, "is no number of whole seconds")),
            },
        };
        let missing = |name| Refusal::claim(name, "is missing");
        let ends = time("exp")?.ok_or_else(|| missing("exp"))?.saturating_add(leeway);
        let issued = time("iat")?.ok_or_else(|| missing("iat"))?;
        let begins = time("nbf")?.unwrap_or(issued).max(issued);
        if now >= ends {
            return Err(Refusal::Expired);
        }
        if begins > now.saturating_add(leeway) {
            return Err(Refusal::NotYet);
        }
        Ok(ends)
    }
}

pub(super) fn short(text: &str) -> String {
    text.chars().take(TOLD).collect()
}
