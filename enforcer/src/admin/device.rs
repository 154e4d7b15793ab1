//! Logging in without a browser here: the device authorization grant of OAuth 2.0 (RFC 8628).
//!
//! ```text
//!  begin ──▶ a code and an address ──▶ (somebody logs in there, in a browser of theirs)
//!    │
//!    └──▶ poll ──authorization_pending──▶ wait ──▶ poll        slow_down: 5 s longer from then on
//!           │  ──access_denied, expired_token, another error──▶ no
//!           └──id_token──▶ verified as every token of a decider is ──▶ a login
//! ```
//!
//! There is no `nonce` in this grant: that the token was made for this login is known by the
//! device code, which nobody else has.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Uri};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::web::Person;
use super::web::oidc::{SecretToken, basic, form, limits, person};
use crate::outgoing::{Client, OutgoingError, is_loopback};
use crate::secret::SecretText;
use crate::session::read::visible;
use crate::workload::identity::{IssuerConfig, Refusal, Verifier};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Between two polls, where the issuer says nothing (RFC 8628, section 3.2), and what `slow_down`
/// adds (section 3.5).
const PAUSE: u64 = 5;
/// The longest pause, and the longest time for a login, in seconds.
const MAX_PAUSE: u64 = 60;
const MAX_LOGIN: u64 = 1800;
/// Letters of what an issuer says.
const TOLD: usize = 300;

/// Why nobody is logged in.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("the issuer cannot be asked: {0}")]
    Outgoing(#[from] OutgoingError),
    #[error("the issuer's discovery is not readable, or is of another issuer")]
    Discovery,
    #[error(
        "the issuer has no login for devices (no `device_authorization_endpoint`): log in on the web page, or give \
         a token by --token-file"
    )]
    NoDevices,
    #[error("the issuer sends people to what is no https URL: {0}")]
    Address(String),
    #[error("the issuer's answer is not readable")]
    Answer,
    #[error("the issuer gives no ID token: ask for `openid` by --scope")]
    NoToken,
    #[error("the login was refused at the issuer")]
    Denied,
    #[error("nobody logged in before the code expired: begin anew")]
    Expired,
    #[error("the issuer says: {0}")]
    Says(String),
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// The command line as a client of an issuer.
pub struct Device {
    pub issuer: IssuerConfig,
    pub scope: String,
    pub client_secret: Option<SecretText>,
    pub plain_on_loopback: bool,
    pub client: Client,
    pub verifier: Verifier,
}

/// A login that waits for somebody.
pub struct Begun {
    /// What they type in, and where.
    pub code: String,
    pub address: String,
    /// Where it stands already.
    pub whole_address: Option<String>,
    /// How long they have.
    pub within: Duration,
    pause: Duration,
    device_code: SecretText,
    token_endpoint: String,
}

/// What is used of an issuer's discovery.
#[derive(Deserialize)]
struct Endpoints {
    issuer: String,
    token_endpoint: String,
    device_authorization_endpoint: Option<String>,
}

#[derive(Deserialize)]
struct Authorized {
    device_code: SecretToken,
    user_code: String,
    #[serde(alias = "verification_url")]
    verification_uri: String,
    verification_uri_complete: Option<String>,
    expires_in: u64,
    interval: Option<u64>,
}

/// One answer to a poll.
#[derive(Deserialize)]
struct Polled {
    id_token: Option<SecretToken>,
    error: Option<String>,
    error_description: Option<String>,
}

/// What a poll comes to.
enum Next {
    Wait(Duration),
    Token(SecretText),
}

impl Device {
    /// Asks for a code.
    pub async fn begin(&self) -> Result<Begun, DeviceError> {
        let url = format!("{}/.well-known/openid-configuration", self.issuer.issuer.trim_end_matches('/'));
        let request = Request::get(url).header(ACCEPT, "application/json").body(Bytes::new());
        let request = request.map_err(|_| DeviceError::Discovery)?;
        let answer = self.client.send(request, limits()).await?;
        let endpoints: Endpoints =
            serde_json::from_slice(&answer.body).map_err(|_| DeviceError::Discovery)?;
        if endpoints.issuer != self.issuer.issuer {
            return Err(DeviceError::Discovery);
        }
        let endpoint = endpoints.device_authorization_endpoint.ok_or(DeviceError::NoDevices)?;
        let fields = [("client_id", self.issuer.audience.as_str()), ("scope", &self.scope)];
        let (_, body) = self.post(&endpoint, &fields).await?;
        let Ok(authorized) = serde_json::from_slice::<Authorized>(&body) else {
            return Err(says(&read::<Polled>(&body)?));
        };
        let address = |uri: &str| self.address(uri);
        Ok(Begun {
            code: short(&authorized.user_code),
            address: address(&authorized.verification_uri)?,
            whole_address: authorized.verification_uri_complete.as_deref().map(address).transpose()?,
            within: Duration::from_secs(authorized.expires_in.min(MAX_LOGIN)),
            pause: Duration::from_secs(authorized.interval.unwrap_or(PAUSE).clamp(1, MAX_PAUSE)),
            device_code: authorized.device_code.0,
            token_endpoint: endpoints.token_endpoint,
        })
    }

    /// Waits until somebody has logged in, and says who.
    pub async fn wait(&self, begun: &Begun) -> Result<Person, DeviceError> {
        let token = tokio::time::timeout(begun.within, self.poll(begun));
        let token = token.await.map_err(|_| DeviceError::Expired)??;
        let shown = Box::pin(self.verifier.verify(&token, SystemTime::now())).await?;
        Ok(person(shown.identity(), token))
    }

