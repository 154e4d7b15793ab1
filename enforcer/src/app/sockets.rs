//! The service's own sockets: `run.sock`, on which jobs are started, and
//! `admin.sock`. Both refuse every process in a tagged cgroup, whoever it is. `job.sock`, which
//! is for those alone, is in [`super::identities`].

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::admin::request::{AdminReply, AdminRequest};
use crate::kernel::{Foreign, LinkHealth, Mode, Tier, TierState};
use crate::net::ipc::{Channel, Listener, Peer};
use crate::workload::wire::{ToProxy, WorkloadSpec};

use super::children::TICK;
use super::config::OnTamper;
use super::daemon::{ANSWER, Daemon, lock};
use super::jobs;
use super::release::Lifted;
use super::scopes::{LABEL, Scope, ScopeReport};
use super::watch::shown;

/// How long a client may take to say what it wants.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long one may that is refused in any case.
const BRIEFLY: Duration = Duration::from_millis(100);
/// The most clients of `run.sock` at a time, which is the most jobs.
const MAX_CLIENTS: usize = 1024;
/// The most clients of `admin.sock` at a time.
const MAX_ADMINISTRATORS: usize = 16;
/// The most that are refused at a time, and told so: they do not count as the others.
const MAX_STRANGERS: usize = 8;
/// Clients that are turned away are told of once in this time.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Opens both sockets and serves them for as long as the process lives.
pub(super) fn serve(daemon: &Arc<Daemon>) -> Result<()> {
    let group = nix::unistd::Group::from_name(&daemon.config.run.group)?;
    let run = Listener::bind(&daemon.config.run_socket())?;
    fs::set_permissions(daemon.config.run_socket(), fs::Permissions::from_mode(0o660))?;
    chown(daemon.config.run_socket(), Some(0), Some(group.map_or(0, |group| group.gid.as_raw())))?;
    let admin = Listener::bind(&daemon.config.admin_socket())?;
    fs::set_permissions(daemon.config.admin_socket(), fs::Permissions::from_mode(0o600))?;
    super::identities::serve(daemon)?;
    let (starter, administered) = (Arc::clone(daemon), Arc::clone(daemon));
    serve_each(daemon, run, MAX_CLIENTS, move |channel, peer| jobs::serve(&starter, channel, peer));
    serve_each(daemon, admin, MAX_ADMINISTRATORS, move |channel, peer| {
        let reply = administered.administer(channel, peer).unwrap_or_else(|error| AdminReply {
            ok: false,
            message: format!("{error:#}"),
            status: Value::Null,
        });
        if let Err(error) = channel.send(&reply, &[]) {
            tracing::debug!(%error, "an administrator is gone");
        }
    });
    Ok(())
}

impl Daemon {
    /// Whether the process that connected is in a tagged cgroup. One that is gone is
    /// an error: it may have connected from a job and left the socket to another.
    fn is_tagged(&self, channel: &Channel, peer: Peer) -> Result<bool> {
        let tag = |pid| self.with_kernel(|kernel| kernel.tag_of_process(pid));
        Ok(channel.with_peer(peer, tag)??.is_some())
    }

    /// What a client asks for; None if it is in a tagged cgroup. Who it is comes
    /// first, so that a job cannot keep others waiting; its message is taken all the
    /// same, since closing with it unread would take the answer away as well.
    pub(super) fn heard<T: DeserializeOwned>(
        &self,
        channel: &Channel,
        peer: Peer,
    ) -> Result<Option<(T, Vec<OwnedFd>)>> {
        let tagged = self.is_tagged(channel, peer);
        let known = matches!(tagged, Ok(false));
        channel.set_patience(Some(if known { PATIENCE } else { BRIEFLY }))?;
        let message = channel.recv::<T>();
        channel.set_patience(None)?;
        if tagged? {
            return Ok(None);
        }
        message?.context("the client said nothing").map(Some)
    }

    fn administer(&self, channel: &Channel, peer: Peer) -> Result<AdminReply> {
        let request = self.heard::<AdminRequest>(channel, peer)?;
        let (request, _) = request.context("a process in a tagged cgroup has no say here")?;
        let fine = |message: String| AdminReply { ok: true, message, status: Value::Null };
        match request {
            AdminRequest::Status => Ok(AdminReply { status: self.status()?, ..fine(String::new()) }),
            AdminRequest::PolicyHits => Ok(AdminReply { status: self.ask_hits()?, ..fine(String::new()) }),
            AdminRequest::Reload => self.reload().map(fine),
            AdminRequest::ScopeList => {
                Ok(AdminReply { status: serde_json::to_value(self.list_scopes())?, ..fine(String::new()) })
            }
            AdminRequest::ScopeAdd { scope, dry_run } => {
                let scope: Scope = serde_json::from_value(scope).context("this is no scope")?;
                scope.check().map_err(|why| anyhow!(why))?;
                let report = self.add_scope(scope, dry_run, peer.pid)?;
                Ok(AdminReply { status: serde_json::to_value(report)?, ..fine(String::new()) })
            }
            AdminRequest::ScopeRemove { name } => self.remove_scope(&name).map(fine),
            AdminRequest::Approvals { request } => {
                let by_uid = peer.uid;
                let answer = self.ask(ANSWER, |id| ToProxy::Approvals { id, request, by_uid })?;
                Ok(AdminReply { status: answer, ..fine(String::new()) })
            }
            AdminRequest::Release { scope: None, for_ms: None } => {
                self.say(&ToProxy::Released {
                    scope: "all".to_owned(),
                    tags: Vec::new(),
                    by_uid: peer.uid,
                    until_unix_ms: None,
                });
                self.release.store(true, Ordering::Release);
                self.stop.store(true, Ordering::Release);
                Ok(fine("enforcement is being lifted; the service ends".to_owned()))
            }
            AdminRequest::Release { scope, for_ms } => {
                self.lift(scope.as_deref(), for_ms.map(Duration::from_millis), peer.uid).map(fine)
            }
        }
    }

