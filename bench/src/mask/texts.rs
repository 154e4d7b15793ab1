//! The texts that engines are measured on, the same in every run: what an LLM streams, JSON
//! log lines, source files.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use enforcer::mask::Masker;
use enforcer_tests::chance::Chance;

use super::tokens;

/// What an engine gets at a time.
pub const BLOCK: usize = 64 * 1024;
/// How much text of each kind there is.
pub const TEXT: usize = 20 * 1024 * 1024;
/// How far apart secrets are.
const EVERY: usize = 4 * 1024;
/// A crate or a package gives at most so much, so that no generated table outweighs the rest.
const FROM_ONE: usize = 256 * 1024;
const FROM_FILE: usize = 48 * 1024;

/// A kind of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Llm,
    Logs,
    Source,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Llm, Self::Logs, Self::Source];

    pub fn name(self) -> &'static str {
        match self {
            Self::Llm => "LLM JSON",
            Self::Logs => "logs",
            Self::Source => "source",
        }
    }

    /// The whole text.
    fn raw(self) -> Result<Vec<u8>> {
        match self {
            Self::Llm => Ok(llm(TEXT)),
            Self::Logs => Ok(logs(TEXT)),
            Self::Source => source(TEXT),
        }
    }
}

/// A text in blocks.
pub struct Text {
    pub kind: Kind,
    pub secrets: bool,
    pub blocks: Vec<Bytes>,
    pub bytes: usize,
    /// How many secrets were put in.
    pub planted: usize,
}

/// The text of a kind without the blocks in which the engine finds something, and the same
/// with a secret in every 4 KiB.
pub fn both(kind: Kind, masker: &Masker) -> Result<[Text; 2]> {
    let raw = Bytes::from(kind.raw()?);
    let all = (0..raw.len() / BLOCK).map(|at| raw.slice(at * BLOCK..(at + 1) * BLOCK));
    let clean: Vec<Bytes> = all.filter(|block| masker.mask(block).1.is_empty()).collect();
    let bytes = clean.len() * BLOCK;
    ensure!(bytes >= TEXT * 3 / 4, "of {} only {bytes} bytes are without a hit", kind.name());
    let mut chance = Chance::seeded(4_096);
    let mut planted = 0;
    let with: Vec<Bytes> = clean.iter().map(|block| plant(block, &mut chance, &mut planted)).collect();
    let with_bytes = with.iter().map(Bytes::len).sum();
    let clean = Text { kind, secrets: false, blocks: clean, bytes, planted: 0 };
    Ok([clean, Text { kind, secrets: true, blocks: with, bytes: with_bytes, planted }])
}

/// A secret between two words of each 4 KiB.
fn plant(block: &[u8], chance: &mut Chance, planted: &mut usize) -> Bytes {
    let mut out = Vec::with_capacity(block.len() + 2048);
    for part in block.chunks(EVERY) {
        let from = chance.below(EVERY / 2);
        let at = memchr::memchr(b' ', &part[from.min(part.len())..]).map_or(0, |gap| from + gap);
        out.extend_from_slice(&part[..at]);
        out.push(b' ');
        out.extend_from_slice(&tokens::token(*planted, chance));
        out.push(b' ');
        out.extend_from_slice(&part[at..]);
        *planted += 1;
    }
    out.into()
}

const WORDS: &str = "the of and to a in is that for it as was with be by on not he his but at are this have \
    from or had an they which one you were all her she there would their we him been has when who will no \
    more if out so up said what its about than into them can only other time new some could these two may \
    first then do any like my now over such our man me even most made after also did many off before must \
    well back through years much where your way down should because long each just state those people too \
    little good world make very year still see own work men day get here old between both life being under \
    three never know same last another while us might great go come since against right came take used \
    himself few house use during without again place around however small found mrs part request response \
    server client token function return value error handler config default string buffer stream async await \
    test module import export class method object array index cache queue thread socket packet header body";

struct Words(Vec<String>);

impl Words {
    /// Common words, and rarer ones made of syllables.
    fn new(chance: &mut Chance) -> Self {
        let mut all: Vec<String> = WORDS.split_whitespace().map(str::to_owned).collect();
        let syllables =
            ["ra", "ti", "on", "con", "ver", "est", "pro", "al", "ment", "ing", "de", "sub", "ex", "lo"];
        for _ in 0..2_000 {
            let count = chance.between(2, 4);
            all.push((0..count).map(|_| chance.pick(&syllables)).collect());
        }
        Self(all)
    }

