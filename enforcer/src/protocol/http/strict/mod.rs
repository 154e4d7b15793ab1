//! A strict reader of HTTP/1.x requests (RFC 9112), in front of a lax one.
//!
//! ```text
//!            head complete                 body complete
//!   Head ------------------> Length / Chunk... ---------> Head
//!    |  \ upgrade                       |
//!    |   `--> Upgrade --101--> Raw      | malformed
//!    | malformed   `--other--> Head     v
//!    v                                Broken: an I/O error
//!   Refused: one synthetic request, then the end
//! ```
//!
//! Only what was validated goes on, and in canonical framing: one `Host`, one of
//! `Content-Length` and `Transfer-Encoding`, no folded line, no chunk extension.
//! In place of a bad request the next parser gets a request that no client can
//! forge, so that the answers to the requests before it go out first.

mod head;
mod io;

#[cfg(test)]
mod tests;

use bytes::{Buf, BytesMut};

pub use io::{Monitor, StrictIo, broken};

/// The method of the request that stands for a refused one.
pub const REFUSED_METHOD: &str = "ENFORCER-REFUSED";
/// The longest line with a chunk's size, in bytes, its extension included.
pub const MAX_CHUNK_LINE: usize = 1024;
/// The most digits of a chunk's size: 4 GiB less one byte.
pub const MAX_CHUNK_DIGITS: usize = 8;

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head, and of the trailers of a body.
    pub head_bytes: usize,
    /// Header fields of a head, and of the trailers of a body.
    pub headers: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head_bytes: 64 * 1024, headers: 100 }
    }
}

/// Why a request is refused; the words stand in the recording.
pub type Reason = &'static str;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    /// So many bytes of a body to go.
    Length(u64),
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    /// An upgrade was asked for: what follows is held until it is answered.
    Upgrade,
    Raw,
    Refused,
    Broken,
}

/// What a request's head says of what follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follows {
    Nothing,
    Length(u64),
    Chunks,
    Upgrade,
}

/// The validator: bytes of a client in, validated bytes out.
#[derive(Debug)]
pub struct Validator {
    limits: Limits,
    nonce: String,
    state: State,
    /// Not yet validated.
    held: BytesMut,
    /// Validated, not yet taken.
    ready: BytesMut,
    reason: Option<Reason>,
    /// How far `held` was searched for the end of a head.
    searched: usize,
    /// An empty line was skipped before the head that is being read.
    blank: bool,
}

impl Validator {
    /// `nonce` is a word that the client cannot know.
    pub fn new(limits: Limits, nonce: String) -> Self {
        Self {
            limits,
            nonce,
            state: State::Head,
            held: BytesMut::new(),
            ready: BytesMut::new(),
            reason: None,
            searched: 0,
            blank: false,
        }
    }

    /// Takes bytes from the client.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.state == State::Raw && self.held.is_empty() {
            self.ready.extend_from_slice(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        while self.step() {}
    }

    /// The client sends nothing more: what was begun of a head is no request.
    pub fn end(&mut self) {
        if self.state == State::Head && !self.held.is_empty() {
            self.refuse("http-incomplete-head");
        }
    }

    /// What has been validated.
    pub fn ready(&mut self) -> &mut BytesMut {
        &mut self.ready
    }

    /// Why the request was refused, or its body broken off.
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// How many of the next bytes need no validation and may go past this reader;
    /// 0: all have to be [pushed](Self::push).
    pub fn direct(&self) -> u64 {
        if !self.held.is_empty() || !self.ready.is_empty() {
            return 0;
        }
        match self.state {
            State::Length(left) | State::ChunkData(left) => left,
            State::Raw => u64::MAX,
            _ => 0,
        }
    }

    /// So many bytes went past.
    pub fn passed(&mut self, bytes: u64) {
        self.state = match self.state {
            State::Length(left) if left == bytes => State::Head,
            State::Length(left) => State::Length(left.saturating_sub(bytes)),
            State::ChunkData(left) if left == bytes => State::ChunkEnd,
            State::ChunkData(left) => State::ChunkData(left.saturating_sub(bytes)),
            other => other,
        };
    }

    /// Nothing more will come out.
    pub fn is_refused(&self) -> bool {
        self.state == State::Refused
    }

    /// The body is malformed: what was passed on of it must not be completed.
    pub fn is_broken(&self) -> bool {
        self.state == State::Broken
    }

    /// Whether nothing may be read until an upgrade has been answered.
    pub fn awaits_upgrade(&self) -> bool {
        self.state == State::Upgrade
    }

    /// The upgrade was answered: with 101 the rest is not HTTP any more.
    pub fn upgraded(&mut self, switched: bool) {
        if self.state != State::Upgrade {
            return;
        }
        if switched {
            self.state = State::Raw;
            let rest = self.held.split();
            self.ready.unsplit(rest);
        } else {
            self.state = State::Head;
            while self.step() {}
        }
    }

