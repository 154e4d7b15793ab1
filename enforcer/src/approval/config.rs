//! Who decides: the section `[approvals]` of the configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::forge::config::{ForgeConfig, MAX_FORGES};
use super::people::{Account, People, PersonId};
use super::webhook::config::{MAX_WEBHOOKS, WebhookConfig};
use crate::policy::{Fact, Group};
use crate::workload::identity::{Assurance, Claims, Field, Identity, IdentityConfig, IssuerConfig, Profile};

/// The most people.
pub const MAX_PEOPLE: usize = 10_000;

/// Whose answers count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ApprovalsConfig {
    /// Where questions and answers are kept.
    pub dir: PathBuf,
    /// Seconds by which an issuer's clock may be wrong.
    pub leeway_s: u64,
    /// Whether an issuer on this host may be asked by plain HTTP.
    pub http_on_loopback: bool,
    /// Where those log in who decide.
    pub issuer: Vec<IssuerConfig>,
    pub person: Vec<Person>,
    /// Where it is told what waits, and how it ended.
    pub webhook: Vec<WebhookConfig>,
    /// Who is asked for the authors of a job's commit, who do not decide about it.
    pub forge: Vec<ForgeConfig>,
}

impl Default for ApprovalsConfig {
    fn default() -> Self {
        let IdentityConfig { leeway_s, http_on_loopback, .. } = IdentityConfig::default();
        Self {
            dir: "/var/lib/enforcer/approvals".into(),
            leeway_s,
            http_on_loopback,
            issuer: Vec::new(),
            person: Vec::new(),
            webhook: Vec::new(),
            forge: Vec::new(),
        }
    }
}

/// One person, and which logins are theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Person {
    pub name: String,
    /// At forges, as `login@host`.
    #[serde(default)]
    pub logins: Vec<String>,
    /// At issuers: the name of each, and the `sub` of this person there.
    #[serde(default)]
    pub subjects: BTreeMap<String, String>,
    /// Those that the person is expected to be in, so that it is known whether anybody can
    /// decide. What counts is what their token says when they do.
    #[serde(default)]
    pub groups: Vec<String>,
}

impl ApprovalsConfig {
    /// What is wrong with it, for whoever wrote it. `jobs` are the issuers of jobs' tokens.
    pub fn check(&self, jobs: &IdentityConfig) -> Result<(), String> {
        self.issuers().check().map_err(|why| why.replace("[identity]", "[approvals]"))?;
        if self.issuer.is_empty() {
            return Err("[approvals] has no issuer: nobody could log in to decide".to_owned());
        }
        for issuer in &self.issuer {
            let same = |job: &&IssuerConfig| job.issuer == issuer.issuer && job.audience == issuer.audience;
            if let Some(job) = jobs.issuer.iter().find(same) {
                return Err(format!(
                    "the issuer `{}` of [approvals] has the audience of `{}` in [identity]: a job's token would decide",
                    issuer.name, job.name
                ));
            }
        }
        if self.webhook.len() > MAX_WEBHOOKS {
            return Err(format!("there are more than {MAX_WEBHOOKS} webhooks in [approvals]"));
        }
        let mut names = BTreeSet::new();
        for webhook in &self.webhook {
            webhook.check()?;
            if !names.insert(&webhook.name) {
                return Err(format!("another webhook of [approvals] is called `{}` too", webhook.name));
            }
        }
        if self.forge.len() > MAX_FORGES {
            return Err(format!("there are more than {MAX_FORGES} forges in [approvals]"));
        }
        let mut issuers = BTreeSet::new();
        for forge in &self.forge {
            forge.check(jobs, self.http_on_loopback)?;
            if !issuers.insert(&forge.issuer) {
                return Err(format!("another forge of [approvals] is of the issuer `{}` too", forge.issuer));
            }
        }
        self.people().map(drop)
    }

    /// How tokens of those who decide are verified.
    pub fn issuers(&self) -> IdentityConfig {
        IdentityConfig {
            leeway_s: self.leeway_s,
            http_on_loopback: self.http_on_loopback,
            issuer: self.issuer.clone(),
            ..IdentityConfig::default()
        }
    }

    /// All people with what is known of them before anybody has logged in.
    pub fn people(&self) -> Result<People, String> {
        if self.person.len() > MAX_PEOPLE {
            return Err(format!("there are more than {MAX_PEOPLE} people in [approvals]"));
        }
        let (mut people, mut names) = (People::default(), BTreeSet::new());
        for person in &self.person {
            let wrong = |why: String| format!("the person `{}` of [approvals]: {why}", person.name);
            if person.name.is_empty() || !names.insert(&person.name) {
                return Err(wrong("a name is no one's or somebody else's".to_owned()));
            }
            let id = PersonId::new(&person.name);
            for login in &person.logins {
                let parts =
                    login.rsplit_once('@').filter(|(login, host)| !login.is_empty() && !host.is_empty());
                let (login, host) =
                    parts.ok_or_else(|| wrong(format!("`{login}` is no login@host of a forge")))?;
                people.map(Account::forge(host, login), id.clone()).map_err(|two| wrong(two.to_string()))?;
            }
            for (issuer, subject) in &person.subjects {
                let issuer = self.issuer.iter().find(|it| it.name == *issuer);
                let issuer =
                    issuer.ok_or_else(|| wrong("a subject is of no issuer that is named".to_owned()))?;
                let account = Account::subject(&issuer.issuer, subject);
                people.map(account.clone(), id.clone()).map_err(|two| wrong(two.to_string()))?;
                people.set_groups(account, person.groups.iter().map(|group| Group::new(group)));
            }
        }
        Ok(people)
    }
}

