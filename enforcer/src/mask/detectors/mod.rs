//! The built-in detectors, after the formats that the issuers document.
//!
//! Examples are not secrets, and stand in pieces so that secret scanners stay quiet.
//! Formats whose matches can be long must not begin inside a word: a text that repeats their
//! beginning would otherwise open a match at each, and each would be followed to its end. The
//! order matters only for the name on a placeholder, if two begin at one place.

use super::{byteset::ByteSet, check::Check, rule::Detector};

const fn secret(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "secrets", pattern)
}

const fn pii(rule: &'static str, entity: &'static str, pattern: &'static str) -> Detector {
    Detector::fixed(rule, entity, "pii", pattern)
}

const A16: &str = "ABCDEFGHIJKLMNOP";
const M20: &str = "a1B2c3D4e5F6g7H8i9J0";
const H16: &str = "0123456789abcdef";

const LOCAL: ByteSet = ByteSet::ALNUM.with(b"._+-");
const CARD_START: ByteSet = ByteSet::NONE.range(b'2', b'6');

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Detector> {
    SECRETS.iter().chain(PII)
}

static SECRETS: &[Detector] = &[
    secret("private-key", "PRIVATE_KEY", r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:[A-Za-z0-9+/=:,._()% \t\r\n-]|\\[nrtu\\/])*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?:[A-Za-z0-9+/=:,._()% \t\r\n-]|\\[nrtu\\/])*)").swallowing().yes(&[
            &["-----BEGIN ", "RSA PRIVATE KEY-----\nMIIE", M20, "\n-----END RSA ", "PRIVATE KEY-----"],
            &["-----BEGIN ", "OPENSSH PRIVATE KEY-----\\nb3Bl", M20],
        ]).no(&[&["-----BEGIN ", "CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----"]]),
    secret("aws-access-key-id", "AWS_ACCESS_KEY_ID", "A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}")
        .sure(0.95).yes(&[&["AKIA", A16], &["AKIA", "AKIA", A16], &["ASIA", A16]]).no(&[&["AKIA", "abcdefghijklmnop"]]),
    secret("aws-secret-access-key", "AWS_SECRET_ACCESS_KEY", r#"(?i:secret[_-]?access[_-]?key)[\\"' \t]{0,8}(?:=>|[:=>])[\\"' \t]{0,8}(?<secret>[A-Za-z0-9/+]{40})"#).not_before(ByteSet::BASE64).check(Check::Random).yes(&[
            &["aws_secret", "_access_key = ", M20, "/", "k9L8m7N6o5P4q3R2s1T"],
            &["\"Secret", "AccessKey\": \"", M20, "+", "k9L8m7N6o5P4q3R2s1T", "\""],
        ]),
    secret("github-token", "GITHUB_TOKEN", "gh(?:[pousr]_[A-Za-z0-9_]{36,255})").yes(&[&["ghp_", M20, A16], &["ghs_", M20, A16], &["github_", "pat_", M20, "_", M20]]).no(&[&["ghp_", M20]]),
    secret("github-token-2", "GITHUB_TOKEN", "github_pat_[A-Za-z0-9_]{36,255}").yes(&[&["github_", "pat_", M20, "_", M20]]),
    secret("gitlab-token", "GITLAB_TOKEN", r"gl(?:pat|dt|rt|rtr|ptt|cbt|soat|ft|imt|agent|oas|ffct)-[A-Za-z0-9_-]{20,300}(?:\.[A-Za-z0-9_-]{2,20}){0,2}").yes(&[&["glpat", "-", M20], &["glrt", "-", M20], &["glptt", "-", M20, M20]]),
    secret("slack-token", "SLACK_TOKEN", r"xox[abceoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,250}").yes(&[&["xoxb", "-1234567890-", M20], &["xoxe", ".xoxp-1-", M20]]),
    secret("slack-token-2", "SLACK_TOKEN", "xapp-[0-9]-[A-Z0-9]{6,16}-[0-9]{6,16}-[a-f0-9]{32,128}").yes(&[&["xapp", "-1-A0123456789-1234567890-", H16, H16]]),
    secret("slack-webhook", "SLACK_WEBHOOK", r"hooks\.slack\.com/services/(?<secret>T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{20,32})").check(Check::Random).yes(&[&["https://hooks.slack", ".com/services/T01234567/B01234567/", M20]]),
    secret("stripe-key", "STRIPE_KEY", "[sr]k_(?:live|test)_[A-Za-z0-9]{10,250}").yes(&[&["sk_", "live_", M20], &["rk_", "test_", M20]]),
    secret("stripe-webhook-secret", "STRIPE_WEBHOOK_SECRET", "whsec_[A-Za-z0-9+/]{32,128}={0,2}").yes(&[&["whsec_", M20, M20]]),
    secret("anthropic-api-key", "ANTHROPIC_API_KEY", "sk-ant-[a-z0-9]{2,12}-[A-Za-z0-9_-]{20,250}").yes(&[&["sk-ant-", "api03-", M20, "-", M20]]),
    secret("openai-api-key", "OPENAI_API_KEY", "sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,250}").yes(&[&["sk-", "proj-", M20, "_", M20], &["sk-", "svcacct-", M20]]),
    secret("openai-api-key-2", "OPENAI_API_KEY", "sk-[A-Za-z0-9]{32,128}").not_after(ByteSet::LETTER).check(Check::Random).yes(&[&["\\n", "sk-", M20, M20], &["key%3D", "sk-", M20, M20]]).no(&[&["ta", "sk-", M20, M20], &["sk-", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]]),
    secret("google-api-key", "GOOGLE_API_KEY", "AIza[A-Za-z0-9_-]{35}").yes(&[&["AIza", M20, "-_", "abcdefghijklm"]]),
    secret("google-oauth-token", "GOOGLE_OAUTH_TOKEN", r"ya29\.[A-Za-z0-9_.-]{20,2048}").not_after(ByteSet::TOKEN).yes(&[&["ya29", ".a0", M20]]),
    secret("google-client-secret", "GOOGLE_CLIENT_SECRET", "GOCSPX-[A-Za-z0-9_-]{28}").yes(&[&["GOCSPX", "-", M20, "abcdefgh"]]),
    secret("npm-token", "NPM_TOKEN", "npm_[A-Za-z0-9]{36}").yes(&[&["npm_", M20, A16]]),
    secret("pypi-token", "PYPI_TOKEN", "pypi-Ag[A-Za-z0-9_-]{50,1000}").not_after(ByteSet::TOKEN).yes(&[&["pypi-", "AgEI", M20, M20, M20]]),
    secret("jwt", "JWT", r"eyJ[A-Za-z0-9_-]{8,1024}\.eyJ[A-Za-z0-9_-]{4,4096}\.[A-Za-z0-9_-]{0,1024}").not_after(ByteSet::TOKEN).yes(&[&["eyJ", "hbGciOiJIUzI1NiJ9", ".eyJ", "zdWIiOiIxIn0", ".", M20]]).no(&[&["eyJ", "hbGciOiJIUzI1NiJ9"]]),
    secret("basic-credentials", "BASIC_CREDENTIALS", "(?i:basic) (?<secret>[A-Za-z0-9+/]{6,1024}={0,2})").check(Check::Basic).yes(&[&["Authorization: Basic ", "QWxhZGRpbjpv", "cGVuIHNlc2FtZQ=="]]).no(&[&["Basic understanding of things"]]),
    secret("bearer-token", "BEARER_TOKEN", "(?i:bearer) (?<secret>[A-Za-z0-9._~+/-]{16,4096}={0,2})").check(Check::Random).yes(&[&["authorization: bearer ", M20]]).no(&[&["Bearer authentication is described"]]),
    secret("url-password", "URL_PASSWORD", r#"://[A-Za-z0-9._~%!$&'()*+,;=-]{0,128}:(?<secret>[^\s/@"'<>\\]{1,256})@"#).yes(&[&["https://me:", "hunter2", "@host/"]]).no(&[&["https://host:8080/a@b"], &["https://user@host/"]]),
    secret("azure-storage-key", "AZURE_STORAGE_KEY", "(?i:AccountKey)=(?<secret>[A-Za-z0-9+/]{86}==)").yes(&[&["AccountKey", "=", M20, M20, M20, M20, "abcdef=="]]),
    secret("azure-shared-access-key", "AZURE_SHARED_ACCESS_KEY", "(?i:SharedAccessKey)=(?<secret>[A-Za-z0-9+/]{43}=)").yes(&[&["SharedAccessKey", "=", M20, M20, "abc="]]),
    secret("azure-client-secret", "AZURE_CLIENT_SECRET", "[78]Q~[A-Za-z0-9_.~-]{31,34}").yes(&[&["a8c", "8Q~", M20, "abcdefghijk"]]),
    secret("sendgrid-key", "SENDGRID_KEY", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}").yes(&[&["SG.", M20, ".", M20, M20]]),
    secret("twilio-key", "TWILIO_KEY", "(?:SK|AC)[0-9a-f]{32}").yes(&[&["SK", H16, H16]]),
    secret("huggingface-token", "HUGGINGFACE_TOKEN", "hf_[A-Za-z0-9]{30,60}").yes(&[&["hf_", "abcdefghijklmnopqrstuvwxyzabcdefgh"]]),
    secret("digitalocean-token", "DIGITALOCEAN_TOKEN", "do[opr]_v1_[a-f0-9]{64}").yes(&[&["dop_v1_", H16, H16, H16, H16]]),
    secret("docker-token", "DOCKER_TOKEN", "dckr_[op]at_[A-Za-z0-9_-]{20,100}").yes(&[&["dckr_", "pat_", M20]]),
    secret("vault-token", "VAULT_TOKEN", r"hv[sbr]\.[A-Za-z0-9_-]{20,300}").yes(&[&["hvs", ".", M20, M20]]),
    secret("terraform-token", "TERRAFORM_TOKEN", r"\.atlasv1\.[A-Za-z0-9=_-]{60,70}").yes(&[&["abcdefghijklmn", ".atlasv1", ".", M20, M20, M20]]),
    secret("databricks-token", "DATABRICKS_TOKEN", "dapi[0-9a-f]{32}(?:-[0-9])?").yes(&[&["dapi", H16, H16]]),
    secret("shopify-token", "SHOPIFY_TOKEN", "shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}").yes(&[&["shpat_", H16, H16]]),
    secret("telegram-bot-token", "TELEGRAM_BOT_TOKEN", ":AA[A-Za-z0-9_-]{33}").not_after(ByteSet::DIGIT.not()).yes(&[&["bot12345678", ":AA", M20, "bcdefghijklmn"]]),
    secret("discord-token", "DISCORD_TOKEN", r"(?:[MN][DTjz]|O[DT])[AEIMQUYcgk][w-z0-5][A-Za-z0-9_-]{18,26}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}").not_after(ByteSet::ALNUM).yes(&[&["MTAx", M20, ".", "abcdef", ".", M20, "abcdefgh"]]),
    secret("sentry-token", "SENTRY_TOKEN", "sntry(?:s_eyJ[A-Za-z0-9+/=_-]{50,1000}|u_[a-f0-9]{64})").not_after(ByteSet::TOKEN).yes(&[&["sntrys_", "eyJ", M20, M20, M20], &["sntryu_", H16, H16, H16, H16]]),
    secret("age-secret-key", "AGE_SECRET_KEY", "(?i:AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})").yes(&[&["AGE-SECRET-", "KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"]]),
];

