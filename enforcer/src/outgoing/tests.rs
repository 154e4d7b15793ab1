use super::*;

fn client(plain: bool) -> Client {
    Client::new(None, BTreeMap::new()).unwrap().with_plain_on_loopback(plain)
}

fn why(client: &Client, url: &str) -> Result<bool, String> {
    client.place(&url.parse().unwrap()).map(|place| place.plain).map_err(|error| error.to_string())
}

#[test]
fn only_https_is_spoken_but_to_this_host_where_that_is_wanted() {
    assert_eq!(why(&client(false), "https://issuer.test/x"), Ok(false));
    for url in ["http://issuer.test/", "http://127.0.0.1/", "http://localhost/", "ftp://issuer.test/"] {
        assert!(why(&client(false), url).unwrap_err().contains("only https"), "{url}");
    }
    for url in ["http://127.0.0.1:8080/", "http://127.9.9.9/", "http://[::1]/", "http://LOCALHOST/"] {
        assert_eq!(why(&client(true), url), Ok(true), "{url}");
    }
    for url in ["http://issuer.test/", "http://10.0.0.1/", "http://localhost.test/", "http://0.0.0.0/"] {
        assert!(why(&client(true), url).unwrap_err().contains("only https"), "{url}");
    }
    assert!(why(&client(true), "/x").unwrap_err().contains("no host"));
}

#[test]
fn no_secret_of_an_address_is_told() {
    let told = why(&client(false), "https://user:hunter2@issuer.test/x?token=hunter2").unwrap_err();
    assert!(told.contains("https://issuer.test/x") && !told.contains("hunter2"), "{told}");
    let told = why(&client(false), "http://issuer.test/x?token=hunter2").unwrap_err();
    assert!(!told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn a_name_that_became_loopback_is_not_spoken_to_in_plain_elsewhere() {
    let names = BTreeMap::from([("localhost".to_owned(), vec!["192.0.2.1".parse().unwrap()])]);
    let client = Client::new(None, names).unwrap().with_plain_on_loopback(true);
    let request = Request::get("http://localhost/").body(Bytes::new()).unwrap();
    let limits = Limits { bytes: 1, patience: Duration::from_secs(5) };
    let error = client.send(request, limits).await.unwrap_err();
    assert!(matches!(error, OutgoingError::Connect { .. }), "{error}");
}

/// Answers one connection with these bytes, and says what it was asked.
async fn answering(bytes: Vec<u8>) -> (String, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/path?query=1", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await.unwrap() == 0 {
                break;
            }
            asked.push(byte[0]);
        }
        // Who has heard enough is gone.
        stream.write_all(&bytes).await.ok();
        String::from_utf8(asked).unwrap()
    });
    (url, asked)
}

async fn ask(bytes: &[u8], limit: usize) -> Result<Answer, OutgoingError> {
    let (url, _asked) = answering(bytes.to_vec()).await;
    let request = Request::get(url).body(Bytes::new()).unwrap();
    client(true).send(request, Limits { bytes: limit, patience: Duration::from_secs(5) }).await
}

#[tokio::test]
async fn what_is_asked_is_a_plain_request() {
    let (url, asked) = answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()).await;
    let request = Request::get(&url).header("authorization", "bearer x").body(Bytes::new()).unwrap();
    let limits = Limits { bytes: 2, patience: Duration::from_secs(5) };
    assert_eq!(client(true).send(request, limits).await.unwrap().body, "ok");
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("GET /path?query=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.contains("authorization: bearer x\r\n") && asked.contains("host: 127.0.0.1:"), "{asked}");
}

#[tokio::test]
async fn an_answer_has_an_end_with_and_without_a_length() {
    let sized = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabcd";
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
    for whole in [&sized[..], chunked] {
        assert_eq!(ask(whole, 4).await.unwrap().body, "abcd");
        assert!(matches!(ask(whole, 3).await, Err(OutgoingError::TooLarge { limit: 3, .. })));
        for cut in 0..whole.len() {
            assert!(ask(&whole[..cut], 4).await.is_err(), "cut at {cut}");
        }
    }
}

#[tokio::test]
async fn a_redirect_is_told_and_not_followed() {
    let error =
        ask(b"HTTP/1.1 302 Found\r\nlocation: https://evil.test/\r\ncontent-length: 0\r\n\r\n", 9).await;
    assert!(error.unwrap_err().to_string().contains("`https://evil.test/`"));
    let error = ask(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", 9).await.unwrap_err();
    assert!(
        matches!(error, OutgoingError::Status { status: StatusCode::SERVICE_UNAVAILABLE, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_head_has_an_end() {
    let head = format!("HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n", "x".repeat(4 * MAX_HEAD));
    assert!(matches!(ask(head.as_bytes(), 9).await, Err(OutgoingError::Http { .. })));
}

#[tokio::test]
async fn who_does_not_answer_is_not_waited_for() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let request = Request::get(url).body(Bytes::new()).unwrap();
    let limits = Limits { bytes: 2, patience: Duration::from_millis(50) };
    let error = client(true).send(request, limits).await.unwrap_err();
    assert!(matches!(error, OutgoingError::Late { .. }), "{error}");
}
