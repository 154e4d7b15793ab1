//! The service, a server in another network namespace, and podman with a store of its
//! own, whose containers are below the cgroup of a job.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use enforcer_tests::netns::{Cable, PEER4};
use enforcer_tests::origin::{Content, Origin, make_content};
use enforcer_tests::service::Service;
use enforcer_tests::sniffer::{Packet, Sniffer};
use serde_json::Value;

pub const NAME: &str = "upstream.test";
pub const IMAGE: &str = "localhost/enforcer-test:1";
/// The job below whose cgroup containers are started.
pub const JOB: &str = "ctr";
const POLICY: &str = r#"
version: 1
name: containers
rules:
  - id: allowed
    when: {host: upstream.test}
    mask: {request: [secrets], response: [secrets]}
    addresses: [private]
  - id: rest
    when: {host: upstream.test}
    allow: true
"#;

/// Fields are dropped in this order.
pub struct World {
    pub podman: Podman,
    job: Child,
    pub service: Service,
    pub sniffer: Sniffer,
    pub origin: Origin,
    pub cable: Cable,
    _folder: tempfile::TempDir,
}

impl World {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        make_content(folder.path(), &url("")).unwrap();
        let content = Content::of(folder.path());
        let cable = Cable::new().unwrap();
        let origin = cable.peer.run(move || Origin::start_at(&format!("{PEER4}:443"), NAME, content));
        let origin = origin.unwrap().unwrap();
        let sniffer = Sniffer::start(&cable).unwrap();
        let netns = format!("--net=/run/netns/{}", cable.work.name());
        let service = Service::start_at(&cable, &[], NAME, &origin.ca_pem, POLICY).unwrap();
        let (job, cgroup) = start_job(&service);
        let podman = Podman::new(netns, &cgroup);
        Self { podman, job, service, sniffer, origin, cable, _folder: folder }
    }

    /// What sessions the recording has of the job, that ended or run.
    pub fn sessions(&self) -> Vec<Value> {
        let args = ["sessions", "ls", "-o", "json", "--limit", "1000", "--workload", JOB];
        let out = self.service.output(&args).unwrap();
        let list: Value = serde_json::from_slice(&out.stdout).unwrap();
        list.as_array().unwrap().clone()
    }

    /// What came over the cable since the last time, but for connections to the server,
    /// which are the proxy's.
    pub fn leaked(&self) -> Vec<Packet> {
        let mut packets = self.sniffer.packets().unwrap();
        self.sniffer.clear().unwrap();
        packets.retain(|packet| !is_to_server(packet));
        packets
    }

    /// Statements that were recorded for the server.
    pub fn recorded(&self) -> u64 {
        let to_us = |session: &Value| session["destination"].as_str().is_some_and(|to| to.starts_with(NAME));
        let sessions = self.sessions();
        sessions.iter().filter(|it| to_us(it)).filter_map(|it| it["statements"].as_u64()).sum()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.podman.clear();
        // It reads to its end.
        drop(self.job.stdin.take());
        if let Err(error) = self.job.wait() {
            eprintln!("the job: {error}");
        }
    }
}

fn is_to_server(packet: &Packet) -> bool {
    let port = packet.bytes.get(22..24).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]));
    // TCP.
    packet.protocol == 6 && packet.destination == IpAddr::V4(PEER4) && port == Some(443)
}

/// As a shell waits for what is there in a moment.
pub fn until(command: &str) -> String {
    format!("n=0; until {command}; do n=$((n + 1)); test $n -lt 200 || exit 99; sleep 0.1; done")
}

pub fn url(path: &str) -> String {
    format!("https://{NAME}{path}")
}

/// A job that waits, and its cgroup, as the cgroup file systems have it.
fn start_job(service: &Service) -> (Child, PathBuf) {
    let args = ["run", "--name", JOB, "--", "sh", "-c", "echo begun; read line"];
    let mut job =
        service.command(&args).unwrap().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut begun = [0; 6];
    std::io::Read::read_exact(job.stdout.as_mut().unwrap(), &mut begun).unwrap();
    let jobs = service.cgroup.path().join("jobs");
    let mut found = std::fs::read_dir(&jobs).unwrap().flatten().map(|entry| entry.path());
    let cgroup = found.find(|path| path.is_dir()).expect("the job's cgroup");
    (job, cgroup)
}

/// podman with runc, as it works beside cgroup v1 too.
pub struct Podman {
    netns: String,
    parent: PathBuf,
    folder: tempfile::TempDir,
}

