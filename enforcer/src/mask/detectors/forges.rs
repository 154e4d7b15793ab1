//! Forges, registries of packages, builds and their tools.

use super::{A16, H16, M20, marked, secret, token};
use crate::mask::{check::Check, rule::Detector};

/// The table.
pub(super) static FORGES: &[Detector] = &[
    marked("github-pat", "GITHUB_TOKEN", "gh[pousr]_[A-Za-z0-9]{30,255}")
        .check(Check::Random)
        .yes(&[&["ghp_", M20, A16], &["ghs_", M20, A16]])
        .no(&[&["ghp_", "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"], &["ghp_", M20]]),
    marked("github-fine-grained-pat", "GITHUB_TOKEN", "github_pat_[A-Za-z0-9_]{36,255}")
        .yes(&[&["github_", "pat_", M20, "_", M20]]),
    marked("gitlab-token", "GITLAB_TOKEN", r"gl(?:pat|dt|rt|rtr|ptt|soat|ft|imt|agent|oas|ffct|wt)-[A-Za-z0-9_-]{20,300}(?:\.[A-Za-z0-9_-]{2,20}){0,2}")
        .check(Check::Digit)
        .yes(&[&["glpat", "-", M20], &["glrt", "-", M20], &["glptt", "-", M20, M20]]),
    marked("gitlab-job-token", "GITLAB_TOKEN", "glcbt-[A-Za-z0-9]{1,5}_[A-Za-z0-9_-]{20}")
        .yes(&[&["glcbt-1a_", M20]]),
    token("gitlab-runner-registration", "GITLAB_TOKEN", "GR1348941[A-Za-z0-9_-]{20}")
        .check(Check::Entropy(3.0))
        .yes(&[&["GR13", "48941", M20]]),
    secret("gitlab-session", "GITLAB_SESSION", "_gitlab_session=(?<secret>[0-9a-z]{32})")
        .yes(&[&["_gitlab_session=", H16, H16]]),
    token("bitbucket-app-password", "BITBUCKET_TOKEN", "ATBB[A-Za-z0-9_=-]{28,36}")
        .check(Check::Random)
        .yes(&[&["ATBB", M20, "abcdefghijkl"]]),
    token("atlassian-token", "ATLASSIAN_TOKEN", "AT(?:ATT|CTT)3[A-Za-z0-9_=-]{60,300}")
        .yes(&[&["ATATT3", M20, M20, M20]]),
    marked("circleci-token", "CIRCLECI_TOKEN", "CCI(?:PAT|PRJ)_[A-Za-z0-9]{16,32}_[A-Za-z0-9]{40}")
        .yes(&[&["CCIPAT_", M20, "_", M20, M20]]),
    marked("buildkite-token", "BUILDKITE_TOKEN", "bkua_[a-z0-9]{40}")
        .yes(&[&["bkua_", H16, H16, "01234567"]]),
    marked("npm-token", "NPM_TOKEN", "npm_[A-Za-z0-9]{36}")
        .check(Check::Random)
        .yes(&[&["npm_", M20, A16]]),
    secret("npm-auth", "NPM_TOKEN", r#"_auth(?:Token)?[ \t]{0,3}=[ \t]{0,3}"?(?<secret>[A-Za-z0-9+/_-]{16,512}={0,2})"#)
        .check(Check::Real)
        .check(Check::Digit)
        .yes(&[&["//registry.npmjs.org/:_auth", "Token=", M20], &["_auth=", M20]]),
    marked("pypi-token", "PYPI_TOKEN", "pypi-Ag[A-Za-z0-9_-]{50,1000}")
        .yes(&[&["pypi-", "AgEI", M20, M20, M20]]),
    marked("rubygems-token", "RUBYGEMS_TOKEN", "rubygems_[a-f0-9]{48}")
        .yes(&[&["rubygems_", H16, H16, H16]]),
    token("nuget-key", "NUGET_KEY", "oy2[a-z0-9]{43}")
        .check(Check::Random)
        .yes(&[&["oy2", "abcdefghij0123456789", "abcdefghij0123456789", "abc"]]),
    token("crates-token", "CRATES_TOKEN", "cio[A-Za-z0-9]{32}")
        .check(Check::Random)
        .yes(&[&["cio", M20, "abcdefGHIJ01"]]),
    marked("clojars-token", "CLOJARS_TOKEN", "(?i:clojars)_[a-zA-Z0-9]{60}")
        .yes(&[&["CLOJARS_", M20, M20, M20]]),
    marked("docker-token", "DOCKER_TOKEN", "dckr_[op]at_[A-Za-z0-9_-]{20,100}")
        .yes(&[&["dckr_", "pat_", M20]]),
    token("artifactory-key", "ARTIFACTORY_KEY", "AKC[A-Za-z0-9]{60,74}")
        .check(Check::Entropy(4.0))
        .check(Check::Digit)
        .yes(&[&["AKCp", M20, M20, M20, "abcdefghi"]]),
    token("artifactory-reference", "ARTIFACTORY_KEY", "cmVmd[A-Za-z0-9]{59}")
        .check(Check::Entropy(4.0))
        .yes(&[&["cmVmd", M20, M20, "abcdefghij012345678"]]),
    marked("sonar-token", "SONAR_TOKEN", "sq[pua]_[a-z0-9]{40}")
        .yes(&[&["sqp_", H16, H16, "01234567"]]),
    marked("snyk-token", "SNYK_TOKEN", r"snyk_(?:uat|sat)\.[a-z0-9]{8}\.[A-Za-z0-9_-]{40,200}\.[A-Za-z0-9_-]{16,64}")
        .yes(&[&["snyk_uat.", "abcd0123", ".", M20, M20, ".", M20]]),
    marked("sourcegraph-token", "SOURCEGRAPH_TOKEN", "sgp_[A-Za-z0-9]{16,64}(?:_[A-Za-z0-9]{5,40}){0,2}")
        .check(Check::Random)
        .yes(&[&["sgp_", H16, "_", H16, H16, "01234567"]]),
    marked("sourcegraph-licence", "SOURCEGRAPH_TOKEN", "slk_[a-f0-9]{64}")
        .yes(&[&["slk_", H16, H16, H16, H16]]),
    secret("terraform-token", "TERRAFORM_TOKEN", r"\.atlasv1\.[A-Za-z0-9=_-]{60,70}")
        .yes(&[&["abcdefghijklmn", ".atlasv1", ".", M20, M20, M20]]),
    marked("octopus-key", "OCTOPUS_KEY", "API-[A-Z0-9]{26}")
        .check(Check::Random)
        .yes(&[&["API-", "ABCDEF1234GHIJKL5678MNOPQR"]]),
    marked("infracost-key", "INFRACOST_KEY", "ico-[A-Za-z0-9]{32}")
        .check(Check::Entropy(3.5))
        .check(Check::Mixed)
        .yes(&[&["ico-", M20, "abcdefGHIJ01"]]),
    marked("prefect-token", "PREFECT_TOKEN", "pn[ub]_[A-Za-z0-9]{36}")
        .check(Check::Random)
        .yes(&[&["pnu_", M20, A16]]),
    token("harness-token", "HARNESS_TOKEN", r"[ps]at\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9]{24}\.[A-Za-z0-9]{20}")
        .yes(&[&["pat.", "abcdefghij0123456789ab", ".", "abcdefghij0123456789abcd", ".", M20]]),
    token("stackhawk-key", "STACKHAWK_KEY", r"hawk\.[A-Za-z0-9_-]{20}\.[A-Za-z0-9_-]{20}")
        .yes(&[&["hawk.", M20, ".", M20]]),
    marked("linear-key", "LINEAR_KEY", "lin_(?:api|oauth)_[A-Za-z0-9]{40,64}")
        .yes(&[&["lin_api_", M20, M20]]),
    marked("postman-key", "POSTMAN_KEY", "PMA[KT]-[A-Za-z0-9]{24,26}(?:-[A-Za-z0-9]{34})?")
        .yes(&[&["PMAK-", H16, "01234567", "-", H16, H16, "01"]]),
    marked("readme-key", "README_KEY", "rdme_[a-z0-9]{70}")
        .yes(&[&["rdme_", "abcdefghij0123456789", "abcdefghij0123456789", "abcdefghij0123456789", "abcdefghij"]]),
];
