//! What all pages have in common.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use askama::Template;
use axum::extract::{FromRequestParts, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{Html, IntoResponse, Redirect, Response};
use serde_json::Value;
use time::OffsetDateTime;

use super::logins::{Login, Role};
use super::oidc::escaped;
use super::{Site, Web};

/// The head of a page, and who looks at it.
pub struct Head {
    pub title: &'static str,
    /// The entry of the navigation that this is.
    pub place: &'static str,
    pub name: String,
    pub role: String,
    pub csrf: String,
}

impl Head {
    pub fn of(login: &Login, title: &'static str, place: &'static str) -> Self {
        let (name, role) = (login.person.name.clone(), login.role.to_string());
        Self { title, place, name, role, csrf: login.csrf.clone() }
    }

    /// For whoever is not logged in.
    pub fn stranger(title: &'static str) -> Self {
        let (name, role, csrf) = Default::default();
        Self { title, place: "", name, role, csrf }
    }

    pub fn is_logged_in(&self) -> bool {
        !self.name.is_empty()
    }
}

/// Something that is said, and the way on.
#[derive(Template)]
#[template(path = "web/said.html")]
pub struct Said {
    pub head: Head,
    pub says: String,
    /// A path, and what stands on the link.
    pub next: (String, &'static str),
}

impl Said {
    pub fn with(self, status: StatusCode) -> Response {
        rendered(status, &self)
    }
}

pub fn rendered(status: StatusCode, page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => (status, Html(text)).into_response(),
        Err(error) => {
            tracing::error!(%error, "a page is not shown");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Who is logged in. Others are told to do so, and come back to where they wanted to go.
pub struct Who(pub Arc<Login>);

/// The same for what a page asks by itself, which keeps nobody logged in.
pub struct Still;

impl FromRequestParts<Arc<Web>> for Who {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Web>) -> Result<Self, Response> {
        let to = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let login = || Redirect::to(&format!("/login?to={}", escaped(to))).into_response();
        web.login(&parts.headers, true).map(Who).ok_or_else(login)
    }
}

impl FromRequestParts<Arc<Web>> for Still {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, web: &Arc<Web>) -> Result<Self, Response> {
        let again = || (StatusCode::NO_CONTENT, [("hx-refresh", "true")]).into_response();
        web.login(&parts.headers, false).map(|_| Self).ok_or_else(again)
    }
}

impl Web {
    /// Whose request this is.
    pub fn login(&self, headers: &HeaderMap, touch: bool) -> Option<Arc<Login>> {
        let number = cookie(headers, &self.site.cookie("enforcer"))?;
        self.logins().find(&number, touch, Instant::now())
    }

    pub fn logins(&self) -> std::sync::MutexGuard<'_, super::Logins> {
        self.logins.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Site {
    /// With TLS no other host and no plain page can set a cookie of this name.
    pub fn cookie(&self, name: &str) -> String {
        if self.secure { format!("__Host-{name}") } else { name.to_owned() }
    }

    /// A cookie for this site alone, which no script reads.
    pub fn set_cookie(&self, name: &str, value: &str, seconds: u64) -> String {
        let secure = if self.secure { "; Secure" } else { "" };
        format!("{}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}", self.cookie(name))
    }
}

/// The cookie of this name, if there is one and no second one.
pub fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let fields = headers.get_all(COOKIE).iter().filter_map(|field| field.to_str().ok());
    let pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut found = pairs.filter(|(named, _)| *named == name).map(|(_, value)| value.to_owned());
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

pub async fn home(_: Who) -> Redirect {
    Redirect::to("/approvals")
}

pub async fn nothing(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    let head = match web.login(&headers, false) {
        Some(login) => Head::of(&login, "Not found", ""),
        None => Head::stranger("Not found"),
    };
    let next = ("/approvals".to_owned(), "Go to what waits");
    Said { head, says: "There is no such page.".to_owned(), next }.with(StatusCode::NOT_FOUND)
}

/// Files that are the same for everybody.
fn file(kind: &'static str, text: &'static str) -> Response {
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=300")], text).into_response()
}

pub async fn style() -> Response {
    file("text/css; charset=utf-8", include_str!("../../../assets/web/style.css"))
}

pub async fn icon() -> Response {
    file("image/svg+xml", include_str!("../../../assets/web/icon.svg"))
}

/// htmx 2.0.11, as its authors publish it.
pub async fn htmx() -> Response {
    file("text/javascript; charset=utf-8", include_str!("../../../assets/web/htmx.min.js"))
}

/// What whoever may not do this is told.
pub fn refusal(login: &Login, role: Role) -> Option<Response> {
    if login.role >= role {
        return None;
    }
    let says = format!("This needs the role `{role}`; you are logged in as {}.", login.role);
    let head = Head::of(login, "Not for your role", "");
    Some(Said { head, says, next: ("/approvals".to_owned(), "Go to what waits") }.with(StatusCode::FORBIDDEN))
}

pub fn now_unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// As people read it, in UTC.
pub fn moment(unix_ms: u64) -> String {
    let seconds = i64::try_from(unix_ms / 1000).unwrap_or_default();
    let format = time::macros::format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let time = OffsetDateTime::from_unix_timestamp(seconds).ok();
    time.and_then(|time| time.format(&format).ok()).unwrap_or_default()
}

/// How far away a moment is.
pub fn distance(unix_ms: u64, now: u64) -> String {
    let (left, past) = (unix_ms.saturating_sub(now) / 1000, now.saturating_sub(unix_ms) / 1000);
    let length = |seconds: u64| match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    };
    if unix_ms > now { format!("in {}", length(left)) } else { format!("{} ago", length(past)) }
}

pub fn text(value: &Value) -> String {
    crate::session::read::visible(value.as_str().unwrap_or_default())
}

/// A part of a text, and whether it stands for what would not be seen.
pub struct Piece {
    pub text: String,
    pub marked: bool,
}

/// Marks what was written out: `<U+202E>`, `<looks like ...>`, `<.. bytes not shown>`.
pub fn pieces(text: &str) -> Vec<Piece> {
    let lines: Vec<String> = text.split('\n').map(crate::session::read::visible).collect();
    let text = lines.join("\n");
    let (mut out, mut rest) = (Vec::new(), text.as_str());
    let piece = |text: &str, marked| Piece { text: text.to_owned(), marked };
    while let Some(at) = rest.find('<') {
        let (before, from) = rest.split_at(at);
        let said = ["<U+", "<looks like ", "<the rest "].iter().any(|it| from.starts_with(it))
            || from
                .find(" bytes not shown>")
                .is_some_and(|end| from[1..end].bytes().all(|it| it.is_ascii_digit()));
        let end = from.find('>').map_or(from.len(), |end| end + 1);
        let end = if said { end } else { 1 };
        out.push(piece(before, false));
        out.push(piece(&from[..end], said));
        rest = &from[end..];
    }
    out.push(piece(rest, false));
    out.retain(|piece| !piece.text.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        let headers = |values: &[&'static str]| {
            values
                .iter()
                .map(|value| (COOKIE, axum::http::HeaderValue::from_static(value)))
                .collect::<HeaderMap>()
        };
        assert_eq!(cookie(&headers(&["a=1; enforcer=x"]), "enforcer").as_deref(), Some("x"));
        for wrong in [&["enforcer=x; enforcer=y"][..], &["enforcer=x", "enforcer=x"], &["xenforcer=x"], &[]] {
            assert_eq!(cookie(&headers(wrong), "enforcer"), None, "{wrong:?}");
        }
    }

    #[test]
    fn what_was_written_out_is_marked_and_nothing_is_lost() {
        let marked = |text: &str| {
            let pieces = pieces(text);
            assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), text);
            pieces.into_iter().filter(|piece| piece.marked).map(|piece| piece.text).collect::<Vec<_>>()
        };
        assert_eq!(marked("a<U+202E>b<script>c"), ["<U+202E>"]);
        assert_eq!(
            marked("x <looks like \"y\": letters of Latin>"),
            ["<looks like \"y\": letters of Latin>"]
        );
        assert_eq!(marked("a<12 bytes not shown>b <x bytes not shown>"), ["<12 bytes not shown>"]);
        assert!(marked("<b>\n<<U").is_empty());
        assert_eq!(marked("<U+"), ["<U+"]);
    }

    #[test]
    fn how_far_away_a_moment_is() {
        for (at, says) in [
            (1000, "0 s ago"),
            (2000, "in 1 s"),
            (120_000, "in 119 s"),
            (121_000, "in 2 min"),
            (7_201_000, "in 2 h"),
            (0, "1 s ago"),
        ] {
            assert_eq!(distance(at, 1000), says);
        }
        assert_eq!(moment(1_700_000_000_000), "2023-11-14 22:13:20 UTC");
    }
}
