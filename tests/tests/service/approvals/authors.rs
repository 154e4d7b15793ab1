//! Who wrote the commit has no say, where the forge says who that was, and nobody has one where it does not.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::world::{POLICY, SHA, World, said};
use crate::has;

const FORGE: &str =
    "[[approvals.forge]]\nissuer = \"ci\"\napi = \"@ISSUER@\"\ntoken_file = \"@DIR@/forge.token\"\n";
const TOKEN: &str = "a-token-of-the-forge-0123456789";

fn commit(login: Option<&str>) -> Value {
    let author = login.map(|login| json!({"login": login}));
    let git = json!({"author": {"name": "x", "email": "somebody@acme.test"}});
    json!({"sha": SHA, "author": author, "commit": git, "parents": []})
}

impl World {
    fn restart(&mut self) {
        self.service.stop_daemon().unwrap();
        self.service.start_daemon().unwrap();
    }

    /// What a job is told, and what is recorded of it for others.
    fn refused(&self, told: &[&str], recorded: &str) {
        let text = self.job("post /two 'not this'");
        for part in told {
            assert!(text.contains(part), "{part}: {text}");
        }
        let (written, log) = (self.service.written().unwrap(), std::fs::read(self.service.log()).unwrap());
        assert!(has(&written, recorded.as_bytes()) || has(&log, recorded.as_bytes()), "{recorded}");
        assert!(self.listed(false).is_empty());
        assert_eq!(self.sink.taken(), []);
    }
}

#[test]
fn the_author_has_no_say_and_without_an_author_nobody_has_one() {
    let mut world = World::with(POLICY, &[], FORGE);
    let (path, file) =
        (format!("/repos/octo/app/commits/{SHA}"), world.service.dir.path().join("forge.token"));
    // There is no token; it is not the forge's; the commit is somebody's whom the people map does not know.
    world.refused(&[" 503", "approvals-unavailable"], "the log of the service says why");
    assert_eq!(world.issuer.asked_for_commits(), 0);
    std::fs::write(&file, TOKEN).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    world.restart();
    world.refused(&[" 503", "approvals-unavailable"], "401 Unauthorized: the token of [[approvals.forge]]");
    for login in [Some("stranger"), None] {
        world.issuer.has_commit(TOKEN, &path, commit(login));
        world.restart();
        world.refused(&[" 403", "actor-unknown"], "whose job or whose commit");
    }
    world.issuer.has_commit(TOKEN, &path, commit(Some("Bob")));
    world.restart();
    let before = world.issuer.asked_for_commits();
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two 'the very bytes'; post /one 'and these'");
        let asked = world.open();
        let shown = said(&world.service.output(&["approvals", "show", &asked.0]).unwrap());
        assert!(shown.contains("\nauthor       bob\n"), "{shown}");
        assert!(world.yes("bob", &asked).contains("the job is theirs, or its commit"));
        assert!(world.yes("ann", &asked).contains("1 of 2"));
        assert_eq!(world.sink.taken(), []);
        assert!(world.yes("cat", &asked).contains("is approved"));
        let asked = world.open();
        assert!(world.yes("bob", &asked).contains("the job is theirs, or its commit"));
        assert!(world.yes("cat", &asked).contains("is approved"));
        assert_eq!(job.join().unwrap().matches(" 200").count(), 2);
    });
    world.taken("POST /two", &["the very bytes"]);
    world.taken("POST /one", &["and these"]);
    // Once for both.
    assert_eq!(world.issuer.asked_for_commits(), before + 1);
    let written = world.service.written().unwrap();
    let of_forge = |bytes: &[u8]| bytes.windows(TOKEN.len()).filter(|part| *part == TOKEN.as_bytes()).count();
    assert_eq!(of_forge(&written), 1, "it stands in its own file alone");
}
