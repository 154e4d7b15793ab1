//! A container of a user without privileges, on the network of the host: its own would
//! need `/dev/net/tun`, which is root's alone on many machines.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use enforcer_tests::service::NOBODY;

use crate::world::*;

/// podman of a user, with an image that is that user's.
struct Rootless {
    folder: tempfile::TempDir,
}

impl Rootless {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}/store\"\nrunroot = \"{path}/run/store\"\n\
             rootless_storage_path = \"{path}/store\"\n[storage.options.overlay]\nignore_chown_errors = \"true\"\n"
        );
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\ntmp_dir = \"{path}/tmp\"\n"
        );
        fs::write(folder.path().join("storage.conf"), storage).unwrap();
        fs::write(folder.path().join("containers.conf"), containers).unwrap();
        for name in ["home", "run"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            chown(folder.path().join(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let rootless = Self { folder };
        rootless.import();
        rootless
    }

    fn import(&self) {
        let rootfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/containers/rootfs");
        let tar = Command::new("tar").arg("-C").arg(rootfs).args(["-c", "."]).stdout(Stdio::piped()).spawn();
        let mut tar = tar.unwrap();
        let packed = Stdio::from(tar.stdout.take().unwrap());
        let out = self.command(None, &["import", "--quiet", "-", IMAGE]).stdin(packed).output().unwrap();
        assert!(tar.wait().unwrap().success() && out.status.success(), "{out:?}");
    }

    /// As the user, after entering a cgroup.
    fn command(&self, cgroup: Option<&Path>, args: &[&str]) -> Command {
        let enter =
            cgroup.map_or_else(String::new, |path| format!("echo $$ > {}/cgroup.procs; ", path.display()));
        let user = format!(
            "{enter}cd /; exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups podman \"$@\""
        );
        let mut command = Command::new("sh");
        command.args(["-c", &user, "sh"]).args(args).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.folder.path().join("home"));
        command.env("XDG_RUNTIME_DIR", self.folder.path().join("run"));
        command.env("CONTAINERS_STORAGE_CONF", self.folder.path().join("storage.conf"));
        command.env("CONTAINERS_CONF", self.folder.path().join("containers.conf"));
        command
    }

    fn output(&self, cgroup: Option<&Path>, args: &[&str]) -> Output {
        self.command(cgroup, args).output().unwrap()
    }
}

impl Drop for Rootless {
    fn drop(&mut self) {
        self.output(None, &["rm", "--all", "--force", "--time", "0"]);
        self.output(None, &["system", "reset", "--force"]);
    }
}

#[test]
fn a_container_of_a_user_is_served_like_those_of_root() {
    let world = World::start();
    let rootless = Rootless::new();
    let cgroup = world.podman.cgroup();
    let netns = format!("--net=/run/netns/{}", world.cable.work.name());
    let script = format!("exec 2>&1; {}; curl -sS -m 5 http://10.77.0.2:4444/", crate::served::script());
    let args = ["run", "--detach", "--network=host", IMAGE, "sh", "-c", &script];
    let command = rootless.command(Some(&cgroup), &args);
    let mut inside = Command::new("nsenter");
    inside.arg(netns).arg(command.get_program()).args(command.get_args()).stdin(Stdio::null()).env_clear();
    inside.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let out = inside.output().unwrap();
    assert!(out.status.success(), "{out:?}");
    let id = String::from_utf8(out.stdout).unwrap();
    rootless.output(Some(&cgroup), &["wait", id.trim()]);
    let logs = rootless.output(Some(&cgroup), &["logs", id.trim()]);
    let text = String::from_utf8_lossy(&logs.stdout).into_owned();
    assert!(text.contains("[MASKED:") && text.contains("hello from the index"), "{text}");
    assert!(text.contains("policy-default-deny"), "{text}");
    assert!(world.recorded() > 0);
    let leaked = world.leaked();
    assert!(leaked.is_empty(), "{leaked:?}");
}
