//! Stock clients whose requests are held: those that wait, and those that do not.

use std::time::Duration;

use enforcer_tests::origin::{completion, make_content, message};
use enforcer_tests::wait::until;

use super::world::World;
use crate::has;

/// A client that waits for as long as it has to.
struct Client {
    name: &'static str,
    /// The program; address, body and patience follow.
    program: &'static str,
    /// What stands behind the address that it was given.
    path: &'static str,
}

const CLIENTS: [Client; 5] = [
    Client { name: "requests", program: "$PYTHON $CLIENTS/python/post.py requests", path: "" },
    Client { name: "fetch", program: "$NODEJS $CLIENTS/node/post.mjs", path: "" },
    Client { name: "go", program: "$GO/probe", path: "" },
    Client {
        name: "openai",
        program: "$PYTHON $CLIENTS/python/post.py openai",
        path: "/v1/chat/completions",
    },
    Client { name: "anthropic", program: "$PYTHON $CLIENTS/python/post.py anthropic", path: "/v1/messages" },
];

/// Where the clients are, for a script.
pub fn variables() -> String {
    let tests = env!("CARGO_MANIFEST_DIR");
    let installed = format!("{tests}/../target/clients");
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x64" };
    format!(
        "CLIENTS={tests}/clients; PYTHON={installed}/python/bin/python; GO={installed}/go; \
         NODEJS={installed}/node/node_modules/node-linux-{arch}/bin/node; \
         unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL"
    )
}

impl Client {
    /// Each has paths of its own.
    fn send(&self, world: &World, path: &str, body: &str, patience: &str) -> String {
        format!("{} {}{path}/{} '{body}' {patience}", self.program, world.url(), self.name)
    }

    fn line(&self, path: &str) -> String {
        format!("POST {path}/{}{}", self.name, self.path)
    }
}

/// With a model behind each of its paths.
fn world() -> World {
    let world = World::new();
    for path in ["/open", "/two", "/kept"] {
        let stream = "text/event-stream";
        world.sink.says(&format!("{path}/openai/v1/chat/completions"), stream, completion("taken"));
        world.sink.says(&format!("{path}/anthropic/v1/messages"), stream, message("taken"));
    }
    world
}

#[test]
fn what_clients_send_goes_out_as_it_is_once_after_the_last_of_them_agreed() {
    let world = world();
    for client in &CLIENTS {
        eprintln!("{}", client.name);
        let body = format!("grüße von {}", client.name);
        // As it is if nobody holds it.
        let open = client.send(&world, "/open", &body, "");
        let held = client.send(&world, "/two", &body, "");
        let script = format!("{}; {open}; {held}", variables());
        let line = client.line("/two");
        std::thread::scope(|threads| {
            let job = world.runs(threads, &script);
            let asked = world.open();
            assert_eq!(world.bodies(&line), [] as [Vec<u8>; 0]);
            assert!(world.yes("ann", &asked).contains("1 of 2"));
            assert_eq!(world.bodies(&line), [] as [Vec<u8>; 0]);
            assert!(!job.is_finished());
            assert!(world.yes("bob", &asked).contains("is approved"));
            let text = job.join().unwrap();
            assert_eq!(text.matches("200 taken").count(), 2, "{text}");
        });
        let want = world.bodies(&client.line("/open"));
        assert!(want.len() == 1 && has(&want[0], body.as_bytes()), "{want:?}");
        assert_eq!(world.bodies(&line), want);
        // Of the next one nothing is there yet.
        assert!(world.listed(false).is_empty());
    }
}

#[test]
fn on_no_on_the_end_of_time_and_when_they_leave_nothing_of_what_clients_send_goes_out() {
    let world = world();
    for client in &CLIENTS {
        eprintln!("{}", client.name);
        let all = [("/two", "no", ""), ("/soon", "late", ""), ("/two", "gone", "1")];
        let all = all.map(|(path, body, patience)| client.send(&world, path, body, patience));
        let script = format!("{}; {}", variables(), all.join("; "));
        std::thread::scope(|threads| {
            let job = world.runs(threads, &script);
            let asked = world.open();
            let no = world.says(&world.token_of("bob", &["ops"]), "deny", &asked);
            assert!(no.contains("is rejected"), "{no}");
            let text = job.join().unwrap();
            assert!(
                text.contains("403") && text.contains("said no") && text.contains("as announced"),
                "{text}"
            );
            assert!(text.contains("nobody agreed to this request in time"), "{text}");
            assert!(text.trim_end().ends_with("left"), "{text}");
        });
        until("all is decided", || world.listed(false).is_empty());
    }
    let states: Vec<String> =
        world.listed(true).iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
    for state in ["cancelled", "expired", "rejected"] {
        let count = states.iter().filter(|it| *it == state).count();
        assert_eq!(count, CLIENTS.len(), "{state}: {states:?}");
    }
    assert_eq!(world.sink.taken(), []);
}

