//! Where approvals are told of: `[[approvals.webhook]]` of the configuration.

use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::super::record::Standing;

/// The most webhooks.
pub const MAX_WEBHOOKS: usize = 8;
/// The longest URL, in bytes.
pub const MAX_URL: usize = 2048;
/// The shortest and the longest secret, in bytes: half of what SHA-256 takes in would be guessed
/// sooner, and more than it takes in is hashed first.
pub const SECRET: std::ops::RangeInclusive<usize> = 24..=256;

/// One place where approvals are told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    pub name: String,
    #[serde(default)]
    pub format: Format,
    /// Where it goes. Whoever knows the address of a chat can write there: then it is in a file.
    pub url: Option<String>,
    pub url_file: Option<PathBuf>,
    /// What it is signed with.
    pub secret_file: Option<PathBuf>,
    /// What is told.
    #[serde(default = "Kind::all")]
    pub events: Vec<Kind>,
}

/// What is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON for programs, signed.
    #[default]
    Generic,
    /// A message for an incoming webhook of Slack.
    Slack,
    /// A card for a workflow of Teams.
    Teams,
}

impl Format {
    pub fn as_str(self) -> &'static str {
        match self {
            Format::Generic => "generic",
            Format::Slack => "slack",
            Format::Teams => "teams",
        }
    }
}

/// What becomes of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Pending,
    Approved,
    Rejected,
    Expired,
    Cancelled,
}

impl Kind {
    fn all() -> Vec<Self> {
        vec![Kind::Pending, Kind::Approved, Kind::Rejected, Kind::Expired, Kind::Cancelled]
    }

    pub fn of(standing: &Standing) -> Self {
        match standing {
            Standing::Pending => Kind::Pending,
            Standing::Approved(_) => Kind::Approved,
            Standing::Rejected { .. } => Kind::Rejected,
            Standing::Expired => Kind::Expired,
            Standing::Cancelled(_) => Kind::Cancelled,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Pending => "pending",
            Kind::Approved => "approved",
            Kind::Rejected => "rejected",
            Kind::Expired => "expired",
            Kind::Cancelled => "cancelled",
        }
    }
}

impl WebhookConfig {
    /// What is wrong with it, as far as that is seen without the files.
    pub fn check(&self) -> Result<(), String> {
        let wrong = |why: &str| Err(format!("the webhook `{}` of [approvals] {why}", self.name));
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if !(1..=64).contains(&self.name.len()) || !self.name.bytes().all(fine) {
            return wrong("needs a name of at most 64 letters, digits, `-`, `_` and `.`");
        }
        match (&self.url, &self.url_file) {
            (Some(url), None) => {
                if let Err(why) = address(url) {
                    return wrong(why);
                }
            }
            (None, Some(_)) => {}
            _ => return wrong("needs one of `url` and `url_file`"),
        }
        if self.format != Format::Generic && self.url.is_some() {
            return wrong(
                "needs a `url_file`: whoever knows the URL of a chat can write there, and the configuration can be read",
            );
        }
        if self.format == Format::Generic && self.secret_file.is_none() {
            return wrong("needs a `secret_file`: who gets it has to know that it is from here");
        }
        if self.events.is_empty() {
            return wrong("has no `events`: nothing would be told");
        }
        Ok(())
    }
}

/// Whether something can be sent there. What is said about it does not repeat it.
pub fn address(url: &str) -> Result<(), &'static str> {
    if url.len() > MAX_URL {
        return Err("has a URL of more than 2048 bytes");
    }
    let uri: Uri = url.parse().map_err(|_| "has an address that is no URL")?;
    let Some(authority) = uri.authority() else { return Err("has an address without a host") };
    if authority.as_str().contains('@') {
        return Err("has a user name or a password in its URL: sign with a `secret_file` instead");
    }
    match uri.scheme_str() {
        Some("https") => Ok(()),
        Some("http") if crate::outgoing::is_loopback(authority.host()) => Ok(()),
        _ => Err("has a URL that is not https; plain http is for this host alone"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), String> {
        let config: WebhookConfig = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check()
    }

    #[test]
    fn it_goes_to_one_place_and_that_is_verified_or_this_host() {
        let with = |url: &str| check(&format!("name = 'a'\nsecret_file = '/s'\nurl = '{url}'\n"));
        for url in ["https://h.test/x?y=1", "http://127.0.0.1:8/", "http://[::1]/", "http://localhost:1/x"] {
            with(url).unwrap();
        }
        let long = |bytes: usize| format!("https://h.test/{}", "x".repeat(bytes - 15));
        with(&long(MAX_URL)).unwrap();
        for (url, says) in [
            ("http://h.test/", "not https"),
            ("http://localhost.h.test/", "not https"),
            ("ftp://h.test/", "not https"),
            ("/x", "without a host"),
            ("", "no URL"),
            ("https://hunter2@h.test/", "a password"),
            ("https://a:hunter2@h.test/", "a password"),
            (&long(MAX_URL + 1), "2048"),
        ] {
            let why = with(url).unwrap_err();
            assert!(why.contains(says) && !why.contains("hunter2"), "{url}: {why}");
        }
    }

    #[test]
    fn what_could_not_work_is_said() {
        for (text, says) in [
            ("name = 'a'\nurl = 'https://h.test/'\n", "secret_file"),
            ("name = 'a'\nformat = 'slack'\n", "one of"),
            ("name = 'a'\nformat = 'slack'\nurl = 'https://h.test/'\nurl_file = '/x'\n", "one of"),
            ("name = 'a b'\nformat = 'slack'\nurl = 'https://h.test/'\n", "letters"),
            ("name = ''\nformat = 'slack'\nurl = 'https://h.test/'\n", "letters"),
            ("name = 'a'\nformat = 'slack'\nurl = 'https://h.test/'\n", "url_file"),
            ("name = 'a'\nformat = 'teams'\nurl = 'https://h.test/'\n", "url_file"),
            ("name = 'a'\nformat = 'slack'\nurl_file = '/x'\nevents = []\n", "events"),
            ("name = 'a'\nformat = 'irc'\nurl = 'https://h.test/'\n", "irc"),
            ("name = 'a'\nformat = 'slack'\nurl = 'https://h.test/'\nsecret = 'x'\n", "secret"),
        ] {
            let why = check(text).unwrap_err();
            assert!(why.contains(says), "{text}: {why}");
        }
        check("name = 'a'\nurl_file = '/x'\nsecret_file = '/y'\nevents = ['pending']\n").unwrap();
    }
}
