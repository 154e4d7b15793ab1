//! The server: which path of which API a request is for, and what it was sent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use bytes::Bytes;
use enforcer::protocol::http::coding::{self, Decoder};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Event, HOSTS, Script, chat, gemini, messages, ollama, responses};
use crate::origin::answer::{fed, full, status, upgraded};
use crate::origin::{Body, certificate, listen};

/// No prompt of a test is longer.
const LONGEST: u64 = 1 << 26;

/// A request, or a message of a WebSocket, as it came.
#[derive(Debug, Clone)]
pub struct Call {
    pub host: String,
    pub method: Method,
    pub target: String,
    pub headers: HeaderMap,
    /// After its content codings; one of a WebSocket is the message.
    pub body: Bytes,
    pub websocket: bool,
}

impl Call {
    /// What it says, if it is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A running fake; it ends with the process.
pub struct FakeLlm {
    pub address: SocketAddr,
    pub ca_pem: String,
    state: Arc<State>,
}

struct State {
    script: Script,
    /// Whether it takes WebSockets; who cannot have one goes on without.
    websockets: AtomicBool,
    /// Milliseconds between two events.
    pause: AtomicU64,
    calls: Mutex<Vec<Call>>,
}

impl FakeLlm {
    /// Serves all of [`HOSTS`] at port 443 of a loopback address that nobody else has.
    pub fn start(script: Script) -> Result<(IpAddr, Self)> {
        let [.., high, low] = std::process::id().to_be_bytes();
        for net in 64..128 {
            let address = Ipv4Addr::new(127, net, high, low);
            if let Ok(fake) = Self::start_at(&format!("{address}:443"), script.clone()) {
                return Ok((address.into(), fake));
            }
        }
        bail!("no address of the loopback network has port 443 free");
    }

    /// Serves all of [`HOSTS`] at an address.
    pub fn start_at(address: &str, script: Script) -> Result<Self> {
        let (tls, ca_pem) = certificate(&HOSTS)?;
        let state =
            Arc::new(State { script, websockets: true.into(), pause: 0.into(), calls: Mutex::default() });
        let shared = Arc::clone(&state);
        let address = listen(address, tls, move |request, _| {
            let state = Arc::clone(&shared);
            async move { answer(request, &state).await }
        })?;
        Ok(Self { address, ca_pem, state })
    }

    /// Whether WebSockets are taken from now on.
    pub fn take_websockets(&self, take: bool) {
        self.state.websockets.store(take, Ordering::SeqCst);
    }

    /// Waits as long between two events from now on.
    pub fn pause(&self, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        self.state.pause.store(pause, Ordering::SeqCst);
    }

    /// What came since this was asked for the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut *self.state.calls())
    }
}

