//! HTTP/1.1 by hand: a client that costs less than what it measures.

use anyhow::{Context, Result, bail, ensure};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Stream;

const READ: usize = 64 * 1024;

pub struct H1 {
    io: Stream,
    seen: BytesMut,
    ask: Vec<u8>,
}

enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

impl H1 {
    pub fn new(io: Stream, host: &str, path: &str) -> Self {
        let ask = format!(
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nuser-agent: enforcer-bench\r\naccept: */*\r\n\r\n"
        );
        Self { io, seen: BytesMut::with_capacity(4096), ask: ask.into_bytes() }
    }

    /// One request and its whole answer; says how long its body was.
    pub async fn get(&mut self) -> Result<u64> {
        let mut length = 0;
        self.each(|piece| length += piece.len() as u64).await?;
        Ok(length)
    }

    /// One request; the pieces of the answer's body as they come.
    pub async fn each(&mut self, mut take: impl FnMut(&[u8])) -> Result<()> {
        self.io.write_all(&self.ask).await?;
        self.io.flush().await?;
        match self.head().await? {
            Framing::Length(length) => self.exactly(length, &mut take).await,
            Framing::Chunked => loop {
                let size = self.line().await?;
                self.exactly(size, &mut take).await?;
                self.exactly(2, &mut |_| {}).await?;
                if size == 0 {
                    return Ok(());
                }
            },
            Framing::UntilClose => loop {
                take(&self.seen);
                self.seen.clear();
                if self.io.read_buf(&mut self.seen).await? == 0 {
                    return Ok(());
                }
            },
        }
    }

    async fn more(&mut self) -> Result<()> {
        // A large body is read in large pieces, a small answer needs no large buffer.
        if self.seen.capacity() - self.seen.len() < 2048 {
            self.seen.reserve(READ);
        }
        ensure!(self.io.read_buf(&mut self.seen).await? > 0, "closed in an answer");
        Ok(())
    }

    async fn head(&mut self) -> Result<Framing> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            let mut head = httparse::Response::new(&mut fields);
            let httparse::Status::Complete(end) = head.parse(&self.seen)? else {
                self.more().await?;
                continue;
            };
            ensure!(head.code == Some(200), "the answer is {:?}", head.code);
            let mut framing = Framing::UntilClose;
            for field in head.headers.iter() {
                if field.name.eq_ignore_ascii_case("content-length") {
                    framing = Framing::Length(std::str::from_utf8(field.value)?.parse()?);
                } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                    framing = Framing::Chunked;
                }
            }
            self.seen.advance(end);
            return Ok(framing);
        }
    }

    /// The size of the next chunk.
    async fn line(&mut self) -> Result<u64> {
        loop {
            if let Some(end) = self.seen.iter().position(|byte| *byte == b'\n') {
                let line = std::str::from_utf8(&self.seen[..end])?.trim();
                let digits = line.split(';').next().unwrap_or_default();
                let size = u64::from_str_radix(digits, 16).with_context(|| format!("chunk size {line:?}"))?;
                self.seen.advance(end + 1);
                return Ok(size);
            }
            if self.seen.len() > 1024 {
                bail!("a chunk without a size");
            }
            self.more().await?;
        }
    }

    async fn exactly(&mut self, mut length: u64, take: &mut impl FnMut(&[u8])) -> Result<()> {
        while length > 0 {
            if self.seen.is_empty() {
                self.more().await?;
            }
            let piece = usize::try_from(length).unwrap_or(usize::MAX).min(self.seen.len());
            take(&self.seen[..piece]);
            self.seen.advance(piece);
            length -= piece as u64;
        }
        Ok(())
    }
}
