//! A session as text for people.
//!
//! **Invariant**: what was recorded is shown and not obeyed. A recording holds
//! what an attacker sent, and a terminal is not to run it.

use std::fmt::Write;

use serde_json::Value;

use super::Entry;

/// Control characters, changes of direction and invisible characters, made visible.
pub fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() || invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}

/// The same JSON, with those characters as escapes of JSON. They can stand in its strings only.
pub fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && (c.is_control() || invisible(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                write!(out, "\\u{unit:04x}").ok();
            }
        } else {
            out.push(c);
        }
    }
    out
}

fn invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One record: a line, and lines below it that are set in.
pub fn timeline(entry: &Entry, begun_unix_us: u64) -> String {
    let value = &entry.payload;
    let name = match entry.kind {
        "event" => value["event"].as_str().unwrap_or("unreadable"),
        kind => kind,
    };
    let (line, below) = describe(name, value);
    let mut out = format!(
        "{:>12} {:>4}  {:<14} {}\n",
        since(entry, begun_unix_us),
        entry.sequence,
        visible(name),
        line
    );
    for line in below.lines() {
        // Writing to a string does not fail.
        writeln!(out, "{:34}{line}", "").ok();
    }
    out
}

/// A clock that was set back shows as a negative time.
fn since(entry: &Entry, begun_unix_us: u64) -> String {
    let (sign, passed) = match entry.at_unix_us.checked_sub(begun_unix_us) {
        Some(passed) => ('+', passed),
        None => ('-', begun_unix_us - entry.at_unix_us),
    };
    format!("{sign}{}.{:06}s", passed / 1_000_000, passed % 1_000_000)
}

fn field(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => String::new(),
        Value::String(text) => visible(text),
        other => visible(&other.to_string()),
    }
}

fn describe(name: &str, value: &Value) -> (String, String) {
    let get = |key| field(value, key);
    let mut below = String::new();
    let line = match name {
        "begin" => {
            let from = format!(
                "pid {} ({}) uid {} tag {} cgroup {}",
                get("pid"),
                get("comm"),
                get("uid"),
                get("tag"),
                get("cgroup")
            );
            below = format!("client {}, policy {}", get("client"), get("policy"));
            format!("{} of {} by {from} to {}", get("kind"), get("workload"), get("destination"))
        }
        "end" => join(&[get("outcome"), get("side"), get("reason")]),
        "statement" => {
            let query = if value["query"].is_null() { String::new() } else { format!("?{}", get("query")) };
            format!(
                "#{} {} {}{}{query} {}",
                get("statement"),
                get("method"),
                get("authority"),
                get("path"),
                get("version")
            )
        }
        "verdict" => {
            if !value["message"].is_null() {
                below = get("message");
            }
            if !value["audit"].is_null() {
                below = format!("{below}\nwould be denied in enforce mode: {}", get("audit"));
            }
            let what =
                if value["statement"].is_null() { String::new() } else { format!("#{}", get("statement")) };
            join(&[what, get("verdict").to_uppercase(), get("rule"), get("reason")])
        }
        "head" | "trailers" => {
            for pair in value["headers"].as_array().map_or(&[][..], Vec::as_slice) {
                let part = |at: usize| visible(pair[at].as_str().unwrap_or_default());
                writeln!(below, "{}: {}", part(0), part(1)).ok();
            }
            join(&[format!("#{}", get("statement")), get("direction"), get("status")])
        }
        "body" | "message" => {
            let (text, bytes) = content(value);
            below = text;
            let place = if name == "body" { format!("from byte {}", get("offset")) } else { String::new() };
            join(&[format!("#{}", get("statement")), get("direction"), place, format!("{bytes} bytes")])
        }
        "findings" => {
            for one in value["findings"].as_array().map_or(&[][..], Vec::as_slice) {
                // Recordings of before have no rule.
                let by = one["rule"].as_str().map_or_else(String::new, |it| format!(" by {}", visible(it)));
                let (count, entity) = (field(one, "count"), field(one, "entity"));
                writeln!(below, "{count} x {entity}{by} in {}", place(one)).ok();
            }
            join(&[format!("#{}", get("statement")), get("direction"), "masked".to_owned()])
        }
        _ => others(value),
    };
    (line, below)
}

/// Where something was found.
fn place(finding: &Value) -> String {
    let named = |value: &Value| match value.as_object().and_then(|object| object.iter().next()) {
        Some((kind, name)) => visible(&format!("{kind} {}", name.as_str().unwrap_or_default())),
        None => visible(value.as_str().unwrap_or_default()),
    };
    join(&[named(&finding["place"]), named(&finding["at"]).replace("json ", "at ")])
}

/// The bytes as they are shown: text line by line, anything else as base64.
fn content(value: &Value) -> (String, usize) {
    match (value["text"].as_str(), value["base64"].as_str()) {
        (Some(text), _) => {
            let lines: Vec<String> = text.split('\n').map(|line| format!("| {}", visible(line))).collect();
            (lines.join("\n"), text.len())
        }
        (None, Some(coded)) => {
            let padding = coded.bytes().rev().take_while(|byte| *byte == b'=').count();
            (format!("base64 {}", visible(coded)), (coded.len() / 4 * 3).saturating_sub(padding))
        }
        _ => (String::new(), 0),
    }
}

/// Every field with its name.
fn others(value: &Value) -> String {
    let fields = value.as_object().into_iter().flatten();
    let named = fields.filter(|(key, value)| *key != "event" && !value.is_null());
    join(&named.map(|(key, _)| format!("{}={}", visible(key), field(value, key))).collect::<Vec<_>>())
}

fn join(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}