    /// As in a language, some of them much more often.
    fn one(&self, chance: &mut Chance) -> &str {
        let upto = if chance.one_in(4) { self.0.len() } else { 200 };
        &self.0[chance.below(upto.min(self.0.len()))]
    }
}

const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const HEX: &[u8] = b"0123456789abcdef";

fn random(chance: &mut Chance, alphabet: &[u8], count: usize) -> String {
    String::from_utf8_lossy(&chance.bytes_of(alphabet, count)).into_owned()
}

/// Chunks of OpenAI's chat completions, as they are streamed: one or two words each, now
/// and then code or a tool's arguments.
pub fn llm(bytes: usize) -> Vec<u8> {
    let mut chance = Chance::seeded(1);
    let words = Words::new(&mut chance);
    let mut out = String::with_capacity(bytes + 1024);
    while out.len() < bytes {
        let id = random(&mut chance, ALNUM, 29);
        let created = 1_750_000_000 + chance.below(20_000_000);
        let print = random(&mut chance, HEX, 10);
        for delta in 0..chance.between(40, 400) {
            let padding = chance.between(1, 16);
            let padding = random(&mut chance, ALNUM, padding);
            let content = match chance.below(24) {
                0 => "\\n\\n".to_owned(),
                1 => format!("`{}()`", words.one(&mut chance)),
                2 => format!(" {}", chance.below(10_000)),
                3 => ".".to_owned(),
                4 => format!(" \\\"{}\\\"", words.one(&mut chance)),
                _ => format!(" {}", words.one(&mut chance)),
            };
            let delta = match delta % 97 {
                96 => format!(
                    "{{\"tool_calls\":[{{\"index\":0,\"function\":{{\"arguments\":\"{{\\\"path\\\": \\\"src/{}.rs\"}}}}]}}",
                    words.one(&mut chance)
                ),
                _ => format!("{{\"content\":\"{content}\"}}"),
            };
            writeln!(
                out,
                "data: {{\"id\":\"chatcmpl-{id}\",\"object\":\"chat.completion.chunk\",\"created\":{created},\
                 \"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_{print}\",\
                 \"choices\":[{{\"index\":0,\"delta\":{delta},\"logprobs\":null,\"finish_reason\":null}}],\
                 \"usage\":null,\"obfuscation\":\"{padding}\"}}\n"
            )
            .ok();
        }
        out.push_str("data: [DONE]\n\n");
    }
    out.truncate(bytes);
    out.into_bytes()
}

/// One JSON object a line, as services write them.
pub fn logs(bytes: usize) -> Vec<u8> {
    let mut chance = Chance::seeded(2);
    let words = Words::new(&mut chance);
    let mut out = String::with_capacity(bytes + 1024);
    let mut at = 0;
    while out.len() < bytes {
        at += chance.below(40);
        let (minute, second, milli) = (at / 60_000 % 60, at / 1_000 % 60, at % 1_000);
        let level = chance.pick(&["info", "info", "info", "debug", "warn", "error"]);
        let trace = random(&mut chance, HEX, 32);
        let span = random(&mut chance, HEX, 16);
        write!(out, "{{\"ts\":\"2026-11-21T10:{minute:02}:{second:02}.{milli:03}Z\",\"level\":\"{level}\",")
            .ok();
        match chance.below(4) {
            0 | 1 => {
                let path = format!("/api/v1/{}/{}", words.one(&mut chance), chance.below(100_000));
                let method = chance.pick(&["GET", "GET", "POST", "PUT", "DELETE"]);
                let (status, bytes) = (chance.pick(&[200, 200, 201, 204, 404, 500]), chance.below(90_000));
                write!(
                    out,
                    "\"logger\":\"http.access\",\"msg\":\"handled request\",\"method\":\"{method}\",\
                     \"path\":\"{path}\",\"status\":{status},\"bytes\":{bytes},\"duration_ms\":{}.{:03},\
                     \"remote\":\"10.{}.{}.{}:{}\",\"user_agent\":\"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36\"",
                    chance.below(900), chance.below(1000), chance.below(256), chance.below(256),
                    chance.below(256), chance.between(1024, 65_000)
                )
            }
            2 => write!(
                out,
                "\"logger\":\"db.pool\",\"msg\":\"{} {} {}\",\"query\":\"SELECT {} FROM {} WHERE id = $1\",\"rows\":{}",
                words.one(&mut chance), words.one(&mut chance), words.one(&mut chance),
                words.one(&mut chance), words.one(&mut chance), chance.below(500)
            ),
            _ => {
                let text: Vec<&str> = (0..chance.between(4, 14)).map(|_| words.one(&mut chance)).collect();
                write!(
                    out,
                    "\"logger\":\"worker-{}\",\"msg\":\"{}\",\"pod\":\"{}-{}-{}\",\"file\":\"/srv/app/{}.py\",\"line\":{}",
                    chance.below(16), text.join(" "), words.one(&mut chance), random(&mut chance, HEX, 10),
                    random(&mut chance, HEX, 5), words.one(&mut chance), chance.below(900)
                )
            }
        }
        .ok();
        writeln!(out, ",\"trace_id\":\"{trace}\",\"span_id\":\"{span}\"}}").ok();
    }
    out.truncate(bytes);
    out.into_bytes()
}

