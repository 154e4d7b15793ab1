//! From the text of a shell script to its simple commands (POSIX 1003.1, 2.3 and 2.9, and what
//! bash adds to it). It follows quotes, substitutions, pipes, redirections and here-documents,
//! and expands nothing: a word whose text only a shell could know is marked.

use super::{DEPTH_MAX, Unread};

/// One word, without its quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// A part of it is known only when it runs.
    pub(super) dynamic: bool,
    /// Scripts whose output is a part of it: `$(...)`, backquotes, `<(...)`.
    pub(super) scripts: Vec<String>,
}

/// One simple command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) words: Vec<Word>,
    /// It reads what the command before it writes.
    pub(super) piped: bool,
    /// What it writes to, and what it reads from.
    pub(super) files: Vec<Word>,
    /// Here-documents and here-strings.
    pub(super) input: Vec<Word>,
}

/// The commands of a script, in their order.
pub(super) fn commands(text: &str) -> Result<Vec<Command>, Unread> {
    let mut lexer = Lexer { text: text.as_bytes(), ..Lexer::default() };
    while lexer.at < lexer.text.len() {
        lexer.step()?;
    }
    lexer.end_command(false);
    Ok(lexer.done)
}

/// What a word is for.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum For {
    #[default]
    Word,
    File,
    Input,
    /// The end mark of a here-document.
    Mark,
}

