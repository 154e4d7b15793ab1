//! Blocks of code in a text in Markdown, read as it comes.
//!
//! ```text
//!  lines --+--> no fence: nothing is kept
//!          +--> ``` or ~~~, or what may become one: kept until the block has ended
//! ```
//! There are two readings: that of `CommonMark` outside of quotes and of what is inside of items
//! of lists, and a loose one that takes a fence behind any indent or quote. Clients have both.

use super::keep::CallError;

/// Bytes of a block of code, its fences included.
pub const CODE_MAX_BYTES: usize = 256 * 1024;
/// A fence has so many marks at least.
const MARKS_MIN: usize = 3;
/// So deep blocks in blocks are looked for, and one that is deeper is told apart by nobody.
const INSIDE_MAX: usize = 4;
/// Spaces before a fence that is no part of a list.
const INDENT_MAX: usize = 3;

/// A block of code with its language, as its fence says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub language: Vec<u8>,
    pub text: Vec<u8>,
}

/// Where in a line it reads that is in no block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before anything but marks of lists and quotes.
    Begin,
    /// In what may be a fence.
    Marks(u8, usize),
    /// Behind one.
    Info(u8, usize),
    /// There is none in this line.
    Other,
}

/// A block whose end has not come.
#[derive(Debug)]
struct Open {
    mark: u8,
    marks: usize,
    indent: usize,
    /// It began an item of a list.
    item: bool,
    quotes: usize,
    language: Vec<u8>,
    text: Vec<u8>,
}

/// One reading of one text.
#[derive(Debug)]
pub struct Fences {
    loose: bool,
    at: At,
    /// Of the line before its fence.
    indent: usize,
    spaces: usize,
    item: bool,
    quotes: usize,
    /// The last byte before a fence, if one may stand behind it.
    clear: bool,
    /// What stands behind a fence, or the line of a block so far.
    line: Vec<u8>,
    open: Option<Open>,
    /// A line ended with CR.
    cr: bool,
    blocks: Vec<Block>,
    /// In how many blocks it reads.
    inside: usize,
}

impl Fences {
    pub fn new(loose: bool) -> Self {
        Self {
            loose,
            at: At::Begin,
            indent: 0,
            spaces: 0,
            item: false,
            quotes: 0,
            clear: true,
            line: Vec::new(),
            open: None,
            cr: false,
            blocks: Vec::new(),
            inside: 0,
        }
    }

    /// Whether a block is open, or what has come may be the beginning of one.
    pub fn keeps(&self) -> bool {
        self.open.is_some() || matches!(self.at, At::Marks(..) | At::Info(..))
    }

    pub fn push(&mut self, text: &[u8]) -> Result<(), CallError> {
        text.iter().try_for_each(|&byte| self.byte(byte))
    }

    /// Nothing follows: a block that is open ends.
    pub fn finish(&mut self) -> Result<(), CallError> {
        let inside = self.open.is_some();
        self.end_line()?;
        let Some(mut open) = self.open.take() else { return Ok(()) };
        // The last line had no end of its own.
        if inside {
            open.text.pop();
        }
        self.closes(open)
    }

    /// Those that have ended.
    pub fn take(&mut self) -> Vec<Block> {
        std::mem::take(&mut self.blocks)
    }

    fn byte(&mut self, byte: u8) -> Result<(), CallError> {
        let after_cr = std::mem::replace(&mut self.cr, byte == b'\r');
        if byte == b'\n' && after_cr {
            return Ok(());
        }
        if matches!(byte, b'\n' | b'\r') {
            return self.end_line();
        }
        if self.open.is_none() {
            self.outside(byte);
            return self.measure();
        }
        self.line.push(byte);
        self.measure()
    }

    fn measure(&self) -> Result<(), CallError> {
        let open = self.open.as_ref().map_or(0, |open| open.language.len() + open.text.len());
        if open + self.line.len() > CODE_MAX_BYTES { Err(CallError::CodeTooLong) } else { Ok(()) }
    }

    fn outside(&mut self, byte: u8) {
        self.at = match (self.at, byte) {
            (At::Begin, b'`' | b'~') if self.clear => At::Marks(byte, 1),
            (At::Begin, b' ') if self.loose || self.spaces < INDENT_MAX => {
                self.before(byte);
                At::Begin
            }
            (At::Begin, _) if is_item(byte) || self.loose && (byte == b'>' || is_blank(byte)) => {
                self.before(byte);
                At::Begin
            }
            (At::Marks(mark, marks), _) if byte == mark => At::Marks(mark, marks + 1),
            (At::Marks(mark, marks) | At::Info(mark, marks), _)
                if marks >= MARKS_MIN && !(mark == b'`' && byte == b'`') =>
            {
                self.line.push(byte);
                At::Info(mark, marks)
            }
            _ => At::Other,
        };
        if self.at == At::Other {
            self.line.clear();
        }
    }

