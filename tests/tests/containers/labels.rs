//! Containers that are in a scope by their labels, as podman tells them.

use std::time::{Duration, Instant};

use enforcer_tests::cgroup::Cgroup;
use enforcer_tests::netns::{Cable, PEER4};
use enforcer_tests::service::Service;
use enforcer_tests::sniffer::Sniffer;
use serde_json::Value;

use crate::world::{IMAGE, Podman};

/// For what takes a second on a quiet machine.
const SOON: Duration = Duration::from_secs(60);
const POLICY: &str = "version: 1\nname: none\nrules: []\n";
/// Where nobody listens: whoever is free is seen on the cable.
const PORT: u16 = 4444;

/// Fields are dropped in this order.
struct Scoped {
    podman: Podman,
    _containers: Cgroup,
    service: Service,
    sniffer: Sniffer,
    _cable: Cable,
}

impl Drop for Scoped {
    fn drop(&mut self) {
        self.podman.clear();
    }
}

impl Scoped {
    /// The service asks by this command, before which stands what leads podman to its store.
    fn start(inspect: Option<&[&str]>) -> Self {
        let cable = Cable::new().unwrap();
        let sniffer = Sniffer::start(&cable).unwrap();
        let netns = format!("--net=/run/netns/{}", cable.work.name());
        let ca = rcgen::generate_simple_self_signed(vec!["nobody.test".to_owned()]).unwrap();
        let mut service = Service::start_by(&["nsenter", &netns], &[], &ca.cert.pem(), POLICY).unwrap();
        let containers = service.cgroup.child("containers").unwrap();
        let podman = Podman::new(netns, containers.path());
        let asks = podman.command(&["inspect", "--type", "container", "--format", "{{json .Config.Labels}}"]);
        let set = asks
            .get_envs()
            .map(|(key, value)| format!("{}={}", key.to_str().unwrap(), value.unwrap().to_str().unwrap()));
        // Not by way of nsenter: the service is there already.
        let args = asks.get_args().skip(2).map(|arg| arg.to_str().unwrap().to_owned());
        let first = ["/usr/bin/env".to_owned()].into_iter();
        let asks: Vec<String> = first.chain(set).chain(["/usr/bin/podman".to_owned()]).chain(args).collect();
        let inspect = inspect.map_or(asks, |words| words.iter().map(|it| (*it).to_owned()).collect());
        let config = service.dir.path().join("config.toml");
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("{text}[containers]\ninspect = {inspect:?}\n")).unwrap();
        service.kill_daemon().unwrap();
        service.start_daemon().unwrap();
        let args = ["scope", "add", "ci", "--cgroup-parent", "/containers", "--container-label", "team=ci"];
        let out = service.output(&args).unwrap();
        assert!(out.status.success(), "{out:?}");
        sniffer.clear().unwrap();
        Self { podman, _containers: containers, service, sniffer, _cable: cable }
    }

    /// A container that goes on trying to reach somebody.
    fn container(&self, label: &str) -> String {
        let parent = format!("--cgroup-parent={}", self.podman.parent());
        let script = format!("while :; do curl -sS --max-time 1 http://{PEER4}:{PORT}/; sleep 0.1; done");
        let options =
            ["run", "--detach", &parent, "--network=host", "--label", label, IMAGE, "sh", "-c", &script];
        let out = self.podman.output(&options);
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// What the scope has of a container.
    fn found(&self, id: &str) -> Option<Value> {
        let out = self.service.output(&["scope", "ls", "-o", "json"]).unwrap();
        let scopes: Value = serde_json::from_slice(&out.stdout).unwrap();
        let matches = scopes[0]["matches"].as_array().unwrap();
        matches.iter().find(|it| it["cgroup"].as_str().unwrap().contains(id)).cloned()
    }

    fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        let until = Instant::now() + SOON;
        while !holds() {
            let scopes = self.service.output(&["scope", "ls"]).unwrap();
            assert!(Instant::now() < until, "{what}: {}", String::from_utf8_lossy(&scopes.stdout));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn is_on_the_wire(&self) -> bool {
        !self.sniffer.packets().unwrap().is_empty()
    }

    /// It is answered by the enforcer, and nothing of it leaves.
    #[track_caller]
    fn is_enforced(&self, id: &str) {
        let (text, _) = self.podman.exec(id, &format!("curl -sS --max-time 20 http://{PEER4}:{PORT}/"));
        assert!(text.contains("urn:enforcer:"), "{text}");
        assert!(!self.is_on_the_wire(), "{:?}", self.sniffer.packets());
    }
}

#[test]
fn of_a_daemons_containers_those_with_the_label_are_enforced() {
    let world = Scoped::start(None);
    let id = world.container("team=ci");
    let labels_are_known =
        |id: &str| world.found(id).is_some_and(|it| it["problems"].as_array().is_some_and(Vec::is_empty));
    world.wait_for("its labels", || labels_are_known(&id));
    world.is_enforced(&id);
    // Another team's is tagged until podman has answered, and then left alone.
    let other = world.container("team=web");
    world.wait_for("who is free", || world.is_on_the_wire() && world.found(&other).is_none());
    assert!(labels_are_known(&id));
}

#[test]
fn a_container_whose_labels_nobody_knows_is_enforced() {
    let world = Scoped::start(Some(&["/bin/false"]));
    let id = world.container("team=web");
    let problem =
        || world.found(&id).is_some_and(|it| it["problems"].to_string().contains("labels are not known"));
    world.wait_for("the reason", problem);
    world.is_enforced(&id);
    world.wait_for("the command's failure", || {
        world.found(&id).is_some_and(|it| it["problems"].to_string().contains("/bin/false failed"))
    });
    assert!(!world.is_on_the_wire());
}
