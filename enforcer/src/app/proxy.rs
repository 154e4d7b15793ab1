//! The proxy's process: what it gets from the loader, and what it makes of it.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::runtime::Handle;

use crate::approval::Desk;
use crate::approval::config::ApprovalsConfig;
use crate::approval::forge::config::ForgeConfig;
use crate::approval::forge::{Forge, Forges};
use crate::approval::webhook::{Secrets, Sender, Webhooks};
use crate::gate::{Gate, Operator, Subjects};
use crate::mask::{Custom, ExactValue, SurrogateKey};
use crate::net::ipc::Channel;
use crate::net::sys;
use crate::outgoing::Client;
use crate::policy::{Kept, LayersFrom, PolicyFrom, PolicyStore};
use crate::proxy::approvals::Approvals;
use crate::proxy::dns::{DnsServer, Names, OverTcp};
use crate::proxy::jobs::Jobs;
use crate::proxy::process::{Listeners, Process, Refusal};
use crate::proxy::resolve::Special;
use crate::proxy::{KernelFlows, Limits, Shared, SignedLeaves, admission, pool};
use crate::secret::SecretBytes;
use crate::session::{Recording, RecordingOptions};
use crate::tls::leaf::LeafCache;
use crate::tls::server::Downstream;
use crate::tls::upstream::Upstream;
use crate::workload::Workload;
use crate::workload::identity::Verifier;
use crate::workload::identity::replay::Spent;
use crate::workload::wire::{
    ApprovalsRequest, ForgeToken, FromProxy, InForce, Refused, SecretValue, Setup, ToProxy, WebhookSecrets,
    WorkloadSpec,
};

/// Letters of an error that is too long to be told in full: each is at most 12 bytes in JSON.
const MAX_TOLD: usize = 8 * 1024;
/// How long connections may go on after the loader is gone.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves until the loader is gone.
pub fn run(control: RawFd) -> Result<()> {
    crate::secret::process::close_to_others().context("closing the process to others")?;
    let control = Channel::from(sys::inherited(control)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _inside = runtime.enter();
    let Some((ToProxy::Setup(mut setup), fds)) = control.recv()? else { bail!("the loader sent no setup") };
    let mut fds = fds.into_iter();
    let signer = UnixStream::from(fds.next().context("the loader passed no signer")?);
    let spent = File::from(fds.next().context("the loader passed no list of tokens")?);
    let spent: Vec<Spent> = serde_json::from_reader(BufReader::new(spent)).context("the list of tokens")?;
    let kept = fds.next().map(|kept| serde_json::from_reader(BufReader::new(File::from(kept))));
    let kept = kept.transpose().context("the last good policy")?;
    let asked = asked(&mut setup).context("[approvals]")?;
    let approvals = asked.as_ref().map(|(desk, _)| desk.clone());
    let jobs = jobs(&setup, &spent, approvals.clone(), &control)?;
    let (process, dns) = runtime.block_on(start(*setup, approvals, kept, signer, &control))?;
    let asked = asked.map(|(desk, verifier)| {
        let everything = process.everything().clone();
        Arc::new(Approvals { desk, verifier, everything })
    });
    let policies = &process.shared().gate.policies;
    let policy = policies.is_whole().then(|| in_force(policies));
    control.send(&FromProxy::Ready { policy }, &[])?;
    while let Some((message, fds)) = control.recv::<ToProxy>()? {
        let message = match (message, &asked) {
            (ToProxy::Approvals { id, request, by_uid }, asked) => {
                answer(asked.clone(), id, *request, by_uid, control.try_clone()?);
                continue;
            }
            (message, _) => message,
        };
        for reply in obey(&process, &dns, &jobs, message, fds)? {
            say(&control, &reply)?;
        }
    }
    runtime.block_on(Box::pin(process.drain(DRAIN)));
    Ok(())
}

/// Answers the loader. Whether it is still there is known by what it says next: who asked
/// it something as it ended is no reason to end without a drain.
fn say(control: &Channel, reply: &FromProxy) -> Result<()> {
    let sent = control.send(reply, &[]).or_else(|error| match shorter(reply) {
        Some(shorter) if error.kind() == ErrorKind::InvalidInput => control.send(&shorter, &[]),
        _ => Err(error),
    });
    match sent {
        Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
            tracing::debug!(%error, "the loader is gone");
            Ok(())
        }
        sent => Ok(sent?),
    }
}

