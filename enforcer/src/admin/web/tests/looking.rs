//! Sessions, the policy and the host, as they are looked at.

use std::path::Path;

use crate::mask::MaskedText;
use crate::policy::Policy;
use crate::session::{Event, Outcome, Recording, RecordingOptions, SessionHeader};

use super::*;

const XSS: &str = "<script>alert(1)</script>\u{202e}";

fn header(workload: &'static str) -> SessionHeader {
    SessionHeader {
        started_unix_ms: super::super::page::now_unix_ms(),
        workload: MaskedText::fixed(workload),
        ..crate::session::tests::header()
    }
}

fn statement(number: u32, path: &'static str) -> Event {
    Event::Statement {
        statement: number,
        method: MaskedText::fixed("GET"),
        authority: MaskedText::fixed("a.example"),
        path: MaskedText::fixed(path),
        query: None,
        version: "1.1",
    }
}

/// A recording with one session of `job`, whose statements have this path, and one of `other`.
fn recorded(dir: &Path, statements: usize, path: &'static str) -> Recording {
    let recording = Recording::open(dir, RecordingOptions::default()).unwrap();
    let (job, other) = (recording.begin(header("job")).unwrap(), recording.begin(header("other")).unwrap());
    for number in 1..=statements {
        job.record(statement(u32::try_from(number).unwrap(), path)).unwrap();
    }
    job.close(Outcome::Completed).unwrap();
    other.close(Outcome::Denied { reason: "policy-deny" }).unwrap();
    recording
}

fn site(dir: &Path, status: Value) -> Site {
    Site::of(URL, Vec::new(), [dir.join("sessions"), dir.join("policies")], status)
}

fn ids(page: &Answer) -> Vec<String> {
    let after = page.text.split("href=\"/sessions/").skip(1);
    after.map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn sessions_are_filtered_and_shown_in_full() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sessions")).unwrap();
    let _recording = recorded(&dir.path().join("sessions"), 3, XSS);
    let site = site(dir.path(), Value::Null);
    let vic = site.login("vic:all").await;
    assert_eq!(ids(&site.get("/sessions", &vic).await).len(), 2);
    for (query, count) in [
        ("workload=job", 1),
        ("workload=jo", 0),
        ("workload=*o*&since=1h", 2),
        ("host=a.*", 1),
        ("outcome=denied", 1),
        ("outcome=completed&workload=other", 0),
        ("verdict=deny", 0),
        // What is no choice is none.
        ("since=x", 2),
    ] {
        let page = site.get(&format!("/sessions?{query}"), &vic).await;
        assert_eq!((page.status, ids(&page).len()), (StatusCode::OK, count), "{query}");
    }
    site.get("/sessions?workload=none", &vic).await.says("No session fits");
    let evil = site.get("/sessions?workload=%22%3E%3Cscript%3Ealert(1)%3C/script%3E", &vic).await;
    assert!(!evil.text.contains("<script>alert") && evil.text.contains("alert(1)"));
    let page = site.get("/sessions?workload=job", &vic).await;
    let id = &ids(&page)[0];
    let shown = site.get(&format!("/sessions/{id}"), &vic).await;
    for part in ["#3 GET a.example", "alert(1)", "\\u{202e}", "completed"] {
        shown.says(part);
    }
    assert!(!shown.text.contains("<script>alert") && !shown.text.contains('\u{202e}'));
    assert!(!shown.text.contains("There is more") && !shown.text.contains("No end was recorded"));
}

#[tokio::test]
async fn so_many_records_and_sessions_are_shown_and_what_is_left_out_is_told() {
    use super::super::limits::{RECORDS, SESSIONS};
    // With its begin and its end.
    for (statements, more) in [(RECORDS - 2, false), (RECORDS - 1, true)] {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sessions")).unwrap();
        let recording = recorded(&dir.path().join("sessions"), statements, "/");
        let site = site(dir.path(), Value::Null);
        let vic = site.login("vic:all").await;
        let id = ids(&site.get("/sessions?workload=job", &vic).await)[0].clone();
        let shown = site.get(&format!("/sessions/{id}"), &vic).await;
        assert_eq!(shown.text.contains("There is more"), more);
        assert_eq!(shown.text.matches("<li><pre>").count(), RECORDS);
        for _ in 2..SESSIONS {
            recording.begin(header("many")).unwrap().close(Outcome::Completed).unwrap();
        }
        let page = site.get("/sessions", &vic).await;
        assert_eq!((ids(&page).len(), page.text.contains("These are the newest")), (SESSIONS, false));
        recording.begin(header("many")).unwrap().close(Outcome::Completed).unwrap();
        let page = site.get("/sessions", &vic).await;
        assert_eq!((ids(&page).len(), page.text.contains("These are the newest")), (SESSIONS, true));
    }
}

