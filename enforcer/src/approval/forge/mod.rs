//! Who wrote the commit that a job builds, as the forge's API says: they do not decide about it.
//!
//! The commit is that of the job's verified token. Of a merge the last commit of what was merged
//! counts, too: a token of a pull request names a merge that the forge has made by itself.
//!
//! **Invariant**: where a forge is configured, an author that is not known is an error and never
//! nobody. Who pushes a commit writes its author as they like, so this adds to those who have no
//! say, and nobody has one because of it.

pub mod config;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Request;
use http::header::{ACCEPT, AUTHORIZATION, HeaderName, HeaderValue};
use serde::Deserialize;
use tokio::sync::Semaphore;

use super::config::{forge_of, verified};
use super::people::Account;
use crate::outgoing::{Client, Limits, OutgoingError};
use crate::secret::SecretText;
use crate::workload::identity::{Claims, Field, Identity, Profile};

/// What one answer may take. GitHub's has the changes of a file in it.
const ANSWER: Limits = Limits { bytes: 4 * 1024 * 1024, patience: Duration::from_secs(5) };
/// For all that has to be asked, and for waiting until others were.
const PATIENCE: Duration = Duration::from_secs(10);
/// Questions at the same time.
const AT_ONCE: usize = 4;
/// How long it is known who wrote a commit: whose an address is can change.
const KNOWN: Duration = Duration::from_mins(10);
/// How long it is not asked again after an error.
const FAILED: Duration = Duration::from_secs(5);
/// Commits that are remembered.
const REMEMBERED: usize = 1024;
/// Commits that one may merge.
const MERGED: usize = 4;
/// Bytes of an address or a login.
const NAME: usize = 256;

/// Why the author of a commit is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("who wrote the job's commit is not known: {0}")]
pub struct Unknown(Arc<str>);

impl Unknown {
    fn new(why: impl AsRef<str>) -> Self {
        Self(why.as_ref().into())
    }
}

/// One forge.
#[derive(Debug)]
pub struct Forge {
    /// As it stands in the tokens of its jobs.
    pub issuer: String,
    pub profile: Profile,
    /// Where its API is.
    pub api: String,
    /// With what it is asked, or why that is not known.
    pub token: Result<Option<SecretText>, String>,
}

/// All forges that are asked.
pub struct Forges {
    forges: Vec<Forge>,
    client: Client,
    turns: Semaphore,
    known: Mutex<HashMap<Commit, Known>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Commit {
    issuer: String,
    repository: String,
    sha: String,
}

struct Known {
    until: Instant,
    authors: Result<Vec<Account>, Unknown>,
}

impl Forges {
    pub fn new(forges: Vec<Forge>, client: Client) -> Self {
        Self { forges, client, turns: Semaphore::new(AT_ONCE), known: Mutex::default() }
    }

    /// The authors of a job's commit. None of them where no forge is asked about such jobs, and of
    /// a job of which nothing is verified: nobody knows its actor either.
    pub async fn authors(&self, identity: Option<&Identity>) -> Result<Vec<Account>, Unknown> {
        match identity.and_then(verified) {
            Some(claims) => self.of(claims).await,
            None => Ok(Vec::new()),
        }
    }

    /// The same of what was verified.
    async fn of(&self, claims: &Claims) -> Result<Vec<Account>, Unknown> {
        let Some(forge) = self.forges.iter().find(|forge| forge.issuer == claims.issuer) else {
            return Ok(Vec::new());
        };
        let text = |field, what| {
            claims.get(field).ok_or_else(|| Unknown::new(format!("its token does not say {what}")))
        };
        let commit = Commit {
            issuer: forge.issuer.clone(),
            repository: text(Field::Repository, "which repository it is of")?.to_owned(),
            sha: text(Field::Sha, "which commit it is of")?.to_owned(),
        };
        let host = forge_of(claims).ok_or_else(|| Unknown::new("its issuer has no host"))?;
        let asked = tokio::time::timeout(PATIENCE, self.remembered(forge, &host, &commit));
        asked.await.unwrap_or_else(|_| Err(Unknown::new("the forge has too much to answer")))
    }

    async fn remembered(&self, forge: &Forge, host: &str, commit: &Commit) -> Result<Vec<Account>, Unknown> {
        // Nobody closes it.
        let _turn = self.turns.acquire().await.map_err(|_| Unknown::new("it is the end"))?;
        if let Some(authors) = self.known(commit) {
            return authors;
        }
        let authors = self.ask(forge, host, commit).await;
        if let Err(error) = &authors {
            tracing::warn!(repository = commit.repository, "{error}");
        }
        let until = Instant::now() + if authors.is_ok() { KNOWN } else { FAILED };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(commit.clone(), Known { until, authors: authors.clone() });
        authors
    }

    fn known(&self, commit: &Commit) -> Option<Result<Vec<Account>, Unknown>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(commit).filter(|known| known.until > Instant::now()).map(|known| known.authors.clone())
    }

