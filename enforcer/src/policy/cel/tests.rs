//! What loads, what holds, and what is bounded.

use std::collections::BTreeMap;

use http::HeaderMap;
use proptest::prelude::*;

use super::super::facts::{BodyFacts, Fact, Facts, Protocol, Stage, WorkloadFacts};
use super::super::known::{Known, MAX_PARAMETERS};
use super::super::{Feasibility, Policy, Reason, Verdict};
use super::*;

struct Asked {
    workload: WorkloadFacts,
    headers: HeaderMap,
    query: String,
    path: String,
    method: String,
}

impl Default for Asked {
    fn default() -> Self {
        let labels = BTreeMap::from([("team".to_owned(), "web".to_owned())]);
        let workload = WorkloadFacts { name: "build-7".to_owned(), cgroup: "/ci/7".to_owned(), labels };
        let mut headers = HeaderMap::new();
        headers.append("accept", "text/html".parse().unwrap());
        headers.append("accept", "*/*".parse().unwrap());
        headers.append("x-bytes", http::HeaderValue::from_bytes(b"\xff").unwrap());
        Self {
            workload,
            headers,
            query: "page=2&page=3&q=a%20b+c&bad=%ff&flag".to_owned(),
            path: "/v1/models".to_owned(),
            method: "GET".to_owned(),
        }
    }
}

impl Asked {
    fn facts(&self) -> Facts<'_> {
        Facts {
            workload: &self.workload,
            identity: Fact::Absent,
            stage: Stage::Http,
            host: Fact::Known("api.example.com"),
            port: Fact::Known(443),
            protocol: Fact::Known(Protocol::Https),
            method: Fact::Known(&self.method),
            path: Fact::Known(&self.path),
            query: Fact::Known(&self.query),
            headers: Fact::Known(&self.headers),
            body: BodyFacts::default(),
            tool: Fact::Unknown,
        }
    }

    /// For a rule that allows, and for one that denies.
    fn both(&self, text: &str) -> (Tri, Tri) {
        both(text, &self.facts())
    }
}

fn both(text: &str, facts: &Facts<'_>) -> (Tri, Tri) {
    let expression = Expression::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let known = Known::of(facts, true).unwrap();
    (expression.holds(&known, true), expression.holds(&known, false))
}

/// One about the path is asked first, wherever it stands.
#[test]
fn in_whatever_order_parts_are_written_they_hold_alike() {
    let asked = Asked::default();
    let facts = asked.facts();
    let no = r#""/v2" == http.path"#;
    let parts = [
        no,
        r#"http.path == "/v1/models""#,
        r#"http.path.startsWith("/v1/")"#,
        r#"http.method == "GET""#,
        r#"workload.labels.none == "x""#,
        r#"llm.tool.name == "x""#,
    ];
    for (one, other) in parts.iter().flat_map(|one| parts.iter().map(move |other| (*one, *other))) {
        let (text, turned) = (format!("{one} && {other}"), format!("{other} && {one}"));
        assert_eq!(asked.both(&text), asked.both(&turned), "{text}");
        let why = Expression::parse(&text).unwrap().why(&Known::of(&facts, true).unwrap(), true);
        let is_false = [one, other].contains(&no).then(|| format!("`{no}` is false"));
        assert_eq!(why.filter(|why| why.ends_with("is false")), is_false, "{text}");
    }
}

const YES: (Tri, Tri) = (Tri::Yes, Tri::Yes);
const NO: (Tri, Tri) = (Tri::No, Tri::No);
const MAYBE: (Tri, Tri) = (Tri::Maybe, Tri::Maybe);
const FAILED: (Tri, Tri) = (Tri::No, Tri::Yes);

