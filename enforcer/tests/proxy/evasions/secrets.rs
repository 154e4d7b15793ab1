//! A secret where none is looked for at first.

use std::sync::atomic::Ordering;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{raw, scripted, status};
use crate::kit::client::{empty, text};
use crate::kit::{Kit, Options, SECRET};

#[tokio::test]
async fn no_part_of_an_answer_carries_a_secret() {
    let mut leaks = Vec::new();
    for script in [
        "HTTP/1.1 200 obviously-fake-deploy-key-0123456789\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nx-obviously-fake-deploy-key-0123456789: 1\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nlocation: /?k=obviously-fake-deploy-key-0123456789\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 103 Early Hints\r\nlink: <obviously-fake-deploy-key-0123456789>\r\n\r\n\
         HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
         2;k=obviously-fake-deploy-key-0123456789\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-k\r\n\r\n2\r\nok\r\n0\r\n\
         x-k: obviously-fake-deploy-key-0123456789\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: obviously-fake-deploy-key-0123456789\r\n\r\n\
         2\r\nok\r\n0\r\nobviously-fake-deploy-key-0123456789: 1\r\n\r\n",
    ] {
        let answer = scripted(script).await;
        assert!(answer.contains("200") && answer.contains("ok"), "{answer}");
        if answer.contains(SECRET) {
            leaks.push(answer);
        }
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
}

#[tokio::test]
async fn what_cannot_be_read_whole_is_not_delivered() {
    for script in [
        // gzip in the framing, where no client is told of it as of a content coding.
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        // The messages inside are compressed, whatever the body is.
        "HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-encoding: gzip\r\ncontent-length: 2\r\n\r\nok",
        // A part that nobody asked for: a secret that it cuts is not found in it.
        "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 2-3/4\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 206 Partial Content\r\ncontent-type: multipart/byteranges; boundary=x\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-encoding: lzma\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let answer = scripted(script).await;
        assert!(answer.starts_with("HTTP/1.1 502") && !answer.contains("\r\n\r\nok"), "{script}: {answer}");
    }
}

#[tokio::test]
async fn a_job_cannot_ask_for_what_cannot_be_masked() {
    let kit = Kit::start(Options::default()).await;
    let fields = "range: bytes=1-\r\nif-range: x\r\nx-ms-range: bytes=1-\r\ngrpc-accept-encoding: gzip\r\n\
                  accept-encoding: lzma, gzip\r\n";
    let request = format!("GET /headers HTTP/1.1\r\nHOST\r\nconnection: close\r\n{fields}\r\n");
    let answer = raw(&kit, &request).await;
    assert!(answer.contains("accept-encoding: \"gzip\""), "{answer}");
    for gone in ["range:", "grpc-accept", "lzma"] {
        assert!(!answer.contains(gone), "{gone}: {answer}");
    }
}

#[tokio::test]
async fn no_part_of_a_request_line_carries_a_secret() {
    let kit = Kit::start(Options::default()).await;
    let escaped = SECRET.replace("obviously", "%6fbviousl%79");
    for (line, want) in [
        (format!("GET /{SECRET}"), "403"),
        (format!("GET /{escaped}"), "403"),
        (format!("GET /?key={escaped}"), "200"),
        (format!("GET /?key={SECRET}"), "200"),
        ("GET /?key=%6fbvious".to_owned(), "200"),
    ] {
        assert_eq!(status(&kit, &line, "").await, want, "{line}");
    }
    let seen = kit.scene.requests.lock().unwrap().clone();
    assert!(!format!("{seen:?}").contains("deploy-key"), "{seen:?}");
    let recorded = kit.recorded_text("secret-in-path").await;
    assert!(!recorded.contains(SECRET));
}

#[tokio::test]
async fn no_name_that_is_asked_for_carries_a_secret() {
    let name = format!("{SECRET}.open.test");
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2(&name).await;
    let response = client.send(kit.request(&name, "/").body(empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 403);
    assert!(kit.recorded_text("secret-in-name").await.find(SECRET).is_none());
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 0);

    let kit = Kit::start(Options { plain: true, ..Options::default() }).await;
    let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
    let head = format!("GET / HTTP/1.1\r\nhost: {name}:{}\r\n\r\n", kit.upstream.port());
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 403");
    assert!(kit.recorded_text("secret-in-name").await.find(SECRET).is_none());
    assert_eq!(kit.resolved.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn parts_of_a_whole_are_not_recorded() {
    let script = b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 0-14/36\r\ncontent-length: 15\r\n\r\nobviously-fake-";
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let mut client = kit.h1("allowed.test").await;
    let request = kit.request("allowed.test", "/").header("range", "bytes=0-14").body(empty()).unwrap();
    // Nothing is masked here, so it arrives; half a secret would be found by nobody.
    assert_eq!(text(client.send(request).await.unwrap()).await, "obviously-fake-");
    let recorded = kit.recorded_text("body-end").await;
    assert!(!recorded.contains("obviously"), "{recorded}");
}
