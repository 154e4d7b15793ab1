//! Logging in: the authorization code flow of OpenID Connect, with PKCE (RFC 7636).
//!
//! The token is verified by the verifier that judges those of `enforcer approvals`, for the same
//! issuer and audience. Here it is also the one that was asked for: it has our `nonce`.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Uri};
use serde::Deserialize;
use serde_json::Value;

use crate::approval::config::decider;
use crate::outgoing::{Client, Limits, OutgoingError};
use crate::secret::SecretText;
use crate::session::read::visible;
use crate::workload::identity::fetch::{MAX_DOCUMENT, PATIENCE};
use crate::workload::identity::{Identity, Refusal, Verifier};

use super::logins::Person;
use super::ticket::{Ticket, same};

/// How long a discovery is good.
const DISCOVERED: Duration = Duration::from_secs(600);
/// Letters of a name that are shown.
const NAME: usize = 64;

/// Why nobody is logged in. It is told to whoever tries.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("the issuer cannot be asked: {0}")]
    Outgoing(#[from] OutgoingError),
    #[error("the issuer's discovery is not readable, or is of another issuer")]
    Discovery,
    #[error("the issuer's address for logins is no https URL")]
    Endpoint,
    #[error("the issuer gives no ID token for the code")]
    NoToken,
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("the ID token is not the one that this login asked for")]
    Nonce,
}

pub type Step<'a, T> = Pin<Box<dyn Future<Output = Result<T, LoginError>> + Send + 'a>>;

/// Where people log in: an issuer, or a test.
pub trait Idp: Send + Sync {
    /// Where a browser goes to log in.
    fn authorize<'a>(&'a self, ticket: &'a Ticket) -> Step<'a, String>;
    /// Who has come back with this code.
    fn redeem<'a>(&'a self, code: &'a str, ticket: &'a Ticket) -> Step<'a, Person>;
    /// As `iss` has it.
    fn issuer(&self) -> &str;
}

/// The page as a client of an issuer.
pub struct Oidc {
    pub issuer: String,
    pub client_id: String,
    pub scope: String,
    pub client_secret: Option<SecretText>,
    pub redirect_uri: String,
    pub plain_on_loopback: bool,
    pub client: Client,
    pub verifier: Verifier,
    pub known: Mutex<Option<(Instant, Endpoints)>>,
}

/// What is used of an issuer's discovery.
#[derive(Debug, Clone, Deserialize)]
pub struct Endpoints {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
}

#[derive(Deserialize)]
struct Tokens {
    id_token: SecretToken,
}

#[derive(Deserialize)]
#[serde(transparent)]
pub struct SecretToken(#[serde(with = "crate::secret::exposed")] pub SecretText);

impl Oidc {
    async fn endpoints(&self) -> Result<Endpoints, LoginError> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, endpoints)) = known
            && at.elapsed() < DISCOVERED
        {
            return Ok(endpoints);
        }
        let url = format!("{}/.well-known/openid-configuration", self.issuer.trim_end_matches('/'));
        let request = Request::get(url).header(ACCEPT, "application/json").body(Bytes::new());
        let request = request.map_err(|_| LoginError::Discovery)?;
        let answer = self.client.send(request, limits()).await?;
        let endpoints: Endpoints = serde_json::from_slice(&answer.body).map_err(|_| LoginError::Discovery)?;
        if endpoints.issuer != self.issuer {
            return Err(LoginError::Discovery);
        }
        let found = Some((Instant::now(), endpoints.clone()));
        *self.known.lock().unwrap_or_else(PoisonError::into_inner) = found;
        Ok(endpoints)
    }

    /// Browsers are sent there, so that it is looked at more closely than what only we ask.
    fn login_address(&self, endpoint: &str, ticket: &Ticket) -> Result<String, LoginError> {
        let uri: Uri = endpoint.parse().map_err(|_| LoginError::Endpoint)?;
        let plain = self.plain_on_loopback && uri.scheme_str() == Some("http");
        let strange = uri.authority().is_none_or(|it| it.as_str().contains('@'));
        if strange || !(plain || uri.scheme_str() == Some("https")) {
            return Err(LoginError::Endpoint);
        }
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &self.scope),
            ("state", &ticket.state),
            ("nonce", &ticket.nonce),
            ("code_challenge", &ticket.challenge()),
            ("code_challenge_method", "S256"),
        ]);
        let joint = if uri.query().is_some() { '&' } else { '?' };
        Ok(format!("{uri}{joint}{query}"))
    }

    async fn token(&self, code: &str, ticket: &Ticket) -> Result<SecretText, LoginError> {
        let endpoint = self.endpoints().await?.token_endpoint;
        let body = form(&[
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("client_id", &self.client_id),
            ("code_verifier", &ticket.verifier),
        ]);
        let mut request = Request::post(endpoint)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(secret) = &self.client_secret {
            request = request.header(AUTHORIZATION, basic(&self.client_id, secret));
        }
        let request = request.body(body.into()).map_err(|_| LoginError::Discovery)?;
        let answer = self.client.send(request, limits()).await?;
        let tokens: Tokens = serde_json::from_slice(&answer.body).map_err(|_| LoginError::NoToken)?;
        Ok(tokens.id_token.0)
    }
}

