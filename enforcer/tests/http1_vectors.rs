//! Requests that servers read in different ways: each is refused, or what
//! arrives at the upstream is what stands in the recording.
//!
//! The vectors are taken from `$ENFORCER_VECTORS`; without it, from the smaller
//! set of this project.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(dead_code, reason = "this suite uses a part of the kit")]

mod kit;

use std::sync::Arc;
use std::time::Duration;

use enforcer::policy::{Policy, PolicyStore};
use kit::{Kit, Options};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: all
    when: { host: allowed.test }
    allow: true
    addresses: [loopback]
"#;

fn policies() -> Arc<PolicyStore> {
    Arc::new(PolicyStore::fixed(Policy::from_text("test.yaml", POLICY).unwrap()))
}

#[derive(serde::Deserialize)]
struct Probe {
    id: String,
    payload: String,
    expected: String,
}

fn probes() -> Vec<Probe> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/http1-probes.json");
    let path = match std::env::var_os("ENFORCER_VECTORS") {
        Some(folder) => std::path::Path::new(&folder).join("http1-probes.json"),
        None => own.into(),
    };
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Status codes of the answers, as far as they came.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let lines = text.split("HTTP/1.").skip(1);
    lines.filter_map(|line| line.get(2..5)?.parse().ok()).filter(|status| *status >= 200).collect()
}

#[tokio::test]
async fn what_arrives_is_what_is_recorded() {
    let mut wrong = Vec::new();
    for probe in probes() {
        let kit = Kit::start(Options { plain: true, ..Options::default() }).await;
        let host = format!("allowed.test:{}", kit.upstream.port());
        let payload = probe.payload.replace("localhost:8080", &host).replace("localhost", &host);
        let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
        drop(stream.write_all(payload.as_bytes()).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
        if read.await.is_err() {
            wrong.push(format!("{}: hangs", probe.id));
        }
        let statuses = statuses(&answer);
        let refused = statuses.is_empty() || statuses.iter().any(|status| *status >= 400);
        // `Exact(400)`, `Range4xx` and the like; the others leave the choice.
        let must_refuse = probe.expected.contains("40") || probe.expected.contains("4xx");
        let may_pass = probe.expected.contains("2xx") || probe.expected.contains("20");
        if must_refuse && !may_pass && !refused {
            wrong.push(format!("{}: {statuses:?} instead of {}", probe.id, probe.expected));
        }
        let arrived = kit.requests.lock().unwrap().len();
        let recorded = String::from_utf8_lossy(&kit.recorded()).into_owned();
        let allowed = recorded.matches("\"verdict\":\"allow\"").count();
        // A request whose body turned out malformed may have been cut before it arrived.
        let cut = recorded.contains("\"complete\":false");
        if arrived > allowed || (arrived < allowed && !cut) {
            wrong.push(format!("{}: {arrived} arrived, {allowed} allowed", probe.id));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
