//! Requests as they stand in the session recording.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use enforcer::session::read;
use serde_json::Value;

use super::wire::Request;

/// One session of a recording.
#[derive(Debug, Default)]
pub struct Session {
    /// What was allowed and sent on, whole or in part, in its order.
    pub forwarded: Vec<Request>,
    /// Reasons of requests that were denied, and of bodies that were broken off.
    pub denied: Vec<String>,
    pub outcome: String,
    /// Why it did not end as completed.
    pub reason: String,
}

#[derive(Default)]
struct Statement {
    request: Request,
    allowed: bool,
    sent: bool,
    hash: blake3::Hasher,
}

/// The one session in this folder; its outcome is `open` as long as it has no end.
pub fn session(dir: &Path) -> Result<Session, String> {
    let report = read::verify(dir).map_err(|error| error.to_string())?;
    if !report.problems.is_empty() {
        return Err(format!("{:?}", report.problems));
    }
    let all = read::ls(dir).map_err(|error| error.to_string())?;
    let [one] = &all[..] else { return Err(format!("{} sessions", all.len())) };
    let mut session =
        Session { outcome: one.outcome.clone(), reason: one.reason.clone(), ..Session::default() };
    let mut statements = BTreeMap::<u64, Statement>::new();
    let mut wrong = None;
    let done = read::entries(dir, one.id, |entry| {
        let of = entry.payload["statement"].as_u64().unwrap_or_default();
        let statement = statements.entry(of).or_default();
        wrong = wrong.take().or(statement.add(&entry.payload, &mut session.denied).err());
        Ok(())
    });
    done.map_err(|error| error.to_string())?;
    let sent = statements.into_values().filter(|statement| statement.sent);
    session.forwarded = sent.map(|statement| statement.request).collect();
    wrong.map_or(Ok(session), Err)
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn fields(value: &Value) -> Vec<(String, String)> {
    let pairs = value.as_array().map_or(&[][..], Vec::as_slice);
    pairs.iter().map(|pair| (word(&pair[0]), word(&pair[1]))).collect()
}

impl Statement {
    fn add(&mut self, event: &Value, denied: &mut Vec<String>) -> Result<(), String> {
        match event["event"].as_str().unwrap_or_default() {
            "statement" => self.begin(event),
            "verdict" => {
                self.allowed = event["verdict"] == "allow";
                if !self.allowed {
                    denied.push(word(&event["reason"]));
                }
            }
            _ if event["direction"] != "request" => {}
            "head" => {
                // What is wrong with a body may show, and be denied, later.
                self.sent = self.allowed;
                self.request.fields.extend(fields(&event["headers"]));
                // Without a body there is no word about one.
                self.request.complete = true;
            }
            "body" => {
                let bytes = match event["text"].as_str() {
                    Some(text) => text.as_bytes().to_vec(),
                    None => base64::engine::general_purpose::STANDARD
                        .decode(word(&event["base64"]))
                        .map_err(|error| error.to_string())?,
                };
                self.hash.update(&bytes);
                self.request.body.extend_from_slice(&bytes);
                self.request.complete = false;
            }
            // What was held back of a body that was broken off could be a part of a secret.
            "body-truncated" if event["reason"] == "aborted" => {}
            "body-truncated" => return Err("a body is recorded in part".to_owned()),
            "body-end" => {
                self.request.complete = event["complete"] == true;
                let hash = self.hash.finalize().to_hex();
                let length = !self.request.complete || event["length"] == self.request.body.len();
                if !length || event["blake3"] != hash.as_str() {
                    return Err(format!("the end of a body of {} bytes: {event}", self.request.body.len()));
                }
            }
            "trailers" => self.request.trailers = fields(&event["headers"]),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, event: &Value) {
        self.request.method = word(&event["method"]);
        self.request.target = match event["query"].as_str() {
            Some(query) => format!("{}?{query}", word(&event["path"])),
            None => word(&event["path"]),
        };
        self.request.fields.push(("host".to_owned(), word(&event["authority"])));
    }
}
