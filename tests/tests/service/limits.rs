//! Limits of rules, as curl meets them.

use crate::world::*;

const POLICY: &str = "version: 1\nname: test\nrules:\n  - id: few\n    when: {host: upstream.test}\n    \
     allow: true\n    addresses: [private]\n    limits:\n      - {requests: 2, window: 1h}\n      \
     - {bytes_up: 5000, window: 1h, per: rule}\n";

#[test]
fn curl_is_told_when_to_come_again_and_each_job_has_its_own() {
    let world = World::new();
    std::fs::write(world.service.dir.path().join("policies/test.yaml"), POLICY).unwrap();
    let out = world.service.output(&["reload"]).unwrap();
    assert!(out.status.success(), "{out:?}");
    let get = "curl -sS -m 5 -o /dev/null -w '%{http_code} ' https://upstream.test/";
    for _ in 0..2 {
        let said = world.job(&format!("for n in 1 2 3 4; do {get}; done"));
        assert!(said.contains("200 200 429 429"), "{said}");
    }
    // What is too long as it is, is not begun.
    let said = world.job("head -c 6000 /dev/zero | curl -sS -m 5 --data-binary @- https://upstream.test/");
    assert!(said.contains("more than the limit of 5000 bytes up in 1h for all together"), "{said}");
    let said = world.job(&format!("{get}; {get}; curl -sS -m 5 -D - https://upstream.test/"));
    assert!(said.to_ascii_lowercase().contains("retry-after: 36"), "{said}");
    assert!(
        said.contains("\"reason\":\"limit-exceeded\"") && said.contains("\"rule\":\"test/few\""),
        "{said}"
    );
    let out = world.service.output(&["policy", "hits"]).unwrap();
    let told = String::from_utf8_lossy(&out.stdout).into_owned();
    // What was counted for jobs has ended with them.
    assert!(told.contains("  used of 5000 bytes up in 1h for all together: test/few (1 counted)"), "{told}");
    assert!(!told.contains("for each job"), "{told}");
}
