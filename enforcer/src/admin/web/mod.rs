//! The web page: people look at what waits for them, and decide.
//!
//! ```text
//!  browser ──▶ serve ──▶ guard ──▶ login ──▶ approvals ──▶ Ask ──▶ loader ──▶ proxy
//!            (limits)  (Host,    (OIDC,     (pages,        (ls, show, decide,
//!                       Origin,   sessions)  forms)          and nothing else)
//!                       headers)
//! ```
//!
//! A process of its own, as the proxy's user and without a privilege. It asks the loader by
//! inherited sockets, on which there is no verb but those of [`WebRequest`].
//!
//! **Invariant**: nobody decides by what this process believes. A vote carries the ID token that
//! its decider logged in with, and the proxy verifies that token anew, as it does for
//! `enforcer approvals`.
//!
//! **Invariant**: what a job wrote is text here. Templates escape everything, no script and no
//! style stands in a page, and what is invisible is written out.

mod approvals;
mod approvals_view;
mod ask;
pub mod config;
mod guard;
mod host;
pub mod limits;
mod login;
mod logins;
pub(super) mod oidc;
mod page;
mod serve;
mod sessions;
mod ticket;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use crate::approval::config::ApprovalsConfig;
use crate::secret::SecretText;
use crate::workload::wire::ApprovalsRequest;

pub use ask::{Answering, Ask, Lines};
pub use config::{Site, WebConfig};
pub use logins::{Login, Logins, Person, Role};
pub use oidc::{Idp, LoginError, Oidc};
pub use serve::serve;
pub use ticket::Tickets;

/// What the page asks of the loader.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum WebRequest {
    Approvals {
        request: Box<ApprovalsRequest>,
    },
    Status {},
    /// Answered with [`crate::policy::Hits`].
    Hits {},
}

/// All that the page's process is started with. The listener and the sockets on which it asks
/// come with it.
#[derive(Debug, Serialize, Deserialize)]
pub struct WebSetup {
    pub config: WebConfig,
    /// Without the people.
    pub approvals: ApprovalsConfig,
    pub client_secret: Option<Exposed>,
    pub upstream_ca: Option<PathBuf>,
    pub static_names: BTreeMap<String, Vec<IpAddr>>,
    pub recording_dir: PathBuf,
    pub policy_dir: PathBuf,
}

/// A secret on its way to the process that uses it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Exposed(#[serde(with = "crate::secret::exposed")] pub SecretText);

/// What all pages share.
pub struct Web {
    pub site: Site,
    pub config: WebConfig,
    pub idp: Box<dyn Idp>,
    pub ask: Box<dyn Ask>,
    pub logins: Mutex<Logins>,
    pub tickets: Tickets,
    pub recording_dir: PathBuf,
    pub policy_dir: PathBuf,
    reading: Arc<tokio::sync::Semaphore>,
    listed: approvals::Cache,
    redeeming: tokio::sync::Semaphore,
}

impl Web {
    pub fn new(
        config: WebConfig,
        site: Site,
        idp: Box<dyn Idp>,
        ask: Box<dyn Ask>,
        [recording_dir, policy_dir]: [PathBuf; 2],
    ) -> Result<Self, aws_lc_rs::error::Unspecified> {
        Ok(Self {
            logins: Mutex::new(Logins::new(config.session(), config.idle())),
            tickets: Tickets::new()?,
            site,
            config,
            idp,
            ask,
            recording_dir,
            policy_dir,
            reading: Arc::new(tokio::sync::Semaphore::new(limits::READING)),
            listed: approvals::Cache::default(),
            redeeming: tokio::sync::Semaphore::new(limits::LOGINS_AT_ONCE),
        })
    }
}

/// Every page, behind its guard.
pub fn router(web: Arc<Web>) -> Router {
    Router::new()
        .route("/", get(page::home))
        .route("/login", get(login::show))
        .route("/login/start", get(login::start))
        .route("/callback", get(login::callback))
        .route("/logout", post(login::logout))
        .route("/approvals", get(approvals::list))
        .route("/approvals/list", get(approvals::list_again))
        .route("/approvals/{id}", get(approvals::show).post(approvals::decide))
        .route("/approvals/{id}/state", get(approvals::state_again))
        .route("/sessions", get(sessions::list))
        .route("/sessions/{id}", get(sessions::show))
        .route("/policy", get(host::policy))
        .route("/host", get(host::health))
        .route("/assets/style.css", get(page::style))
        .route("/assets/icon.svg", get(page::icon))
        .route("/assets/htmx.min.js", get(page::htmx))
        .fallback(page::nothing)
        .layer(DefaultBodyLimit::max(limits::BODY))
        .layer(axum::middleware::from_fn_with_state(Arc::clone(&web), guard::guard))
        .with_state(web)
}