/// What is said where there is more than fits into a message: an error's beginning, which may quote
/// a file at length.
fn shorter(reply: &FromProxy) -> Option<FromProxy> {
    let cut = |text: &String| text.chars().take(MAX_TOLD).chain("...".chars()).collect::<String>();
    match reply {
        FromProxy::Answer { id, answer } => {
            let long = "the answer is too long for one message".to_owned();
            let error = answer.as_ref().err().map_or(long, cut);
            Some(FromProxy::Answer { id: *id, answer: Err(error) })
        }
        FromProxy::Reloaded { policy: Err(text) } => Some(FromProxy::Reloaded { policy: Err(cut(text)) }),
        _ => None,
    }
}

/// Who verifies what jobs say of themselves.
fn jobs(setup: &Setup, spent: &[Spent], approvals: Option<Desk>, control: &Channel) -> Result<Arc<Jobs>> {
    let client = Client::new(setup.upstream_ca.as_deref(), setup.static_names.clone())?
        .with_plain_on_loopback(setup.identity.http_on_loopback);
    let verifier = Verifier::new(&setup.identity, Box::new(client)).map_err(anyhow::Error::msg)?;
    verifier.know(spent, SystemTime::now());
    let told = control.try_clone()?;
    let tell = move |message| {
        if let Err(error) = told.send(&message, &[]) {
            tracing::debug!(%error, "the loader is gone");
        }
    };
    Ok(Jobs::new(verifier, approvals, Box::new(tell)))
}

async fn start(
    setup: Setup,
    approvals: Option<Desk>,
    kept: Option<Kept>,
    signer: UnixStream,
    control: &Channel,
) -> Result<(Process, Arc<DnsServer>)> {
    let recording = recording(&setup)?;
    // Policies name them.
    let detectors = Custom::load(&setup.detectors).context("detectors of the operator's own")?;
    if !detectors.install() {
        bail!("detectors were installed twice");
    }
    // Takes longest; connections wait until the service is ready.
    let values: Vec<_> = setup.secrets.iter().map(exact).collect::<Result<_, _>>()?;
    let operator = tokio::task::spawn_blocking(move || Operator::new(values));
    let (policies, opened) = PolicyStore::open_all(policies(&setup), kept.as_ref());
    if let Err(error) = opened {
        let instead = policies.problem().unwrap_or_default();
        tracing::error!("{instead}\n{:?}", miette::Report::new(error));
    } else if let Some(problem) = policies.problem() {
        tracing::error!("the policy: {problem}");
    }
    let policies = Arc::new(policies);
    let told = control.try_clone()?;
    let watching = policies.watch(move |store, result| {
        let policy = result.map(|_| in_force(store)).map_err(|error| error.to_string());
        say(&told, &FromProxy::Reloaded { policy }).ok();
    });
    if let Err(error) = watching {
        tracing::warn!(%error, "changes of the policy are not noticed: use `enforcer reload`");
    }
    let cache = LeafCache::new(CertificateDer::from_pem_slice(setup.ca_pem.as_bytes())?)?;
    cache.replace_signer(signer).await?;
    // Whoever is told that the service is ready gets leaves.
    cache.signer_begun().await?;
    let leaves = SignedLeaves { cache, downstream: Downstream::new()? };
    let upstream = Upstream::new(setup.upstream_ca.as_deref())?;
    let limits: Limits = serde_json::from_value(setup.limits).context("the limits")?;
    let limits = Arc::new(limits);
    let gate = Gate {
        policies,
        recording,
        subjects: Subjects::default(),
        found: Arc::default(),
        approvals,
        settings: limits.settings(),
    };
    let own = own(setup.page, setup.tcp_port);
    let mut dns = None;
    let shared = Arc::new_cyclic(|weak| {
        let server = DnsServer::new(weak.clone());
        dns = Some(Arc::clone(&server));
        Shared {
            gate,
            pool: pool::Pool::new(Arc::clone(&limits)),
            limits,
            admission: admission::Admission::default(),
            resolver: Box::new(Names { fixed: setup.static_names, ..Names::default() }),
            flows: Box::new(KernelFlows),
            leaves: Box::new(leaves),
            upstream: Box::new(upstream),
            dns: Some(Box::new(OverTcp(server))),
            own,
        }
    });
    let surrogates = SurrogateKey::from_hex(&setup.surrogate_key)?;
    let process = Process::start(shared, setup.workers, operator.await??, Some(surrogates))?;
    Ok((process, dns.context("no resolver")?))
}

