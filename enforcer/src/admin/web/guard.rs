//! What holds for every request and every answer.
//!
//! **Invariant**: a request that names another host is answered by nothing of ours, so that a
//! name that was made to lead here (DNS rebinding) is another site in vain. What changes
//! something comes from a page of ours: the browser says so by `Origin`, and the form by its number.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::limits::{REQUEST, TARGET};
use super::{Site, Web};

/// No script and no style but ours, in files of their own; nothing from elsewhere; in no frame.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 7] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    // With `no-referrer` browsers would hide where a form comes from.
    (REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

pub async fn guard(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let checked = check(&web.site, request.method(), request.uri(), request.headers());
    let mut answer = match checked {
        Err((status, why)) => (status, why).into_response(),
        Ok(()) => match tokio::time::timeout(REQUEST, next.run(request)).await {
            Ok(answer) => answer,
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "this took too long: try again\n").into_response(),
        },
    };
    let headers = answer.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    answer
}

type Refused = (StatusCode, &'static str);

fn check(site: &Site, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refused> {
    if uri.to_string().len() > TARGET {
        return Err((StatusCode::URI_TOO_LONG, "the address is too long\n"));
    }
    let ours = |name: &str| name.eq_ignore_ascii_case(&site.authority);
    let elsewhere = (
        StatusCode::MISDIRECTED_REQUEST,
        "this page is elsewhere: use the address that `public_url` of [web] says, and let a proxy before it pass \
         the Host field on\n",
    );
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next().map(HeaderValue::to_str), hosts.next()) {
        (Some(Ok(host)), None) if ours(host) => {}
        _ => return Err(elsewhere),
    }
    if uri.authority().is_some_and(|authority| !ours(authority.as_str())) {
        return Err(elsewhere);
    }
    match *method {
        Method::GET | Method::HEAD => Ok(()),
        Method::POST => {
            let mut origins = headers.get_all(ORIGIN).iter();
            let origin = origins.next().filter(|_| origins.next().is_none());
            let same_site = headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin");
            match origin {
                Some(origin) if origin.as_bytes() == site.origin.as_bytes() && same_site => Ok(()),
                _ => Err((
                    StatusCode::FORBIDDEN,
                    "this form was not sent from this page: go there, and send it again\n",
                )),
            }
        }
        _ => Err((StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and POST\n")),
    }
}
