//! What a shell command would do, told from its text: the worst of it, not the verb that was
//! typed.
//!
//! ```text
//! script --lex--> simple commands --judge--> risks
//!                      |  ^           what runs others (sudo, xargs, sh -c, ssh ...) is looked
//!                      '--'           into, as are substitutions and here-documents
//! ```
//!
//! It errs towards a risk: what wraps another command is taken to run what any of its next
//! words begins. What it cannot read is a risk of its own, [`Effect::Obscured`]. It is no
//! sandbox: a program that is not known here has no effect that is known, and one that a job
//! brings along can do anything. What the job then sends is judged where it is sent.

mod judge;
mod lex;
mod table;
#[cfg(test)]
mod tests;

use serde::Serialize;
use serde_json::Value;

/// Bytes of a script that is looked at; a longer one is [`Effect::Obscured`].
pub const SCRIPT_MAX_BYTES: usize = 64 * 1024;
/// Scripts inside of one another, brackets and quotes in a substitution; deeper ones are
/// [`Effect::Obscured`].
pub const DEPTH_MAX: usize = 16;
/// Commands of a script with all that stand inside of it; one with more is
/// [`Effect::Obscured`].
pub const COMMANDS_MAX: usize = 4096;
/// Bytes that are read of a script with all that stand inside of it, which are read again; one
/// with more is [`Effect::Obscured`].
pub const READ_MAX_BYTES: usize = 1024 * 1024;

/// What kind of change a command makes, or what it gives away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Effect {
    /// Deletes more than a file, or something that is not on this machine.
    Delete,
    /// Creates or changes what others use: clusters, cloud resources, services, hosts.
    Infrastructure,
    /// Gives rights to somebody, or takes those of another.
    Privilege,
    /// Gives something to the public or to other users: packages, images, releases, pushes.
    Publish,
    /// Replaces or deletes what others have of a repository's history.
    RewriteHistory,
    /// Runs what comes from the network.
    RunDownload,
    /// Opens a shell to somewhere else.
    RemoteShell,
    /// Reads what holds credentials, or sends files away.
    Disclose,
    /// Cannot be read: what it runs is known only when it runs.
    Obscured,
}

impl Effect {
    pub const ALL: [Effect; 9] = [
        Effect::Delete,
        Effect::Infrastructure,
        Effect::Privilege,
        Effect::Publish,
        Effect::RewriteHistory,
        Effect::RunDownload,
        Effect::RemoteShell,
        Effect::Disclose,
        Effect::Obscured,
    ];

    /// As it stands in recordings and in policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Delete => "delete",
            Effect::Infrastructure => "infrastructure",
            Effect::Privilege => "privilege",
            Effect::Publish => "publish",
            Effect::RewriteHistory => "rewrite-history",
            Effect::RunDownload => "run-download",
            Effect::RemoteShell => "remote-shell",
            Effect::Disclose => "disclose",
            Effect::Obscured => "obscured",
        }
    }
}

/// One thing that a command would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Risk {
    pub effect: Effect,
    /// Which command it is, in words of this module: nothing of the script stands in it.
    pub what: &'static str,
}

/// Why a script was not read to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unread {
    Long,
    Deep,
    Many,
}

impl Unread {
    fn risk(self) -> Risk {
        let what = match self {
            Self::Long => "a script that is too long to be read",
            Self::Deep => "a script that is nested too deeply to be read",
            Self::Many => "a script with too many commands to be read",
        };
        Risk { effect: Effect::Obscured, what }
    }
}

/// What a script would do: each risk once, in order.
pub fn assess(script: &str) -> Vec<Risk> {
    let mut judge = judge::Judge::default();
    if let Err(unread) = judge.script(script, 0) {
        judge.add(unread.risk());
    }
    judge.risks()
}