#[test]
fn every_fact_and_function_has_its_value() {
    let asked = Asked::default();
    for holds in [
        r#"workload.name == "build-7" && workload.cgroup.startsWith("/ci/")"#,
        r#"workload.labels.team == "web" && workload.labels["team"] in ["web", "api"]"#,
        r#""team" in workload.labels && !("x" in workload.labels) && has(workload.labels.team)"#,
        r#"destination.host.endsWith(".example.com") && destination.port == 443"#,
        r#"protocol == "https" && stage == "http""#,
        r#"http.method in ["GET", "HEAD"] && http.path.split("/")[1] == "v1""#,
        r#"http.path.matches("^/v[0-9]+/") && http.path.size() == 10 && size(http.path) > 9"#,
        r#"http.query["page"] == ["2", "3"] && int(http.query.page[1]) == 3"#,
        r#"http.query["q"][0] == "a b c" && http.query.flag[0] == "" && !has(http.query.none)"#,
        r#"http.query.page.exists(p, p == "3") && !http.query.page.all(p, p == "3")"#,
        r#"http.query.page.exists_one(p, p == "3") && http.query.size() == 4"#,
        r#"http.headers.exists(h, h == "accept") && "*/*" in http.headers["Accept"]"#,
        r#"[80, 443].exists(p, p == destination.port) && destination.port in [443, 8443]"#,
        r#"(destination.port == 443 ? "a" : "b") == "a" && "A".lowerAscii() + "b".upperAscii() == "aB""#,
        r#"string(destination.port) == "443" && destination.port % 2 == 1 && -destination.port < 0"#,
        r#"http.path.contains("mod") && "b" > "a" && (1 + 2 * 3 - 4) / 3 == 1 && true != false"#,
        "has(http.method) && has(destination.port) && has(http.headers)",
        "// a comment && another\n destination.port == 443",
        r#"r"a\b" == "a\\b" && '''it's''' == "it's""#,
    ] {
        assert_eq!(asked.both(holds), YES, "{holds}");
        assert_eq!(asked.both(&format!("!({holds}\n)")), NO, "{holds}");
    }
}

#[test]
fn what_cannot_be_evaluated_is_false_for_an_allow_and_true_for_a_denial() {
    let asked = Asked::default();
    for failing in [
        r#"workload.labels.none == "x""#,
        r#"http.query.none[0] == "x""#,
        r#"http.headers["none"][0] == "x""#,
        r#"http.query.page[2] == "x""#,
        r#"http.query.page[-1] == "x""#,
        r#"http.query.bad[0] == "x""#,
        r#"http.headers["x-bytes"][0] == "x""#,
        r#"http.headers["x-bytes"].exists(v, v == "x")"#,
        r#"int(http.path) == 1"#,
        "destination.port / (destination.port - 443) == 1",
        "destination.port % (destination.port - 443) == 1",
        "9223372036854775807 + destination.port > 0",
        "-9223372036854775807 - destination.port < 0",
        "9223372036854775807 * destination.port > 0",
        "(-9223372036854775807 - (destination.port - 442)) / (442 - destination.port) == 1",
        "-(-9223372036854775807 - (destination.port - 442)) == 1",
        "!(1 / (destination.port - 443) == 1)",
    ] {
        assert_eq!(asked.both(failing), FAILED, "{failing}");
        // What decides all the same makes it whole.
        assert_eq!(asked.both(&format!("({failing}) || true")), YES, "{failing}");
        assert_eq!(asked.both(&format!("false && ({failing})")), NO, "{failing}");
        assert_eq!(asked.both(&format!("({failing}) && false")), NO, "{failing}");
    }
    let mut facts = asked.facts();
    (facts.method, facts.headers) = (Fact::Absent, Fact::Absent);
    assert_eq!(both("http.method == \"GET\"", &facts), FAILED);
    assert_eq!(both("has(http.method) && http.method == \"GET\"", &facts), NO);
    assert_eq!(both("http.headers.x[0] == \"1\"", &facts), FAILED);
    // What may still be known comes before what never will be.
    facts.path = Fact::Unknown;
    assert_eq!(both("http.method == \"GET\" && http.path == \"/\"", &facts), MAYBE);
    assert_eq!(both("http.path == \"/\" || http.method == \"GET\"", &facts), MAYBE);
    assert_eq!(both("has(http.path)", &facts), MAYBE);
    assert_eq!(both("http.path == \"/\" || destination.port == 443", &facts), YES);
    assert_eq!(both("http.path == \"/\" && destination.port == 80", &facts), NO);
    assert_eq!(both("http.path == \"/\" ? true : true", &facts), MAYBE);
}

