//! What is measured.

use std::collections::BTreeMap;

use super::Target;
use super::peers::Kind;
use crate::lg::{Measured, Mode};

/// Requests a second in the scenarios of a fixed rate.
pub const RATE: u64 = 1000;
/// Events a second of each stream, and streams.
const EVENTS: u64 = 50;
const STREAMS: usize = 64;
/// Connections that do nothing.
pub const IDLE: usize = 1000;

/// One number of a scenario.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub key: &'static str,
    pub title: &'static str,
    /// Whether it says what direct does, too.
    pub of_direct: bool,
    /// Less what direct needs in the same repetition.
    pub added: bool,
    pub decimals: usize,
}

impl Metric {
    /// Whether it may be divided by direct's.
    pub const fn has_ratio(&self) -> bool {
        self.of_direct && !self.added
    }
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub key: &'static str,
    pub title: String,
    pub mode: Mode,
    pub path: String,
    pub connections: usize,
    pub streams: usize,
    pub seconds: f64,
    pub metrics: Vec<Metric>,
}

const fn metric(key: &'static str, title: &'static str, decimals: usize) -> Metric {
    Metric { key, title, of_direct: true, added: false, decimals }
}

const fn of_proxy(key: &'static str, title: &'static str, decimals: usize) -> Metric {
    Metric { key, title, of_direct: false, added: false, decimals }
}

const fn added(key: &'static str, title: &'static str) -> Metric {
    Metric { key, title, of_direct: true, added: true, decimals: 0 }
}

/// All scenarios, in the order of the table.
pub fn all(quick: bool, seconds: f64) -> Vec<Scenario> {
    let mib: u64 = if quick { 256 } else { 1024 };
    let of = |key, mode, path: &str, connections, streams, metrics: &[Metric]| Scenario {
        key,
        title: title(key, mib),
        mode,
        path: path.to_owned(),
        connections,
        streams,
        seconds,
        metrics: metrics.to_vec(),
    };
    let rps = metric("per_s", "requests/s", 0);
    let cps = metric("per_s", "connections/s", 0);
    let load = [metric("mb_s", "MB/s", 0), of_proxy("ns_byte", "proxy CPU, ns/byte", 2)];
    let latency = [added("p50_us", "added p50, µs"), added("p99_us", "added p99, µs")];
    let request = of_proxy("cpu_us", "proxy CPU, µs/request", 1);
    let connection = of_proxy("cpu_us", "proxy CPU, µs/connection", 0);
    let bytes = format!("/bytes/{}", mib << 20);
    let text = format!("/text/{}", (mib / 4) << 20);
    let events = format!("/sse/{EVENTS}");
    vec![
        of("h1", Mode::H1, "/s", 32, 1, &[rps, request]),
        of("h2", Mode::H2, "/s", 4, 16, &[rps, request]),
        of("connect-reuse", Mode::Connect, "/s", 16, 1, &[cps, connection]),
        of("connect-fresh", Mode::Connect, "/close", 16, 1, &[cps, connection]),
        of("download", Mode::Download, &bytes, 1, 1, &load),
        of("download-text", Mode::Download, &text, 1, 1, &load),
        of("rate", Mode::Rate, "/s", 16, 1, &latency),
        of("sse", Mode::Sse, &events, STREAMS, 1, &latency),
        of("idle", Mode::Idle, "/s", IDLE, 1, &[of_proxy("idle_kib", "KiB/connection", 1)]),
    ]
}

fn title(key: &str, mib: u64) -> String {
    match key {
        "h1" => "HTTP/1.1, 32 connections, 128 B".to_owned(),
        "h2" => "HTTP/2, 4 x 16 streams, 128 B".to_owned(),
        "connect-reuse" => "new connections, upstream reused".to_owned(),
        "connect-fresh" => "new connections, upstream new".to_owned(),
        "download" => format!("{mib} MiB download, not masked"),
        "download-text" => format!("{} MiB download of text (enforcer: masked)", mib / 4),
        "rate" => "1,000 requests/s".to_owned(),
        "sse" => "SSE, 64 streams x 50/s".to_owned(),
        _ => "1,000 idle connections".to_owned(),
    }
}

impl Scenario {
    pub fn is_for(&self, target: &Target) -> bool {
        match target {
            Target::Direct => self.mode != Mode::Idle,
            // It speaks no HTTP/2.
            Target::Peer { kind: Kind::Squid, .. } => self.mode != Mode::H2,
            _ => true,
        }
    }

    /// The metrics of one run. None: the target did not do what was asked.
    #[expect(clippy::cast_precision_loss, reason = "counts and nanoseconds of seconds")]
    pub fn values(&self, measured: &Measured) -> Option<BTreeMap<&'static str, f64>> {
        let count = measured.count as f64;
        let per_s = count / measured.seconds;
        let expected = match self.mode {
            Mode::Rate => RATE as f64,
            Mode::Sse => (EVENTS * STREAMS as u64) as f64,
            _ => 0.0,
        };
        if measured.count == 0 || per_s < 0.9 * expected || measured.errors * 100 > measured.count {
            return None;
        }
        let bytes = measured.bytes as f64;
        let cpu = measured.proxy_cpu_ns as f64;
        let all = BTreeMap::from([
            ("per_s", per_s),
            ("cpu_us", cpu / count / 1e3),
            ("mb_s", bytes / measured.seconds / 1e6),
            ("ns_byte", if measured.bytes > 0 { cpu / bytes } else { 0.0 }),
            ("p50_us", measured.p50_ns as f64 / 1e3),
            ("p99_us", measured.p99_ns as f64 / 1e3),
        ]);
        let wanted = |key: &str| self.metrics.iter().any(|metric| metric.key == key);
        Some(all.into_iter().filter(|(key, _)| wanted(key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(key: &str) -> Scenario {
        all(true, 1.0).into_iter().find(|it| it.key == key).unwrap()
    }

    #[test]
    fn cpu_is_divided_by_what_was_done() {
        let measured =
            Measured { seconds: 2.0, count: 1000, proxy_cpu_ns: 20_000_000, ..Measured::default() };
        let values = find("h1").values(&measured).unwrap();
        assert_eq!(values, BTreeMap::from([("per_s", 500.0), ("cpu_us", 20.0)]));
    }

    #[test]
    fn a_rate_that_was_not_reached_is_no_latency() {
        let mut measured = Measured { seconds: 1.0, count: 990, p50_ns: 5000, ..Measured::default() };
        assert!((find("rate").values(&measured).unwrap()["p50_us"] - 5.0).abs() < 1e-9);
        measured.count = 800;
        assert!(find("rate").values(&measured).is_none());
    }

    #[test]
    fn errors_are_no_throughput() {
        let mut measured = Measured { seconds: 1.0, count: 1000, errors: 10, ..Measured::default() };
        assert!(find("h1").values(&measured).is_some());
        measured.errors = 11;
        assert!(find("h1").values(&measured).is_none());
    }
}
