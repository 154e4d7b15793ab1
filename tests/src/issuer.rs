//! An issuer of a test's own: discovery, keys and tokens with any claims, over real TLS. It
//! can change its keys, be slow, and lie.

mod people;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::origin::{Body, certified, listen};

/// A key pair of the issuer.
#[derive(Clone)]
pub struct Signer {
    pub kid: String,
    pair: Arc<Pair>,
}

enum Pair {
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    pub fn rsa(kid: &str) -> Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| anyhow::anyhow!("no key"))?;
        Ok(Self { kid: kid.to_owned(), pair: Arc::new(Pair::Rsa(pair)) })
    }

    pub fn ec(kid: &str) -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING);
        let pair = pair.map_err(|_| anyhow::anyhow!("no key"))?;
        Ok(Self { kid: kid.to_owned(), pair: Arc::new(Pair::Ec(pair)) })
    }

    /// The same under another name.
    #[must_use]
    pub fn named(&self, kid: &str) -> Self {
        Self { kid: kid.to_owned(), pair: Arc::clone(&self.pair) }
    }

    pub fn alg(&self) -> &'static str {
        match *self.pair {
            Pair::Rsa(_) => "RS256",
            Pair::Ec(_) => "ES256",
        }
    }

    /// As it is published.
    pub fn jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (kid, alg) = (&self.kid, self.alg());
        match &*self.pair {
            Pair::Rsa(pair) => {
                let key = pair.public_key();
                let (n, e) = (key.modulus(), key.exponent());
                let (n, e) =
                    (text(n.big_endian_without_leading_zero()), text(e.big_endian_without_leading_zero()));
                json!({"kty": "RSA", "use": "sig", "kid": kid, "alg": alg, "n": n, "e": e})
            }
            Pair::Ec(pair) => {
                // 4, and both coordinates.
                let point = pair.public_key().as_ref();
                let (x, y) = (text(&point[1..33]), text(&point[33..]));
                json!({"kty": "EC", "use": "sig", "kid": kid, "alg": alg, "crv": "P-256", "x": x, "y": y})
            }
        }
    }

    /// The public key's bytes, as somebody would take them for a secret.
    pub fn public_der(&self) -> Vec<u8> {
        match &*self.pair {
            Pair::Rsa(pair) => pair.public_key().as_ref().to_vec(),
            Pair::Ec(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    /// Signs these very bytes.
    pub fn signature(&self, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &*self.pair {
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("it signs");
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, message).expect("it signs").as_ref().to_vec(),
        }
    }

    /// A token with any header.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = unsigned(header, claims);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.signature(signed.as_bytes())))
    }

    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({"alg": self.alg(), "kid": self.kid, "typ": "JWT"}), claims)
    }
}

/// Header and claims of a token, without a signature.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// What the issuer answers with.
#[derive(Clone, Default)]
pub enum Mood {
    #[default]
    Good,
    /// After this time.
    Slow(Duration),
    /// These bytes for each document.
    Says(Bytes),
    /// This body for keys.
    Keys(Value),
    /// This body for discovery.
    Discovery(Value),
    /// This status.
    Status(u16),
    /// Elsewhere.
    Moved(String),
}

#[derive(Default)]
struct State {
    signers: Vec<Signer>,
    mood: Mood,
    cache_control: Option<String>,
    /// How often its keys were asked for.
    asked: usize,
    people: people::People,
    /// Whoever asks with this gets a token with these claims.
    gives: Option<(String, Value)>,
    given: usize,
    /// What its API says of the job with such a token, as GitLab's does.
    jobs: Vec<(String, Value)>,
    /// What its API says of commits, by path and query, to whoever has this authorization.
    commits: Vec<(String, Value)>,
    authorization: Option<String>,
    /// How often it was asked for commits.
    asked_for_commits: usize,
}

/// A running issuer; it ends with the process.
pub struct Issuer {
    pub url: String,
    pub address: SocketAddr,
    pub ca_pem: String,
    state: Arc<Mutex<State>>,
}