#[tokio::test]
async fn an_id_of_a_session_is_one_and_no_path() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("sessions")).unwrap();
    let _recording = recorded(&dir.path().join("sessions"), 1, "/");
    let site = site(dir.path(), Value::Null);
    let vic = site.login("vic:all").await;
    let whole = ids(&site.get("/sessions?workload=job", &vic).await)[0].clone();
    let other = "01999999-9999-7999-8999-999999999999";
    for id in [
        "x",
        "..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        &whole[..35],
        &whole.replace('-', ""),
        &whole.to_uppercase(),
        other,
    ] {
        let page = site.get(&format!("/sessions/{id}"), &vic).await;
        assert_eq!(page.status, StatusCode::NOT_FOUND, "{id}");
    }
    assert_eq!(site.get(&format!("/sessions/{whole}"), &vic).await.status, StatusCode::OK);
    // Nobody who is not logged in.
    assert_eq!(site.get(&format!("/sessions/{whole}"), "").await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn the_policy_is_shown_if_it_is_the_one_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let policies = dir.path().join("policies");
    std::fs::create_dir(&policies).unwrap();
    std::fs::write(policies.join("a.yaml"), "name: <b>the one</b>\n").unwrap();
    let hash = Policy::hash_of(&Policy::read_dir(&policies).unwrap()).as_str().to_owned();
    let problem = format!("a.yaml: {XSS}");
    let site = site(
        dir.path(),
        json!({ "proxy": { "policy": hash, "policy_of_host": hash, "policy_problem": problem } }),
    );
    let hits = |policy: &str| {
        let rule = json!({ "rule": format!("p/{XSS}"), "hits": 4711 });
        let limits = json!([{
            "rule": format!("p/{XSS}"), "limit": format!("9 requests in 1m{XSS}"), "most": 9, "used": 4242, "counted": 77
        }]);
        json!({ "policy": policy, "rules": [rule], "more": 3, "undecided": 815, "limits": limits })
    };
    site.loader.0.lock().unwrap().hits = hits(&hash);
    let vic = site.login("vic:all").await;
    let page = site.get("/policy", &vic).await;
    for part in [
        "&#60;b&#62;the one",
        "what was in force stays",
        &hash,
        ">4711<",
        ">815<",
        "3 more rules",
        "9 requests in 1m&#60;",
        ">4242<",
        ">77<",
    ] {
        page.says(part);
    }
    // Of another policy than the one that is shown.
    site.loader.0.lock().unwrap().hits = hits("another");
    assert!(!site.get("/policy", &vic).await.text.contains("4711"));
    assert!(!page.text.contains("<script>alert"));
    std::fs::write(policies.join("a.yaml"), "name: another\n").unwrap();
    let page = site.get("/policy", &vic).await;
    page.says("are not what is in force");
    assert!(!page.text.contains("another"));
}

#[tokio::test]
async fn the_host_is_for_admins() {
    let dir = tempfile::tempdir().unwrap();
    let status = json!({
        "healthy": false, "version": "1", "proxy_pid": 12, "proxy": { "recording": "ok", "connections": 3 },
        "pins": [{"name": "connect4", "problem": "it is gone"}, {"name": "connect6", "problem": null}],
        "scopes": [{"name": "ci", "cgroups": 2, "problem": XSS}],
    });
    let site = site(dir.path(), status);
    let (vic, ann, root) =
        (site.login("vic:all").await, site.login("ann:ops").await, site.login("rita:root").await);
    for other in [&vic, &ann] {
        assert_eq!(site.get("/host", other).await.status, StatusCode::FORBIDDEN);
        assert!(!site.get("/approvals", other).await.text.contains("href=\"/host\""));
    }
    let page = site.get("/host", &root).await;
    for part in ["is not whole", "connect4: it is gone", "3 connections open", "ci: &#60;script&#62;alert(1)"]
    {
        page.says(part);
    }
    assert!(!page.text.contains("connect6") && !page.text.contains("<script>alert"));
}
