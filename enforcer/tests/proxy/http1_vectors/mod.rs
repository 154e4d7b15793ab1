//! Requests that servers read in different ways: what must be refused is refused,
//! and for everything else the requests that arrive at the upstream, read from
//! its raw bytes, are those that stand in the session recording.
//!
//! Every payload goes through the whole proxy on loopback: with TLS and without,
//! its bodies streamed and held. The project's own payloads always run; those that
//! others collected run if `ENFORCER_VECTORS` names their folder.

mod drive;
mod judge;
mod pins;
mod recorded;
mod vectors;
mod wire;
mod witness;

use drive::{QUIET, WAYS, send};
use enforcer::protocol::http::strict::{self, Validator};
use futures_util::StreamExt;
use judge::{compare, judge};
use vectors::Case;

use crate::kit::PATIENCE;

const POLICY: &str = r#"
version: 1
name: test
rules:
  - id: loopback
    when: { host: "*.test" }
    addresses: [loopback]
  - id: held
    when: { host: held.test }
    body: inspect
  - id: path
    when: { path: /denied }
    deny: not this path
  - id: rest
    when: { host: [allowed.test, held.test] }
    allow: true
"#;

/// Connections at the same time; most of them wait.
const AT_ONCE: usize = 24;

/// Sends one payload every way: what is wrong.
async fn every_way(case: Case) -> Vec<String> {
    let pin = pins::of(&case.name);
    let expected = pin.map_or(case.expected, |pin| pin.expected);
    let (mut wrong, mut as_wanted) = (Vec::new(), true);
    for way in WAYS {
        let sending = send(
            way,
            0,
            |authority| case.bytes(authority, way.tls),
            |statuses| case.patience(expected, statuses),
        );
        match Box::pin(sending).await {
            Err(why) => wrong.push(format!("{} {way:?}: {why}", case.name)),
            Ok(seen) => {
                as_wanted &= judge(&case, case.expected, &seen).is_empty();
                let sent = String::from_utf8_lossy(&seen.sent);
                for why in judge(&case, expected, &seen) {
                    wrong.push(format!("{} {way:?}: {sent:?} is not {expected:?}: {why}", case.name));
                }
            }
        }
    }
    if let Some(pin) = pin.filter(|_| as_wanted) {
        wrong.push(format!("{} does as it should; it is pinned because {}", case.name, pin.why));
    }
    wrong
}

async fn run(cases: Vec<Case>) {
    let all = futures_util::stream::iter(cases.into_iter().map(every_way));
    let wrong: Vec<String> = all.buffer_unordered(AT_ONCE).concat().await;
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn own_requests() {
    run(vectors::own()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_of_servers() {
    if let Some(cases) = vectors::probes() {
        run(cases).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cases_of_a_parser() {
    if let Some(cases) = vectors::parsed() {
        run(cases).await;
    }
}

/// Two requests with a body that looks like a third.
fn pipeline(paths: [&str; 2], authority: &str) -> Vec<u8> {
    let body = format!("GET /smuggled HTTP/1.1\r\nHost: {authority}\r\n\r\n");
    let request = |path| {
        let length = body.len();
        format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    paths.map(request).concat().into_bytes()
}

/// Two requests in one connection, one of which policy denies: cut anywhere, the
/// other one is all that arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_in_a_pipeline_stays_behind() {
    let orders = [["/first", "/denied"], ["/denied", "/second"]];
    let cuts = |order| (0..pipeline(order, "held.test:12345").len()).map(move |cut| (order, cut));
    let all = orders.into_iter().flat_map(cuts).map(|(order, cut)| async move {
        let way = WAYS[cut % WAYS.len()];
        let both = |statuses: &[u16]| if statuses.len() == order.len() { QUIET } else { PATIENCE };
        let seen = Box::pin(send(way, cut, |authority| pipeline(order, authority), both)).await.unwrap();
        assert_eq!(compare(&seen), Vec::<String>::new(), "{way:?} {order:?} {cut}");
        let arrived: Vec<_> = seen.arrived.whole.iter().map(|request| request.target.as_str()).collect();
        match (order[0], &arrived[..], &seen.statuses[..]) {
            ("/first", ["/first"], [200, 403]) | ("/denied", ["/second"], [403, 200]) => {}
            // A denial that goes out before all of its body is there ends the connection.
            ("/denied", [], [403]) if cut > 0 && seen.closed => {}
            other => panic!("{way:?}, cut at {cut}: {other:?}"),
        }
        assert!(seen.arrived.partial.is_empty(), "{:?}", seen.arrived.partial);
        assert_eq!(seen.recorded.denied, ["policy-deny"]);
    });
    futures_util::stream::iter(all).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

/// What the proxy's reader makes of bytes that come in pieces of this size.
fn read_in(pieces: usize, bytes: &[u8]) -> (Option<&'static str>, Vec<u8>) {
    let mut validator = Validator::new(strict::Limits::default(), "nonce".to_owned());
    let mut out = Vec::new();
    for piece in bytes.chunks(pieces) {
        validator.push(piece);
        out.extend_from_slice(&validator.ready().split());
    }
    validator.end();
    out.extend_from_slice(&validator.ready().split());
    (validator.reason(), out)
}

/// The network cuts where it likes.
#[test]
fn pieces_make_no_difference() {
    let shared = [vectors::probes(), vectors::parsed()].into_iter().flatten().flatten();
    for case in vectors::own().into_iter().chain(shared) {
        let bytes = case.bytes("allowed.test", false);
        let whole = read_in(bytes.len(), &bytes);
        for pieces in 1..8 {
            assert_eq!(read_in(pieces, &bytes), whole, "{}: pieces of {pieces}", case.name);
        }
        for cut in 1..bytes.len() {
            let mut validator = Validator::new(strict::Limits::default(), "nonce".to_owned());
            validator.push(&bytes[..cut]);
            validator.push(&bytes[cut..]);
            validator.end();
            let got = (validator.reason(), validator.ready().to_vec());
            assert_eq!(got, whole, "{}: cut at {cut}", case.name);
        }
    }
}

#[test]
fn every_pin_belongs_to_a_request() {
    if let (Some(probes), Some(parsed)) = (vectors::probes(), vectors::parsed()) {
        let names: Vec<String> = probes.into_iter().chain(parsed).map(|case| case.name).collect();
        for pin in pins::PINS {
            assert!(names.iter().any(|name| name == pin.name), "there is no {}", pin.name);
        }
    }
}
