//! From commands to what they would do.

use std::collections::{BTreeMap, BTreeSet};

use super::lex::{Command, Word, commands};
use super::table;
use super::{COMMANDS_MAX, DEPTH_MAX, Effect, READ_MAX_BYTES, Risk, SCRIPT_MAX_BYTES, Unread};

/// Words behind one that runs another command which are tried as that command: its options and
/// their values come first.
const TRIED_WORDS: usize = 6;
/// Words that may begin a command, of one; with more it is [`Effect::Obscured`].
const STARTS_MAX: usize = 64;
/// Commands of one pipe; with more it is [`Effect::Obscured`].
const PIPE_MAX: usize = 32;
/// Files that are remembered as downloaded, and so many as written.
pub(super) const FILES_MAX: usize = 64;

/// What reads a script from its input or its arguments.
const SHELLS: [&str; 8] = ["sh", "bash", "dash", "zsh", "ksh", "ash", "fish", "rbash"];
/// Others that run what they read.
const INTERPRETERS: [&str; 9] =
    ["python", "python3", "python2", "perl", "ruby", "node", "php", "deno", "pwsh"];
/// What fetches.
const DOWNLOADERS: [&str; 6] = ["curl", "wget", "fetch", "aria2c", "http", "https"];
/// What makes readable what was not.
const DECODERS: [&str; 10] =
    ["base64", "base32", "xxd", "openssl", "uudecode", "gunzip", "zcat", "rev", "tr", "gpg"];
/// What runs the command in its arguments.
const WRAPPERS: [&str; 38] = [
    "sudo",
    "doas",
    "pkexec",
    "su",
    "runuser",
    "env",
    "nohup",
    "time",
    "nice",
    "ionice",
    "timeout",
    "stdbuf",
    "setsid",
    "xargs",
    "command",
    "builtin",
    "exec",
    "busybox",
    "toybox",
    "unshare",
    "chroot",
    "watch",
    "strace",
    "script",
    "ssh",
    "docker",
    "podman",
    "kubectl",
    "nsenter",
    "flock",
    "parallel",
    "find",
    "eval",
    "chrt",
    "taskset",
    "systemd-run",
    "trap",
    "alias",
];
/// Words of the grammar that stand before a command.
const RESERVED: [&str; 13] =
    ["if", "then", "else", "elif", "while", "until", "do", "!", "{", "time", "coproc", "fi", "done"];

/// What was found so far.
#[derive(Default)]
pub(super) struct Judge {
    risks: BTreeSet<Risk>,
    commands: usize,
    /// Bytes of all scripts that were read, those inside of others again.
    bytes: usize,
    /// Files that a command before has downloaded.
    downloads: BTreeSet<String>,
    /// What a command before has written into files, as far as it is known.
    written: BTreeMap<String, Word>,
}

impl Judge {
    pub(super) fn add(&mut self, risk: Risk) {
        self.risks.insert(risk);
    }

    pub(super) fn risks(self) -> Vec<Risk> {
        self.risks.into_iter().collect()
    }

    fn risk(&mut self, effect: Effect, what: &'static str) {
        self.add(Risk { effect, what });
    }

    /// Looks at a script that stands inside of so many others.
    pub(super) fn script(&mut self, text: &str, depth: usize) -> Result<(), Unread> {
        if text.len() > SCRIPT_MAX_BYTES {
            return Err(Unread::Long);
        }
        if depth >= DEPTH_MAX {
            return Err(Unread::Deep);
        }
        self.bytes += text.len();
        let all = commands(text)?;
        self.commands += all.len();
        if self.commands > COMMANDS_MAX || self.bytes > READ_MAX_BYTES {
            return Err(Unread::Many);
        }
        // Where the pipe begins that a command reads from.
        let mut pipe = 0;
        for (at, command) in all.iter().enumerate() {
            if !command.piped {
                pipe = at;
            }
            if at - pipe >= PIPE_MAX {
                return Err(Unread::Many);
            }
            self.command(command, &all[pipe..at], depth)?;
        }
        Ok(())
    }

