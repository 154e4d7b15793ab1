//! Too much of something: it ends at a limit, and hurts nobody else.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use enforcer::proxy::Limits;
use http_body_util::BodyExt;
use nix::time::ClockId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::status;
use crate::kit::client::{Client, Sent, empty, text};
use crate::kit::frame;
use crate::kit::{self, Kit, Options, PATIENCE, read_frame, until};

/// What the resolver answers one workload.
const QUESTIONS_AT_ONCE: usize = 400;
const QUESTIONS_PER_SECOND: f64 = 200.0;
/// Denials of one workload that are told on a leaf of their own after a pause.
const DENIALS_AT_ONCE: usize = 250;
/// Bodies of unknown length that are held for one workload.
const HELD_AT_ONCE: usize = 8;

type Answering = tokio::task::JoinHandle<hyper::Result<http::Response<hyper::body::Incoming>>>;

/// Sends over HTTP/2 without waiting for the answer.
async fn begin(client: &mut Client, request: http::Request<Sent>) -> Answering {
    let Client::H2(sender) = client else { panic!("only HTTP/2 has several at once") };
    sender.ready().await.unwrap();
    tokio::spawn(sender.send_request(request))
}

#[tokio::test]
async fn malformed_questions_do_not_fill_the_recording() {
    let kit = Kit::start(Options { dns: true, ..Options::default() }).await;
    let begun = Instant::now();
    let asked_too_much = async || {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(kit.proxy).await.unwrap();
            stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
            // No answer, and the connection ends.
            assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0);
        }
        kit.recorded_says("dns-rate-limit")
    };
    until("a note of the limit", asked_too_much).await;
    let noted = kit.recorded_text("dns-unparsed").await.matches("dns-unparsed").count();
    let most = QUESTIONS_AT_ONCE as f64 + QUESTIONS_PER_SECOND * begun.elapsed().as_secs_f64();
    assert!(noted >= QUESTIONS_AT_ONCE && noted as f64 <= most + 1.0, "{noted}, and no more than {most}");
}

#[tokio::test]
async fn denied_names_do_not_use_up_the_signer() {
    const ASKED: usize = 3 * DENIALS_AT_ONCE;
    // Nothing is signed before all have asked: what is allowed in a second does not matter.
    let kit = Arc::new(Kit::start(Options { never_signs: true, ..Options::default() }).await);
    let mut asking = JoinSet::new();
    for number in 0..ASKED {
        let kit = Arc::clone(&kit);
        asking.spawn(async move { kit.tls(&format!("n{number}.denied"), &[b"http/1.1"]).await.map(drop) });
    }
    let mut refused = 0;
    until("each is either signed for or refused", async || {
        while let Some(ended) = asking.try_join_next() {
            let error = ended.unwrap().expect_err("nothing is signed");
            assert!(error.to_string().contains("AccessDenied"), "{error}");
            refused += 1;
        }
        kit.signed.load(Ordering::Relaxed) + refused == ASKED
    })
    .await;
    assert!(refused > 0 && ASKED - refused >= DENIALS_AT_ONCE, "{refused}");
    // Who is denied by an alert is denied in the recording.
    kit.recorded_text("too-many-denials").await;
}