/// What a tool call would do whose arguments hold a command, as those of coding agents do: a
/// string or a list of words under a name such as `command`. Arguments that are no JSON are taken
/// for a script, unless they are the beginning of an object that was cut off.
pub fn assess_call(arguments: &str) -> Vec<Risk> {
    let mut judge = judge::Judge::default();
    let done = match serde_json::from_str::<Value>(arguments) {
        Ok(value) => call(&mut judge, &value, false),
        Err(_) if arguments.trim_start().starts_with(['{', '[']) => {
            let what = "arguments that are no JSON or were cut off";
            judge.add(Risk { effect: Effect::Obscured, what });
            Ok(())
        }
        Err(_) => judge.script(arguments, 0),
    };
    if let Err(unread) = done {
        judge.add(unread.risk());
    }
    judge.risks()
}

/// Languages of blocks of code that are commands of a shell. A block that says none may be.
const SHELLS: [&str; 24] = [
    "",
    "sh",
    "bash",
    "zsh",
    "ksh",
    "mksh",
    "dash",
    "ash",
    "fish",
    "csh",
    "tcsh",
    "shell",
    "shellscript",
    "shell-script",
    "console",
    "terminal",
    "term",
    "command",
    "commandline",
    "command-line",
    "cmdline",
    "cli",
    "unix",
    "linux",
];
/// Those whose text is a script that cannot be read.
const UNREAD: [&str; 17] = [
    "powershell",
    "pwsh",
    "posh",
    "ps",
    "ps1",
    "psm1",
    "ps1con",
    "cmd",
    "bat",
    "batch",
    "batchfile",
    "winbatch",
    "dos",
    "doscon",
    "nu",
    "nushell",
    "xonsh",
];

/// What a block of code would do that somebody runs. Only commands of a shell are read, with their
/// prompts; a block of another language has no effect that is known, unless it is for a shell
/// that is not read here.
pub fn assess_code(language: &str, text: &str) -> Vec<Risk> {
    // As in `{.bash .numberLines}` or `sh{1,3}`.
    let word = language.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let end =
        word.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))).unwrap_or(word.len());
    let word = word[..end].to_ascii_lowercase();
    let bare = ["-session", "_session", "session"].iter().find_map(|end| word.strip_suffix(end));
    // What stands there was seen on a screen: `#` is a prompt there, too.
    let screen = bare.is_some() || matches!(word.as_str(), "console" | "terminal" | "term");
    let word = bare.unwrap_or(&word);
    if UNREAD.contains(&word) {
        return vec![Risk { effect: Effect::Obscured, what: "a script for a shell that is not read" }];
    }
    if !SHELLS.contains(&word) {
        return Vec::new();
    }
    let lines: Vec<&str> = text.lines().map(|line| unprompted(line, screen)).collect();
    let bare = lines.join("\n");
    let mut risks = assess(&bare);
    // What looks like a prompt may be a command.
    if bare != text.trim_end() {
        for risk in assess(text) {
            if !risks.contains(&risk) {
                risks.push(risk);
            }
        }
    }
    risks
}

/// A line without the prompt that somebody copied along.
fn unprompted(line: &str, screen: bool) -> &str {
    let bare = line.trim_start();
    // `ann@host:~$ ls`, `[root@host /]# ls`, `$ ls`
    let told = bare.find(['$', '#', '%']).filter(|&at| {
        let before = &bare[..at];
        before.is_empty() && (screen || !bare.starts_with('#'))
            || before.contains('@') && !before.contains(['\'', '"', '=', ';'])
    });
    told.and_then(|at| bare[at + 1..].strip_prefix(' ')).unwrap_or(line)
}

/// Names under which tools take commands.
const NAMES: [&str; 12] =
    ["command", "commands", "cmd", "script", "code", "shell", "bash", "sh", "input", "stdin", "args", "argv"];

fn call(judge: &mut judge::Judge, value: &Value, named: bool) -> Result<(), Unread> {
    match value {
        Value::String(text) if named => judge.script(text, 0),
        Value::Array(list) if named && list.iter().all(Value::is_string) => {
            let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
            judge.argv(&words)?;
            // A list may also be of commands.
            list.iter().filter_map(Value::as_str).try_for_each(|text| judge.script(text, 0))
        }
        Value::Array(list) => list.iter().try_for_each(|value| call(judge, value, named)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            let named = named || NAMES.iter().any(|known| name.eq_ignore_ascii_case(known));
            call(judge, value, named)
        }),
        Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}
