//! What the loader and the proxy tell each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::identity::replay::Spent;
use super::identity::{Assurance, Claims, IdentityConfig};
use crate::secret::SecretText;

/// From the loader to the proxy. Descriptors travel with `Setup` (the signer's socket, a file
/// with the tokens that were presented, and one with the last good policy, if there is one) and `Listeners` (tcp4, tcp6, udp4, udp6).
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum ToProxy {
    Setup(Box<Setup>),
    Listeners {
        netns: u64,
    },
    /// Nobody is in this network namespace any more: its listeners are closed.
    ListenersGone {
        netns: u64,
    },
    /// Answered with the id, as the next three are; nobody waits for the answer to 0.
    Workload {
        id: u64,
        spec: Box<WorkloadSpec>,
    },
    Reload {
        id: u64,
    },
    Status {
        id: u64,
    },
    /// How often rules had a say; answered with the `Hits` of the policy.
    Hits {
        id: u64,
    },
    /// Where a workload was not let go, so far; answered with [`RefusedTo`].
    RefusedTo {
        id: u64,
        tag: u64,
    },
    /// Of an administrator, about what is held; answered with the id.
    Approvals {
        id: u64,
        request: Box<ApprovalsRequest>,
        by_uid: u32,
    },
    WorkloadEnded {
        tag: u64,
        exit_code: Option<i32>,
    },
    /// Somebody has connected to `job.sock`; the connection comes with it, unread.
    Job {
        /// The workload that the kernel says it is; without one it is no job.
        tag: Option<u64>,
        /// Why it is not known who it is.
        problem: Option<String>,
    },
    /// What an earlier proxy sent by `Bound`.
    Identity {
        tag: u64,
        kept: String,
    },
    Refused(Box<Refused>),
    /// Somebody changed what is attached to the kernel.
    Tampered {
        what: String,
        reaction: String,
    },
    /// Without tags it is all workloads.
    Released {
        scope: String,
        tags: Vec<u64>,
        by_uid: u32,
        until_unix_ms: Option<u64>,
    },
}

/// From the proxy to the loader.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum FromProxy {
    /// With the hash of the policy, if the folder's could be loaded.
    Ready {
        policy: Option<InForce>,
    },
    Answer {
        id: u64,
        answer: Result<serde_json::Value, String>,
    },
    /// The policy's files were read again: the hash of what is in force since, or why
    /// it is not.
    Reloaded {
        policy: Result<InForce, String>,
    },
    /// Who a workload is, for the next proxy: the loader keeps it and does not look at it.
    Bound {
        tag: u64,
        kept: Option<String>,
        /// Tokens that it presented. They stay its own, whatever becomes of it.
        spent: Vec<Spent>,
    },
}

/// A policy that is in force.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InForce {
    /// Its hash.
    pub policy: String,
    /// Layers of organizations and repositories that do not load: they are what they were before.
    pub broken: Vec<String>,
    /// What is wrong, for the log.
    pub problem: Option<String>,
}

/// Folders of policies below the host's, and how far it has to be known whose job it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LayersSetup {
    pub dir: PathBuf,
    pub assurance: Assurance,
}

/// What people ask of what is held, and say to it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum ApprovalsRequest {
    Ls {
        /// What was decided, too.
        all: bool,
        /// Those that come after this one.
        after: Option<String>,
    },
    Show {
        approval: String,
    },
    Decide {
        approval: String,
        /// What the decider had before their eyes.
        seen: String,
        said: Said,
        reason: Option<String>,
        /// Who decides.
        token: JobToken,
    },
    BreakGlass {
        approval: String,
        seen: String,
        reason: String,
    },
}

/// An answer of a decider: no, or how far it may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Said {
    No,
    Once,
    Session,
    Job { minutes: u32 },
}

