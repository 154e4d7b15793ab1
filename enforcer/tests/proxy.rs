//! The proxy on loopback: a client that knows nothing of it, an upstream that
//! knows nothing of it, and no kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod kit;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use enforcer::policy::{Policy, PolicyStore};
use enforcer::proxy::Limits;
use futures_util::{SinkExt, StreamExt};
use http::StatusCode;
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use kit::client::{empty, text};
use kit::{Kit, Options, SECRET};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: secrets
    when: { host: masked.test }
    mask: { request: [exact], response: [exact] }
  - id: loopback
    when: { host: "*.test" }
    addresses: [loopback]
  - id: unread
    when: { host: unread.test }
    passthrough: true
  - id: held
    when: { host: allowed.test, path: /echo/held }
    body: inspect
  - id: path
    when: { host: allowed.test, path: [/denied, "/denied/**"] }
    deny: not this path
  - id: rest
    when: { host: [allowed.test, masked.test, other.test] }
    allow: true
"#;

fn policies() -> Arc<PolicyStore> {
    Arc::new(PolicyStore::fixed(Policy::from_text("test.yaml", POLICY).unwrap()))
}

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
async fn no_leaf_is_made_for_an_upstream_that_must_be_refused() {
    for options in
        [Options { expired: true, ..Options::default() }, Options { untrusted: true, ..Options::default() }]
    {
        let kit = Kit::start(options).await;
        let error = kit.tls("allowed.test", &[b"http/1.1"]).await.unwrap_err();
        assert!(error.to_string().contains("CertificateUnknown"), "{error}");
        assert_eq!(kit.signed.load(Ordering::Relaxed), 0);
        kit.recorded_text("upstream-certificate-").await;
    }
    // The name is none of the certificate's.
    let kit = Kit::start(Options::default()).await;
    assert!(kit.tls("other.test", &[b"http/1.1"]).await.is_err());
    assert_eq!(kit.signed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_upstream_decides_the_version() {
    let kit = Kit::start(Options { h1_only: true, ..Options::default() }).await;
    let stream = kit.tls("allowed.test", &[b"h2", b"http/1.1"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn a_client_that_pins_its_roots_is_named() {
    let kit = Kit::start(Options::default()).await;
    let stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    let stranger = kit::Authority::new().client(&[b"http/1.1"]);
    let name = "allowed.test".to_owned().try_into().unwrap();
    let refused = tokio_rustls::TlsConnector::from(stranger).connect(name, stream).await;
    assert!(refused.is_err());
    kit.recorded_text("client-pins-roots").await;
}

#[tokio::test]
async fn the_first_event_arrives_before_the_second_is_sent() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let request = kit.request(host, "/sse").body(empty()).unwrap();
            let mut body = client.send(request).await.unwrap().into_body();
            let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(&first[..], b"data: one\n\n");
            kit.signal.notify_one();
            let rest = body.collect().await.unwrap().to_bytes();
            assert_eq!(&rest[..], b"data: two\n\n");
        }
    }
}

#[tokio::test]
async fn a_body_of_unknown_length_goes_up_and_comes_back() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let (to, body) = kit::origin::fed();
            let request = kit.request(host, "/echo").method("POST").body(body.boxed_unsync());
            let sending = tokio::spawn(async move {
                for _ in 0..10 {
                    to.send(Ok(Frame::data(Bytes::from(vec![b'x'; 10_000])))).await.unwrap();
                }
            });
            let response = client.send(request.unwrap()).await.unwrap();
            let back = response.into_body().collect().await.unwrap().to_bytes();
            assert_eq!(back.len(), 100_000);
            sending.await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_body_of_a_known_length_is_recorded_whole() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for (method, path) in [("POST", "/echo"), ("GET", "/echo"), ("POST", "/echo/held")] {
            let mut client = kit.h1(host).await;
            let body = Full::new(Bytes::from("whole")).map_err(|never| match never {}).boxed_unsync();
            let request = kit.request(host, path).method(method).body(body).unwrap();
            assert_eq!(text(client.send(request).await.unwrap()).await, "whole", "{method} {host}{path}");
        }
    }
    drop(kit.recorded_text("\"outcome\"").await);
    let recorded = String::from_utf8_lossy(&kit.recorded()).into_owned();
    assert!(!recorded.contains("\"complete\":false"), "{recorded}");
    // Six requests, six answers.
    assert_eq!(recorded.matches("\"length\":5,").count(), 12, "{recorded}");
    assert_eq!(recorded.matches("\"text\":\"whole\"").count(), 12, "{recorded}");
}

