//! Repositories over smart HTTP, by git's own `http-backend` (CGI, RFC 3875).

use std::process::Stdio;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::answer::{full, status};
use super::{Body, Content};

pub(super) async fn answer(request: Request<Incoming>, content: &Content) -> Response<Body> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return status(StatusCode::BAD_REQUEST) };
    let header =
        |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut backend = Command::new("git");
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", content.folder.join("git"))
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", head.uri.path().trim_start_matches("/git"))
        .env("QUERY_STRING", head.uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", head.method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", header("git-protocol"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .env("REMOTE_USER", "tester")
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    match run(backend, body.to_bytes()).await {
        Ok(output) => parse(&output).unwrap_or_else(|| status(StatusCode::BAD_GATEWAY)),
        Err(error) => {
            eprintln!("origin: git http-backend: {error}");
            status(StatusCode::BAD_GATEWAY)
        }
    }
}

async fn run(mut backend: Command, body: Bytes) -> std::io::Result<Vec<u8>> {
    let mut child = backend.spawn()?;
    let mut stdin = child.stdin.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
    let writing = tokio::spawn(async move { stdin.write_all(&body).await });
    let output = child.wait_with_output().await?;
    // It may answer without reading everything.
    drop(writing.await);
    Ok(output.stdout)
}

/// Header fields, an empty line, the body.
fn parse(output: &[u8]) -> Option<Response<Body>> {
    let end = output.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&output[..end]).ok()?;
    let mut response = full("application/octet-stream", Bytes::copy_from_slice(&output[end + 4..]));
    for line in head.lines() {
        let (name, value) = line.split_once(": ")?;
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = StatusCode::from_bytes(value.split(' ').next()?.as_bytes()).ok()?;
        } else {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            response.headers_mut().insert(name, HeaderValue::from_str(value).ok()?);
        }
    }
    Some(response)
}