    /// Looks at a command whose words are known.
    pub(super) fn argv(&mut self, words: &[&str]) -> Result<(), Unread> {
        let word = |text: &&str| Word { text: (*text).to_owned(), ..Word::default() };
        let command = Command { words: words.iter().map(word).collect(), ..Command::default() };
        self.command(&command, &[], 0)
    }

    /// `before`: those that write to what it reads.
    fn command(&mut self, command: &Command, before: &[Command], depth: usize) -> Result<(), Unread> {
        for script in
            command.words.iter().chain(&command.files).chain(&command.input).flat_map(|w| &w.scripts)
        {
            self.script(script, depth + 1)?;
        }
        for file in &command.files {
            if let Some(risk) = table::file(&file.text) {
                self.add(risk);
            }
        }
        let words = &command.words;
        let starts = starts(words);
        if starts.len() > STARTS_MAX {
            return Err(Unread::Many);
        }
        for start in &starts {
            self.run(command, &words[*start..], before, depth)?;
            // Some hand one word to a shell: `ssh host 'rm -rf /'`, `alias x='rm -rf /'`.
            let text = &words[*start].text;
            if starts.first() != Some(start) && text.contains(char::is_whitespace) {
                let value = text.split_once('=').filter(|_| is_assignment(text));
                self.script(value.map_or(text.as_str(), |(_, value)| value), depth + 1)?;
            }
        }
        let first = starts.first().map(|start| &words[*start]);
        if first.is_some_and(|word| word.dynamic && word.text.is_empty()) {
            self.risk(Effect::Obscured, "a command whose name is known only when it runs");
        }
        self.remember(command);
        self.remember_written(command, before);
        Ok(())
    }

    /// Looks at one reading of a command: its name and its arguments.
    fn run(
        &mut self,
        command: &Command,
        words: &[Word],
        before: &[Command],
        depth: usize,
    ) -> Result<(), Unread> {
        let Some((first, rest)) = words.split_first() else { return Ok(()) };
        let name = name(first);
        let arguments: Vec<&str> = rest.iter().map(|word| word.text.as_str()).collect();
        for risk in table::program(name, &arguments) {
            self.add(risk);
        }
        if !before.is_empty() {
            for risk in table::piped(name, &arguments, before.iter().any(reads_secrets)) {
                self.add(risk);
            }
        }
        // `$(cat .env)` in what is sent.
        if DOWNLOADERS.contains(&name) && rest.iter().any(|word| word.scripts.iter().any(|s| secret(s))) {
            self.risk(Effect::Disclose, "a request with what a file or the environment holds");
        }
        if SHELLS.contains(&name) || INTERPRETERS.contains(&name) || matches!(name, "eval" | "source" | ".") {
            self.interpreter(name, rest, command, before, depth)?;
        } else if self.downloads.contains(file_name(&first.text)) {
            self.risk(Effect::RunDownload, "a program that was downloaded before");
        } else if let Some(text) = self.written.remove(file_name(&first.text)) {
            self.text_or_unknown(&text.text, text.dynamic, depth)?;
        }
        Ok(())
    }

