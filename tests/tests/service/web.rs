//! The web page in front of the whole service: people log in at an issuer, look and decide.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::process::Command;

use enforcer_tests::wait::until;
use serde_json::{Value, json};

use super::approvals::{ISSUER, POLICY, World};

/// A job may go to this name, as far as its policy says.
const PAGE: &str = "page.test";

pub(super) struct Site {
    pub world: World,
    pub port: u16,
}

/// curl with cookies of its own.
pub(super) struct Browser<'a> {
    site: &'a Site,
    jar: std::path::PathBuf,
}

impl Site {
    pub fn new() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let more = format!(
            "[web]\nlisten = \"127.0.0.1:{port}\"\npublic_url = \"http://localhost:{port}\"\nissuer = \"idp\"\n\
             viewers = [\"all\"]\napprovers = [\"ops\"]\n"
        );
        let policy = format!(
            "{POLICY}  - {{id: page, when: {{host: {PAGE}}}, addresses: [loopback]}}\n  \
             - id: to-page\n    when: {{host: {PAGE}}}\n    allow: true\n    \
             limits: [{{requests: 1000, window: 1h}}, {{bytes_down: 100000000, window: 1d, per: repository}}]\n"
        );
        let page = (PAGE, IpAddr::V4(Ipv4Addr::LOCALHOST));
        let site = Self { world: World::with(&policy, &[page], &more), port };
        until("the page is served", || site.browser("nobody").get("/login").0 == 200);
        site
    }

    fn browser(&self, name: &str) -> Browser<'_> {
        Browser { site: self, jar: self.world.service.dir.path().join(format!("{name}.cookies")) }
    }

    /// A browser in which somebody has logged in; what they got.
    fn login(&self, name: &str, claims: Value) -> (Browser<'_>, (u16, String)) {
        let browser = self.browser(name);
        self.world.issuer.at_browser(claims);
        let got = browser.get("/login/start?to=/approvals");
        (browser, got)
    }

    pub fn person(&self, name: &str, group: &str) -> Browser<'_> {
        let (browser, got) = self.login(name, json!({ "sub": name, "groups": [group] }));
        assert_eq!(got.0, 200, "{}", got.1);
        assert!(got.1.contains(&format!("{name} (")), "{}", got.1);
        browser
    }

    /// The process that serves it.
    fn pid(&self) -> Option<i32> {
        let daemon = self.world.service.daemon_pid().unwrap();
        let out = Command::new("pgrep").args(["-P", &daemon.to_string(), "-f", " web$"]).output().unwrap();
        String::from_utf8_lossy(&out.stdout).trim().parse().ok()
    }
}

impl Browser<'_> {
    fn curl(&self, path: &str, more: &[&str]) -> (u16, String) {
        let (port, issuer) = (self.site.port, &self.site.world.issuer);
        let resolve = format!("{ISSUER}:{}:{}", issuer.address.port(), issuer.address.ip());
        let mut command = Command::new("curl");
        command.args(["-sSL", "-m", "20", "-w", "\n%{http_code}", "--resolve", &resolve]);
        // Names of the issuer's certificates say too little for curl; what is tried here is the page.
        command.arg("-k").arg("-b").arg(&self.jar).arg("-c").arg(&self.jar).args(more);
        let out = command.arg(format!("http://localhost:{port}{path}")).output().unwrap();
        let text = String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
        let (text, code) = text.rsplit_once('\n').unwrap_or(("", "0"));
        (code.parse().unwrap_or_default(), text.to_owned())
    }

    fn get(&self, path: &str) -> (u16, String) {
        self.curl(path, &[])
    }

    /// Sends the form of an approval.
    pub fn says(&self, id: &str, said: &str) -> String {
        let (_, page) = self.get(&format!("/approvals/{id}"));
        let hidden = |name: &str| {
            let after = page.split(&format!("name=\"{name}\" value=\"")).nth(1);
            after.and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned()
        };
        let form = format!("csrf={}&seen={}&said={said}&reason=as+announced", hidden("csrf"), hidden("seen"));
        let origin = format!("origin: http://localhost:{}", self.site.port);
        self.curl(&format!("/approvals/{id}"), &["-H", &origin, "-d", &form]).1
    }
}

