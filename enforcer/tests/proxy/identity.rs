//! What policy lets through for who the job is, while that changes.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use enforcer::outgoing::Client as Outgoing;
use enforcer::workload::identity::{IdentityConfig, Verifier};
use futures_util::{SinkExt, StreamExt};
use hickory_proto::op::ResponseCode;
use hickory_proto::rr::RecordType;
use serde_json::json;

use crate::kit::client::{Client, empty, text};
use crate::kit::websocket::echoing;
use crate::kit::{Kit, Options, until};
use crate::requests::ask;

const POLICY: &str = r#"
version: 1
name: who
rules:
  - id: loopback
    when: {host: "**.test"}
    addresses: [loopback]
  - id: open
    when: {host: allowed.test, path: /open}
    allow: true
  - id: own
    when: {host: [allowed.test, masked.test], identity: {repository: octo/app}}
    allow: true
  - id: main
    when: {host: held.test, cel: 'identity.ref == "refs/heads/main" && identity.repository == "octo/app"'}
    allow: true
  - id: unread
    when: {host: unread.test, identity: {repository: octo/app}}
    passthrough: true
"#;

async fn start() -> Kit {
    Kit::start(Options { policy: Some(POLICY), ..Options::default() }).await
}

/// From now on, and for so many seconds, the workload is a job of this repository.
fn becomes(kit: &Kit, repository: &str, assurance: &str, seconds: u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let kept = json!({
        "claims": {"provider": "github", "texts": {"repository": repository, "ref": "refs/heads/main"}},
        "assurance": assurance, "job": uuid::Uuid::new_v4(), "tokens": [], "since": now, "until": now + seconds,
    });
    let outgoing = Outgoing::new(None, BTreeMap::new()).unwrap();
    let verifier = Verifier::new(&IdentityConfig::default(), Box::new(outgoing)).unwrap();
    let slot = &kit.subject.whose.slot;
    slot.clear();
    verifier.restore(slot, &kept.to_string(), SystemTime::now()).unwrap();
}

fn ends(kit: &Kit) {
    kit.subject.whose.slot.clear();
}

async fn asks(kit: &Kit, client: &mut Client, host: &str, path: &str) -> Result<(u16, String), hyper::Error> {
    let response = client.send(kit.request(host, path).body(empty()).unwrap()).await?;
    Ok((response.status().as_u16(), text(response).await))
}

#[tokio::test]
async fn the_next_request_of_an_open_connection_is_of_who_the_job_is_by_then() {
    let kit = start().await;
    for h2 in [false, true] {
        let mut client = kit.client("allowed.test", h2).await;
        let mut status = async |path| asks(&kit, &mut client, "allowed.test", path).await.unwrap().0;
        assert_eq!((status("/open").await, status("/x").await), (200, 403));
        becomes(&kit, "octo/app", "oidc", 100);
        assert_eq!((status("/x").await, status("/x").await), (200, 200));
        becomes(&kit, "octo/other", "oidc", 100);
        assert_eq!((status("/x").await, status("/open").await), (403, 200));
        // What the job says of itself is not more than that.
        becomes(&kit, "octo/app", "attested", 100);
        assert_eq!(status("/x").await, 403);
        becomes(&kit, "octo/app", "oidc", 100);
        assert_eq!(status("/x").await, 200);
        ends(&kit);
        assert_eq!((status("/x").await, status("/open").await), (403, 200));
        // By its age, whoever looks.
        becomes(&kit, "octo/app", "oidc", 2);
        assert_eq!(status("/x").await, 200);
        until("its age ends it", async || status("/x").await == 403).await;
    }
    assert_eq!(kit.accepted.load(Ordering::Relaxed), 2, "each client had one connection");
}

#[tokio::test]
async fn a_connection_that_is_denied_for_who_the_job_is_ends_with_the_answer() {
    let kit = start().await;
    for h2 in [false, true] {
        ends(&kit);
        let dialled = kit.accepted.load(Ordering::Relaxed);
        let mut client = kit.client("held.test", h2).await;
        let (status, told) = asks(&kit, &mut client, "held.test", "/").await.unwrap();
        assert_eq!(status, 403);
        assert!(told.contains("\"reason\":\"policy-default-deny\""), "{told}");
        assert_eq!(kit.accepted.load(Ordering::Relaxed), dialled, "somebody was dialled");
        becomes(&kit, "octo/app", "oidc", 100);
        until("it is closed", async || asks(&kit, &mut client, "held.test", "/").await.is_err()).await;
        let mut client = kit.client("held.test", h2).await;
        assert_eq!(asks(&kit, &mut client, "held.test", "/").await.unwrap().0, 200);
        // Where no identity helps there is nothing to wait for.
        let mut client = kit.client("denied.test", h2).await;
        for _ in 0..3 {
            assert_eq!(asks(&kit, &mut client, "denied.test", "/").await.unwrap().0, 403);
        }
    }
}

#[tokio::test]
async fn a_websocket_stays_what_it_was_decided_as() {
    let kit = start().await;
    becomes(&kit, "octo/app", "oidc", 100);
    let mut socket = echoing(&kit).await;
    let mut says = async |text: &str| {
        socket.send(text.to_owned().into()).await.unwrap();
        socket.next().await.unwrap().unwrap().into_text().unwrap().as_str().to_owned()
    };
    assert_eq!(says("one").await, "one");
    ends(&kit);
    assert_eq!(says("two").await, "two");
    let mut client = kit.client("masked.test", false).await;
    assert_eq!(asks(&kit, &mut client, "masked.test", "/ws").await.unwrap().0, 403);
}

#[tokio::test]
async fn what_passes_unread_passes_for_those_whose_rule_it_is() {
    let kit = start().await;
    let mut client = kit.client("unread.test", false).await;
    assert_eq!(asks(&kit, &mut client, "unread.test", "/").await.unwrap().0, 403);
    becomes(&kit, "octo/app", "oidc", 100);
    // The certificate is the upstream's own, which this client does not trust.
    let error = kit.tls("unread.test", &[b"http/1.1"]).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn a_name_is_looked_up_for_those_who_may_go_there() {
    let kit = Kit::start(Options { policy: Some(POLICY), dns: true, ..Options::default() }).await;
    let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    let mut code = async || ask(&mut stream, "held.test.", RecordType::A).await.metadata.response_code;
    assert_eq!(code().await, ResponseCode::NXDomain);
    becomes(&kit, "octo/app", "attested", 100);
    assert_eq!(code().await, ResponseCode::NXDomain);
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 0);
    becomes(&kit, "octo/app", "oidc", 100);
    assert_eq!(code().await, ResponseCode::NoError);
    ends(&kit);
    assert_eq!(code().await, ResponseCode::NXDomain);
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 1);
}