impl State {
    fn calls(&self) -> std::sync::MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(mut request: Request<Incoming>, state: &Arc<State>) -> Response<Body> {
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    let host = request.uri().host().or_else(|| header("host")).unwrap_or_default().to_owned();
    let mut call = Call {
        host,
        method: request.method().clone(),
        target: request.uri().path_and_query().map_or_else(String::new, ToString::to_string),
        headers: request.headers().clone(),
        body: Bytes::new(),
        websocket: header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")),
    };
    if call.websocket {
        state.calls().push(call.clone());
        if !state.websockets.load(Ordering::SeqCst) {
            return status(StatusCode::UPGRADE_REQUIRED);
        }
        let state = Arc::clone(state);
        return upgraded(&mut request, move |socket| talk(socket, call, state));
    }
    let Ok(body) = request.into_body().collect().await else { return status(StatusCode::BAD_REQUEST) };
    let Some(body) = decoded(&call.headers, body.to_bytes()) else {
        return status(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    };
    call.body = body;
    state.calls().push(call.clone());
    let answer = route(&call, &state.script);
    match state.pause.load(Ordering::SeqCst) {
        0 => answer,
        pause => paced(answer, Duration::from_millis(pause)),
    }
}

/// The same, and a pause before each frame but the first.
fn paced(answer: Response<Body>, pause: Duration) -> Response<Body> {
    let frames = |body: Body| {
        futures_util::stream::unfold((body, true), move |(mut body, first)| async move {
            let frame = body.frame().await?;
            if !first {
                tokio::time::sleep(pause).await;
            }
            Some((frame, (body, false)))
        })
    };
    answer.map(|body| http_body_util::StreamBody::new(frames(body)).boxed_unsync())
}

/// The body without its codings.
fn decoded(headers: &HeaderMap, body: Bytes) -> Option<Bytes> {
    let mut decoder = Decoder::new(&coding::parse_codings(headers).ok()?, LONGEST).ok()?;
    decoder.push(body);
    decoder.finish();
    let mut whole = Vec::new();
    while let Some(piece) = decoder.next().ok()? {
        whole.extend_from_slice(&piece);
    }
    Some(whole.into())
}

fn route(call: &Call, script: &Script) -> Response<Body> {
    let (path, query) = call.target.split_once('?').unwrap_or((&call.target, ""));
    let request = call.json();
    let streams = request["stream"] == true;
    match path {
        "/v1/chat/completions" => {
            let turn = chat::turn(script, &request);
            if streams { sse(&chat::events(&turn, &request)) } else { whole(&chat::whole(&turn, &request)) }
        }
        "/v1/responses" | "/backend-api/codex/responses" => {
            let turn = responses::turn(script, &request);
            match streams {
                true => sse(&responses::events(&turn, &request)),
                false => whole(&responses::whole(&turn, &request)),
            }
        }
        "/v1/messages" => {
            let turn = messages::turn(script, &request);
            match streams {
                true => sse(&messages::events(&turn, &request)),
                false => whole(&messages::whole(&turn, &request)),
            }
        }
        "/v1/messages/count_tokens" => whole(&json!({ "input_tokens": 11 })),
        "/api/chat" => {
            let lines = ollama::lines(&ollama::turn(script, &request), &request);
            let line = |line: Value| frame(format!("{line}\n"));
            fed("application/x-ndjson", lines.into_iter().map(line).collect())
        }
        _ => match path.rsplit_once("/models/").and_then(|(_, rest)| rest.split_once(':')) {
            Some((model, method)) => generated(model, method, query, &request, script),
            None => missing(),
        },
    }
}

/// A method of Gemini's.
fn generated(model: &str, method: &str, query: &str, request: &Value, script: &Script) -> Response<Body> {
    let turn = gemini::turn(script, request);
    match method {
        "generateContent" => whole(&gemini::whole(&turn, model)),
        "countTokens" => whole(&json!({ "totalTokens": 11 })),
        "streamGenerateContent" if query.split('&').any(|pair| pair == "alt=sse") => {
            let chunks = gemini::chunks(&turn, request, model);
            let event = |chunk: &Value| frame(format!("data: {chunk}\r\n\r\n"));
            fed("text/event-stream", chunks.iter().map(event).collect())
        }
        "streamGenerateContent" => {
            let chunks = gemini::chunks(&turn, request, model);
            let mut frames: Vec<_> = chunks
                .iter()
                .enumerate()
                .map(|(at, chunk)| frame(format!("{}{chunk:#}", if at == 0 { "[" } else { ",\r\n" })))
                .collect();
            frames.push(frame("]".to_owned()));
            fed("application/json", frames)
        }
        _ => missing(),
    }
}

fn frame(text: String) -> Frame<Bytes> {
    Frame::data(text.into())
}

fn sse(events: &[Event]) -> Response<Body> {
    fed("text/event-stream; charset=utf-8", events.iter().map(|event| frame(event.text())).collect())
}

fn whole(value: &Value) -> Response<Body> {
    full("application/json", value.to_string())
}

/// What every API says of a path that it does not know, more or less.
fn missing() -> Response<Body> {
    let error = json!({ "type": "not_found_error", "message": "the fake does not know this path" });
    let mut response = whole(&json!({ "type": "error", "error": error }));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

/// Answers each message of a WebSocket by the events of its response.
async fn talk(mut socket: crate::origin::answer::Socket, call: Call, state: Arc<State>) {
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() {
            return;
        }
        let Ok(text) = message.to_text() else { return };
        let call = Call { body: Bytes::copy_from_slice(text.as_bytes()), ..call.clone() };
        let request = call.json();
        if request["type"] != "response.create" {
            continue;
        }
        state.calls().push(call);
        let turn = responses::turn(&state.script, &request);
        for event in responses::events(&turn, &request) {
            if socket.send(event.data.into()).await.is_err() {
                return;
            }
        }
    }
}
