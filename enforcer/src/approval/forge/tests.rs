use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::workload::identity::{IdentityConfig, IssuerConfig};
use config::ForgeConfig;

/// A forge of this test's: what was asked, and an answer for each path.
struct Api {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Api {
    async fn start(answers: Vec<(String, Value)>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&asked);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    request.push(stream.read_u8().await.unwrap());
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                heard.lock().unwrap().push(request);
                let found = answers.iter().find(|(known, _)| path.split('?').next() == Some(known));
                let (status, body) = found.map_or((404, String::new()), |(_, body)| (200, body.to_string()));
                let head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n", body.len());
                stream.write_all((head + &body).as_bytes()).await.unwrap();
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

const ISSUER: &str = "https://lab.test";

fn sha(digit: char) -> String {
    digit.to_string().repeat(40)
}

fn forges(profile: Profile, api: &str, token: &str) -> Forges {
    let token = Ok(Some(SecretText::new(token.to_owned())));
    let client = Client::new(None, BTreeMap::new()).unwrap().with_plain_on_loopback(true);
    Forges::new(vec![Forge { issuer: ISSUER.to_owned(), profile, api: api.to_owned(), token }], client)
}

fn claims(profile: Profile, repository: &str, sha: &str) -> Claims {
    let texts = [(Field::Repository, repository), (Field::Sha, sha)];
    Claims {
        provider: profile,
        issuer: ISSUER.to_owned(),
        texts: texts.map(|(field, text)| (field, text.to_owned())).into(),
        ..Claims::default()
    }
}

/// A commit as GitHub and Forgejo have it.
fn commit(sha: &str, login: Option<&str>, email: &str, parents: &[String]) -> Value {
    let parents: Vec<Value> = parents.iter().map(|sha| json!({"sha": sha})).collect();
    let author = login.map(|login| json!({"login": login}));
    json!({"sha": sha, "author": author, "commit": {"author": {"email": email}}, "parents": parents})
}

fn logins(names: &[&str]) -> Result<Vec<Account>, Unknown> {
    Ok(names.iter().map(|name| Account::forge("lab.test", name)).collect())
}

#[tokio::test]
async fn each_kind_of_forge_is_asked_in_its_own_way_and_once() {
    let (one, two) = (sha('1'), sha('2'));
    let of_gitlab = json!({"id": one, "author_email": "Ann@acme.test", "parent_ids": [two]});
    for (profile, repository, path, query, field, answer, author) in [
        (
            Profile::Github,
            "acme/app",
            format!("/repos/acme/app/commits/{one}"),
            "?per_page=1",
            "authorization: Bearer t0ken",
            commit(&one, Some("Ann"), "x@y", std::slice::from_ref(&two)),
            "ann",
        ),
        (
            Profile::Forgejo,
            "acme/app",
            format!("/repos/acme/app/git/commits/{one}"),
            "?stat=false&verification=false&files=false",
            "authorization: token t0ken",
            commit(&one, None, "ann@acme.test", &[]),
            "ann@acme.test",
        ),
        (
            Profile::Gitlab,
            "acme/sub/app",
            format!("/projects/acme%2Fsub%2Fapp/repository/commits/{one}"),
            "?stats=false",
            "private-token: t0ken",
            of_gitlab,
            "ann@acme.test",
        ),
    ] {
        let api = Api::start(vec![(path.clone(), answer)]).await;
        let forges = forges(profile, &format!("{}/", api.url), "t0ken");
        for _ in 0..2 {
            assert_eq!(forges.of(&claims(profile, repository, &one)).await, logins(&[author]));
        }
        let asked = api.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        assert!(asked[0].starts_with(&format!("GET {path}{query} HTTP/1.1\r\n")), "{asked:?}");
        assert!(asked[0].contains(&format!("\r\n{field}\r\n")), "{asked:?}");
    }
}

#[tokio::test]
async fn of_a_merge_both_count_and_what_is_not_known_is_nobody() {
    let [merge, main, head, octopus, other] = ['1', '2', '3', '4', '5'].map(sha);
    let path = |sha: &str| format!("/repos/a/b/commits/{sha}");
    let nobody = json!({"sha": sha('6'), "author": null, "commit": {"author": null}, "parents": []});
    let control = commit(&sha('7'), None, "a\u{1b}[2J", &[]);
    let long = |bytes| commit(&sha('8'), None, &"a".repeat(bytes), &[]);
    let many = |merged: usize| {
        let parents: Vec<String> = (0..=merged).map(|_| head.clone()).collect();
        commit(&octopus, Some("ann"), "", &parents)
    };
    let answers = |merged: usize, bytes: usize| {
        vec![
            (path(&merge), commit(&merge, Some("forge-bot"), "", &[main.clone(), head.clone()])),
            (path(&head), commit(&head, Some("ann"), "", std::slice::from_ref(&main))),
            (path(&octopus), many(merged)),
            (path(&other), commit(&head, Some("ann"), "", &[])),
            (path(&sha('6')), nobody.clone()),
            (path(&sha('7')), control.clone()),
            (path(&sha('8')), long(bytes)),
            (path(&sha('9')), json!([])),
        ]
    };
    let of = async |answers, sha: &str| {
        let api = Api::start(answers).await;
        forges(Profile::Github, &api.url, "t").of(&claims(Profile::Github, "a/b", sha)).await
    };
    let wrong = async |answers, sha: &str| of(answers, sha).await.unwrap_err().to_string();
    let good = || answers(MERGED, NAME);
    assert_eq!(of(good(), &merge).await, logins(&["ann", "forge-bot"]));
    assert_eq!(of(good(), &octopus).await, logins(&["ann"]));
    assert!(wrong(answers(MERGED + 1, NAME), &octopus).await.contains("more than 4"));
    assert_eq!(of(good(), &sha('8')).await.unwrap().len(), 1);
    for (answers, sha, why) in [
        (answers(1, NAME + 1), sha('8'), "no commit"),
        (good(), other.clone(), "another commit"),
        (good(), sha('6'), "no commit"),
        (good(), sha('7'), "no commit"),
        (good(), sha('9'), "no commit"),
        (good(), sha('a'), "404 Not Found: the token of [[approvals.forge]]"),
        // A parent that is not there.
        (answers(1, 1)[..1].to_vec(), merge.clone(), "status 404"),
    ] {
        let said = wrong(answers, &sha).await;
        assert!(said.contains(why) && said.contains("not known"), "{sha}: {said}");
    }
}

#[tokio::test]
async fn who_is_not_asked_about_is_not_asked_and_no_token_makes_another_address() {
    let api = Api::start(Vec::new()).await;
    let forges = forges(Profile::Github, &api.url, "t");
    assert_eq!(forges.authors(None).await, Ok(Vec::new()));
    let said = Identity::attested(claims(Profile::Github, "a/b", &sha('1'))).unwrap();
    assert_eq!(forges.authors(Some(&said)).await, Ok(Vec::new()));
    let elsewhere =
        Claims { issuer: "https://other.test".to_owned(), ..claims(Profile::Github, "a/b", &sha('1')) };
    assert_eq!(forges.of(&elsewhere).await, Ok(Vec::new()));
    let one = sha('1');
    for (repository, sha) in [
        ("a/b", "main"),
        ("a/b", &one[1..]),
        ("a/b", &format!("{one}?x")),
        ("a/b", ""),
        ("a", &one),
        ("a/../b", &one),
        ("a/..", &one),
        ("a//b", &one),
        ("/a/b", &one),
        ("a/b?c", &one),
        ("a/b#c", &one),
        ("a/b%2f..", &one),
        ("https://a/b", &one),
    ] {
        let said = forges.of(&claims(Profile::Github, repository, sha)).await.unwrap_err().to_string();
        assert!(said.contains("names no commit"), "{repository} {sha}: {said}");
    }
    for field in [Field::Repository, Field::Sha] {
        let mut claims = claims(Profile::Github, "a/b", &one);
        claims.texts.remove(&field);
        assert!(forges.of(&claims).await.unwrap_err().to_string().contains("does not say which"));
    }
    assert_eq!(api.asked(), Vec::<String>::new());
    let known = |token| {
        let (issuer, api) = (ISSUER.to_owned(), api.url.clone());
        let client = Client::new(None, BTreeMap::new()).unwrap().with_plain_on_loopback(true);
        Forges::new(vec![Forge { issuer, profile: Profile::Github, api, token }], client)
    };
    let unread = known(Err("no such file".to_owned()));
    let said = unread.of(&claims(Profile::Github, "a/b", &one)).await.unwrap_err().to_string();
    assert!(said.contains("the log of the service") && !said.contains("no such file"), "{said}");
    let said = known(Ok(Some(SecretText::new("hunter2\n".to_owned()))));
    let said = said.of(&claims(Profile::Github, "a/b", &one)).await.unwrap_err().to_string();
    assert!(said.contains("letters") && !said.contains("hunter2"), "{said}");
    assert_eq!(api.asked(), Vec::<String>::new());
}

#[tokio::test]
async fn an_error_is_forgotten_sooner_than_an_author_and_there_is_an_end_to_what_is_remembered() {
    let api = Api::start(Vec::new()).await;
    let forges = forges(Profile::Github, &api.url, "t");
    let (mine, now) = (claims(Profile::Github, "a/b", &sha('1')), Instant::now());
    for _ in 0..3 {
        forges.of(&mine).await.unwrap_err();
    }
    assert_eq!(api.asked().len(), 1);
    let left =
        |forges: &Forges| forges.known.lock().unwrap().values().map(|known| known.until).max().unwrap();
    assert!(left(&forges) <= now + FAILED + Duration::from_mins(1));
    // As if that had been before.
    forges.known.lock().unwrap().values_mut().for_each(|known| known.until = now);
    forges.of(&mine).await.unwrap_err();
    assert_eq!(api.asked().len(), 1);
    let other = |number: usize| Commit {
        issuer: ISSUER.to_owned(),
        repository: number.to_string(),
        sha: String::new(),
    };
    for number in 1..REMEMBERED {
        let known = Known { until: now, authors: Ok(Vec::new()) };
        forges.known.lock().unwrap().insert(other(number), known);
    }
    assert_eq!(forges.known.lock().unwrap().len(), REMEMBERED);
    forges.of(&claims(Profile::Github, "a/b", &sha('2'))).await.unwrap_err();
    assert_eq!(forges.known.lock().unwrap().len(), 1);
}

#[test]
fn a_forge_is_one_of_those_whose_jobs_are_known() {
    let issuer = |name: &str, profile| {
        let text = json!({"name": name, "issuer": ISSUER, "audience": "us", "profile": profile});
        serde_json::from_value::<IssuerConfig>(text).unwrap()
    };
    let jobs = IdentityConfig {
        issuer: vec![issuer("ci", "gitlab"), issuer("kite", "buildkite")],
        ..IdentityConfig::default()
    };
    let forge = |issuer: &str, api: &str| {
        let config = ForgeConfig { issuer: issuer.to_owned(), api: api.to_owned(), token_file: None };
        (config.check(&jobs, false), config.check(&jobs, true))
    };
    let good = Ok((ISSUER.to_owned(), Profile::Gitlab));
    assert_eq!(forge("ci", "https://lab.test/api/v4"), (good.clone(), good.clone()));
    let (not_plain, plain) = forge("ci", "http://127.0.0.1:8080/api/v4");
    assert!(not_plain.unwrap_err().contains("https") && plain == good);
    for api in ["", "lab.test", "http://lab.test", "ftp://x", "https://x?y", "https://u@x", "https://x#y"] {
        assert!(forge("ci", api).1.unwrap_err().contains("https URL"), "{api}");
    }
    assert!(forge("other", "https://x").0.unwrap_err().contains("no issuer"));
    assert!(forge("kite", "https://x").0.unwrap_err().contains("buildkite"));
}
