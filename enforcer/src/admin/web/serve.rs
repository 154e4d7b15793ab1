//! Connections: so many, so long, so large.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::limits::{CONNECTION, CONNECTION_END, CONNECTIONS, FIELDS, HEAD, HEAD_PATIENCE};

/// After an error of `accept`: a descriptor may be free then.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves for as long as the process lives.
pub async fn serve(listener: TcpListener, pages: Router) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                tokio::spawn(async move {
                    Box::pin(one(stream, pages)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "nobody can be served");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn one(stream: TcpStream, pages: Router) {
    let service = TowerToHyperService::new(pages);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_PATIENCE)
        .max_buf_size(HEAD)
        .max_headers(FIELDS)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(CONNECTION) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(CONNECTION_END, connection).await {
                Ok(ended) => ended,
                // It is dropped: whoever still reads gets no more.
                Err(_) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the page broke off");
    }
}
