//! An approval, as it stands on a page. Everything here is text that was made visible; the
//! templates escape it.

use serde_json::Value;

use super::page::{Piece, distance, moment, pieces, text};

/// One of a list.
pub struct Row {
    pub id: String,
    pub state: String,
    pub rule: String,
    pub who: String,
    pub host: Vec<Piece>,
    pub statement: Vec<Piece>,
    pub votes: u64,
    pub people: u64,
    pub opened: String,
    pub until: String,
    pub waits: bool,
}

impl Row {
    pub fn of(one: &Value, now: u64) -> Self {
        let number = |name: &str| one[name].as_u64().unwrap_or_default();
        Self {
            id: text(&one["id"]),
            state: text(&one["state"]),
            rule: text(&one["rule"]),
            who: who(one),
            host: pieces(&text(&one["host"])),
            statement: pieces(&text(&one["statement"])),
            votes: number("votes"),
            people: number("people"),
            opened: distance(number("opened"), now),
            until: distance(number("expires"), now),
            waits: one["state"] == "pending",
        }
    }
}

/// `actor of repository`, as far as that is known.
fn who(one: &Value) -> String {
    match (one["actor"].as_str(), one["repository"].as_str()) {
        (Some(_), Some(_)) => format!("{} of {}", text(&one["actor"]), text(&one["repository"])),
        (Some(_), None) => text(&one["actor"]),
        (None, Some(_)) => format!("somebody of {}", text(&one["repository"])),
        (None, None) => "somebody who is not known".to_owned(),
    }
}

/// A yes that was said.
#[derive(Clone)]
pub struct Yes {
    pub by: String,
    pub at: String,
    pub scope: String,
    pub reason: String,
}

/// All that a decider has to know.
#[derive(Clone)]
pub struct Whole {
    pub id: String,
    pub state: String,
    pub pending: bool,
    pub rule: String,
    pub message: String,
    pub repository: String,
    pub actor: String,
    pub author: String,
    pub run: String,
    /// Whether `run` is an address that a browser may be sent to.
    pub linked: bool,
    pub host: String,
    pub effect: String,
    pub statement: String,
    pub opened: String,
    pub until: String,
    pub left: String,
    pub ended: String,
    pub needs: String,
    pub session: bool,
    pub minutes: Option<u64>,
    pub votes: Vec<Yes>,
    pub people: u64,
    pub waits: bool,
    pub waiting: u64,
    pub exact: String,
    pub of_session: String,
    pub seen: String,
    /// How it ended: by whom, and why.
    pub outcome: String,
}

impl Whole {
    pub fn of(one: &Value, now: u64) -> Self {
        let (view, terms) = (&one["view"], &one["terms"]);
        let number = |name: &str| one[name].as_u64().unwrap_or_default();
        let run = text(&view["run"]);
        let needs = || terms["needs"].as_array().into_iter().flatten();
        let yes = |vote: &Value| Yes {
            by: account(&vote["by"]),
            at: moment(vote["at"].as_u64().unwrap_or_default()),
            scope: scope(&vote["scope"]),
            reason: text(&vote["reason"]),
        };
        Self {
            id: text(&one["id"]),
            state: text(&one["state"]),
            pending: one["state"] == "pending",
            rule: text(&one["rule"]),
            message: text(&view["message"]),
            repository: text(&view["repository"]),
            actor: text(&view["actor"]),
            author: text(&view["author"]),
            linked: is_link(&run),
            run,
            host: text(&view["host"]),
            effect: text(&view["effect"]),
            // Its lines stay.
            statement: view["statement"].as_str().unwrap_or_default().to_owned(),
            opened: moment(number("opened")),
            until: moment(number("expires")),
            left: distance(number("expires"), now),
            ended: one["ended"].as_u64().map(moment).unwrap_or_default(),
            needs: self::needs(terms),
            session: terms["offers"]["session"] == true,
            minutes: terms["offers"]["job_minutes"].as_u64(),
            votes: one["votes"].as_array().into_iter().flatten().map(yes).collect(),
            people: needs().filter_map(|need| need["people"].as_u64()).sum(),
            waits: one["applies"] == "waiting",
            waiting: number("waiting"),
            exact: text(&one["exact"]),
            of_session: text(&one["session"]),
            seen: text(&one["seen"]),
            outcome: outcome(&one["standing"]),
        }
    }

