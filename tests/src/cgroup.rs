//! Cgroups of a test's own.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::wait::{PATIENCE, within};

/// A cgroup that is removed, with everything in it killed, when this is dropped.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Makes `name` below the cgroup2 mount; a name that exists is an error.
    pub fn at_root(name: &str) -> Result<Self> {
        Self::make(mount()?.join(name))
    }

    /// Makes a cgroup at this path.
    pub fn at(path: &Path) -> Result<Self> {
        Self::make(path.to_owned())
    }

    /// Makes a cgroup below this one.
    pub fn child(&self, name: &str) -> Result<Self> {
        Self::make(self.path.join(name))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process here, with all its threads.
    pub fn add(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
    }

    fn make(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)
            .with_context(|| format!("making the cgroup {}: is this root?", path.display()))?;
        Ok(Self { path })
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // Own processes must not be killed with the rest: they go up.
        let own = std::process::id();
        if processes(&self.path).contains(&own)
            && let Some(parent) = self.path.parent()
            && let Err(e) = fs::write(parent.join("cgroup.procs"), own.to_string())
        {
            eprintln!("leaving {}: {e}", self.path.display());
        }
        // The killed processes need a moment until they are gone, and one that was about to enter
        // may have come after the others were killed.
        let mut done = Ok(());
        within(PATIENCE, || {
            done = gone(kill(&self.path)).and_then(|()| remove_tree(&self.path));
            done.is_ok()
        });
        if let Err(e) = done {
            eprintln!("{} stays, with the processes {:?}: {e}", self.path.display(), processes(&self.path));
        }
    }
}

/// Kills what is in it and below; before Linux 5.14 a cgroup has no file for it.
fn kill(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(path.join("cgroup.kill"))?.write_all(b"1")
}

/// Those in this cgroup itself.
fn processes(path: &Path) -> Vec<u32> {
    let text = fs::read_to_string(path.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// With what others made below, and did not remove.
fn remove_tree(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    gone(fs::remove_dir(path))
}

/// What somebody else removes at the same time is removed.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Where cgroup2 is mounted.
pub fn mount() -> Result<PathBuf> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    text.lines()
        .find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            right.starts_with("cgroup2 ").then(|| left.split(' ').nth(4).map(PathBuf::from))?
        })
        .context("no cgroup2 mount")
}
