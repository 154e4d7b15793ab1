//! Heads over HTTP/2 that no library would send: what arrives at the upstream is one
//! request for the name that was verified, by a path that policy judged.

use tokio::io::AsyncWriteExt;

use crate::kit::{Kit, Options, PATIENCE, frame, read_frame};

const POLICY: &str = r#"
version: 1
name: test
rules:
  - {id: loopback, when: {host: "*.test"}, addresses: [loopback]}
  - {id: secret, when: {host: "*.test", path: ["/denied", "/denied/**"]}, deny: no}
  - {id: fine, when: {host: "*.test"}, allow: true}
"#;

async fn start() -> Kit {
    Kit::start(Options { policy: Some(POLICY), ..Options::default() }).await
}

/// Fields as HPACK literals that enter no table (RFC 7541, section 6.2.2).
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    fields.iter().flat_map(|(name, value)| [vec![0], text(name), text(value)].concat()).collect()
}

/// Sends one head, and a body if there is one, and waits until the proxy has done with it.
async fn send(kit: &Kit, fields: &[(&str, &str)], body: Option<&str>) {
    let mut stream = kit.tls("allowed.test", &[b"h2"]).await.unwrap();
    let end = if body.is_none() { 5 } else { 4 };
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    bytes.extend(frame(1, end, 1, &block(fields)));
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body.as_bytes()));
    }
    stream.write_all(&bytes).await.unwrap();
    // Until there is an answer or a reset on the stream, or the connection ends.
    let answered = async {
        loop {
            if matches!(read_frame(&mut stream).await?.0, 1 | 3 | 7) {
                return Ok::<_, std::io::Error>(());
            }
        }
    };
    drop(tokio::time::timeout(PATIENCE, answered).await.expect("neither answer nor reset"));
}

#[tokio::test]
async fn no_pseudo_header_leads_past_policy() {
    let kit = start().await;
    let authority = format!("allowed.test:{}", kit.upstream.port());
    let base = [(":method", "GET"), (":scheme", "https"), (":authority", authority.as_str())];
    for path in [
        "/denied",
        "//denied",
        "/./denied",
        "/a/../denied",
        "/%64enied",
        "/denied?x",
        "/denied#x",
        "/denied;x",
        "/denied/%2e",
        "denied",
        "",
        "*",
        "?x",
        "https://allowed.test/denied",
        "//allowed.test/denied",
        "/\\denied",
        "/denied\\x",
        "/a\u{0}/denied",
        "/a b/denied",
        "/a/..;/denied",
        "/a/%2e%2e/denied",
        "/a/%252e%252e/../../denied",
        "/denied\r\nx: y",
        "/;/denied",
        "/%2fdenied",
        "/a/..%2fdenied",
    ] {
        send(&kit, &[&base[..], &[(":path", path)]].concat(), None).await;
    }
    // Two of all these say something that policy allows.
    let arrived = kit.scene.requests.lock().unwrap().clone();
    let fine = ["/?x", "/allowed.test/denied"].map(|path| ("GET".to_owned(), path.to_owned()));
    assert_eq!(arrived, fine);
}

#[tokio::test]
async fn no_field_stands_where_or_as_it_must_not() {
    let kit = start().await;
    let authority = format!("allowed.test:{}", kit.upstream.port());
    let authority = authority.as_str();
    let base = [(":method", "GET"), (":scheme", "https"), (":authority", authority)];
    for fields in [
        vec![(":path", "/one"), (":path", "/denied")],
        vec![(":path", "/denied"), (":path", "/one")],
        vec![(":path", "/one"), (":authority", "other.test")],
        vec![(":path", "/one"), (":method", "POST")],
        vec![(":path", "/one"), (":protocol", "websocket")],
        vec![(":path", "/one"), (":status", "200")],
        vec![("x", "y"), (":path", "/one")],
        vec![(":path", "/one"), ("host", "other.test")],
        vec![(":path", "/one"), ("connection", "close")],
        vec![(":path", "/one"), ("transfer-encoding", "chunked")],
        vec![(":path", "/one"), ("upgrade", "websocket")],
        vec![(":path", "/one"), ("X-Upper", "y")],
        vec![(":path", "/one"), ("x y", "z")],
        vec![(":path", "/one"), ("x", "y\r\nz: denied")],
        vec![(":path", "/one"), ("te", "gzip")],
        vec![],
    ] {
        send(&kit, &[&base[..], &fields].concat(), None).await;
    }
    for other in ["other.test", "allowed.test", "user@allowed.test", "allowed.test:1", "", "allowed.test:443"]
    {
        let head = [(":method", "GET"), (":scheme", "https"), (":authority", other), (":path", "/one")];
        send(&kit, &head, None).await;
    }
    for scheme in ["http", "", "ftp", "https:"] {
        send(
            &kit,
            &[(":method", "GET"), (":scheme", scheme), (":authority", authority), (":path", "/one")],
            None,
        )
        .await;
    }
    for method in ["CONNECT", "TRACE", "", "GE T", "GET /denied HTTP/1.1\r\n"] {
        let head = [(":method", method), (":scheme", "https"), (":authority", authority), (":path", "/one")];
        send(&kit, &head, None).await;
    }
    send(&kit, &[(":method", "CONNECT"), (":authority", authority)], None).await;
    for length in ["4", "6", "-5", "5, 5", "0x5", ""] {
        let head = [&base[..], &[(":path", "/one"), ("content-length", length)]].concat();
        send(&kit, &head, Some("hello")).await;
    }
    assert_eq!(*kit.scene.requests.lock().unwrap(), []);
}

#[tokio::test]
async fn a_head_as_a_library_sends_it_arrives() {
    let kit = start().await;
    let authority = format!("allowed.test:{}", kit.upstream.port());
    let head =
        [(":method", "POST"), (":scheme", "https"), (":authority", authority.as_str()), (":path", "/one")];
    send(&kit, &[&head[..], &[("content-length", "5"), ("te", "trailers")]].concat(), Some("hello")).await;
    send(&kit, &[&head[..], &[("host", &authority)]].concat(), Some("hello")).await;
    assert_eq!(kit.scene.requests.lock().unwrap().len(), 2);
}
