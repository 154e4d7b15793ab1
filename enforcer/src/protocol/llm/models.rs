//! Which models a request asks for: by its path, its query and its body.
//!
//! A server may go by any of them, so that each is one reading. What could be read in more ways than
//! those, or not at all, is nothing that a decision can go by.

use std::collections::BTreeSet;

use http::{HeaderMap, header};

use super::json::{Doc, Kind, Node};
use super::keys::folds_to;

/// Models of one request; those of a batch are each of its own.
pub const MODELS_MAX: usize = 16;
/// Bytes of the name of a model.
pub const MODEL_MAX_BYTES: usize = 1024;

/// Members that name models, or inside of which one is named.
const NAMES: &[&str] = &["model", "models", "fallbacks", "requests", "request", "params", "session"];
/// A model follows them in a path. Behind a colon at its end is a method of Google's.
const COLLECTIONS: &[&str] = &["models", "tunedModels", "endpoints"];
/// The same of Bedrock, Azure and OpenAI's first API, if what is done with the model follows it.
const NAMED: &[&str] = &["model", "deployments", "engines"];
/// What is done with a model, behind its name in a path. Names may have a `/` in them.
const ACTIONS: &[&[&str]] = &[
    &["extensions", "chat", "completions"],
    &["chat", "completions"],
    &["completions"],
    &["embeddings"],
    &["responses"],
    &["messages"],
    &["realtime"],
    &["images", "generations"],
    &["images", "edits"],
    &["audio", "transcriptions"],
    &["audio", "translations"],
    &["audio", "speech"],
    &["invoke"],
    &["invoke-with-response-stream"],
    &["converse"],
    &["converse-stream"],
    &["count-tokens"],
    &["predictions"],
];

/// The models of a request with this body, decoded; `None`: they cannot be read, or not in one
/// way only.
pub fn models(path: &str, query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Option<Vec<String>> {
    let mut found: BTreeSet<String> = of_address(path, query)?.into_iter().collect();
    if !body.is_empty() {
        if is_no_json(headers) || !is_utf8(headers) {
            return None;
        }
        // Some drop what is no UTF-8, and have another name then.
        std::str::from_utf8(body).ok()?;
        let doc = Doc::parse(body).ok()?;
        of_object(&doc, Doc::ROOT, true, &mut found)?;
    }
    bounded(found)
}

/// Those that path and query name.
pub fn of_address(path: &str, query: Option<&str>) -> Option<Vec<String>> {
    let mut found = BTreeSet::new();
    of_path(path, &mut found)?;
    let query = query.unwrap_or_default();
    // Some servers split it at `;`, too.
    for pair in query.split('&').chain(query.split(['&', ';'])) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(&name.replace('+', " "))?;
        if name == "model" {
            add(decoded(&value.replace('+', " "))?, &mut found)?;
        } else if name.eq_ignore_ascii_case("model") {
            return None;
        }
    }
    bounded(found)
}

fn bounded(found: BTreeSet<String>) -> Option<Vec<String>> {
    (found.len() <= MODELS_MAX).then(|| found.into_iter().collect())
}

fn add(name: String, found: &mut BTreeSet<String>) -> Option<()> {
    // Google's names stand with their collection, or without.
    let name = name.strip_prefix("models/").map(str::to_owned).unwrap_or(name);
    if name.len() > MODEL_MAX_BYTES || found.len() > MODELS_MAX {
        return None;
    }
    found.insert(name);
    Some(())
}

fn of_path(path: &str, found: &mut BTreeSet<String>) -> Option<()> {
    let segments: Vec<String> = path.trim_end_matches('/').split('/').map(decoded).collect::<Option<_>>()?;
    for (at, kind) in segments.iter().enumerate() {
        // Some servers cut parameters off a segment.
        let kind = kind.split(';').next().unwrap_or_default();
        let Some(known) = NAMED.iter().chain(COLLECTIONS).find(|it| it.eq_ignore_ascii_case(kind)) else {
            continue;
        };
        let rest = &segments[at + 1..];
        let named = NAMED.contains(known);
        if rest.is_empty() || named && rest.len() == 1 {
            continue;
        }
        // Some servers do not mind the case.
        if *known != kind {
            return None;
        }
        let rest = without_action(rest);
        of_segments(rest.get(..1)?, named, found)?;
        of_segments(rest, named, found)?;
    }
    Some(())
}