#[test]
fn a_second_reading_of_a_request_hides_nothing_and_widens_nothing() {
    let mut asked = Asked { method: "delete".to_owned(), ..Asked::default() };
    assert_eq!(asked.both(r#"http.method == "DELETE""#), FAILED);
    assert_eq!(asked.both(r#"http.method != "DELETE""#), FAILED);
    asked.path = "/admin;x/%40a%3A".to_owned();
    assert_eq!(asked.both(r#"http.path.startsWith("/admin/")"#), FAILED);
    assert_eq!(asked.both(r#"http.path.endsWith("/@a:")"#), YES);
    asked.query = "a=1;admin=1".to_owned();
    assert_eq!(asked.both(r#""admin" in http.query"#), FAILED);
    assert_eq!(asked.both(r#"!("admin" in http.query)"#), FAILED);
    assert_eq!(asked.both(r#"http.query.a[0] == "1""#), FAILED);
    // One reading is not mixed with another.
    asked.method = "GET".to_owned();
    assert_eq!(asked.both(r#"http.method == "GET""#), YES);
}

#[test]
fn what_does_not_load_says_where_and_why() {
    for (text, offset, part, help) in [
        ("", 0, "empty", ""),
        ("1 +", 3, "does not parse", ""),
        ("destination.prt == 1", 0, "no fact `destination.prt`", "host, port"),
        ("true && http.methd == \"GET\"", 8, "no fact `http.methd`", "did you mean `http.method`?"),
        ("\"ü\" == \"ü\" && foo == 1", 16, "no fact `foo`", ""),
        ("\"ü\" == \"ü\" && 1 +", 19, "does not parse", ""),
        ("foo == 1", 0, "no fact `foo`", "workload, identity, destination, protocol, stage, http"),
        ("true && (false || sql.model == \"x\")", 18, "no fact `sql`", ""),
        (
            "llm.tool.nam == \"x\"",
            0,
            "no fact `llm.tool.nam`",
            "did you mean `llm.tool.name`? `llm.tool` has name",
        ),
        ("llm.tol.name == \"x\"", 0, "no fact `llm.tol`", "`llm` has provider, model, tool, code"),
        ("\"x\" in llm.tool.effects", 0, "never in `llm.tool.effects`", "delete"),
        ("http == 1", 0, "a group of facts", "method"),
        ("destination.port", 0, "a number, not true or false", ""),
        ("http.path", 0, "a text, not true or false", ""),
        ("destination.port == \"443\"", 0, "cannot be compared", ""),
        ("true && destination.port", 8, "a number, not true", ""),
        ("http.query.page == \"1\"", 0, "a list of texts", "exists"),
        ("http.headers.accept.contains(\"x\")", 0, "a list of texts", "exists"),
        ("http.path.foo()", 0, "no function `foo`", "startsWith"),
        ("http.path.contains()", 0, "not used so", ""),
        ("1.5 < 2.0", 0, "no fact is of this type", ""),
        ("b\"x\" == b\"x\"", 0, "no fact is of this type", ""),
        ("http.path == null", 13, "no fact is of this type", ""),
        ("{\"a\": 1}.a == 1", 0, "no maps", ""),
        ("[1, \"a\"].exists(x, true)", 0, "not both", ""),
        ("[].exists(x, true)", 0, "empty list", ""),
        ("http.query.page.map(p, p) == [\"1\"]", 0, "`map` and `filter`", "exists"),
        ("http.path.matches(\"(\")", 18, "not valid", ""),
        ("http.path.matches(http.method)", 18, "written out", ""),
        ("http.path.split(\"\")[0] == \"a\"", 16, "not empty", ""),
        ("destination.host == \"Example.com\"", 20, "never", "small letters"),
        ("http.method == \"get\"", 15, "never", "capitals"),
        ("http.method in [\"get\"]", 15, "never", "capitals"),
        ("protocol == \"ssh\"", 12, "never", "https"),
        ("stage != \"later\"", 9, "never", "connect"),
        ("http.path.startsWith(\"/%40a\")", 0, "never", "/@a"),
        ("http.path == \"/a?b=1\"", 13, "never", "http.query"),
        ("http.headers[http.path][0] == \"x\"", 13, "written as it is", ""),
        ("protocol.name == \"x\"", 0, "has no field", ""),
        ("destination.port in http.headers", 20, "never in", ""),
    ] {
        let error = Expression::parse(text).unwrap_err();
        assert!(error.message.contains(part), "{text}: {error:?}");
        assert_eq!(error.offset, offset, "{text}: {error:?}");
        assert!(error.help.clone().unwrap_or_default().contains(help), "{text}: {error:?}");
    }
}

#[test]
fn the_place_is_found_in_every_form_of_a_scalar() {
    for (when, line, column) in [
        ("{cel: destination.prt == 1}", 5, 17),
        ("{cel: 'destination.port == 1 && x'}", 5, 43),
        (r#"{cel: "\"a\" == \"a\" && xy == 1"}"#, 5, 36),
        ("\n      cel: destination.port == 1\n        && nope == 2\n", 7, 12),
        ("\n      cel: |\n        destination.port == 1\n        && (nope == 2)\n", 8, 13),
        ("\n      cel: >-\n        destination.port == 1 &&\n        ü.x == 2\n", 8, 9),
    ] {
        let text = format!("version: 1\nname: p\nrules:\n  - id: r\n    when: {when}\n    allow: true\n");
        let error = Policy::from_text("p.yaml", &text).unwrap_err();
        let found = &error.findings()[0];
        assert_eq!((found.line, found.column), (line, column), "{text}{}", found.message);
        assert!(found.to_string().starts_with(&format!("p.yaml:{line}:{column}: ")), "{found}");
    }
}

#[test]
fn lengths_and_depths_are_limited() {
    let long = |length: usize| format!("true{}", " ".repeat(length - 4));
    assert!(Expression::parse(&long(MAX_CEL_BYTES)).is_ok());
    assert!(Expression::parse(&long(MAX_CEL_BYTES + 1)).unwrap_err().message.contains("longer"));
    let nested = |depth: usize| format!("{}true{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Expression::parse(&nested(MAX_CEL_DEPTH)).is_ok());
    assert!(Expression::parse(&nested(MAX_CEL_DEPTH + 1)).unwrap_err().message.contains("deep"));
    // The comparison is a level of its own.
    let sums = |terms: usize| format!("{} == 1", vec!["1"; terms].join(" + "));
    assert!(Expression::parse(&sums(MAX_CEL_DEPTH - 1)).is_ok());
    assert!(Expression::parse(&sums(MAX_CEL_DEPTH)).unwrap_err().message.contains("deep"));
    let ifs = |count: usize| format!("{}true", "true ? false : ".repeat(count));
    assert!(Expression::parse(&ifs(MAX_CEL_DEPTH - 1)).is_ok());
    assert!(Expression::parse(&ifs(MAX_CEL_DEPTH + 1)).unwrap_err().message.contains("deep"));
    let loops = |count: usize| {
        let open: String = (0..count).map(|n| format!("http.query.a.exists(v{n}, ")).collect();
        format!("{open}true{}", ")".repeat(count))
    };
    assert!(Expression::parse(&loops(MAX_CEL_LOOPS)).is_ok());
    assert!(Expression::parse(&loops(MAX_CEL_LOOPS + 1)).unwrap_err().message.contains("loops"));
    let pattern = |length: usize| format!("http.path.matches('{}')", "a".repeat(length));
    assert!(Expression::parse(&pattern(MAX_CEL_PATTERN_BYTES)).is_ok());
    assert!(Expression::parse(&pattern(MAX_CEL_PATTERN_BYTES + 1)).unwrap_err().message.contains("longer"));
    for huge in ["(a{1000}){1000}", "(?:[a-z]{100}){100}"] {
        let error = Expression::parse(&format!("http.path.matches('{huge}')")).unwrap_err();
        assert!(error.message.contains("compiled"), "{error:?}");
    }
}

/// Whatever nests, in the longest text that is read at all, in a thread with a small part of
/// the stack on which policies are compiled.
#[test]
fn nothing_that_nests_overflows_the_stack() {
    let fill = |unit: &str| unit.repeat(MAX_CEL_BYTES / unit.len());
    let units = [
        "(", "[", "{", "!", "-", "!-", "!(", "a.", "a(", "a[", "a?", "a?b:", "1+", "1<", "a&&", "a||", "a==",
        "f(a,", "\"a\"+", "has(", "a.all(b,", "a in ", "{\"a\":", "[[1],", "'", "\\", "//", "`", "\"\"\"",
        "0x", "?", ".", "((a))+", "-(1)", "a{b:", "🦀", "\u{0}",
    ];
    let test = move || {
        for unit in units {
            for text in [fill(unit), format!("{}1", fill(unit).trim_end_matches(char::is_alphabetic))] {
                drop(Expression::parse(text.get(..MAX_CEL_BYTES).unwrap_or(&text)));
            }
        }
    };
    let builder = std::thread::Builder::new().stack_size(STACK_BYTES / 4);
    builder.spawn(test).unwrap().join().unwrap();
}

#[test]
fn work_is_limited() {
    let mut asked = Asked::default();
    let of = |count: usize| vec!["a=1"; count].join("&");
    asked.query = of(MAX_PARAMETERS);
    assert_eq!(asked.both("size(http.query.a) == 1000"), YES);
    asked.query = of(MAX_PARAMETERS + 1);
    assert_eq!(asked.both("size(http.query.a) == 1000"), FAILED);
    // Each turn of the inner loop costs four steps.
    let twice = "http.query.a.exists(x, http.query.a.exists(y, x + y == \"2\"))";
    asked.query = of(20);
    assert_eq!(asked.both(twice), NO);
    asked.query = of(200);
    assert_eq!(asked.both(twice), FAILED);
    assert_eq!(asked.both(&format!("({twice}) || true")), FAILED, "there is nothing left for it");
    asked.query = format!("a={}", "b".repeat(MAX_CEL_TEXT_BYTES));
    assert_eq!(asked.both("http.query.a[0].matches(\"^b*$\")"), YES);
    assert_eq!(asked.both("size(http.query.a[0] + \"\") > 0"), YES);
    asked.query.push('b');
    assert_eq!(asked.both("http.query.a[0].matches(\"^b*$\")"), FAILED);
    assert_eq!(asked.both("size(http.query.a[0] + \"\") > 0"), FAILED);
}

#[test]
fn rules_ask_expressions_beside_their_other_conditions() {
    let text = r#"
version: 1
name: p
rules:
  - id: no-drafts
    when: {host: h.test, cel: 'http.query["draft"].exists(v, v == "1")'}
    deny: drafts stay here
  - id: read
    when: {host: h.test, cel: 'http.method in ["GET", "HEAD"] && "accept" in http.headers'}
    allow: true
  - id: rest
    when: {host: rest.test}
    allow: true
"#;
    let policy = Policy::from_text("p.yaml", text).unwrap();
    let asked = Asked { query: "draft=0".to_owned(), ..Asked::default() };
    let mut facts = asked.facts();
    facts.host = Fact::Known("h.test");
    assert_eq!(policy.decide(&facts).verdict, Verdict::Allow);
    // No such parameter: the denial cannot be evaluated.
    facts.query = Fact::Known("");
    assert_eq!(policy.decide(&facts).reason, Reason::PolicyDeny);
    let detail = policy.explain(&facts).steps.remove(0).detail.unwrap();
    assert!(detail.contains("no such key") && detail.contains("true for what does not"), "{detail}");
    facts.query = Fact::Known("draft=0");
    facts.method = Fact::Known("POST");
    assert_eq!(policy.decide(&facts).reason, Reason::PolicyDefaultDeny);
    let step = policy.explain(&facts).steps.remove(1);
    assert_eq!(step.because, Some("cel"));
    assert_eq!(step.detail.unwrap(), r#"`http.method in ["GET", "HEAD"]` is false"#);
    facts.method = Fact::Known("GET");
    facts.headers = Fact::Unknown;
    assert_eq!(policy.decide(&facts).reason, Reason::MissingFact);
    assert!(
        policy.explain(&facts).steps[1]
            .detail
            .as_ref()
            .unwrap()
            .contains("`http.headers`, which is not known")
    );
    // Before there is a request it may still come.
    let mut early = Facts::new(&asked.workload, Stage::Connect);
    early.host = Fact::Known("h.test");
    assert!(policy.feasible(&early).is_possible());
    early.host = Fact::Known("other.test");
    assert!(!policy.feasible(&early).is_possible());
}

#[test]
fn the_stage_is_no_reason_to_refuse_early() {
    let text = "version: 1\nname: p\nrules: [{id: r, when: {cel: 'stage == \"http\"'}, allow: true}]";
    let policy = Policy::from_text("p.yaml", text).unwrap();
    let asked = Asked::default();
    assert!(policy.feasible(&Facts::new(&asked.workload, Stage::Connect)).is_possible());
    assert_eq!(policy.decide(&Facts::new(&asked.workload, Stage::Tls)).verdict, Verdict::Deny);
    assert_eq!(policy.decide(&asked.facts()).verdict, Verdict::Allow);
}

#[test]
fn what_needs_the_request_cannot_pass_unread_nor_open_addresses() {
    let rule = |body: &str| {
        Policy::from_text("p.yaml", &format!("version: 1\nname: p\nrules:\n  - {{id: r, {body}}}\n"))
    };
    assert!(rule("when: {host: h.test, cel: destination.port == 443}, passthrough: true").is_ok());
    assert!(rule("when: {host: h.test, cel: http.path == '/'}, passthrough: true").is_err());
    assert!(rule("when: {host: h.test, cel: size(http.headers) > 1}, passthrough: true").is_err());
    assert!(rule("when: {cel: destination.port == 443}, allow: true, addresses: [private]").is_ok());
    assert!(rule("when: {cel: destination.port == 443}, addresses: [private]").is_err());
}

/// Expressions of the grammar, most of them well typed.
fn expressions() -> impl Strategy<Value = String> {
    let atom = prop::sample::select(vec![
        r#"http.method == "GET""#,
        r#"http.path.startsWith("/v1")"#,
        r#""page" in http.query"#,
        r#"http.query.page[0] == "2""#,
        r#"http.headers["accept"].exists(v, v == "*/*")"#,
        r#"workload.labels.team == "web""#,
        "destination.port / (destination.port - 443) == 0",
        "destination.port > 100",
        r#"destination.host.matches("example")"#,
        "true",
        "false",
    ]);
    atom.prop_map(str::to_owned).prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} && {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a} || {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            inner.clone().prop_map(|a| format!("!({a})")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("({a}) == ({b})")),
        ]
    })
}

/// Facts, each of them known in one of two ways, absent or unknown.
fn with<'a>(asked: &'a Asked, other: &'a Asked, ways: [u8; 4]) -> Facts<'a> {
    fn way<T>(way: u8, one: Fact<T>, other: Fact<T>) -> Fact<T> {
        match way {
            0 => one,
            1 => other,
            2 => Fact::Absent,
            _ => Fact::Unknown,
        }
    }
    let (one, two) = (asked.facts(), other.facts());
    Facts {
        method: way(ways[0], one.method, two.method),
        path: way(ways[1], one.path, two.path),
        query: way(ways[2], one.query, two.query),
        headers: way(ways[3], one.headers, two.headers),
        ..one
    }
}

fn other() -> Asked {
    Asked {
        query: "x=1;page=2".to_owned(),
        path: "/v1;a/b".to_owned(),
        method: "get".to_owned(),
        headers: HeaderMap::new(),
        ..Asked::default()
    }
}

proptest! {
    #[test]
    fn what_is_certain_stays_so_when_more_is_known(
        text in expressions(),
        ways in prop::array::uniform4(0..4_u8),
        completion in prop::array::uniform4(0..3_u8),
    ) {
        let (asked, other) = (Asked::default(), other());
        let expression = Expression::parse(&text).unwrap();
        let facts = with(&asked, &other, ways);
        let mut complete = ways;
        for (way, known) in complete.iter_mut().zip(completion) {
            if *way == 3 {
                *way = known;
            }
        }
        let later = with(&asked, &other, complete);
        for grants in [true, false] {
            let now = expression.holds(&Known::of(&facts, true).unwrap(), grants);
            let then = expression.holds(&Known::of(&later, true).unwrap(), grants);
            prop_assert!(now == Tri::Maybe || now == then, "{} {:?} {:?}", text, now, then);
            prop_assert!(then != Tri::Maybe, "{}", text);
        }
    }

    #[test]
    fn what_is_refused_early_would_not_be_allowed_later(
        text in expressions(),
        allows in any::<bool>(),
        ways in prop::array::uniform4(0..4_u8),
        completion in prop::array::uniform4(0..3_u8),
    ) {
        let (asked, other) = (Asked::default(), other());
        let effect = if allows { "allow: true" } else { "deny: no" };
        let text = format!(
            "version: 1\nname: p\nrules:\n  - id: r\n    when:\n      cel: >-\n        {text}\n    {effect}\n  \
             - {{id: rest, when: {{method: GET}}, allow: true}}\n"
        );
        let policy = Policy::from_text("p.yaml", &text).unwrap();
        let facts = with(&asked, &other, ways);
        let mut complete = ways;
        for (way, known) in complete.iter_mut().zip(completion) {
            if *way == 3 {
                *way = known;
            }
        }
        if let Feasibility::Never(_) = policy.feasible(&facts) {
            prop_assert_eq!(policy.decide(&with(&asked, &other, complete)).verdict, Verdict::Deny, "{}", text);
            prop_assert_eq!(policy.decide(&facts).verdict, Verdict::Deny, "{}", text);
        }
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,80}", cut in "[()\\[\\]{}a.?:&|!=<>+*/%'\"\\\\, 0-9-]{0,60}") {
        drop(Expression::parse(&text));
        drop(Expression::parse(&cut));
    }

    /// The crate's own interpreter is the judge where every fact is known and there is one
    /// reading.
    #[test]
    fn values_are_those_of_the_language(text in expressions()) {
        let asked = Asked::default();
        let got = asked.both(&text);
        let mut context = cel::Context::default();
        let map = |pairs: &[(&str, cel::Value)]| {
            let pairs = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone()));
            cel::Value::from(pairs.collect::<std::collections::HashMap<String, cel::Value>>())
        };
        let texts = |texts: &[&str]| cel::Value::from(texts.iter().map(|t| (*t).to_owned()).collect::<Vec<String>>());
        let text_of = |text: &str| cel::Value::from(text.to_owned());
        let query = map(&[("page", texts(&["2", "3"]))]);
        let headers = map(&[("accept", texts(&["text/html", "*/*"]))]);
        let http = [
            ("method", text_of("GET")), ("path", text_of("/v1/models")), ("query", query), ("headers", headers),
        ];
        context.add_variable_from_value("http", map(&http));
        context.add_variable_from_value("workload", map(&[("labels", map(&[("team", text_of("web"))]))]));
        let port = cel::Value::from(443_i64);
        context.add_variable_from_value("destination", map(&[("host", text_of("api.example.com")), ("port", port)]));
        let text = text.replace(".matches(\"example\")", ".contains(\"example\")");
        let wanted = match cel::Program::compile(&text).unwrap().execute(&context) {
            Ok(cel::Value::Bool(true)) => YES,
            Ok(cel::Value::Bool(false)) => NO,
            Ok(other) => panic!("{text}: {other:?}"),
            Err(_) => FAILED,
        };
        prop_assert_eq!(got, wanted, "{}", text);
    }
}
