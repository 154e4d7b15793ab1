//! Trust reaches jobs wherever their programs look for it, and nobody else.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use enforcer_tests::service::NOBODY;

use super::world::World;

/// A Java that was unpacked somewhere and has a store of its own, as those of CI
/// runners' tool folders are.
#[test]
fn a_java_with_a_store_of_its_own_trusts_the_ca_by_the_mount_alone() {
    let world = World::start();
    let home = world.folder.path().join("jdk");
    let made = Command::new("jlink")
        .args(["--add-modules", "java.net.http,jdk.compiler,jdk.crypto.ec", "--output"])
        .arg(&home)
        .status();
    assert!(made.unwrap().success(), "jlink");
    let store = home.join("lib/security/cacerts");
    let host = std::fs::canonicalize("/etc/ssl/certs/java/cacerts").unwrap();
    std::fs::remove_file(&store).unwrap();
    std::fs::copy(host, &store).unwrap();
    let before = std::fs::read(&store).unwrap();
    let script = format!("{}/bin/java $CLIENTS/java/Probe.java", home.display());
    let outcome = world.run_with("java", &script, false, &[("JAVA_HOME", &home)]);
    assert!(outcome.text.contains("[MASKED:GITHUB_TOKEN]"), "{}", outcome.text);
    // Without the variable nobody knows of it: this is what the mount changes.
    let outcome = world.run("java", &script, false);
    assert!(outcome.text.contains("PKIX") && outcome.reached == 0, "{}", outcome.text);
    let script = "echo x >> $JAVA_HOME/lib/security/cacerts";
    let outcome = world.run_with("java", script, false, &[("JAVA_HOME", &home)]);
    assert!(outcome.text.contains("ead-only"), "{}", outcome.text);
    assert_eq!(std::fs::read(&store).unwrap(), before, "the host's store was changed");
}

#[test]
fn a_user_without_privileges_has_the_same() {
    let world = World::start();
    let url = world.url();
    let script = format!(
        "exec 2>&1; id -u; curl -sS {url}/text; wget -nv -O- {url}/text 2>/dev/null; \
         python3 -c 'import urllib.request as u; print(u.urlopen(\"{url}/text\").read().decode(), end=\"\")'"
    );
    for alone in [false, true] {
        let mut command = world.service.command_of_all(&["run"]).unwrap();
        if alone {
            command.arg("--no-env");
        }
        let out = command
            .args(["--", "sh", "-c", &script])
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .current_dir("/")
            .stdin(Stdio::null())
            .uid(NOBODY)
            .gid(NOBODY)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        let want = format!("65534\n{}", "the token is [MASKED:GITHUB_TOKEN].\n".repeat(3));
        assert_eq!(text, want);
    }
}
