//! Logging in at the command line, by a device of somebody's own.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::world::{World, said};

/// A command of somebody whose logins are kept in this folder.
fn by(world: &World, home: &Path, args: &[&str]) -> String {
    let mut command: Command = world.service.command(args).unwrap();
    command.env_remove("ENFORCER_APPROVER_TOKEN").env("XDG_STATE_HOME", home);
    // Errors are broken into lines.
    let text = said(&command.output().unwrap());
    text.split_whitespace().filter(|word| *word != "\u{2502}").collect::<Vec<_>>().join(" ")
}

#[test]
fn somebody_logs_in_by_a_device_of_theirs_and_their_yes_counts() {
    let world = World::new();
    let home = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| by(&world, home.path(), args);
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /one 'the bytes'");
        let (id, seen) = world.open();
        let yes = ["approvals", "approve", &id, "--seen", &seen];
        assert!(run(&yes).contains("deciding needs a login: `enforcer approvals login`"));
        // Who is refused, who is too late, and whose token is not for us.
        for (errors, claims, says) in [
            (&["access_denied"][..], json!({"sub": "ann"}), "was refused at the issuer"),
            (&["authorization_pending", "expired_token"], json!({"sub": "ann"}), "begin anew"),
            (&[], json!({"sub": "ann", "aud": "https://other.test"}), "not for us alone"),
        ] {
            world.issuer.at_device(errors);
            world.issuer.at_browser(claims);
            let text = run(&["approvals", "login"]);
            assert!(text.contains(says), "{says}: {text}");
            assert!(run(&yes).contains("deciding needs a login"));
        }
        // An expired login is none, and says so. A minute is how wrong a clock may be.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        world.issuer.at_browser(json!({"sub": "ann", "groups": ["ops"], "exp": now - 20}));
        assert!(run(&["approvals", "login"]).contains("logged in as ann"));
        let over = run(&yes);
        assert!(
            over.contains("has expired, at") && over.contains("log in again by `enforcer approvals login`"),
            "{over}"
        );
        // Who is logged in decides as themselves: who started the job does not.
        for (who, says) in [("mona", "the job is theirs"), ("ann", "is approved")] {
            world.issuer.at_device(&["authorization_pending"]);
            world.issuer.at_browser(json!({"sub": who, "groups": ["ops"], "preferred_username": who}));
            let text = run(&["approvals", "login", "--issuer", "idp"]);
            for part in ["enter the code WDJB-MJHT", "/enter?code=WDJB-MJHT", "groups: ops"] {
                assert!(text.contains(part), "{part}: {text}");
            }
            assert!(text.contains(&format!("logged in as {who} until 20")), "{text}");
            let text = run(&yes);
            assert!(text.contains(says), "{says}: {text}");
        }
        assert!(job.join().unwrap().starts_with("taken\n 200"));
        let shown = said(&world.service.output(&["approvals", "show", &id, "--json"]).unwrap());
        assert!(shown.contains("\"subject\": \"ann\""), "{shown}");
    });
    world.taken("POST /one", &["the bytes"]);
    assert!(run(&["approvals", "logout"]).contains("logged out"));
    assert!(run(&["approvals", "logout"]).contains("nobody was logged in"));
    assert!(run(&["approvals", "approve", "apr-1", "--seen", "x"]).contains("deciding needs a login"));
}