#[test]
fn two_people_decide_at_the_same_instant_on_the_page_and_the_job_goes_on_once() {
    let site = Site::new();
    let world = &site.world;
    let people = [site.person("ann", "ops"), site.person("bob", "ops")];
    let (mona, vic) = (site.person("mona", "ops"), site.person("vic", "all"));
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two 'the <b>very</b> bytes'");
        let (id, _) = world.open();
        until("the list shows it", || people[0].get("/approvals").1.contains(&id));
        let (_, page) = people[0].get(&format!("/approvals/{id}"));
        for part in [
            "mona",
            "octo/app",
            "held/two",
            "the &#60;b&#62;very&#60;/b&#62; bytes",
            "2 of ops",
            "exact bytes",
        ] {
            assert!(page.contains(part), "{part}: {page}");
        }
        // Who started the job; who may only look.
        assert!(mona.says(&id, "yes").contains("the job is theirs"));
        assert!(vic.says(&id, "yes").contains("needs the role"));
        world.taken("POST /two", &[]);
        let (id, said) = (id.as_str(), &std::sync::Mutex::new(Vec::new()));
        std::thread::scope(|votes| {
            for person in &people {
                votes.spawn(move || said.lock().unwrap().push(person.says(id, "yes")));
            }
        });
        let said = said.lock().unwrap().join("\n");
        assert!(said.contains("your yes counts: 1 of 2") && said.contains("is approved"), "{said}");
        assert!(job.join().unwrap().starts_with("taken\n 200"));
        // It is over; a page that was left open is of no use.
        assert!(people[0].get(&format!("/approvals/{id}")).1.contains("Nothing is left to decide"));
        let late = people[0].says(id, "no");
        assert!(late.contains("Nothing was decided"), "{late}");
    });
    world.taken("POST /two", &["the <b>very</b> bytes"]);
    std::thread::scope(|threads| {
        let job = world.runs(threads, "post /two no");
        let (id, _) = world.open();
        assert!(people[0].says(&id, "no").contains("is rejected"));
        let text = job.join().unwrap();
        assert!(text.contains("as announced") && text.contains(" 403"), "{text}");
    });
}

#[test]
fn who_is_not_for_us_is_not_logged_in() {
    let site = Site::new();
    for (claims, says) in [
        (json!({ "sub": "eve", "groups": ["others"] }), "none of your groups has a role"),
        (json!({ "sub": "eve", "groups": ["ops"], "aud": "https://other.test" }), "not for us alone"),
        (
            json!({ "sub": "eve", "groups": ["ops"], "nonce": "another" }),
            "not the one that this login asked for",
        ),
        (json!({ "sub": "eve", "groups": ["ops"], "iss": "https://other.test" }), "no issuer that is known"),
        (json!({ "sub": "eve", "groups": ["ops"], "exp": 1000 }), "has expired"),
        (Value::Null, "did not log you in"),
    ] {
        let (browser, got) = site.login("eve", claims);
        assert!(got.0 >= 400 && got.1.contains(says), "{says}: {got:?}");
        let (_, page) = browser.get("/approvals");
        assert!(
            page.contains("Log in with your identity provider") && !page.contains("Nothing waits"),
            "{page}"
        );
    }
}

#[test]
fn no_job_comes_to_the_page_and_its_death_is_nobody_elses() {
    let site = Site::new();
    let (world, port) = (&site.world, site.port);
    let at = |host: &str| {
        format!("curl -sS -m 5 -H 'host: localhost:{port}' http://{host}:{port}/login; echo $?; ")
    };
    let hosts = ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "127.1"];
    let script: String = hosts.iter().map(|host| at(host)).collect();
    let text = world.job(&script);
    assert!(!text.contains("identity provider"), "{text}");
    // Where policy would let the job go, too.
    let text = world.job(&format!("curl -sS -m 5 http://{PAGE}:{port}/login"));
    assert!(text.contains("address-of-the-page") && !text.contains("identity provider"), "{text}");
    // Nor by way of the proxy to the proxy, which would take it for somebody else's.
    let config = std::fs::read_to_string(world.service.dir.path().join("config.toml")).unwrap();
    let proxy = config.lines().find_map(|line| line.strip_prefix("tcp_port = ")).unwrap();
    let text = world.job(&format!("curl -sS -m 5 http://{PAGE}:{proxy}/login"));
    assert!(text.contains("address-of-the-proxy"), "{text}");
    let pid = site.pid().unwrap();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    for part in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Uid:\t65534"] {
        assert!(status.contains(part), "{status}");
    }
    let before = world.service.status().unwrap()["proxy_pid"].clone();
    enforcer_tests::service::kill9(pid).unwrap();
    // The address is nobody else's meanwhile.
    TcpListener::bind(("127.0.0.1", port)).unwrap_err();
    until("the page is back", || site.pid().is_some_and(|new| new != pid));
    assert_eq!(site.browser("nobody").get("/login").0, 200);
    assert_eq!(world.service.status().unwrap()["proxy_pid"], before);
}
