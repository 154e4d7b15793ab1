//! The key with which surrogates are made, in a file of its own.

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};
use zeroize::Zeroizing;

use crate::mask::SURROGATE_KEY_BYTES;
use crate::secret::SecretText;

/// Reads the key, 64 hexadecimal digits; makes one, readable to root alone, if there is none yet.
pub fn key(path: &Path) -> Result<SecretText> {
    let text = match fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => make(path)?,
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let digits = text.trim();
    if digits.len() != 2 * SURROGATE_KEY_BYTES || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!(
            "{} is no key of surrogates: it has {} hexadecimal digits; make one with `openssl rand -hex {}`",
            path.display(),
            2 * SURROGATE_KEY_BYTES,
            SURROGATE_KEY_BYTES
        );
    }
    Ok(SecretText::new(digits.to_owned()))
}

fn make(path: &Path) -> Result<Zeroizing<String>> {
    let mut key = Zeroizing::new([0; SURROGATE_KEY_BYTES]);
    aws_lc_rs::rand::fill(&mut *key).ok().context("no random numbers")?;
    let text = Zeroizing::new(key.iter().map(|b| format!("{b:02x}")).collect::<String>());
    let written = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        // Whole under its name, or not there at all.
        let beside = path.with_extension("new");
        if let Err(error) = fs::remove_file(&beside)
            && error.kind() != ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.write_all(b"\n")?;
        file.sync_all()?;
        fs::rename(&beside, path)
    };
    written().with_context(|| format!("writing {}", path.display()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_root_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/surrogates.key");
        let made = key(&path).unwrap();
        assert_eq!(made.expose().len(), 2 * SURROGATE_KEY_BYTES);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(key(&path).unwrap().expose(), made.expose());
        assert_ne!(key(&dir.path().join("other")).unwrap().expose(), made.expose());
    }

    #[test]
    fn what_is_no_key_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        for wrong in ["", "abc", &"0".repeat(63), &"0".repeat(65), &"x".repeat(64)] {
            fs::write(&path, wrong).unwrap();
            let error = key(&path).unwrap_err().to_string();
            assert!(error.contains("openssl rand -hex 32"), "{error}");
        }
        fs::write(&path, "0".repeat(64) + "\n").unwrap();
        assert!(key(&path).is_ok());
    }
}
