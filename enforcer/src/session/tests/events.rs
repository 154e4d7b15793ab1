//! What is recorded, listed and shown.

use super::*;

#[test]
fn a_session_without_an_end_is_open_or_cut_and_a_dropped_one_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    drop(recording.begin(header()).unwrap());
    let going_on = recording.begin(header()).unwrap();
    let outcomes =
        |dir: &Path| -> Vec<_> { read::ls(dir).unwrap().into_iter().map(|one| one.outcome).collect() };
    assert_eq!(outcomes(dir.path()), ["open", "cancelled"]);
    // As if the host had died now: nobody records there.
    let dead = tempfile::tempdir().unwrap();
    fs::copy(segment(dir.path(), 1), segment(dead.path(), 1)).unwrap();
    assert_eq!(outcomes(dead.path()), ["cut", "cancelled"]);
    // Whoever records there next has not begun it.
    let _next = open(dead.path());
    assert_eq!(outcomes(dead.path()), ["cut", "cancelled"]);
    let report = read::verify(dir.path()).unwrap();
    assert_eq!((report.open, report.open_sessions.len()), (1, 1));
    drop(going_on);
}

#[test]
fn a_denied_name_and_the_host_of_a_request_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let dns = recording.begin(SessionHeader { kind: SessionKind::Dns, ..header() }).unwrap();
    for (name, verdict) in [("a.example", "allow"), ("b.example", "deny"), ("c.example", "deny")] {
        let name = MaskedText::fixed(name);
        let question = MaskedText::fixed("A");
        dns.record(Event::Dns { name, question, answers: Vec::new(), verdict, reason: "x" }).unwrap();
    }
    let plain = recording.begin(header()).unwrap();
    plain.record(event(1)).unwrap();
    plain.close(Outcome::Completed).unwrap();
    let found = |filter: read::Filter| -> Vec<String> {
        read::list(dir.path(), &filter).unwrap().into_iter().map(|one| one.destination).collect()
    };
    let host = |host: &str| found(read::Filter { host: Some(host.into()), ..read::Filter::default() });
    assert_eq!(found(read::Filter::default()), ["a.example:443", "b.example"]);
    assert_eq!(host("a.example"), ["a.example:443", "b.example"]);
    assert_eq!(host("c.example"), ["b.example"]);
    assert_eq!(host("d.example"), [""; 0]);
    // It goes on, and has a denial.
    let outcome = |want: &str| found(read::Filter { outcome: Some(want.into()), ..read::Filter::default() });
    assert_eq!((outcome("denied"), outcome("open")), (vec!["b.example".into()], vec!["b.example".into()]));
    dns.close(Outcome::Denied { reason: "x" }).unwrap();
    assert_eq!((outcome("denied"), outcome("open")), (vec!["b.example".into()], vec![]));
}

#[test]
fn segments_rotate_and_stay_one_chain() {
    let dir = tempfile::tempdir().unwrap();
    let options = RecordingOptions { segment_bytes: 600, ..RecordingOptions::default() };
    let recording = Recording::open(dir.path(), options).unwrap();
    let session = recording.begin(header()).unwrap();
    for n in 0..50 {
        session.record(event(n)).unwrap();
    }
    session.draft(&event(50)).unwrap();
    session.draft(&event(51)).unwrap();
    session.close(Outcome::Completed).unwrap();
    let report = read::verify(dir.path()).unwrap();
    assert_eq!(report.problems, []);
    assert!(report.segments > 5);
    assert_eq!(read::ls(dir.path()).unwrap()[0].statements, 52);
}

#[test]
fn files_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    small(dir.path());
    for entry in fs::read_dir(dir.path()).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn an_event_over_the_limit_is_refused_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let session = recording.begin(header()).unwrap();
    let room = MAX_RECORD - record::HEAD - record::HASH;
    let make = |length: usize| Event::Error {
        side: Side::Internal,
        reason: "test",
        detail: MaskedText::fixed(Box::leak("x".repeat(length).into_boxed_str())),
    };
    let frame = serde_json::to_vec(&make(0)).unwrap().len();
    session.record(make(room - frame)).unwrap();
    assert!(matches!(session.record(make(room - frame + 1)), Err(SessionError::TooLong { .. })));
    session.draft(&event(1)).unwrap();
    assert!(matches!(session.draft(&make(room)), Err(SessionError::TooLong { .. })));
    session.close(Outcome::Completed).unwrap();
    assert_eq!(problems(dir.path()), []);
    assert_eq!(read::ls(dir.path()).unwrap()[0].records, 4);
}

