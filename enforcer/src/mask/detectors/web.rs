//! What every service has: keys in PEM, tokens, headers and addresses with passwords.

use super::{M20, secret};
use crate::mask::{byteset::ByteSet, check::Check, rule::Detector};

/// The table.
pub(super) static WEB: &[Detector] = &[
    secret(
        "private-key",
        "PRIVATE_KEY",
        r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----(?:(?:[A-Za-z0-9+/=:,._()% \t\r\n-]|\\[nrtu\\/])*?-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|(?:[A-Za-z0-9+/=:,._()% \t\r\n-]|\\[nrtu\\/])*)",
    )
    .swallowing()
    .yes(&[
        &["-----BEGIN ", "RSA PRIVATE KEY-----\nMIIE", M20, "\n-----END RSA ", "PRIVATE KEY-----"],
        &["-----BEGIN ", "OPENSSH PRIVATE KEY-----\\nb3Bl", M20],
    ])
    .no(&[&["-----BEGIN ", "CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----"]]),
    secret("private-key-base64", "PRIVATE_KEY", "LS0tLS1CRUdJTiB(?:SU0EgUFJJVkFURS|QUklWQVRFI|PUEVOU1NIIFBSSVZBVEUg|FQyBQUklWQVRFI|FTkNSWVBURUQgUFJJVkFURS)[A-Za-z0-9+/]{40,12000}={0,2}")
        .yes(&[&["LS0tLS1CRUdJTiBS", "U0EgUFJJVkFURS", M20, M20, M20]]),
    secret("putty-key", "PRIVATE_KEY", r"vate-Lines: [0-9]{1,4}\r?\n(?<secret>[A-Za-z0-9+/=\r\n]{32,8000})")
        .yes(&[&["Private-", "Lines: 1\n", M20, M20, "\n"]]),
    secret("jwt", "JWT", r"eyJ[A-Za-z0-9_-]{8,1024}\.e[yw][A-Za-z0-9_/\\+-]{4,4096}\.[A-Za-z0-9_/\\+-]{0,1024}={0,2}")
        .not_after(ByteSet::TOKEN)
        .yes(&[&["eyJ", "hbGciOiJIUzI1NiJ9", ".eyJ", "zdWIiOiIxIn0", ".", M20]])
        .no(&[&["eyJ", "hbGciOiJIUzI1NiJ9"]]),
    secret("jwe", "JWT", r"eyJ[A-Za-z0-9_-]{15,1024}\.[A-Za-z0-9_-]{0,700}\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,4096}\.[A-Za-z0-9_-]{16,64}")
        .not_after(ByteSet::TOKEN)
        .yes(&[&["eyJ", "hbGciOiJkaXIiLCJl", "..", M20, ".", M20, ".", M20]]),
    secret("basic-credentials", "BASIC_CREDENTIALS", "(?i:basic) (?<secret>[A-Za-z0-9+/]{6,1024}={0,2})")
        .check(Check::Basic)
        .yes(&[&["Authorization: Basic ", "QWxhZGRpbjpv", "cGVuIHNlc2FtZQ=="]])
        .no(&[&["Basic understanding of things"]]),
    secret("basic-header", "BASIC_CREDENTIALS", r#"(?i:authorization)["']?: ?["']?(?i:basic) (?<secret>[A-Za-z0-9+/_-]{8,1024}={0,2})"#)
        .not_before(ByteSet::NONE.with(b"."))
        .check(Check::Random)
        .yes(&[&["Authorization: Basic ", "dXNlcjpwYXNzd29yZDEyMw=="]]),
    secret("bearer-token", "BEARER_TOKEN", "(?i:bearer) (?<secret>[A-Za-z0-9._~+/-]{16,4096}={0,2})")
        .check(Check::Random)
        .yes(&[&["authorization: bearer ", M20]])
        .no(&[&["Bearer authentication is described"]]),
    secret("authorization-header", "AUTHORIZATION", r#"(?i:authorization)["']?:[ \t]{0,4}["']?(?:(?i:token|api-token|apikey|key|jwt|oauth) )?(?<secret>[A-Za-z0-9][A-Za-z0-9._~+/=@-]{15,1024})"#)
        .check(Check::Random)
        .check(Check::Scrambled)
        .yes(&[&["Authorization: Token ", M20], &["-H 'Authorization:  ", M20, "'"]])
        .no(&[&["authorization: some-ordinary-words-here"]]),
    secret("url-password", "URL_PASSWORD", r#"://[A-Za-z0-9._~%!$&'()*+,;=-]{0,128}:(?<secret>[^\s[:cntrl:]/@"'<>\\]{1,256})@"#)
        .check(Check::Password)
        .yes(&[&["https://me:", "hunter2", "@host/"]])
        .no(&[&["https://host:8080/a@b"], &["https://user@host/"], &["https://user:${PASSWORD}@host/"]]),
];
