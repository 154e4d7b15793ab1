//! Passwords, which have no format, where they stand as such. None has a control character in it: a
//! text ends there, and the bytes of what is compressed have them everywhere.

use super::secret;
use crate::mask::{check::Check, rule::Detector};

/// The table.
pub(super) static PASSWORDS: &[Detector] = &[
    secret("connection-password",
        "CONNECTION_PASSWORD",
        r#";[ ]?(?i:password|pwd) ?=(?<secret>[^\s[:cntrl:];"'{}<>().]{3,128})"#,
    )
    .check(Check::Real)
    .yes(&[&["Server=db;User Id=sa;Password", "=hunter2;"]])
        .no(&[&["x;password=${DB_PASSWORD};"]]),
    secret("connection-password-first", "CONNECTION_PASSWORD", r#""(?i:password|pwd) ?=(?<secret>[^\s[:cntrl:];"'{}<>().]{3,128});"#)
        .check(Check::Real)
        .yes(&[&["\"User ID=sa; \" & \"Password ", "=hunter2;Initial Catalog=x\""]])
        .no(&[&["\"password=%s;\""], &["\"pwd=#{pwd};\""]]),
    secret("user-and-password",
        "PASSWORD",
        r#"(?i:user(?:_?name)?)["']?[ \t]{0,3}(?::=|=>|[:=])[ \t]{0,3}["'][^"'\n]{1,40}["'](?:[,;]?(?:[ \t]{1,4}(?:#|//)[^\n]{0,40}|\r)?\n[ \t]{0,16}|[,;][ \t]{1,4})["'$]?(?i:(?:db_?)?pass(?:word)?)["']?[ \t]{0,3}(?::=|=>|[:=])[ \t]{0,3}["'](?<secret>[^"'\n]{5,64})["']"#,
    )
    .check(Check::Password)
    .yes(&[&["user = 'jane'  # admin\npassword = '", "open sesame", "'"], &["$user = \"x1\"; $password = \"", "goodspec", "\";"]])
        .no(&[&["user = 'user'\npassword = 'password'"], &["username: 'x', password: '${PASSWORD}'"]]),
    secret("quoted-passphrase", "PASSWORD", r#"(?i:passw(?:or)?d|passphrase)["']?\]?[ \t]{0,3}(?:=>|:=|[:=])[ \t]{0,3}["'](?<secret>[a-z0-9]{12,64})["']"#)
        .check(Check::Phrase)
        .yes(&[&["AdminPassword = \"", "justsomelongwords", "\""]])
        .no(&[&["password: \"currentpassword\""]]),
    secret("psexec-password", "PASSWORD", r"(?i:psexec)[^\n]{0,50}-u[ ]{1,4}[^\s[:cntrl:]]{1,64}[ ]{1,4}-p[ ]{1,4}(?<secret>[^\s[:cntrl:]]{3,64})")
        .check(Check::Password)
        .yes(&[&["PSEXEC \\\\10.0.0.1 -u Administrator -p ", "dev_admin CMD"]]),
    secret("react-password", "PASSWORD", r#"REACT_APP_[A-Z0-9_]{0,60}PASS(?:WORD)?[ ]{0,2}=[ ]{0,2}["']?(?<secret>[^\s[:cntrl:]"'$#]{6,128})"#)
        .check(Check::Password)
        .yes(&[&["REACT_APP_AUTH_PASSWORD=", "whiteduke"]]),
    secret("nuget-password", "PASSWORD", r#"(?i:<add key="(?:ClearText)?Password" value=)"(?<secret>[^"%$]{8,128})""#)
        .check(Check::Password)
        .yes(&[&["<add key=\"ClearTextPassword\" value=\"", "hunter2hunter2", "\" />"]]),
    secret("django-key", "DJANGO_SECRET_KEY", r#"DJANGO[A-Z_]{0,8}SECRET_KEY["'),= ]{1,8}["'](?<secret>[A-Za-z0-9*!$@#&_%^()=+-]{40,60})["']"#)
        .check(Check::Entropy(4.0))
        .yes(&[&["DJANGO_SECRET_KEY = '", "a1b2c3d4e5f6g7h8i9j0k1l2m3n4o5p6q7r8s9t0u1v2w3x4y5z", "'"]]),
    secret("quoted-password", "PASSWORD", r#"(?i:passw(?:or)?d|passphrase)["']?\]?[ \t]{0,3}(?:=>|:=|[:=])[ \t]{0,3}["'](?<secret>[^"'\s[:cntrl:]<>{}]{5,64})["']"#)
        .check(Check::Strong)
        .yes(&[&["password: \"", "hunter2!x", "\""]])
        .no(&[&["password: \"password\""], &["password = '${PASSWORD}'"], &["password: 'enter it'"]]),
    secret("command-line-password", "COMMAND_PASSWORD", r#"-u ["'][^\s[:cntrl:]:"']{0,2}:(?<secret>[^\s[:cntrl:]"':]{6,80})["']"#)
        .check(Check::Strong)
        .yes(&[&["curl -u \":", "h0pk1ns~21s", "\" https://host"]]),
    secret("command-line-user", "COMMAND_PASSWORD", r#"(?:-u|--user) ["' ]?[A-Za-z0-9@._{}:-][^\s[:cntrl:]:"']{0,80}["']?:["']?(?<secret>[^\s[:cntrl:]"']{3,80})"#)
        .check(Check::Strong)
        .yes(&[&["curl -u admin:", "h0pk1ns~21s", " https://host"]])
        .no(&[&["curl -u user:password https://host"], &["curl -u \"$1:$2\" x"], &["docker run -u 1000:1000 x"]]),
    secret("credentials-block", "PASSWORD", r#"(?i:credentials)[ ]{0,4}\{[^{}"']{0,80}(?:["'][^"'\n]{0,60}["'][^{}"']{0,80})?(?i:password)[ (=]{0,4}["'](?<secret>[^"'$\n]{4,64})["']"#)
        .yes(&[&["credentials {\n  username 'user'\n  password '", "hunter2", "'\n}"]]),
];
