//! The pages with an issuer and a loader that answer what a test says.

mod attacks;
mod deciding;
mod limits;
mod looking;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, HOST, LOCATION, ORIGIN, SET_COOKIE};
use axum::http::{HeaderMap, Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::oidc::Step;
use super::ticket::Ticket;
use super::*;

const HOSTNAME: &str = "page.test";
const URL: &str = "https://page.test";
const SEEN: &str = "5eed";

/// Logs in whoever the code names, as `subject:group`.
struct Codes;

impl Idp for Codes {
    fn authorize<'a>(&'a self, ticket: &'a Ticket) -> Step<'a, String> {
        Box::pin(async move { Ok(format!("https://idp.test/auth?state={}", ticket.state)) })
    }

    fn redeem<'a>(&'a self, code: &'a str, _: &'a Ticket) -> Step<'a, Person> {
        Box::pin(async move {
            let (subject, group) = code.split_once(':').ok_or(LoginError::NoToken)?;
            let ends = if subject == "late" { 1 } else { u64::MAX };
            Ok(Person {
                subject: subject.to_owned(),
                name: subject.to_owned(),
                groups: vec![group.to_owned()],
                token: SecretText::new(format!("token-of-{subject}")),
                ends,
            })
        })
    }

    fn issuer(&self) -> &'static str {
        "https://idp.test"
    }
}

/// Knows approvals, and remembers what was said to them.
#[derive(Default)]
struct Told {
    approvals: Vec<Value>,
    votes: Vec<Value>,
    refuses: Option<String>,
    asked: usize,
    status: Value,
    hits: Value,
}

#[derive(Clone, Default)]
struct Loader(Arc<Mutex<Told>>);

impl Ask for Loader {
    fn ask(&self, request: WebRequest) -> Answering<'_> {
        Box::pin(async move {
            let mut told = self.0.lock().unwrap();
            told.asked += 1;
            let request = match request {
                WebRequest::Approvals { request } => request,
                WebRequest::Status {} => return Ok(told.status.clone()),
                WebRequest::Hits {} => return Ok(told.hits.clone()),
            };
            if let Some(why) = &told.refuses {
                return Err(why.clone());
            }
            match *request {
                ApprovalsRequest::Ls { after, .. } => {
                    // A few at a time, as the proxy does.
                    let from = after.map_or(0, |after| {
                        told.approvals.iter().position(|one| one["id"] == after.as_str()).unwrap() + 1
                    });
                    let some: Vec<Value> = told.approvals[from..].iter().take(10).cloned().collect();
                    let more = from + some.len() < told.approvals.len();
                    Ok(json!({ "approvals": some, "more": more }))
                }
                ApprovalsRequest::Show { approval } => {
                    let found = told.approvals.iter().find(|one| one["id"] == approval.as_str());
                    found.cloned().ok_or_else(|| format!("there is no approval {approval}"))
                }
                vote => {
                    told.votes.push(serde_json::to_value(&vote).unwrap());
                    Ok(json!({ "message": "your yes counts: 1 of 2" }))
                }
            }
        })
    }
}

struct Site {
    router: Router,
    loader: Loader,
    web: Arc<Web>,
}

/// What came back.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    /// The cookies that it sets, as a browser sends them.
    fn cookies(&self) -> String {
        let set = self.headers.get_all(SET_COOKIE).iter();
        let pairs = set.map(|it| it.to_str().unwrap().split(';').next().unwrap());
        // What is set to nothing is forgotten.
        pairs.filter(|pair| !pair.ends_with('=')).collect::<Vec<_>>().join("; ")
    }

    fn to(&self) -> &str {
        self.headers.get(LOCATION).map_or("", |to| to.to_str().unwrap())
    }

    fn says(&self, part: &str) {
        assert!(self.text.contains(part), "{part} is missing in {} {}", self.status, self.text);
    }

    /// The number of its forms.
    fn csrf(&self) -> String {
        self.text.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    }
}

fn approval(id: &str) -> Value {
    json!({
        "id": id, "state": "pending", "seen": SEEN, "rule": "held/two", "applies": "waiting", "waiting": 1,
        "opened": 1_700_000_000_000_u64, "expires": 4_000_000_000_000_u64, "exact": "abcdef", "session": "0199",
        "terms": {"needs": [{"people": 2, "groups": ["ops"]}], "excludes_self": true,
                  "offers": {"session": true, "job_minutes": 30}},
        "votes": [], "standing": "pending", "actor": "mona", "repository": "octo/app", "host": "h.test",
        "statement": "POST https://h.test/x",
        "view": {"repository": "octo/app", "actor": "mona", "host": "h.test", "message": "two people",
                 "run": "https://github.com/octo/app/actions/runs/42", "effect": "creates a release",
                 "statement": "POST https://h.test/x\n\nthe very bytes"},
    })
}

impl Site {
    fn new(approvals: Vec<Value>) -> Self {
        Self::at(URL, approvals)
    }

    fn at(url: &str, approvals: Vec<Value>) -> Self {
        Self::of(url, approvals, ["/nonexistent".into(), "/nonexistent".into()], Value::Null)
    }

    fn of(url: &str, approvals: Vec<Value>, folders: [std::path::PathBuf; 2], status: Value) -> Self {
        let groups = |name: &str| vec![name.to_owned()];
        let config = WebConfig {
            public_url: url.to_owned(),
            issuer: "idp".to_owned(),
            viewers: groups("all"),
            approvers: groups("ops"),
            admins: groups("root"),
            ..WebConfig::default()
        };
        let known = r#"{"issuer": [{"name": "idp", "issuer": "https://idp.test", "audience": "page"}]}"#;
        let site = config.check(Some(&serde_json::from_str(known).unwrap())).unwrap();
        let loader = Loader::default();
        (loader.0.lock().unwrap().approvals, loader.0.lock().unwrap().status) = (approvals, status);
        let web = Web::new(config, site, Box::new(Codes), Box::new(loader.clone()), folders);
        let web = Arc::new(web.unwrap());
        Self { router: router(Arc::clone(&web)), loader, web }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = answer.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: head.status, headers: head.headers, text }
    }

    async fn get(&self, path: &str, cookies: &str) -> Answer {
        let request = Request::get(path).header(HOST, HOSTNAME).header(COOKIE, cookies);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, cookies: &str, form: &str) -> Answer {
        let request = Request::post(path)
            .header(HOST, HOSTNAME)
            .header(ORIGIN, URL)
            .header(COOKIE, cookies)
            .header("content-type", "application/x-www-form-urlencoded");
        self.send(request.body(form.to_owned().into()).unwrap()).await
    }

    /// Begins a login: what the issuer gives back, and the browser's cookies.
    async fn begin(&self, to: &str, cookies: &str) -> (String, String) {
        let begun = self.get(&format!("/login/start?to={}", super::oidc::escaped(to)), cookies).await;
        assert_eq!(begun.status, StatusCode::SEE_OTHER, "{}", begun.text);
        (begun.to().rsplit_once("state=").unwrap().1.to_owned(), begun.cookies())
    }

    /// Logs somebody in; the cookies of their browser.
    async fn login(&self, code: &str) -> String {
        let (state, cookies) = self.begin("/", "").await;
        let done = self.get(&format!("/callback?code={code}&state={state}"), &cookies).await;
        assert_eq!((done.status, done.to()), (StatusCode::SEE_OTHER, "/"), "{}", done.text);
        done.cookies()
    }

    fn votes(&self) -> Vec<Value> {
        self.loader.0.lock().unwrap().votes.clone()
    }

    fn logins(&self) -> usize {
        self.web.logins().count()
    }
}
