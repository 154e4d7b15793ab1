//! Requests that people have to agree to: a stock client, a job with a token, deciders with
//! tokens of their own, and an upstream that remembers what came.

mod authors;
mod clients;
mod login;
mod quorum;
mod tools;
mod webhooks;
mod world;

use enforcer_tests::wait::until;

use crate::{NAME, has};
use world::said;
pub(super) use world::{ISSUER, POLICY, World};

#[test]
fn two_people_who_did_not_start_the_job_let_it_go_once() {
    let world = World::new();
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two 'the very bytes'; $E approvals ls; echo code $?");
        let asked = world.open();
        let shown = said(&world.service.output(&["approvals", "show", &asked.0]).unwrap());
        for part in
            ["mona", "octo/app", "held/two", "two people", "the very bytes", "exact bytes", "2 of ops"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        // Who started it, by whatever login; who is in no group that counts; whoever is a job.
        assert!(world.yes("mona", &asked).contains("the job is theirs"));
        assert!(
            world.says(&world.token_of("ann", &["web"]), "approve", &asked).contains("none of the groups")
        );
        assert!(world.says(&world.token_of_job(), "approve", &asked).contains("not for us alone"));
        assert!(world.says("x.y.z", "approve", &asked).contains("no signed token"));
        assert!(world.says("", "approve", &asked).contains("no signed token"));
        assert!(world.yes("zoe", &asked).contains("does not know them"));
        assert!(world.yes("ann", &asked).contains("1 of 2"));
        assert!(world.yes("ann", &asked).contains("had said so before, by this login or another: 1 of 2"));
        let other = (asked.0.clone(), "0".repeat(64));
        assert!(world.yes("bob", &other).contains("look at it again"));
        world.taken("POST /two", &[]);
        assert!(!job.is_finished());
        assert!(world.yes("bob", &asked).contains("is approved"));
        let text = job.join().unwrap();
        assert!(text.starts_with("taken\n 200"), "{text}");
        assert!(text.contains("no say here") && text.contains("code 1"), "{text}");
        assert!(world.yes("bob", &asked).contains("decided already"));
    });
    world.taken("POST /two", &["the very bytes"]);
    let written = world.service.written().unwrap();
    for part in ["\"event\":\"held\"", "\"outcome\":\"approved\"", "\"event\":\"hold-released\"", "ann of "] {
        assert!(has(&written, part.as_bytes()), "{part}");
    }
}

#[test]
fn a_retry_passes_once_it_is_approved_and_one_byte_more_does_not() {
    let world = World::new();
    let script = "post /later one; until [ -e $D/yes ]; do sleep 0.05; done; post /later onE; post /later one; \
                  post /later one";
    std::thread::scope(|threads| {
        let job = world.runs(threads, script);
        until("it is about a retry", || world.listed(false).iter().any(|one| one["applies"] == "retry"));
        let asked = world.open();
        // Neither the question nor who the job is ends with the proxy.
        world.service.kill_proxy().unwrap();
        world.service.wait_whole().unwrap();
        assert_eq!(world.open(), asked);
        assert!(world.yes("ann", &asked).contains("is approved"));
        world.service.kill_proxy().unwrap();
        world.service.wait_whole().unwrap();
        std::fs::write(world.service.dir.path().join("yes"), "").unwrap();
        let text = job.join().unwrap();
        let codes: Vec<&str> = text.lines().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(codes.iter().filter(|code| **code == "200").count(), 1, "{text}");
        assert_eq!(codes.iter().filter(|code| **code == "403").count(), 3, "{text}");
        assert!(text.contains("approval-pending") && text.contains("enforcer approvals show apr-"), "{text}");
    });
    world.taken("POST /later", &["one"]);
}

#[test]
fn on_no_on_the_end_of_time_and_when_the_client_leaves_nothing_goes_out() {
    let world = World::new();
    let script = "post /two no; post /soon late; echo gone | curl -sS --max-time 2 --data-binary @- \
                  $(printf %s \"$U\") ; echo code $?";
    let url = format!("https://{NAME}:{}/two", world.sink.address.port());
    let script = format!("U={url}; {script}");
    std::thread::scope(|threads| {
        let job = world.runs(threads, &script);
        let asked = world.open();
        let no = world.says(&world.token_of("bob", &["ops"]), "deny", &asked);
        assert!(no.contains("is rejected"), "{no}");
        let text = job.join().unwrap();
        assert!(text.contains("approval-rejected") && text.contains("as announced"), "{text}");
        assert!(text.contains("approval-expired") && text.contains("code 28"), "{text}");
    });
    until("all is decided", || world.listed(false).is_empty());
    let mut states: Vec<String> =
        world.listed(true).iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect();
    states.sort();
    assert_eq!(states, ["cancelled", "expired", "rejected"]);
    assert_eq!(world.sink.taken(), []);
}

#[test]
fn root_lets_it_go_past_people_and_that_is_written_down() {
    let world = World::new();
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two urgent");
        let (id, seen) = world.open();
        let glass = |reason: &str| {
            let args = ["approvals", "break-glass", &id, "--seen", &seen, "--reason", reason];
            said(&world.service.output(&args).unwrap())
        };
        assert!(glass(" ").contains("needs a reason"));
        let status = said(&world.service.output(&["status"]).unwrap());
        assert!(status.contains("1 waits for people"), "{status}");
        assert!(glass("incident 4711").contains("is approved"));
        assert!(job.join().unwrap().contains(" 200"));
        let shown = said(&world.service.output(&["approvals", "show", &id, "--json"]).unwrap());
        assert!(shown.contains("break-glass") && shown.contains("incident 4711"), "{shown}");
    });
    world.taken("POST /two", &["urgent"]);
    let written = world.service.written().unwrap();
    assert!(has(&written, b"\"outcome\":\"break-glass\"") && has(&written, b"incident 4711"));
}