/// Without what is done with a model, if that is known.
fn without_action(rest: &[String]) -> &[String] {
    let ends = |action: &&&[&str]| {
        rest.len() > action.len()
            && rest.iter().rev().zip(action.iter().rev()).all(|(one, other)| one == other)
    };
    let action = ACTIONS.iter().find(ends).map_or(0, |action| action.len());
    &rest[..rest.len() - action]
}

/// The model whose name has these segments.
fn of_segments(segments: &[String], named: bool, found: &mut BTreeSet<String>) -> Option<()> {
    let name = segments.join("/");
    let name = match name.rsplit_once(':').filter(|_| !named && !name.starts_with("ft:")) {
        Some((before, method)) if is_method(method) => before.to_owned(),
        _ => name,
    };
    if name.contains(';') {
        let plain = name.split('/').map(|segment| segment.split(';').next().unwrap_or_default());
        add(plain.collect::<Vec<_>>().join("/"), found)?;
    }
    add(name, found)
}

fn is_method(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase()) && text.bytes().all(|b| b.is_ascii_alphabetic())
}

fn decoded(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| char::from(*bytes.get(at)?).to_digit(16);
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let escaped =
            (byte == b'%').then(|| u8::try_from(digit(at + 1)? << 4 | digit(at + 2)?).ok()).flatten();
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).ok()
}

/// A form has its fields elsewhere, whatever JSON could be read out of it.
fn is_no_json(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).iter().any(|kind| {
        let kind = String::from_utf8_lossy(kind.as_bytes()).trim_start().to_ascii_lowercase();
        kind.starts_with("application/x-www-form-urlencoded") || kind.starts_with("multipart/")
    })
}

/// Some decode what they are told it is, such as UTF-7, in which names are written otherwise.
fn is_utf8(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONTENT_TYPE).iter().all(|kind| {
        let kind = String::from_utf8_lossy(kind.as_bytes()).to_ascii_lowercase();
        let Some((_, charset)) = kind.split_once("charset") else { return true };
        let charset = charset.trim_start().strip_prefix('=').map(|charset| charset.trim().trim_matches('"'));
        matches!(charset, Some("utf-8" | "utf8" | "us-ascii"))
    })
}

/// Members of an object that say which model is meant. Below the `top` those of one request of many.
fn of_object(doc: &Doc<'_>, node: Node, top: bool, found: &mut BTreeSet<String>) -> Option<()> {
    if !doc.is_object(node) {
        return None;
    }
    let mut seen = BTreeSet::new();
    for member in doc.children(node) {
        let key = doc.key(member)?;
        let Some(name) = NAMES.iter().find(|name| folds_to(&key, name)) else { continue };
        // Of a name that stands twice some take the first, some the last; some do not mind the case.
        if *key != *name.as_bytes() || !seen.insert(*name) {
            return None;
        }
        match (*name, doc.kind(member)) {
            ("model", _) => add(text(doc, member)?, found)?,
            ("models" | "fallbacks", Kind::Array) if top => {
                for one in doc.children(member) {
                    match doc.kind(one) {
                        Kind::Object => {
                            let names = |member: Node| doc.key(member).is_some_and(|key| *key == *b"model");
                            doc.children(one).any(names).then_some(())?;
                            of_object(doc, one, false, found)?;
                        }
                        _ => add(text(doc, one)?, found)?,
                    }
                }
            }
            ("requests", Kind::Array) if top => {
                for one in doc.children(member) {
                    of_object(doc, one, false, found)?;
                }
            }
            // Some take another form than the documented one.
            ("models" | "fallbacks" | "requests", _) if top => is_null(doc, member)?,
            ("session", Kind::Object) if top => of_object(doc, member, false, found)?,
            ("params" | "request", Kind::Object) if !top => of_object(doc, member, false, found)?,
            ("params" | "request", _) if !top => is_null(doc, member)?,
            _ => {}
        }
    }
    Some(())
}

