//! The web page's process: the loader starts it, answers it, and starts it again.
//!
//! ```text
//!   loader ── holds the listener, so that nobody else has the page's address meanwhile
//!     │
//!     └── web (user, no capability): its own cgroup, inherited sockets to ask on
//! ```
//!
//! Its death is nobody else's: no job notices, and what waits goes on waiting.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::process::Child;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::admin::request::AdminReply;
use crate::admin::web::{Exposed, Lines, Oidc, Web, WebConfig, WebRequest, WebSetup, limits, router, serve};
use crate::net::ipc::Channel;
use crate::net::sys;
use crate::outgoing::Client;
use crate::secret::SecretText;
use crate::workload::identity::Verifier;
use crate::workload::wire::{ApprovalsRequest, ToProxy};

use super::children::{self, Lives, TICK};
use super::daemon::{ANSWER, Daemon};
use super::pause::Pause;

/// The most bytes of a client's secret.
const MAX_SECRET: u64 = 4096;
/// How long the process may take to take its setup.
const TAKES: Duration = Duration::from_secs(5);

/// Starts the page, if there is one, and keeps it running for as long as the process lives.
pub(super) fn supervise(daemon: &Arc<Daemon>) -> Result<()> {
    if daemon.config.web.is_none() {
        return Ok(());
    }
    let daemon = Arc::clone(daemon);
    // It lives as long as this thread: that is what a parent is to the kernel.
    std::thread::Builder::new().name("web".to_owned()).spawn(move || {
        let (mut pause, mut listener) = (Pause::default(), None);
        while !daemon.stop.load(Ordering::Acquire) {
            let begun = Instant::now();
            let wait = match daemon.start_web(&mut listener) {
                Ok(mut child) => {
                    daemon.wait_for_web(&mut child);
                    pause.after_death(begun.elapsed())
                }
                Err(error) => {
                    tracing::error!("the web page: {error:#}");
                    pause.after_failure()
                }
            };
            daemon.pause_for(wait);
        }
    })?;
    Ok(())
}

impl Daemon {
    /// The listener is opened once: from then on nobody else gets the address.
    fn start_web(self: &Arc<Self>, listener: &mut Option<TcpListener>) -> Result<Child> {
        let config = self.config.web.as_ref().context("no [web]")?;
        if listener.is_none() {
            let opened = TcpListener::bind(config.listen);
            *listener = Some(opened.with_context(|| format!("listening on {}", config.listen))?);
        }
        let listener = listener.as_ref().context("no listener")?;
        let setup = self.web_setup(config)?;
        let (ours, theirs) = Channel::pair()?;
        ours.set_patience_to_send(TAKES)?;
        let (mut asked, mut asking) = (Vec::new(), Vec::new());
        for _ in 0..limits::LINES {
            let (here, there) = Channel::pair()?;
            asked.push(here);
            asking.push(there);
        }
        let user = self.proxy_user()?;
        let mut child = children::command(&user, "web", Lives::WithItsParent, &[theirs.as_fd().as_raw_fd()])
            .spawn()
            .context("starting the web page")?;
        drop(theirs);
        let fds: Vec<_> = asking.iter().map(AsFd::as_fd).chain([listener.as_fd()]).collect();
        if let Err(error) = ours.send(&setup, &fds) {
            children::end([&mut child]);
            return Err(error).context("the web page does not begin");
        }
        for line in asked {
            let daemon = Arc::clone(self);
            std::thread::Builder::new().spawn(move || daemon.answer_web(&line))?;
        }
        Ok(child)
    }

    fn wait_for_web(&self, child: &mut Child) {
        while !self.stop.load(Ordering::Acquire) {
            if !matches!(child.try_wait(), Ok(None)) {
                tracing::error!("the web page has ended; it is started again");
                return;
            }
            std::thread::sleep(TICK);
        }
        children::end([child]);
    }