/// Where the policy is.
fn policies(setup: &Setup) -> PolicyFrom {
    let issuers = setup.identity.issuer.iter().map(|issuer| (issuer.name.clone(), issuer.issuer.clone()));
    let nameless = setup.identity.issuer.iter().filter(|issuer| !issuer.names_repositories());
    let nameless = nameless.map(|issuer| issuer.name.clone());
    let layers = setup.layers.as_ref().map(|layers| LayersFrom {
        dir: layers.dir.clone(),
        assurance: layers.assurance,
        issuers: issuers.collect(),
        nameless: nameless.collect(),
    });
    PolicyFrom { dir: setup.policy_dir.clone(), layers }
}

fn in_force(policies: &PolicyStore) -> InForce {
    InForce {
        policy: policies.current().hash().as_str().to_owned(),
        broken: policies.broken(),
        problem: policies.problem(),
    }
}

fn recording(setup: &Setup) -> Result<Recording> {
    let options = RecordingOptions {
        host_id: setup.host_id.clone(),
        boot_id: setup.boot_id.clone(),
        body_limit: setup.body_limit,
        ..RecordingOptions::default()
    };
    Ok(Recording::open(&setup.recording_dir, options)?)
}

/// Where people are asked, and what verifies who they are. A journal that does not open lets nothing go, and
/// all else goes on.
fn asked(setup: &mut Setup) -> Result<Option<(Desk, Verifier)>> {
    let config = serde_json::from_value::<Option<ApprovalsConfig>>(setup.approvals.clone())?;
    let (Some(config), boot) = (config, setup.boot_id.clone()) else { return Ok(None) };
    let people = config.people().map_err(anyhow::Error::msg)?;
    let forges = forges(&config, setup)?;
    let webhooks = std::mem::take(&mut setup.webhooks);
    let client = || Client::new(setup.upstream_ca.as_deref(), setup.static_names.clone());
    let secrets = webhooks.into_iter().map(|secrets| secrets.map(webhook));
    let sender = Sender { host: setup.host.clone(), page: setup.site.clone() };
    let hooks = config.webhook.iter().cloned().zip(secrets);
    let webhooks = Webhooks::new(hooks, sender, client()?, Handle::current());
    let desk = Desk::telling(&config.dir, people, &boot, webhooks).unwrap_or_else(|error| {
        tracing::error!("nothing that a rule holds goes out: {error}");
        Desk::closed(&error.to_string(), &boot)
    });
    let client = || Ok::<_, anyhow::Error>(client()?.with_plain_on_loopback(config.http_on_loopback));
    let desk = if forges.is_empty() { desk } else { desk.asking(Forges::new(forges, client()?)) };
    let verifier = Verifier::new(&config.issuers(), Box::new(client()?)).map_err(anyhow::Error::msg)?;
    Ok(Some((desk, verifier)))
}