fn is_null(doc: &Doc<'_>, node: Node) -> Option<()> {
    (doc.raw(node) == b"null").then_some(())
}

/// A string, exactly as everybody reads it.
fn text(doc: &Doc<'_>, node: Node) -> Option<String> {
    if doc.kind(node) != Kind::String {
        return None;
    }
    let quoted = [b"\"", doc.raw(node), b"\""].concat();
    serde_json::from_slice(&quoted).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(path: &str, query: &str, kind: &'static str, body: &str) -> Option<Vec<String>> {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
        models(path, Some(query), &headers, body.as_bytes())
    }

    fn names(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn an_address_names_models_in_its_path_and_its_query() {
        let arn = "arn%3Aaws%3Abedrock%3Aeu%3A1%3Ainference-profile%2Feu.anthropic.c";
        for (path, query, want) in [
            ("/v1/messages", "beta=true", names(&[])),
            ("/v1/models", "", names(&[])),
            ("/v1/models/", "", names(&[])),
            ("/v1/models/ft:gpt-4o:acme::id", "", names(&["ft:gpt-4o:acme::id"])),
            ("/v1beta/models/gemini-2.5-pro:streamGenerateContent", "alt=sse", names(&["gemini-2.5-pro"])),
            ("/v1beta/tunedModels/a%20b:generateContent", "", names(&["a b"])),
            (
                "/v1/projects/p/locations/l/publishers/anthropic/models/claude@1:rawPredict",
                "",
                names(&["claude@1"]),
            ),
            ("/model/anthropic.claude-v1:0/invoke", "", names(&["anthropic.claude-v1:0"])),
            (
                &format!("/model/{arn}/converse"),
                "",
                names(&["arn:aws:bedrock:eu:1:inference-profile/eu.anthropic.c"]),
            ),
            ("/openai/deployments/small/chat/completions", "api-version=1", names(&["small"])),
            ("/model/x", "", names(&[])),
            // A gateway's names may have a slash in them.
            ("/openai/deployments/acme/big/chat/completions", "", names(&["acme", "acme/big"])),
            ("/engines/big/completions", "", names(&["big"])),
            ("/models/meta/big", "", names(&["meta", "meta/big"])),
            ("/v1/models/acme/big/predictions", "", names(&["acme", "acme/big"])),
            ("/openai/deployments/big/unheard-of", "", names(&["big", "big/unheard-of"])),
            ("/openai/deployments/messages/chat/completions", "", names(&["messages"])),
            // And some do not mind the case, or cut parameters off.
            ("/openai/Deployments/big/chat/completions", "", None),
            ("/v1beta/MODELS/big:generateContent", "", None),
            ("/openai/deployments;x/big/chat/completions", "", names(&["big"])),
            ("/openai/deployments%3Bx/big/chat/completions", "", names(&["big"])),
            ("/openai/deploy%6Dents/big/chat/completions", "", names(&["big"])),
            ("/openai/deployments/a;x/b;y/chat/completions", "", names(&["a", "a/b", "a;x", "a;x/b;y"])),
            ("/v1/models/a;b:generateContent", "", names(&["a", "a;b"])),
            ("/v1/models/a%3Bb", "", names(&["a", "a;b"])),
            ("/v1/models/%ff", "", None),
            ("/v1/realtime", "model=gpt-realtime", names(&["gpt-realtime"])),
            ("/v1/realtime", "x=1;model=b&mod%65l=a+c", names(&["a c", "b"])),
            ("/v1/realtime", "Model=a", None),
            ("/v1/models/a:generateContent", "model=b", names(&["a", "b"])),
        ] {
            assert_eq!(of_address(path, Some(query)), want, "{path}?{query}");
        }
    }

    #[test]
    fn a_body_names_models_in_one_way_or_nobody_knows_them() {
        let json = "application/json";
        for (kind, body, want) in [
            (json, r#"{"model":"a","messages":[{"model":"x"}]}"#, names(&["a"])),
            ("", r#" {"model" : "\u0061"} "#, names(&["a"])),
            (json, r#"{"mod\u0065l":"a"}"#, names(&["a"])),
            (json, r#"{"model":"models/a"}"#, names(&["a"])),
            (json, r#"{"tools":[{"properties":{"model":{"type":"string"}}}]}"#, names(&[])),
            (json, "{}", names(&[])),
            ("application/json; charset=UTF-8", r#"{"model":"a"}"#, names(&["a"])),
            ("application/json; charset=utf-7", r#"{"model":"a"}"#, None),
            ("application/json;charset = \"utf-16\"", r#"{"model":"a"}"#, None),
            (json, r#"{"model":"a","models":null,"fallbacks":null}"#, names(&["a"])),
            (json, r#"{"model":"a","models":"b"}"#, None),
            (json, r#"{"model":"a","fallbacks":{"model":"b"}}"#, None),
            (json, r#"{"requests":{"0":{"params":{"model":"b"}}}}"#, None),
            (json, r#"{"requests":[{"params":[{"model":"b"}]}]}"#, None),
            (json, r#"{"model":"a","models":[{"id":"b"}]}"#, None),
            (json, "", names(&[])),
            (
                json,
                r#"{"model":"a","models":["b","a"],"fallbacks":[{"model":"c"}]}"#,
                names(&["a", "b", "c"]),
            ),
            (
                json,
                r#"{"requests":[{"params":{"model":"a"}},{"request":{"model":"b"}}]}"#,
                names(&["a", "b"]),
            ),
            (json, r#"{"model":"a","requests":[{"params":{"model":"b"}}]}"#, names(&["a", "b"])),
            (json, r#"{"session":{"model":"a"}}"#, names(&["a"])),
            // Which one counts nobody knows.
            (json, r#"{"model":"a","model":"a"}"#, None),
            (json, r#"{"model":"a","mod\u0065l":"b"}"#, None),
            (json, r#"{"model":"a","Model":"b"}"#, None),
            (json, r#"{"MODEL":"b"}"#, None),
            (json, r#"{"requests":[{"params":{"model":"a","model":"b"}}]}"#, None),
            (json, r#"{"model":null}"#, None),
            (json, r#"{"model":["a"]}"#, None),
            (json, r#"{"model":"\ud800"}"#, None),
            (json, r#"{"model":"a"} {"model":"b"}"#, None),
            (json, r#"{"model":"a""#, None),
            (json, r#"[{"model":"a"}]"#, None),
            (json, "\u{feff}{\"model\":\"a\"}", None),
            (json, "model: a", None),
            (json, " ", None),
            ("multipart/form-data; boundary=x", r#"{"model":"a"}"#, None),
            ("Application/X-WWW-Form-Urlencoded", r#"{"model":"a"}"#, None),
        ] {
            assert_eq!(of("/v1/messages", "", kind, body), want, "{kind} {body}");
        }
        let mixed = [&b"{\"mod\xff"[..], b"el\":\"a\"}"].concat();
        assert_eq!(models("/", None, &HeaderMap::new(), &mixed), None);
        assert_eq!(of("/v1/models/a:generateContent", "", json, r#"{"model":"b"}"#), names(&["a", "b"]));
    }

    #[test]
    fn there_is_a_limit_to_models_and_to_their_names() {
        let list = |count: usize| {
            let all: Vec<String> =
                (0..count).map(|n| format!("{{\"params\":{{\"model\":\"{n}\"}}}}")).collect();
            of("/v1/messages/batches", "", "", &format!("{{\"requests\":[{}]}}", all.join(",")))
        };
        assert_eq!(list(MODELS_MAX).unwrap().len(), MODELS_MAX);
        assert_eq!(list(MODELS_MAX + 1), None);
        let named = |length: usize| of("/", "", "", &format!("{{\"model\":\"{}\"}}", "x".repeat(length)));
        assert!(named(MODEL_MAX_BYTES).is_some() && named(MODEL_MAX_BYTES + 1).is_none());
    }
}
