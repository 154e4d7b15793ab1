//! Upstream connections that wait for the next request.
//!
//! **Invariant**: the key names the workload. A connection of one workload never
//! carries a request of another.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use hyper::client::conn::{http1, http2};

use crate::gate::WireBody;
use crate::policy::AddressRules;

use super::limits::Limits;

/// What a connection may be used for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Key {
    pub tag: u64,
    pub host: Arc<str>,
    pub port: u16,
    pub tls: bool,
    pub offer: Offer,
    pub addresses: AddressRules,
}

/// The application protocols that a connection was opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Offer {
    pub h2: bool,
    pub h1: bool,
}

/// What is known of a verified upstream.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: std::net::SocketAddr,
    pub alpn: Option<Vec<u8>>,
    pub version: String,
    pub cipher: String,
    pub certificate_sha256: String,
    /// When the certificate was verified, or the connection opened.
    pub since: Instant,
}

#[derive(Debug)]
pub enum Sender {
    H1(http1::SendRequest<WireBody>),
    H2(http2::SendRequest<WireBody>),
}

#[derive(Debug)]
pub struct Connected {
    pub sender: Sender,
    pub peer: Arc<Peer>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<WireBody>,
    peer: Arc<Peer>,
    since: Instant,
}

#[derive(Debug, Default)]
struct Slot {
    idle: Vec<Idle>,
    shared: Option<(http2::SendRequest<WireBody>, Arc<Peer>, Instant)>,
}

#[derive(Debug, Default)]
struct Inner {
    slots: HashMap<Key, Slot>,
    idle: usize,
}

/// Idle HTTP/1 connections and shared HTTP/2 connections.
#[derive(Debug)]
pub struct Pool {
    inner: Mutex<Inner>,
    limits: Arc<Limits>,
}

impl Pool {
    pub fn new(limits: Arc<Limits>) -> Self {
        Self { inner: Mutex::default(), limits }
    }

    /// The peer that a new client connection may be answered for, if a live
    /// connection to it was verified not too long ago.
    pub fn verified(&self, key: &Key) -> Option<Arc<Peer>> {
        let mut inner = self.lock();
        let slot = inner.slots.get_mut(key)?;
        let fresh = |peer: &Arc<Peer>| peer.since.elapsed() < self.limits.pool_verified();
        if let Some((sender, peer, _)) = &slot.shared
            && !sender.is_closed()
            && fresh(peer)
        {
            return Some(Arc::clone(peer));
        }
        let live = slot.idle.iter().rev().find(|idle| !idle.sender.is_closed() && fresh(&idle.peer));
        live.map(|idle| Arc::clone(&idle.peer))
    }

    /// A connection that can take a request now.
    pub fn take(&self, key: &Key) -> Option<Connected> {
        let mut inner = self.lock();
        let verified = self.limits.pool_verified();
        let slot = inner.slots.get_mut(key)?;
        if let Some((sender, peer, used)) = &mut slot.shared {
            if !sender.is_closed() && peer.since.elapsed() < verified {
                *used = Instant::now();
                let connected = Connected { sender: Sender::H2(sender.clone()), peer: Arc::clone(peer) };
                return Some(connected);
            }
            slot.shared = None;
        }
        let mut removed = 0;
        let mut found = None;
        let mut at = slot.idle.len();
        while at > 0 {
            at -= 1;
            let idle = &slot.idle[at];
            let stale = idle.sender.is_closed() || idle.peer.since.elapsed() >= verified;
            // One that is neither closed nor ready is still finishing its last exchange.
            if stale || idle.sender.is_ready() {
                let idle = slot.idle.remove(at);
                removed += 1;
                if !stale {
                    found = Some(Connected { sender: Sender::H1(idle.sender), peer: idle.peer });
                    break;
                }
            }
        }
        inner.idle -= removed;
        found
    }

    /// Takes a connection back, or shares a new HTTP/2 one.
    pub fn put(&self, key: &Key, connected: Connected) {
        let mut inner = self.lock();
        let full = inner.idle >= self.limits.pool_idle;
        let slot = match inner.slots.entry(key.clone()) {
            Entry::Occupied(slot) => slot.into_mut(),
            Entry::Vacant(slot) => slot.insert(Slot::default()),
        };
        match connected.sender {
            Sender::H2(sender) => {
                slot.shared.get_or_insert((sender, connected.peer, Instant::now()));
            }
            Sender::H1(sender) => {
                let closed = sender.is_closed();
                if closed || full || slot.idle.len() >= self.limits.pool_idle_per_key {
                    return;
                }
                slot.idle.push(Idle { sender, peer: connected.peer, since: Instant::now() });
                inner.idle += 1;
            }
        }
    }

    /// Drops what is closed or was idle for too long. Called now and then.
    pub fn sweep(&self) {
        let timeout = self.limits.pool_idle_timeout();
        let verified = self.limits.pool_verified();
        let mut inner = self.lock();
        let mut left = 0;
        inner.slots.retain(|_, slot| {
            slot.idle.retain(|idle| !idle.sender.is_closed() && idle.since.elapsed() < timeout);
            if let Some((sender, peer, used)) = &slot.shared
                && (sender.is_closed() || used.elapsed() >= timeout || peer.since.elapsed() >= verified)
            {
                slot.shared = None;
            }
            left += slot.idle.len();
            !slot.idle.is_empty() || slot.shared.is_some()
        });
        inner.idle = left;
    }

    /// Closes everything that belongs to a workload.
    pub fn forget(&self, tag: u64) {
        let mut inner = self.lock();
        inner.slots.retain(|key, _| key.tag != tag);
        inner.idle = inner.slots.values().map(|slot| slot.idle.len()).sum();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