#[tokio::test]
async fn trailers_come_back() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let request = kit.request(host, "/trailers").header("te", "trailers").body(empty());
            let response = client.send(request.unwrap()).await.unwrap();
            let collected = response.into_body().collect().await.unwrap();
            assert_eq!(collected.trailers().unwrap()["grpc-status"], "0", "{host} h2={h2}");
            assert_eq!(collected.to_bytes(), "message");
        }
    }
}

#[tokio::test]
async fn a_secret_split_anywhere_reaches_neither_client_nor_recording() {
    let kit = Kit::start(Options::default()).await;
    let placeholder = "before [MASKED:DEPLOY_KEY] after";
    for h2 in [false, true] {
        let mut client = kit.client("masked.test", h2).await;
        for coding in ["plain", "gzip"] {
            for at in 0..=format!("before {SECRET} after").len() {
                let path = format!("/secret?{coding}={at}");
                let request = kit.request("masked.test", &path).body(empty()).unwrap();
                let response = client.send(request).await.unwrap();
                assert_eq!(response.headers()["x-key"], "[MASKED:DEPLOY_KEY]");
                assert_eq!(response.headers()["etag"], "W/\"tag\"");
                assert!(!response.headers().contains_key("alt-svc"));
                let mut body = response.into_body().collect().await.unwrap().to_bytes().to_vec();
                if coding == "gzip" {
                    let mut text = Vec::new();
                    let mut decoder = flate2::read::MultiGzDecoder::new(&body[..]);
                    std::io::Read::read_to_end(&mut decoder, &mut text).unwrap();
                    body = text;
                }
                assert_eq!(String::from_utf8(body).unwrap(), placeholder, "{coding} at {at}");
            }
        }
    }
    // Not masked on the wire, and still not in the recording.
    let mut client = kit.h1("allowed.test").await;
    for coding in ["plain", "gzip"] {
        let request = kit.request("allowed.test", &format!("/secret?{coding}=20"));
        let request = request.header("authorization", "Bearer any-token-at-all").body(empty());
        let response = client.send(request.unwrap()).await.unwrap();
        assert_eq!(response.headers()["x-key"], SECRET);
        response.into_body().collect().await.unwrap();
    }
    let request = kit.request("allowed.test", "/echo").method("POST").header("x-key", SECRET);
    let body = Full::new(Bytes::from(SECRET)).map_err(|never| match never {}).boxed_unsync();
    let response = client.send(request.body(body).unwrap()).await.unwrap();
    assert_eq!(text(response).await, SECRET);
    let recorded = kit.recorded_text("MASKED:DEPLOY_KEY").await;
    assert!(!recorded.contains(SECRET));
    assert!(!recorded.contains("any-token-at-all"));
    use base64::Engine;
    let coded = base64::engine::general_purpose::STANDARD.encode(SECRET);
    assert!(!recorded.contains(&coded));
}

#[tokio::test]
async fn a_secret_in_a_request_does_not_reach_the_upstream() {
    let kit = Kit::start(Options::default()).await;
    for h2 in [false, true] {
        let mut client = kit.client("masked.test", h2).await;
        let request = kit.request("masked.test", "/headers").header("x-key", SECRET);
        let response = client.send(request.body(empty()).unwrap()).await.unwrap();
        let seen = text(response).await;
        assert!(seen.contains("[MASKED:DEPLOY_KEY]") && !seen.contains(SECRET), "{seen}");
        let request = kit.request("masked.test", "/echo").method("POST");
        let body = Full::new(Bytes::from(format!("a {SECRET} b")));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let response = client.send(request.body(body).unwrap()).await.unwrap();
        assert_eq!(text(response).await, "a [MASKED:DEPLOY_KEY] b");
        let request = kit.request("masked.test", &format!("/x/{SECRET}")).body(empty()).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(text(response).await.contains("secret-in-path"));
    }
}

#[tokio::test]
async fn a_reset_upstream_is_never_a_clean_end() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        for h2 in [false, true] {
            let mut client = kit.client(host, h2).await;
            let request = kit.request(host, "/reset").body(empty()).unwrap();
            let mut body = client.send(request).await.unwrap().into_body();
            assert!(body.frame().await.unwrap().is_ok());
            kit.signal.notify_one();
            assert!(body.collect().await.is_err(), "{host} h2={h2}");
        }
    }
    kit.recorded_text("\"complete\":false").await;
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
async fn a_passthrough_is_relayed_unread_and_recorded() {
    let kit = Kit::start(Options::default()).await;
    // The certificate is the upstream's own, which this client does not trust.
    let error = kit.tls("unread.test", &[b"http/1.1"]).await.unwrap_err();
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    assert_eq!(kit.signed.load(Ordering::Relaxed), 0);
    kit.recorded_text("\"event\":\"passthrough\"").await;
}

