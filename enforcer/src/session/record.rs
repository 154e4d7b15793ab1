//! The bytes of one record.

use std::fmt;
use std::str::FromStr;

/// The longest record, in bytes, its length field not counted.
pub const MAX_RECORD: usize = 1 << 20;
/// Bytes of the head, after the length field.
pub const HEAD: usize = 28;
/// Bytes of the hash at the end.
pub const HASH: usize = 32;
/// The version of this layout.
pub const VERSION: u8 = 1;

pub type Hash = [u8; HASH];

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The first of a segment; it belongs to no session.
    Segment = 0,
    /// The first of a session: its header.
    Begin = 1,
    Event = 2,
    /// The last of a session: its outcome.
    End = 3,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Segment, Self::Begin, Self::Event, Self::End].into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The name of a session: a UUID of version 7, so that names sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct SessionId(uuid::Uuid);

impl SessionId {
    pub(super) fn new() -> Self {
        Self(uuid::Uuid::now_v7())
    }

    /// The id of records that belong to no session.
    pub(super) const fn nobody() -> Self {
        Self(uuid::Uuid::nil())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SessionId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// One record as it was read.
#[derive(Debug)]
pub struct Record<'a> {
    pub session: SessionId,
    pub sequence: u64,
    pub kind: Kind,
    pub payload: &'a [u8],
    pub hash: Hash,
    /// The bytes under the hash: length field, head and payload.
    covered: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// They end before the record does.
    Torn,
    /// The length, the version or the kind cannot be.
    Malformed,
}

/// Appends a record to `out` and returns its hash.
pub fn encode(
    out: &mut Vec<u8>,
    session: SessionId,
    sequence: u64,
    kind: Kind,
    chain: (&Hash, &Hash),
    payload: &[u8],
) -> Hash {
    let start = out.len();
    let length = u32::try_from(HEAD + payload.len() + HASH).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(session.0.as_bytes());
    out.extend_from_slice(&sequence.to_le_bytes());
    out.extend_from_slice(&[VERSION, kind as u8, 0, 0]);
    out.extend_from_slice(payload);
    let hash = digest(chain, &out[start..]);
    out.extend_from_slice(&hash);
    hash
}

/// Reads the record at the start of `bytes` and says how long it is.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), Broken> {
    let (length, rest) = bytes.split_first_chunk::<4>().ok_or(Broken::Torn)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| Broken::Malformed)?;
    if !(HEAD + HASH..=MAX_RECORD).contains(&length) {
        return Err(Broken::Malformed);
    }
    let body = rest.get(..length).ok_or(Broken::Torn)?;
    let (head, tail) = body.split_at(HEAD);
    let (payload, hash) = tail.split_at(tail.len() - HASH);
    let [.., version, kind, 0, 0] = head else { return Err(Broken::Malformed) };
    let kind = Kind::from_number(*kind).filter(|_| *version == VERSION).ok_or(Broken::Malformed)?;
    let session = SessionId(uuid::Uuid::from_slice(&head[..16]).map_err(|_| Broken::Malformed)?);
    let sequence = head[16..24].try_into().map(u64::from_le_bytes).map_err(|_| Broken::Malformed)?;
    let hash = hash.try_into().map_err(|_| Broken::Malformed)?;
    let covered = &bytes[..4 + HEAD + payload.len()];
    Ok((Record { session, sequence, kind, payload, hash, covered }, 4 + length))
}

impl Record<'_> {
    /// Whether the hash follows from the two before.
    pub fn follows(&self, chain: (&Hash, &Hash)) -> bool {
        digest(chain, self.covered) == self.hash
    }
}

fn digest((session, host): (&Hash, &Hash), covered: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(session).update(host).update(covered);
    *hasher.finalize().as_bytes()
}