    fn web_setup(&self, config: &WebConfig) -> Result<WebSetup> {
        let mut approvals = self.config.approvals.clone().context("no [approvals]")?;
        approvals.person.clear();
        approvals.webhook.clear();
        let secret = |path: &std::path::PathBuf| -> Result<Exposed> {
            let length = fs::metadata(path).with_context(|| path.display().to_string())?.len();
            anyhow::ensure!(length <= MAX_SECRET, "{} is longer than {MAX_SECRET} bytes", path.display());
            let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
            Ok(Exposed(SecretText::new(text.trim().to_owned())))
        };
        Ok(WebSetup {
            client_secret: config.client_secret_file.as_ref().map(secret).transpose()?,
            config: config.clone(),
            approvals,
            upstream_ca: self.config.upstream.ca_file.clone(),
            static_names: self.config.dns.names.clone(),
            recording_dir: self.config.recording.dir.clone(),
            policy_dir: self.config.policy.dir.clone(),
        })
    }

    /// One question after the other, until the page is gone.
    fn answer_web(&self, line: &Channel) {
        while let Ok(Some((request, _))) = line.recv::<WebRequest>() {
            let reply = match self.answer_one(request) {
                Ok(status) => AdminReply { ok: true, message: String::new(), status },
                Err(error) => AdminReply { ok: false, message: format!("{error:#}"), status: Value::Null },
            };
            // One that is too long for a message is told of.
            let sent = line.send(&reply, &[]).or_else(|error| {
                let message = format!("the answer cannot be passed on: {error}");
                line.send(&AdminReply { ok: false, message, status: Value::Null }, &[])
            });
            if sent.is_err() {
                return;
            }
        }
    }

    /// **Invariant**: nothing but looking, and votes of people whose token the proxy verifies. Root's
    /// way past them is not here.
    fn answer_one(&self, request: WebRequest) -> Result<Value> {
        match request {
            WebRequest::Status {} => self.status(),
            WebRequest::Hits {} => self.ask_hits(),
            WebRequest::Approvals { request } => {
                if matches!(*request, ApprovalsRequest::BreakGlass { .. }) {
                    bail!("break-glass is for root on the host: `enforcer approvals break-glass`");
                }
                let by_uid = self.proxy_user()?.uid.as_raw();
                self.ask(ANSWER, |id| ToProxy::Approvals { id, request, by_uid })
            }
        }
    }
}

/// The process itself: serves until the loader is gone.
pub fn run(control: RawFd) -> Result<()> {
    crate::secret::process::close_to_others().context("closing the process to others")?;
    let control = Channel::from(sys::inherited(control)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let Some((setup, mut fds)) = control.recv::<WebSetup>()? else { bail!("the loader sent no setup") };
    let listener = TcpListener::from(fds.pop().context("the loader passed no listener")?);
    listener.set_nonblocking(true)?;
    let lines = Lines::new(fds.into_iter().map(Channel::from).collect())?;
    let broken = lines.broken();
    let web = Arc::new(web(setup, lines)?);
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tracing::info!(url = web.site.origin, "the web page is served");
        tokio::select! {
            () = serve(listener, router(Arc::clone(&web))) => {}
            () = broken.notified() => {}
        }
        bail!("the loader does not answer any more")
    })
}

fn web(setup: WebSetup, lines: Lines) -> Result<Web> {
    let WebSetup { config, approvals, client_secret, upstream_ca, static_names, .. } = setup;
    let folders = [setup.recording_dir, setup.policy_dir];
    let site = config.check(Some(&approvals)).map_err(anyhow::Error::msg)?;
    let login = config.login(&approvals).map_err(anyhow::Error::msg)?;
    let client = || -> Result<Client> {
        let client = Client::new(upstream_ca.as_deref(), static_names.clone())?;
        Ok(client.with_plain_on_loopback(approvals.http_on_loopback))
    };
    // Tokens of other issuers count for votes by command, and log nobody in.
    let mut issuers = approvals.issuers();
    issuers.issuer.retain(|issuer| issuer.name == login.name);
    let idp = Oidc {
        issuer: login.issuer.clone(),
        client_id: login.audience.clone(),
        scope: config.scope.clone(),
        client_secret: client_secret.map(|secret| secret.0),
        redirect_uri: format!("{}/callback", site.origin),
        plain_on_loopback: approvals.http_on_loopback,
        client: client()?,
        verifier: Verifier::new(&issuers, Box::new(client()?)).map_err(anyhow::Error::msg)?,
        known: Mutex::default(),
    };
    Web::new(config, site, Box::new(idp), Box::new(lines), folders)
        .map_err(|_| anyhow::anyhow!("no random numbers"))
}