/// Who is asked for the authors of commits. One that cannot be asked keeps its jobs from what needs
/// people.
fn forges(config: &ApprovalsConfig, setup: &mut Setup) -> Result<Vec<Forge>> {
    let tokens = std::mem::take(&mut setup.forges).into_iter();
    let forge = |(forge, token): (&ForgeConfig, Result<ForgeToken, String>)| {
        let checked = forge.check(&setup.identity, config.http_on_loopback);
        let (issuer, profile) = checked.map_err(anyhow::Error::msg)?;
        let token = token.map(|known| Some(known.token).filter(|token| !token.expose().is_empty()));
        if let Err(why) = &token {
            tracing::error!("the forge of `{}` cannot be asked: {why}", forge.issuer);
        }
        Ok(Forge { issuer, profile, api: forge.api.clone(), token })
    };
    config.forge.iter().zip(tokens).map(forge).collect()
}

fn webhook(secrets: WebhookSecrets) -> Secrets {
    let WebhookSecrets { url, secret } = secrets;
    Secrets { url, secret: (!secret.expose().is_empty()).then_some(secret) }
}

/// Answers an administrator when it can: an issuer may have to be asked.
fn answer(asked: Option<Arc<Approvals>>, id: u64, request: ApprovalsRequest, by_uid: u32, to: Channel) {
    tokio::spawn(async move {
        let answer = match asked {
            Some(asked) => Box::pin(asked.answer(request, by_uid)).await,
            None => Err(
                "nobody decides here: write [approvals] into the configuration, and start the service again"
                    .to_owned(),
            ),
        };
        if let Err(error) = to.send(&FromProxy::Answer { id, answer }, &[]) {
            tracing::error!(%error, "an administrator is not answered");
        }
    });
}

fn obey(
    process: &Process,
    dns: &Arc<DnsServer>,
    jobs: &Arc<Jobs>,
    message: ToProxy,
    fds: Vec<OwnedFd>,
) -> Result<Vec<FromProxy>> {
    match message {
        ToProxy::Setup(_) | ToProxy::Approvals { .. } => bail!("the loader sent what does not belong here"),
        ToProxy::Listeners { netns } => listen(process, dns, netns, fds)?,
        ToProxy::ListenersGone { netns } => process.close(netns),
        ToProxy::Workload { id, spec } => {
            let answer = add(process, *spec).map(|()| serde_json::Value::Null);
            return Ok(vec![FromProxy::Answer { id, answer }]);
        }
        ToProxy::WorkloadEnded { tag, exit_code } => process.remove(tag, exit_code),
        ToProxy::Job { tag, problem } => {
            let channel = fds.into_iter().next().context("the loader passed no connection of a job")?;
            let session = tag.and_then(|tag| process.session(tag));
            jobs.serve(Channel::from(channel), tag, session, problem);
        }
        ToProxy::Identity { tag, kept } => {
            if let Some(session) = process.session(tag) {
                jobs.restore(tag, &session, &kept);
            }
        }
        ToProxy::Refused(refused) => process.refused(&refusal(*refused)),
        ToProxy::Released { scope, tags, by_uid, until_unix_ms } => {
            process.released(&scope, &tags, by_uid, until_unix_ms)
        }
        ToProxy::Tampered { what, reaction } => process.tampered(&what, &reaction),
        ToProxy::Reload { id } => {
            return Ok(match process.shared().gate.policies.reload() {
                Ok(_) => {
                    let loaded = in_force(&process.shared().gate.policies);
                    let answer = serde_json::json!({ "policy": loaded.policy, "problem": loaded.problem });
                    let answer = Ok(answer);
                    vec![FromProxy::Reloaded { policy: Ok(loaded) }, FromProxy::Answer { id, answer }]
                }
                Err(error) => {
                    let answer = Err(format!("{:?}", miette::Report::new(error)));
                    vec![FromProxy::Answer { id, answer }]
                }
            });
        }
        ToProxy::Status { id } => {
            return Ok(vec![FromProxy::Answer { id, answer: Ok(process.status()) }]);
        }
        ToProxy::Hits { id } => {
            let hits = process.shared().gate.policies.hits();
            let answer = serde_json::to_value(hits).map_err(|error| error.to_string());
            return Ok(vec![FromProxy::Answer { id, answer }]);
        }
        ToProxy::RefusedTo { id, tag } => {
            let answer = serde_json::to_value(process.refused_to(tag)).map_err(|error| error.to_string());
            return Ok(vec![FromProxy::Answer { id, answer }]);
        }
    }
    Ok(Vec::new())
}

