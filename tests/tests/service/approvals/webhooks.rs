//! Others are told of what waits: from the proxy's own process, by TLS, to a receiver that remembers.

use std::os::unix::fs::PermissionsExt;

use enforcer_tests::origin::token;
use enforcer_tests::wait::until;
use serde_json::{Value, json};

use crate::has;

use super::world::{POLICY, World, said};

fn hook(world: &World) -> Value {
    world.service.status().unwrap()["proxy"]["approvals"]["webhooks"][0].clone()
}

/// Starts the proxy anew: files are read then.
fn again(world: &World) {
    world.service.kill_proxy().unwrap();
    world.service.wait_whole().unwrap();
}

#[test]
fn what_waits_and_how_it_ended_is_told_and_nothing_that_is_secret() {
    let more = "[[approvals.webhook]]\nname = \"chat\"\nformat = \"slack\"\nurl_file = \"@DIR@/slack-url\"\n\
                [[approvals.webhook]]\nname = \"siem\"\nurl_file = \"@DIR@/hook-url\"\nsecret_file = \"@DIR@/hook-secret\"\n";
    let world = World::with(POLICY, &[], more);
    let siem = || world.service.status().unwrap()["proxy"]["approvals"]["webhooks"][1].clone();
    let dir = world.service.dir.path();
    assert!(siem()["problem"].as_str().unwrap().contains("hook-url"), "{}", siem());
    for (file, hook) in [("hook-url", "siem"), ("slack-url", "slack")] {
        std::fs::write(dir.join(file), format!("{}/hook/{hook}\n", world.url())).unwrap();
    }
    std::fs::write(dir.join("hook-secret"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    again(&world);
    let shown = said(&world.service.output(&["status"]).unwrap());
    assert!(shown.contains("siem             NOTHING IS TOLD") && shown.contains("chmod 600"), "{shown}");
    for name in ["hook-url", "slack-url", "hook-secret"] {
        std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    again(&world);
    assert_eq!(siem()["problem"], Value::Null);
    let told = |name: &str| -> Vec<Value> {
        let all = world.bodies(&format!("POST /hook/{name}"));
        all.iter().map(|body| serde_json::from_slice(body).unwrap()).collect()
    };
    let script = format!("post /two '<!channel> `x` {}'", token());
    std::thread::scope(|threads| {
        let job = world.runs(threads, &script);
        let asked = world.open();
        until("both are told", || {
            told("siem").len() == 1 && told("chat").is_empty() && told("slack").len() == 1
        });
        let first = told("siem").remove(0);
        for (at, want) in [
            ("/event", "approval.pending"),
            ("/approval", &asked.0),
            ("/who/repository", "octo/app"),
            ("/who/actor", "mona"),
            ("/rule", "held/two"),
            ("/message", "two people"),
        ] {
            assert_eq!(first.pointer(at).unwrap(), want, "{at}: {first}");
        }
        assert!(first["what"]["statement"].as_str().unwrap().contains("<!channel> `x` [MASKED:"), "{first}");
        assert_eq!(first["link"], Value::Null);
        let chat = told("slack").remove(0).to_string();
        assert!(chat.contains("&lt;!channel&gt; &lt;U+0060&gt;x") && !chat.contains("<!"), "{chat}");
        assert!(world.yes("ann", &asked).contains("1 of 2"));
        assert!(world.yes("bob", &asked).contains("is approved"));
        job.join().unwrap();
    });
    until("the end is told", || told("siem").len() == 2 && told("slack").len() == 2);
    let end = told("siem").remove(1);
    assert_eq!(end["event"], "approval.approved");
    let by = [format!("ann of {}", world.issuer.url), format!("bob of {}", world.issuer.url)];
    assert_eq!(end["decision"]["by"], json!(by));
    let all: Vec<u8> = ["slack", "siem"]
        .iter()
        .flat_map(|name| told(name))
        .flat_map(|it| it.to_string().into_bytes())
        .collect();
    assert!(!has(&all, token().as_bytes()));
    until("it is counted", || hook(&world)["sent"] == 2 && siem()["sent"] == 2);
    let shown = said(&world.service.output(&["status"]).unwrap());
    assert!(shown.contains("hook   chat             2 sent\n"), "{shown}");
    let log = std::fs::read(world.service.log()).unwrap();
    assert!(!has(&log, b"hook/siem") && !has(&log, b"MfKQ9r8"));
}
