//! One session, record by record.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::{Flow, each};
use crate::session::record::{Kind, SessionId};

/// One record of a session, as it is shown.
#[derive(Debug, Serialize)]
pub struct Entry {
    pub sequence: u64,
    pub at_unix_us: u64,
    /// `begin`, `event` or `end`.
    pub kind: &'static str,
    pub payload: Value,
}

/// Why a session cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum ShowError {
    #[error("the recording cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("no session begins with `{0}`; `enforcer sessions ls` lists them")]
    Unknown(String),
    #[error("`{0}` is the beginning of {1} sessions; give more of the id")]
    Ambiguous(String, usize),
}

/// The session whose id begins with `prefix`.
pub fn find(dir: &Path, prefix: &str) -> Result<SessionId, ShowError> {
    let prefix = prefix.to_ascii_lowercase();
    let mut found = BTreeSet::new();
    each(dir, |record| {
        if record.kind == Kind::Begin && record.session.to_string().starts_with(&prefix) {
            found.insert(record.session);
        }
        Flow::More
    })?;
    match found.len() {
        1 => found.pop_first().ok_or(ShowError::Unknown(prefix)),
        0 => Err(ShowError::Unknown(prefix)),
        many => Err(ShowError::Ambiguous(prefix, many)),
    }
}

/// Hands over every record of one session, in order, until its end.
pub fn entries(dir: &Path, id: SessionId, mut visit: impl FnMut(Entry) -> io::Result<()>) -> io::Result<()> {
    let mut done = Ok(());
    each(dir, |record| {
        if record.session != id || !record.kind.of_session() {
            return Flow::More;
        }
        let kind = match record.kind {
            Kind::Begin => "begin",
            Kind::End => "end",
            _ => "event",
        };
        let payload = serde_json::from_slice(record.payload).unwrap_or(Value::Null);
        done = visit(Entry { sequence: record.sequence, at_unix_us: record.at_unix_us, kind, payload });
        if done.is_err() || record.kind == Kind::End { Flow::Enough } else { Flow::More }
    })?;
    done
}

/// All records of the session whose id begins with `prefix`.
pub fn show(dir: &Path, prefix: &str) -> Result<(SessionId, Vec<Entry>), ShowError> {
    let id = find(dir, prefix)?;
    let mut found = Vec::new();
    entries(dir, id, |entry| {
        found.push(entry);
        Ok(())
    })?;
    Ok((id, found))
}
