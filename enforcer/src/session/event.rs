//! What a session records.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use serde::{Serialize, Serializer};

use crate::mask::{Masked, MaskedText, Told};
use crate::protocol::command::Risk;

/// What is known when a session begins.
#[derive(Debug, Clone, Serialize)]
pub struct SessionHeader {
    pub started_unix_ms: u64,
    pub kind: SessionKind,
    pub workload: MaskedText,
    /// What else policy asks of the workload.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub facts: Option<Arc<WorkloadRecord>>,
    /// The tag that the kernel gave; it is used once on a boot.
    pub tag: u64,
    pub cgroup: u64,
    pub uid: u32,
    pub pid: u32,
    pub comm: MaskedText,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<SocketAddr>,
    /// Where the process wanted to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<SocketAddr>,
    /// The policy in force, as a hash over its files.
    pub policy: String,
    /// Who the workload is, as far as that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<Arc<IdentityRecord>>,
}

/// What policy may ask of a workload beside its name.
#[derive(Debug, Clone, Serialize)]
pub struct WorkloadRecord {
    pub cgroup_path: MaskedText,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<(MaskedText, MaskedText)>,
}

/// Who a workload is. Its texts are those of a token or of a job's hook.
#[derive(Debug, Clone, Serialize)]
pub struct IdentityRecord {
    pub assurance: &'static str,
    pub provider: &'static str,
    pub issuer: MaskedText,
    pub subject: MaskedText,
    #[serde(flatten)]
    pub texts: BTreeMap<&'static str, MaskedText>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ref_protected: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<MaskedText>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<MaskedText>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionKind {
    /// One connection.
    Connection,
    /// Questions to the enforcer's resolver.
    Dns,
    /// One workload: what the kernel refused it, and its end.
    Workload,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    Request,
    Response,
}

/// Which side failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    Downstream,
    Upstream,
    Internal,
}

