//! The section `[web]` of the configuration.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use serde::{Deserialize, Serialize};

use crate::approval::config::ApprovalsConfig;
use crate::workload::identity::IssuerConfig;

use super::logins::Role;

/// The longest that a login lasts, in seconds.
const MAX_SESSION: u64 = 24 * 3600;

/// Where the page is, and who may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WebConfig {
    /// Where it listens, without TLS.
    pub listen: SocketAddr,
    /// What people write into their browser: scheme and host, with a port if it is not the usual.
    pub public_url: String,
    /// The issuer of `[approvals]` at which people log in. Its audience is the page's client id.
    pub issuer: String,
    /// What is asked of the issuer: some give groups by a scope of their own.
    pub scope: String,
    /// A file with the client's secret, if the issuer gave one.
    pub client_secret_file: Option<PathBuf>,
    /// Seconds that a login lasts, and without a look at the page.
    pub session_s: u64,
    pub idle_s: u64,
    /// Groups that give roles; each role may what those before it may.
    pub viewers: Vec<String>,
    pub approvers: Vec<String>,
    pub admins: Vec<String>,
}

impl Default for WebConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15080),
            public_url: "http://localhost:15080".to_owned(),
            issuer: String::new(),
            scope: "openid profile".to_owned(),
            client_secret_file: None,
            session_s: 3600,
            idle_s: 1800,
            viewers: Vec::new(),
            approvers: Vec::new(),
            admins: Vec::new(),
        }
    }
}

/// What the public URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// As browsers write it in `Origin`.
    pub origin: String,
    /// As browsers write it in `Host`.
    pub authority: String,
    /// Whether browsers come by TLS.
    pub secure: bool,
}

impl WebConfig {
    /// What is wrong with it, for whoever wrote it.
    pub fn check(&self, approvals: Option<&ApprovalsConfig>) -> Result<Site, String> {
        let wrong = |why: &str| format!("[web] {why}");
        let approvals = approvals.ok_or_else(|| wrong("needs [approvals]: people log in at its issuers"))?;
        self.login(approvals)?;
        let site = self.site()?;
        if !site.secure && !self.listen.ip().is_loopback() {
            return Err(wrong("listens beyond this host: `public_url` has to be https, with TLS before it"));
        }
        if !self.scope.split(' ').any(|scope| scope == "openid") {
            return Err(wrong("scope has no `openid`: the issuer would give no ID token"));
        }
        if self.listen.port() == 0 {
            return Err(wrong("listen needs a port"));
        }
        if !(1..=MAX_SESSION).contains(&self.session_s) || !(1..=self.session_s).contains(&self.idle_s) {
            return Err(format!("[web] session_s is 1 to {MAX_SESSION}, and idle_s is 1 to session_s"));
        }
        if [&self.viewers, &self.approvers, &self.admins].into_iter().all(Vec::is_empty) {
            return Err(wrong("has no groups: give `viewers`, `approvers` or `admins`, or nobody gets in"));
        }
        Ok(site)
    }

    /// The issuer at which people log in.
    pub fn login<'a>(&self, approvals: &'a ApprovalsConfig) -> Result<&'a IssuerConfig, String> {
        let found = approvals.issuer.iter().find(|issuer| issuer.name == self.issuer);
        found.ok_or_else(|| format!("[web] issuer: `{}` is no issuer of [approvals]", self.issuer))
    }

    fn site(&self) -> Result<Site, String> {
        let wrong = |why| format!("[web] public_url: `{}` {why}", self.public_url);
        let uri: Uri = self.public_url.parse().map_err(|_| wrong("is no URL"))?;
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?;
        if uri.query().is_some() || !matches!(uri.path(), "" | "/") || self.public_url.contains(['#', '@']) {
            return Err(wrong("has more than a host and a port"));
        }
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_local(authority.host()) => false,
            Some("http") => return Err(wrong("is plain HTTP, which is for this host alone: write https")),
            _ => return Err(wrong("is neither http nor https")),
        };
        let usual = if secure { 443 } else { 80 };
        let host = authority.host().to_ascii_lowercase();
        let authority = match authority.port_u16() {
            Some(port) if port != usual => format!("{host}:{port}"),
            _ => host,
        };
        let scheme = if secure { "https" } else { "http" };
        Ok(Site { origin: format!("{scheme}://{authority}"), authority, secure })
    }

    /// The most that these groups give.
    pub fn role(&self, groups: &[String]) -> Option<Role> {
        let any = |of: &[String]| of.iter().any(|group| groups.contains(group));
        let roles =
            [(Role::Admin, &self.admins), (Role::Approver, &self.approvers), (Role::Viewer, &self.viewers)];
        roles.into_iter().find(|(_, of)| any(of)).map(|(role, _)| role)
    }

    pub fn session(&self) -> Duration {
        Duration::from_secs(self.session_s)
    }

    pub fn idle(&self) -> Duration {
        Duration::from_secs(self.idle_s)
    }
}