/// The events of a body of `length` bytes, recorded up to 1000.
fn body(length: usize) -> Vec<serde_json::Value> {
    let dir = tempfile::tempdir().unwrap();
    let options = RecordingOptions { body_limit: 1000, ..RecordingOptions::default() };
    let session = Recording::open(dir.path(), options).unwrap().begin(header()).unwrap();
    let mut body = session.body(1, Direction::Response);
    for chunk in masked(&vec![b'a'; length]).as_bytes().chunks(300) {
        body.push(&session, &masked(chunk)).unwrap();
    }
    body.finish(&session, true).unwrap();
    session.close(Outcome::Completed).unwrap();
    let (_, entries) = read::show(dir.path(), "").unwrap();
    entries.into_iter().filter(|entry| entry.kind == "event").map(|entry| entry.payload).collect()
}

#[test]
fn a_body_is_kept_up_to_the_limit_and_its_end_says_all() {
    for (length, truncated) in [(999, false), (1000, false), (1001, true), (5000, true)] {
        let events = body(length);
        let kept: usize = events.iter().filter_map(|event| event["text"].as_str()).map(str::len).sum();
        assert_eq!(kept, length.min(1000));
        let cut: Vec<_> = events.iter().filter(|event| event["event"] == "body-truncated").collect();
        assert_eq!(cut.len(), usize::from(truncated), "{length}");
        assert!(cut.iter().all(|event| event["kept"] == 1000 && event["reason"] == "body-limit"));
        let end = events.last().unwrap();
        assert_eq!((&end["event"], &end["length"]), (&"body-end".into(), &length.into()));
        assert_eq!(end["blake3"], blake3::hash(&vec![b'a'; length]).to_hex().as_str());
        assert_eq!(end["complete"], true);
    }
}

#[test]
fn bytes_that_are_no_text_are_base64_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let session = open(dir.path()).begin(header()).unwrap();
    let make = |bytes: &[u8]| Event::Body {
        statement: 1,
        direction: Direction::Request,
        offset: 0,
        bytes: masked(bytes),
    };
    session.record(make(b"\xff\x00")).unwrap();
    session.record(make("\u{fc}".as_bytes())).unwrap();
    session.close(Outcome::Completed).unwrap();
    let (_, entries) = read::show(dir.path(), "").unwrap();
    assert_eq!(entries[1].payload["base64"], "/wA=");
    assert!(entries[1].payload.get("text").is_none());
    assert_eq!(entries[2].payload["text"], "\u{fc}");
}

#[test]
fn what_a_terminal_would_obey_is_made_visible() {
    let dir = tempfile::tempdir().unwrap();
    let session = open(dir.path()).begin(header()).unwrap();
    let evil = "\x1b[2J\x1b]0;owned\x07\r\u{202e}\u{9b}31m\nend 99 completed\u{200b}";
    let (direction, bytes) = (Direction::Response, masked(evil.as_bytes()));
    session.record(Event::Body { statement: 1, direction, offset: 0, bytes }).unwrap();
    let detail = Masker::builtin_all().unwrap().text(evil).0;
    session.record(Event::Error { side: Side::Upstream, reason: "test", detail }).unwrap();
    session.close(Outcome::Completed).unwrap();
    let (_, entries) = read::show(dir.path(), "").unwrap();
    for entry in &entries {
        let text = read::timeline(entry, entries[0].at_unix_us);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "{text:?}");
        assert!(!text.contains(['\u{202e}', '\u{200b}']), "{text:?}");
        let json = serde_json::to_string_pretty(entry).unwrap();
        let shown = read::visible_json(&json);
        assert!(shown.chars().all(|c| c == '\n' || !c.is_control()) && !shown.contains('\u{202e}'));
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(value(&shown), value(&json));
        let forged = text.lines().skip(1).any(|line| !line.starts_with(&" ".repeat(34)));
        assert!(!forged, "a line that looks like a record: {text}");
    }
}

