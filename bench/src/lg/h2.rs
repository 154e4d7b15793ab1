//! HTTP/2 by the `h2` crate.

use anyhow::{Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;

use super::Target;

/// Opens a connection whose frames a task of its own carries.
pub async fn open(target: &Target) -> Result<SendRequest<Bytes>> {
    let io = target.open().await?;
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(4 << 20);
    let (sender, connection) = builder.handshake(io).await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            eprintln!("enforcer-bench: an HTTP/2 connection ended: {error}");
        }
    });
    Ok(sender)
}

/// One request and its whole answer; says how long its body was.
pub async fn get(sender: &SendRequest<Bytes>, host: &str, path: &str) -> Result<u64> {
    let request = Request::get(format!("https://{host}{path}")).body(())?;
    let mut sender = sender.clone().ready().await?;
    let (answer, _) = sender.send_request(request, true)?;
    let answer = answer.await?;
    ensure!(answer.status() == 200, "the answer is {}", answer.status());
    let mut body = answer.into_body();
    let mut length = 0;
    while let Some(piece) = body.data().await {
        let piece = piece?.len();
        length += piece as u64;
        body.flow_control().release_capacity(piece)?;
    }
    Ok(length)
}
