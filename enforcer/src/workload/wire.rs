//! What the loader and the proxy tell each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::secret::SecretText;

/// From the loader to the proxy. Descriptors travel with `Setup` (the signer's socket, and
/// a file with the last good policy, if there is one) and `Listeners` (tcp4, tcp6, udp4, udp6).
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
    /// Answered with the id, as the next two are; nobody waits for the answer to 0.
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
    /// Where a workload was not let go, so far; answered with [`RefusedTo`].
    RefusedTo {
        id: u64,
        tag: u64,
    },
    WorkloadEnded {
        tag: u64,
        exit_code: Option<i32>,
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
        policy: Option<String>,
    },
    Answer {
        id: u64,
        answer: Result<serde_json::Value, String>,
    },
    /// The policy's files were read again: the hash of what is in force since, or why
    /// it is not.
    Reloaded {
        policy: Result<String, String>,
    },
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