#[test]
fn the_order_is_that_of_the_records_and_not_of_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    for started_unix_ms in [2000, 1000] {
        let header = SessionHeader { started_unix_ms, ..header() };
        recording.begin(header).unwrap().close(Outcome::Completed).unwrap();
    }
    let started: Vec<_> = read::ls(dir.path()).unwrap().iter().map(|one| one.started_unix_ms).collect();
    assert_eq!(started, [1000, 2000]);
    assert_eq!(problems(dir.path()), []);
    let entry = read::Entry { sequence: 1, at_unix_us: 5, kind: "end", payload: serde_json::json!({}) };
    assert!(read::timeline(&entry, 7).contains("-0.000002s"));
}

#[test]
fn a_list_is_filtered_and_limited() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    for (n, name) in ["alpha", "beta", "alphabet"].into_iter().enumerate() {
        let started_unix_ms = 1000 * (n as u64 + 1);
        let header = SessionHeader { workload: MaskedText::fixed(name), started_unix_ms, ..header() };
        let session = recording.begin(header).unwrap();
        let host = MaskedText::fixed(if n == 1 { "b.example" } else { "a.example" });
        session
            .record(Event::Plan {
                host: Some(host),
                port: 443,
                protocol: "https",
                sni: None,
                alpn: Vec::new(),
                action: "terminate",
                address: None,
            })
            .unwrap();
        session.close(Outcome::Completed).unwrap();
    }
    let names = |filter: read::Filter| -> Vec<String> {
        read::list(dir.path(), &filter).unwrap().into_iter().map(|one| one.workload).collect()
    };
    let all = read::Filter::default;
    assert_eq!(names(all()), ["alphabet", "beta", "alpha"]);
    assert_eq!(names(read::Filter { workload: Some("alpha*".into()), ..all() }), ["alphabet", "alpha"]);
    assert_eq!(names(read::Filter { host: Some("b.example".into()), ..all() }), ["beta"]);
    assert_eq!(names(read::Filter { since_unix_ms: Some(2000), ..all() }), ["alphabet", "beta"]);
    assert_eq!(names(read::Filter { limit: Some(1), ..all() }), ["alphabet"]);
    assert_eq!(names(read::Filter { outcome: Some("cut".into()), ..all() }), [""; 0]);
    assert_eq!(names(read::Filter { verdict: Some("deny".into()), ..all() }), [""; 0]);
}

#[test]
fn drafts_are_written_with_what_follows_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let session = recording.begin(header()).unwrap();
    let length = || fs::metadata(segment(dir.path(), 1)).unwrap().len();
    let before = length();
    session.draft(&event(1)).unwrap();
    session.draft(&event(2)).unwrap();
    assert_eq!(length(), before);
    session.record(event(3)).unwrap();
    assert!(length() > before);
    session.draft(&event(4)).unwrap();
    session.flush().unwrap();
    let before = length();
    session.flush().unwrap();
    assert_eq!(length(), before);
    // A process has only so much in memory that nobody else has seen.
    let written = (0..u64::MAX).find(|_| {
        session.draft(&event(5)).unwrap();
        length() > before
    });
    assert!((10..1000).contains(&written.unwrap()));
    session.draft(&event(6)).unwrap();
    let id = session.id();
    session.close(Outcome::Completed).unwrap();
    let (_, entries) = read::show(dir.path(), &id.to_string()).unwrap();
    let numbers: Vec<_> = entries.iter().filter_map(|entry| entry.payload["statement"].as_u64()).collect();
    assert!(numbers.is_sorted() && numbers.starts_with(&[1, 2, 3, 4]) && numbers.ends_with(&[5, 6]));
    assert_eq!(problems(dir.path()), []);
}

