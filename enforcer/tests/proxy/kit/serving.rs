//! A proxy that serves one workload.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Weak};

use enforcer::approval::Desk;
use enforcer::drain::Drain;
use enforcer::gate::{Found, Gate, Operator, Subject, Subjects};
use enforcer::mask::{ExactValue, SURROGATE_KEY_BYTES, SurrogateKey};
use enforcer::net::OrigDst;
use enforcer::net::sys::FlowRecord;
use enforcer::policy::{Policy, PolicyStore};
use enforcer::proxy::dns::{DnsServer, OverTcp};
use enforcer::proxy::resolve::Resolve;
use enforcer::proxy::{FlowSource, Leaves, Limits, Shared, UpstreamTls, admission, pool, worker};
use enforcer::secret::SecretBytes;
use enforcer::session::{Recording, RecordingOptions};
use enforcer::workload::Workload;
use tokio::net::TcpListener;

const TAG: u64 = 7;

/// What a proxy has around it.
pub struct Around {
    pub policy: &'static str,
    /// In place of it, one that may change.
    pub policies: Option<Arc<PolicyStore>>,
    /// The workload's deploy key.
    pub secret: Option<&'static str>,
    /// False: the kernel names a workload of which nobody told the proxy.
    pub known: bool,
    pub limits: Limits,
    pub resolver: Box<dyn Resolve>,
    pub flows: Box<dyn FlowSource>,
    pub leaves: Box<dyn Leaves>,
    pub upstream: Box<dyn UpstreamTls>,
    pub approvals: Option<Desk>,
}

/// A proxy that runs.
pub struct Serving {
    pub address: SocketAddr,
    pub recordings: tempfile::TempDir,
    pub drain: Drain,
    pub found: Arc<Found>,
    /// The workload.
    pub subject: Arc<Subject>,
}

/// What the kernel notes of a connection of the workload.
pub fn flow_to(destination: SocketAddr) -> FlowRecord {
    FlowRecord {
        orig_dst: OrigDst(destination),
        tag: TAG,
        cgroup: 1,
        pid: 1,
        uid: 1000,
        comm: "test".to_owned(),
        cookie: 1,
        netns: 1,
    }
}

/// Compiled once, as a process does it: it keeps a core busy for longer than most tests.
static OPERATOR: LazyLock<Operator> = LazyLock::new(|| Operator::new(Vec::new()).unwrap());
/// The same that knows the secret which most tests send.
static KNOWING: LazyLock<Operator> = LazyLock::new(|| Operator::new(vec![exact(super::SECRET)]).unwrap());

fn exact(value: &str) -> ExactValue {
    ExactValue::new("DEPLOY_KEY", &SecretBytes::from(value)).unwrap()
}

pub async fn serve(around: Around) -> Serving {
    let recordings = tempfile::tempdir().unwrap();
    let recording = Recording::open(recordings.path(), RecordingOptions::default()).unwrap();
    let (operator, own) = match around.secret {
        Some(super::SECRET) => (&*KNOWING, None),
        own => (&*OPERATOR, own),
    };
    let workload = Workload {
        tag: TAG,
        cgroup: 1,
        cgroup_path: "/jobs/test".to_owned(),
        name: "test".to_owned(),
        labels: BTreeMap::new(),
        uid: 1000,
        command: Vec::new(),
        secrets: own.map(exact).into_iter().collect(),
    };
    let subjects = Subjects::default();
    let key = SurrogateKey::new(&SecretBytes::new(vec![5; SURROGATE_KEY_BYTES])).unwrap();
    let subject = Subject::new(Arc::new(workload), operator).unwrap();
    let subject = Arc::new(subject.with_surrogates(Some(key)));
    if around.known {
        subjects.insert(Arc::clone(&subject));
    }
    let policies = around.policies.unwrap_or_else(|| {
        Arc::new(PolicyStore::fixed(Policy::from_text("test.yaml", around.policy).unwrap()))
    });
    let limits = Arc::new(around.limits);
    let found = Arc::new(Found::default());
    let shared = Arc::new_cyclic(|weak: &Weak<Shared>| Shared {
        gate: Gate {
            policies,
            recording,
            subjects,
            found: Arc::clone(&found),
            approvals: around.approvals,
            settings: limits.settings(),
        },
        pool: pool::Pool::new(Arc::clone(&limits)),
        limits,
        admission: admission::Admission::default(),
        resolver: around.resolver,
        flows: around.flows,
        leaves: around.leaves,
        upstream: around.upstream,
        dns: Some(Box::new(OverTcp(DnsServer::new(weak.clone())))),
        own: Vec::new(),
    });
    let (drain, watch) = enforcer::drain::channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(worker::accept(shared, listener, watch));
    Serving { address, recordings, drain, found, subject }
}