fn refusal(refused: Refused) -> Refusal {
    Refusal {
        tag: refused.tag,
        pid: refused.pid,
        comm: refused.comm,
        hook: refused.hook,
        reason: refused.reason,
        family: refused.family,
        protocol: refused.protocol,
        destination: refused.destination,
        detail: refused.detail,
        suppressed: refused.suppressed,
    }
}

/// Without the host's own listeners there is nothing to live for; another namespace
/// without its own is refused, and nobody else is to notice.
fn listen(process: &Process, dns: &Arc<DnsServer>, netns: u64, fds: Vec<OwnedFd>) -> Result<()> {
    let [tcp4, tcp6, udp4, udp6]: [OwnedFd; 4] =
        fds.try_into().ok().context("the loader passed not four listeners")?;
    let home = netns == crate::kernel::own_netns_cookie()?;
    let listeners = Listeners {
        netns,
        tcp: [TcpListener::from(tcp4), TcpListener::from(tcp6)],
        udp: [UdpSocket::from(udp4), UdpSocket::from(udp6)],
    };
    match process.listen(listeners, dns, home) {
        Err(error) if !home => tracing::error!(%error, netns, "a network namespace is not served"),
        done => done?,
    }
    Ok(())
}

fn add(process: &Process, spec: WorkloadSpec) -> Result<(), String> {
    let secrets = spec.secrets.iter().map(exact).collect::<Result<Vec<_>, _>>();
    let secrets = secrets.map_err(|error| error.to_string())?;
    let workload = Workload {
        tag: spec.tag,
        cgroup: spec.cgroup,
        cgroup_path: spec.cgroup_path,
        name: spec.name,
        labels: spec.labels,
        uid: spec.uid,
        command: spec.command,
        secrets,
    };
    process.add(workload).map_err(|error| error.to_string())
}

/// Where this host's enforcer itself listens, and whose that is.
fn own(page: Option<SocketAddr>, tcp_port: u16) -> Vec<(SocketAddr, Special)> {
    let proxy = SocketAddr::from((Ipv4Addr::LOCALHOST, tcp_port));
    page.map(|page| (page, Special::Page)).into_iter().chain([(proxy, Special::Proxy)]).collect()
}

fn exact(value: &SecretValue) -> Result<ExactValue, crate::mask::MaskError> {
    ExactValue::new(&value.entity, &SecretBytes::new(value.value.expose().clone().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_is_told_in_part() {
        let (ours, theirs) = Channel::pair().unwrap();
        let long = "\u{7}".repeat(crate::net::ipc::MAX_MESSAGE);
        let heard = |reply: FromProxy| {
            say(&ours, &reply).unwrap();
            theirs.recv::<FromProxy>().unwrap().unwrap().0
        };
        for answer in [Err(long.clone()), Ok(serde_json::json!(long))] {
            let FromProxy::Answer { id: 7, answer: Err(text) } = heard(FromProxy::Answer { id: 7, answer })
            else {
                panic!("no answer")
            };
            assert!(text.ends_with("...") || text.contains("too long"), "{text}");
        }
        let heard = heard(FromProxy::Reloaded { policy: Err(long.clone()) });
        assert!(matches!(heard, FromProxy::Reloaded { policy: Err(text) } if text.ends_with("...")));
        drop(theirs);
        say(&ours, &FromProxy::Reloaded { policy: Err(long) }).unwrap();
    }
}
