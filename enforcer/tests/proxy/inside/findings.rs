//! What is found in a request decides what becomes of it, wherever in it that stands.

use std::io::Write as _;

use base64::Engine as _;
use enforcer::approval::{Account, Desk, Listed, People, PersonId, Scope, Spoken};
use enforcer::policy::Group;

use super::*;

const FOUND: &str = r#"
version: 1
name: t
rules:
  - {id: net, when: {host: "**.test"}, addresses: [loopback]}
  - {id: key, when: {host: allowed.test, cel: '"DEPLOY_KEY" in findings'}, deny: no keys}
  - {id: card, when: {host: allowed.test, cel: '"CARD_NUMBER" in findings'}, deny: no cards}
  - {id: mail, when: {host: allowed.test, cel: '"EMAIL" in findings'}, deny: no addresses}
  - {id: clean, when: {host: masked.test, path: /clean, cel: 'size(findings) == 0'}, allow: true}
  - id: ask
    when: {host: masked.test, path: /echo, cel: '"EMAIL" in findings'}
    hold: {message: it has an address in it, needs: [{people: 1, groups: [ops]}], excludes_self: false}
  - {id: addresses, when: {host: masked.test, cel: '"EMAIL" in findings'}, mask: {request: [pii]}}
  - {id: all, when: {host: [allowed.test, masked.test]}, allow: true}
"#;

const MAIL: &str = "ann.smith@customer-mail.com";