fn is_local(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn approvals() -> ApprovalsConfig {
        let text = r#"{"issuer": [{"name": "idp", "issuer": "https://idp.test", "audience": "page"}]}"#;
        serde_json::from_str(text).unwrap()
    }

    fn with(change: impl FnOnce(&mut WebConfig)) -> Result<Site, String> {
        let mut config =
            WebConfig { issuer: "idp".to_owned(), viewers: vec!["all".to_owned()], ..WebConfig::default() };
        change(&mut config);
        config.check(Some(&approvals()))
    }

    #[test]
    fn the_public_url_is_an_origin() {
        let site = |url: &str| with(|it| it.public_url = url.to_owned());
        assert_eq!(site("http://localhost:15080").unwrap().authority, "localhost:15080");
        let secure = site("https://Page.Test:443/").unwrap();
        assert_eq!((secure.origin.as_str(), secure.authority.as_str()), ("https://page.test", "page.test"));
        assert!(secure.secure && !site("http://[::1]:1").unwrap().secure);
        for wrong in [
            "",
            "page.test",
            "ftp://page.test",
            "http://page.test",
            "https://page.test/x",
            "https://page.test/?a",
            "https://u@page.test",
            "https://page.test/#x",
        ] {
            assert!(site(wrong).unwrap_err().contains("public_url"), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_work_does_not_load() {
        with(|_| {}).unwrap();
        let no_approvals = WebConfig::default().check(None).unwrap_err();
        assert!(no_approvals.contains("needs [approvals]"));
        type Change = fn(&mut WebConfig);
        let changes: [(Change, &str); 8] = [
            (|it| it.scope = "profile openid2".to_owned(), "no `openid`"),
            (|it| it.issuer = "other".to_owned(), "no issuer of [approvals]"),
            (|it| it.viewers.clear(), "has no groups"),
            (|it| it.listen = "0.0.0.0:15080".parse().unwrap(), "listens beyond this host"),
            (|it| it.listen = "127.0.0.1:0".parse().unwrap(), "needs a port"),
            (|it| it.session_s = 0, "session_s"),
            (|it| it.session_s = MAX_SESSION + 1, "session_s"),
            (|it| it.idle_s = it.session_s + 1, "idle_s"),
        ];
        for (change, says) in changes {
            let error = with(change).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
        with(|it| it.session_s = MAX_SESSION).unwrap();
        with(|it| {
            it.listen = "0.0.0.0:15080".parse().unwrap();
            it.public_url = "https://page.test".to_owned();
        })
        .unwrap();
    }

    #[test]
    fn the_highest_role_of_the_groups_counts() {
        let config = WebConfig {
            viewers: vec!["all".to_owned()],
            approvers: vec!["ops".to_owned()],
            admins: vec!["root".to_owned()],
            ..WebConfig::default()
        };
        let role =
            |groups: &[&str]| config.role(&groups.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>());
        assert_eq!(role(&[]), None);
        assert_eq!(role(&["al", "ALL"]), None);
        assert_eq!(role(&["all"]), Some(Role::Viewer));
        assert_eq!(role(&["all", "ops"]), Some(Role::Approver));
        assert_eq!(role(&["root", "all"]), Some(Role::Admin));
        assert!(Role::Viewer < Role::Approver && Role::Approver < Role::Admin);
    }
}
