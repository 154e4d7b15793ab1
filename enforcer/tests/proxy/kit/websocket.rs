//! A WebSocket through the proxy.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::Kit;

pub const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHOST\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
     sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A WebSocket to an upstream that sends every message back.
pub async fn echoing(kit: &Kit) -> tokio_tungstenite::WebSocketStream<TlsStream<TcpStream>> {
    let mut stream = kit.tls("masked.test", &[b"http/1.1"]).await.unwrap();
    let head = UPGRADE.replace("HOST", &format!("host: masked.test:{}", kit.upstream.port()));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"));
    tokio_tungstenite::WebSocketStream::from_raw_socket(stream, Role::Client, None).await
}
