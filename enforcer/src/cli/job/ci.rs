//! Where each CI system has a job's token, and what it says of the job beside it.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::{AUTHORIZATION, HeaderValue};
use miette::{IntoDiagnostic, WrapErr, miette};
use serde_json::Value;

use crate::app::config::Config;
use crate::outgoing::{Client, Limits};
use crate::secret::SecretText;
use crate::workload::identity::{Claims, Field, Profile};

/// The variable that a GitLab job has its token in, if its `id_tokens` say so.
const GITLAB_TOKEN: &str = "ENFORCER_ID_TOKEN";
/// The one that each has, for GitLab alone, and where that is.
const GITLAB_JOB_TOKEN: &str = "CI_JOB_TOKEN";
const GITLAB_SERVER: &str = "CI_SERVER_URL";
/// Of an answer with a token.
const MAX_ANSWER: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// A CI system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Ci {
    /// The one whose variables are there
    Auto,
    Github,
    Gitlab,
    Buildkite,
    Forgejo,
    Azure,
}

/// What there is of a job's identity.
#[derive(Debug, Default)]
pub struct Found {
    pub token: Option<SecretText>,
    /// The issuer whose API says whose that token is, if it is not for us.
    pub api: Option<String>,
    pub claims: Option<Claims>,
    /// Why there is no token, and what to do about it.
    pub hint: Option<&'static str>,
}

/// A variable that is set and not empty.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Ci {
    pub fn find(self, config: &Config, audience: Option<&str>) -> miette::Result<Found> {
        let Some(profile) = self.profile(variable) else {
            return Err(miette!(
                "no CI system is seen here: name one by --ci, or give a token by --token-env"
            ));
        };
        let audience = || {
            let issuers = &config.identity.issuer;
            let configured = issuers.iter().find(|it| it.profile == profile).map(|it| it.audience.clone());
            audience.map(str::to_owned).or(configured).ok_or_else(|| {
                let name = profile.as_str();
                miette!(
                    "it is not known for whom the token is to be: --audience, or an issuer of profile {name}"
                )
            })
        };
        let token = match profile {
            Profile::Gitlab => variable(GITLAB_TOKEN).map(SecretText::new),
            Profile::Buildkite => Some(of_buildkite(&audience()?)?),
            Profile::Azure => match (variable("SYSTEM_OIDCREQUESTURI"), variable("SYSTEM_ACCESSTOKEN")) {
                (Some(url), Some(token)) => {
                    let url = with_query(&url, "api-version", "7.1-preview.1");
                    Some(requested(Request::post(url), &token, "oidcToken")?)
                }
                _ => None,
            },
            _ => match (variable("ACTIONS_ID_TOKEN_REQUEST_URL"), variable("ACTIONS_ID_TOKEN_REQUEST_TOKEN"))
            {
                (Some(url), Some(token)) => {
                    let url = with_query(&url, "audience", &audience()?);
                    Some(requested(Request::get(url), &token, "value")?)
                }
                _ => None,
            },
        };
        let claims = Some(said(profile, variable));
        if token.is_none()
            && let Some((issuer, token)) = of_gitlab_itself(config, profile, variable)
        {
            return Ok(Found { token: Some(token), api: Some(issuer), claims, hint: None });
        }
        let hint = if token.is_some() { None } else { Some(hint(profile)) };
        Ok(Found { token, api: None, claims, hint })
    }

    fn profile(self, variable: impl Fn(&str) -> Option<String>) -> Option<Profile> {
        let set = |name| variable(name).is_some();
        Some(match self {
            Ci::Github => Profile::Github,
            Ci::Gitlab => Profile::Gitlab,
            Ci::Buildkite => Profile::Buildkite,
            Ci::Forgejo => Profile::Forgejo,
            Ci::Azure => Profile::Azure,
            Ci::Auto if set("BUILDKITE") => Profile::Buildkite,
            Ci::Auto if set("GITLAB_CI") => Profile::Gitlab,
            Ci::Auto if set("TF_BUILD") => Profile::Azure,
            // It sets those of GitHub, too.
            Ci::Auto if set("FORGEJO_ACTIONS") => Profile::Forgejo,
            Ci::Auto if set("GITHUB_ACTIONS") || set("ACTIONS_ID_TOKEN_REQUEST_URL") => Profile::Github,
            Ci::Auto => return None,
        })
    }
}

