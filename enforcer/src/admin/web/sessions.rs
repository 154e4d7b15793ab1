//! What was recorded: a list with filters, and one session in full.

use std::io;
use std::path::Path as File;
use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

use crate::session::SessionId;
use crate::session::read::{self, Filter, Summary, visible};

use super::Web;
use super::limits::{RECORD_BYTES, RECORDS, SESSIONS};
use super::logins::Login;
use super::page::{Head, Said, Who, distance, moment, now_unix_ms, rendered};

/// What a form gives: all that is empty is not asked for.
#[derive(Debug, Default, Deserialize)]
pub struct Asked {
    #[serde(default)]
    workload: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    verdict: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    since: String,
}

/// A choice of a form, and how it is written.
type Choice = (&'static str, &'static str);

const VERDICTS: [Choice; 5] =
    [("", "any"), ("allow", "allow"), ("deny", "deny"), ("audit", "audit"), ("refused", "refused")];
const OUTCOMES: [Choice; 7] = [
    ("", "any"),
    ("completed", "completed"),
    ("denied", "denied"),
    ("failed", "failed"),
    ("cancelled", "cancelled"),
    ("open", "open"),
    ("cut", "cut"),
];
const SINCE: [(&str, &str, u64); 5] = [
    ("", "ever", u64::MAX),
    ("15m", "15 minutes", 15 * 60),
    ("1h", "an hour", 3600),
    ("1d", "a day", 24 * 3600),
    ("7d", "a week", 7 * 24 * 3600),
];

#[derive(Template)]
#[template(path = "web/sessions.html")]
struct ListPage {
    head: Head,
    asked: Asked,
    rows: Vec<Row>,
    /// There are more.
    more: bool,
}

struct Row {
    id: SessionId,
    workload: String,
    destination: String,
    kind: String,
    started: String,
    statements: u64,
    verdicts: String,
    masked: u64,
    outcome: String,
    denied: bool,
}

#[derive(Template)]
#[template(path = "web/session.html")]
struct ShowPage {
    head: Head,
    id: SessionId,
    started: String,
    lines: Vec<Line>,
    ended: bool,
    /// Not all of it is shown.
    more: bool,
}

struct Line {
    text: String,
    denied: bool,
}

impl Asked {
    fn filter(&self, now: u64) -> Filter {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let since = SINCE.iter().find(|(name, ..)| *name == self.since && !name.is_empty());
        Filter {
            workload: given(&self.workload),
            host: given(&self.host),
            verdict: given(&self.verdict),
            outcome: given(&self.outcome),
            since_unix_ms: since.map(|(_, _, seconds)| now.saturating_sub(seconds * 1000)),
            limit: Some(SESSIONS + 1),
        }
    }

    fn is_anything(&self) -> bool {
        [&self.workload, &self.host, &self.verdict, &self.outcome, &self.since]
            .iter()
            .any(|it| !it.is_empty())
    }
}

impl Row {
    fn of(one: &Summary, now: u64) -> Self {
        let counts =
            [(one.allowed, "allow"), (one.denied, "deny"), (one.audited, "audit"), (one.refused, "refused")];
        let verdicts =
            counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let reason = if one.reason.is_empty() { String::new() } else { format!(" ({})", one.reason) };
        // Not all sessions go anywhere, and a link needs a name.
        let destination = if one.destination.is_empty() { "no destination" } else { &one.destination };
        Self {
            id: one.id,
            workload: visible(&one.workload),
            destination: visible(destination),
            kind: visible(&one.kind),
            started: format!("{}, {}", moment(one.started_unix_ms), distance(one.started_unix_ms, now)),
            statements: one.statements,
            verdicts: verdicts.collect::<Vec<_>>().join(", "),
            masked: one.masked,
            outcome: visible(&format!("{}{reason}", one.outcome)),
            denied: one.denied + one.refused > 0,
        }
    }
}

pub async fn list(State(web): State<Arc<Web>>, Who(login): Who, Query(asked): Query<Asked>) -> Response {
    let now = now_unix_ms();
    let filter = asked.filter(now);
    match read(&web, move |dir| read::list(dir, &filter)).await {
        Err(why) => unread(&login, &why),
        Ok(found) => {
            let head = Head::of(&login, "Sessions", "sessions");
            let rows = found.iter().take(SESSIONS).map(|one| Row::of(one, now)).collect();
            rendered(StatusCode::OK, &ListPage { head, asked, rows, more: found.len() > SESSIONS })
        }
    }
}

pub async fn show(State(web): State<Arc<Web>>, Who(login): Who, Path(id): Path<String>) -> Response {
    // Whole: the beginning of an id is for those who type.
    let Some(id) = id.parse::<SessionId>().ok().filter(|found| found.to_string() == id) else {
        return unread(&login, "there is no such session");
    };
    let head = Head::of(&login, "A session", "sessions");
    match read(&web, move |dir| shown(dir, id, head)).await {
        Ok(page) => rendered(StatusCode::OK, &page),
        Err(why) => unread(&login, &why),
    }
}

fn shown(dir: &File, id: SessionId, head: Head) -> io::Result<ShowPage> {
    let mut page =
        ShowPage { head, id, started: String::new(), lines: Vec::new(), ended: false, more: false };
    let (mut begun, mut bytes) = (None, 0);
    let done = read::entries(dir, id, |entry| {
        let first = *begun.get_or_insert(entry.at_unix_us);
        let text = read::timeline(&entry, first);
        bytes += text.len();
        if page.lines.len() >= RECORDS || bytes > RECORD_BYTES {
            page.more = true;
            // Nobody reads on.
            return Err(io::ErrorKind::WriteZero.into());
        }
        page.ended = entry.kind == "end";
        let denied = entry.payload["verdict"] == "deny" || entry.payload["event"] == "refused";
        page.lines.push(Line { text, denied });
        Ok(())
    });
    page.started = begun.map(|begun| moment(begun / 1000)).unwrap_or_default();
    match done {
        Err(error) if !page.more => Err(error),
        _ if page.lines.is_empty() => Err(io::Error::new(io::ErrorKind::NotFound, "it has no such session")),
        _ => Ok(page),
    }
}

/// On a thread that may wait for the disk, one of few: a recording can be long.
async fn read<T: Send + 'static>(
    web: &Web,
    read: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
) -> Result<T, String> {
    let turn = Arc::clone(&web.reading).acquire_owned().await.map_err(|error| error.to_string())?;
    let dir = web.recording_dir.clone();
    let done = tokio::task::spawn_blocking(move || {
        let _turn = turn;
        read(&dir)
    });
    let done = done.await.map_err(|error| error.to_string())?;
    done.map_err(|error| format!("the recording cannot be read: {error}"))
}

fn unread(login: &Login, why: &str) -> Response {
    let head = Head::of(login, "Nothing to show", "sessions");
    let next = ("/sessions".to_owned(), "Go to the sessions");
    Said { head, says: visible(why), next }.with(StatusCode::NOT_FOUND)
}