    /// What runs a script, wherever it has that from.
    fn interpreter(
        &mut self,
        name: &str,
        arguments: &[Word],
        command: &Command,
        before: &[Command],
        depth: usize,
    ) -> Result<(), Unread> {
        for word in arguments.iter().chain(&command.files) {
            self.substituted(word);
            if let Some(text) = self.written.remove(file_name(&word.text)) {
                self.text_or_unknown(&text.text, text.dynamic, depth)?;
            }
            if self.downloads.contains(file_name(&word.text)) {
                self.risk(Effect::RunDownload, "a script that was downloaded before");
            }
        }
        let options: Vec<&Word> = arguments.iter().take_while(|word| word.text.starts_with('-')).collect();
        let shell = SHELLS.contains(&name);
        if name == "eval" {
            let text: Vec<&str> = arguments.iter().map(|word| word.text.as_str()).collect();
            return self.text_or_unknown(&text.join(" "), arguments.iter().any(|w| w.dynamic), depth);
        }
        // `-c`, alone or among others (`-lc`), `-e` of the others.
        let takes = |word: &Word| match word.text.strip_prefix('-') {
            Some("-command" | "-eval" | "-exec" | "-print") => true,
            Some(letters) if !letters.starts_with('-') => {
                letters.contains('c') || (!shell && letters.contains('e'))
            }
            _ => false,
        };
        if let Some(at) = arguments.iter().position(takes) {
            let Some(script) = arguments.get(at + 1) else { return Ok(()) };
            if shell {
                return self.text_or_unknown(&script.text, script.dynamic, depth);
            }
            for risk in table::code(&script.text) {
                self.add(risk);
            }
            return Ok(());
        }
        // Without a script's name it is read from the input.
        if matches!(name, "source" | ".") || arguments.len() > options.len() && !reads_input(arguments) {
            return Ok(());
        }
        for input in &command.input {
            self.substituted(input);
            if shell {
                self.text_or_unknown(&input.text, input.dynamic, depth)?;
            } else {
                for risk in table::code(&input.text) {
                    self.add(risk);
                }
            }
        }
        self.piped(before, depth)
    }