#[tokio::test]
async fn websocket_messages_are_relayed_and_masked() {
    let kit = Kit::start(Options::default()).await;
    let stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let port = kit.upstream.port();
    let mut stream = stream;
    let head = format!(
        "GET /ws HTTP/1.1\r\nhost: masked.test:{port}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-extensions: permessage-deflate\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && !answer.contains("deflate"), "{answer}");
    let role = tokio_tungstenite::tungstenite::protocol::Role::Client;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(stream, role, None).await;
    socket.send(format!("a {SECRET} b").into()).await.unwrap();
    let back = socket.next().await.unwrap().unwrap();
    assert_eq!(back.into_text().unwrap().as_str(), "a [MASKED:DEPLOY_KEY] b");
    socket.close(None).await.unwrap();
    let recorded = kit.recorded_text("\"event\":\"message\"").await;
    assert!(!recorded.contains(SECRET));
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
async fn an_inspected_body_is_held_up_to_the_limit_and_refused_past_it() {
    let kit = Kit::start(Options::default()).await;
    let limit = usize::try_from(enforcer::policy::INSPECT_CAP_BYTES).unwrap();
    let mut client = kit.h2("allowed.test").await;
    for (length, status) in [(limit, 200), (limit + 1, 413)] {
        let before = kit.requests.lock().unwrap().len();
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let body = body.map_err(|never| match never {}).boxed_unsync();
        let request = kit.request("allowed.test", "/echo/held").method("POST").body(body).unwrap();
        let response = client.send(request).await.unwrap();
        assert_eq!(response.status().as_u16(), status);
        drop(response.into_body().collect().await);
        let arrived = kit.requests.lock().unwrap().len() - before;
        assert_eq!(arrived, usize::from(status == 200));
    }
    kit.recorded_text("body-over-inspect-limit").await;
}

#[tokio::test]
async fn trailers_go_up() {
    let kit = Kit::start(Options::default()).await;
    for host in ["allowed.test", "masked.test"] {
        let mut client = kit.h2(host).await;
        let (to, body) = kit::origin::fed();
        let request = kit.request(host, "/echo").method("POST").body(body.boxed_unsync()).unwrap();
        tokio::spawn(async move {
            to.send(Ok(Frame::data(Bytes::from("data")))).await.unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-end", http::HeaderValue::from_static("yes"));
            to.send(Ok(Frame::trailers(trailers))).await.unwrap();
        });
        let response = client.send(request).await.unwrap();
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["x-end"], "yes");
        assert_eq!(collected.to_bytes(), "data");
    }
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
    kit.signal.notify_one();
    assert!(text(response).await.ends_with("data: two\n\n"));
    assert_eq!(drained.await.unwrap(), enforcer::drain::Drained::Clean);
}

#[tokio::test]
async fn a_denied_name_is_asked_of_nobody() {
    use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
    use hickory_proto::rr::{Name, RecordType};
    let kit = Kit::start(Options { dns: true, ..Options::default() }).await;
    let mut stream = tokio::net::TcpStream::connect(kit.proxy).await.unwrap();
    for (name, kind, code, answers, resolved) in [
        ("denied.test.", RecordType::A, ResponseCode::NXDomain, 0, 0),
        ("denied.test.", RecordType::TXT, ResponseCode::NXDomain, 0, 0),
        ("allowed.test.", RecordType::TXT, ResponseCode::NoError, 0, 0),
        ("allowed.test.", RecordType::A, ResponseCode::NoError, 1, 1),
    ] {
        let mut query = Message::query();
        query.metadata.op_code = OpCode::Query;
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        let query = query.to_vec().unwrap();
        stream.write_u16(u16::try_from(query.len()).unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.response_code, code, "{name} {kind}");
        assert_eq!(answer.answers.len(), answers, "{name} {kind}");
        assert_eq!(kit.resolved.load(Ordering::Relaxed), resolved, "{name} {kind}");
    }
    kit.recorded_text("\"event\":\"dns\"").await;
}