    async fn poll(&self, begun: &Begun) -> Result<SecretText, DeviceError> {
        let fields = [
            ("grant_type", GRANT),
            ("device_code", begun.device_code.expose().as_str()),
            ("client_id", &self.issuer.audience),
        ];
        let mut pause = begun.pause;
        loop {
            tokio::time::sleep(pause).await;
            match self.post(&begun.token_endpoint, &fields).await {
                Ok((good, body)) => match next(good, &read::<Polled>(&body)?, pause)? {
                    Next::Wait(longer) => pause = longer,
                    Next::Token(token) => return Ok(token),
                },
                // Section 3.5: less often, and less again.
                Err(DeviceError::Outgoing(
                    OutgoingError::Late { .. } | OutgoingError::Connect { .. } | OutgoingError::Http { .. },
                )) => pause = longer(pause * 2),
                Err(error) => return Err(error),
            }
        }
    }

    async fn post(&self, to: &str, fields: &[(&str, &str)]) -> Result<(bool, Bytes), DeviceError> {
        let mut request = Request::post(to)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(secret) = &self.client_secret {
            request = request.header(AUTHORIZATION, basic(&self.issuer.audience, secret));
        }
        let request = request.body(form(fields).into()).map_err(|_| DeviceError::Discovery)?;
        let answer = Box::pin(self.client.send_for_any(request, limits())).await?;
        Ok((answer.status.is_success(), answer.body))
    }

    /// People are sent there, and log in.
    fn address(&self, text: &str) -> Result<String, DeviceError> {
        let wrong = || DeviceError::Address(short(text));
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let authority = uri.authority().ok_or_else(wrong)?;
        let fine = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => self.plain_on_loopback && is_loopback(authority.host()),
            _ => false,
        };
        if fine && !authority.as_str().contains('@') { Ok(visible(text)) } else { Err(wrong()) }
    }
}

fn next(good: bool, polled: &Polled, pause: Duration) -> Result<Next, DeviceError> {
    if good {
        let token = polled.id_token.as_ref().ok_or(DeviceError::NoToken)?;
        return Ok(Next::Token(token.0.clone()));
    }
    match polled.error.as_deref() {
        Some("authorization_pending") => Ok(Next::Wait(pause)),
        Some("slow_down") => Ok(Next::Wait(longer(pause + Duration::from_secs(PAUSE)))),
        Some("access_denied") => Err(DeviceError::Denied),
        Some("expired_token") => Err(DeviceError::Expired),
        _ => Err(says(polled)),
    }
}

fn longer(pause: Duration) -> Duration {
    pause.min(Duration::from_secs(MAX_PAUSE))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, DeviceError> {
    serde_json::from_slice(body).map_err(|_| DeviceError::Answer)
}

/// An error in the issuer's own words.
fn says(polled: &Polled) -> DeviceError {
    match (&polled.error, &polled.error_description) {
        (Some(error), Some(more)) => DeviceError::Says(short(&format!("{error}: {more}"))),
        (Some(error), None) => DeviceError::Says(short(error)),
        (None, _) => DeviceError::Answer,
    }
}

fn short(text: &str) -> String {
    visible(&text.chars().take(TOLD).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(good: bool, body: &str, pause: u64) -> Result<u64, String> {
        let polled = read::<Polled>(body.as_bytes()).map_err(|error| error.to_string())?;
        match next(good, &polled, Duration::from_secs(pause)) {
            Ok(Next::Wait(pause)) => Ok(pause.as_secs()),
            Ok(Next::Token(token)) => Err(token.expose().clone()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn it_waits_as_the_issuer_says_and_no_longer_than_it_can_be_borne() {
        assert_eq!(after(false, r#"{"error": "authorization_pending"}"#, 7), Ok(7));
        assert_eq!(after(false, r#"{"error": "slow_down"}"#, 7), Ok(12));
        assert_eq!(after(false, r#"{"error": "slow_down"}"#, MAX_PAUSE - PAUSE), Ok(MAX_PAUSE));
        assert_eq!(after(false, r#"{"error": "slow_down"}"#, MAX_PAUSE - PAUSE + 1), Ok(MAX_PAUSE));
        assert_eq!(after(true, r#"{"id_token": "a.b.c", "error": null}"#, 7), Err("a.b.c".to_owned()));
    }

    #[test]
    fn each_end_is_told() {
        for (good, body, says) in [
            (false, r#"{"error": "access_denied"}"#, "was refused"),
            (false, r#"{"error": "expired_token"}"#, "begin anew"),
            (
                false,
                r#"{"error": "invalid_client", "error_description": "no\u001b[2J"}"#,
                "invalid_client: no\\u{1b}[2J",
            ),
            (false, "{}", "not readable"),
            (false, "<html>", "not readable"),
            // A token in what is no success is none.
            (false, r#"{"id_token": "a.b.c"}"#, "not readable"),
            (true, r#"{"access_token": "x"}"#, "openid"),
            (true, r#"{"error": "authorization_pending"}"#, "openid"),
        ] {
            let told = after(good, body, 1).unwrap_err();
            assert!(told.contains(says), "{body}: {told}");
        }
        let long = format!(r#"{{"error": "{}"}}"#, "x".repeat(TOLD + 1));
        assert_eq!(after(false, &long, 1).unwrap_err(), format!("the issuer says: {}", "x".repeat(TOLD)));
    }
}
