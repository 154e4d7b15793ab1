//! Requests that mean more than policy sees at first, and answers that are nobody's.

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{raw, status};
use crate::kit::client::{Sent, empty, text};
use crate::kit::{Kit, Options, SECRET, until};

#[tokio::test]
async fn a_method_over_http2_carries_no_secret_and_a_request_has_one_length() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2("masked.test").await;
    let request = kit.request("masked.test", "/").method(SECRET).body(empty()).unwrap();
    assert_eq!(client.send(request).await.unwrap().status(), 403);
    // A server behind this one could go by the second: the rest of the body would be
    // a request that nobody judged.
    for lengths in [["5", "4"], ["5", "5"], ["5", "+5"]] {
        let mut request = kit.request("masked.test", "/echo").method("POST").body(body("hello")).unwrap();
        for length in lengths {
            request.headers_mut().append("content-length", length.parse().unwrap());
        }
        let status = client.send(request).await.map(|response| response.status().as_u16());
        assert!(!matches!(status, Ok(200)), "{lengths:?}: {status:?}");
    }
    let seen = kit.scene.requests.lock().unwrap().clone();
    assert!(seen.is_empty(), "{seen:?}");
}

fn body(text: &'static str) -> Sent {
    http_body_util::Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

#[tokio::test]
async fn no_field_names_another_method_or_path_than_policy_judged() {
    let kit = Kit::start(Options::default()).await;
    for (line, field, want) in [
        ("POST /", "x-http-method-override: DELETE", "403"),
        ("POST /", "x-http-method: delete", "403"),
        ("POST /", "x-method-override: GET\r\nx-method-override: DELETE", "403"),
        ("POST /?a=b&_method=delete", "", "403"),
        ("delete /", "", "403"),
        ("POST /v1/x%3Arun", "", "403"),
        ("POST /", "x-http-method-override: PATCH", "200"),
    ] {
        let field = if field.is_empty() { String::new() } else { format!("{field}\r\n") };
        let fields = format!("content-length: 0\r\n{field}");
        assert_eq!(status(&kit, line, &fields).await, want, "{line} {field}");
    }
    let fields = "x-original-url: /v1/x:run\r\nx-rewrite-url: /v1/x:run\r\n";
    let request = format!("GET /headers HTTP/1.1\r\nHOST\r\nconnection: close\r\n{fields}\r\n");
    let answer = raw(&kit, &request).await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains(":run"), "{answer}");
}

#[tokio::test]
async fn an_answer_too_many_is_nobodys() {
    let script =
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil";
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let mut client = kit.h1("allowed.test").await;
    for _ in 0..20 {
        let request = kit.request("allowed.test", "/").body(empty()).unwrap();
        assert_eq!(text(client.send(request).await.unwrap()).await, "ok");
    }
}

#[tokio::test]
async fn without_a_recording_every_request_is_refused_and_told_why() {
    for plain in [false, true] {
        let kit = Kit::start(Options { plain, ..Options::default() }).await;
        let port = kit.upstream.port();
        let get = format!("GET / HTTP/1.1\r\nhost: masked.test:{port}\r\n\r\n");
        let mut open = TcpStream::connect(kit.proxy).await.unwrap();
        if plain {
            open.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(first_line(&mut open).await, "HTTP/1.1 200");
        }
        // What is written from now on would be found by nobody.
        let moved = kit.recordings.path().with_extension("moved");
        std::fs::rename(kit.recordings.path(), &moved).unwrap();
        let mut asked = 0;
        let mut ask = async || {
            asked += 1;
            answer_of(&kit, plain, asked % 2 == 0).await
        };
        let refused = async || match ask().await {
            200 => false,
            503 => true,
            other => panic!("{other}"),
        };
        until("a request is refused", refused).await;
        for _ in 0..4 {
            assert_eq!(ask().await, 503, "{plain}");
        }
        if plain {
            let before = kit.scene.requests.lock().unwrap().len();
            open.write_all(get.as_bytes()).await.unwrap();
            assert_eq!(first_line(&mut open).await, "HTTP/1.1 503");
            assert_eq!(kit.scene.requests.lock().unwrap().len(), before);
        }
        std::fs::rename(&moved, kit.recordings.path()).unwrap();
    }
}

/// The status of the answer to a request on a connection of its own; a refusal says why.
async fn answer_of(kit: &Kit, plain: bool, h2: bool) -> u16 {
    if plain {
        let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
        let head = format!("GET / HTTP/1.1\r\nhost: masked.test:{}\r\n\r\n", kit.upstream.port());
        stream.write_all(head.as_bytes()).await.unwrap();
        return first_line(&mut stream).await[9..].parse().unwrap();
    }
    let mut client = kit.client("masked.test", h2).await;
    let request = kit.request("masked.test", "/").body(empty()).unwrap();
    let answer = client.send(request).await.unwrap();
    let status = answer.status().as_u16();
    assert!(status == 200 || text(answer).await.contains("log-unavailable"));
    status
}

/// The first bytes of the next answer.
async fn first_line(stream: &mut TcpStream) -> String {
    let mut answer = vec![0; 8192];
    let length = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..length.min(12)]).into_owned()
}
