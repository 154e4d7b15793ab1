//! People at the issuer: the authorization code flow and that for devices, with whoever a test says is at
//! the browser.

use std::collections::{BTreeMap, HashMap};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Signer;

/// Who is there, and logins that are under way.
#[derive(Default)]
pub(super) struct People {
    /// Claims of whoever is at the browser.
    pub now: Value,
    /// What polls are answered with before there is a token.
    pub errors: Vec<&'static str>,
    codes: HashMap<String, Asked>,
    count: usize,
}

struct Asked {
    query: BTreeMap<String, String>,
    claims: Value,
}

impl People {
    /// Where the browser goes on. Nobody is asked for a password here.
    pub fn authorize(&mut self, query: &str) -> Option<String> {
        let query = fields(query);
        let has = |name: &str, value: &str| query.get(name).is_some_and(|it| it == value);
        if !has("response_type", "code")
            || !has("code_challenge_method", "S256")
            || !query.contains_key("nonce")
        {
            return None;
        }
        let (to, state) = (query.get("redirect_uri")?.clone(), query.get("state")?.clone());
        if self.now.is_null() {
            return Some(format!("{to}?error=access_denied&state={state}"));
        }
        self.count += 1;
        let code = format!("code-{}", self.count);
        self.codes.insert(code.clone(), Asked { query, claims: self.now.clone() });
        Some(format!("{to}?code={code}&state={state}"))
    }

    /// The token for a code, once, and for whoever knows what the challenge was made of.
    pub fn redeem(&mut self, url: &str, form: &str, signer: &Signer) -> Option<Value> {
        let form = fields(form);
        let Asked { query, claims: more } = self.codes.remove(form.get("code")?)?;
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, form.get("code_verifier")?.as_bytes()));
        let same = |name: &str| query.get(name) == form.get(name);
        if query["code_challenge"] != challenge || !same("redirect_uri") || !same("client_id") {
            return None;
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        let mut claims = json!({
            "iss": url, "aud": query["client_id"], "nonce": query["nonce"], "iat": now, "exp": now + 300,
        });
        claims.as_object_mut()?.extend(more.as_object()?.clone());
        Some(json!({ "token_type": "Bearer", "access_token": "none", "id_token": signer.token(&claims) }))
    }
}

impl People {
    /// For a device: the code that somebody types in, and the one that it polls with.
    pub fn begin_device(&mut self, url: &str, form: &str) -> Option<Value> {
        let query = fields(form);
        if !query.get("scope")?.split(' ').any(|scope| scope == "openid") {
            return None;
        }
        self.count += 1;
        let code = format!("device-{}", self.count);
        self.codes.insert(code.clone(), Asked { query, claims: Value::Null });
        Some(json!({
            "device_code": code, "user_code": "WDJB-MJHT", "verification_uri": format!("{url}/enter"),
            "verification_uri_complete": format!("{url}/enter?code=WDJB-MJHT"), "expires_in": 60, "interval": 1,
        }))
    }

    /// What a device is answered that polls; none if this is no poll.
    pub fn poll(&mut self, url: &str, form: &str, signer: &Signer) -> Option<(u16, Value)> {
        let form = fields(form);
        if form.get("grant_type")? != "urn:ietf:params:oauth:grant-type:device_code" {
            return None;
        }
        let code = form.get("device_code")?;
        let known =
            self.codes.get(code).is_some_and(|asked| asked.query.get("client_id") == form.get("client_id"));
        let error = match () {
            () if !known => "invalid_grant",
            () if !self.errors.is_empty() => self.errors.remove(0),
            () => {
                let Asked { query, .. } = self.codes.remove(code)?;
                let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
                let mut claims = json!({"iss": url, "aud": query["client_id"], "iat": now, "exp": now + 300});
                claims.as_object_mut()?.extend(self.now.as_object()?.clone());
                return Some((200, json!({"token_type": "Bearer", "id_token": signer.token(&claims)})));
            }
        };
        Some((400, json!({ "error": error })))
    }
}

fn fields(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), plain(value)))
        .collect()
}

fn plain(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digits = [bytes.next().unwrap_or(b'0'), bytes.next().unwrap_or(b'0')];
        let digits = String::from_utf8_lossy(&digits).into_owned();
        out.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
    }
    String::from_utf8_lossy(&out).into_owned()
}
