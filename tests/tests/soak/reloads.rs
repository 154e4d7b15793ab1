//! Reloads under load, one in ten of them broken: every statement is judged by one generation of
//! the policy, whole, and by a good one; none is lost, and none gets through.
//!
//! Each generation denies other paths than the next one, under a rule of its own name, and all
//! deny one path. A broken one would let everything through if anything of it came into force.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Instant;

use enforcer::session::read;
use enforcer_tests::service::Service;
use enforcer_tests::sink::Sink;
use enforcer_tests::wait::until;
use serde_json::{Value, json};

const NAME: &str = "upstream.test";
/// How many there are in a run of all tests; `cargo xtask soak` asks for a thousand.
const FEW: usize = 60;
/// One in so many is broken.
const BROKEN: usize = 10;
/// Clients that send one request after another.
const CLIENTS: usize = 4;

/// Even generations deny `/even`, odd ones `/odd`.
fn good(generation: usize) -> String {
    let denied = if generation.is_multiple_of(2) { "/even" } else { "/odd" };
    format!(
        "version: 1\nname: soak\nrules:\n  \
         - {{id: never, when: {{host: {NAME}, path: /never}}, deny: in no generation}}\n  \
         - {{id: no-{generation}, when: {{host: {NAME}, path: {denied}}}, deny: not in this one}}\n  \
         - {{id: yes-{generation}, when: {{host: {NAME}}}, allow: true, addresses: [loopback]}}\n"
    )
}

/// What does not load, and would allow everything.
fn broken(number: usize) -> String {
    let open = format!(
        "version: 1\nname: soak\nrules:\n  - {{id: open-{number}, allow: true, addresses: [loopback]}}\n"
    );
    match number % 4 {
        0 => open + "  - {id: bad, when: {hots: x}, allow: true}\n",
        1 => open + "  - {id: bad, when: {cel: 'http.method =='}, deny: x}\n",
        2 => open + "  - {id: bad\n",
        _ => open.replace("version: 1", "version: 99"),
    }
}

struct Load {
    clients: Vec<Child>,
    folder: tempfile::TempDir,
}

impl Load {
    /// Clients that ask for each path in turn until they are told to end.
    fn start(service: &Service, url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path().display();
        let client = |number: usize| {
            let script = format!(
                "until [ -e {at}/end ]; do curl -sS -o /dev/null -w '%{{http_code}} %{{url}}\\n' \
                 '{url}/{{even,odd,never}}?{number}-[1-200]' >> {at}/said.{number} 2>> {at}/failed.{number}; done"
            );
            let mut command = service.command(&["run", "--quiet", "--", "sh", "-c", &script]).unwrap();
            command.stdin(Stdio::null()).spawn().unwrap()
        };
        let clients = (0..CLIENTS).map(client).collect();
        Self { clients, folder }
    }

    fn end(self) -> String {
        std::fs::write(self.folder.path().join("end"), "").unwrap();
        for mut client in self.clients {
            assert!(client.wait().unwrap().success());
        }
        let read = |name: &str, number| {
            std::fs::read_to_string(self.folder.path().join(format!("{name}.{number}"))).unwrap()
        };
        let failed: String = (0..CLIENTS).map(|number| read("failed", number)).collect();
        assert_eq!(failed, "");
        (0..CLIENTS).map(|number| read("said", number)).collect()
    }
}

/// One statement, as it stands in the recording.
#[derive(Default)]
struct Judged {
    path: String,
    verdicts: Vec<(String, String, String)>,
}

fn recorded(dir: &Path) -> Vec<Judged> {
    let mut all: BTreeMap<(String, u64), Judged> = BTreeMap::new();
    for session in read::list(dir, &read::Filter::default()).unwrap() {
        let session = session.id;
        read::entries(dir, session, |entry| {
            let text = |name: &str| entry.payload[name].as_str().unwrap_or_default().to_owned();
            let Some(statement) = entry.payload["statement"].as_u64() else { return Ok(()) };
            let judged = all.entry((session.to_string(), statement)).or_default();
            match entry.payload["event"].as_str() {
                Some("statement") => judged.path = text("path"),
                Some("verdict") => judged.verdicts.push((text("verdict"), text("rule"), text("policy"))),
                _ => {}
            }
            Ok(())
        })
        .unwrap();
    }
    all.into_values().collect()
}

