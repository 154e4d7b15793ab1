//! The files on which false positives of masking are counted: packages by name, version and
//! hash, what registries answer, what their clients log. In `target/corpus`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{root, run};
use crate::{clients, setup};

const PACKAGES: &str = "bench/corpus/packages.txt";
/// What registries say of these; that changes, so it has no hash.
const ANSWERS: &[(&str, &str)] = &[
    ("npm-eslint", "https://registry.npmjs.org/eslint"),
    ("npm-webpack", "https://registry.npmjs.org/webpack"),
    ("npm-vue", "https://registry.npmjs.org/vue"),
    ("pypi-django", "https://pypi.org/pypi/Django/json"),
    ("pypi-botocore", "https://pypi.org/pypi/botocore/json"),
];
/// Logs of this machine.
const LOGS: &[&str] = &["/var/log/dpkg.log", "/var/log/apt/history.log", "/var/log/apt/term.log"];

/// Downloads and unpacks what is missing; the folder with a folder for each package.
pub fn gather() -> Result<PathBuf> {
    let mut wanted = vec![("python3-venv", "downloads packages"), ("curl", "asks registries")];
    // It may come from elsewhere, as Node does.
    if !clients::is_there("npm") {
        wanted.push(("npm", "downloads packages"));
    }
    setup::packages(&wanted)?;
    let folder = root().join("target/corpus");
    let (archives, files) = (folder.join("archives"), folder.join("files"));
    fs::create_dir_all(&archives)?;
    fs::create_dir_all(files.join("logs"))?;
    let text = fs::read_to_string(root().join(PACKAGES))?;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let mut fields = line.split(' ');
        let (Some(registry), Some(name), Some(hash)) = (fields.next(), fields.next(), fields.next()) else {
            anyhow::bail!("{PACKAGES}: `{line}` is not a registry, a package and a hash");
        };
        package(registry, name, hash, &archives, &files).with_context(|| name.to_owned())?;
    }
    let answers = files.join("answers");
    fs::create_dir_all(&answers)?;
    for (name, url) in ANSWERS {
        let to = answers.join(format!("{name}.answer"));
        if !to.exists() {
            run(Command::new("curl").args(["-fsSL", "--retry", "3", "-o"]).arg(&to).arg(url))?;
        }
    }
    for log in LOGS.iter().map(Path::new).filter(|log| log.exists()) {
        let name = log.file_name().unwrap_or_default();
        fs::copy(log, files.join("logs").join(name))?;
    }
    Ok(files)
}

fn package(registry: &str, name: &str, hash: &str, archives: &Path, files: &Path) -> Result<()> {
    let to = files.join(name.trim_end_matches("-py3-none-any.whl"));
    if to.exists() {
        return Ok(());
    }
    let is_npm = registry == "npm";
    let archive = if is_npm { archives.join(format!("{name}.tgz")) } else { archives.join(name) };
    if !archive.exists() {
        let log = fs::File::create(files.join("logs").join(format!("{name}.log")))?;
        let mut command = if is_npm {
            let (package, version) = name.rsplit_once('-').context("a package is NAME-VERSION")?;
            let mut npm = Command::new("npm");
            npm.args(["pack", "--loglevel", "silly", &format!("{package}@{version}")]);
            npm
        } else {
            let mut words = name.split('-');
            let (package, version) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let mut pip = Command::new("/usr/bin/python3");
            pip.args(["-m", "pip", "download", "-v", "--no-deps", "--only-binary", ":all:"]);
            pip.arg(format!("{package}=={version}"));
            pip
        };
        run(command.current_dir(archives).stdout(log.try_clone()?).stderr(log))?;
    }
    let sum = Command::new("sha256sum").arg(&archive).output()?;
    let sum = String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default().to_owned();
    ensure!(sum == hash, "{} has the hash {sum}, not {hash}", archive.display());
    // A folder that is there is whole.
    let part = files.join("part");
    if part.exists() {
        fs::remove_dir_all(&part)?;
    }
    fs::create_dir(&part)?;
    if is_npm {
        run(Command::new("tar").arg("-xzf").arg(&archive).arg("-C").arg(&part))?;
    } else {
        run(Command::new("/usr/bin/python3").args(["-m", "zipfile", "-e"]).arg(&archive).arg(&part))?;
    }
    fs::rename(part, to).context("renaming")
}