/// pip is held for ten seconds, as long as it waits; boto3 for a second, by the rule.
#[test]
fn who_does_not_wait_is_denied_and_passes_by_the_grant_when_it_tries_again() {
    let world = world();
    let folder = tempfile::tempdir().unwrap();
    make_content(folder.path(), &world.url()).unwrap();
    let wheel = "files/wheels/probe_pkg-1.0-py3-none-any.whl";
    let read = |path: &str| std::fs::read(folder.path().join(path)).unwrap();
    world.sink.says("/files/simple/probe-pkg/", "text/html", read("files/simple/probe-pkg/index.html"));
    world.sink.says(&format!("/{wheel}"), "application/octet-stream", read(wheel));
    // What it cannot read under status 200, boto3 takes for an error.
    world.sink.says("/later/bucket/key", "application/xml", "");
    let url = world.url();
    let pip = format!(
        "$PYTHON -m pip download -q --disable-pip-version-check --no-cache-dir --no-deps -d $D/wheels \
         --index-url {url}/files/simple/ probe-pkg; echo code $?"
    );
    let boto = format!("$PYTHON $CLIENTS/python/post.py boto3 {url}/later 'an object'");
    for (name, command, line, done) in [
        ("pip", pip, format!("GET /{wheel}"), "code 0"),
        ("boto3", boto, "PUT /later/bucket/key".to_owned(), "200"),
    ] {
        eprintln!("{name}");
        let go = world.service.dir.path().join(name);
        let script = format!(
            "{}; {command}; echo ---; timeout 60 sh -c 'until [ -e {} ]; do sleep 0.05; done'; {command}",
            variables(),
            go.display()
        );
        std::thread::scope(|threads| {
            let job = world.runs(threads, &script);
            until("it is about a retry", || world.listed(false).iter().any(|one| one["applies"] == "retry"));
            let asked = world.open();
            assert_eq!(world.bodies(&line).len(), 0);
            assert!(world.yes("ann", &asked).contains("is approved"));
            assert_eq!(world.bodies(&line).len(), 0);
            std::fs::write(&go, "").unwrap();
            let text = job.join().unwrap();
            let (first, second) = text.split_once("---").unwrap();
            assert!(first.contains("403") && !first.contains(done), "{text}");
            assert!(second.contains(done), "{text}");
        });
        assert_eq!(world.bodies(&line).len(), 1);
    }
    assert!(has(&world.bodies("PUT /later/bucket/key")[0], b"an object"));
    assert!(folder.path().join(wheel).exists());
    let fetched = world.service.dir.path().join("wheels/probe_pkg-1.0-py3-none-any.whl");
    assert_eq!(std::fs::read(fetched).unwrap(), read(wheel));
    // Why, stands in the recording, and in the answer that neither of them shows.
    assert!(has(&world.service.written().unwrap(), b"approval-pending"));
}

/// Comments come every ten seconds: who hears nothing for twelve gives up.
#[test]
fn who_asks_a_model_hears_that_it_waits_and_waits_longer_than_it_would() {
    let world = world();
    let patience = 12;
    for client in &CLIENTS[3..] {
        eprintln!("{}", client.name);
        let line = client.line("/kept");
        let yes = client.send(&world, "/kept", "yes", &patience.to_string());
        let no = client.send(&world, "/kept", "no", &patience.to_string());
        let gone = client.send(&world, "/kept", "gone", "");
        let script = format!("{}; {yes}; {no}; timeout 3 {gone}; echo left $?", variables());
        std::thread::scope(|threads| {
            let job = world.runs(threads, &script);
            let asked = world.open();
            if client.name == "openai" {
                // It is the passing of time that is tested.
                std::thread::sleep(Duration::from_secs(patience + 2));
            }
            assert!(!job.is_finished() && world.bodies(&line).is_empty());
            assert!(world.yes("ann", &asked).contains("is approved"));
            until("it has gone out", || world.bodies(&line).len() == 1);
            until("the next one is asked for", || {
                world.listed(false).iter().any(|one| one["id"] != asked.0.as_str())
            });
            let refused = world.says(&world.token_of("bob", &["ops"]), "deny", &world.open());
            assert!(refused.contains("is rejected"), "{refused}");
            let text = job.join().unwrap();
            assert!(text.contains("200 taken"), "{text}");
            assert!(text.contains("said no") && text.contains("as announced"), "{text}");
            assert!(text.contains("left 124"), "{text}");
        });
        until("who has left is not asked for any more", || world.listed(false).is_empty());
        let bodies = world.bodies(&line);
        assert!(bodies.len() == 1 && has(&bodies[0], b"yes"), "{bodies:?}");
    }
}