impl Issuer {
    /// On a loopback address that is not the proxy's, with one key.
    pub fn start(name: &str) -> Result<Self> {
        Self::start_at("127.0.0.2:0", name)
    }

    pub fn start_at(address: &str, name: &str) -> Result<Self> {
        let (tls, ca_pem) = certified(&[name])?;
        let state = Arc::new(Mutex::new(State { signers: vec![Signer::rsa("first")?], ..State::default() }));
        let answered = Arc::clone(&state);
        let url = Arc::new(Mutex::new(String::new()));
        let known = Arc::clone(&url);
        let address = listen(address, tls, move |request, _| {
            let (state, url) =
                (Arc::clone(&answered), known.lock().unwrap_or_else(PoisonError::into_inner).clone());
            async move { answer(request, &state, &url).await }
        })?;
        let url = {
            let mut known = url.lock().unwrap_or_else(PoisonError::into_inner);
            *known = format!("https://{name}:{}", address.port());
            known.clone()
        };
        Ok(Self { url, address, ca_pem, state })
    }

    /// Its newest key.
    pub fn signer(&self) -> Signer {
        self.state().signers.last().expect("it has a key").clone()
    }

    /// A new key in place of all that there were.
    pub fn rotate(&self, signer: Signer) {
        self.state().signers = vec![signer];
    }

    /// One more key.
    pub fn add(&self, signer: Signer) {
        self.state().signers.push(signer);
    }

    /// Who is at the browser from now on: what their token says of them, beside what is usual.
    pub fn at_browser(&self, claims: Value) {
        self.state().people.now = claims;
    }

