//! Where an issuer says which keys it has (OpenID Connect Discovery 1.0, section 4).

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, CACHE_CONTROL, HeaderMap, HeaderValue};
use serde::Deserialize;

use super::keys::{self, Key};
use crate::outgoing::{Answer, Client, Limits, OutgoingError};
use crate::secret::SecretText;

/// The most bytes of each document.
pub const MAX_DOCUMENT: usize = 256 * 1024;
/// How long each of them may take.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// Why an issuer's keys are not known.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Outgoing(#[from] OutgoingError),
    #[error("`{0}` is no URL")]
    Url(String),
    #[error("its discovery is not readable")]
    Discovery,
    #[error("its discovery is of another issuer, `{0}`")]
    Issuer(String),
    #[error("{0}")]
    Keys(&'static str),
    #[error("the job's token has letters that no token has")]
    JobToken,
}

/// Keys, and for how long their issuer says that they are good.
pub type Fetched = (Vec<Key>, Option<Duration>);
pub type Fetching<'a> = Pin<Box<dyn Future<Output = Result<Fetched, FetchError>> + Send + 'a>>;

pub type Vouching<'a> = Pin<Box<dyn Future<Output = Result<Bytes, FetchError>> + Send + 'a>>;

/// Asks issuers.
pub trait Fetch: Send + Sync {
    /// For its keys.
    fn keys<'a>(&'a self, issuer: &'a str) -> Fetching<'a>;

    /// The API at this address for the job that this token of GitLab's is of.
    fn job<'a>(&'a self, api: &'a str, token: &'a SecretText) -> Vouching<'a>;
}

impl Fetch for Client {
    fn keys<'a>(&'a self, issuer: &'a str) -> Fetching<'a> {
        Box::pin(async move {
            let discovery = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
            let at = jwks_uri(issuer, &document(self, &discovery, None).await?.body)?;
            let answer = document(self, &at, None).await?;
            let keys = keys::read(&answer.body).map_err(FetchError::Keys)?;
            Ok((keys, max_age(&answer.headers)))
        })
    }

    /// <https://docs.gitlab.com/api/jobs/#get-job-tokens-job>
    fn job<'a>(&'a self, api: &'a str, token: &'a SecretText) -> Vouching<'a> {
        Box::pin(async move {
            let mut value = HeaderValue::from_str(token.expose()).map_err(|_| FetchError::JobToken)?;
            value.set_sensitive(true);
            let at = format!("{}/job", api.trim_end_matches('/'));
            Ok(document(self, &at, Some(("job-token", value))).await?.body)
        })
    }
}

async fn document(
    client: &Client,
    url: &str,
    field: Option<(&'static str, HeaderValue)>,
) -> Result<Answer, FetchError> {
    let mut request = Request::get(url).header(ACCEPT, "application/json");
    if let Some((name, value)) = field {
        request = request.header(name, value);
    }
    let request = request.body(Bytes::new());
    let request = request.map_err(|_| FetchError::Url(super::token::short(url)))?;
    Ok(client.send(request, Limits { bytes: MAX_DOCUMENT, patience: PATIENCE }).await?)
}

/// **Invariant**: a discovery says which issuer it is of, in the same letters. One that another
/// issuer's server answers with is not taken.
fn jwks_uri(issuer: &str, document: &[u8]) -> Result<String, FetchError> {
    #[derive(Deserialize)]
    struct Discovery {
        issuer: String,
        jwks_uri: String,
    }
    let discovery: Discovery = serde_json::from_slice(document).map_err(|_| FetchError::Discovery)?;
    if discovery.issuer != issuer {
        return Err(FetchError::Issuer(super::token::short(&discovery.issuer)));
    }
    Ok(discovery.jwks_uri)
}

/// What `cache-control` says (RFC 9111, section 5.2.2); None if it says nothing.
fn max_age(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(CACHE_CONTROL)?.to_str().ok()?.to_ascii_lowercase();
    let mut age = None;
    for directive in text.split(',').map(str::trim) {
        match directive.split_once('=') {
            None if directive == "no-store" || directive == "no-cache" => return Some(Duration::ZERO),
            Some(("max-age", seconds)) => {
                age = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
            }
            _ => {}
        }
    }
    age
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_keys_are_good() {
        let age = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CACHE_CONTROL, text.parse().unwrap());
            max_age(&headers).map(|age| age.as_secs())
        };
        assert_eq!(age("public, Max-Age=900"), Some(900));
        assert_eq!(age("max-age=900, no-store"), Some(0));
        assert_eq!(age("public"), None);
        assert_eq!(age("max-age=soon"), None);
        assert_eq!(max_age(&HeaderMap::new()), None);
    }

    #[test]
    fn a_discovery_is_of_the_issuer_that_was_asked() {
        let uri = |issuer: &str| {
            let text = format!(r#"{{"issuer": "{issuer}", "jwks_uri": "https://i.test/keys", "x": 1}}"#);
            jwks_uri("https://i.test", text.as_bytes())
        };
        assert_eq!(uri("https://i.test").unwrap(), "https://i.test/keys");
        for other in ["https://i.test/", "https://I.test", "https://i.test.evil", ""] {
            assert!(matches!(uri(other), Err(FetchError::Issuer(_))), "{other}");
        }
        assert!(matches!(jwks_uri("https://i.test", b"{}"), Err(FetchError::Discovery)));
    }
}