#[derive(Default)]
struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    done: Vec<Command>,
    command: Command,
    word: Option<(Vec<u8>, Word)>,
    purpose: For,
    /// The end marks of here-documents that begin behind this line, with the command and its
    /// input that they are for.
    marks: Vec<(String, usize, usize)>,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> u8 {
        self.text.get(self.at + ahead).copied().unwrap_or_default()
    }

    fn step(&mut self) -> Result<(), Unread> {
        let byte = self.peek(0);
        match byte {
            b' ' | b'\t' | b'\r' => self.end_word(),
            b'\n' => {
                self.end_command(false);
                self.at += 1;
                self.here_documents();
                return Ok(());
            }
            b'#' if self.word.is_none() => {
                while self.at < self.text.len() && self.peek(0) != b'\n' {
                    self.at += 1;
                }
                return Ok(());
            }
            b'&' if self.peek(1) == b'>' => return self.redirection(1),
            b';' | b'(' | b')' => self.end_command(false),
            b'&' => {
                self.end_command(false);
                self.at += usize::from(self.peek(1) == b'&');
            }
            b'|' => {
                let or = self.peek(1) == b'|';
                self.end_command(!or);
                self.at += usize::from(or || self.peek(1) == b'&');
            }
            b'<' | b'>' if self.peek(1) == b'(' => {
                let script = self.enclosed(1)?;
                let (_, word) = self.word.get_or_insert_default();
                word.dynamic = true;
                word.scripts.push(script);
                return Ok(());
            }
            b'<' | b'>' => return self.redirection(0),
            _ => return self.part(false),
        }
        self.at += 1;
        Ok(())
    }

    /// One part of a word, in double quotes or not.
    fn part(&mut self, quoted: bool) -> Result<(), Unread> {
        let byte = self.peek(0);
        match byte {
            b'\\' => {
                // Before a line's end it joins two lines.
                if self.peek(1) != b'\n' && self.at + 1 < self.text.len() {
                    let escaped = self.peek(1);
                    if quoted && !matches!(escaped, b'$' | b'`' | b'"' | b'\\') {
                        self.push(b'\\');
                    }
                    self.push(escaped);
                }
                self.at += 2;
            }
            b'\'' if !quoted => {
                self.at += 1;
                self.word.get_or_insert_default();
                while self.at < self.text.len() && self.peek(0) != b'\'' {
                    self.push(self.peek(0));
                    self.at += 1;
                }
                self.at += 1;
            }
            b'"' if !quoted => {
                self.at += 1;
                self.word.get_or_insert_default();
                while self.at < self.text.len() && self.peek(0) != b'"' {
                    self.part(true)?;
                }
                self.at += 1;
            }
            b'`' => {
                let from = self.at + 1;
                self.at = from;
                while self.at < self.text.len() && self.peek(0) != b'`' {
                    self.at += 1 + usize::from(self.peek(0) == b'\\');
                }
                let to = self.at.min(self.text.len());
                // In them a backslash takes the meaning of another away.
                let script = lossy(&self.text[from..to]).replace("\\`", "`").replace("\\\\", "\\");
                self.unknown(Some(script));
                self.at += 1;
            }
            b'$' => self.dollar(quoted)?,
            byte => {
                self.push(byte);
                self.at += 1;
            }
        }
        Ok(())
    }

    fn dollar(&mut self, quoted: bool) -> Result<(), Unread> {
        match self.peek(1) {
            b'(' => {
                let script = self.enclosed(1)?;
                self.unknown(Some(script));
            }
            b'\'' if !quoted => {
                self.at += 2;
                self.word.get_or_insert_default();
                self.ansi_c();
            }
            b'"' if !quoted => self.at += 1,
            b'{' => {
                let from = self.at;
                while self.at < self.text.len() && self.peek(0) != b'}' {
                    self.at += 1;
                }
                self.at += 1;
                let name = &self.text[(from + 2).min(self.text.len())..self.at.min(self.text.len())];
                self.variable(&name[..name.len().min(3)] == b"IFS", quoted);
            }
            byte if byte.is_ascii_alphabetic() || byte == b'_' => {
                let from = self.at + 1;
                self.at = from;
                while self.peek(0).is_ascii_alphanumeric() || self.peek(0) == b'_' {
                    self.at += 1;
                }
                self.variable(&self.text[from..self.at] == b"IFS", quoted);
            }
            byte if byte.is_ascii_digit() || b"@*#?-$!".contains(&byte) => {
                self.unknown(None);
                self.at += 2;
            }
            _ => {
                self.push(b'$');
                self.at += 1;
            }
        }
        Ok(())
    }

    /// What separates words does so written as a variable, too.
    fn variable(&mut self, separates: bool, quoted: bool) {
        if separates && !quoted {
            self.end_word();
        } else {
            self.unknown(None);
        }
    }

    /// `$'...'`: escapes as in C.
    fn ansi_c(&mut self) {
        while self.at < self.text.len() && self.peek(0) != b'\'' {
            if self.peek(0) != b'\\' {
                self.push(self.peek(0));
                self.at += 1;
                continue;
            }
            let (radix, skip, most) = match self.peek(1) {
                b'x' => (16, 2, 2),
                b'u' => (16, 2, 4),
                b'U' => (16, 2, 8),
                b'0'..=b'7' => (8, 1, 3),
                other => {
                    self.push(match other {
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        other => other,
                    });
                    self.at += 2;
                    continue;
                }
            };
            self.at += skip;
            let (mut value, mut digits) = (0_u32, 0);
            while let Some(digit) = char::from(self.peek(0)).to_digit(radix)
                && digits < most
            {
                value = value.wrapping_mul(radix) | digit;
                digits += 1;
                self.at += 1;
            }
            let character = char::from_u32(value).unwrap_or(char::REPLACEMENT_CHARACTER);
            for byte in character.encode_utf8(&mut [0; 4]).bytes() {
                self.push(byte);
            }
        }
        self.at += 1;
    }

    /// Goes behind the bracket that closes the one which is `ahead` bytes ahead, and gives what
    /// stands between.
    fn enclosed(&mut self, ahead: usize) -> Result<String, Unread> {
        let from = self.at + ahead + 1;
        let mut open = vec![b')'];
        let mut at = from;
        while let Some(&byte) = self.text.get(at) {
            let closing = open.last().copied().unwrap_or_default();
            match byte {
                b'\\' if closing != b'\'' => at += 1,
                byte if byte == closing => {
                    open.pop();
                    if open.is_empty() {
                        break;
                    }
                }
                _ if closing == b'\'' => {}
                b'\'' if closing == b')' => open.push(b'\''),
                b'"' => open.push(b'"'),
                b'(' if closing == b')' || self.text.get(at.wrapping_sub(1)) == Some(&b'$') => {
                    open.push(b')')
                }
                _ => {}
            }
            if open.len() > DEPTH_MAX {
                return Err(Unread::Deep);
            }
            at += 1;
        }
        let to = at.min(self.text.len());
        self.at = at + 1;
        Ok(lossy(&self.text[from.min(to)..to]))
    }

    /// `<`, `>` and what belongs to it, `ahead` bytes ahead.
    fn redirection(&mut self, ahead: usize) -> Result<(), Unread> {
        // The number of a descriptor stands right before it.
        let number = |(text, word): &(Vec<u8>, Word)| text.iter().all(u8::is_ascii_digit) && !word.dynamic;
        if self.word.as_ref().is_some_and(number) && self.purpose == For::Word {
            self.word = None;
        }
        self.end_word();
        self.at += ahead;
        let rest = &self.text[self.at..];
        let (length, purpose) = [
            (&b"<<<"[..], For::Input),
            (b"<<-", For::Mark),
            (b"<<", For::Mark),
            (b"<>", For::File),
            (b"<&", For::File),
            (b">>", For::File),
            (b">&", For::File),
            (b">|", For::File),
        ]
        .into_iter()
        .find(|(text, _)| rest.starts_with(text))
        .map_or((1, For::File), |(text, purpose)| (text.len(), purpose));
        self.at += length;
        while matches!(self.peek(0), b' ' | b'\t') {
            self.at += 1;
        }
        self.purpose = purpose;
        Ok(())
    }

    /// The lines up to the end marks of the line before.
    fn here_documents(&mut self) {
        for (mark, command, input) in std::mem::take(&mut self.marks) {
            let mut body = Vec::new();
            while self.at < self.text.len() {
                let rest = &self.text[self.at..];
                let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                let line = &rest[..length];
                self.at += (length + 1).min(rest.len());
                if line.trim_ascii_start() == mark.as_bytes() {
                    break;
                }
                body.extend_from_slice(line);
                body.push(b'\n');
            }
            let slot = self.done.get_mut(command).and_then(|command| command.input.get_mut(input));
            if let Some(slot) = slot {
                *slot = Word { text: lossy(&body), ..Word::default() };
            }
        }
    }

    fn push(&mut self, byte: u8) {
        self.word.get_or_insert_default().0.push(byte);
    }

    fn unknown(&mut self, script: Option<String>) {
        let (_, word) = self.word.get_or_insert_default();
        word.dynamic = true;
        word.scripts.extend(script);
    }

    fn end_word(&mut self) {
        let purpose = std::mem::take(&mut self.purpose);
        let Some((text, mut word)) = self.word.take() else {
            self.purpose = purpose;
            return;
        };
        word.text = lossy(&text);
        match purpose {
            For::Word if self.command.words.is_empty() && is_list(&word.text) => {
                // `{rm,-rf,/}` is written as one word and is three.
                let inside = word.text.trim_matches(['{', '}']).split(',');
                let words = inside.map(|part| Word { text: part.to_owned(), ..word.clone() });
                self.command.words.extend(words);
            }
            For::Word => self.command.words.push(word),
            For::File => self.command.files.push(word),
            For::Input => self.command.input.push(word),
            For::Mark => {
                self.marks.push((word.text, self.done.len(), self.command.input.len()));
                // Stands for the document until it comes.
                self.command.input.push(Word { dynamic: true, ..Word::default() });
            }
        }
    }

    /// `piped`: the next one reads from this one.
    fn end_command(&mut self, piped: bool) {
        self.end_word();
        self.purpose = For::Word;
        let command = std::mem::take(&mut self.command);
        let empty = command.words.is_empty() && command.files.is_empty() && command.input.is_empty();
        if !empty {
            self.done.push(command);
        }
        self.command.piped = piped;
    }
}

fn is_list(text: &str) -> bool {
    text.starts_with('{') && text.ends_with('}') && text.contains(',')
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