impl Podman {
    pub fn new(netns: String, cgroup: &Path) -> Self {
        let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/containers");
        let store = made.join("store").canonicalize().expect("`cargo xtask setup` makes the image");
        let folder = tempfile::Builder::new().prefix("run").tempdir_in(&made).unwrap();
        let path = folder.path().canonicalize().unwrap();
        let path = path.display();
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = \"{path}/store\"\nrunroot = \"{path}/run\"\n\
             [storage.options]\nadditionalimagestores = [\"{}\"]\n",
            store.display()
        );
        // It may not raise limits where it has no CAP_SYS_RESOURCE.
        let containers = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\nlog_driver = \"k8s-file\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\nevents_logger = \"file\"\ntmp_dir = \"{path}/tmp\"\n\
             [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = \"{path}/net\"\n"
        );
        std::fs::write(folder.path().join("storage.conf"), storage).unwrap();
        std::fs::write(folder.path().join("containers.conf"), containers).unwrap();
        let mount = enforcer_tests::cgroup::mount().unwrap();
        let parent = Path::new("/").join(cgroup.strip_prefix(mount).unwrap());
        Self { netns, parent, folder }
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(&self.netns).arg("podman").args(args).stdin(Stdio::null());
        command.env("CONTAINERS_STORAGE_CONF", self.folder.path().join("storage.conf"));
        command.env("CONTAINERS_CONF", self.folder.path().join("containers.conf"));
        command
    }

    /// The job's cgroup, as runtimes are told of it.
    pub fn parent(&self) -> std::path::Display<'_> {
        self.parent.display()
    }

    /// The same as a folder.
    pub fn cgroup(&self) -> PathBuf {
        let below = self.parent.strip_prefix("/").expect("it was made so");
        enforcer_tests::cgroup::mount().unwrap().join(below)
    }

    /// Starts a container below the job's cgroup: options, then a shell script in the
    /// image. Its end is waited for by `finish`: attached to it, podman waits for its
    /// monitor to be gone, which takes as long as process 1 takes to notice.
    pub fn start(&self, options: &[&str], script: &str) -> String {
        let parent = format!("--cgroup-parent={}", self.parent.display());
        let options = [&["run", "--detach", &parent], options, &[IMAGE, "sh", "-c", script]].concat();
        let out = self.output(&options);
        assert!(out.status.success(), "{out:?}");
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Waits for its end: what it said, and its exit code.
    pub fn finish(&self, id: &str) -> (String, i32) {
        let code = self.output(&["wait", id]).stdout;
        let logs = self.output(&["logs", id]);
        let text =
            String::from_utf8_lossy(&logs.stdout).into_owned() + &String::from_utf8_lossy(&logs.stderr);
        self.output(&["rm", "--force", "--time", "0", id]);
        let code = String::from_utf8_lossy(&code).trim().parse();
        (text.clone(), code.unwrap_or_else(|_| panic!("{text}")))
    }

    pub fn run(&self, options: &[&str], script: &str) -> (String, i32) {
        self.finish(&self.start(options, script))
    }

    /// A bridge with IPv4 and IPv6, removed with the rest.
    pub fn bridge(&self) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("enf{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let args = ["network", "create", "--ipv6", "--subnet=10.79.0.0/24", "--subnet=fd79::/64", &name];
        let out = self.output(&args);
        assert!(out.status.success(), "{out:?}");
        name
    }

    /// `podman exec` of a shell script.
    pub fn exec(&self, id: &str, script: &str) -> (String, Option<i32>) {
        let out = self.output(&["exec", id, "sh", "-c", &format!("exec 2>&1; {script}")]);
        (String::from_utf8_lossy(&out.stdout).into_owned(), out.status.code())
    }

    pub fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Ends all containers, and removes what podman keeps elsewhere.
    pub fn clear(&self) {
        self.output(&["rm", "--all", "--force", "--time", "0"]);
        let networks = self.output(&["network", "ls", "--quiet"]);
        for network in String::from_utf8_lossy(&networks.stdout).lines().filter(|it| *it != "podman") {
            self.output(&["network", "rm", "--force", network]);
        }
        self.output(&["system", "reset", "--force"]);
        // cgroup v1, where it is mounted, has folders for them as well.
        let group = self.parent.components().nth(1).expect("the suite's cgroup");
        for controller in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let place = controller.path().join(group);
            if controller.path().join("cgroup.procs").exists() && !place.join("cgroup.kill").exists() {
                remove(&place);
            }
        }
    }
}

fn remove(cgroup: &Path) {
    for entry in std::fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            remove(&entry.path());
        }
    }
    // Another suite's is not empty.
    std::fs::remove_dir(cgroup).ok();
}