#[tokio::test]
async fn it_is_found_wherever_it_stands_and_nothing_of_it_has_gone_out() {
    let world = World::new(FOUND).await;
    let zip = |text: &str| {
        let mut zip = Vec::new();
        let mut coder = flate2::write::GzEncoder::new(&mut zip, flate2::Compression::default());
        coder.write_all(text.as_bytes()).unwrap();
        coder.finish().unwrap();
        zip
    };
    let json =
        |text: &str| format!(r#"{{"messages":[{{"content":"to {}"}}]}}"#, text.replace('@', "\\u0040"));
    for h2 in [false, true] {
        for secret in [MAIL, SECRET] {
            let post = |path: &str, body: Vec<u8>| world.post("allowed.test", path, body);
            let in_field = {
                let mut request = post("/echo", b"x".to_vec());
                request.headers_mut().insert("x-note", secret.parse().unwrap());
                request
            };
            let coded = {
                let mut request = post("/echo", zip(secret));
                request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
                request
            };
            let model = {
                let mut request = post("/v1/messages", json(secret).into_bytes());
                request.headers_mut().insert("content-type", "application/json".parse().unwrap());
                request
            };
            for (what, request) in [
                ("body", post("/echo", format!("{} {secret}", "x".repeat(100_000)).into_bytes())),
                ("query", post(&format!("/echo?to={}", secret.replace('@', "%40")), b"x".to_vec())),
                ("path", post(&format!("/echo/{secret}"), b"x".to_vec())),
                ("field", in_field),
                ("coding", coded),
                ("archive", post("/echo", zip(secret))),
                ("model", model),
            ] {
                let before = world.arrived();
                let response = world.send(request, h2).await;
                assert_eq!(response.status(), StatusCode::FORBIDDEN, "{h2} {what} {secret}");
                let said = text(response).await;
                let why = if secret == MAIL { "no addresses" } else { "no keys" };
                assert!(said.contains(why), "{what} {said}");
                assert_eq!(world.arrived(), before, "{what}");
            }
            let clean = post("/echo", b"nothing of that kind".to_vec());
            assert_eq!(world.send(clean, h2).await.status(), StatusCode::OK);
            let mut broken = post("/echo", b"no gzip".to_vec());
            broken.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
            assert_eq!(world.send(broken, h2).await.status(), StatusCode::FORBIDDEN);
        }
    }
    let recorded = world.kit.recorded();
    assert!(memchr::memmem::find(&recorded, SECRET.as_bytes()).is_none());
}

#[tokio::test]
async fn what_another_finding_overlaps_with_is_found_too() {
    let world = World::new(FOUND).await;
    // The address begins inside of a URL with a password in it.
    let body = format!("postgres://user:hunter2-{MAIL}/db");
    let response = world.send(world.post("allowed.test", "/echo", body), true).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn what_comes_last_and_in_trailers_counts_too() {
    let world = World::new(FOUND).await;
    for (last, in_trailer) in [(true, false), (false, true)] {
        let before = world.arrived();
        let (to, body) = crate::kit::origin::fed();
        let mut request = world.kit.request("allowed.test", "/echo").body(body.boxed_unsync()).unwrap();
        *request.method_mut() = Method::POST;
        let mut client = world.kit.h2("allowed.test").await;
        let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
        to.send(Ok(Frame::data(Bytes::from("x".repeat(1000))))).await.unwrap();
        to.send(Ok(Frame::data(Bytes::from(" ann.smith@customer")))).await.unwrap();
        if last {
            to.send(Ok(Frame::data(Bytes::from("-mail.com")))).await.unwrap();
        }
        if in_trailer {
            let mut trailers = http::HeaderMap::new();
            trailers.insert("x-to", MAIL.parse().unwrap());
            to.send(Ok(Frame::trailers(trailers))).await.unwrap();
        }
        drop(to);
        assert_eq!(answer.await.unwrap().status(), StatusCode::FORBIDDEN, "{last} {in_trailer}");
        assert_eq!(world.arrived(), before);
    }
}

#[tokio::test]
async fn a_rule_masks_what_is_found_and_one_allows_what_has_nothing() {
    let world = World::new(FOUND).await;
    for h2 in [false, true] {
        let request = world.post("masked.test", "/v1/chat/completions", MAIL);
        assert_eq!(world.send(request, h2).await.status(), StatusCode::OK);
        let recorded = world.kit.recorded_text("[MASKED:EMAIL]").await;
        assert!(!recorded.contains(MAIL));
        let clean = world.post("masked.test", "/clean", "x");
        let response = world.send(clean, h2).await;
        assert_ne!(response.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn messages_that_have_not_come_are_not_clean() {
    let world = World::new(FOUND).await;
    let mut request = world.kit.request("allowed.test", "/ws").body(empty()).unwrap();
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    assert_eq!(world.send(request, false).await.status(), StatusCode::FORBIDDEN);
    let mut request = world.post("allowed.test", "/a.Service/Method", &b"\0\0\0\0\0"[..]);
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let response = world.send(request, true).await;
    // Denied as gRPC says it.
    assert!(response.headers().contains_key("grpc-status"), "{response:?}");
    assert_eq!(world.arrived(), 0);
}

#[tokio::test]
async fn what_is_held_for_a_finding_goes_out_as_it_was_and_once() {
    let journal = tempfile::tempdir().unwrap();
    let login = || Account::subject("https://idp.test", "ann");
    let mut people = People::default();
    people.map(login(), PersonId::new("ann")).unwrap();
    people.set_groups(login(), [Group::new("ops")]);
    let desk = Desk::open(journal.path(), people, "boot").unwrap();
    let (policy, approvals) = (Some(FOUND), Some(desk.clone()));
    let world = World { kit: Kit::start(Options { policy, approvals, ..Options::default() }).await };
    for (round, h2) in [false, true].into_iter().enumerate() {
        let body = format!("{round} write to {MAIL} {}", "y".repeat(70_000));
        let request = world.post("masked.test", "/echo", body.clone());
        let mut client = world.kit.client("masked.test", h2).await;
        let answer = tokio::spawn(async move { client.send(request).await.unwrap() });
        let open = async || desk.list(false).await.unwrap();
        until("somebody is asked", async || open().await.len() == 1).await;
        assert_eq!(world.arrived(), round, "nothing has gone out");
        let asked: Listed = open().await.remove(0);
        let view = serde_json::to_string(&asked.approval.view).unwrap();
        assert!(view.contains("it has an address in it") && !view.contains(MAIL), "{view}");
        let (approval, seen) = (asked.approval.id, asked.approval.seen);
        let (groups, scope) = (vec![Group::new("ops")], Some(Scope::Once));
        desk.decide(Spoken { approval, seen, by: login(), groups, scope, reason: None }).await.unwrap();
        let answer = answer.await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(text(answer).await, body, "the rule that masks stands behind the one that decides");
        assert_eq!(world.arrived(), round + 1);
    }
    // Without an address nobody is asked.
    let response = world.send(world.post("masked.test", "/echo", "none"), true).await;
    assert_eq!(response.status(), StatusCode::OK);
}

/// An archive with a text in it.
fn archive(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut coder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    coder.write_all(content.as_ref()).unwrap();
    coder.finish().unwrap()
}

fn framed(inner: &[u8], trailer: &str) -> Vec<u8> {
    [format!("{:x}\r\n", inner.len()).as_bytes(), inner, b"\r\n0\r\n", trailer.as_bytes(), b"\r\n"].concat()
}

#[tokio::test]
async fn frames_hide_nothing() {
    let world = World::new(FOUND).await;
    let card = "x-amz-checksum-crc32:4111111111111111\r\n";
    let cases: [(&str, &str, Vec<u8>, StatusCode); 6] = [
        ("archive", "aws-chunked", framed(&archive(MAIL), ""), StatusCode::FORBIDDEN),
        ("coded archive", "gzip, aws-chunked", framed(&archive(archive(MAIL)), ""), StatusCode::FORBIDDEN),
        ("coded", "gzip,aws-chunked", framed(&archive(MAIL), ""), StatusCode::FORBIDDEN),
        ("trailer", "aws-chunked", framed(b"abc", card), StatusCode::FORBIDDEN),
        ("no frames", "aws-chunked", b"abc".to_vec(), StatusCode::FORBIDDEN),
        ("clean", "aws-chunked", framed(b"abc", "x-amz-checksum-crc32:AAAA\r\n"), StatusCode::OK),
    ];
    for (what, coding, body, status) in cases {
        let mut request = world.post("allowed.test", "/echo", body);
        request.headers_mut().insert("content-encoding", coding.parse().unwrap());
        assert_eq!(world.send(request, true).await.status(), status, "{what}");
    }
}

#[tokio::test]
async fn parts_of_a_coded_body_are_looked_into_and_those_that_can_be_cut_in_two_ways_are_not_clean() {
    let world = World::new(FOUND).await;
    let part = |text: &str| [&b"--b\r\n\r\n"[..], &archive(text), b"\r\n--b--\r\n"].concat();
    let form = "multipart/form-data; boundary=b";
    for (text, kind, status) in [
        ("nothing", form, 200),
        (MAIL, form, 403),
        ("nothing", "multipart/form-data; boundary=b; boundary=c", 403),
        ("nothing", "multipart/form-data", 403),
        ("nothing", "text/plain", 200),
    ] {
        let body = archive(part(text));
        let mut request = world.post("allowed.test", "/echo", body);
        request.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        assert_eq!(world.send(request, true).await.status().as_u16(), status, "{kind}");
    }
}

#[tokio::test]
async fn the_path_of_a_model_hides_nothing() {
    let world = World::new(FOUND).await;
    // An address in a document that a request to a model carries.
    let line = "A line of a letter.\n".repeat(20);
    let document = format!("%PDF-1.7\n{line}write to {MAIL} there\n{line}");
    let file = base64::engine::general_purpose::STANDARD.encode(document);
    let body = format!(r#"{{"messages":[{{"file":{{"file_data":"data:application/pdf;base64,{file}"}}}}]}}"#);
    for path in ["/echo", "/v1/chat/completions"] {
        let mut request = world.post("allowed.test", path, body.clone());
        request.headers_mut().insert("content-type", "application/json".parse().unwrap());
        assert_eq!(world.send(request, true).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
}
