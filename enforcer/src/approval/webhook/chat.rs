//! Messages for chats, in which what a job wrote stays what it is: no link, no mention, no markup.

use serde_json::{Value, json};

use super::message::Message;

/// Bytes of a line, as it is written in the end.
const LINE: usize = 250;
/// The same of a statement in Slack, where a text of a block has 3,000 characters: a message that
/// is too long is refused as a whole.
const SLACK_STATEMENT: usize = 2600;
/// Bytes and lines of a statement in Teams, where a message has 28 KB.
const TEAMS_STATEMENT: usize = 4000;
const TEAMS_LINES: usize = 60;
const MORE: &str = "... (not all of it is shown here) ...";

/// For an incoming webhook (<https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>).
pub fn slack(message: &Message<'_>) -> Value {
    let title = format!("{} (rule {})", headline(message), code(message.rule));
    let mut lines = Vec::new();
    for (name, value) in facts(message) {
        lines.push(format!("*{name}* {}", code(&value)));
    }
    if let Some(run) = message.who.run.filter(|run| is_plain_link(run)) {
        lines.push(format!("<{}|The run>", escaped(run)));
    }
    let statement = fitted(message.what.statement, SLACK_STATEMENT, "\n", escaped_size);
    let mut blocks =
        vec![section(&title), section(&lines.join("\n")), section(&format!("```{}```", inert(&statement)))];
    if let Some(link) = &message.link {
        let words = if message.decision.is_none() { "Look at it, and decide" } else { "Look at it" };
        blocks.push(section(&format!("<{}|{words}>", escaped(link))));
    }
    // The text is what notifications show.
    json!({ "text": title, "blocks": blocks, "unfurl_links": false, "unfurl_media": false })
}

/// `verbatim`: nothing in it becomes a link or a mention by how it looks.
fn section(text: &str) -> Value {
    json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } })
}

/// For a workflow that posts adaptive cards
/// (<https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook>).
/// Runs of text know no Markdown, unlike the text of a `TextBlock`.
pub fn teams(message: &Message<'_>) -> Value {
    let mut body = vec![
        json!({ "type": "TextBlock", "text": headline(message), "weight": "Bolder", "size": "Medium", "wrap": true }),
        row(&[bold("Rule "), run(message.rule)]),
    ];
    for (name, value) in facts(message) {
        body.push(row(&[bold(&format!("{name} ")), run(&value)]));
    }
    let text = fitted(message.what.statement, TEAMS_STATEMENT, "\n", char::len_utf8);
    for line in fitted_lines(&text) {
        let mut row = row(&[mono(line)]);
        row["spacing"] = "None".into();
        body.push(row);
    }
    let mut actions = Vec::new();
    let mut open = |title: &str, url: &str| {
        actions.push(json!({ "type": "Action.OpenUrl", "title": title, "url": url }));
    };
    if let Some(link) = &message.link {
        open(if message.decision.is_none() { "Look at it, and decide" } else { "Look at it" }, link);
    }
    if let Some(run) = message.who.run.filter(|run| is_plain_link(run)) {
        open("The run", run);
    }
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": body, "actions": actions,
    });
    let kind = "application/vnd.microsoft.card.adaptive";
    json!({ "type": "message", "attachments": [{ "contentType": kind, "contentUrl": null, "content": card }] })
}

fn row(inlines: &[Value]) -> Value {
    json!({ "type": "RichTextBlock", "inlines": inlines })
}

fn run(text: &str) -> Value {
    let line = fitted(text, LINE, " ", char::len_utf8);
    json!({ "type": "TextRun", "text": unformatted(&line) })
}

fn bold(text: &str) -> Value {
    json!({ "type": "TextRun", "text": text, "weight": "Bolder" })
}

fn mono(text: &str) -> Value {
    json!({ "type": "TextRun", "text": unformatted(text), "fontType": "Monospace" })
}

/// Cards have `{{DATE(...)}}` in any text.
fn unformatted(text: &str) -> String {
    text.replace("{{", "{<U+007B>")
}

/// Words of our own alone.
fn headline(message: &Message<'_>) -> String {
    let id = &message.approval;
    match message.state {
        "pending" => format!("{id} waits for people"),
        "approved" if message.decision.as_ref().is_some_and(|decision| decision.break_glass) => {
            format!("{id} was let go past all people, by root")
        }
        "expired" => format!("{id} has expired: nobody decided in time"),
        state => format!("{id} is {state}"),
    }
}

/// What else is to be known, line by line.
fn facts(message: &Message<'_>) -> Vec<(&'static str, String)> {
    let who = &message.who;
    let whose = match (who.actor, who.repository) {
        (Some(actor), Some(repository)) => format!("{actor} of {repository}"),
        (Some(actor), None) => actor.to_owned(),
        (None, Some(repository)) => format!("somebody of {repository}"),
        (None, None) => "somebody who is not known".to_owned(),
    };
    let mut facts = vec![("Who", whose), ("Where to", message.what.host.to_owned())];
    let mut say = |name, text: Option<&str>| facts.extend(text.map(|text| (name, text.to_owned())));
    say("What it does", message.what.effect);
    say("The rule says", message.message);
    match &message.decision {
        None => {
            say("Needs", Some(&message.needed()));
            say("Until", Some(&message.until));
        }
        Some(decision) => {
            let by = decision.by.join(", ");
            say("By", Some(by.as_str()).filter(|by| !by.is_empty()));
            say("Reason", decision.reason);
        }
    }
    say("On", Some(message.host));
    facts
}

/// The text, or its head and its tail if it is longer than that: what is bad about it is not to be
/// hidden by a long beginning. `size` is what a letter takes.
fn fitted(text: &str, most: usize, joint: &str, size: impl Fn(char) -> usize) -> String {
    if text.chars().map(&size).sum::<usize>() <= most {
        return text.to_owned();
    }
    let within = |most: usize| {
        let mut taken = 0;
        let size = &size;
        move |letter: &char| {
            taken += size(*letter);
            taken <= most
        }
    };
    let head: String = text.chars().take_while(within(most / 4 * 3)).collect();
    let tail: Vec<char> = text.chars().rev().take_while(within(most / 4)).collect();
    let tail: String = tail.into_iter().rev().collect();
    format!("{head}{joint}{MORE}{joint}{tail}")
}

fn fitted_lines(text: &str) -> Vec<&str> {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= TEAMS_LINES {
        return lines;
    }
    let (head, tail) = (TEAMS_LINES / 4 * 3, TEAMS_LINES / 4);
    let (head, tail) = (lines.iter().take(head), lines.iter().skip(lines.len() - tail));
    head.chain([&MORE]).chain(tail).copied().collect()
}

/// What Slack reads as the beginning of a link, a mention or an entity
/// (<https://docs.slack.dev/messaging/formatting-message-text#escaping>).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// What a letter takes once `code` has written it.
fn escaped_size(letter: char) -> usize {
    match letter {
        '&' => 5,
        '<' | '>' => 4,
        '`' => 14,
        letter => letter.len_utf8(),
    }
}

/// For between backticks, of which it has none itself: nothing in it is markup.
fn inert(text: &str) -> String {
    escaped(&text.replace('`', "<U+0060>"))
}

fn code(text: &str) -> String {
    let line = fitted(text, LINE, " ", escaped_size).replace(['\n', '\r', '\t'], " ");
    format!("`{}`", inert(&line))
}

/// Whether it leads where it seems to: it is made of what a token says of a repository.
fn is_plain_link(url: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%".contains(&byte);
    url.starts_with("https://") && url.bytes().all(plain)
}
