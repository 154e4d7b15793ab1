//! The proxy's process: what it gets from the loader, and what it makes of it.

use std::fs::File;
use std::io::BufReader;
use std::net::{TcpListener, UdpSocket};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::gate::{Gate, Subjects};
use crate::mask::{Custom, ExactValue, SurrogateKey};
use crate::net::ipc::Channel;
use crate::net::sys;
use crate::policy::PolicyStore;
use crate::proxy::dns::{DnsServer, Names, OverTcp};
use crate::proxy::process::{Listeners, Process, Refusal};
use crate::proxy::{KernelFlows, Limits, Shared, SignedLeaves, admission, pool};
use crate::secret::SecretBytes;
use crate::session::{Recording, RecordingOptions};
use crate::tls::leaf::LeafCache;
use crate::tls::server::Downstream;
use crate::tls::upstream::Upstream;
use crate::workload::Workload;
use crate::workload::wire::{FromProxy, SecretValue, Setup, ToProxy, WorkloadSpec};

/// How long connections may go on after the loader is gone.
const DRAIN: Duration = Duration::from_secs(1);

/// Serves until the loader is gone.
pub fn run(control: RawFd) -> Result<()> {
    crate::secret::process::close_to_others().context("closing the process to others")?;
    let control = Channel::from(sys::inherited(control)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let _inside = runtime.enter();
    let Some((ToProxy::Setup(setup), fds)) = control.recv()? else { bail!("the loader sent no setup") };
    let mut fds = fds.into_iter();
    let signer = UnixStream::from(fds.next().context("the loader passed no signer")?);
    let kept = fds.next().map(|kept| serde_json::from_reader(BufReader::new(File::from(kept))));
    let kept = kept.transpose().context("the last good policy")?;
    let (process, dns) = runtime.block_on(start(*setup, kept, signer, &control))?;
    let policies = &process.shared().gate.policies;
    let policy = policies.problem().is_none().then(|| policies.current().hash().as_str().to_owned());
    control.send(&FromProxy::Ready { policy }, &[])?;
    while let Some((message, fds)) = control.recv::<ToProxy>()? {
        for reply in obey(&process, &dns, message, fds)? {
            control.send(&reply, &[])?;
        }
    }
    runtime.block_on(Box::pin(process.drain(DRAIN)));
    Ok(())
}

async fn start(
    setup: Setup,
    kept: Option<Vec<(String, String)>>,
    signer: UnixStream,
    control: &Channel,
) -> Result<(Process, Arc<DnsServer>)> {
    let options = RecordingOptions {
        host_id: setup.host_id,
        boot_id: setup.boot_id,
        body_limit: setup.body_limit,
        ..RecordingOptions::default()
    };
    let recording = Recording::open(&setup.recording_dir, options)?;
    // Policies name them.
    let detectors = Custom::load(&setup.detectors).context("detectors of the operator's own")?;
    if !detectors.install() {
        bail!("detectors were installed twice");
    }
    let (policies, opened) = PolicyStore::open(&setup.policy_dir, kept.as_deref());
    if let Err(error) = opened {
        let instead = policies.problem().unwrap_or_default();
        tracing::error!("{instead}\n{:?}", miette::Report::new(error));
    }
    let policies = Arc::new(policies);
    let told = control.try_clone()?;
    let watching = policies.watch(move |result| {
        let policy = result.map(|policy| policy.hash().as_str().to_owned());
        let policy = policy.map_err(|error| error.to_string());
        told.send(&FromProxy::Reloaded { policy }, &[]).ok();
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
        settings: limits.settings(),
    };
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
        }
    });
    let operator = setup.secrets.iter().map(exact).collect::<Result<Vec<_>, _>>()?;
    let surrogates = SurrogateKey::from_hex(&setup.surrogate_key)?;
    let process = Process::start(shared, setup.workers, operator, Some(surrogates))?;
    Ok((process, dns.context("no resolver")?))
}

fn obey(
    process: &Process,
    dns: &Arc<DnsServer>,
    message: ToProxy,
    fds: Vec<OwnedFd>,
) -> Result<Vec<FromProxy>> {
    match message {
        ToProxy::Setup(_) => bail!("the loader sent a second setup"),
        ToProxy::Listeners { netns } => listen(process, dns, netns, fds)?,
        ToProxy::ListenersGone { netns } => process.close(netns),
        ToProxy::Workload { id, spec } => {
            let answer = add(process, *spec).map(|()| serde_json::Value::Null);
            return Ok(vec![FromProxy::Answer { id, answer }]);
        }
        ToProxy::WorkloadEnded { tag, exit_code } => process.remove(tag, exit_code),
        ToProxy::Refused(refused) => process.refused(&Refusal {
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
        }),
        ToProxy::Released { scope, tags, by_uid, until_unix_ms } => {
            process.released(&scope, &tags, by_uid, until_unix_ms)
        }
        ToProxy::Tampered { what, reaction } => process.tampered(&what, &reaction),
        ToProxy::Reload { id } => {
            return Ok(match process.shared().gate.policies.reload() {
                Ok(policy) => {
                    let hash = policy.hash().as_str();
                    let answer = Ok(serde_json::json!({ "policy": hash }));
                    vec![
                        FromProxy::Reloaded { policy: Ok(hash.to_owned()) },
                        FromProxy::Answer { id, answer },
                    ]
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
        ToProxy::RefusedTo { id, tag } => {
            let answer = serde_json::to_value(process.refused_to(tag)).map_err(|error| error.to_string());
            return Ok(vec![FromProxy::Answer { id, answer }]);
        }
    }
    Ok(Vec::new())
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

fn exact(value: &SecretValue) -> Result<ExactValue, crate::mask::MaskError> {
    ExactValue::new(&value.entity, &SecretBytes::new(value.value.expose().clone().into_bytes()))
}
