//! What the kernel half refused, read from its ring buffer.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aya::maps::{MapData, RingBuf};
use enforcer_common::{Hook, Reason, RefusalRecord};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};

use crate::net::sys::{comm_text, socket_addr};

/// One refusal, in user space's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub at_unix_ms: u64,
    pub tag: u64,
    pub cgroup: u64,
    pub netns: u64,
    pub pid: u32,
    pub uid: u32,
    pub comm: String,
    /// The program that refused: `connect4`, `sock_create`, ...
    pub hook: &'static str,
    /// Why, in kebab-case.
    pub reason: &'static str,
    pub family: u16,
    pub protocol: u16,
    pub destination: Option<SocketAddr>,
    /// The option (level << 16 | name), the socket's type, or the interface.
    pub detail: u32,
    /// Refusals of this workload that were counted and not reported before this one.
    pub suppressed: u32,
}

/// The reading end. Its descriptor is readable when there is something to read.
pub struct Refusals {
    ring: RingBuf<MapData>,
}

impl Refusals {
    pub(super) fn new(ring: RingBuf<MapData>) -> Self {
        Self { ring }
    }

    /// Whatever is there, without waiting.
    pub fn read(&mut self) -> Vec<Refusal> {
        let clock = Clock::now();
        let mut read = Vec::new();
        while let Some(item) = self.ring.next() {
            match decode(&item, &clock) {
                Some(refusal) => read.push(refusal),
                None => tracing::warn!(length = item.len(), "a record of another version was dropped"),
            }
        }
        read
    }

    /// Whatever is there, after waiting for it at most this long.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<Vec<Refusal>> {
        wait_readable(self.ring.as_fd(), timeout)?;
        Ok(self.read())
    }
}

/// Returns when there is something to read, when the time is over, or earlier.
pub(super) fn wait_readable(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

impl AsFd for Refusals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}

impl AsRawFd for Refusals {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.ring.as_fd().as_raw_fd()
    }
}

/// Translates the kernel's monotonic time.
struct Clock {
    unix: Duration,
    monotonic: Duration,
}

impl Clock {
    fn now() -> Self {
        Self {
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            monotonic: clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default(),
        }
    }

    fn unix_ms(&self, at: u64) -> u64 {
        let ago = self.monotonic.saturating_sub(Duration::from_nanos(at));
        u64::try_from(self.unix.saturating_sub(ago).as_millis()).unwrap_or(u64::MAX)
    }
}

fn decode(bytes: &[u8], clock: &Clock) -> Option<Refusal> {
    if bytes.len() < size_of::<RefusalRecord>() {
        return None;
    }
    // SAFETY: long enough, and any bytes are a valid record; the ring aligns to 8, which is not relied upon.
    let record = unsafe { bytes.as_ptr().cast::<RefusalRecord>().read_unaligned() };
    let [hook, reason] = record.what.to_le_bytes();
    let known = record.port != 0 || record.addr != [0; 4];
    Some(Refusal {
        at_unix_ms: clock.unix_ms(record.at),
        tag: record.tag,
        cgroup: record.cgroup,
        netns: record.netns,
        pid: record.pid,
        uid: record.uid,
        comm: comm_text(&record.comm),
        hook: Hook::from_number(hook)?.as_str(),
        reason: Reason::from_number(reason)?.as_str(),
        family: record.family,
        protocol: record.protocol,
        destination: known.then(|| socket_addr(&record.addr, record.port)),
        detail: record.detail,
        suppressed: record.suppressed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_and_a_short_one_is_not() {
        let record = RefusalRecord {
            at: 2_000_000_000,
            tag: 7,
            addr: crate::net::sys::words("10.0.0.1".parse().unwrap()),
            port: 443,
            comm: *b"curl\0\0\0\0\0\0\0\0\0\0\0\0",
            what: u16::from_le_bytes([Hook::Connect4 as u8, Reason::DenyMode as u8]),
            ..RefusalRecord::default()
        };
        // SAFETY: a structure without padding.
        let bytes: [u8; size_of::<RefusalRecord>()] = unsafe { std::mem::transmute(record) };
        let clock = Clock { unix: Duration::from_secs(100), monotonic: Duration::from_secs(5) };
        let refusal = decode(&bytes, &clock).unwrap();
        assert_eq!((refusal.hook, refusal.reason), ("connect4", "deny-mode"));
        assert_eq!(refusal.at_unix_ms, 97_000);
        assert_eq!(refusal.destination, Some("10.0.0.1:443".parse().unwrap()));
        assert_eq!(refusal.comm, "curl");
        assert_eq!(decode(&bytes[..87], &clock), None);
    }
}