/// Holds each statement against the generation that its rule is of; how many each of them has judged.
fn check(judged: &[Judged]) -> BTreeMap<usize, usize> {
    let (mut policies, mut generations) = (BTreeMap::<String, usize>::new(), BTreeMap::new());
    for one in judged {
        let [(verdict, rule, policy)] = &one.verdicts[..] else { panic!("{}: {:?}", one.path, one.verdicts) };
        if one.path == "/never" {
            assert_eq!((verdict.as_str(), rule.as_str()), ("deny", "soak/never"));
            continue;
        }
        let (word, generation) = rule.strip_prefix("soak/").unwrap().split_once('-').unwrap();
        let generation: usize = generation.parse().unwrap();
        let denies = if generation.is_multiple_of(2) { "/even" } else { "/odd" };
        let want = if one.path == denies { ("no", "deny") } else { ("yes", "allow") };
        assert_eq!((word, verdict.as_str()), want, "{} by {rule}", one.path);
        // One policy has one name, and all of its rules are of one generation.
        assert_eq!(*policies.entry(policy.clone()).or_insert(generation), generation, "{policy}");
        *generations.entry(generation).or_insert(0) += 1;
    }
    assert_eq!(policies.len(), generations.len());
    generations
}

fn count(said: &str, begin: &str) -> usize {
    said.lines().filter(|line| line.starts_with(begin)).count()
}

#[test]
fn every_statement_is_judged_by_one_generation_and_none_is_lost_or_gets_through() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<usize>().unwrap());
    let reloads = number("ENFORCER_SOAK_RELOADS").unwrap_or(FEW);
    let sink = Sink::start(NAME).unwrap();
    let service = Service::start_for(NAME, sink.address, &sink.ca_pem, &good(0)).unwrap();
    let file = service.dir.path().join("policies/test.yaml");
    let begun = Instant::now();
    let load = Load::start(&service, &format!("https://{NAME}:{}", sink.address.port()));
    until("all have begun", || sink.taken().len() > 10 * CLIENTS);
    for reload in 1..=reloads {
        let bad = reload.is_multiple_of(BROKEN);
        // In place of the old one at once, as editors and deployments do it.
        let next = file.with_extension("next");
        std::fs::write(&next, if bad { broken(reload / BROKEN) } else { good(reload) }).unwrap();
        std::fs::rename(&next, &file).unwrap();
        let out = service.output(&["reload"]).unwrap();
        assert_eq!(out.status.success(), !bad, "{reload}: {}", String::from_utf8_lossy(&out.stderr));
    }
    let said = load.end();
    let seconds = begun.elapsed().as_secs_f64();
    let judged = recorded(&service.sessions());
    let generations = check(&judged);
    // None is lost: whoever asked was answered, with what was written down.
    let of = |verdict: &str| judged.iter().filter(|one| one.verdicts[0].0 == verdict).count();
    assert_eq!(said.lines().count(), judged.len());
    assert_eq!((count(&said, "200 "), count(&said, "403 ")), (of("allow"), of("deny")));
    // None got through: what has reached the upstream is what was allowed, and no more.
    let taken = sink.taken();
    assert_eq!(taken.len(), of("allow"));
    assert!(taken.iter().all(|taken| taken.line != "GET /never"));
    // Those that were broken have judged nothing, and most others have.
    assert!(generations.keys().all(|generation| *generation == 0 || !generation.is_multiple_of(BROKEN)));
    let report = report(reloads, &judged, &generations, seconds);
    println!("{report:#}");
    assert!(generations.len() * 2 > reloads, "{report:#}");
    if let Ok(path) = std::env::var("ENFORCER_SOAK_JSON") {
        std::fs::write(path, report.to_string()).unwrap();
    }
}

fn report(reloads: usize, judged: &[Judged], generations: &BTreeMap<usize, usize>, seconds: f64) -> Value {
    json!({
        "reloads": reloads,
        "broken": reloads / BROKEN,
        "statements": judged.len(),
        "denied": judged.iter().filter(|one| one.verdicts[0].0 == "deny").count(),
        "generations_that_judged": generations.len(),
        "seconds": seconds.round(),
    })
}
