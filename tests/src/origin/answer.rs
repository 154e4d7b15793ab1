//! What is answered to which path.

use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;

use super::{Body, Content, Site, git, stream};

/// A body that is fed from a channel.
struct Fed(mpsc::Receiver<Frame<Bytes>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

pub(crate) fn full(kind: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let body = Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    response
}

pub(crate) fn status(status: StatusCode) -> Response<Body> {
    let mut response = full("text/plain", "");
    *response.status_mut() = status;
    response
}

/// Frames one after the other, so that each is on the wire before the next is made.
pub(crate) fn fed(kind: &'static str, frames: Vec<Frame<Bytes>>) -> Response<Body> {
    let (to, from) = mpsc::channel(1);
    tokio::spawn(async move {
        for frame in frames {
            if to.send(frame).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
    });
    from_channel(kind, from)
}

pub(crate) fn from_channel(kind: &'static str, from: mpsc::Receiver<Frame<Bytes>>) -> Response<Body> {
    let mut response = Response::new(Fed(from).boxed_unsync());
    response.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    response
}

pub(super) async fn answer(mut request: Request<Incoming>, site: &Site) -> Response<Body> {
    let content = &site.content;
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/text" => stream::text(request.headers(), format!("the token is {}.\n", content.token)),
        "/trailers" => stream::trailers(&content.token),
        "/live" => stream::live(request.uri().query() == Some("gzip"), &content.token, &site.next),
        "/live/next" => {
            site.next.add_permits(1);
            status(StatusCode::NO_CONTENT)
        }
        "/chunked" => {
            let text = format!("the token is {}.\n", content.token);
            let pieces = text.as_bytes().chunks(7).map(Bytes::copy_from_slice).map(Frame::data).collect();
            fed("text/plain", pieces)
        }
        "/echo" => {
            let body = request.into_body().map_err(std::io::Error::other).boxed_unsync();
            let mut response = Response::new(body);
            response
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/octet-stream"));
            response
        }
        "/nothing" => status(StatusCode::NO_CONTENT),
        "/v1/chat/completions" => events(&openai(&said(&content.token))),
        "/v1/messages" => events(&anthropic(&said(&content.token))),
        "/ws" => websocket(&mut request, content),
        "/probe.Echo/Unary" | "/probe.Echo/Stream" => grpc(request, path.ends_with("Stream")).await,
        "/probe.Echo/Token" => {
            let message = [&[0, 0, 0, 0, 40][..], content.token.as_bytes()].concat();
            grpc_messages(&[Bytes::from(message)])
        }
        other => match other.split_once("/git/") {
            Some(("", _)) => git::answer(request, content).await,
            _ => file(request.method(), other, request.headers(), content),
        },
    }
}

/// Server-sent events (HTML, section 9.2), each in a frame of its own.
fn events(events: &[(Option<&str>, String)]) -> Response<Body> {
    fed("text/event-stream", events.iter().map(|event| Frame::data(Bytes::from(written(event)))).collect())
}

fn written((name, data): &(Option<&str>, String)) -> String {
    let name = name.map_or_else(String::new, |name| format!("event: {name}\n"));
    format!("{name}data: {data}\n\n")
}

/// The stream of a chat completion that says this.
pub fn completion(text: &str) -> String {
    openai(&[text.to_owned()]).iter().map(written).collect()
}

/// The stream of a message that says this.
pub fn message(text: &str) -> String {
    anthropic(&[text.to_owned()]).iter().map(written).collect()
}

/// What is said of the token, in the pieces in which it comes.
fn said(token: &str) -> [String; 3] {
    ["the token is ".to_owned(), format!("{token} and"), " no more.".to_owned()]
}

/// A chat completion as the API streams it.
fn openai(pieces: &[String]) -> Vec<(Option<&'static str>, String)> {
    let chunk = |delta: serde_json::Value, finish: Option<&str>| {
        let chunk = serde_json::json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        (None, chunk.to_string())
    };
    let mut all = vec![chunk(serde_json::json!({ "role": "assistant", "content": "" }), None)];
    all.extend(pieces.iter().map(|text| chunk(serde_json::json!({ "content": text }), None)));
    all.extend([chunk(serde_json::json!({}), Some("stop")), (None, "[DONE]".to_owned())]);
    all
}

/// A message as the API streams it.
fn anthropic(pieces: &[String]) -> Vec<(Option<&'static str>, String)> {
    let event = |name: &'static str, mut data: serde_json::Value| {
        data["type"] = name.into();
        (Some(name), data.to_string())
    };
    let delta = |text: &String| {
        let delta = serde_json::json!({ "type": "text_delta", "text": text });
        event("content_block_delta", serde_json::json!({ "index": 0, "delta": delta }))
    };
    let message = serde_json::json!({
        "id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "m",
        "stop_reason": null, "stop_sequence": null, "usage": { "input_tokens": 1, "output_tokens": 1 },
    });
    let block = serde_json::json!({ "type": "text", "text": "" });
    let ended = serde_json::json!({ "stop_reason": "end_turn", "stop_sequence": null });
    let mut all = vec![
        event("message_start", serde_json::json!({ "message": message })),
        event("content_block_start", serde_json::json!({ "index": 0, "content_block": block })),
    ];
    all.extend(pieces.iter().map(delta));
    all.extend([
        event("content_block_stop", serde_json::json!({ "index": 0 })),
        event("message_delta", serde_json::json!({ "delta": ended, "usage": { "output_tokens": 9 } })),
        event("message_stop", serde_json::json!({})),
    ]);
    all
}

