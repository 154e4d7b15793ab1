//! Receivers that are slow, endless, broken and elsewhere, and jobs that write to the chat.

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::super::tests::{ACTOR, Desk, bound, forge, requirement, submission};
use super::super::{Held, JobKey, Says, Scope, WaiterId};
use super::*;
use crate::mask::MaskedText;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// One request, as it came.
#[derive(Debug)]
struct Came {
    head: String,
    body: Vec<u8>,
}

impl Came {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        let found = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        found.unwrap_or_else(|| panic!("no {name}: {}", self.head))
    }
}

/// Answers the n-th request with the n-th of these, and all others with the last.
async fn receiver(answers: Vec<Vec<u8>>) -> (String, mpsc::UnboundedReceiver<Came>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hooks/hunter2", listener.local_addr().unwrap());
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            let answer = answers[usize::min(number, answers.len() - 1)].clone();
            tokio::spawn(answer_one(stream, answer, tell.clone()));
        }
    });
    (url, told)
}

async fn answer_one(mut stream: TcpStream, answer: Vec<u8>, tell: mpsc::UnboundedSender<Came>) {
    let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
    let came = loop {
        let got = stream.read(&mut buffer).await.unwrap_or(0);
        if got == 0 {
            return;
        }
        all.extend_from_slice(&buffer[..got]);
        let Some(end) = all.windows(4).position(|it| it == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(all[..end].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if all.len() == end + 4 + length.parse::<usize>().unwrap() {
            // As it came: an id has no upper case, a signature has.
            let head = String::from_utf8(all[..end].to_vec()).unwrap();
            break Came { head, body: all[end + 4..].to_vec() };
        }
    };
    tell.send(came).ok();
    stream.write_all(&answer).await.ok();
    match answer.ends_with(b"endless") {
        true => while stream.write_all(&[b'x'; 65536]).await.is_ok() {},
        // Without an end of the connection: an answer ends where it says so.
        false => drop(stream.read(&mut buffer).await),
    }
}

fn hooks(format: &str, url: &str, patience: Duration) -> Webhooks {
    let config = format!("name = 'it'\nformat = '{format}'\nurl_file = '/x'\nsecret_file = '/x'\n");
    let secrets =
        Secrets { url: SecretText::new(url.to_owned()), secret: Some(SecretText::new(SECRET.to_owned())) };
    let sender = Sender { host: "ci-7".to_owned(), page: Some("https://enforcer.test".to_owned()) };
    let pace = Pace { patience, pauses: vec![Duration::from_millis(20); 3], longest: Duration::from_secs(1) };
    let client = Client::new(None, BTreeMap::new()).unwrap();
    let all = [(toml::from_str(&config).unwrap(), Ok(secrets))];
    Webhooks::with_pace(all, sender, client, Handle::current(), &pace)
}

/// The next that comes, or the test fails.
async fn next(came: &mut mpsc::UnboundedReceiver<Came>) -> Came {
    let came = tokio::time::timeout(Duration::from_secs(30), came.recv());
    came.await.expect("nothing comes").unwrap()
}

/// Waits until so many are neither on their way nor to be sent again; the status then.
async fn settled(hooks: &Webhooks) -> Value {
    for _ in 0..3000 {
        let status = hooks.status().remove(0);
        if status["waiting"] == 0 {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it does not come to an end: {:?}", hooks.status());
}

fn counts(status: &Value) -> [u64; 4] {
    ["sent", "failed", "dropped", "outdated"].map(|name| status[name].as_u64().unwrap())
}

/// The approval of a held statement, while it waits.
fn asked(desk: &mut Desk, held: &Held, number: u32) -> (WaiterId, Approval) {
    let (needed, job) = (requirement(1), format!("job {number}"));
    let mut submission = submission(&needed, bound("/", number));
    submission.job = JobKey::new(&job);
    submission.held = held;
    submission.actor = Some(&ACTOR);
    let waiter = desk.wait(&submission);
    (waiter, desk.store.news().remove(0))
}

fn text(text: &str) -> MaskedText {
    MaskedText::fixed(text.to_owned().leak())
}

#[tokio::test]
async fn a_program_is_told_what_waits_and_how_it_ended_and_can_tell_that_it_is_from_here() {
    let (url, mut came) = receiver(vec![OK.to_vec()]).await;
    let hooks = hooks("generic", &url, Duration::from_secs(5));
    let mut desk = Desk::new();
    let held = Held {
        repository: Some(text("acme/app")),
        run: Some(text("https://github.com/acme/app/actions/runs/1")),
        actor: Some(text("mona")),
        author: Some(text("ann@github.com")),
        host: text("a.test"),
        statement: text("POST https://a.test/\nx: \u{1b}[2J"),
        effect: Some(text("publishes")),
        message: None,
    };
    let (waiter, approval) = asked(&mut desk, &held, 1);
    hooks.tell(approval);
    let first = next(&mut came).await;
    let said = first.json();
    for (at, want) in [
        ("/version", json!(1)),
        ("/event", "approval.pending".into()),
        ("/host", "ci-7".into()),
        ("/approval", waiter.approval().to_string().into()),
        ("/state", "pending".into()),
        ("/applies", "waiting".into()),
        ("/who/repository", "acme/app".into()),
        ("/who/run", "https://github.com/acme/app/actions/runs/1".into()),
        ("/who/actor", "mona".into()),
        ("/who/author", "ann@github.com".into()),
        ("/what/host", "a.test".into()),
        ("/what/statement", "POST https://a.test/\nx: <U+001B>[2J".into()),
        ("/what/effect", "publishes".into()),
        ("/rule", "policy/rule".into()),
        ("/message", Value::Null),
        ("/needs/0/people", 1.into()),
        ("/since", "1970-01-01T00:16:40Z".into()),
        ("/until", "1970-01-01T00:26:40Z".into()),
        ("/link", format!("https://enforcer.test/approvals/{}", waiter.approval()).into()),
        ("/decision", Value::Null),
    ] {
        assert_eq!(said.pointer(at), Some(&want), "{at}: {said}");
    }
    // As a receiver verifies it.
    let signed = |came: &Came| {
        let at = came.header("webhook-timestamp").parse().unwrap();
        Signer::new(SECRET).unwrap().sign(came.header("webhook-id"), at, &came.body)
    };
    assert_eq!(first.header("webhook-signature"), signed(&first));
    assert_eq!(said["id"], first.header("webhook-id"));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    assert!(first.header("webhook-timestamp").parse::<u64>().unwrap().abs_diff(now) < 60);
    desk.pass(10);
    desk.yes("ann", waiter.approval());
    hooks.tell(desk.store.news().remove(0));
    let second = next(&mut came).await;
    let said = second.json();
    assert_ne!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(said["event"], "approval.approved");
    let want = json!({"at": "1970-01-01T00:16:50Z", "by": ["ann of https://idp.test"], "break_glass": false, "reason": null});
    assert_eq!(said["decision"], want);
    assert_eq!(counts(&settled(&hooks).await), [2, 0, 0, 0]);
}

#[tokio::test]
async fn every_end_is_told_and_nothing_else() {
    let mut desk = Desk::new();
    let kinds = |desk: &mut Desk| {
        desk.store.news().iter().map(|it| Kind::of(&it.standing).as_str()).collect::<Vec<_>>().join(" ")
    };
    let held = Held { host: text("a.test"), statement: text("POST /"), ..Held::default() };
    let open = |desk: &mut Desk, number| asked(desk, &held, number).0;
    let (one, two, three) = (open(&mut desk, 1), open(&mut desk, 2), open(&mut desk, 3));
    desk.says(&super::super::tests::login("ann"), one.approval(), Says::Reject);
    assert_eq!(kinds(&mut desk), "rejected");
    desk.store.gone(two, desk.now).unwrap();
    assert_eq!(kinds(&mut desk), "cancelled");
    // A vote that changes nothing is no news, and neither is somebody who may not vote.
    desk.says(&forge("actor"), three.approval(), Says::Approve(Scope::Once));
    assert_eq!(kinds(&mut desk), "");
    desk.pass(601);
    desk.store.tick(desk.now).unwrap();
    assert_eq!(kinds(&mut desk), "expired");
}

#[tokio::test]
async fn what_fails_for_a_while_is_sent_again_as_the_same_message() {
    let busy = b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n".to_vec();
    let many = b"HTTP/1.1 429 Many\r\ncontent-length: 0\r\n\r\n".to_vec();
    let (url, mut came) = receiver(vec![busy, many, OK.to_vec()]).await;
    let hooks = hooks("generic", &url, Duration::from_secs(5));
    hooks.tell(asked(&mut Desk::new(), &Held::default(), 1).1);
    let ids = [next(&mut came).await, next(&mut came).await, next(&mut came).await];
    assert!(ids.iter().all(|came| came.header("webhook-id") == ids[0].header("webhook-id")));
    assert_eq!(counts(&settled(&hooks).await), [1, 0, 0, 0]);
}

#[tokio::test]
async fn who_asks_for_a_pause_is_not_asked_before_and_gets_no_day_of_it() {
    let busy = b"HTTP/1.1 429 Many\r\nretry-after: 86400\r\ncontent-length: 0\r\n\r\n".to_vec();
    let odd = b"HTTP/1.1 503 Busy\r\nretry-after: -1\r\ncontent-length: 0\r\n\r\n".to_vec();
    let (url, mut came) = receiver(vec![busy, odd, OK.to_vec()]).await;
    let hooks = hooks("generic", &url, Duration::from_secs(5));
    let begun = Instant::now();
    hooks.tell(asked(&mut Desk::new(), &Held::default(), 1).1);
    next(&mut came).await;
    next(&mut came).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    next(&mut came).await;
    assert_eq!(counts(&settled(&hooks).await), [1, 0, 0, 0]);
}

#[tokio::test]
async fn it_is_given_up_after_so_many_attempts_or_at_once_where_no_other_helps() {
    let status = |line: &str| format!("HTTP/1.1 {line}\r\ncontent-length: 0\r\n\r\n").into_bytes();
    let elsewhere = b"HTTP/1.1 307 T\r\nlocation: http://127.0.0.1:1/hunter2\r\ncontent-length: 0\r\n\r\n";
    for (answer, attempts, says) in [
        (status("500 E"), 4, "status 500"),
        (status("408 E"), 4, "status 408"),
        (status("404 E"), 1, "status 404"),
        (status("410 E"), 1, "status 410"),
        (elsewhere.to_vec(), 1, "no redirect is followed"),
        (b"SSH-2.0-x\r\n".to_vec(), 4, "broke off"),
        // It never says anything.
        (Vec::new(), 4, "did not answer within"),
        (b"HTTP/1.1 200 OK\r\nx: endless".to_vec(), 4, "broke off"),
    ] {
        let (url, mut came) = receiver(vec![answer]).await;
        let hooks = hooks("generic", &url, Duration::from_millis(500));
        hooks.tell(asked(&mut Desk::new(), &Held::default(), 1).1);
        let status = settled(&hooks).await;
        assert_eq!(counts(&status), [0, 1, 0, 0], "{says}");
        let why = status["last_failure"].as_str().unwrap();
        assert!(why.contains(says) && !why.contains("hunter2"), "{says}: {why}");
        drop(hooks);
        let mut count = 0;
        while came.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, attempts, "{says}");
    }
}

#[tokio::test]
async fn an_answer_without_an_end_is_taken_for_what_its_head_says() {
    let endless = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffff\r\nendless".to_vec();
    let (url, _came) = receiver(vec![endless]).await;
    let hooks = hooks("slack", &url, Duration::from_secs(20));
    let begun = Instant::now();
    hooks.tell(asked(&mut Desk::new(), &Held::default(), 1).1);
    assert_eq!(counts(&settled(&hooks).await), [1, 0, 0, 0]);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn as_many_wait_as_may_and_one_more_is_dropped_and_nobody_waits_for_that() {
    let (url, _came) = receiver(vec![Vec::new()]).await;
    let hooks = hooks("generic", &url, Duration::from_secs(600));
    let approval = asked(&mut Desk::new(), &Held::default(), 1).1;
    let begun = Instant::now();
    for _ in 0..QUEUE {
        hooks.tell(approval.clone());
    }
    assert_eq!(counts(&hooks.status()[0]), [0, 0, 0, 0]);
    hooks.tell(approval);
    let status = hooks.status().remove(0);
    assert_eq!(counts(&status), [0, 0, 1, 0]);
    assert_eq!(status["waiting"], QUEUE);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nobody_is_asked_what_is_over() {
    let (url, mut came) =
        receiver(vec![b"HTTP/1.1 500 E\r\ncontent-length: 0\r\n\r\n".to_vec(), OK.to_vec()]).await;
    let mut hooks = hooks("generic", &url, Duration::from_secs(5));
    // Long enough for the end to come first.
    Arc::get_mut(&mut hooks.hooks[0]).unwrap().pace.pauses = vec![Duration::from_secs(1)];
    let mut desk = Desk::new();
    let (waiter, approval) = asked(&mut desk, &Held::default(), 1);
    hooks.tell(approval);
    assert_eq!(next(&mut came).await.json()["state"], "pending");
    desk.yes("ann", waiter.approval());
    hooks.tell(desk.store.news().remove(0));
    assert_eq!(next(&mut came).await.json()["state"], "approved");
    assert_eq!(counts(&settled(&hooks).await), [1, 0, 0, 1]);
    assert!(came.try_recv().is_err());
    assert!(hooks.open.lock().unwrap().is_empty());
}

#[tokio::test]
async fn one_that_cannot_be_used_says_so_and_sends_nothing() {
    let config: WebhookConfig = toml::from_str("name = 'it'\nurl_file = '/x'\nsecret_file = '/x'\n").unwrap();
    let secret = |url: &str, secret: &str| {
        Ok(Secrets { url: SecretText::new(url.to_owned()), secret: Some(SecretText::new(secret.to_owned())) })
    };
    for (secrets, says) in [
        (Err("others can read it".to_owned()), "others can read it"),
        (secret("https://a.test/hunter2", "short"), "24 to 256 bytes"),
        (secret("http://a.test/hunter2", SECRET), "not https"),
        (secret("https://a:hunter2@a.test/", SECRET), "a password"),
    ] {
        let client = Client::new(None, BTreeMap::new()).unwrap();
        let all = [(config.clone(), secrets)];
        let hooks = Webhooks::new(all, Sender::default(), client, Handle::current());
        hooks.tell(asked(&mut Desk::new(), &Held::default(), 1).1);
        let status = hooks.status().remove(0);
        let problem = status["problem"].as_str().unwrap();
        assert!(problem.contains(says) && !problem.contains("hunter2"), "{problem}");
        assert_eq!((counts(&status), &status["waiting"]), ([0; 4], &json!(0)));
    }
}

/// What jobs may write, in every place that they have.
fn hostile() -> Vec<String> {
    let evil = [
        "<!channel> <!here> <@U123> <https://evil.test|click> & &lt;!channel&gt;",
        "`*bold*` ```\n<!everyone>``` _x_ ~y~ @channel @here :tada:",
        "[click](https://evil.test) <at>everyone</at> {{DATE(2020-01-01T00:00:00Z, SHORT)}} **x**",
        "\u{1b}[2J\u{202e}\0\r\n\u{2028}",
    ];
    let mut all: Vec<String> = evil.iter().map(|it| (*it).to_owned()).collect();
    // As much as there can be of what takes most room.
    for letter in ["`", "<", "&", "{{", "\n", "\"", "\\", "\u{1f600}", "<!channel>\n"] {
        all.push(letter.repeat(9000 / letter.len()));
    }
    all
}

fn everywhere(evil: &str) -> Approval {
    let it = || Some(text(evil));
    let held = Held {
        repository: it(),
        run: it(),
        actor: it(),
        author: it(),
        host: text(evil),
        statement: text(evil),
        effect: it(),
        message: it(),
    };
    asked(&mut Desk::new(), &held, 1).1
}

fn texts<'a>(value: &'a Value, name: &str, into: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            into.extend(fields.get(name).and_then(Value::as_str));
            fields.values().for_each(|value| texts(value, name, into));
        }
        Value::Array(all) => all.iter().for_each(|value| texts(value, name, into)),
        _ => {}
    }
}

#[test]
fn nothing_that_a_job_writes_is_markup_or_a_mention_in_slack() {
    let sender = Sender { host: "ci-7".to_owned(), page: Some("https://enforcer.test".to_owned()) };
    for evil in hostile() {
        let approval = everywhere(&evil);
        let said = chat::slack(&Message::new("msg", &approval, &sender));
        let mut all = Vec::new();
        texts(&said, "text", &mut all);
        for one in all {
            // A section has 3,000 letters at most, and a message that is longer is refused.
            assert!((1..=3000).contains(&one.chars().count()), "{}: {evil:.40}", one.len());
            let ours = one.replace("<https://enforcer.test/approvals/apr-0|Look at it, and decide>", "");
            assert!(!ours.contains(['<', '>']), "{ours}");
            let entities = ["&amp;", "&lt;", "&gt;"];
            let bare = entities.iter().fold(ours.clone(), |text, it| text.replace(it, ""));
            assert!(!bare.contains('&'), "{ours}");
            // Outside of what stands between backticks nothing is of a job.
            let fenced = ours.strip_prefix("```").and_then(|it| it.strip_suffix("```"));
            let outside: String = match fenced {
                Some(inside) => {
                    assert!(!inside.contains('`'), "{inside}");
                    String::new()
                }
                None => ours.split('`').step_by(2).collect(),
            };
            assert!(!outside.contains("evil") && !outside.contains("channel"), "{outside}");
            assert_eq!(ours.matches('`').count() % 2, 0, "{ours}");
        }
        let blocks = said["blocks"].as_array().unwrap();
        assert!(blocks.iter().all(|block| block["text"]["verbatim"] == true), "{said}");
    }
}

#[test]
fn nothing_that_a_job_writes_is_markup_or_a_mention_in_teams() {
    let sender = Sender { host: "ci-7".to_owned(), page: None };
    for evil in hostile() {
        let approval = everywhere(&evil);
        let said = chat::teams(&Message::new("msg", &approval, &sender));
        assert!(said.to_string().len() < 28_000, "{}: {evil:.40}", said.to_string().len());
        let card = &said["attachments"][0]["content"];
        assert_eq!(card["actions"], json!([]), "{said}");
        for block in card["body"].as_array().unwrap() {
            match block["type"].as_str() {
                // Knows Markdown: words of ours alone.
                Some("TextBlock") => assert_eq!(block["text"], "apr-0 waits for people"),
                Some("RichTextBlock") => {
                    let all = block["inlines"].as_array().unwrap();
                    assert!(
                        all.iter()
                            .all(|it| it["type"] == "TextRun" && !it["text"].to_string().contains("{{"))
                    );
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn of_a_long_statement_a_chat_shows_both_ends_and_that_there_is_more() {
    let long = format!("head{}tail", "x\n".repeat(3000));
    let approval = everywhere(&long);
    let sender = Sender::default();
    let message = Message::new("msg", &approval, &sender);
    for said in [chat::slack(&message).to_string(), chat::teams(&message).to_string()] {
        for part in ["head", "tail", "not all of it is shown"] {
            assert!(said.contains(part), "{part}: {said}");
        }
    }
}

#[test]
fn a_run_is_a_link_where_it_leads_where_it_seems_to() {
    let sender = Sender::default();
    for (run, link) in [
        ("https://github.com/acme/app/actions/runs/1", true),
        ("https://github.com/acme/app/actions/runs/1|evil", false),
        ("https://github.com@evil.test/", false),
        ("http://github.com/", false),
        ("javascript:alert(1)", false),
    ] {
        let held = Held { run: Some(text(run)), ..Held::default() };
        let approval = asked(&mut Desk::new(), &held, 1).1;
        let message = Message::new("msg", &approval, &sender);
        assert_eq!(chat::slack(&message).to_string().contains("|The run>"), link, "{run}");
        assert_eq!(chat::teams(&message).to_string().contains("Action.OpenUrl"), link, "{run}");
    }
}