/// The login of somebody who decides, and the groups that it has: what its issuer says, and
/// the roles that those give.
pub fn decider(identity: &Identity) -> (Account, Vec<Group>) {
    let claims = identity.claims();
    let groups = claims.groups.iter().chain(&claims.roles).map(|group| Group::new(group)).collect();
    (Account::subject(&claims.issuer, &claims.subject), groups)
}

/// The login of who started a job, if a token says so that was verified.
pub fn actor(identity: &Identity) -> Option<Account> {
    let claims = verified(identity)?;
    Some(Account::forge(&forge_of(claims)?, claims.get(Field::Actor)?))
}

/// Where a job's run can be looked at, if that is known of its provider.
pub fn run_link(identity: &Identity) -> Option<String> {
    let claims = verified(identity)?;
    let (forge, repository) = (forge_of(claims)?, claims.get(Field::Repository)?);
    let run = claims.get(Field::RunId)?;
    match claims.provider {
        Profile::Github => Some(format!("https://{forge}/{repository}/actions/runs/{run}")),
        Profile::Gitlab => Some(format!("https://{forge}/{repository}/-/pipelines/{run}")),
        _ => None,
    }
}

/// What a stage of a requirement depends on. Of a job that only says so it is not known.
pub fn stage_fact(identity: Option<&Identity>, field: Field) -> Fact<std::sync::Arc<str>> {
    match identity.and_then(verified).map(|claims| claims.get(field)) {
        None => Fact::Unknown,
        Some(None) => Fact::Absent,
        Some(Some(text)) => Fact::Known(text.into()),
    }
}

/// What was verified of a job: not what it says of itself.
pub(super) fn verified(identity: &Identity) -> Option<&Claims> {
    (identity.assurance() >= Assurance::Api).then(|| identity.claims())
}

/// The host of the forge whose logins a provider's actors have.
pub(super) fn forge_of(claims: &Claims) -> Option<String> {
    let issuer: Uri = claims.issuer.parse().ok()?;
    let host = issuer.host()?;
    if claims.provider != Profile::Github {
        return Some(host.to_owned());
    }
    // https://docs.github.com/en/actions/reference/security/oidc
    Some(match host.strip_prefix("token.actions.") {
        Some("githubusercontent.com") => "github.com".to_owned(),
        Some(tenant) => tenant.to_owned(),
        None => host.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(people: &str) -> Result<People, String> {
        let text = format!(
            r#"{{"issuer": [{{"name": "idp", "issuer": "https://idp.test", "audience": "us"}}], "person": {people}}}"#
        );
        let config: ApprovalsConfig = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        config.check(&IdentityConfig::default())?;
        config.people()
    }

    #[test]
    fn people_have_logins_at_forges_and_issuers() {
        let people = config(
            r#"[{"name": "ann", "logins": ["Ann@github.com"], "subjects": {"idp": "a1"}, "groups": ["ops"]}]"#,
        )
        .unwrap();
        let (forge, subject) =
            (Account::forge("github.com", "ann"), Account::subject("https://idp.test", "a1"));
        assert!(people.person(&forge).is_some() && people.person(&forge) == people.person(&subject));
        assert_eq!(people.groups(&subject).collect::<Vec<_>>(), [&Group::new("ops")]);
        assert_eq!(people.groups(&forge).count(), 0);
        for wrong in [
            r#"[{"name": ""}]"#,
            r#"[{"name": "a"}, {"name": "a"}]"#,
            r#"[{"name": "a", "logins": ["a"]}]"#,
            r#"[{"name": "a", "logins": ["@h"]}]"#,
            r#"[{"name": "a", "subjects": {"other": "a"}}]"#,
            r#"[{"name": "a", "logins": ["x@h"]}, {"name": "b", "logins": ["X@H"]}]"#,
            r#"[{"name": "a", "login": []}]"#,
        ] {
            config(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_token_of_a_job_never_decides_and_somebody_has_to() {
        let none = ApprovalsConfig::default().check(&IdentityConfig::default()).unwrap_err();
        assert!(none.contains("no issuer"), "{none}");
        let issuer = |audience: &str| {
            let text = format!(r#"{{"name": "x", "issuer": "https://i.test", "audience": "{audience}"}}"#);
            serde_json::from_str::<IssuerConfig>(&text).unwrap()
        };
        let approvals = ApprovalsConfig { issuer: vec![issuer("us")], ..ApprovalsConfig::default() };
        let jobs = |audience| IdentityConfig { issuer: vec![issuer(audience)], ..IdentityConfig::default() };
        approvals.check(&jobs("jobs")).unwrap();
        assert!(approvals.check(&jobs("us")).unwrap_err().contains("job's token would decide"));
    }

    #[test]
    fn actors_are_of_the_forge_that_says_so() {
        let host = |provider, issuer: &str| {
            forge_of(&Claims { provider, issuer: issuer.to_owned(), ..Claims::default() })
        };
        for (provider, issuer, want) in [
            (Profile::Github, "https://token.actions.githubusercontent.com", "github.com"),
            (Profile::Github, "https://token.actions.githubusercontent.com/acme", "github.com"),
            (Profile::Github, "https://token.actions.acme.ghe.com", "acme.ghe.com"),
            (Profile::Github, "https://ghes.test/_services/token", "ghes.test"),
            (Profile::Gitlab, "https://gitlab.com", "gitlab.com"),
            (Profile::Generic, "https://token.actions.x.test:8443/a", "token.actions.x.test"),
        ] {
            assert_eq!(host(provider, issuer).as_deref(), Some(want), "{issuer}");
        }
        let claims = Claims {
            issuer: "https://gitlab.com".to_owned(),
            texts: [(Field::Actor, "ann".to_owned())].into(),
            ..Claims::default()
        };
        // What a job says of itself names nobody.
        assert_eq!(actor(&Identity::attested(claims).unwrap()), None);
    }
}
