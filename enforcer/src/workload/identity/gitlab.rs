//! What GitLab's API says of a job (`GET /job` with the job's own token), in the words of the tokens
//! that GitLab signs, so that one mapping and one list of demands hold for both.
//!
//! <https://docs.gitlab.com/api/jobs/#get-job-tokens-job>,
//! <https://docs.gitlab.com/ci/secrets/id_token_authentication/#token-payload>

use serde::Deserialize;
use serde_json::{Map, Value};

use super::Refusal;
use super::config::Trusted;

/// A job, by claims as a token has them.
#[derive(Debug)]
pub(super) struct Job {
    pub subject: String,
    pub claims: Map<String, Value>,
    /// What makes it the one that it is.
    pub id: [u8; 32],
}

#[derive(Deserialize)]
struct Answer {
    id: u64,
    #[serde(rename = "ref")]
    reference: String,
    tag: bool,
    web_url: String,
    pipeline: Pipeline,
    user: User,
}

#[derive(Deserialize)]
struct Pipeline {
    id: u64,
    project_id: u64,
    sha: String,
    source: Option<String>,
}

#[derive(Deserialize)]
struct User {
    id: u64,
    username: String,
}

/// Reads the API's answer. An error if something of what makes a job is not there.
pub(super) fn read(issuer: &Trusted, answer: &[u8]) -> Result<Job, Refusal> {
    let wrong = |why: &str| Refusal::Api { issuer: issuer.name.clone(), why: why.to_owned() };
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| wrong("its answer is no job"))?;
    let Answer { id, reference, tag, web_url, pipeline, user } = answer;
    let url = issuer.issuer.trim_end_matches('/');
    let project = web_url
        .strip_prefix(url)
        .and_then(|rest| rest.strip_prefix('/')?.strip_suffix(&format!("/-/jobs/{id}")))
        .filter(|project| !project.is_empty())
        .ok_or_else(|| wrong("the job is of another server than the issuer"))?;
    let kind = if tag { "tag" } else { "branch" };
    // A branch may be called `refs/tags/v1`, and is none.
    let path = match tag {
        false if reference.starts_with("refs/merge-requests/") => reference.clone(),
        false => format!("refs/heads/{reference}"),
        true => format!("refs/tags/{reference}"),
    };
    let namespace = project.rsplit_once('/').map(|(namespace, _)| namespace);
    let claims = [
        ("project_path", Some(project.to_owned())),
        ("namespace_path", namespace.map(str::to_owned)),
        ("project_id", Some(pipeline.project_id.to_string())),
        ("ref", Some(reference.clone())),
        ("ref_type", Some(kind.to_owned())),
        ("ref_path", Some(path)),
        ("sha", Some(pipeline.sha)),
        ("pipeline_id", Some(pipeline.id.to_string())),
        ("pipeline_source", pipeline.source),
        ("job_id", Some(id.to_string())),
        ("user_id", Some(user.id.to_string())),
        ("user_login", Some(user.username)),
    ];
    let claims = claims.into_iter().filter_map(|(name, text)| Some((name.to_owned(), Value::String(text?))));
    Ok(Job {
        subject: format!("project_path:{project}:ref_type:{kind}:ref:{reference}"),
        claims: claims.collect(),
        id: self::id(issuer, &id.to_string()),
    })
}

