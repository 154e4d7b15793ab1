//! Each limit, and one past it.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::super::limits::*;
use super::*;

#[tokio::test]
async fn a_path_a_form_and_a_reason_are_so_long_and_no_longer() {
    let site = Site::new(vec![approval("apr-1")]);
    let ann = site.login("ann:ops").await;
    let path = |length: usize| format!("/login?to={}", "a".repeat(length - "/login?to=".len()));
    assert_eq!(site.get(&path(TARGET), &ann).await.status, StatusCode::OK);
    assert_eq!(site.get(&path(TARGET + 1), &ann).await.status, StatusCode::URI_TOO_LONG);
    let csrf = site.get("/approvals/apr-1", &ann).await.csrf();
    let form = |reason: usize| format!("csrf={csrf}&seen={SEEN}&said=no&reason={}", "r".repeat(reason));
    let status = |length: usize| {
        let (site, ann, form) = (&site, &ann, form(length));
        async move { site.post("/approvals/apr-1", ann, &form).await.status }
    };
    assert_eq!(status(REASON).await, StatusCode::OK);
    assert_eq!(status(REASON + 1).await, StatusCode::BAD_REQUEST);
    let room = BODY - form(0).len();
    assert_eq!(status(room).await, StatusCode::BAD_REQUEST);
    assert_eq!(status(room + 1).await, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(site.votes().len(), 1);
}

/// Served as it is, on a socket.
async fn served() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(serve(listener, Site::new(Vec::new()).router));
    address
}

async fn asked(stream: &mut TcpStream, head: &str) -> String {
    // It may be answered before it is read to its end.
    stream.write_all(head.as_bytes()).await.ok();
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer).await.unwrap_or_default();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}

#[tokio::test]
async fn a_head_is_so_large_and_has_so_many_fields() {
    let address = served().await;
    let fields = |count: usize| {
        let more: String = (1..count).map(|number| format!("x{number}: a\r\n")).collect();
        format!("GET /login HTTP/1.1\r\nhost: {HOSTNAME}\r\n{more}\r\n")
    };
    for (head, status) in [
        (fields(FIELDS), "200"),
        (fields(FIELDS + 1), "431"),
        (format!("GET /login HTTP/1.1\r\nhost: {HOSTNAME}\r\nx: {}\r\n\r\n", "a".repeat(2 * HEAD)), "431"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = asked(&mut stream, &head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn whoever_is_slow_is_sent_away_and_others_are_served_meanwhile() {
    let address = served().await;
    let mut slow = Vec::new();
    for _ in 0..CONNECTIONS - 1 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /login HTTP/1.1\r\nhost: pa").await.unwrap();
        slow.push(stream);
    }
    let head = format!("GET /login HTTP/1.1\r\nhost: {HOSTNAME}\r\n\r\n");
    let mut last = TcpStream::connect(address).await.unwrap();
    assert!(asked(&mut last, &head).await.starts_with("HTTP/1.1 200"));
    // All places are taken: one more waits until the slow ones have been sent away.
    let mut more = TcpStream::connect(address).await.unwrap();
    more.write_all(head.as_bytes()).await.unwrap();
    let early = tokio::time::timeout(Duration::from_millis(300), more.readable()).await;
    assert!(early.is_err(), "more than {CONNECTIONS} are served");
    let answer = tokio::time::timeout(HEAD_PATIENCE * 2, asked(&mut more, "")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