    /// What stands before a fence.
    fn before(&mut self, byte: u8) {
        self.clear = matches!(byte, b' ' | b'>') || is_blank(byte);
        self.indent += usize::from(byte != b'>');
        self.spaces += usize::from(byte == b' ');
        self.item |= is_item(byte);
        self.quotes += usize::from(byte == b'>');
    }

    fn end_line(&mut self) -> Result<(), CallError> {
        let line = std::mem::take(&mut self.line);
        let Some(mut open) = self.open.take() else {
            self.opens(&line);
            return Ok(());
        };
        let (quotes, inside) = unquoted(&line, open.quotes);
        if quotes < open.quotes {
            // The quote has ended, and its block with it.
            self.closes(open)?;
            line.iter().for_each(|&byte| self.outside(byte));
            let line = std::mem::take(&mut self.line);
            self.opens(&line);
            return Ok(());
        }
        if self.is_end(inside, &open) {
            return self.closes(open);
        }
        let indent = inside.iter().take(open.indent).take_while(|byte| byte.is_ascii_whitespace()).count();
        open.text.extend_from_slice(&inside[indent..]);
        open.text.push(b'\n');
        self.open = Some(open);
        self.measure()
    }

    /// At the end of a line that is in no block.
    fn opens(&mut self, info: &[u8]) {
        let (indent, quotes) = (std::mem::take(&mut self.indent), std::mem::take(&mut self.quotes));
        let item = std::mem::take(&mut self.item);
        self.spaces = 0;
        self.clear = true;
        match std::mem::replace(&mut self.at, At::Begin) {
            At::Marks(mark, marks) | At::Info(mark, marks) if marks >= MARKS_MIN => {
                let word = info.split(u8::is_ascii_whitespace).find(|word| !word.is_empty());
                let language = named(word.unwrap_or_default());
                self.open = Some(Open { mark, marks, indent, item, quotes, language, text: Vec::new() });
            }
            _ => {}
        }
    }

    /// A fence that is none for a client (in a comment, behind an item that has ended) makes one block
    /// of what it has several in: those are blocks, too.
    fn closes(&mut self, open: Open) -> Result<(), CallError> {
        if self.inside > INSIDE_MAX {
            return Err(CallError::CodeAmbiguous);
        }
        let mut inside = Self { inside: self.inside + 1, ..Self::new(true) };
        inside.push(&open.text)?;
        inside.finish()?;
        // Fences alone do nothing.
        inside.blocks.retain(|block| !block.text.trim_ascii().is_empty());
        self.blocks.push(Block { language: open.language, text: open.text });
        self.blocks.append(&mut inside.blocks);
        Ok(())
    }

    fn is_end(&self, line: &[u8], open: &Open) -> bool {
        let indent = line.iter().take_while(|&&byte| byte == b' ' || self.loose && byte == b'\t').count();
        let rest = &line[indent..];
        let marks = rest.iter().take_while(|&&byte| byte == open.mark).count();
        let around = if open.item { open.indent } else { 0 };
        (self.loose || indent <= INDENT_MAX + around)
            && marks >= open.marks
            && rest[marks..].iter().all(|byte| matches!(byte, b' ' | b'\t'))
    }
}

/// A language without what some write around it. What is not written as itself is not told.
fn named(word: &[u8]) -> Vec<u8> {
    let word = word.to_ascii_lowercase();
    if word.contains(&b'&') || word.contains(&b'\\') {
        return Vec::new();
    }
    let from = word.iter().position(|byte| !matches!(byte, b'{' | b'.' | b'"' | b'\''));
    let word = &word[from.unwrap_or(word.len())..];
    let to = word.iter().position(|byte| b"{}:,;=()[]\"'".contains(byte));
    word[..to.unwrap_or(word.len())].to_vec()
}

/// A tab, VT or FF, and a BOM.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b'\t' | 0x0b | 0x0c | 0xef | 0xbb | 0xbf)
}

/// What may stand before a fence that begins an item of a list.
fn is_item(byte: u8) -> bool {
    matches!(byte, b'-' | b'*' | b'+' | b'.' | b')' | b'0'..=b'9')
}

/// A line without so many marks of a quote, and how many there were.
fn unquoted(line: &[u8], quotes: usize) -> (usize, &[u8]) {
    let (mut found, mut rest) = (0, line);
    while found < quotes {
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        if rest.get(blank) != Some(&b'>') {
            break;
        }
        (found, rest) = (found + 1, &rest[blank + 1..]);
    }
    if found > 0 && rest.first() == Some(&b' ') {
        rest = &rest[1..];
    }
    (found, rest)
}