/// One event. Text of the job or the target is masked by type; `&'static str`
/// fields are words of this program.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// What was found out about the connection, and what it follows that is done.
    Plan {
        host: Option<MaskedText>,
        port: u16,
        protocol: &'static str,
        sni: Option<MaskedText>,
        alpn: Vec<MaskedText>,
        action: &'static str,
        address: Option<SocketAddr>,
    },
    Tls {
        side: Side,
        version: MaskedText,
        cipher: MaskedText,
        alpn: Option<MaskedText>,
        /// SHA-256 of the certificate that was verified, hexadecimal.
        certificate: Option<String>,
    },
    Statement {
        statement: u32,
        method: MaskedText,
        authority: MaskedText,
        path: MaskedText,
        query: Option<MaskedText>,
        version: &'static str,
    },
    Verdict {
        statement: Option<u32>,
        verdict: &'static str,
        rule: Option<MaskedText>,
        reason: &'static str,
        message: Option<MaskedText>,
        policy: String,
        /// What `mode: audit` let through: the rule that would have denied.
        audit: Option<MaskedText>,
    },
    Head {
        statement: u32,
        direction: Direction,
        status: Option<u16>,
        headers: Vec<(MaskedText, MaskedText)>,
    },
    Body {
        statement: u32,
        direction: Direction,
        offset: u64,
        #[serde(flatten, serialize_with = "text_or_base64")]
        bytes: Masked,
    },
    BodyTruncated {
        statement: u32,
        direction: Direction,
        kept: u64,
        reason: &'static str,
    },
    BodyEnd {
        statement: u32,
        direction: Direction,
        length: u64,
        /// BLAKE3 of the masked bytes, hexadecimal.
        blake3: String,
        /// False: it was aborted midway.
        complete: bool,
    },
    /// Fields that follow a body.
    Trailers {
        statement: u32,
        direction: Direction,
        headers: Vec<(MaskedText, MaskedText)>,
    },
    Findings {
        statement: Option<u32>,
        direction: Direction,
        findings: Told,
    },
    Message {
        statement: u32,
        direction: Direction,
        binary: bool,
        #[serde(flatten, serialize_with = "text_or_base64")]
        bytes: Masked,
    },
    /// What a model asks its client to run; put together of the pieces of its answer.
    ToolCall {
        statement: u32,
        /// Where in the answer.
        channel: MaskedText,
        name: MaskedText,
        arguments: MaskedText,
        /// False: longer than is kept, or cut off.
        complete: bool,
        /// What a command in it would do.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        risks: Vec<Risk>,
    },
    /// What policy says of a tool call, before the client has it.
    ToolVerdict {
        statement: u32,
        /// Whether it is about a block of code: its language and its text.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        code: bool,
        name: MaskedText,
        arguments: MaskedText,
        /// What a command in it would do.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        risks: Vec<Risk>,
        verdict: &'static str,
        rule: Option<MaskedText>,
        reason: &'static str,
        message: Option<MaskedText>,
        policy: String,
        /// What `mode: audit` let through: the rule that would have denied or held.
        audit: Option<MaskedText>,
        /// Whether a rule marks it.
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        observe: bool,
    },
    /// People are asked, or were already, and the statement waits or is to come again.
    Held {
        statement: u32,
        approval: String,
        rule: MaskedText,
        /// SHA-256 of what would go out, and of what it has in common with a retry of it.
        exact: String,
        fingerprint: String,
        /// How many people have to agree.
        people: usize,
        /// Until when the client is held; 0: it is answered at once.
        until_unix_ms: u64,
    },
    /// What became of a question, and by whom.
    Decided {
        statement: u32,
        approval: String,
        outcome: &'static str,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        by: Vec<MaskedText>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<MaskedText>,
    },
    /// What was held goes out now.
    HoldReleased {
        statement: u32,
        approval: String,
        exact: String,
    },
    Passthrough {
        sent: u64,
        received: u64,
    },
    Dns {
        name: MaskedText,
        question: MaskedText,
        answers: Vec<std::net::IpAddr>,
        verdict: &'static str,
        reason: &'static str,
    },
    Refused {
        hook: MaskedText,
        reason: MaskedText,
        destination: Option<SocketAddr>,
        family: u16,
        protocol: u16,
        pid: u32,
        comm: MaskedText,
        detail: u32,
        suppressed: u32,
    },
    Error {
        side: Side,
        reason: &'static str,
        detail: MaskedText,
    },
    Released {
        scope: MaskedText,
        by_uid: u32,
        until_unix_ms: Option<u64>,
    },
    /// Somebody changed what is attached to the kernel.
    Tampered {
        what: MaskedText,
        reaction: MaskedText,
    },
    /// Who the workload is from here on, and until when at the most.
    Identity {
        until_unix_ms: u64,
        identity: Arc<IdentityRecord>,
    },
    /// What was said of the workload is not taken.
    IdentityRefused {
        reason: &'static str,
        detail: MaskedText,
    },
    /// From here on nobody knows who it is.
    IdentityEnded {
        reason: &'static str,
    },
    Exit {
        code: Option<i32>,
    },
}

/// How a session ended.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    Completed,
    Denied { reason: &'static str },
    Failed { side: Side, reason: &'static str },
    Cancelled,
}

/// As text where it is text, else as base64; the key says which.
fn text_or_base64<S: Serializer>(bytes: &Masked, serializer: S) -> Result<S::Ok, S::Error> {
    use serde::ser::SerializeMap;
    let mut map = serializer.serialize_map(Some(1))?;
    match std::str::from_utf8(bytes.as_bytes()) {
        Ok(text) => map.serialize_entry("text", text)?,
        Err(_) => {
            let coded = base64::engine::general_purpose::STANDARD.encode(bytes.as_bytes());
            map.serialize_entry("base64", &coded)?;
        }
    }
    map.end()
}