/// Says the token, then sends every message back.
fn websocket(request: &mut Request<Incoming>, content: &Content) -> Response<Body> {
    let greeting = format!("the token is {}.", content.token);
    upgraded(request, move |mut socket| async move {
        if socket.send(greeting.into()).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() || socket.send(message).await.is_err() {
                break;
            }
        }
    })
}

/// A connection that goes on with messages.
pub(crate) type Socket = tokio_tungstenite::WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>;

/// Takes the connection for messages (RFC 6455, section 4.2.2).
pub(crate) fn upgraded<F>(
    request: &mut Request<Incoming>,
    talk: impl FnOnce(Socket) -> F + Send + 'static,
) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    let Some(key) = request.headers().get("sec-websocket-key").cloned() else {
        return status(StatusCode::BAD_REQUEST);
    };
    let upgrade = hyper::upgrade::on(request);
    tokio::spawn(async move {
        let Ok(upgraded) = upgrade.await else { return };
        let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
        let io = TokioIo::new(upgraded);
        talk(tokio_tungstenite::WebSocketStream::from_raw_socket(io, role, None).await).await;
    });
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let mut response = status(StatusCode::SWITCHING_PROTOCOLS);
    let headers = response.headers_mut();
    headers.insert("connection", HeaderValue::from_static("upgrade"));
    headers.insert("upgrade", HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert("sec-websocket-accept", accept);
    }
    response
}

/// The message back, once or three times, and the status in trailers.
async fn grpc(request: Request<Incoming>, many: bool) -> Response<Body> {
    let Ok(message) = request.into_body().collect().await else { return status(StatusCode::BAD_REQUEST) };
    grpc_messages(&vec![message.to_bytes(); if many { 3 } else { 1 }])
}

fn grpc_messages(messages: &[Bytes]) -> Response<Body> {
    let mut frames: Vec<_> = messages.iter().cloned().map(Frame::data).collect();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    frames.push(Frame::trailers(trailers));
    fed("application/grpc", frames)
}

/// A file of the folder, with an entity tag.
fn file(method: &Method, path: &str, headers: &HeaderMap, content: &Content) -> Response<Body> {
    let Some(name) = path.strip_prefix("/files/").filter(|name| !name.contains("..")) else {
        return status(StatusCode::NOT_FOUND);
    };
    let mut place = content.folder.join("files").join(name);
    if place.is_dir() {
        let index = ["index.html", "index.json"].map(|name| place.join(name));
        place = index.into_iter().find(|path| path.exists()).unwrap_or(place);
    }
    let Ok(bytes) = std::fs::read(&place) else { return status(StatusCode::NOT_FOUND) };
    let kind = match place.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html",
        Some("json") => "application/json",
        Some("txt") => "text/plain",
        _ => "application/octet-stream",
    };
    let tag = base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(bytes.len().to_be_bytes());
    let tag = format!("\"{tag}\"");
    // Compared weakly (RFC 9110, 13.1.2).
    let known = headers
        .get("if-none-match")
        .and_then(|known| known.to_str().ok())
        .is_some_and(|known| known.strip_prefix("W/").unwrap_or(known) == tag);
    let mut response = match () {
        () if known => status(StatusCode::NOT_MODIFIED),
        () if method == Method::HEAD => full(kind, ""),
        () => full(kind, bytes),
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert("etag", tag);
    }
    response
}