    pub fn statement_pieces(&self) -> Vec<Piece> {
        pieces(&self.statement)
    }

    pub fn host_pieces(&self) -> Vec<Piece> {
        pieces(&self.host)
    }
}

/// Of a verified identity, and all the same: no other scheme, and nothing that ends an attribute.
fn is_link(run: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:?#=&%+@".contains(&byte);
    run.strip_prefix("https://").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(fine))
}

fn needs(terms: &Value) -> String {
    let needs = terms["needs"].as_array().into_iter().flatten().map(|need| {
        let groups = need["groups"].as_array().into_iter().flatten();
        let groups: Vec<String> = groups.map(text).collect();
        format!("{} of {}", need["people"].as_u64().unwrap_or_default(), groups.join(" or "))
    });
    let own =
        if terms["excludes_self"] == true { "; not who started the job, and nobody unknown" } else { "" };
    needs.collect::<Vec<_>>().join(", and ") + own
}

fn scope(scope: &Value) -> String {
    match scope["job"]["minutes"].as_u64() {
        Some(minutes) => format!("this job, {minutes} min"),
        None if scope == "session" => "this session".to_owned(),
        None => text(scope),
    }
}

/// A login, as the record has it.
fn account(by: &Value) -> String {
    match (&by["subject"], &by["forge"]) {
        (Value::Null, forge) => format!("{}@{}", text(&forge["login"]), text(&forge["host"])),
        (subject, _) => format!("{} of {}", text(&subject["subject"]), text(&subject["issuer"])),
    }
}

fn outcome(standing: &Value) -> String {
    let reason = |reason: &Value| match reason.as_str() {
        Some(_) => format!(": {}", text(reason)),
        None => String::new(),
    };
    let (rejected, approved) = (&standing["rejected"], &standing["approved"]);
    if rejected.is_object() {
        return format!("by {}{}", account(&rejected["by"]), reason(&rejected["reason"]));
    }
    if let Some(by) = approved["quorum"]["by"].as_array() {
        return format!("by {}", by.iter().map(account).collect::<Vec<_>>().join(", "));
    }
    let past = &approved["break-glass"];
    if past.is_object() {
        return format!("past all people, by {}{}", text(&past["by"]), reason(&past["reason"]));
    }
    text(&standing["cancelled"]).replace('-', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_run_is_a_link_by_https_alone() {
        assert!(is_link("https://github.com/a/b/actions/runs/1"));
        for wrong in [
            "",
            "https://",
            "http://a",
            "javascript:alert(1)",
            "https://a/\"onx",
            "https://a/<U+202E>",
            "https://a b",
        ] {
            assert!(!is_link(wrong), "{wrong}");
        }
    }

    #[test]
    fn how_it_ended_is_told() {
        let by = json!({"subject": {"issuer": "https://i", "subject": "ann"}});
        for (standing, says) in [
            (json!("pending"), ""),
            (json!({"rejected": {"by": by, "reason": "no"}}), "by ann of https://i: no"),
            (json!({"approved": {"quorum": {"by": [by]}}}), "by ann of https://i"),
            (
                json!({"approved": {"break-glass": {"by": "uid 0", "reason": "fire"}}}),
                "past all people, by uid 0: fire",
            ),
            (json!({"cancelled": "client-gone"}), "client gone"),
        ] {
            assert_eq!(outcome(&standing), says);
        }
    }

    #[test]
    fn who_asks_is_told_as_far_as_it_is_known() {
        assert_eq!(who(&json!({"actor": "a", "repository": "r"})), "a of r");
        assert_eq!(who(&json!({"repository": "r\u{202e}"})), "somebody of r\\u{202e}");
        assert_eq!(who(&json!({})), "somebody who is not known");
    }
}
