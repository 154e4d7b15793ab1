//! The built-in detectors, after the formats that the issuers document.
//!
//! Examples are not secrets, and stand in pieces so that secret scanners stay quiet. The
//! Formats whose matches can be long must not begin inside a word: a text that repeats their
//! beginning would otherwise open a match at each, and each would be followed to its end. The
//! order matters only for the name on a placeholder, if two begin at one place.

use super::{
    check,
    rule::{Detector, Trigger},
};

const fn secret(entity: &'static str, pattern: &'static str) -> Detector {
    Detector::new("secrets", entity, pattern)
}

const A16: &str = "ABCDEFGHIJKLMNOP";
const M20: &str = "a1B2c3D4e5F6g7H8i9J0";
const H16: &str = "0123456789abcdef";

fn alnum(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}
fn letter(b: u8) -> bool {
    b.is_ascii_alphabetic()
}
fn token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')
}
fn digit(b: u8) -> bool {
    b.is_ascii_digit()
}
fn not_digit(b: u8) -> bool {
    !b.is_ascii_digit()
}
fn base64_digit(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+')
}
fn upper(b: u8) -> bool {
    b.is_ascii_uppercase()
}
fn local(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'+' | b'-')
}
fn card_start(b: u8) -> bool {
    matches!(b, b'2'..=b'6')
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Detector> {
    SECRETS.iter().chain(PII)
}

static SECRETS: &[Detector] = &[
    Detector {
        swallow: true,
        examples: &[
            &["-----BEGIN ", "RSA PRIVATE KEY-----\nMIIE", M20, "\n-----END RSA ", "PRIVATE KEY-----"],
            &["-----BEGIN ", "OPENSSH PRIVATE KEY-----\\nb3Bl", M20],
        ],
        counter: &[&["-----BEGIN ", "CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----"]],
        ..secret(
            "PRIVATE_KEY",
            r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:[A-Za-z0-9+/=:,._()% \t\r\n-]|\\[nrtu\\/])*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?:[A-Za-z0-9+/=:,._()% \t\r\n-]|\\[nrtu\\/])*)",
        )
    },
    Detector {
        examples: &[&["AKIA", A16], &["AKIA", "AKIA", A16], &["ASIA", A16]],
        counter: &[&["AKIA", "abcdefghijklmnop"]],
        ..secret("AWS_ACCESS_KEY_ID", "A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}")
    },
    Detector {
        check: Some(check::random),
        not_before: Some(base64_digit),
        examples: &[
            &["aws_secret", "_access_key = ", M20, "/", "k9L8m7N6o5P4q3R2s1T"],
            &["\"Secret", "AccessKey\": \"", M20, "+", "k9L8m7N6o5P4q3R2s1T", "\""],
        ],
        ..secret(
            "AWS_SECRET_ACCESS_KEY",
            r#"(?i:secret[_-]?access[_-]?key)[\\"' \t]{0,8}(?:=>|[:=>])[\\"' \t]{0,8}(?<secret>[A-Za-z0-9/+]{40})"#,
        )
    },
    Detector {
        examples: &[&["ghp_", M20, A16], &["ghs_", M20, A16], &["github_", "pat_", M20, "_", M20]],
        counter: &[&["ghp_", M20]],
        ..secret("GITHUB_TOKEN", "gh(?:[pousr]_[A-Za-z0-9_]{36,255})")
    },
    Detector {
        examples: &[&["github_", "pat_", M20, "_", M20]],
        ..secret("GITHUB_TOKEN", "github_pat_[A-Za-z0-9_]{36,255}")
    },
    Detector {
        examples: &[&["glpat", "-", M20], &["glrt", "-", M20], &["glptt", "-", M20, M20]],
        ..secret(
            "GITLAB_TOKEN",
            r"gl(?:pat|dt|rt|rtr|ptt|cbt|soat|ft|imt|agent|oas|ffct)-[A-Za-z0-9_-]{20,300}(?:\.[A-Za-z0-9_-]{2,20}){0,2}",
        )
    },
    Detector {
        examples: &[&["xoxb", "-1234567890-", M20], &["xoxe", ".xoxp-1-", M20]],
        ..secret("SLACK_TOKEN", r"xox[abceoprs](?:\.xox[bp])?-[A-Za-z0-9-]{10,250}")
    },
    Detector {
        examples: &[&["xapp", "-1-A0123456789-1234567890-", H16, H16]],
        ..secret("SLACK_TOKEN", "xapp-[0-9]-[A-Z0-9]{6,16}-[0-9]{6,16}-[a-f0-9]{32,128}")
    },
    Detector {
        check: Some(check::random),
        examples: &[&["https://hooks.slack", ".com/services/T01234567/B01234567/", M20]],
        ..secret(
            "SLACK_WEBHOOK",
            r"hooks\.slack\.com/services/(?<secret>T[A-Z0-9]{6,14}/B[A-Z0-9]{6,14}/[A-Za-z0-9]{20,32})",
        )
    },
    Detector {
        examples: &[&["sk_", "live_", M20], &["rk_", "test_", M20]],
        ..secret("STRIPE_KEY", "[sr]k_(?:live|test)_[A-Za-z0-9]{10,250}")
    },
    Detector {
        examples: &[&["whsec_", M20, M20]],
        ..secret("STRIPE_WEBHOOK_SECRET", "whsec_[A-Za-z0-9+/]{32,128}={0,2}")
    },
    Detector {
        examples: &[&["sk-ant-", "api03-", M20, "-", M20]],
        ..secret("ANTHROPIC_API_KEY", "sk-ant-[a-z0-9]{2,12}-[A-Za-z0-9_-]{20,250}")
    },
    Detector {
        examples: &[&["sk-", "proj-", M20, "_", M20], &["sk-", "svcacct-", M20]],
        ..secret("OPENAI_API_KEY", "sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]{20,250}")
    },
    Detector {
        not_after: Some(letter),
        check: Some(check::random),
        examples: &[&["\\n", "sk-", M20, M20], &["key%3D", "sk-", M20, M20]],
        counter: &[&["ta", "sk-", M20, M20], &["sk-", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]],
        ..secret("OPENAI_API_KEY", "sk-[A-Za-z0-9]{32,128}")
    },
    Detector {
        examples: &[&["AIza", M20, "-_", "abcdefghijklm"]],
        ..secret("GOOGLE_API_KEY", "AIza[A-Za-z0-9_-]{35}")
    },
    Detector {
        not_after: Some(token),
        examples: &[&["ya29", ".a0", M20]],
        ..secret("GOOGLE_OAUTH_TOKEN", r"ya29\.[A-Za-z0-9_.-]{20,2048}")
    },
    Detector {
        examples: &[&["GOCSPX", "-", M20, "abcdefgh"]],
        ..secret("GOOGLE_CLIENT_SECRET", "GOCSPX-[A-Za-z0-9_-]{28}")
    },
    Detector { examples: &[&["npm_", M20, A16]], ..secret("NPM_TOKEN", "npm_[A-Za-z0-9]{36}") },
    Detector {
        not_after: Some(token),
        examples: &[&["pypi-", "AgEI", M20, M20, M20]],
        ..secret("PYPI_TOKEN", "pypi-Ag[A-Za-z0-9_-]{50,1000}")
    },
    Detector {
        not_after: Some(token),
        examples: &[&["eyJ", "hbGciOiJIUzI1NiJ9", ".eyJ", "zdWIiOiIxIn0", ".", M20]],
        counter: &[&["eyJ", "hbGciOiJIUzI1NiJ9"]],
        ..secret("JWT", r"eyJ[A-Za-z0-9_-]{8,1024}\.eyJ[A-Za-z0-9_-]{4,4096}\.[A-Za-z0-9_-]{0,1024}")
    },
    Detector {
        check: Some(check::basic),
        examples: &[&["Authorization: Basic ", "QWxhZGRpbjpv", "cGVuIHNlc2FtZQ=="]],
        counter: &[&["Basic understanding of things"]],
        ..secret("BASIC_CREDENTIALS", "(?i:basic) (?<secret>[A-Za-z0-9+/]{6,1024}={0,2})")
    },
    Detector {
        check: Some(check::random),
        examples: &[&["authorization: bearer ", M20]],
        counter: &[&["Bearer authentication is described"]],
        ..secret("BEARER_TOKEN", "(?i:bearer) (?<secret>[A-Za-z0-9._~+/-]{16,4096}={0,2})")
    },
    Detector {
        examples: &[&["https://me:", "hunter2", "@host/"]],
        counter: &[&["https://host:8080/a@b"], &["https://user@host/"]],
        ..secret("URL_PASSWORD", r#"://[A-Za-z0-9._~%!$&'()*+,;=-]{0,128}:(?<secret>[^\s/@"'<>\\]{1,256})@"#)
    },
    Detector {
        examples: &[&["AccountKey", "=", M20, M20, M20, M20, "abcdef=="]],
        ..secret("AZURE_STORAGE_KEY", "(?i:AccountKey)=(?<secret>[A-Za-z0-9+/]{86}==)")
    },
    Detector {
        examples: &[&["SharedAccessKey", "=", M20, M20, "abc="]],
        ..secret("AZURE_SHARED_ACCESS_KEY", "(?i:SharedAccessKey)=(?<secret>[A-Za-z0-9+/]{43}=)")
    },
    Detector {
        examples: &[&["a8c", "8Q~", M20, "abcdefghijk"]],
        ..secret("AZURE_CLIENT_SECRET", "[78]Q~[A-Za-z0-9_.~-]{31,34}")
    },
    Detector {
        examples: &[&["SG.", M20, ".", M20, M20]],
        ..secret("SENDGRID_KEY", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}")
    },
    Detector { examples: &[&["SK", H16, H16]], ..secret("TWILIO_KEY", "(?:SK|AC)[0-9a-f]{32}") },
    Detector {
        examples: &[&["hf_", "abcdefghijklmnopqrstuvwxyzabcdefgh"]],
        ..secret("HUGGINGFACE_TOKEN", "hf_[A-Za-z0-9]{30,60}")
    },
    Detector {
        examples: &[&["dop_v1_", H16, H16, H16, H16]],
        ..secret("DIGITALOCEAN_TOKEN", "do[opr]_v1_[a-f0-9]{64}")
    },
    Detector {
        examples: &[&["dckr_", "pat_", M20]],
        ..secret("DOCKER_TOKEN", "dckr_[op]at_[A-Za-z0-9_-]{20,100}")
    },
    Detector {
        examples: &[&["hvs", ".", M20, M20]],
        ..secret("VAULT_TOKEN", r"hv[sbr]\.[A-Za-z0-9_-]{20,300}")
    },
    Detector {
        examples: &[&["abcdefghijklmn", ".atlasv1", ".", M20, M20, M20]],
        ..secret("TERRAFORM_TOKEN", r"\.atlasv1\.[A-Za-z0-9=_-]{60,70}")
    },
    Detector {
        examples: &[&["dapi", H16, H16]],
        ..secret("DATABRICKS_TOKEN", "dapi[0-9a-f]{32}(?:-[0-9])?")
    },
    Detector {
        examples: &[&["shpat_", H16, H16]],
        ..secret("SHOPIFY_TOKEN", "shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}")
    },
    Detector {
        not_after: Some(not_digit),
        examples: &[&["bot12345678", ":AA", M20, "bcdefghijklmn"]],
        ..secret("TELEGRAM_BOT_TOKEN", ":AA[A-Za-z0-9_-]{33}")
    },
    Detector {
        not_after: Some(alnum),
        examples: &[&["MTAx", M20, ".", "abcdef", ".", M20, "abcdefgh"]],
        ..secret(
            "DISCORD_TOKEN",
            r"(?:[MN][DTjz]|O[DT])[AEIMQUYcgk][w-z0-5][A-Za-z0-9_-]{18,26}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,40}",
        )
    },
    Detector {
        not_after: Some(token),
        examples: &[&["sntrys_", "eyJ", M20, M20, M20], &["sntryu_", H16, H16, H16, H16]],
        ..secret("SENTRY_TOKEN", "sntry(?:s_eyJ[A-Za-z0-9+/=_-]{50,1000}|u_[a-f0-9]{64})")
    },
    Detector {
        examples: &[&["AGE-SECRET-", "KEY-1", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2TVDW0S3JN54KHCE"]],
        ..secret("AGE_SECRET_KEY", "(?i:AGE-SECRET-KEY-1[QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L]{58})")
    },
];

static PII: &[Detector] = &[
    Detector {
        trigger: Trigger::Run(alnum, local),
        pivot: Some(b'@'),
        not_after: Some(local),
        examples: &[&["write to jane.doe+x@example", ".org, please"], &["\\njane@example", ".org"]],
        counter: &[&["@decorator and user@localhost"]],
        ..Detector::new(
            "pii",
            "EMAIL",
            r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}",
        )
    },
    Detector {
        trigger: Trigger::Run(card_start, digit),
        not_after: Some(digit),
        not_before: Some(digit),
        check: Some(check::luhn),
        examples: &[&["card 4111 1111", " 1111 1111."], &["3782822463", "10005"]],
        counter: &[&["4111 1111 1111 1112"], &["1700000000000"]],
        ..Detector::new(
            "pii",
            "CARD_NUMBER",
            r"(?:4[0-9]{3}|5[1-5][0-9]{2}|2[2-7][0-9]{2}|6011|65[0-9]{2})(?:[ -]?[0-9]{4}){3}|3[47][0-9]{2}[ -]?[0-9]{6}[ -]?[0-9]{5}",
        )
    },
    Detector {
        trigger: Trigger::Run(upper, alnum),
        not_after: Some(alnum),
        not_before: Some(alnum),
        check: Some(check::iban),
        examples: &[&["GB82 WEST 1234", " 5698 7654 32"], &["DE893704", "00440532013000"]],
        counter: &[&["GB82WEST12345698765433"]],
        ..Detector::new("pii", "IBAN", r"[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?")
    },
];
