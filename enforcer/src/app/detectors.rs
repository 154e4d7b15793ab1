//! Detectors of an operator's own, in files.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::mask::{CUSTOM_FILE_MAX_BYTES, Custom};

/// Names and texts of the files (`*.yaml`), in the order of their names; none if there is no folder.
pub fn files(folder: &Path) -> Result<Vec<(String, String)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", folder.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| file(path)).collect()
}

/// Name and text of one file. Of a file that is too long only so much is read that it is told.
pub fn file(path: &Path) -> Result<(String, String)> {
    let mut text = String::new();
    let most = CUSTOM_FILE_MAX_BYTES as u64 + 1;
    let read = fs::File::open(path).and_then(|file| file.take(most).read_to_string(&mut text));
    read.with_context(|| format!("reading {}", path.display()))?;
    Ok((path.display().to_string(), text))
}

/// Reads and tests the detectors of a file, or of the files of a folder.
pub fn load(paths: &[PathBuf]) -> miette::Result<Custom> {
    let mut all = Vec::new();
    for path in paths {
        let read = if path.is_dir() { files(path) } else { file(path).map(|file| vec![file]) };
        all.extend(read.map_err(|error| miette::miette!("{error:#}"))?);
    }
    Ok(Custom::load(&all)?)
}

/// Puts the service's detectors into force, for a command. A missing folder is an empty one.
pub fn install(folder: &Path) -> miette::Result<()> {
    let files = files(folder).map_err(|error| miette::miette!("{error:#}"))?;
    if !Custom::load(&files)?.install() {
        return Err(miette::miette!("detectors were installed twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_in_the_order_of_their_names() {
        let dir = tempfile::tempdir().unwrap();
        assert!(files(&dir.path().join("none")).unwrap().is_empty());
        for (name, text) in [("b.yaml", "b"), ("a.yaml", "a"), ("c.txt", "c")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let texts: Vec<_> = files(dir.path()).unwrap().into_iter().map(|(_, text)| text).collect();
        assert_eq!(texts, ["a", "b"]);
    }
}
