//! Logging in and out.

use std::sync::Arc;
use std::time::Instant;

use askama::Template;
use axum::extract::{Form, Query, State};
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use serde::Deserialize;

use super::Web;
use super::limits::LOGIN;
use super::oidc::escaped;
use super::page::{Head, Said, Who, cookie, now_unix_ms, rendered};
use super::ticket::{own_path, same};

const SESSION: &str = "enforcer";
const TICKET: &str = "enforcer-login";

#[derive(Deserialize)]
pub struct To {
    #[serde(default)]
    to: String,
}

#[derive(Template)]
#[template(path = "web/login.html")]
struct LoginPage {
    head: Head,
    start: String,
}

pub async fn show(Query(To { to }): Query<To>) -> Response {
    let start = format!("/login/start?to={}", escaped(&own_path(&to)));
    rendered(StatusCode::OK, &LoginPage { head: Head::stranger("Log in"), start })
}

/// Sends the browser to the issuer.
pub async fn start(State(web): State<Arc<Web>>, Query(To { to }): Query<To>) -> Response {
    let Ok((ticket, kept)) = web.tickets.begin(&to, now_unix_ms() / 1000) else {
        return failed("This host has no random numbers.".to_owned(), StatusCode::INTERNAL_SERVER_ERROR);
    };
    match turn(&web, web.idp.authorize(&ticket)).await {
        Ok(address) => {
            let kept = web.site.set_cookie(TICKET, &kept, LOGIN.as_secs());
            ([(SET_COOKIE, kept)], Redirect::to(&address)).into_response()
        }
        Err(answer) => answer,
    }
}

/// What an issuer sends the browser back with (RFC 6749, section 4.1.2; RFC 9207).
#[derive(Deserialize)]
pub struct Back {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

pub async fn callback(State(web): State<Arc<Web>>, headers: HeaderMap, Query(back): Query<Back>) -> Response {
    let kept = cookie(&headers, &web.site.cookie(TICKET));
    let state = back.state.unwrap_or_default();
    let ticket = kept.and_then(|kept| web.tickets.end(&kept, &state, now_unix_ms() / 1000));
    let Some(ticket) = ticket else {
        let says = "This login was not begun in this browser, or it took too long.";
        return failed(says.to_owned(), StatusCode::BAD_REQUEST);
    };
    if back.iss.is_some_and(|issuer| issuer != web.idp.issuer()) {
        return failed("Another issuer has answered.".to_owned(), StatusCode::BAD_REQUEST);
    }
    let (None, Some(code)) = (back.error, back.code) else {
        return failed("The issuer did not log you in.".to_owned(), StatusCode::FORBIDDEN);
    };
    let person = match turn(&web, web.idp.redeem(&code, &ticket)).await {
        Ok(person) => person,
        Err(answer) => return answer,
    };
    let Some(role) = web.config.role(&person.groups) else {
        tracing::warn!(subject = person.subject, "a login without a role");
        let says = "You are logged in at the issuer, but none of your groups has a role here. Ask whoever runs this \
                    host for a group of [web].";
        return failed(says.to_owned(), StatusCode::FORBIDDEN);
    };
    tracing::info!(subject = person.subject, %role, "a login");
    // A number that the browser had before is nobody's from here on.
    let old = cookie(&headers, &web.site.cookie(SESSION));
    old.iter().for_each(|old| web.logins().close(old));
    let Ok(number) = web.logins().open(person, role, Instant::now()) else {
        return failed("This host has no random numbers.".to_owned(), StatusCode::INTERNAL_SERVER_ERROR);
    };
    let cookies = [
        (SET_COOKIE, web.site.set_cookie(SESSION, &number, web.config.session_s)),
        (SET_COOKIE, web.site.set_cookie(TICKET, "", 0)),
    ];
    (AppendHeaders(cookies), Redirect::to(&ticket.to)).into_response()
}

#[derive(Deserialize)]
pub struct Out {
    csrf: String,
}

pub async fn logout(
    State(web): State<Arc<Web>>,
    Who(login): Who,
    headers: HeaderMap,
    Form(Out { csrf }): Form<Out>,
) -> Response {
    if !same(&csrf, &login.csrf) {
        return failed("This form is of another login.".to_owned(), StatusCode::FORBIDDEN);
    }
    let number = cookie(&headers, &web.site.cookie(SESSION));
    number.iter().for_each(|number| web.logins().close(number));
    ([(SET_COOKIE, web.site.set_cookie(SESSION, "", 0))], Redirect::to("/login")).into_response()
}

/// One of the few that the issuer is asked about at a time.
async fn turn<T>(web: &Web, step: super::oidc::Step<'_, T>) -> Result<T, Response> {
    let Ok(_turn) = web.redeeming.try_acquire() else {
        let says = "Many log in at the moment. Try again in a while.";
        return Err(failed(says.to_owned(), StatusCode::SERVICE_UNAVAILABLE));
    };
    step.await.map_err(|error| {
        tracing::warn!(%error, "nobody is logged in");
        let says = format!("Nobody is logged in: {error}.").replace("[identity]", "[approvals]");
        failed(says, StatusCode::BAD_GATEWAY)
    })
}

fn failed(says: String, status: StatusCode) -> Response {
    let next = ("/login".to_owned(), "Log in");
    Said { head: Head::stranger("Not logged in"), says, next }.with(status)
}