/// By what a job is known, whichever of its tokens it shows.
pub(super) fn id(issuer: &Trusted, number: &str) -> [u8; 32] {
    let mut hash = blake3::Hasher::new();
    hash.update(issuer.issuer.as_bytes()).update(b"\0job\0").update(number.as_bytes());
    *hash.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{Field, IdentityConfig, IssuerConfig, Profile, mapping};
    use super::*;

    fn trusted(require: &str) -> Trusted {
        let text = format!(
            "name = 'lab'\nissuer = 'https://lab.test/git'\naudience = 'us'\nprofile = 'gitlab'\n\
             job_api = 'https://lab.test/git/api/v4'\n{require}"
        );
        let issuer = toml::from_str(&text).unwrap();
        IdentityConfig { issuer: vec![issuer], ..IdentityConfig::default() }.compile().unwrap().remove(0)
    }

    fn answer() -> Value {
        json!({
            "id": 9, "name": "build", "status": "running", "ref": "main", "tag": false,
            "web_url": "https://lab.test/git/octo/sub/app/-/jobs/9",
            "pipeline": {"id": 6, "project_id": 7, "ref": "main", "sha": "12ab", "source": "push"},
            "user": {"id": 3, "username": "mona", "public_email": null}, "commit": {"id": "12ab"},
        })
    }

    fn read_but(path: &str, value: Value) -> Result<Job, Refusal> {
        let mut answer = answer();
        *answer.pointer_mut(path).unwrap() = value;
        read(&trusted(""), answer.to_string().as_bytes())
    }

    #[test]
    fn a_job_is_mapped_as_its_token_would_be() {
        let issuer = trusted("");
        let job = read(&issuer, answer().to_string().as_bytes()).unwrap();
        assert_eq!(job.subject, "project_path:octo/sub/app:ref_type:branch:ref:main");
        let claims = mapping::map(&issuer, &job.subject, &job.claims).unwrap();
        for (field, text) in [
            (Field::Repository, "octo/sub/app"),
            (Field::RepositoryId, "7"),
            (Field::Ref, "refs/heads/main"),
            (Field::Sha, "12ab"),
            (Field::Event, "push"),
            (Field::RunId, "6"),
            (Field::JobId, "9"),
            (Field::Actor, "mona"),
        ] {
            assert_eq!(claims.get(field), Some(text), "{field:?}");
        }
        assert_eq!((claims.provider, claims.issuer.as_str()), (Profile::Gitlab, "https://lab.test/git"));
        assert!(claims.ref_protected.is_none() && claims.groups.is_empty() && claims.roles.is_empty());
    }

    #[test]
    fn refs_are_whole() {
        let path = |job: Job| job.claims["ref_path"].clone();
        assert_eq!(path(read_but("/tag", true.into()).unwrap()), "refs/tags/main");
        let merge = "refs/merge-requests/1/head";
        assert_eq!(path(read_but("/ref", merge.into()).unwrap()), merge);
        let lie = read_but("/ref", "refs/tags/v1".into()).unwrap();
        assert_eq!(path(lie), "refs/heads/refs/tags/v1");
    }

    #[test]
    fn what_is_missing_or_of_another_server_is_no_job() {
        for (path, value) in [
            ("/id", json!(8)),
            ("/id", json!("9")),
            ("/web_url", json!("https://lab.test/octo/app/-/jobs/9")),
            ("/web_url", json!("https://lab.test.evil/git/octo/app/-/jobs/9")),
            ("/web_url", json!("https://lab.test/git/-/jobs/9")),
            ("/web_url", json!("https://lab.test/git//-/jobs/9")),
            ("/pipeline", json!(null)),
            ("/user/username", json!(null)),
            ("/ref", json!(null)),
        ] {
            assert!(matches!(read_but(path, value.clone()), Err(Refusal::Api { .. })), "{path} {value}");
        }
        let cut = answer().to_string();
        for at in 0..cut.len() {
            assert!(read(&trusted(""), &cut.as_bytes()[..at]).is_err(), "{at}");
        }
    }

    #[test]
    fn two_jobs_are_two_and_demands_hold() {
        let one = read_but("/ref", "a".into()).unwrap().id;
        assert_eq!(one, read_but("/ref", "b".into()).unwrap().id);
        let mut other = answer();
        (other["id"], other["web_url"]) = (10.into(), "https://lab.test/git/octo/sub/app/-/jobs/10".into());
        assert_ne!(one, read(&trusted(""), other.to_string().as_bytes()).unwrap().id);
        for (require, fits) in [
            ("require = {namespace_path = ['octo/sub']}", true),
            ("require = {namespace_path = ['octo']}", false),
            // What only a signed token says.
            ("require = {ref_protected = ['true']}", false),
        ] {
            let issuer = trusted(require);
            let job = read(&issuer, answer().to_string().as_bytes()).unwrap();
            assert_eq!(mapping::map(&issuer, &job.subject, &job.claims).is_ok(), fits, "{require}");
        }
    }

    #[test]
    fn only_gitlab_has_such_an_api_and_over_tls_alone() {
        let check = |text: &str| {
            let issuer: IssuerConfig =
                toml::from_str(&format!("name = 'x'\nissuer = 'https://x.test'\naudience = 'us'\n{text}"))
                    .unwrap();
            IdentityConfig { issuer: vec![issuer], ..IdentityConfig::default() }.check()
        };
        let api = "job_api = 'https://x.test/api/v4'";
        check(&format!("profile = 'gitlab'\n{api}")).unwrap();
        assert!(check(&format!("profile = 'github'\n{api}")).unwrap_err().contains("`job_api`"));
        for wrong in ["http://x.test/api", "https://x.test/api?a=b", "https://u:p@x.test/api", "x"] {
            assert!(check(&format!("profile = 'gitlab'\njob_api = '{wrong}'")).is_err(), "{wrong}");
        }
    }
}