    /// One step forward; false: more bytes are needed, or none will help.
    fn step(&mut self) -> bool {
        match self.state {
            State::Head => self.head(),
            State::Length(left) => self.body(left, State::Length, State::Head),
            State::ChunkData(left) => self.body(left, State::ChunkData, State::ChunkEnd),
            State::ChunkSize => self.chunk_size(),
            State::ChunkEnd => self.chunk_end(),
            State::Trailers => self.trailers(),
            State::Upgrade | State::Raw => false,
            State::Refused | State::Broken => {
                self.held.clear();
                false
            }
        }
    }

    fn refuse(&mut self, reason: Reason) -> bool {
        self.reason = Some(reason);
        self.state = State::Refused;
        self.held.clear();
        let line = format!(
            "{REFUSED_METHOD} /{} HTTP/1.1\r\nhost: refused.invalid\r\nconnection: close\r\n\r\n",
            self.nonce
        );
        self.ready.extend_from_slice(line.as_bytes());
        false
    }

    fn break_off(&mut self, reason: Reason) -> bool {
        self.reason = Some(reason);
        self.state = State::Broken;
        self.held.clear();
        false
    }

    /// The length of the head at the start of `held`, its empty line included.
    /// A line that ends in a bare LF is found before the head is whole: a client
    /// that means it as the end would wait for ever.
    fn head_end(&mut self) -> Result<Option<usize>, Reason> {
        while let Some(at) = memchr::memchr(b'\n', &self.held[self.searched..]) {
            let end = self.searched + at;
            if end == 0 || self.held[end - 1] != b'\r' {
                return Err("http-bare-lf");
            }
            self.searched = end + 1;
            if self.held[..=end].ends_with(b"\r\n\r\n") || end == 1 {
                if end + 1 > self.limits.head_bytes {
                    return Err("http-head-too-large");
                }
                self.searched = 0;
                return Ok(Some(end + 1));
            }
        }
        self.searched = self.held.len();
        if self.held.len() >= self.limits.head_bytes { Err("http-head-too-large") } else { Ok(None) }
    }

    fn head(&mut self) -> bool {
        let end = match self.head_end() {
            Ok(Some(end)) => end,
            Ok(None) => return false,
            Err(reason) => return self.refuse(reason),
        };
        // One empty line before a request line is ignored (RFC 9112, 2.2).
        if end == 2 {
            self.held.advance(2);
            if std::mem::replace(&mut self.blank, true) {
                return self.refuse("http-empty-lines");
            }
            return true;
        }
        self.blank = false;
        let bytes = self.held.split_to(end);
        match head::request(&bytes, self.limits.headers, &mut self.ready) {
            Ok(Follows::Nothing | Follows::Length(0)) => self.state = State::Head,
            Ok(Follows::Length(length)) => self.state = State::Length(length),
            Ok(Follows::Chunks) => self.state = State::ChunkSize,
            Ok(Follows::Upgrade) => self.state = State::Upgrade,
            Err(reason) => return self.refuse(reason),
        }
        true
    }

    fn body(&mut self, left: u64, state: fn(u64) -> State, done: State) -> bool {
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(self.held.len());
        let bytes = self.held.split_to(take);
        self.ready.extend_from_slice(&bytes);
        let left = left - take as u64;
        self.state = if left == 0 { done } else { state(left) };
        left == 0
    }

    fn chunk_size(&mut self) -> bool {
        let Some(end) = memchr::memchr(b'\n', &self.held) else {
            return self.held.len() > MAX_CHUNK_LINE && self.break_off("http-chunk-line-too-long");
        };
        if end > MAX_CHUNK_LINE {
            return self.break_off("http-chunk-line-too-long");
        }
        let line = self.held.split_to(end + 1);
        let Some(line) = line.strip_suffix(b"\r\n") else { return self.break_off("http-bare-lf") };
        let size = match head::chunk_size(line) {
            Ok(size) => size,
            Err(reason) => return self.break_off(reason),
        };
        self.ready.extend_from_slice(format!("{size:x}\r\n").as_bytes());
        self.state = if size == 0 { State::Trailers } else { State::ChunkData(size) };
        true
    }

    fn chunk_end(&mut self) -> bool {
        let seen = self.held.len().min(2);
        if self.held[..seen] != b"\r\n"[..seen] {
            return self.break_off("http-chunk-end");
        }
        if seen < 2 {
            return false;
        }
        self.held.advance(2);
        self.ready.extend_from_slice(b"\r\n");
        self.state = State::ChunkSize;
        true
    }

    fn trailers(&mut self) -> bool {
        let end = match self.head_end() {
            Ok(Some(end)) => end,
            Ok(None) => return false,
            Err(reason) => return self.break_off(reason),
        };
        let bytes = self.held.split_to(end);
        if let Err(reason) = head::trailers(&bytes, self.limits.headers, &mut self.ready) {
            return self.break_off(reason);
        }
        self.state = State::Head;
        true
    }
}
