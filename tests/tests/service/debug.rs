//! A service with the kernel half of a debug build logs what the programs decide.

use enforcer_tests::bpf::debug_object;
use enforcer_tests::service::{Service, Upstream};
use enforcer_tests::wait::{PATIENCE, within};

use super::{NAME, POLICY};

#[test]
fn a_running_service_is_given_a_debug_build_and_its_log_tells_of_a_refusal() {
    let upstream = Upstream::start(NAME, "hello\n".to_owned()).unwrap();
    let debug = ["env", "RUST_LOG=info,enforcer_ebpf=debug"];
    let names = [(NAME, upstream.address.ip())];
    let mut service = Service::start_by(&debug, &names, &upstream.ca_pem, POLICY).unwrap();
    let send = "python3 -c 'import socket as s; s.socket(s.AF_INET, s.SOCK_DGRAM).sendto(b\"x\", (\"192.0.2.7\", 9))'";
    let (text, _) = service.job(send).unwrap();
    assert!(text.contains("PermissionError"), "{text}");
    let log = || std::fs::read_to_string(service.log()).unwrap();
    assert!(!log().contains("enforcer_ebpf"), "the object for hosts logs: {}", log());

    service.kill_daemon().unwrap();
    let config = service.dir.path().join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let (before, object) = text.split_once("object = \"").unwrap();
    let after = object.split_once('"').unwrap().1;
    let debug = std::path::absolute(debug_object().unwrap()).unwrap();
    std::fs::write(&config, format!("{before}object = \"{}\"{after}", debug.display())).unwrap();
    service.start_daemon().unwrap();
    let (text, _) = service.job(send).unwrap();
    assert!(text.contains("PermissionError"), "{text}");

    let said = |line: &str| {
        line.contains("DEBUG enforcer_ebpf: sendmsg4 ")
            && line.contains(" refused: udp ")
            && line.contains("[::ffff:192.0.2.7]:9")
    };
    let log = || std::fs::read_to_string(service.log()).unwrap();
    assert!(within(PATIENCE, || log().lines().any(said)).is_some(), "not in {}", log());
    assert!(log().contains("the kernel half is a debug build"));
}
