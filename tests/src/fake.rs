//! Hosts that are made of files, with one unit that runs jobs of a user `ci`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use enforcer::app::config::Config;
use enforcer::app::doctor::{Finding, Host, Level, Probes, Report, Scope, Service, State, examine};
use serde_json::{Value, json};

pub const CI: u32 = 1000;
const DOCKER: u32 = 990;
const RELEASE: &str = "6.12.117+deb12-amd64";
pub const UNIT: &str = "runner.service";

/// As the kernel writes it: of these the last alone is one that anybody may connect to by
/// its name alone, if it is there.
const UNIX: &str = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 17 /run/docker.sock
0000000000000000: 00000003 00000000 00000000 0001 03 18 @/tmp/connected
";

/// A unit with all that is demanded.
const GOOD_UNIT: &str = "\
[Unit]
Description=A runner
After=enforcer.service
Wants=enforcer.service
[Service]
User=ci
WorkingDirectory=/home/ci/runner
ExecStart=/home/ci/runner/runsvc.sh
NoNewPrivileges=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
CapabilityBoundingSet=CAP_CHOWN CAP_NET_RAW
SystemCallFilter=~@keyring io_uring_setup
SystemCallArchitectures=native
InaccessiblePaths=-/run/docker.sock -/run/dbus -/run/user -/run/nscd -/run/systemd/resolve/io.systemd.Resolve -/run/cups
RestrictNamespaces=yes
ProtectControlGroups=yes
ProtectSystem=full
ProtectKernelTunables=yes
";

/// A tree, and what would be asked of a running host.
pub struct Fake {
    dir: tempfile::TempDir,
    pub status: Option<Value>,
    pub landlock: Option<u32>,
    /// The user of the jobs, if it is not the unit's.
    pub user: Option<&'static str>,
    pub config: Config,
}