/// What a job says on `job.sock`, which is all that it can say there.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum JobRequest {
    Start {
        token: Option<JobToken>,
        /// The token is the job's own, for its CI system alone: this issuer's API says whose it is.
        #[serde(default)]
        api: Option<String>,
        /// What the job says of itself.
        claims: Option<Box<Claims>>,
        /// It may be another job than the one before, whose identity it must not have.
        #[serde(default)]
        anew: bool,
    },
    // With braces, so that these say nothing else either.
    End {},
    Ls {},
}

/// A token on its way to whom verifies it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobToken(#[serde(with = "crate::secret::exposed")] pub SecretText);

#[derive(Debug, Serialize, Deserialize)]
pub struct JobReply {
    pub ok: bool,
    pub message: String,
    /// Asking again in a moment may help.
    #[serde(default)]
    pub again: bool,
    /// Whoever asks is in no job.
    #[serde(default)]
    pub stranger: bool,
    /// The workload, and who it is.
    #[serde(default)]
    pub job: serde_json::Value,
}

/// Where a workload wanted to go and was not let.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedTo {
    /// The first of them, masked.
    pub destinations: Vec<String>,
    /// Refusals to others.
    pub more: u64,
}

/// All that a proxy is started with.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    pub host_id: String,
    pub boot_id: String,
    pub policy_dir: PathBuf,
    pub layers: Option<LayersSetup>,
    pub recording_dir: PathBuf,
    pub body_limit: usize,
    pub ca_pem: String,
    pub upstream_ca: Option<PathBuf>,
    pub static_names: BTreeMap<String, Vec<IpAddr>>,
    /// Values that the operator registered.
    pub secrets: Vec<SecretValue>,
    /// Detectors of the operator's own: names and texts of their files.
    pub detectors: Vec<(String, String)>,
    /// With which surrogates are made, in hexadecimal digits.
    #[serde(with = "crate::secret::exposed")]
    pub surrogate_key: SecretText,
    pub workers: usize,
    /// Whose tokens count.
    pub identity: IdentityConfig,
    /// Who decides about what is held (`approval::config::ApprovalsConfig`); null: nobody.
    pub approvals: serde_json::Value,
    /// Of its webhooks, in their order, what stands in files, or why that is not known.
    pub webhooks: Vec<Result<WebhookSecrets, String>>,
    /// Of its forges, in their order, the tokens that they are asked with, or why those are not known.
    pub forges: Vec<Result<ForgeToken, String>>,
    /// What this host is called, and the web page if there is one, for whoever is told by them.
    pub host: String,
    pub site: Option<String>,
    /// Where the web page listens.
    pub page: Option<SocketAddr>,
    /// The port on loopback to which connections are redirected.
    pub tcp_port: u16,
    /// The proxy's limits (`proxy::Limits`).
    pub limits: serde_json::Value,
}

/// A value that must not be recorded, and that policy may mask.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SecretValue {
    pub entity: String,
    #[serde(with = "crate::secret::exposed")]
    pub value: SecretText,
}

/// Where a webhook leads, and what it is signed with.
#[derive(Debug, Serialize, Deserialize)]
pub struct WebhookSecrets {
    #[serde(with = "crate::secret::exposed")]
    pub url: SecretText,
    /// Empty: it is not signed.
    #[serde(with = "crate::secret::exposed")]
    pub secret: SecretText,
}

/// With what a forge is asked.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForgeToken {
    /// Empty: what everybody may ask.
    #[serde(with = "crate::secret::exposed")]
    pub token: SecretText,
}

/// A workload, before its first process runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WorkloadSpec {
    pub tag: u64,
    pub cgroup: u64,
    pub cgroup_path: String,
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub uid: u32,
    pub command: Vec<String>,
    pub secrets: Vec<SecretValue>,
    pub started_unix_ms: u64,
}

/// Something that the kernel half refused.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    pub at_unix_ms: u64,
    pub tag: u64,
    pub pid: u32,
    pub comm: String,
    pub hook: String,
    pub reason: String,
    pub family: u16,
    pub protocol: u16,
    pub destination: Option<SocketAddr>,
    pub detail: u32,
    pub suppressed: u32,
}
