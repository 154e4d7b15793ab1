//! Boots a Debian kernel in qemu and runs the kernel tests there, attached at
//! the true cgroup root: a mistake in a program at the root cuts the network of
//! the whole machine, so it is made in a machine that nobody needs.
//!
//! The guest is a busybox initramfs with the test binary, the object and the
//! libraries that the binary links. It has no disk and no network of the host.

use std::fs;
use std::io::{BufRead, BufReader};
use std::num::NonZeroUsize;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::run::{root, run};
use crate::{ebpf, setup, test};

/// The meta packages whose kernels are booted.
const KERNELS: &[(&str, &str)] =
    &[("6.1", "linux-image-cloud-amd64"), ("6.12", "linux-image-6.12-cloud-amd64")];

/// Modules that the tests need, in load order: cables, and the ways out that are tried.
const MODULES: &[&str] = &[
    "drivers/net/veth",
    "drivers/net/tun",
    "drivers/net/macvlan",
    "lib/libcrc32c",
    "net/ipv4/udp_tunnel",
    "net/ipv6/ip6_udp_tunnel",
    "net/sctp/sctp",
    "net/dccp/dccp",
    "net/dccp/dccp_ipv4",
    "net/l2tp/l2tp_core",
    "net/l2tp/l2tp_ip",
    "net/sched/sch_ingress",
    "net/sched/cls_bpf",
    "net/sched/cls_u32",
    "net/vmw_vsock/vsock",
    "net/vmw_vsock/vmw_vsock_virtio_transport_common",
    "net/vmw_vsock/vsock_loopback",
    "net/ipv4/inet_diag",
    "net/ipv4/tcp_diag",
    "net/ipv4/udp_diag",
    "crypto/af_alg",
];

/// The kernel's own choice of security modules but for the programs.
const NO_LSM: &str = "lsm=landlock,lockdown,yama,integrity,apparmor";

/// What the guest prints last, with the exit code of the tests behind it.
const VERDICT: &str = "vm-verdict:";

const FAILED: &str = "the tests failed in the guest, or it ended before they did";

/// The guest is killed after this many seconds: a hang is a failure. All of the battery in
/// all states takes the longest.
const TIMEOUT_S: &str = "14400";

/// Two processors take turns in one thread. In a thread of its own each, one may run into the
/// breakpoint under which the other has just changed the kernel's text (a call of a security hook
/// that a program is attached to), which it sees too late to know: the guest panics with `int3`.
const ACCELERATOR: &str = "tcg,thread=single";

/// As little as Debian's kernels and the tests need: what `max` has besides (longer page tables,
/// wide vectors, more to guard on each entry of the kernel) takes the emulation half as long again.
const PROCESSOR: &str = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+rdrand";

/// What runs in the guest.
pub struct Guest<'a> {
    /// The kernel's series: `6.1` or `6.12`.
    pub series: &'a str,
    /// The suite of the tests package.
    pub suite: &'a str,
    /// Words of which a test's name has one.
    pub filter: Option<&'a str>,
    /// More words for the test's environment.
    pub environment: &'a str,
    /// With programs among its security modules; the battery of escapes has that tier then.
    pub lsm: bool,
}