impl Fake {
    /// One that lacks nothing.
    pub fn good() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "files of several users are made: run this as root");
        let status = json!({
            "healthy": true,
            "pins": [{ "name": "connect4", "problem": null }, { "name": "egress", "problem": null }],
            "jobs": [],
            "scopes": [{ "name": "ci", "matches": [{ "cgroup": "/ci.slice" }] }],
            "tiers": [{ "name": "lsm", "state": "active" }],
            "interfaces": { "guarded": 2, "problem": null },
            "namespaces": [],
        });
        let dir = tempfile::tempdir().unwrap();
        let fake =
            Self { dir, status: Some(status), landlock: Some(6), user: None, config: Config::default() };
        fake.kernel();
        fake.people();
        fake.unit(GOOD_UNIT);
        fake.unit_setting("Slice=ci.slice");
        fake.folder("/sys/fs/bpf/enforcer", 0, 0o700);
        fake.file("/sys/fs/bpf/enforcer/connect4", "", 0, 0o600);
        fake.file("/sys/fs/cgroup/cgroup.procs", "", 0, 0o644);
        fake.file("/sys/fs/cgroup/ci.slice/cgroup.procs", "", 0, 0o644);
        fake.file("/sys/fs/cgroup/ci.slice/runner.service/cgroup.procs", "71\n", CI, 0o644);
        fake.process(1, 0, "systemd", "/init.scope");
        fake.process(71, CI, "runsvc.sh", "/ci.slice/runner.service");
        fake.file("/run/docker.sock", "", 0, 0o660);
        chown(fake.at("/run/docker.sock"), None, Some(DOCKER)).unwrap();
        for socket in ["/run/dbus/system_bus_socket", "/run/nscd/socket", "/run/cups/cups.sock"] {
            fake.file(socket, "", 0, 0o666);
        }
        fake.file("/run/systemd/resolve/io.systemd.Resolve", "", 0, 0o666);
        fake.folder("/run/user/1000", CI, 0o700);
        fake.file("/run/user/1000/bus", "", CI, 0o666);
        fake.programs();
        fake
    }

    fn kernel(&self) {
        self.file("/proc/sys/kernel/osrelease", RELEASE, 0, 0o444);
        self.file("/proc/net/unix", UNIX, 0, 0o444);
        self.file("/proc/self/mountinfo", "31 30 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", 0, 0o444);
        for (name, value) in [
            ("kernel/core_pattern", "core"),
            ("kernel/yama/ptrace_scope", "1"),
            ("kernel/unprivileged_bpf_disabled", "2"),
            ("user/max_user_namespaces", "0"),
            ("net/ipv4/ping_group_range", "1\t0"),
            ("net/ipv4/ip_forward", "1"),
        ] {
            self.file(&format!("/proc/sys/{name}"), value, 0, 0o644);
        }
        self.file("/sys/kernel/btf/vmlinux", "", 0, 0o444);
        self.file("/sys/kernel/security/lsm", "lockdown,capability,yama,bpf", 0, 0o444);
        self.file("/sys/kernel/security/lockdown", "none [integrity] confidentiality", 0, 0o444);
        let options =
            "CONFIG_CGROUP_BPF=y\nCONFIG_BPF_LSM=y\nCONFIG_INET_DIAG_DESTROY=y\nCONFIG_NET_SCH_INGRESS=m\n";
        self.file(&format!("/boot/config-{RELEASE}"), options, 0, 0o644);
        let modules = "kernel/net/vmw_vsock/vsock.ko.xz:\nkernel/net/sched/sch_ingress.ko.xz:\n";
        self.file(&format!("/lib/modules/{RELEASE}/modules.dep"), modules, 0, 0o644);
        self.file("/dev/net/tun", "", 0, 0o666);
        self.file("/sys/class/net/tun0/tun_flags", "0x1002", 0, 0o444);
        self.file("/sys/class/net/tun0/owner", "0", 0, 0o444);
    }

    fn people(&self) {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nci:x:1000:1000::/home/ci:/bin/bash\n\
                      dev:x:1001:1001::/home/dev:/bin/bash\n";
        self.file("/etc/passwd", passwd, 0, 0o644);
        let group = "root:x:0:\nsudo:x:27:dev\ndocker:x:990:\nenforcer:x:995:dev\nci:x:1000:\ndev:x:1001:\n";
        self.file("/etc/group", group, 0, 0o644);
    }

    fn programs(&self) {
        self.file("/usr/bin/su", "", 0, 0o4755);
        self.file("/usr/bin/crontab", "", 0, 0o2755);
        self.file("/sbin/request-key", "", 0, 0o755);
        self.file(
            "/etc/sudoers",
            "Defaults env_reset\nroot ALL=(ALL) ALL\n%sudo ALL=(ALL) NOPASSWD: ALL\n",
            0,
            0o440,
        );
        self.file("/etc/pam.d/su", "session optional pam_systemd.so\n", 0, 0o644);
        self.folder("/etc/cron.d", 0, 0o755);
        self.folder("/home/ci/runner", 0, 0o755);
        for file in [".env", ".path", ".runner", "runsvc.sh"] {
            self.file(&format!("/home/ci/runner/{file}"), "", 0, 0o755);
        }
    }

    pub fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path.trim_start_matches('/'))
    }

    /// A folder, and those above it that are not there yet.
    pub fn folder(&self, path: &str, uid: u32, mode: u32) {
        let place = self.at(path);
        let missing: Vec<&Path> = place.ancestors().take_while(|above| !above.exists()).collect();
        fs::create_dir_all(&place).unwrap();
        for made in missing {
            fs::set_permissions(made, Permissions::from_mode(0o755)).unwrap();
        }
        chown(&place, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
    }

    pub fn file(&self, path: &str, text: &str, uid: u32, mode: u32) {
        let place = self.at(path);
        let above = Path::new(path).parent().unwrap().to_str().unwrap();
        if !self.at(above).exists() {
            self.folder(above, 0, 0o755);
        }
        fs::write(&place, text).unwrap();
        chown(&place, Some(uid), Some(uid)).unwrap();
        fs::set_permissions(&place, Permissions::from_mode(mode)).unwrap();
    }

    pub fn link(&self, to: &str, path: &str) {
        self.folder(Path::new(path).parent().unwrap().to_str().unwrap(), 0, 0o755);
        let place = self.at(path);
        if place.is_symlink() {
            fs::remove_file(&place).unwrap();
        }
        symlink(to, place).unwrap();
    }

    pub fn process(&self, pid: u32, uid: u32, name: &str, cgroup: &str) {
        self.link("net:[4026531840]", &format!("/proc/{pid}/ns/net"));
        let status = format!("Name:\t{name}\nPid:\t{pid}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n");
        self.file(&format!("/proc/{pid}/status"), &status, 0, 0o444);
        self.file(&format!("/proc/{pid}/cgroup"), &format!("0::{cgroup}\n"), 0, 0o444);
    }

    pub fn remove(&self, path: &str) {
        fs::remove_file(self.at(path)).unwrap();
    }

    pub fn replace(&self, path: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.at(path)).unwrap();
        assert!(text.contains(from), "{path} has no {from}");
        fs::write(self.at(path), text.replace(from, to)).unwrap();
    }

    pub fn unit(&self, text: &str) {
        self.file(&format!("/etc/systemd/system/{UNIT}"), text, 0, 0o644);
    }

    /// One more line, in a drop-in that comes after all others.
    pub fn unit_setting(&self, line: &str) {
        let path = format!("/etc/systemd/system/{UNIT}.d/90-test.conf");
        let before = fs::read_to_string(self.at(&path)).unwrap_or_else(|_| "[Service]\n".to_owned());
        self.file(&path, &format!("{before}{line}\n"), 0, 0o644);
    }

    pub fn without_lsm(&mut self) {
        self.status.as_mut().unwrap()["tiers"] =
            json!([{ "name": "lsm", "state": "unavailable", "why": "EPERM" }]);
    }

    pub fn host(&self) -> Host {
        let service = self.status.clone().map_or(Service::Silent, Service::Answers);
        let probes = Probes { service, landlock: self.landlock, systemd: false };
        Host::at(self.dir.path(), self.config.clone(), probes)
    }

    pub fn report(&self, require: Level) -> Report {
        let host = self.host();
        let unit = Scope::unit(&host, UNIT, self.user).unwrap();
        examine(&host, &[unit], require)
    }

    fn report_of(&self, cgroup: &str, require: Level) -> Report {
        let host = self.host();
        let scope = Scope::cgroup(&host, "it", Path::new(cgroup), None).unwrap();
        examine(&host, &[scope], require)
    }

    pub fn cgroup_report(&self, cgroup: &str) -> Report {
        self.report_of(cgroup, Level::Unprivileged)
    }

    /// A container's root, with what Docker leaves it, in a cgroup that is tagged.
    pub fn container(&self) -> Report {
        const DOCKER: &str = "00000000a80425fb";
        for (pid, kind, id) in [(1, "mnt", 1), (1, "pid", 2), (81, "mnt", 3), (81, "pid", 4)] {
            self.link(&format!("{kind}:[{id}]"), &format!("/proc/{pid}/ns/{kind}"));
        }
        self.process(81, 0, "sh", "/ci.slice/container");
        let status = fs::read_to_string(self.at("/proc/81/status")).unwrap();
        self.file("/proc/81/status", &format!("{status}CapBnd:\t{DOCKER}\n"), 0, 0o444);
        self.file("/sys/fs/cgroup/ci.slice/container/cgroup.procs", "81\n", 0, 0o644);
        self.file("/proc/1/mountinfo", "20 1 8:1 / / rw - ext4 /dev/sda1 rw\n", 0, 0o444);
        let mounts = "40 39 0:50 / / rw - overlay overlay rw\n\
                      41 40 0:28 /ci.slice/container /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n";
        self.file("/proc/81/mountinfo", mounts, 0, 0o444);
        self.report_of("/ci.slice/container", Level::ContainerRoot)
    }

    pub fn run_report(&self, user: Option<&str>) -> Report {
        let host = self.host();
        let run = Scope::run(&host, user).unwrap();
        examine(&host, &[run], Level::Unprivileged)
    }
}

/// All findings of a report with one scope.
pub fn findings(report: &Report) -> Vec<&Finding> {
    report.host.iter().chain(report.scopes.iter().flat_map(|scope| &scope.findings)).collect()
}

pub fn finding<'a>(report: &'a Report, id: &str) -> &'a Finding {
    findings(report).into_iter().find(|finding| finding.id == id).unwrap()
}

/// The ids of the checks that came out so.
pub fn with(report: &Report, state: State) -> Vec<&'static str> {
    findings(report).into_iter().filter(|finding| finding.state == state).map(|finding| finding.id).collect()
}
