//! Texts of policy files: regular files alone, and no longer than they may be.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::PolicyError;

/// Names and texts of every `*.yaml` of a folder in their order, each of `most` bytes, or of so many
/// as `all` of them may have. None: there are more bytes than that in all.
pub(super) fn read(dir: &Path, most: u64, all: u64) -> Result<Option<Vec<(String, String)>>, PolicyError> {
    let unreadable = |path: &Path| {
        let path = path.to_path_buf();
        move |source| PolicyError::Read { path, source }
    };
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable(dir))? {
        let path = entry.map_err(unreadable(dir))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_policy(&name) {
            paths.push((name, path));
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(PolicyError::Empty { path: dir.to_path_buf() });
    }
    let mut files = Vec::with_capacity(paths.len());
    let mut room = all;
    for (name, path) in paths {
        let Some(text) = text(&path, most.min(room)).map_err(unreadable(&path))? else {
            if room < most {
                return Ok(None);
            }
            let source = io::Error::other(format!("it is longer than {most} bytes"));
            return Err(PolicyError::Read { path, source });
        };
        room -= text.len() as u64;
        files.push((name, text));
    }
    Ok(Some(files))
}

/// Whether a file of this name is one of a policy: neither hidden nor a test.
pub(super) fn is_policy(name: &str) -> bool {
    name.ends_with(".yaml") && !name.ends_with(".test.yaml") && !name.starts_with('.')
}

/// None: it is longer. What a link leads to may be a device without an end, or a pipe that
/// nobody writes to.
fn text(path: &Path, most: u64) -> io::Result<Option<String>> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Ok(None);
    }
    let text = String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Some(text))
}
