//! `enforcer policy suggest` and `diff`: what clients did in audit mode is what they may do, and
//! no more.

use enforcer_tests::service::Service;

use super::llm::agents::AGENTS;
use super::llm::world as llm;
use super::matrix::script_of;
use super::world::World;

/// Lets everything through, and denies nothing but in the recording.
const AUDIT: &str = r"
version: 1
name: audit
mode: audit
rules:
  - id: near
    when: {host: ['**.test', '**.com']}
    addresses: [loopback]
";

fn said(service: &Service, args: &[&str]) -> (Option<i32>, String) {
    let out = service.output(args).unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    (out.status.code(), text)
}

/// Puts the suggested policy in the place of the one in audit mode; its text.
fn enforce_what_was_seen(service: &Service) -> String {
    let policies = service.dir.path().join("policies");
    let made = service.dir.path().join("seen");
    std::fs::create_dir(&made).unwrap();
    let to = made.join("seen.yaml").display().to_string();
    // Nobody writes over what is there.
    std::fs::write(&to, "").unwrap();
    let (code, text) = said(service, &["policy", "suggest", "--name", "seen", "--to", &to]);
    assert!(code == Some(1) && text.contains("--force"), "{text}");
    let (code, text) = said(service, &["policy", "suggest", "--name", "seen", "--to", &to, "--force"]);
    assert_eq!(code, Some(0), "{text}");
    println!("{text}{}", std::fs::read_to_string(&to).unwrap());
    let dir = made.display().to_string();
    let (code, text) = said(service, &["policy", "test", "--dir", &dir]);
    assert!(code == Some(0) && text.contains(", 0 failed"), "{text}");
    let (code, text) = said(service, &["policy", "diff", "--dir", &dir]);
    assert!(code == Some(0) && text.contains(" 0 would be judged otherwise"), "{text}");
    for entry in std::fs::read_dir(&policies).unwrap().flatten() {
        std::fs::remove_file(entry.path()).unwrap();
    }
    for name in ["seen.yaml", "seen.test.yaml"] {
        std::fs::rename(made.join(name), policies.join(name)).unwrap();
    }
    let (code, text) = said(service, &["reload"]);
    assert_eq!(code, Some(0), "{text}");
    std::fs::read_to_string(policies.join("seen.yaml")).unwrap()
}

#[test]
fn package_managers_and_git_do_the_same_again_and_nothing_else() {
    let world = World::start_with(AUDIT);
    let clients = ["pip install", "npm install", "git clone"];
    for client in clients {
        let outcome = world.run(&client.replace(' ', "-"), script_of(client), true);
        assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    }
    let other = "git clone -q $URL/git/protected.git p";
    // As it is in audit mode, it can be taken.
    let policy = enforce_what_was_seen(&world.service);
    assert!(policy.contains("/git/app.git/git-receive-pack"), "{policy}");
    for client in clients {
        let outcome = world.run(&format!("{}-again", client.replace(' ', "-")), script_of(client), true);
        assert_eq!(outcome.code, Some(0), "{}", outcome.text);
    }
    let outcome = world.run("other-repository", other, true);
    assert!(outcome.code != Some(0) && outcome.reached == 0, "{}", outcome.text);
    let outcome = world.run("other-method", "curl -sS -f -X DELETE $URL/git/app.git/info/refs", true);
    assert!(outcome.code == Some(22) && outcome.reached == 0, "{}", outcome.text);
    let outcome = world.run("other-host", "curl -sS https://another.test/", true);
    assert!(outcome.code != Some(0), "{}", outcome.text);
    // Of all that, another policy would let through what was denied.
    let open = world.service.dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    let all = "version: 1\nname: open\nrules: [{id: all, when: {host: upstream.test}, allow: true}]\n";
    std::fs::write(open.join("open.yaml"), all).unwrap();
    let (code, text) = said(&world.service, &["policy", "diff", "--dir", &open.display().to_string()]);
    assert_eq!(code, Some(1), "{text}");
    let (_, change) = text.split_once("deny policy-default-deny -> allow by open/all: ").unwrap();
    assert!(change.contains("DELETE https://upstream.test"), "{text}");
    let only = ["policy", "diff", "--json", "--workload", "other-method", "--dir"];
    let (_, json) = said(&world.service, &[&only[..], &[&open.display().to_string()]].concat());
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["statements"], &json["changed"]), (&1.into(), &1.into()), "{json}");
}

#[test]
fn an_agent_asks_its_model_again_and_no_other() {
    let world = llm::World::start(AUDIT);
    let agent = AGENTS.iter().find(|agent| agent.name == "claude-code").unwrap();
    let prompt = llm::prompt();
    let outcome = world.run("first", agent.command, &[("PROMPT", &prompt)]);
    assert_eq!(outcome.code, Some(0), "{outcome}");
    enforce_what_was_seen(&world.service);
    let outcome = world.run("again", agent.command, &[("PROMPT", &prompt)]);
    assert!(outcome.code == Some(0) && !outcome.calls.is_empty(), "{outcome}");
    let outcome = world.run("other", "curl -sS https://api.openai.com/v1/models", &[]);
    assert!(outcome.calls.is_empty() && !outcome.out.contains("\"data\""), "{outcome}");
}
