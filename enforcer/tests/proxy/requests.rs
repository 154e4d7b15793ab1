//! Who is let through: each request is judged by itself, and who is denied is told so.

use std::sync::atomic::Ordering;

use enforcer::proxy::Limits;
use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::client::{empty, text};
use crate::kit::{Kit, Options};

#[tokio::test]
async fn requests_pass_over_both_versions() {
    let kit = Kit::start(Options::default()).await;
    for h2 in [false, true] {
        let mut client = kit.client("allowed.test", h2).await;
        for _ in 0..3 {
            let request = kit.request("allowed.test", "/").body(empty()).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(text(response).await, "hello");
        }
    }
    // One connection for each version: requests share it.
    assert_eq!(kit.accepted.load(Ordering::Relaxed), 2);
    kit.recorded_text("\"event\":\"statement\"").await;
}

#[tokio::test]
async fn a_denied_host_is_told_so_and_nobody_is_dialled() {
    let kit = Kit::start(Options::default()).await;
    for h2 in [false, true] {
        let mut client = kit.client("denied.test", h2).await;
        let request = kit.request("denied.test", "/").body(empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert!(response.headers()["x-enforcer-decision"].to_str().unwrap().starts_with("deny;"));
        assert!(text(response).await.contains("\"reason\":\"policy-default-deny\""));
    }
    assert_eq!(kit.accepted.load(Ordering::Relaxed), 0);
    kit.recorded_text("\"verdict\":\"deny\"").await;
}

#[tokio::test]
async fn a_denied_path_is_not_forwarded_and_the_connection_lives() {
    let kit = Kit::start(Options::default()).await;
    for h2 in [false, true] {
        let mut client = kit.client("allowed.test", h2).await;
        for (path, status) in [("/denied", 403), ("/", 200), ("/denied/x", 403), ("/", 200)] {
            let request = kit.request("allowed.test", path).body(empty()).unwrap();
            let response = client.send(request).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path}");
            text(response).await;
        }
    }
}

