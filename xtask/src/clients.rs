//! The clients that the tests and the demonstration drive, pinned, in `target/clients`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::run::{root, run};
use crate::setup;

/// Programs, and the Debian package that is installed where one is missing. Node and
/// Java may come from elsewhere.
const PROGRAMS: &[(&str, &str, &str)] = &[
    ("curl", "curl", "test client"),
    ("wget", "wget", "test client"),
    ("git", "git", "test client and server"),
    ("go", "golang-go", "compiles a test client"),
    ("node", "nodejs", "runs npm, and the demonstration's client"),
    ("npm", "npm", "test client"),
    ("java", "default-jdk-headless", "runs a test client"),
    ("jlink", "default-jdk-headless", "makes a Java with a store of its own"),
    ("chromium", "chromium", "looks at the web page (124 MB, 412 MB unpacked)"),
];

/// Packages whose presence no program shows.
const PACKAGES: &[(&str, &str)] = &[
    ("python3-venv", "the Python of test clients"),
    ("ca-certificates-java", "the store of roots that Debian's Java reads"),
];

/// Installs the clients that Debian has, and what the others are made with.
pub fn packages() -> Result<()> {
    let missing = PROGRAMS.iter().filter(|(program, ..)| !is_there(program));
    let wanted: Vec<_> =
        missing.map(|(_, package, why)| (*package, *why)).chain(PACKAGES.iter().copied()).collect();
    setup::packages(&wanted)
}

/// Installs everything that is not there yet, and says so.
pub fn install() -> Result<()> {
    packages()?;
    let source = root().join("tests/clients");
    let target = root().join("target/clients");
    once("Python clients", &source.join("python/requirements.txt"), &target.join("python"), |venv| {
        run(Command::new("/usr/bin/python3").args(["-m", "venv", "--clear"]).arg(venv))?;
        run(Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(source.join("python/requirements.txt")))
    })?;
    // By hashes: it runs what a workflow says, and is a program and not a library.
    once("act", &source.join("act/requirements.txt"), &target.join("act"), |folder| {
        run(Command::new(target.join("python/bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"])
            .arg("--target")
            .arg(folder)
            .arg("--requirement")
            .arg(source.join("act/requirements.txt")))
    })?;
    node_modules("Node clients", "node")?;
    // The modules are found from where the program stands.
    for name in ["probe.mjs", "sdk.mjs"] {
        fs::copy(source.join("node").join(name), target.join("node").join(name))?;
    }
    node_modules("browser's driver (60 MB)", "browser")?;
    fs::copy(source.join("browser/page.mjs"), target.join("browser/page.mjs"))?;
    once("Go client", &source.join("go/main.go"), &target.join("go"), |folder| {
        run(Command::new("go")
            .env("GO111MODULE", "off")
            .env("CGO_ENABLED", "0")
            .env("GOCACHE", target.join("go-cache"))
            .args(["build", "-o"])
            .arg(folder.join("probe"))
            .arg(source.join("go/main.go")))
    })
}

/// Installs the coding agents that tests drive, which are large.
pub fn install_agents() -> Result<()> {
    node_modules("coding agents (1.2 GB)", "agents")
}

fn node_modules(what: &str, name: &str) -> Result<()> {
    let source = root().join("tests/clients").join(name).join("package.json");
    once(what, &source, &root().join("target/clients").join(name), |folder| {
        fs::copy(&source, folder.join("package.json"))?;
        run(Command::new("npm").current_dir(folder).args([
            "install",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ]))
    })
}

/// Makes a folder from a file, unless it was made from the same.
pub fn once(what: &str, from: &Path, folder: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let wanted = fs::read(from).with_context(|| from.display().to_string())?;
    let stamp = folder.join(".made-from");
    if fs::read(&stamp).is_ok_and(|made| made == wanted) {
        println!("setup: {what}: there");
        return Ok(());
    }
    println!("setup: {what}: installing into {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    make(folder)?;
    Ok(fs::write(stamp, wanted)?)
}

/// Whether a program is in the path.
pub fn is_there(program: &str) -> bool {
    let script = format!("command -v {program}");
    Command::new("sh")
        .args(["-c", &script])
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