/// The sources of this workspace's dependencies, as cargo has unpacked them, a little of each
/// in the order of their names, and of Python's library if there is one.
fn source(bytes: usize) -> Result<Vec<u8>> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let mut packages = Vec::new();
    for registry in sorted(&home.join("registry/src"))? {
        packages.extend(sorted(&registry)?);
    }
    packages.sort_by_key(|path| path.file_name().map(std::ffi::OsStr::to_owned));
    let mut out = Vec::with_capacity(bytes + FROM_FILE);
    let python = ["/usr/lib/python3", "/usr/lib/python3.11", "/usr/lib/python3.13"];
    for folder in python.iter().map(Path::new).filter(|it| it.exists()) {
        for part in sorted(folder)? {
            gather(&part, &mut out, bytes / 4, FROM_ONE)?;
        }
    }
    for package in &packages {
        gather(package, &mut out, bytes, FROM_ONE)?;
    }
    ensure!(out.len() >= bytes, "{} has only {} bytes of sources: build first", home.display(), out.len());
    out.truncate(bytes);
    Ok(out)
}

fn gather(path: &Path, out: &mut Vec<u8>, limit: usize, most: usize) -> Result<()> {
    let before = out.len();
    let mut open = vec![path.to_path_buf()];
    while let Some(path) = open.pop() {
        if out.len() >= limit || out.len() - before >= most {
            return Ok(());
        }
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            open.extend(sorted(&path)?.into_iter().rev());
        } else if path.extension().is_some_and(|ext| ["rs", "py", "js", "md"].iter().any(|it| ext == *it)) {
            let text = std::fs::read(&path)?;
            out.extend_from_slice(&text[..text.len().min(FROM_FILE)]);
        }
    }
    Ok(())
}

/// What stands in a folder, in the order of names.
pub fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_generated_is_the_same_each_time_and_has_the_form_it_should_have() {
        assert_eq!(llm(100_000), llm(100_000));
        assert_eq!(logs(100_000), logs(100_000));
        let lines = logs(100_000);
        let whole = lines.rsplitn(2, |b| *b == b'\n').nth(1).unwrap();
        for line in whole.split(|b| *b == b'\n') {
            serde_json::from_slice::<serde_json::Value>(line).unwrap();
        }
        let events = String::from_utf8(llm(100_000)).unwrap();
        let (whole, _) = events.rsplit_once("\n\n").unwrap();
        for event in whole.split("\n\n") {
            let data = event.strip_prefix("data: ").unwrap();
            assert!(data == "[DONE]" || serde_json::from_str::<serde_json::Value>(data).is_ok(), "{data}");
        }
    }

    #[test]
    fn a_secret_is_planted_in_every_four_kibibytes() {
        let block = logs(BLOCK);
        let mut planted = 0;
        let with = plant(&block, &mut Chance::seeded(1), &mut planted);
        assert_eq!(planted, 16);
        assert!(with.len() > block.len());
        assert!(memchr::memmem::find(&with, b" AKIA").is_some());
    }
}
