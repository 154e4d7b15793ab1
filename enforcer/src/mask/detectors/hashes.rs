//! Passwords as systems store them: hashes that can be tried against lists of words.

use super::{H16, M20, secret};
use crate::mask::rule::Detector;

/// The table.
pub(super) static HASHES: &[Detector] = &[
    secret("md5-crypt", "PASSWORD_HASH", r"\$1\$[./A-Za-z0-9]{8}\$[./A-Za-z0-9]{22}").yes(&[&["$1$", "abcdefgh", "$", M20, "ab"]]),
    secret("apr1-crypt", "PASSWORD_HASH", r"\$apr1\$[./A-Za-z0-9]{8}\$[./A-Za-z0-9]{22}")
        .yes(&[&["$apr1$", "abcdefgh", "$", M20, "ab"]]),
    secret("bcrypt", "PASSWORD_HASH", r"\$2[abxy]\$[0-9]{2}\$[./A-Za-z0-9]{53}")
        .yes(&[&["$2b$", "12$", M20, M20, "abcdefghijklm"]]),
    secret("cisco-type-8", "PASSWORD_HASH", r"\$[89]\$[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{43}")
        .yes(&[&["$8$", "abcdefgh", "$", M20, M20, "abc"]]),
    secret("argon2", "PASSWORD_HASH", r"\$argon2(?:id|i|d)\$v=[0-9]{1,3}\$m=[0-9]{1,9},t=[0-9]{1,4},p=[0-9]{1,4}\$[A-Za-z0-9+/]{11,64}\$[A-Za-z0-9+/]{16,88}")
        .yes(&[&["$argon2id$v=19$m=65536,t=3,p=4$", "c29tZXNhbHQx", "$", M20, M20]]),
    secret("yescrypt", "PASSWORD_HASH", r"\$y\$[./A-Za-z0-9]{3,8}\$[./A-Za-z0-9]{8,64}\$[./A-Za-z0-9]{43}")
        .yes(&[&["$y$j9T$", "abcdefghijkl", "$", M20, M20, "abc"]]),
    secret(
        "kerberos-ticket",
        "KERBEROS_TICKET",
        r"\$krb5(?:asrep|tgs|pa)\$[0-9]{2}\$[^\s$]{1,128}(?:\$[^\s$]{1,128}){0,3}\$[0-9a-f]{64,4096}",
    )
    .yes(&[&["$krb5asrep$23$", H16, H16, "$", H16, H16, H16, H16]]),
    secret("sha256-crypt", "PASSWORD_HASH", r"\$5\$[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{43}")
        .yes(&[&["$5$abcdefgh", "$", M20, M20, "abc"]]),
    secret("sha256-crypt-rounds", "PASSWORD_HASH", r"\$5\$rounds=[0-9]{1,9}\$[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{43}")
        .yes(&[&["$5$", "rounds=5000$", "abcdefgh", "$", M20, M20, "abc"]]),
    secret("sha512-crypt", "PASSWORD_HASH", r"\$6\$[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{86}")
        .yes(&[&["$6$", "abcdefgh", "$", M20, M20, M20, M20, "abcdef"]]),
    secret("sha512-crypt-rounds", "PASSWORD_HASH", r"\$6\$rounds=[0-9]{1,9}\$[./A-Za-z0-9]{8,16}\$[./A-Za-z0-9]{86}")
        .yes(&[&["$6$rounds=5000$", "abcdefgh", "$", M20, M20, M20, M20, "abcdef"]]),
];
