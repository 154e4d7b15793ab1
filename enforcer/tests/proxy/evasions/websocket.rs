//! WebSockets: frames beside the messages, and what one counts as.

use enforcer::proxy::Limits;
use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use super::raw;
use crate::kit::websocket::{UPGRADE, echoing};
use crate::kit::{Kit, Options, SECRET, until};

#[tokio::test]
async fn control_frames_of_a_websocket_carry_no_secret() {
    // A ping, a pong that nobody asked for, and a close with its reason.
    let script = b"HTTP/1.1 101 obviously-fake-deploy-key-0123456789\r\nconnection: upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\
        \x89\x24obviously-fake-deploy-key-0123456789\x8a\x24obviously-fake-deploy-key-0123456789\
        \x88\x26\x03\xe8obviously-fake-deploy-key-0123456789";
    let kit = Kit::start(Options { script: Some(script), ..Options::default() }).await;
    let answer = raw(&kit, UPGRADE).await;
    assert!(answer.starts_with("HTTP/1.1 101") && answer.contains("[MASKED:DEPLOY_KEY]"), "{answer}");
    assert!(!answer.contains(SECRET), "{answer}");
    let recorded = kit.recorded_text("\"event\":\"message\"").await;
    assert!(!recorded.contains(SECRET) && recorded.contains("[MASKED:DEPLOY_KEY]"));
}

#[tokio::test]
async fn a_message_longer_than_a_record_passes_and_its_beginning_is_recorded() {
    let kit = Kit::start(Options::default()).await;
    let mut socket = echoing(&kit).await;
    let message = [b"begin", &vec![0xfe; 3 << 20][..], SECRET.as_bytes()].concat();
    socket.send(Message::Binary(message.clone().into())).await.unwrap();
    let back = socket.next().await.unwrap().unwrap().into_data();
    assert!(back.ends_with(b"[MASKED:DEPLOY_KEY]") && back.len() > 3 << 20);
    let recorded = kit.recorded_text("recording-limit").await;
    assert!(recorded.len() < 1 << 20 && recorded.contains("\"event\":\"message\""));
}

#[tokio::test]
async fn control_frames_of_a_job_are_masked_and_what_they_say_is_recorded() {
    let kit = Kit::start(Options::default()).await;
    let mut socket = echoing(&kit).await;
    socket.send(Message::Ping(SECRET.into())).await.unwrap();
    // The ping is answered by the proxy, and the upstream, which sends everything back,
    // shows what it got of it.
    let (mut pong, mut ping) = (None, None);
    while pong.is_none() || ping.is_none() {
        match socket.next().await.unwrap().unwrap() {
            Message::Pong(bytes) => pong = Some(bytes),
            Message::Ping(bytes) => ping = Some(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((pong.unwrap(), ping.unwrap()), (SECRET.into(), "".into()));
    let reason = CloseFrame { code: CloseCode::Normal, reason: format!("bye {SECRET}").into() };
    socket.close(Some(reason)).await.unwrap();
    let recorded = kit.recorded_text("bye [MASKED:DEPLOY_KEY]").await;
    assert!(!recorded.contains(SECRET));
}

#[tokio::test]
async fn a_websocket_counts_as_a_connection_until_it_ends() {
    let limits = Limits { max_connections_per_workload: 1, ..Limits::default() };
    let kit = Kit::start(Options { limits, ..Options::default() }).await;
    let mut socket = echoing(&kit).await;
    // Also after the exchange has handed the connection over.
    for _ in 0..20 {
        socket.send("still here".into()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "still here");
        assert!(kit.tls("masked.test", &[b"http/1.1"]).await.is_err(), "more than the limit are open");
    }
    drop(socket);
    let served = async || kit.tls("masked.test", &[b"http/1.1"]).await.is_ok();
    until("the place is given back", served).await;
}

#[tokio::test]
async fn a_secret_in_two_messages_goes_out_in_neither() {
    let kit = Kit::start(Options::default()).await;
    let mut socket = echoing(&kit).await;
    let (first, second) = SECRET.split_at(20);
    // The first message waits for the second.
    socket.send(format!("a {first}").into()).await.unwrap();
    socket.send(format!("{second} b").into()).await.unwrap();
    for wanted in ["a [MASKED:DEPLOY_KEY]", " b"] {
        assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), wanted);
    }
    // Of another kind and order, and one that was nothing.
    for (sent, wanted) in [
        (vec![Message::Binary(first.into()), second.into()], vec!["[MASKED:DEPLOY_KEY]", ""]),
        (
            vec![Message::from(&first[..5]), (&first[5..]).into(), " other".into()],
            vec![&first[..5], &first[5..], " other"],
        ),
    ] {
        let binary: Vec<bool> = sent.iter().map(Message::is_binary).collect();
        for message in sent {
            socket.send(message).await.unwrap();
        }
        for (wanted, binary) in wanted.into_iter().zip(binary) {
            let back = socket.next().await.unwrap().unwrap();
            assert_eq!((back.is_binary(), back.into_text().unwrap().as_str()), (binary, wanted));
        }
    }
    // What waits at the end was nothing.
    socket.send(first.into()).await.unwrap();
    socket.close(None).await.unwrap();
    let recorded = kit.recorded_text(&format!("\"text\":\"{first}\"")).await;
    assert!(!recorded.contains(SECRET) && !recorded.contains(second), "{recorded}");
}

#[tokio::test]
async fn what_waits_when_a_websocket_breaks_off_is_recorded() {
    let kit = Kit::start(Options::default()).await;
    let mut socket = echoing(&kit).await;
    socket.send("before it".into()).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap().into_text().unwrap().as_str(), "before it");
    socket.send(SECRET[..20].into()).await.unwrap();
    // Without a close frame, once the message is there: the pong comes behind it.
    socket.send(Message::Ping("".into())).await.unwrap();
    while !socket.next().await.unwrap().unwrap().is_pong() {}
    drop(socket);
    kit.recorded_text(&format!("\"text\":\"{}\"", &SECRET[..20])).await;
}