    pub(super) fn status(&self) -> Result<Value> {
        let health = self.with_kernel(|kernel| kernel.health())?;
        let pin = |link: &LinkHealth| json!({ "name": link.name, "problem": link.problem });
        let foreign = |it: &Foreign| {
            json!({
                "program": it.id, "name": it.name, "cgroup": it.cgroup, "attach_type": it.attach_type,
                "before": it.before, "text": shown(it),
            })
        };
        let tiers = self.with_kernel(|kernel| Ok(kernel.tiers()))?;
        let tier = |tier: &Tier| {
            let (state, why) = match &tier.state {
                TierState::Active => ("active", None),
                TierState::Off => ("off", None),
                TierState::Unavailable { why } => ("unavailable", Some(why)),
            };
            json!({ "name": tier.name, "state": state, "why": why })
        };
        let lifted = lock(&self.lifted).clone();
        let namespaces = self.served_namespaces();
        let job = |job: &WorkloadSpec| {
            json!({
                "name": job.name, "cgroup": job.cgroup_path, "uid": job.uid, "labels": job.labels,
                "namespaces": namespaces.get(&job.tag).copied().unwrap_or(0),
                "lifted_until_unix_ms": lifted.get(&job.tag).map(Lifted::until_unix_ms),
            })
        };
        // Those of scopes may be many; they are listed by their own command.
        let is_job = |job: &&WorkloadSpec| !job.labels.contains_key(LABEL);
        let jobs: Vec<_> = lock(&self.workloads).values().filter(is_job).map(job).collect();
        let scopes = self.list_scopes();
        let enforced = !scopes.iter().any(|scope| scope.failed);
        let scope = |scope: &ScopeReport| {
            let until = scope.matches.iter().filter_map(|found| found.lifted_until_unix_ms).max();
            json!({
                "name": scope.name, "cgroups": scope.count, "failed": scope.failed,
                "sweeping": scope.sweeping,
                "problem": scope.problems.first(), "lifted_until_unix_ms": until,
            })
        };
        let scopes: Vec<_> = scopes.iter().map(scope).collect();
        let pids = lock(&self.proxy).as_ref().map(|link| (link.proxy, link.signer));
        let proxy = self.ask_status();
        let good = |proxy: &Value| proxy["recording"] == "ok" && proxy["policy_problem"].is_null();
        let serves = proxy.as_ref().is_ok_and(good);
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "healthy": health.is_good() && serves && enforced,
            "proxy_pid": pids.map(|pids| pids.0),
            "signer_pid": pids.map(|pids| pids.1),
            "proxy": proxy.unwrap_or_else(|error| json!({ "problem": format!("{error:#}") })),
            "interfaces": self.guarded_interfaces()?,
            "containers": self.containers.list(),
            "pins": health.links.iter().chain(&health.maps).map(pin).collect::<Vec<_>>(),
            "mode": if health.mode == Mode::Deny { "deny" } else { "redirect" },
            "tampered": self.what_was_changed(&health),
            "on_tamper": if self.config.kernel.on_tamper == OnTamper::Freeze { "freeze" } else { "deny" },
            "foreign": health.foreign.iter().map(foreign).collect::<Vec<_>>(),
            "tiers": tiers.iter().map(tier).collect::<Vec<_>>(),
            "jobs": jobs,
            "scopes": scopes,
            "unwatched": lock(&self.scopes).unwatched().map(str::to_owned).or_else(|| self.containers.unwatched()),
        }))
    }
}

/// A thread for each client, at most `limit` of them: more are turned away. Jobs take
/// no place from others. An error (no descriptor is left) is not the end of the service.
fn serve_each(
    daemon: &Arc<Daemon>,
    listener: Listener,
    limit: usize,
    serve: impl Fn(&Channel, Peer) + Send + Sync + 'static,
) {
    let daemon = Arc::clone(daemon);
    let serve = Arc::new(serve);
    // The clones are the clients that are served now.
    let (clients, strangers) = (Arc::new(()), Arc::new(()));
    std::thread::spawn(move || {
        let mut told: Option<Instant> = None;
        loop {
            let (channel, peer) = match listener.accept() {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a client was not taken");
                    std::thread::sleep(TICK);
                    continue;
                }
            };
            let known = matches!(daemon.is_tagged(&channel, peer), Ok(false));
            let (count, limit) = if known { (&clients, limit) } else { (&strangers, MAX_STRANGERS) };
            if Arc::strong_count(count) > limit {
                if told.is_none_or(|told| told.elapsed() > TOLD_EVERY) {
                    told = Some(Instant::now());
                    tracing::warn!(limit, known, pid = peer.pid, "too many clients: one was turned away");
                }
                continue;
            }
            let (serve, counted) = (Arc::clone(&serve), Arc::clone(count));
            let begun = std::thread::Builder::new().spawn(move || {
                serve(&channel, peer);
                drop(counted);
            });
            if let Err(error) = begun {
                tracing::warn!(%error, "no thread for a client");
            }
        }
    });
}