/// A job's token for GitLab, and the issuer that it is of, if the operator has that one's API asked.
fn of_gitlab_itself(
    config: &Config,
    profile: Profile,
    variable: impl Fn(&str) -> Option<String>,
) -> Option<(String, SecretText)> {
    let server = variable(GITLAB_SERVER).filter(|_| profile == Profile::Gitlab)?;
    let token = SecretText::new(variable(GITLAB_JOB_TOKEN)?);
    let slash = |url: &str| url.trim_end_matches('/').to_owned();
    let mut asked = config.identity.issuer.iter().filter(|it| it.job_api.is_some());
    let issuer = asked.find(|it| slash(&it.issuer) == slash(&server))?;
    Some((issuer.issuer.clone(), token))
}

fn hint(profile: Profile) -> &'static str {
    match profile {
        Profile::Github => "the job has no token: it needs `permissions: {id-token: write}`",
        Profile::Forgejo => "the job has no token: its workflow needs `enable-openid-connect: true`",
        Profile::Gitlab => "the job has no token: it needs `id_tokens: {ENFORCER_ID_TOKEN: {aud: ...}}`",
        Profile::Azure => "the job has no token: map SYSTEM_ACCESSTOKEN: $(System.AccessToken) in its `env`",
        Profile::Buildkite | Profile::Generic => "the job has no token",
    }
}