    /// What an interpreter is fed by a pipe.
    fn piped(&mut self, before: &[Command], depth: usize) -> Result<(), Unread> {
        for command in before {
            for start in starts(&command.words) {
                let Some((first, rest)) = command.words[start..].split_first() else { continue };
                let name = name(first);
                if DOWNLOADERS.contains(&name) {
                    self.risk(Effect::RunDownload, "a download that is piped into an interpreter");
                } else if DECODERS.contains(&name) {
                    self.risk(Effect::Obscured, "something decoded that is piped into an interpreter");
                } else if matches!(name, "echo" | "printf") {
                    let text: Vec<&str> = rest.iter().map(|word| word.text.as_str()).collect();
                    let dynamic = rest.iter().any(|word| word.dynamic);
                    self.text_or_unknown(&text.join(" "), dynamic, depth)?;
                } else if name == "cat" {
                    for input in &command.input {
                        self.text_or_unknown(&input.text, input.dynamic, depth)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A script whose text is known, as far as it is.
    fn text_or_unknown(&mut self, text: &str, dynamic: bool, depth: usize) -> Result<(), Unread> {
        if dynamic {
            self.risk(Effect::Obscured, "a script that is known only when it runs");
        }
        self.script(text, depth + 1)
    }

    /// The output of other scripts that is run.
    fn substituted(&mut self, word: &Word) {
        for script in &word.scripts {
            let Ok(inside) = commands(script) else { continue };
            let names =
                inside.iter().flat_map(|it| starts(&it.words).into_iter().map(|s| name(&it.words[s])));
            for name in names {
                if DOWNLOADERS.contains(&name) {
                    self.risk(Effect::RunDownload, "a download that is run");
                } else if DECODERS.contains(&name) {
                    self.risk(Effect::Obscured, "something decoded that is run");
                }
            }
        }
    }

    /// Remembers what a command downloads, for one that runs it later.
    fn remember(&mut self, command: &Command) {
        let words = &command.words;
        let fetches = |start: &usize| DOWNLOADERS.contains(&name(&words[*start]));
        let Some(start) = starts(words).into_iter().find(fetches) else { return };
        let named = words[start..].windows(2).filter_map(|pair| match pair[0].text.as_str() {
            "-o" | "--output" | "-O" | "--output-document" => Some(&pair[1].text),
            _ => None,
        });
        let last = words[start..].iter().map(|word| &word.text).filter(|text| text.contains('/'));
        let glued = words[start..].iter().filter_map(|word| word.text.strip_prefix("--output="));
        let files = command.files.iter().map(|file| &file.text);
        for file in named.chain(last).chain(files).map(String::as_str).chain(glued) {
            let file = file_name(file.split(['?', '#']).next().unwrap_or(file));
            if self.downloads.len() >= FILES_MAX {
                self.risk(Effect::Obscured, "more files than are followed");
            } else if !file.is_empty() && !file.starts_with('-') {
                self.downloads.insert(file.to_owned());
            }
        }
    }
}

impl Judge {
    /// Remembers what a command writes into files, for one that runs it later: `cat > f <<EOF`,
    /// `echo ... > f`, `echo ... | tee f`.
    fn remember_written(&mut self, command: &Command, before: &[Command]) {
        let Some(first) = command.words.first() else { return };
        let (source, files): (&Command, &[Word]) = match (name(first), before.last()) {
            ("tee", Some(last)) => (last, &command.words[1..]),
            ("tee", None) => (command, &command.words[1..]),
            ("cat" | "echo" | "printf", _) => (command, &command.files),
            _ => return,
        };
        let texts = source.input.iter().chain(source.words.iter().skip(1)).map(|word| word.text.as_str());
        let dynamic = source.input.iter().chain(&source.words).any(|word| word.dynamic);
        let text = texts.collect::<Vec<_>>().join(" ");
        for file in files.iter().map(|file| file_name(&file.text)).filter(|file| !file.starts_with('-')) {
            if self.written.len() >= FILES_MAX {
                self.risk(Effect::Obscured, "more files than are followed");
            } else {
                self.written.insert(file.to_owned(), Word { text: text.clone(), dynamic, ..Word::default() });
            }
        }
    }
}

/// Where in its words a command may begin: behind assignments and words of the grammar, and
/// wherever a word that runs others may have its command.
fn starts(words: &[Word]) -> Vec<usize> {
    let mut starts = Vec::new();
    let mut first = 0;
    while words.get(first).is_some_and(|word| is_assignment(&word.text) || is_reserved(word)) {
        first += 1;
    }
    if first < words.len() {
        starts.push(first);
    }
    let mut next = 0;
    while let Some(&at) = starts.get(next) {
        next += 1;
        if starts.len() > STARTS_MAX {
            break;
        }
        if !WRAPPERS.contains(&name(&words[at])) {
            continue;
        }
        // In order, and each once.
        let from = starts.last().map_or(at + 1, |last| last + 1).max(at + 1);
        starts.extend(from..words.len().min(at + 1 + TRIED_WORDS));
        // Behind these it stands for certain.
        let behind =
            words[at..].iter().position(|word| matches!(word.text.as_str(), "--" | "-exec" | "-execdir"));
        if let Some(behind) = behind.map(|offset| at + offset + 1).filter(|behind| *behind < words.len())
            && !starts.contains(&behind)
        {
            starts.push(behind);
        }
    }
    starts
}

fn is_assignment(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| {
        let fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !name.is_empty() && name.bytes().all(fine) && !name.as_bytes()[0].is_ascii_digit()
    })
}

fn is_reserved(word: &Word) -> bool {
    RESERVED.contains(&word.text.as_str())
}

fn name(word: &Word) -> &str {
    let name = file_name(&word.text);
    name.strip_suffix(".exe").unwrap_or(name)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Whether an interpreter reads its input though it has arguments.
fn reads_input(arguments: &[Word]) -> bool {
    arguments.iter().any(|word| matches!(word.text.as_str(), "-" | "-s" | "/dev/stdin"))
        || arguments.iter().any(|word| word.text.starts_with('-') && word.text.ends_with('s'))
}

/// Whether a command writes what it reads of credentials, or of the environment.
fn reads_secrets(command: &Command) -> bool {
    starts(&command.words).into_iter().any(|start| {
        let named = command.words[start..].iter().skip(1).any(|word| table::is_secret_file(&word.text));
        named || matches!(name(&command.words[start]), "env" | "printenv") && command.words.len() == start + 1
    }) || command.files.iter().any(|file| table::is_secret_file(&file.text))
}

/// Whether the output of a script holds credentials, or the environment.
fn secret(script: &str) -> bool {
    commands(script).is_ok_and(|commands| commands.iter().any(reads_secrets))
}
