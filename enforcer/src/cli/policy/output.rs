//! Where a policy that was written goes.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use miette::{IntoDiagnostic, WrapErr, bail, miette};

use crate::cli::out;

/// A file and the tests beside it, or standard output for the policy alone.
pub struct Output {
    pub path: Option<PathBuf>,
    /// Whether files that are there are overwritten.
    pub force: bool,
}

impl Output {
    /// Notes go to standard error: they stand in the policy, too.
    pub fn write(&self, policy: &str, tests: &str, notes: &[String], rules: usize) -> miette::Result<()> {
        let Some(path) = &self.path else {
            return out::print(policy);
        };
        let Some(beside) = beside(path) else {
            bail!("a policy's file ends in .yaml, and not in .test.yaml: {}", path.display());
        };
        if let Some(there) = [path, &beside].into_iter().find(|path| !self.force && path.exists()) {
            bail!("{} is there: say --force to overwrite it", there.display());
        }
        put(&beside, tests)?;
        put(path, policy)?;
        for note in notes {
            eprintln!("note: {note}");
        }
        out::print(&format!("{rules} rules in {}, tests in {}\n", path.display(), beside.display()))
    }
}

/// `x.yaml` -> `x.test.yaml`
fn beside(path: &Path) -> Option<PathBuf> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".yaml")?;
    (!stem.is_empty() && !stem.ends_with(".test")).then(|| path.with_file_name(format!("{stem}.test.yaml")))
}

/// Under another name until it is whole: a running service reads the folder.
fn put(path: &Path, text: &str) -> miette::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let begun = path.with_file_name(format!(".{name}.{}", std::process::id()));
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&begun)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&begun, path)
    };
    write().into_diagnostic().wrap_err_with(|| miette!("writing {}", path.display()))
}