static PII: &[Detector] = &[
    pii("email", "EMAIL", r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}").at_runs(ByteSet::ALNUM, LOCAL, Some(b'@')).not_after(LOCAL).yes(&[&["write to jane.doe+x@example", ".org, please"], &["\\njane@example", ".org"]]).no(&[&["@decorator and user@localhost"]]),
    pii("card-number", "CARD_NUMBER", r"(?:4[0-9]{3}|5[1-5][0-9]{2}|2[2-7][0-9]{2}|6011|65[0-9]{2})(?:[ -]?[0-9]{4}){3}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}").at_runs(CARD_START, ByteSet::DIGIT, None).not_after(ByteSet::DIGIT).not_before(ByteSet::DIGIT).check(Check::Luhn).yes(&[&["card 4111 1111", " 1111 1111."], &["3782822463", "10005"]]).no(&[&["4111 1111 1111 1112"], &["1700000000000"]]),
    pii("iban", "IBAN", r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?").at_runs(ByteSet::UPPER, ByteSet::ALNUM, None).not_after(ByteSet::ALNUM).not_before(ByteSet::ALNUM).check(Check::Mod97).yes(&[&["GB82 WEST 1234", " 5698 7654 32"], &["DE893704", "00440532013000"]]).no(&[&["GB82WEST12345698765433"]]),
];
