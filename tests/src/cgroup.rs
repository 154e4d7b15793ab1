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
        let procs = self.path.join("cgroup.procs");
        let own = std::process::id().to_string();
        if fs::read_to_string(&procs).is_ok_and(|text| text.lines().any(|line| line == own))
            && let Some(parent) = self.path.parent()
            && let Err(e) = fs::write(parent.join("cgroup.procs"), &own)
        {
            eprintln!("leaving {}: {e}", self.path.display());
        }
        if let Ok(mut kill) = fs::OpenOptions::new().write(true).open(self.path.join("cgroup.kill"))
            && let Err(e) = kill.write_all(b"1")
        {
            eprintln!("killing what is in {}: {e}", self.path.display());
        }
        // The killed processes need a moment until they are gone.
        let mut done = Ok(());
        within(PATIENCE, || {
            done = remove_tree(&self.path);
            !matches!(&done, Err(e) if e.kind() == io::ErrorKind::ResourceBusy)
        });
        if let Err(e) = done {
            eprintln!("{} stays: {e}", self.path.display());
        }
    }
}

/// With what others made below, and did not remove.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
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