    /// What polls for a login by device are answered with, one by one; after that it is a token.
    pub fn at_device(&self, errors: &[&'static str]) {
        self.state().people.errors = errors.to_vec();
    }

    pub fn is(&self, mood: Mood) {
        self.state().mood = mood;
    }

    pub fn caches(&self, control: &str) {
        self.state().cache_control = Some(control.to_owned());
    }

    /// Gives tokens with these claims, each for who is named in the query and with a number of its
    /// own, to whoever asks for one as jobs of GitHub's runners do.
    pub fn gives(&self, bearer: &str, claims: Value) {
        self.state().gives = Some((format!("Bearer {bearer}"), claims));
    }

    /// The job with this token is that one, for whoever asks the API; with null it is over.
    pub fn has_job(&self, token: &str, job: Value) {
        self.state().jobs.retain(|(other, _)| other != token);
        self.state().jobs.push((token.to_owned(), job));
    }

    /// The API says this of the commit at this path, as GitHub's does, to whoever has this token.
    pub fn has_commit(&self, token: &str, path: &str, commit: Value) {
        self.state().authorization = Some(format!("Bearer {token}"));
        self.state().commits.retain(|(other, _)| other != path);
        self.state().commits.push((path.to_owned(), commit));
    }

    pub fn asked_for_commits(&self) -> usize {
        self.state().asked_for_commits
    }

    pub fn asked(&self) -> usize {
        self.state().asked
    }

    /// Signed by the newest key.
    pub fn token(&self, claims: &Value) -> String {
        self.signer().token(claims)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(request: Request<Incoming>, state: &Mutex<State>, url: &str) -> Response<Body> {
    let keys = match request.uri().path() {
        "/.well-known/openid-configuration" => false,
        "/keys" => true,
        "/authorize" | "/token" | "/device" => return log_in(request, state, url).await,
        "/job-token" => return token_of_job(&request, state),
        "/api/v4/job" => return job(&request, state),
        path if path.starts_with("/repos/") => return commit(&request, state),
        _ => return said(404, Bytes::new(), None),
    };
    let (mood, signers, control) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.asked += usize::from(keys);
        (state.mood.clone(), state.signers.clone(), state.cache_control.clone())
    };
    let jwks = || json!({"keys": signers.iter().map(Signer::jwk).collect::<Vec<_>>()});
    let discovery = || {
        json!({
            "issuer": url, "jwks_uri": format!("{url}/keys"),
            "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
            "device_authorization_endpoint": format!("{url}/device"),
        })
    };
    let good = || if keys { jwks() } else { discovery() };
    let body = match mood {
        Mood::Good => good(),
        Mood::Slow(time) => {
            tokio::time::sleep(time).await;
            good()
        }
        Mood::Says(bytes) => return said(200, bytes, None),
        Mood::Keys(body) if keys => body,
        Mood::Discovery(body) if !keys => body,
        Mood::Keys(_) | Mood::Discovery(_) => good(),
        Mood::Status(status) => return said(status, Bytes::new(), None),
        Mood::Moved(to) => {
            let mut answer = said(302, Bytes::new(), None);
            answer.headers_mut().insert(header::LOCATION, to.parse().expect("an address"));
            return answer;
        }
    };
    said(200, body.to_string().into(), control)
}

async fn log_in(request: Request<Incoming>, state: &Mutex<State>, url: &str) -> Response<Body> {
    let locked = || state.lock().unwrap_or_else(PoisonError::into_inner);
    if request.uri().path() == "/authorize" {
        let to = locked().people.authorize(request.uri().query().unwrap_or_default());
        let Some(to) = to else { return said(400, Bytes::new(), None) };
        let mut answer = said(302, Bytes::new(), None);
        answer.headers_mut().insert(header::LOCATION, to.parse().expect("an address"));
        return answer;
    }
    let device = request.uri().path() == "/device";
    let Ok(form) = request.into_body().collect().await else { return said(400, Bytes::new(), None) };
    let form = String::from_utf8_lossy(&form.to_bytes()).into_owned();
    let mut state = locked();
    let signer = state.signers.last().expect("it has a key").clone();
    if device {
        let begun = state.people.begin_device(url, &form);
        return begun
            .map_or_else(|| said(400, Bytes::new(), None), |it| said(200, it.to_string().into(), None));
    }
    if let Some((status, answer)) = state.people.poll(url, &form, &signer) {
        return said(status, answer.to_string().into(), None);
    }
    match state.people.redeem(url, &form, &signer) {
        Some(tokens) => said(200, tokens.to_string().into(), None),
        None => said(400, Bytes::new(), None),
    }
}

fn commit<B>(request: &Request<B>, state: &Mutex<State>) -> Response<Body> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.asked_for_commits += 1;
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if bearer.is_none() || bearer != state.authorization.as_deref() {
        return said(401, Bytes::new(), None);
    }
    let known = state.commits.iter().find(|(path, _)| path == request.uri().path());
    known.map_or_else(
        || said(404, Bytes::new(), None),
        |(_, commit)| said(200, commit.to_string().into(), None),
    )
}

fn token_of_job<B>(request: &Request<B>, state: &Mutex<State>) -> Response<Body> {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let audience =
        request.uri().query().and_then(|query| query.split('&').find_map(|it| it.strip_prefix("audience=")));
    let audience = audience.map(|audience| audience.replace("%3A", ":").replace("%2F", "/"));
    let bearer = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let Some((_, mut claims)) = state.gives.clone().filter(|(asked, _)| bearer == Some(asked)) else {
        return said(401, Bytes::new(), None);
    };
    state.given += 1;
    claims["aud"] = audience.into();
    claims["jti"] = format!("given {}", state.given).into();
    let token = state.signers.last().expect("it has a key").token(&claims);
    said(200, json!({ "value": token }).to_string().into(), None)
}

fn job<B>(request: &Request<B>, state: &Mutex<State>) -> Response<Body> {
    let state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let token = request.headers().get("job-token").and_then(|value| value.to_str().ok());
    match state.jobs.iter().find(|(known, job)| token == Some(known) && !job.is_null()) {
        Some((_, job)) => said(200, job.to_string().into(), None),
        None => said(401, json!({"message": "401 Unauthorized"}).to_string().into(), None),
    }
}

fn said(status: u16, body: Bytes, control: Option<String>) -> Response<Body> {
    let body = http_body_util::Full::new(body).map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::builder().status(status).header(header::CONTENT_TYPE, "application/json");
    if let Some(control) = control {
        answer = answer.header(header::CACHE_CONTROL, control);
    }
    answer.body(body).expect("an answer")
}