#[tokio::test]
async fn held_bodies_of_a_workload_have_one_budget() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h2("masked.test").await;
    // Bodies of unknown length may each become as long as one may be.
    let mut open = Vec::new();
    for _ in 0..HELD_AT_ONCE {
        let (to, body) = kit::origin::fed();
        let request = kit.request("masked.test", "/echo/held").method("POST");
        let request = request.body(BodyExt::boxed_unsync(body)).unwrap();
        to.send(Ok(http_body::Frame::data("a".into()))).await.unwrap();
        open.push((to, begin(&mut client, request).await));
    }
    let (to, fed) = kit::origin::fed();
    let request = kit.request("masked.test", "/echo/held").method("POST");
    let late = begin(&mut client, request.body(BodyExt::boxed_unsync(fed)).unwrap()).await;
    drop(to);
    // What is asked for after it is answered.
    for _ in 0..20 {
        let request = kit.request("masked.test", "/").body(empty()).unwrap();
        assert_eq!(text(client.send(request).await.unwrap()).await, "hello");
    }
    assert!(!late.is_finished(), "it was held beside all others");
    let (to, first) = open.pop().unwrap();
    drop(to);
    assert_eq!(first.await.unwrap().unwrap().status(), 200);
    assert_eq!(late.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn a_body_that_becomes_too_large_for_what_came_ends() {
    let kit = Kit::start(Options::default()).await;
    let mut client = kit.h1("masked.test").await;
    let request = kit.request("masked.test", "/bomb").header("accept-encoding", "gzip");
    let request = request.body(empty()).unwrap();
    let reading = async { client.send(request).await?.into_body().collect().await };
    assert!(reading.await.is_err(), "it was passed on as if it was whole");
    kit.recorded_text("decoded-over-limit").await;
}

#[tokio::test]
async fn a_body_that_becomes_large_does_not_stop_the_others() {
    // The operator lets it become as large as it likes.
    let limits = Limits { decoded_ratio: 10_000, ..Limits::default() };
    let kit = Kit::start(Options { limits, ..Options::default() }).await;
    let mut bomb = kit.h1("masked.test").await;
    // Everything here shares one thread: what it works between two turns of another task is what
    // that task waits, on a machine of its own. The upstream has made its answer by the second time.
    let worked = || Duration::from(ClockId::CLOCK_THREAD_CPUTIME_ID.now().unwrap());
    let mut waits = Vec::new();
    for _ in 0..2 {
        let request = kit.request("masked.test", "/bomb").header("accept-encoding", "gzip");
        let request = request.body(empty()).unwrap();
        let reading = async { bomb.send(request).await?.into_body().collect().await };
        let mut reading = std::pin::pin!(reading);
        let (begun, mut longest) = (worked(), Duration::ZERO);
        let mut turn = begun;
        let mut turns = tokio::time::interval(Duration::from_millis(1));
        loop {
            tokio::select! {
                biased;
                _ = turns.tick() => {
                    longest = longest.max(worked() - turn);
                    turn = worked();
                }
                whole = &mut reading => {
                    waits.push((worked() - begun, longest, whole.unwrap().to_bytes().len()));
                    break;
                }
            }
        }
    }
    let (whole, longest, length) = waits[1];
    assert!(length > 1000 && whole > longest * 8, "{waits:?}");
}

const HEADERS: u8 = 1;

const RST_STREAM: u8 = 3;

const SETTINGS: u8 = 4;
const PING: u8 = 6;

const CONTINUATION: u8 = 9;

/// Whether a client that repeats these frames is cut off; `frames` are those of one turn.
async fn cut_off(kit: &Kit, first: &[u8], frames: impl Fn(u32) -> Vec<u8>, turns: u32) -> bool {
    let stream = kit.tls("masked.test", &[b"h2"]).await.unwrap();
    let (mut from, mut to) = tokio::io::split(stream);
    let sending = async {
        to.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        to.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
        to.write_all(first).await?;
        for turn in 0..turns {
            to.write_all(&frames(turn)).await?;
        }
        to.flush().await?;
        std::future::pending::<std::io::Result<()>>().await
    };
    let reading = async {
        let mut rest = vec![0; 64 * 1024];
        while from.read(&mut rest).await.is_ok_and(|length| length > 0) {}
    };
    let ended = async {
        tokio::select! { _ = sending => {}, () = reading => {} }
    };
    tokio::time::timeout(PATIENCE, ended).await.is_ok()
}

/// Whether a ping that follows these frames is answered.
async fn answered_after(kit: &Kit, frames: &[u8]) -> bool {
    let mut stream = kit.tls("masked.test", &[b"h2"]).await.unwrap();
    let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat();
    let ping = frame(PING, 0, 0, b"are you?");
    stream.write_all(&[&begin, frames, &ping].concat()).await.unwrap();
    while let Ok((kind, flags, payload)) = read_frame(&mut stream).await {
        if (kind, flags, &payload[..]) == (PING, 1, b"are you?") {
            return true;
        }
    }
    false
}

#[tokio::test]
async fn floods_over_http2_are_cut_off() {
    let kit = Kit::start(Options::default()).await;
    let authority = format!("masked.test:{}", kit.upstream.port());
    let length = u8::try_from(authority.len()).unwrap();
    // GET / over https, from the static table, and the authority as it is.
    let head = [&[0x82, 0x87, 0x84, 0x41, length], authority.as_bytes()].concat();
    let one = frame(HEADERS, 5, 1, &head);
    assert!(answered_after(&kit, &one).await, "one request");
    // A head that never ends: fields of 8 KiB.
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x3f][..], &[b'a'; 8192]].concat();
    let begun = frame(HEADERS, 1, 1, &head);
    assert!(cut_off(&kit, &begun, |_| frame(CONTINUATION, 0, 1, &field), 4_000).await, "a head");
    let empty = frame(CONTINUATION, 0, 1, &[]);
    assert!(cut_off(&kit, &begun, |_| empty.repeat(100), 4_000).await, "empty frames");
    let reset = |turn: u32| {
        let ids = (0..50).map(|at| (turn * 50 + at) * 2 + 1);
        let frames =
            ids.flat_map(|id| [frame(HEADERS, 5, id, &head), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])]);
        frames.flatten().collect()
    };
    assert!(cut_off(&kit, &[], reset, 4_000).await, "resets");
    // Nobody else is hurt.
    assert_eq!(status(&kit, "GET /", "").await, "200");
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_stop_another() {
    let kit = Kit::start(Options::default()).await;
    let mut stalled = kit.h2("allowed.test").await;
    let mut answers = Vec::new();
    for _ in 0..8 {
        let request = kit.request("allowed.test", "/endless").body(empty()).unwrap();
        answers.push(stalled.send(request).await.unwrap());
    }
    // Until nothing moves any more, whatever the windows are.
    let mut before = 0;
    let stalled = async || {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = kit.scene.endless.load(Ordering::Relaxed);
        now == std::mem::replace(&mut before, now)
    };
    until("the windows are full", stalled).await;
    let mut other = kit.h2("allowed.test").await;
    let answer = other.send(kit.request("allowed.test", "/").body(empty()).unwrap());
    let answer = tokio::time::timeout(PATIENCE, async { text(answer.await.unwrap()).await });
    assert_eq!(answer.await.expect("it waited for others"), "hello");
    drop(answers);
}