fn with_query(url: &str, name: &str, value: &str) -> String {
    let mark = if url.contains('?') { '&' } else { '?' };
    let mut out = format!("{url}{mark}{name}=");
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Asks the runner's own service, as it told the job to.
fn requested(request: http::request::Builder, bearer: &str, field: &str) -> miette::Result<SecretText> {
    let mut bearer = HeaderValue::from_str(&format!("Bearer {bearer}")).into_diagnostic()?;
    bearer.set_sensitive(true);
    let request =
        request.header(AUTHORIZATION, bearer).header("accept", "application/json").body(Bytes::new());
    let request = request.into_diagnostic().wrap_err("the address that the runner gave is no URL")?;
    let client = Client::new(None, BTreeMap::new()).into_diagnostic()?.with_plain_on_loopback(true);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().into_diagnostic()?;
    let limits = Limits { bytes: MAX_ANSWER, patience: PATIENCE };
    let answer = runtime.block_on(Box::pin(client.send(request, limits)));
    let answer = answer.into_diagnostic().wrap_err("requesting a token for this job")?;
    let answer: Option<Value> = serde_json::from_slice(&answer.body).ok();
    let token = answer.as_ref().and_then(|answer| answer[field].as_str());
    token
        .map(|token| SecretText::new(token.to_owned()))
        .ok_or_else(|| miette!("the runner's answer has no token"))
}

fn of_buildkite(audience: &str) -> miette::Result<SecretText> {
    let mut command = Command::new("buildkite-agent");
    command
        .args(["oidc", "request-token", "--audience", audience])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    let out = command.output().into_diagnostic().wrap_err("running buildkite-agent")?;
    if !out.status.success() {
        return Err(miette!("buildkite-agent gave no token: {}", out.status));
    }
    let token = String::from_utf8(out.stdout).into_diagnostic()?;
    Ok(SecretText::new(token.trim().to_owned()))
}

/// What the job's variables say, which is what the job says.
fn said(profile: Profile, variable: impl Fn(&str) -> Option<String>) -> Claims {
    use Field as F;
    let names: &[(F, &str)] = match profile {
        Profile::Github | Profile::Forgejo => &[
            (F::Repository, "GITHUB_REPOSITORY"),
            (F::RepositoryId, "GITHUB_REPOSITORY_ID"),
            (F::Ref, "GITHUB_REF"),
            (F::Sha, "GITHUB_SHA"),
            (F::Workflow, "GITHUB_WORKFLOW_REF"),
            (F::Event, "GITHUB_EVENT_NAME"),
            (F::RunId, "GITHUB_RUN_ID"),
            (F::RunAttempt, "GITHUB_RUN_ATTEMPT"),
            (F::JobId, "GITHUB_JOB"),
            (F::Actor, "GITHUB_ACTOR"),
        ],
        Profile::Gitlab => &[
            (F::Repository, "CI_PROJECT_PATH"),
            (F::RepositoryId, "CI_PROJECT_ID"),
            (F::Ref, "CI_COMMIT_REF_NAME"),
            (F::Sha, "CI_COMMIT_SHA"),
            (F::Environment, "CI_ENVIRONMENT_NAME"),
            (F::Event, "CI_PIPELINE_SOURCE"),
            (F::RunId, "CI_PIPELINE_ID"),
            (F::JobId, "CI_JOB_ID"),
            (F::Actor, "GITLAB_USER_LOGIN"),
        ],
        Profile::Buildkite => &[
            (F::RepositoryId, "BUILDKITE_PIPELINE_ID"),
            (F::Workflow, "BUILDKITE_PIPELINE_SLUG"),
            (F::Sha, "BUILDKITE_COMMIT"),
            (F::Event, "BUILDKITE_SOURCE"),
            (F::RunId, "BUILDKITE_BUILD_NUMBER"),
            (F::JobId, "BUILDKITE_JOB_ID"),
        ],
        Profile::Azure => &[
            (F::Repository, "BUILD_REPOSITORY_URI"),
            (F::RepositoryId, "BUILD_REPOSITORY_ID"),
            (F::Ref, "BUILD_SOURCEBRANCH"),
            (F::Sha, "BUILD_SOURCEVERSION"),
            (F::Event, "BUILD_REASON"),
            (F::RunId, "BUILD_BUILDID"),
            (F::JobId, "SYSTEM_JOBID"),
        ],
        Profile::Generic => &[],
    };
    let mut texts: BTreeMap<F, String> =
        names.iter().filter_map(|(field, name)| Some((*field, variable(name)?))).collect();
    if profile == Profile::Buildkite {
        let both = (variable("BUILDKITE_ORGANIZATION_SLUG"), variable("BUILDKITE_PIPELINE_SLUG"));
        if let (Some(organization), Some(pipeline)) = both {
            texts.insert(F::Repository, format!("{organization}/{pipeline}"));
        }
        if let Some(branch) = variable("BUILDKITE_BRANCH") {
            texts.insert(F::Ref, format!("refs/heads/{branch}"));
        }
    }
    Claims { provider: profile, texts, ..Claims::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set<'a>(names: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| names.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_ci_system_is_known_by_its_variables() {
        for (names, profile) in [
            (&[("GITHUB_ACTIONS", "true")][..], Some(Profile::Github)),
            (&[("GITHUB_ACTIONS", "true"), ("FORGEJO_ACTIONS", "true")], Some(Profile::Forgejo)),
            (&[("GITLAB_CI", "true")], Some(Profile::Gitlab)),
            (&[("BUILDKITE", "true")], Some(Profile::Buildkite)),
            (&[("TF_BUILD", "True")], Some(Profile::Azure)),
            (&[("CI", "true")], None),
        ] {
            assert_eq!(Ci::Auto.profile(set(names)), profile, "{names:?}");
        }
        assert_eq!(Ci::Gitlab.profile(set(&[("BUILDKITE", "true")])), Some(Profile::Gitlab));
    }

    #[test]
    fn what_variables_say_is_said_of_the_job() {
        let names = [
            ("BUILDKITE_ORGANIZATION_SLUG", "acme"),
            ("BUILDKITE_PIPELINE_SLUG", "app"),
            ("BUILDKITE_BRANCH", "main"),
            ("BUILDKITE_JOB_ID", "7"),
        ];
        let claims = said(Profile::Buildkite, set(&names));
        let of = |field| claims.get(field).unwrap_or_default();
        assert_eq!(
            (of(Field::Repository), of(Field::Ref), of(Field::JobId)),
            ("acme/app", "refs/heads/main", "7")
        );
        let claims = said(Profile::Github, set(&[("GITHUB_REPOSITORY", "a/b")]));
        assert_eq!((claims.get(Field::Repository), claims.get(Field::Actor)), (Some("a/b"), None));
    }

    #[test]
    fn a_query_is_added_and_cannot_break_out() {
        assert_eq!(with_query("https://a.test/x", "audience", "us"), "https://a.test/x?audience=us");
        let url = with_query("https://a.test/x?v=1", "audience", "https://e.test/?a=b&c#d é");
        assert_eq!(url, "https://a.test/x?v=1&audience=https%3A%2F%2Fe.test%2F%3Fa%3Db%26c%23d%20%C3%A9");
    }
}