/// All that is asked of the guests: the battery of escapes beside the kernel tests, since a guest
/// keeps one core busy. Of 6.12 it is what an older kernel does in another way or not at all; all the rest
/// runs in 6.1, and in the kernel of the machine.
const BESIDE: [&[Guest<'static>]; 2] = [
    &[Guest { filter: Some("enforcing"), ..Guest::of("6.12", "escapes") }],
    &[
        Guest::of("6.1", "kernel"),
        Guest { filter: Some("lsm interfaces routes"), ..Guest::of("6.12", "kernel") },
    ],
];

impl<'a> Guest<'a> {
    /// All of a suite, with programs among the security modules.
    pub const fn of(series: &'a str, suite: &'a str) -> Self {
        Self { series, suite, filter: None, environment: "", lsm: true }
    }
}

/// Runs a suite in a guest.
pub fn all(wanted: &Guest<'_>) -> Result<()> {
    let (_, passed) = run_suite(wanted)?;
    ensure!(passed, FAILED);
    Ok(())
}

/// Runs a suite in a guest, and returns what its console said, and whether it passed.
pub fn run_suite(wanted: &Guest<'_>) -> Result<(String, bool)> {
    Ready::of(wanted, NonZeroUsize::MIN)?.run("")
}

/// Runs them two at a time. Each line begins with its guest. Of suites that are run whole there
/// is one test in `share`, and with the next commit the one behind it.
pub fn beside(share: NonZeroUsize) -> Result<()> {
    // One after the other: they share what is built.
    let ready = |wanted: &'static Guest<'static>| -> Result<_> {
        let share = if wanted.filter.is_none() { share } else { NonZeroUsize::MIN };
        Ok((wanted, Ready::of(wanted, share)?))
    };
    let rows: Vec<Vec<_>> =
        BESIDE.iter().map(|row| row.iter().map(ready).collect()).collect::<Result<_>>()?;
    let failed: Vec<String> = std::thread::scope(|scope| {
        let running: Vec<_> = rows.iter().map(|row| scope.spawn(|| row_failed(row))).collect();
        running
            .into_iter()
            .flat_map(|row| row.join().unwrap_or_else(|_| vec!["a panic".to_owned()]))
            .collect()
    });
    ensure!(failed.is_empty(), "{FAILED}: {}", failed.join(", "));
    Ok(())
}

/// Runs a row of guests, one after the other, and names those that did not pass.
fn row_failed(row: &[(&Guest<'_>, Ready)]) -> Vec<String> {
    let mut failed = Vec::new();
    for (wanted, ready) in row {
        let name = format!("{} {}", wanted.series, wanted.suite);
        match ready.run(&format!("{name} | ")) {
            Ok((_, true)) => {}
            Ok((_, false)) => failed.push(name),
            Err(error) => failed.push(format!("{name} ({error:#})")),
        }
    }
    failed
}

/// A guest that can be booted.
struct Ready {
    image: PathBuf,
    initrd: PathBuf,
    words: String,
}

impl Ready {
    /// Fetches its kernel, builds its test and packs its files; one in `share` of its tests is run.
    fn of(wanted: &Guest<'_>, share: NonZeroUsize) -> Result<Self> {
        let series = wanted.series;
        let Some((_, meta)) = KERNELS.iter().find(|(name, _)| *name == series) else {
            bail!("no kernel {series}: there are 6.1 and 6.12");
        };
        setup::packages(setup::VM)?;
        let objects = [ebpf::build()?, ebpf::build_debug()?];
        let test = test_binary(wanted.suite)?;
        let of_series = root().join("target/vm").join(series);
        let kernel = kernel(meta, &of_series)?;
        let folder = of_series.join("guests").join(wanted.suite);
        let guest = folder.join("root");
        if guest.exists() {
            fs::remove_dir_all(&guest)?;
        }
        let which = match wanted.filter {
            _ if share > NonZeroUsize::MIN => exactly(&test, share)?,
            filter => filter.unwrap_or_default().to_owned(),
        };
        fill(&guest, &kernel, &test, &init_script(wanted, &which))?;
        for object in &objects {
            copy(object, &guest.join(object.file_name().context("an object without a name")?))?;
        }
        let initrd = pack(&guest, &folder)?;
        let words = if wanted.lsm { "rdinit=/init".to_owned() } else { format!("rdinit=/init {NO_LSM}") };
        Ok(Self { image: kernel.image, initrd, words })
    }

    fn run(&self, prefix: &str) -> Result<(String, bool)> {
        console_of(&self.image, &self.initrd, &self.words, &[], prefix)
    }
}

struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

/// Downloads and unpacks the kernel that the meta package names today.
fn kernel(meta: &str, folder: &Path) -> Result<Kernel> {
    let depends = Command::new("apt-cache").args(["depends", meta]).output()?;
    let package = String::from_utf8_lossy(&depends.stdout)
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: ").map(str::to_owned))
        .with_context(|| format!("apt knows no {meta}: run `apt-get update`"))?;
    let release = package.trim_start_matches("linux-image-").to_owned();
    let unpacked = folder.join("kernel");
    let image = unpacked.join("boot").join(format!("vmlinuz-{release}"));
    if !image.exists() {
        fs::create_dir_all(folder)?;
        println!("vm: fetching {package} (about 30 MB)");
        run(Command::new("apt-get").current_dir(folder).args(["download", "-q", &package]))?;
        let deb = fs::read_dir(folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                path.to_string_lossy().contains(&package) && path.extension().is_some_and(|e| e == "deb")
            })
            .context("apt-get left no package")?;
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(&unpacked))?;
    }
    let modules = unpacked.join("lib/modules").join(&release).join("kernel");
    Ok(Kernel { image, modules })
}

/// Builds the suites and says where the binary of one is.
fn test_binary(name: &str) -> Result<PathBuf> {
    test::suites()?.remove(name).with_context(|| format!("there is no suite `{name}`"))
}

/// The words that choose one in `share` of a suite's tests; with as many commits, each is run once.
fn exactly(test: &Path, share: NonZeroUsize) -> Result<String> {
    let commits = Command::new("git").current_dir(root()).args(["rev-list", "--count", "HEAD"]).output()?;
    // Sources without a history have the first turn.
    let turn: usize = String::from_utf8_lossy(&commits.stdout).trim().parse().unwrap_or_default();
    let list = Command::new(test).args(["--list", "--format", "terse"]).output()?;
    ensure!(list.status.success(), "{} lists no tests", test.display());
    let list = String::from_utf8(list.stdout)?;
    let names = list.lines().filter_map(|line| line.strip_suffix(": test")).skip(turn % share);
    let chosen: Vec<&str> = names.step_by(share.get()).collect();
    println!("vm: of the tests one in {share}: {} of them", chosen.len());
    Ok(format!("--exact {}", chosen.join(" ")))
}

/// Lays out the guest's root.
fn fill(guest: &Path, kernel: &Kernel, test: &Path, script: &str) -> Result<()> {
    for folder in ["bin", "sbin", "dev", "proc", "sys", "tmp", "run", "lib/modules", "etc", "root"] {
        fs::create_dir_all(guest.join(folder))?;
    }
    copy(Path::new("/bin/busybox"), &guest.join("bin/busybox"))?;
    symlink("busybox", guest.join("bin/sh"))?;
    copy(test, &guest.join("bin/test"))?;
    copy(&root().join("target/debug/enforcer-probe"), &guest.join("bin/enforcer-probe"))?;
    for tool in ["/sbin/ip", "/sbin/tc"] {
        copy(Path::new(tool), &guest.join(&tool[1..]))?;
    }
    fs::write(guest.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    for binary in [test, Path::new("/sbin/ip"), Path::new("/sbin/tc")] {
        libraries(binary, guest)?;
    }
    for module in MODULES {
        unpack_module(&kernel.modules.join(module), guest)?;
    }
    let init = guest.join("init");
    fs::write(&init, script)?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

fn init_script(wanted: &Guest<'_>, filter: &str) -> String {
    let environment = wanted.environment;
    let tier = if wanted.lsm { "ENFORCER_ESCAPES_LSM=1" } else { "" };
    let expected = if wanted.lsm { "active" } else { "unavailable" };
    let loads: String = MODULES
        .iter()
        .filter_map(|module| module.rsplit('/').next())
        .map(|name| format!("insmod /lib/modules/{name}.ko\n"))
        .collect();
    format!(
        "#!/bin/sh
/bin/busybox --install -s /bin
export PATH=/sbin:/bin RUST_BACKTRACE=1
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
exec </dev/null >/dev/console 2>&1
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t bpf bpf /sys/fs/bpf; mount -t tmpfs tmp /tmp
{loads}ip link set lo up
uname -r
export ENFORCER_BPF_OBJECT=/enforcer.bpf.o ENFORCER_BPF_DEBUG_OBJECT=/enforcer.debug.bpf.o
mount -t securityfs security /sys/kernel/security; mount -t tracefs tracing /sys/kernel/tracing
export ENFORCER_TEST_LSM={expected}
ENFORCER_TEST_ATTACH=/ {tier} {environment} /bin/test --test-threads=1 --nocapture {filter}
echo {VERDICT} $?
poweroff -f
"
    )
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Copies the libraries that a binary links, under the paths it looks for.
fn libraries(binary: &Path, guest: &Path) -> Result<()> {
    let out = Command::new("ldd").arg(binary).output()?;
    for word in String::from_utf8_lossy(&out.stdout).split_whitespace().filter(|word| word.starts_with('/')) {
        let to = guest.join(word.trim_start_matches('/'));
        if !to.exists() {
            fs::create_dir_all(to.parent().unwrap_or(guest))?;
            copy(Path::new(word), &to)?;
        }
    }
    Ok(())
}

/// Newer kernels compress their modules, which busybox cannot load.
fn unpack_module(module: &Path, guest: &Path) -> Result<()> {
    let name = module.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let to = guest.join("lib/modules").join(format!("{name}.ko"));
    let plain = PathBuf::from(format!("{}.ko", module.display()));
    if plain.exists() {
        return copy(&plain, &to);
    }
    let packed = format!("{}.ko.xz", module.display());
    let out = Command::new("xz").args(["--decompress", "--stdout", &packed]).output()?;
    ensure!(out.status.success(), "no module {packed}");
    fs::write(&to, out.stdout)?;
    Ok(())
}

fn pack(guest: &Path, folder: &Path) -> Result<PathBuf> {
    let initrd = folder.join("initrd");
    let script = format!("find . | cpio --quiet -o -H newc > '{}'", initrd.display());
    run(Command::new("sh").current_dir(guest).args(["-c", &script]))?;
    Ok(initrd)
}

/// Software emulation, so that it runs the same where nested virtualisation is
/// missing or broken; the guest is up in about two seconds.
pub fn boot(image: &Path, initrd: &Path, words: &str, more: &[&str]) -> Result<()> {
    let (_, passed) = console_of(image, initrd, words, more, "")?;
    ensure!(passed, FAILED);
    Ok(())
}

/// What the guest says is printed with a prefix before each line.
fn console_of(
    image: &Path,
    initrd: &Path,
    words: &str,
    more: &[&str],
    prefix: &str,
) -> Result<(String, bool)> {
    let started = std::time::Instant::now();
    let mut guest = Command::new("timeout")
        .args([TIMEOUT_S, "qemu-system-x86_64", "-accel", ACCELERATOR])
        .args(["-cpu", PROCESSOR, "-smp", "2", "-m", "1536", "-display", "none", "-no-reboot", "-nodefaults"])
        .args(["-serial", "stdio", "-append", &format!("console=ttyS0 quiet nowatchdog panic=-1 {words}")])
        .args(more)
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initrd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start qemu-system-x86_64")?;
    // Line by line, so that one who waits sees how far it is.
    let mut lines = BufReader::new(guest.stdout.take().context("no console")?);
    let (mut console, mut line) = (String::new(), Vec::new());
    while lines.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        print!("{prefix}{text}");
        console.push_str(&text);
        line.clear();
    }
    guest.wait()?;
    println!("{prefix}vm: {} s", started.elapsed().as_secs());
    let verdict = console.lines().rev().find_map(|line| line.trim().strip_prefix(VERDICT));
    let passed = verdict.map(str::trim) == Some("0");
    Ok((console, passed))
}
