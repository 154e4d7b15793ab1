//! Approvals in lines.

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::session::read::visible;

/// A table of them.
pub fn list(listed: &[Value]) -> String {
    if listed.is_empty() {
        return "nothing waits\n".to_owned();
    }
    listed.iter().map(|one| line(one) + "\n").collect()
}

/// One of a list.
pub fn line(one: &Value) -> String {
    let text = |name: &str| visible(one[name].as_str().unwrap_or("-"));
    let (votes, people) = (number(&one["votes"]), number(&one["people"]));
    format!(
        "{:<8} {:<9} {votes}/{people} until {}  {}  {} of {}  {}",
        text("id"),
        text("state"),
        moment(&one["expires"]),
        text("rule"),
        text("actor"),
        text("repository"),
        text("statement")
    )
}

/// All that a decider has to know.
pub fn whole(one: &Value) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("{name:<12} {value}"));
        }
    };
    let view = &one["view"];
    let text = |value: &Value| visible(value.as_str().unwrap_or_default());
    line("approval", format!("{} ({})", text(&one["id"]), text(&one["state"])));
    line("rule", text(&one["rule"]));
    line("says", text(&view["message"]));
    for name in ["repository", "run", "actor", "author", "host", "effect"] {
        line(name, text(&view[name]));
    }
    line("since", moment(&one["opened"]));
    line("until", moment(&one["expires"]));
    line("needs", needs(&one["terms"]));
    line("offers", offers(&one["terms"]["offers"]));
    for vote in one["votes"].as_array().into_iter().flatten() {
        line("yes", format!("{}, {}", account(&vote["by"]), moment(&vote["at"])));
    }
    line("applies to", match one["applies"].as_str() {
        Some("waiting") => format!("these exact bytes, which wait ({} clients)", number(&one["waiting"])),
        _ => "the same request when it is sent again: method, URL, body, headers that do not change by themselves"
            .to_owned(),
    });
    line("sha-256", text(&one["exact"]));
    line("seen", text(&one["seen"]));
    let statement = view["statement"].as_str().unwrap_or_default();
    let statement: String = statement.lines().map(|line| format!("  | {}\n", visible(line))).collect();
    lines.join("\n") + "\n" + &statement
}

fn needs(terms: &Value) -> String {
    let needs = terms["needs"].as_array().into_iter().flatten().map(|need| {
        let groups = need["groups"].as_array().into_iter().flatten();
        let groups: Vec<String> = groups.filter_map(Value::as_str).map(visible).collect();
        format!("{} of {}", number(&need["people"]), groups.join(" or "))
    });
    let own =
        if terms["excludes_self"] == true { "; not who started the job, and nobody unknown" } else { "" };
    needs.collect::<Vec<_>>().join(", and ") + own
}

fn offers(offers: &Value) -> String {
    let mut all = vec!["once".to_owned()];
    if offers["session"] == true {
        all.push("session".to_owned());
    }
    all.extend(offers["job_minutes"].as_u64().map(|minutes| format!("job:{minutes}")));
    all.join(", ")
}

fn account(by: &Value) -> String {
    let subject = &by["subject"];
    let text = |value: &Value| visible(value.as_str().unwrap_or_default());
    format!("{} of {}", text(&subject["subject"]), text(&subject["issuer"]))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}

fn moment(at: &Value) -> String {
    let seconds = i64::try_from(number(at) / 1000).unwrap_or_default();
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_decider_sees_who_what_and_how_far_and_nothing_is_obeyed() {
        let approval = json!({
            "id": "apr-3", "state": "pending", "rule": "p/publish", "applies": "waiting", "waiting": 1,
            "opened": 1_700_000_000_000_u64, "expires": 1_700_000_600_000_u64, "seen": "ab", "exact": "cd",
            "terms": {"needs": [{"people": 2, "groups": ["ops", "web"]}], "excludes_self": true,
                      "offers": {"session": false, "job_minutes": 30}},
            "votes": [{"at": 1_700_000_001_000_u64, "by": {"subject": {"issuer": "https://i", "subject": "ann"}}}],
            "view": {"repository": "a/b", "actor": "mona", "host": "h.test", "message": "why",
                     "statement": "POST https://h.test/\nx: \u{1b}[2J\n\nbody"},
        });
        let text = whole(&approval);
        for part in [
            "approval     apr-3 (pending)",
            "says         why",
            "actor        mona",
            "until        2023-11-14T22:23:20Z",
            "needs        2 of ops or web; not who started",
            "offers       once, job:30",
            "yes          ann of https://i",
            "these exact bytes",
            "  | POST https://h.test/\n",
            "  | body\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text}");
        let retry = whole(&json!({"applies": "retry"}));
        assert!(retry.contains("the same request when it is sent again"), "{retry}");
        assert_eq!(list(&[]), "nothing waits\n");
        let text = list(&[
            json!({"id": "apr-3", "state": "pending", "votes": 1, "people": 2, "statement": "x\u{1b}"}),
        ]);
        assert!(text.starts_with("apr-3    pending   1/2 until ") && !text.contains('\u{1b}'), "{text}");
    }
}
