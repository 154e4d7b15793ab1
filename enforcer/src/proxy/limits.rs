//! Every limit of the proxy, by name and with its unit.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::gate::Settings;
use crate::protocol::http::coding;

/// Limits of one proxy process. All of them have a default and can be set in
/// the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of all workloads together.
    pub max_connections: usize,
    /// Connections of one workload.
    pub max_connections_per_workload: usize,
    /// How long a client may take to say what it speaks.
    pub detect_timeout_ms: u64,
    /// Bytes that are read to find out what a client speaks.
    pub detect_bytes: usize,
    /// A TLS handshake, downstream or upstream.
    pub handshake_timeout_ms: u64,
    /// One TCP connect to one address.
    pub connect_timeout_ms: u64,
    /// Addresses of one name that are tried.
    pub connect_attempts: usize,
    /// A request's head, and the idle time before it.
    pub header_timeout_ms: u64,
    /// Bytes of a message's head.
    pub header_bytes: usize,
    /// Header fields of a message.
    pub header_count: usize,
    /// From the end of the request's head to the response's head.
    pub response_timeout_ms: u64,
    /// Without a byte in a body that is not finished.
    pub body_idle_timeout_ms: u64,
    /// Without a byte in either direction of a relayed connection.
    pub relay_idle_timeout_ms: u64,
    /// Streams of one HTTP/2 connection at the same time.
    pub h2_streams: u32,
    /// Streams that a client may reset before they are accepted.
    pub h2_pending_resets: usize,
    /// Streams that are reset because the client broke the protocol.
    pub h2_error_resets: usize,
    /// Idle upstream connections of one key.
    pub pool_idle_per_key: usize,
    /// Idle upstream connections of all keys.
    pub pool_idle: usize,
    /// How long an upstream connection may stay idle.
    pub pool_idle_timeout_ms: u64,
    /// How long the verification of an upstream counts.
    pub pool_verified_ms: u64,
    /// Bytes of one WebSocket message.
    pub websocket_message_bytes: usize,
    /// Bytes that a body may decode to, for each of its content codings.
    pub decoded_bytes: u64,
    /// Of these, bytes that are never too many for what came of it.
    pub decoded_free_bytes: u64,
    /// Beyond these, decoded bytes for each byte that came.
    pub decoded_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_connections_per_workload: 4_000,
            detect_timeout_ms: 10_000,
            detect_bytes: 64 * 1024,
            handshake_timeout_ms: 10_000,
            connect_timeout_ms: 5_000,
            connect_attempts: 4,
            header_timeout_ms: 60_000,
            header_bytes: 64 * 1024,
            header_count: 128,
            response_timeout_ms: 900_000,
            body_idle_timeout_ms: 600_000,
            relay_idle_timeout_ms: 600_000,
            h2_streams: 128,
            h2_pending_resets: 32,
            h2_error_resets: 64,
            pool_idle_per_key: 64,
            pool_idle: 2_048,
            pool_idle_timeout_ms: 60_000,
            pool_verified_ms: 300_000,
            websocket_message_bytes: 16 * 1024 * 1024,
            decoded_bytes: coding::DECODED_MAX_BYTES,
            decoded_free_bytes: coding::DECODED_FREE_BYTES,
            decoded_ratio: coding::DECODED_RATIO,
        }
    }
}

impl Limits {
    pub fn detect_timeout(&self) -> Duration {
        Duration::from_millis(self.detect_timeout_ms)
    }
    pub fn handshake_timeout(&self) -> Duration {
        Duration::from_millis(self.handshake_timeout_ms)
    }
    pub fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }
    pub fn header_timeout(&self) -> Duration {
        Duration::from_millis(self.header_timeout_ms)
    }
    pub fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }
    /// The limits that the gate keeps.
    pub fn settings(&self) -> Settings {
        Settings {
            body_idle: Duration::from_millis(self.body_idle_timeout_ms),
            decoded: coding::Limits {
                output_bytes: self.decoded_bytes,
                free_bytes: self.decoded_free_bytes,
                ratio: self.decoded_ratio,
            },
            ..Settings::default()
        }
    }
    pub fn relay_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.relay_idle_timeout_ms)
    }
    pub fn pool_idle_timeout(&self) -> Duration {
        Duration::from_millis(self.pool_idle_timeout_ms)
    }
    pub fn pool_verified(&self) -> Duration {
        Duration::from_millis(self.pool_verified_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_reaches_the_gate() {
        let limits = Limits {
            body_idle_timeout_ms: 1,
            decoded_bytes: 2,
            decoded_free_bytes: 3,
            decoded_ratio: 4,
            ..Limits::default()
        };
        let settings = limits.settings();
        assert_eq!(settings.body_idle, Duration::from_millis(1));
        let decoded = settings.decoded;
        assert_eq!((decoded.output_bytes, decoded.free_bytes, decoded.ratio), (2, 3, 4));
        let (ours, gates) = (Limits::default().settings(), Settings::default());
        assert_eq!(ours.body_idle, gates.body_idle);
    }
}
