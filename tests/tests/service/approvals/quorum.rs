//! Who counts, by real tokens and by processes that answer at the same time.

use std::process::Stdio;

use enforcer_tests::wait::until;

use super::world::{World, said};

/// Questions of one job; it may ask twenty in ten minutes.
const ROUNDS: usize = 18;

impl World {
    /// Several people agree, each in a process of their own; what they are told.
    fn at_once(&self, who: &[&str], (id, seen): &(String, String)) -> Vec<String> {
        let args = ["approvals", "approve", id, "--seen", seen];
        let answers: Vec<_> = who
            .iter()
            .map(|who| {
                let mut command = self.service.command(&args).unwrap();
                command.env("ENFORCER_APPROVER_TOKEN", self.token_of(who, &["ops"]));
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        answers.into_iter().map(|answer| said(&answer.wait_with_output().unwrap())).collect()
    }
}

/// Posts `ROUNDS` bodies, one after another.
fn posts(path: &str) -> String {
    format!("for n in $(seq {ROUNDS}); do post {path} \"body $n\"; done")
}

fn bodies() -> Vec<String> {
    (1..=ROUNDS).map(|number| format!("body {number}")).collect()
}

#[test]
fn of_two_who_agree_at_the_same_instant_each_counts_once_and_it_goes_out_once() {
    let world = World::new();
    // Whether one is needed, or both: how often each of the two was told so.
    for (path, told) in [
        ("/one", [("is approved", 1), ("decided already", 1)]),
        ("/two", [("is approved", 1), ("1 of 2", 1)]),
    ] {
        let script = posts(path);
        std::thread::scope(|threads| {
            let job = world.runs(threads, &script);
            for round in 0..ROUNDS {
                let asked = world.open();
                let answers = world.at_once(&["ann", "bob"], &asked);
                for (what, times) in told {
                    let count = answers.iter().filter(|answer| answer.contains(what)).count();
                    assert_eq!(count, times, "{path}, {round}: {what}: {answers:?}");
                }
                until("it is decided", || {
                    world.listed(false).iter().all(|one| one["id"] != asked.0.as_str())
                });
            }
            let text = job.join().unwrap();
            assert_eq!(text.matches("taken\n 200").count(), ROUNDS, "{text}");
        });
        let bodies = bodies();
        world.taken(&format!("POST {path}"), &bodies.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

#[test]
fn who_loses_the_role_does_not_count_any_more_nor_does_what_they_said_before() {
    let world = World::new();
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two x");
        let asked = world.open();
        assert!(world.yes("ann", &asked).contains("1 of 2"));
        let without = world.says(&world.token_of("ann", &["web"]), "approve", &asked);
        assert!(without.contains("none of the groups"), "{without}");
        assert!(world.yes("bob", &asked).contains("1 of 2"));
        world.taken("POST /two", &[]);
        assert!(world.yes("cat", &asked).contains("is approved"));
        assert!(job.join().unwrap().contains(" 200"));
    });
    world.taken("POST /two", &["x"]);
}

#[test]
fn after_a_restart_people_count_by_what_their_tokens_said_and_not_by_what_is_expected_of_them() {
    let world = World::new();
    for path in ["/later-two", "/later-both"] {
        let end = world.service.dir.path().join(&path[1..]);
        let script =
            format!("post {path} x; timeout 100 sh -c 'until [ -e {} ]; do sleep 0.05; done'", end.display());
        std::thread::scope(|threads| {
            let job = world.runs(threads, &script);
            until("it is about a retry", || world.listed(false).iter().any(|one| one["applies"] == "retry"));
            let asked = world.open();
            assert!(world.yes("ann", &asked).contains("1 of 2"));
            if path == "/later-two" {
                let without = world.says(&world.token_of("ann", &["web"]), "approve", &asked);
                assert!(without.contains("none of the groups"), "{without}");
            }
            // Where one of `sec` is needed, ann's token has not said that she is.
            world.service.kill_proxy().unwrap();
            world.service.wait_whole().unwrap();
            let one = world.yes("bob", &asked);
            assert!(one.contains("1 of 2"), "{path}: {one}");
            let cat = world.says(&world.token_of("cat", &["ops", "sec"]), "approve", &asked);
            assert!(cat.contains("is approved"), "{path}: {cat}");
            std::fs::write(&end, "").unwrap();
            let text = job.join().unwrap();
            assert!(text.contains("approval-pending"), "{text}");
        });
    }
    assert_eq!(world.sink.taken(), []);
}

#[test]
fn an_answer_after_the_end_changes_nothing() {
    let world = World::new();
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /soon x");
        let asked = world.open();
        assert!(job.join().unwrap().contains("approval-expired"));
        assert!(world.yes("ann", &asked).contains("was not decided in time"));
    });
    assert_eq!(world.listed(true)[0]["state"], "expired");
    assert_eq!(world.sink.taken(), []);
}

#[test]
fn an_admin_on_their_own_job_is_nobody_and_one_person_in_two_groups_is_one() {
    let world = World::new();
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /both x");
        let asked = world.open();
        for verb in ["approve", "deny"] {
            let own = world.says(&world.token_of("mona", &["admins", "ops", "sec"]), verb, &asked);
            assert!(own.contains("the job is theirs"), "{own}");
        }
        let both = world.token_of("ann", &["ops", "sec"]);
        assert!(world.says(&both, "approve", &asked).contains("1 of 2"));
        let again = world.says(&world.token_of("ann", &["sec"]), "approve", &asked);
        assert!(again.contains("had said so before") && again.contains("1 of 2"), "{again}");
        world.taken("POST /both", &[]);
        assert!(world.yes("bob", &asked).contains("is approved"));
        assert!(job.join().unwrap().contains(" 200"));
    });
    world.taken("POST /both", &["x"]);
}
