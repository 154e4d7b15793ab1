//! What of webhooks and forges stands in files, which root alone may read: the proxy is given it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::approval::config::ApprovalsConfig;
use crate::approval::forge::config::{ForgeConfig, MAX_TOKEN};
use crate::approval::webhook::config::{MAX_URL, SECRET, WebhookConfig, address};
use crate::secret::SecretText;
use crate::workload::wire::{ForgeToken, WebhookSecrets};

use super::config::Config;

/// In base64, with `whsec_` before it.
const MAX_SECRET: usize = 2 * *SECRET.end();

/// Of each webhook, in their order. One that cannot be used keeps nobody from anything else.
pub(super) fn secrets(approvals: Option<&ApprovalsConfig>) -> Vec<Result<WebhookSecrets, String>> {
    let webhooks = approvals.into_iter().flat_map(|approvals| &approvals.webhook);
    webhooks.map(|webhook| of(webhook).map_err(|error| format!("{error:#}"))).collect()
}

/// Of each forge, in their order. Where one is not known nobody is asked about its jobs.
pub(super) fn tokens(approvals: Option<&ApprovalsConfig>) -> Vec<Result<ForgeToken, String>> {
    let forges = approvals.into_iter().flat_map(|approvals| &approvals.forge);
    forges.map(|forge| token(forge).map_err(|error| format!("{error:#}"))).collect()
}

fn token(forge: &ForgeConfig) -> Result<ForgeToken> {
    let Some(path) = &forge.token_file else {
        return Ok(ForgeToken { token: SecretText::new(String::new()) });
    };
    let token = private(path, MAX_TOKEN)?;
    ensure!(!token.expose().is_empty(), "{} is empty", path.display());
    Ok(ForgeToken { token })
}

fn of(webhook: &WebhookConfig) -> Result<WebhookSecrets> {
    let url = match (&webhook.url_file, &webhook.url) {
        (Some(path), _) => {
            let url = private(path, MAX_URL)?;
            let fine = address(url.expose());
            fine.map_err(|why| anyhow::anyhow!("{} {why}", path.display()))?;
            url
        }
        (None, url) => SecretText::new(url.clone().context("it has no URL")?),
    };
    let secret = match &webhook.secret_file {
        Some(path) => private(path, MAX_SECRET)?,
        None => SecretText::new(String::new()),
    };
    ensure!(webhook.secret_file.is_none() || !secret.expose().is_empty(), "its secret is empty");
    Ok(WebhookSecrets { url, secret })
}

/// A file that nobody else can read or change.
fn private(path: &Path, longest: usize) -> Result<SecretText> {
    let shown = path.display();
    let mut open = File::options();
    // Something that waits for a writer would keep the service from starting.
    let opened = open.read(true).custom_flags(libc::O_CLOEXEC | libc::O_NONBLOCK).open(path);
    let mut file = opened.with_context(|| format!("reading {shown}"))?;
    let meta = file.metadata()?;
    let owner = rustix::process::geteuid().as_raw();
    ensure!(meta.is_file() && meta.uid() == owner, "{shown} is no file of root's own: chown root {shown}");
    ensure!(meta.mode() & 0o077 == 0, "others can read {shown} or change it: chmod 600 {shown}");
    let mut text = String::new();
    let read = file.by_ref().take(longest as u64 + 2).read_to_string(&mut text);
    let text = SecretText::new(text);
    read.with_context(|| format!("reading {shown}"))?;
    let trimmed = text.expose().trim();
    ensure!(trimmed.len() <= longest, "{shown} is longer than {longest} bytes");
    Ok(SecretText::new(trimmed.to_owned()))
}

/// What people write into their browser.
pub(super) fn site(config: &Config) -> Option<String> {
    let web = config.web.as_ref()?;
    web.check(config.approvals.as_ref()).ok().map(|site| site.origin)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn what_others_can_read_is_no_secret() {
        for mode in [0o600, 0o400, 0o700] {
            assert_eq!(private(file(" a b\n", mode).path(), 3).unwrap().expose(), "a b");
        }
        for mode in [0o640, 0o604, 0o620, 0o601, 0o666] {
            let why = private(file("hunter2", mode).path(), 10).unwrap_err().to_string();
            assert!(why.contains("chmod 600") && !why.contains("hunter2"), "{why}");
        }
        assert!(private(file("abcd", 0o600).path(), 3).unwrap_err().to_string().contains("longer"));
        assert!(private(Path::new("/dev/null"), 3).unwrap_err().to_string().contains("no file"));
        private(Path::new("/nonexistent"), 3).unwrap_err();
        let dir = tempfile::tempdir().unwrap();
        assert!(private(dir.path(), 3).unwrap_err().to_string().contains("no file"));
        let pipe = dir.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(private(&pipe, 3).unwrap_err().to_string().contains("no file"));
    }

    #[test]
    fn one_that_cannot_be_used_says_why_and_no_other_suffers() {
        let (url, secret) = (file("https://h.test/hunter2\n", 0o600), file(&"x".repeat(24), 0o600));
        let bad = file("http://h.test/hunter2", 0o600);
        let text = |url: &Path| {
            format!(
                r#"{{"name": "a", "url_file": "{}", "secret_file": "{}"}}"#,
                url.display(),
                secret.path().display()
            )
        };
        let text = format!(r#"{{"webhook": [{}, {}]}}"#, text(url.path()), text(bad.path()));
        let config: ApprovalsConfig = serde_json::from_str(&text).unwrap();
        let all = secrets(Some(&config));
        let first = all[0].as_ref().unwrap();
        assert_eq!(
            (first.url.expose().as_str(), first.secret.expose().len()),
            ("https://h.test/hunter2", 24)
        );
        let why = all[1].as_ref().unwrap_err();
        assert!(why.contains("not https") && !why.contains("hunter2"), "{why}");
        assert!(secrets(None).is_empty());
    }

    #[test]
    fn a_token_of_a_forge_is_read_as_a_secret_or_the_reason_is_told() {
        let (good, open, empty) = (file("hunter2\n", 0o600), file("hunter2", 0o644), file("\n", 0o600));
        let forge = |more: &str| format!(r#"{{"issuer": "ci", "api": "https://h.test"{more}}}"#);
        let of = |file: &tempfile::NamedTempFile| {
            forge(&format!(r#", "token_file": "{}""#, file.path().display()))
        };
        let text = [forge(""), of(&good), of(&open), of(&empty)].join(", ");
        let config: ApprovalsConfig = serde_json::from_str(&format!(r#"{{"forge": [{text}]}}"#)).unwrap();
        let all = tokens(Some(&config));
        let known = |at: usize| all[at].as_ref().unwrap().token.expose().as_str();
        assert_eq!((known(0), known(1)), ("", "hunter2"));
        assert!(all[2].as_ref().unwrap_err().contains("chmod 600"));
        assert!(all[3].as_ref().unwrap_err().contains("is empty"));
    }
}