#[tokio::test]
async fn an_expression_sees_query_and_headers_and_a_denial_names_the_owner() {
    const POLICY: &str = r#"
version: 1
name: cel
owner: web team
rules:
  - {id: drafts, when: {cel: '"draft" in http.query'}, deny: no drafts}
  - id: json
    when: {host: allowed.test, cel: 'http.method == "GET" && "json" in http.headers["x-kind"]'}
    allow: true
    addresses: [loopback]
"#;
    let kit = Kit::start(Options { policy: Some(POLICY), ..Options::default() }).await;
    for h2 in [false, true] {
        let mut client = kit.client("allowed.test", h2).await;
        let cases = [
            ("/?a=1", "json", 200),
            ("/?%64raft=1", "json", 403),
            ("/?a=1;draft", "json", 403),
            ("/", "text", 403),
        ];
        for (path, kind, status) in cases {
            let request = kit.request("allowed.test", path).header("X-Kind", kind);
            let response = client.send(request.body(empty()).unwrap()).await.unwrap();
            assert_eq!(response.status().as_u16(), status, "{path} {kind}");
            let told = text(response).await;
            let drafts = told.contains("\"owner\":\"web team\"") && told.contains("no drafts");
            assert_eq!(drafts, path.contains("raft"), "{told}");
        }
        let response = client.send(kit.request("allowed.test", "/").body(empty()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn another_host_than_the_connection_is_misdirected() {
    let kit = Kit::start(Options::default()).await;
    for h2 in [false, true] {
        let mut client = kit.client("allowed.test", h2).await;
        let request = kit.request("masked.test", "/").body(empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    }
    let mut client = kit.h1("allowed.test").await;
    let request = kit.request("allowed.test", "/").header("host", "denied.test");
    let response = client.send(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
}

#[tokio::test]
async fn expect_is_answered_after_the_verdict_of_the_head() {
    let kit = Kit::start(Options::default()).await;
    let port = kit.upstream.port();
    for (path, want) in [("/echo", "HTTP/1.1 100"), ("/denied", "HTTP/1.1 403")] {
        let mut stream = kit.tls("allowed.test", &[b"http/1.1"]).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: allowed.test:{port}\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut first = vec![0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(String::from_utf8(first).unwrap(), want);
        if path == "/echo" {
            stream.write_all(b"body").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert!(rest.contains("HTTP/1.1 200") && rest.contains("body"), "{rest}");
        }
    }
}

#[tokio::test]
async fn half_a_close_still_gets_its_answer() {
    let kit = Kit::start(Options { plain: true, ..Options::default() }).await;
    let port = kit.upstream.port();
    let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    let head = format!("GET /hello HTTP/1.1\r\nhost: allowed.test:{port}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn plain_http_is_judged_by_each_request() {
    let kit = Kit::start(Options { plain: true, ..Options::default() }).await;
    let port = kit.upstream.port();
    let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    for (host, want) in [("allowed.test", "200"), ("denied.test", "403")] {
        let head = format!("GET / HTTP/1.1\r\nhost: {host}:{port}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with(&format!("HTTP/1.1 {want}")), "{answer}");
    }
}

#[tokio::test]
async fn connect_is_refused_and_a_foreign_upgrade_is_not_passed_on() {
    let kit = Kit::start(Options::default()).await;
    let port = kit.upstream.port();
    let host = format!("host: allowed.test:{port}\r\n");
    // A server may leave an upgrade unanswered (RFC 9110, section 7.8).
    for (head, answers) in [
        (format!("CONNECT allowed.test:{port} HTTP/1.1\r\n{host}\r\n"), ["400", "405"]),
        (format!("GET / HTTP/1.1\r\n{host}connection: upgrade\r\nupgrade: tcp\r\n\r\n"), ["200", "501"]),
    ] {
        let mut stream = kit.tls("allowed.test", &[b"http/1.1"]).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(answers.contains(&&answer[9..]), "{answer}");
    }
}

#[tokio::test]
async fn a_workload_that_nobody_announced_gets_nothing() {
    let kit = Kit::start(Options { unknown: true, plain: true, ..Options::default() }).await;
    let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    let mut answer = Vec::new();
    drop(stream.write_all(b"GET / HTTP/1.1\r\nhost: allowed.test\r\n\r\n").await);
    drop(stream.read_to_end(&mut answer).await);
    assert!(answer.is_empty());
    assert_eq!(kit.accepted.load(Ordering::Relaxed), 0);
    kit.recorded_text("unknown-workload").await;
}

#[tokio::test]
async fn connections_of_a_workload_are_limited() {
    let limits = Limits { max_connections_per_workload: 2, ..Limits::default() };
    let kit = Kit::start(Options { plain: true, limits, ..Options::default() }).await;
    let port = kit.upstream.port();
    let head = format!("GET / HTTP/1.1\r\nhost: allowed.test:{port}\r\n\r\n");
    let mut open = Vec::new();
    for wanted in [true, true, false] {
        let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
        drop(stream.write_all(head.as_bytes()).await);
        let mut answer = [0; 12];
        let answered = stream.read_exact(&mut answer).await.is_ok();
        assert_eq!(answered, wanted);
        open.push(stream);
    }
    kit.recorded_text("too-many-connections-of-workload").await;
    drop(open);
}

#[tokio::test]
async fn a_drain_closes_idle_connections_and_lets_others_finish() {
    let mut kit = Kit::start(Options::default()).await;
    let mut idle = kit.h1("allowed.test").await;
    let request = kit.request("allowed.test", "/").body(empty()).unwrap();
    text(idle.send(request).await.unwrap()).await;
    let mut busy = kit.h1("allowed.test").await;
    let request = kit.request("allowed.test", "/sse").body(empty()).unwrap();
    let response = busy.send(request).await.unwrap();
    let drain = kit.drain.take().unwrap();
    let drained = tokio::spawn(drain.drain(std::time::Duration::from_secs(20)));
    kit.scene.signal.notify_one();
    assert!(text(response).await.ends_with("data: two\n\n"));
    assert_eq!(drained.await.unwrap(), enforcer::drain::Drained::Clean);
}

#[tokio::test]
async fn a_denied_name_is_asked_of_nobody() {
    let kit = Kit::start(Options { dns: true, ..Options::default() }).await;
    let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    for (name, kind, code, answers, resolved) in [
        ("denied.test.", RecordType::A, ResponseCode::NXDomain, 0, 0),
        ("denied.test.", RecordType::TXT, ResponseCode::NXDomain, 0, 0),
        ("allowed.test.", RecordType::TXT, ResponseCode::NoError, 0, 0),
        ("allowed.test.", RecordType::A, ResponseCode::NoError, 1, 1),
    ] {
        let answer = ask(&mut stream, name, kind).await;
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert_eq!(answer.answers.len(), answers, "{name} {kind}");
        assert_eq!(kit.resolved.load(Ordering::Relaxed), resolved, "{name} {kind}");
    }
    kit.recorded_text("\"event\":\"dns\"").await;
}

/// Asks over TCP.
pub async fn ask(stream: &mut tokio::net::TcpStream, name: &str, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.metadata.op_code = OpCode::Query;
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    let query = query.to_vec().unwrap();
    stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
    stream.write_all(&query).await.unwrap();
    let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut answer).await.unwrap();
    Message::from_vec(&answer).unwrap()
}