#[test]
fn a_finding_is_shown_with_its_rule_and_place() {
    let shown = |finding: serde_json::Value| {
        let payload = serde_json::json!({"event": "findings", "statement": 1, "findings": [finding]});
        read::timeline(&read::Entry { sequence: 1, at_unix_us: 5, kind: "event", payload }, 5)
    };
    let json = serde_json::json!({"entity": "JWT", "rule": "jwt", "count": 2, "place": "body", "at": {"json": "$.a\u{202e}"}});
    assert!(shown(json).contains("2 x JWT by jwt in body at $.a\\u{202e}"));
    let cookie = serde_json::json!({"entity": "JWT", "rule": "jwt", "count": 1, "place": {"header": "cookie"}, "at": {"field": "sid"}});
    assert!(shown(cookie).contains("1 x JWT by jwt in header cookie field sid"));
    let before = serde_json::json!({"entity": "JWT", "count": 1, "place": "query"});
    assert!(shown(before).contains("1 x JWT in query"), "a recording of before has neither");
}

/// What policy said of what was asked, as it is read back for another policy.
#[test]
fn statements_are_read_back_with_whose_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let recording = open(dir.path());
    let word = MaskedText::fixed;
    let verdict = |statement, verdict, reason| Event::Verdict {
        statement,
        verdict,
        rule: Some(word("a/b")),
        reason,
        message: None,
        policy: "p".to_owned(),
        audit: None,
    };
    let head = |statement| Event::Head {
        statement,
        direction: Direction::Request,
        status: None,
        headers: vec![(word("accept"), word("*/*"))],
    };
    let identity = Arc::new(IdentityRecord {
        assurance: "oidc",
        provider: "github",
        issuer: word("i"),
        subject: word("s"),
        texts: [("event", word("push")), ("repository", word("acme/app"))].into(),
        ref_protected: None,
        groups: Vec::new(),
        roles: Vec::new(),
    });
    let workload = recording.begin(SessionHeader { kind: SessionKind::Workload, ..header() }).unwrap();
    let facts = WorkloadRecord { cgroup_path: word("/jobs/x"), labels: vec![(word("team"), word("web"))] };
    let conn = recording.begin(SessionHeader { facts: Some(Arc::new(facts)), ..header() }).unwrap();
    conn.record(event(1)).unwrap();
    workload.record(Event::Identity { until_unix_ms: 5, identity }).unwrap();
    conn.record(event(2)).unwrap();
    // Two at the same time; the proxy refuses what policy let through.
    conn.record(verdict(Some(2), "allow", "policy-allow")).unwrap();
    conn.record(verdict(Some(1), "allow", "policy-allow")).unwrap();
    conn.record(head(2)).unwrap();
    conn.record(verdict(Some(1), "deny", "secret-in-path")).unwrap();
    workload.record(Event::IdentityEnded { reason: "job-end" }).unwrap();
    conn.record(verdict(None, "passthrough", "policy-passthrough")).unwrap();
    // Nothing was said of it.
    conn.record(event(3)).unwrap();
    drop(conn);
    let mut found = Vec::new();
    let all = read::Filter::default();
    assert_eq!(read::statements(dir.path(), &all, |one| found.push(one)).unwrap(), 1);
    let seen: Vec<_> = found
        .iter()
        .map(|one| {
            let headers = one.request.as_ref().map(|request| request.headers.as_ref().map(Vec::len));
            (one.verdict.as_str(), headers, one.identity.as_ref().map(|it| it["event"].as_str()))
        })
        .collect();
    let wanted = [
        ("allow", Some(Some(1)), Some(Some("push"))),
        ("passthrough", None, None),
        ("allow", Some(None), None),
    ];
    assert_eq!(seen, wanted);
    assert_eq!((found[0].cgroup_path.as_str(), found[0].labels["team"].as_str()), ("/jobs/x", "web"));
    let other = read::Filter { workload: Some("other".to_owned()), ..all };
    assert_eq!(read::statements(dir.path(), &other, |_| panic!()).unwrap(), 0);
}
