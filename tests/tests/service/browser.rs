//! The web page in Chromium, at a desk and on a phone, light and dark.
//!
//! `ENFORCER_SHOTS=FOLDER` keeps the pictures.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::web::Site;

/// A browser that does what it is told, one thing after the other.
struct Chromium {
    child: Child,
    says: Option<ChildStdin>,
    told: BufReader<ChildStdout>,
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // The end of its input is what it closes the browser for.
        self.says = None;
        self.child.wait().ok();
    }
}

impl Chromium {
    fn start(site: &Site, shots: &Path) -> Self {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/browser/page.mjs");
        assert!(program.exists(), "the browser is not installed: `cargo xtask setup`");
        let mut child = Command::new("node")
            .arg(program)
            .arg(format!("http://localhost:{}", site.port))
            .arg(format!("MAP issuer.test {}", site.world.issuer.address.ip()))
            .arg(shots)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (says, told) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, says: Some(says), told: BufReader::new(told) }
    }

    /// Does one thing; what stands on the page then.
    fn act(&mut self, what: Value) -> Value {
        writeln!(self.says.as_mut().unwrap(), "{what}").unwrap();
        let mut line = String::new();
        self.told.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{what}: {line:?}"));
        assert_eq!(answer["ok"], true, "{what}: {answer:#}");
        // Neither an error of a script nor anything that the page's own policy forbids.
        assert_eq!(answer["wrong"], json!([]), "{what}: {answer:#}");
        answer
    }

    fn look(&mut self, width: u32, dark: bool) {
        let height = if width < 600 { 844 } else { 900 };
        self.act(json!({ "do": "look", "width": width, "height": height, "dark": dark }));
    }

    fn wait(&mut self, text: &str) {
        self.act(json!({ "do": "wait", "for": text }));
    }

    fn go(&mut self, path: &str) {
        self.act(json!({ "do": "go", "path": path }));
    }

    fn click(&mut self, what: &str) {
        self.act(json!({ "do": "click", "what": what }));
    }

    /// By keyboard.
    fn enter(&mut self, what: &str) {
        self.act(json!({ "do": "enter", "what": what }));
    }

    /// Nothing reaches over the edge, and nobody is kept out.
    fn check(&mut self, name: &str) {
        let found = self.act(json!({ "do": "check", "name": name }));
        assert!(found["wide"].as_i64().unwrap() <= 0, "{name} is wider than the screen: {found:#}");
        assert_eq!(found["serious"], json!([]), "{name}");
        assert!(found["passes"].as_u64().unwrap() > 5, "{name} was not looked at: {found:#}");
    }

    /// The same at a desk and on a phone, light and dark.
    fn check_all(&mut self, name: &str) {
        for (screen, width) in [("desk", 1280), ("phone", 390)] {
            for (light, dark) in [("light", false), ("dark", true)] {
                self.look(width, dark);
                self.check(&format!("{name}-{screen}-{light}"));
            }
        }
    }
}

fn shots(site: &Site) -> PathBuf {
    let folder = std::env::var_os("ENFORCER_SHOTS").map(PathBuf::from);
    let folder = folder.unwrap_or_else(|| site.world.service.dir.path().join("shots"));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn in_a_browser_people_log_in_look_approve_and_deny() {
    let site = Site::new();
    let world = &site.world;
    let bob = site.person("bob", "ops");
    world
        .issuer
        .at_browser(json!({ "sub": "ann", "groups": ["ops"], "preferred_username": "ann@example.com" }));
    let mut chromium = Chromium::start(&site, &shots(&site));
    chromium.go("/approvals");
    chromium.check_all("login");
    chromium.enter("Log in with");
    chromium.wait("Nothing waits");
    chromium.check_all("empty");
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two '<script>alert(1)</script> \u{202e}very bytes'");
        // It comes by itself.
        chromium.wait("mona of octo/app");
        chromium.check_all("list");
        chromium.look(1280, false);
        chromium.enter("/two");
        chromium.wait("0 of 2 agree");
        chromium.wait("<U+202E>");
        chromium.check_all("approval");
        chromium.look(1280, true);
        chromium.act(json!({ "do": "type", "into": "#reason", "text": "as announced" }));
        let (id, _) = world.open();
        assert!(bob.says(&id, "yes").contains("1 of 2"));
        // Nothing that was typed is lost when others answer.
        chromium.wait("1 of 2 agree");
        chromium.enter("Approve");
        chromium.wait("is approved");
        // Another screen would load the page anew, and send the form again.
        chromium.check("answer-desk-dark");
        assert!(job.join().unwrap().starts_with("taken\n 200"));
    });
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two no");
        chromium.go("/approvals");
        chromium.look(390, true);
        chromium.wait("mona of octo/app");
        chromium.click("/two");
        chromium.act(json!({ "do": "type", "into": "#reason", "text": "not from this branch" }));
        chromium.click("Deny");
        chromium.wait("is rejected");
        let text = job.join().unwrap();
        assert!(text.contains("not from this branch"), "{text}");
        chromium.click("Look at it");
        chromium.wait("Nothing is left to decide");
        chromium.check_all("decided");
    });
    looks_around(&mut chromium);
    chromium.look(1280, false);
    chromium.click("Log out");
    chromium.wait("Log in with");
    chromium.go("/approvals");
    chromium.wait("Log in with");
}

/// At what was recorded, and at the policy.
fn looks_around(chromium: &mut Chromium) {
    chromium.look(1280, false);
    chromium.enter("Sessions");
    chromium.wait("upstream.test");
    chromium.check_all("sessions");
    let shown = |page: Value| page["text"].as_str().unwrap().matches("statement(s)").count();
    let all = shown(chromium.act(json!({ "do": "look", "width": 1280, "height": 900, "dark": false })));
    chromium.act(json!({ "do": "type", "into": "input[name=host]", "text": "upstream.*" }));
    chromium.act(json!({ "do": "select", "into": "select[name=verdict]", "value": "deny" }));
    chromium.enter("Show");
    let denied = shown(chromium.act(json!({ "do": "wait", "for": "upstream.test" })));
    assert!((1..all).contains(&denied), "{denied} of {all}");
    chromium.check_all("filtered");
    chromium.enter("upstream.test");
    chromium.wait("held");
    chromium.check_all("session");
    chromium.enter("Policy");
    chromium.wait("needs: [{people: 2, groups: [ops]}]");
    chromium.check_all("policy");
}
