//! What is said on the service's own sockets.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::net::ipc::Channel;

/// The most bytes of a job's arguments and environment together.
pub const MAX_SPEC: u64 = 8 * 1024 * 1024;

/// The first message on `run.sock`, with the descriptors of standard input,
/// output and error, the working folder, and a file that holds a `launch::JobSpec`.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunRequest {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    /// Mounts alone, no variables.
    pub no_env: bool,
    /// Sockets that the job sees.
    #[serde(default)]
    pub expose: Vec<std::path::PathBuf>,
}

/// From `enforcer run` to the loader, later.
#[derive(Debug, Serialize, Deserialize)]
pub struct Signal {
    pub number: i32,
}

/// From the loader to `enforcer run`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RunReply {
    Started { pid: u32 },
    Exited { code: i32 },
    Failed { code: u8, message: String },
}

/// On `admin.sock`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum AdminRequest {
    Status,
    Reload,
    ScopeList,
    /// Tells what the scope would match, and with `dry_run` does nothing else.
    ScopeAdd {
        scope: serde_json::Value,
        dry_run: bool,
    },
    ScopeRemove {
        name: String,
    },
    /// Without a scope it is all of them; without a time it is for good, and with
    /// neither the service ends.
    Release {
        scope: Option<String>,
        for_ms: Option<u64>,
    },
}

/// Asks the running service something.
pub fn ask(socket: &Path, request: &AdminRequest) -> io::Result<AdminReply> {
    let channel = Channel::connect(socket)?;
    channel.send(request, &[])?;
    let reply = channel.recv()?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    Ok(reply.0)
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AdminReply {
    pub ok: bool,
    pub message: String,
    pub status: serde_json::Value,
}