impl Idp for Oidc {
    fn authorize<'a>(&'a self, ticket: &'a Ticket) -> Step<'a, String> {
        Box::pin(async move {
            let endpoints = self.endpoints().await?;
            self.login_address(&endpoints.authorization_endpoint, ticket)
        })
    }

    fn redeem<'a>(&'a self, code: &'a str, ticket: &'a Ticket) -> Step<'a, Person> {
        Box::pin(async move {
            let token = self.token(code, ticket).await?;
            let shown = self.verifier.verify(&token, SystemTime::now()).await?;
            let nonce = payload(&token)["nonce"].as_str().is_some_and(|nonce| same(nonce, &ticket.nonce));
            if !nonce {
                return Err(LoginError::Nonce);
            }
            Ok(person(shown.identity(), token))
        })
    }

    fn issuer(&self) -> &str {
        &self.issuer
    }
}

/// Whom a token shows that was verified.
pub fn person(shown: &Identity, token: SecretText) -> Person {
    let claims = payload(&token);
    let (_, groups) = decider(shown);
    let subject = shown.claims().subject.clone();
    Person {
        name: name(&claims, &subject),
        groups: groups.iter().map(|group| group.as_str().to_owned()).collect(),
        subject,
        token,
        ends: claims["exp"].as_u64().unwrap_or_default(),
    }
}

pub fn limits() -> Limits {
    Limits { bytes: MAX_DOCUMENT, patience: PATIENCE }
}

/// How a client says who it is (RFC 6749, section 2.3.1): both are encoded as in a form first.
pub fn basic(client_id: &str, secret: &SecretText) -> String {
    let both = format!("{}:{}", escaped(client_id), escaped(secret.expose()));
    format!("Basic {}", STANDARD.encode(both))
}

/// Claims of a token that was verified.
fn payload(token: &SecretText) -> Value {
    let part = token.expose().split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    part.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// What somebody is called, for their own eyes.
fn name(claims: &Value, subject: &str) -> String {
    let named = ["preferred_username", "email", "name"].into_iter().find_map(|it| claims[it].as_str());
    visible(&named.unwrap_or(subject).chars().take(NAME).collect::<String>())
}

pub fn form(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    fields.collect::<Vec<_>>().join("&")
}

/// Percent-encoded, but for what is never special (RFC 3986, section 2.3).
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_form_end_where_they_should() {
        assert_eq!(form(&[("a", "x&b=1"), ("c", "\u{e9} +")]), "a=x%26b%3D1&c=%C3%A9%20%2B");
    }

    #[test]
    fn a_name_is_short_and_visible() {
        let long = "x".repeat(NAME + 1);
        assert_eq!(name(&serde_json::json!({ "name": long }), "s").len(), NAME);
        assert_eq!(name(&serde_json::json!({ "email": "a\u{202e}b" }), "s"), "a\\u{202e}b");
        assert_eq!(name(&Value::Null, "s"), "s");
    }
}
