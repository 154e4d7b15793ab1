//! The bytes of one record.
//!
//! `docs/recording.md` describes the layout for those who write a verifier.

use std::fmt;
use std::str::FromStr;

/// The longest record, in bytes, its length field not counted.
pub const MAX_RECORD: usize = 1 << 20;
/// Bytes of the length field.
pub const LENGTH: usize = 4;
/// Bytes of the head, after the length field.
pub const HEAD: usize = 44;
/// Bytes of the hash at the end.
pub const HASH: usize = 32;
/// The version of this layout.
pub const VERSION: u8 = 1;

pub type Hash = [u8; HASH];

/// What stands before the first record of a session and of a host.
pub const NOTHING: Hash = [0; HASH];

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
    /// A word of the recording about itself; it belongs to no session.
    Note = 4,
}

impl Kind {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Segment, Self::Begin, Self::Event, Self::End, Self::Note]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }

    /// Whether such a record belongs to a session.
    pub fn of_session(self) -> bool {
        matches!(self, Self::Begin | Self::Event | Self::End)
    }
}

/// The name of a session: a UUID of version 7, so that names sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
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
    /// The place among the records of its session, from 0.
    pub sequence: u64,
    /// The place among all records of the host, from 0.
    pub ordinal: u64,
    /// Wall clock, for people: what came first is said by `ordinal`.
    pub at_unix_us: u64,
    pub kind: Kind,
    pub payload: &'a [u8],
    pub hash: Hash,
    /// The bytes under the hash: length field, head and payload.
    covered: &'a [u8],
}

/// Why bytes are not a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// They end before the record does, or nothing but zeros follows.
    Torn,
    /// The length, the version or the kind cannot be.
    Malformed,
}

/// The two chains: where the next record of a session, and of the host, goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Chain {
    pub previous: Hash,
    pub next: u64,
}

impl Chain {
    fn advance(&mut self, hash: Hash) {
        self.previous = hash;
        self.next += 1;
    }
}

/// Appends a record whose payload `write` produces; `seal` fills in the rest.
pub fn draft<E>(
    out: &mut Vec<u8>,
    session: SessionId,
    kind: Kind,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<usize, E> {
    let start = out.len();
    out.extend_from_slice(&[0; LENGTH + HEAD]);
    write(out)?;
    out.extend_from_slice(&NOTHING);
    let length = out.len() - start - LENGTH;
    let record = &mut out[start..];
    record[..4].copy_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
    record[4..20].copy_from_slice(session.0.as_bytes());
    record[44..48].copy_from_slice(&[VERSION, kind as u8, 0, 0]);
    Ok(length)
}

/// Gives every drafted record in `bytes` its places and its hash, and advances both chains.
pub fn seal(bytes: &mut [u8], session: &mut Chain, host: &mut Chain, at_unix_us: u64) {
    let mut rest = bytes;
    while let Some(length) = rest.first_chunk::<LENGTH>().map(|length| u32::from_le_bytes(*length)) {
        let length = LENGTH + usize::try_from(length).unwrap_or(usize::MAX);
        let Some((record, after)) = rest.split_at_mut_checked(length) else { return };
        record[20..28].copy_from_slice(&session.next.to_le_bytes());
        record[28..36].copy_from_slice(&host.next.to_le_bytes());
        record[36..44].copy_from_slice(&at_unix_us.to_le_bytes());
        let (covered, place) = record.split_at_mut(length - HASH);
        let hash = digest(&session.previous, &host.previous, covered);
        place.copy_from_slice(&hash);
        session.advance(hash);
        host.advance(hash);
        rest = after;
    }
}

/// The length that a length field says, if a record can be that long.
pub fn length_of(field: [u8; LENGTH]) -> Result<usize, Broken> {
    let length = usize::try_from(u32::from_le_bytes(field)).map_err(|_| Broken::Malformed)?;
    if (HEAD + HASH..=MAX_RECORD).contains(&length) { Ok(length) } else { Err(Broken::Malformed) }
}

/// Reads the record at the start of `bytes` and says how long it is.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), Broken> {
    let (field, rest) = bytes.split_first_chunk::<LENGTH>().ok_or(Broken::Torn)?;
    let length = length_of(*field)?;
    let body = rest.get(..length).ok_or(Broken::Torn)?;
    let (head, tail) = body.split_at(HEAD);
    let (payload, hash) = tail.split_at(tail.len() - HASH);
    let [.., version, kind, 0, 0] = head else { return Err(Broken::Malformed) };
    let kind = Kind::from_number(*kind).filter(|_| *version == VERSION).ok_or(Broken::Malformed)?;
    let session = SessionId(uuid::Uuid::from_slice(&head[..16]).map_err(|_| Broken::Malformed)?);
    let number = |at: usize| {
        head.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |eight| u64::from_le_bytes(*eight))
    };
    let record = Record {
        session,
        sequence: number(16),
        ordinal: number(24),
        at_unix_us: number(32),
        kind,
        payload,
        hash: hash.try_into().map_err(|_| Broken::Malformed)?,
        covered: &bytes[..LENGTH + HEAD + payload.len()],
    };
    Ok((record, LENGTH + length))
}

impl Record<'_> {
    /// Whether the hash follows from the two before.
    pub fn follows(&self, session: &Hash, host: &Hash) -> bool {
        digest(session, host, self.covered) == self.hash
    }
}

fn digest(session: &Hash, host: &Hash, covered: &[u8]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(session).update(host).update(covered);
    *hasher.finalize().as_bytes()
}