    async fn ask(&self, forge: &Forge, host: &str, commit: &Commit) -> Result<Vec<Account>, Unknown> {
        let first = self.one(forge, &commit.repository, &commit.sha).await?;
        if first.merged.len() > MERGED {
            return Err(Unknown::new(format!("it merges more than {MERGED} commits")));
        }
        let mut authors = vec![Account::forge(host, &first.author)];
        for sha in &first.merged {
            let merged = self.one(forge, &commit.repository, sha).await?;
            authors.push(Account::forge(host, &merged.author));
        }
        authors.sort();
        authors.dedup();
        Ok(authors)
    }

    async fn one(&self, forge: &Forge, repository: &str, sha: &str) -> Result<Written, Unknown> {
        let request = forge.request(repository, sha)?;
        let answer = self.client.send(request, ANSWER).await.map_err(|error| said(&error))?;
        let written = forge.read(&answer.body).ok_or_else(|| Unknown::new("the answer is no commit"))?;
        if !written.sha.eq_ignore_ascii_case(sha) {
            return Err(Unknown::new("the answer is of another commit"));
        }
        Ok(written)
    }
}

fn said(error: &OutgoingError) -> Unknown {
    let hint = match error {
        OutgoingError::Status { status, .. } if [401, 403, 404].contains(&status.as_u16()) => {
            ": the token of [[approvals.forge]] has to be allowed to read the repository"
        }
        _ => "",
    };
    Unknown::new(format!("{error}{hint}"))
}

/// What a forge says of a commit.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    sha: String,
    /// A login, or the address in the commit if it belongs to no login.
    author: String,
    /// All parents but the first.
    merged: Vec<String>,
}

impl Forge {
    fn request(&self, repository: &str, sha: &str) -> Result<Request<Bytes>, Unknown> {
        let hex = matches!(sha.len(), 40 | 64) && sha.bytes().all(|byte| byte.is_ascii_hexdigit());
        let part = |part: &str| {
            let fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
            !part.is_empty() && part.bytes().all(fine) && part.bytes().any(|byte| byte != b'.')
        };
        if !hex || repository.split('/').count() < 2 || !repository.split('/').all(part) {
            return Err(Unknown::new("its token names no commit of a repository"));
        }
        let api = self.api.trim_end_matches('/');
        let (url, kind) = match self.profile {
            // https://docs.github.com/en/rest/commits/commits#get-a-commit: as few files as can be.
            Profile::Github => {
                (format!("{api}/repos/{repository}/commits/{sha}?per_page=1"), "application/vnd.github+json")
            }
            // https://docs.gitlab.com/api/commits/#get-a-single-commit
            Profile::Gitlab => {
                let id = repository.replace('/', "%2F");
                (format!("{api}/projects/{id}/repository/commits/{sha}?stats=false"), "application/json")
            }
            // `GET /repos/{owner}/{repo}/git/commits/{sha}` of https://codeberg.org/swagger.v1.json
            _ => {
                let without = "stat=false&verification=false&files=false";
                (format!("{api}/repos/{repository}/git/commits/{sha}?{without}"), "application/json")
            }
        };
        let mut request = Request::get(url).header(ACCEPT, kind);
        // Where it stands is not for the job to know.
        let token = self.token.as_ref();
        let token = token.map_err(|_| Unknown::new("the log of the service says why it cannot be asked"))?;
        if let Some(token) = token {
            let (name, value) = match self.profile {
                Profile::Github => (AUTHORIZATION, format!("Bearer {}", token.expose())),
                Profile::Gitlab => (HeaderName::from_static("private-token"), token.expose().clone()),
                _ => (AUTHORIZATION, format!("token {}", token.expose())),
            };
            let value = SecretText::new(value);
            let mut value = HeaderValue::from_str(value.expose())
                .map_err(|_| Unknown::new("the token has letters that no token has"))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        request.body(Bytes::new()).map_err(|_| Unknown::new("the address of the API is no URL"))
    }

    fn read(&self, body: &[u8]) -> Option<Written> {
        let (sha, author, parents) = match self.profile {
            Profile::Gitlab => {
                let commit: OfGitlab = serde_json::from_slice(body).ok()?;
                (commit.id, commit.author_email, commit.parent_ids)
            }
            _ => {
                let commit: OfGithub = serde_json::from_slice(body).ok()?;
                // An author with an address that is nobody's is null, or has no fields.
                let login = commit.author.and_then(|user| user.login).filter(|login| !login.is_empty());
                let author = login.or(commit.commit.author?.email)?;
                (commit.sha, author, commit.parents.into_iter().map(|parent| parent.sha).collect())
            }
        };
        let known = (1..=NAME).contains(&author.len()) && !author.chars().any(char::is_control);
        let merged = parents.into_iter().skip(1).collect();
        known.then_some(Written { sha, author, merged })
    }
}

/// Of GitHub and of Forgejo.
#[derive(Deserialize)]
struct OfGithub {
    sha: String,
    author: Option<User>,
    commit: Git,
    parents: Vec<Parent>,
}

#[derive(Deserialize)]
struct User {
    login: Option<String>,
}

#[derive(Deserialize)]
struct Git {
    author: Option<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    email: Option<String>,
}

#[derive(Deserialize)]
struct Parent {
    sha: String,
}

#[derive(Deserialize)]
struct OfGitlab {
    id: String,
    author_email: String,
    parent_ids: Vec<String>,
}

#[cfg(test)]
mod tests;
