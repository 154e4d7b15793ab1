//! Stock curl and pip in an unmodified image: intercepted, with the CA trusted.

use crate::world::*;

const MASKED: &str = "the token is [MASKED:GITHUB_TOKEN]";

/// Usually the CA is there before the first instruction; a busy machine may be later.
pub fn script() -> String {
    format!(
        "{} && pip install -q --disable-pip-version-check --no-cache-dir --break-system-packages \
           --index-url {1}/files/simple/ --target /tmp/site probe-pkg && \
         PYTHONPATH=/tmp/site python3 -c 'import probe_pkg; print(probe_pkg.text)' && \
         python3 -c 'import urllib.request as u; print(u.urlopen(\"{1}/text\").read().decode())'",
        until(&format!("curl -sS {}", url("/text"))),
        url("")
    )
}

#[track_caller]
fn all_is_served(world: &World, options: &[&str]) {
    world.origin.take_seen();
    let before = world.recorded();
    let (text, code) = world.podman.run(options, &script());
    assert!(
        code == 0 && text.contains(MASKED) && text.contains("hello from the index"),
        "{options:?}: {text}"
    );
    let reached = world.origin.take_seen().len() as u64;
    assert!(reached >= 4, "{options:?}: {text}");
    assert_eq!(world.recorded() - before, reached, "{options:?}: not all of it is recorded as the job's");
    let leaked = world.leaked();
    assert!(leaked.is_empty(), "{options:?}: {leaked:?}");
}

#[test]
fn on_the_network_of_the_host_on_none_and_on_the_common_bridge() {
    let world = World::start();
    for network in ["host", "none", "podman"] {
        all_is_served(&world, &[&format!("--network={network}")]);
    }
}

#[test]
fn on_a_bridge_of_its_own_with_ipv6_and_in_the_network_of_another() {
    let world = World::start();
    let bridge = world.podman.bridge();
    all_is_served(&world, &[&format!("--network={bridge}")]);
    let first = world.podman.start(&[&format!("--network={bridge}")], "sleep 300");
    all_is_served(&world, &[&format!("--network=container:{first}")]);
    // By address, over either protocol: `::1` is served as 127.0.0.1 is.
    for to in ["10.77.0.2", "[fd77::2]", "[::ffff:10.77.0.2]"] {
        let (text, code) = world.podman.exec(&first, &format!("curl -sS http://{to}:4444/"));
        assert!(code == Some(0) && text.contains("urn:enforcer:"), "{to}: {text}");
    }
    let leaked = world.leaked();
    assert!(leaked.is_empty(), "{leaked:?}");
}
