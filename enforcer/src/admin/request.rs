//! What is said on the service's own sockets.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::net::ipc::Channel;
use crate::workload::identity::Claims;
use crate::workload::wire::{ApprovalsRequest, JobToken, RefusedTo};

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
    /// Who the job is, before it begins.
    #[serde(default)]
    pub identity: Option<RunIdentity>,
}

/// What `enforcer run` was told of a job by its CI system.
#[derive(Debug, Serialize, Deserialize)]
pub struct RunIdentity {
    pub token: Option<JobToken>,
    /// The issuer whose API says whose that token is, if it is not for us.
    #[serde(default)]
    pub api: Option<String>,
    /// Where there is no token.
    pub claims: Option<Box<Claims>>,
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
    Started {
        pid: u32,
    },
    Exited {
        code: i32,
        /// Where the job was not let go.
        #[serde(default)]
        refused: RefusedTo,
    },
    Failed {
        code: u8,
        message: String,
    },
}

/// On `admin.sock`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum AdminRequest {
    Status,
    /// How often the rules in force had a say; answered with [`crate::policy::Hits`].
    PolicyHits,
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
    /// Which requests wait for people, and what those say.
    Approvals {
        request: Box<ApprovalsRequest>,
    },
    /// Without a scope it is all of them; without a time it is for good, and with
    /// neither the service ends.
    Release {
        scope: Option<String>,
        for_ms: Option<u64>,
    },
}

/// Why the service says nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(
        "no service answers at {socket}, and until one does tagged cgroups have no network: start it, by \
         `systemctl start enforcer` or as root by `enforcer daemon`",
        socket = .0.display()
    )]
    NoService(PathBuf),
    #[error("{socket} is not open to you: this needs {whom}", socket = .socket.display())]
    NotAllowed { socket: PathBuf, whom: String },
    #[error("the service at {socket} did not answer: {cause}", socket = .socket.display())]
    Broken { socket: PathBuf, cause: io::Error },
}

/// Connects to a socket of the service, which is there for `whom`.
pub fn connect(socket: &Path, whom: &str) -> Result<Channel, AskError> {
    Channel::connect(socket).map_err(|cause| {
        let socket = socket.to_path_buf();
        match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NoService(socket),
            io::ErrorKind::PermissionDenied => AskError::NotAllowed { socket, whom: whom.to_owned() },
            _ => AskError::Broken { socket, cause },
        }
    })
}

/// Asks the running service something.
pub fn ask(socket: &Path, request: &AdminRequest) -> Result<AdminReply, AskError> {
    let channel = connect(socket, "root")?;
    let asked = channel.send(request, &[]).and_then(|()| channel.recv());
    let reply = asked.and_then(|reply| reply.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
    match reply {
        Ok((reply, _)) => Ok(reply),
        Err(cause) => Err(AskError::Broken { socket: socket.to_path_buf(), cause }),
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct AdminReply {
    pub ok: bool,
    pub message: String,
    pub status: serde_json::Value,
}
