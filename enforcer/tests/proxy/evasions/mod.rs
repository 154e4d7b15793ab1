//! Ways past the masking and the policy that an upstream or a job could try, each
//! with what becomes of it.

mod floods;
mod requests;
mod secrets;
mod websocket;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::kit::{Kit, Options, SECRET};

/// Everything that comes back for these bytes, until nothing more comes.
pub async fn raw(kit: &Kit, request: &str) -> String {
    let mut stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let request = request.replace("HOST", &format!("host: masked.test:{}", kit.upstream.port()));
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    drop(tokio::time::timeout(std::time::Duration::from_secs(5), reading).await);
    String::from_utf8_lossy(&answer).into_owned()
}

const GET: &str = "GET / HTTP/1.1\r\nHOST\r\nconnection: close\r\n\r\n";

/// What a client gets of an upstream that answers so.
async fn scripted(script: &'static str) -> String {
    let kit = Kit::start(Options { script: Some(script.as_bytes()), ..Options::default() }).await;
    let answer = raw(&kit, GET).await;
    assert!(answer.starts_with("HTTP/1.1 "), "{script:?}: {answer:?}");
    let recorded = kit.recorded_text("\"event\":\"verdict\"").await;
    assert!(!recorded.contains(SECRET), "{script:?} is recorded");
    answer
}

/// The status of the answer to this request line.
async fn status(kit: &Kit, line: &str, fields: &str) -> String {
    let answer = raw(kit, &format!("{line} HTTP/1.1\r\nHOST\r\nconnection: close\r\n{fields}\r\n")).await;
    answer.get(9..12).unwrap_or_default().to_owned()
}
