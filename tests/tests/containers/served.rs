//! Stock curl and pip in an unmodified image: intercepted, with the CA trusted.

use crate::world::*;

const MASKED: &str = "the token is [MASKED:GITHUB_TOKEN]";

/// Usually the CA is there before the first instruction; a busy machine may be later.
fn script() -> String {
    format!(
        "{} && pip install -q --disable-pip-version-check --no-cache-dir --break-system-packages \
           --index-url {1}/files/simple/ --target /tmp/site probe-pkg && \
         PYTHONPATH=/tmp/site python3 -c 'import probe_pkg; print(probe_pkg.text)' && \
         python3 -c 'import urllib.request as u; print(u.urlopen(\"{1}/text\").read().decode())'",
        until(&format!("curl -sS {}", url("/text"))),
        url("")
    )
}

#[test]
fn on_the_network_of_the_host() {
    let world = World::start();
    let (text, code) = world.podman.run(&["--network=host"], &script());
    assert!(code == 0 && text.contains(MASKED) && text.contains("hello from the index"), "{text}");
    let reached = world.origin.take_seen().len() as u64;
    assert!(reached >= 4);
    assert_eq!(world.recorded(), reached);
}
