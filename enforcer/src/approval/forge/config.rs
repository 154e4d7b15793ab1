//! Which forges are asked who wrote a commit: `[[approvals.forge]]` of the configuration.

use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::outgoing::is_loopback;
use crate::workload::identity::{IdentityConfig, Profile};

/// The most forges.
pub const MAX_FORGES: usize = 16;
/// The longest token, in bytes.
pub const MAX_TOKEN: usize = 4096;

/// One forge that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForgeConfig {
    /// The name of the issuer in `[identity]` whose jobs it has the commits of.
    pub issuer: String,
    /// Where its API is: `https://api.github.com`, `https://HOST/api/v4`, `https://HOST/api/v1`.
    pub api: String,
    /// With what it is asked; without it no more is known than what everybody can read.
    pub token_file: Option<PathBuf>,
}

impl ForgeConfig {
    /// The issuer's own name and its kind. `plain`: whether a forge on this host may be asked by
    /// plain HTTP.
    pub fn check(&self, jobs: &IdentityConfig, plain: bool) -> Result<(String, Profile), String> {
        let wrong = |why: String| format!("the forge of `{}` in [approvals] {why}", self.issuer);
        let issuer = jobs.issuer.iter().find(|issuer| issuer.name == self.issuer);
        let issuer = issuer.ok_or_else(|| wrong("names no issuer of [identity]".to_owned()))?;
        if !matches!(issuer.profile, Profile::Github | Profile::Gitlab | Profile::Forgejo) {
            let profile = issuer.profile.as_str();
            return Err(wrong(format!(
                "is of the profile `{profile}`, whose commits nobody can be asked about: github, gitlab and \
                 forgejo have an API for it"
            )));
        }
        let uri: Option<Uri> = self.api.parse().ok();
        let fine = uri.is_some_and(|uri| {
            let secure = match uri.scheme_str() {
                Some("https") => true,
                Some("http") => plain && uri.host().is_some_and(is_loopback),
                _ => false,
            };
            secure && uri.query().is_none() && !self.api.contains(['#', '@'])
        });
        if !fine {
            return Err(wrong("needs an `api` that is an https URL without a query".to_owned()));
        }
        Ok((issuer.issuer.clone(), issuer.profile))
    }
}
