//! What is found where nothing should be: packages' files, lock files, images in base64,
//! answers of registries, logs. `cargo xtask bench --only corpus` gathers them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::texts::sorted;
use anyhow::Result;
use enforcer::mask::{Masker, Selection};

/// Bytes that are shown around one.
const AROUND: usize = 40;
/// A crate gives at most so much, so that generated tables do not outweigh the rest.
const FROM_CRATE: u64 = 384 * 1024;
/// The longest file.
const FILE: u64 = 16 * 1024 * 1024;
/// Hits that are right.
const TRUE: &str = include_str!("../../corpus/true.txt");

#[derive(clap::Args)]
pub struct Args {
    /// A folder with a folder for each package
    #[arg(long)]
    packages: PathBuf,
    /// A folder with a folder for each crate
    #[arg(long)]
    crates: PathBuf,
    /// Where corpus.md and corpus-hits.txt come to stand
    #[arg(long)]
    dir: PathBuf,
}

/// The sets, and what is aimed at in false hits a MB.
const SETS: [(&str, Option<f64>); 3] = [("secrets", Some(0.2)), ("entropy", Some(0.05)), ("pii", None)];

/// What one file is.
fn kind(path: &Path, bytes: &[u8]) -> Option<&'static str> {
    let name = path.file_name()?.to_string_lossy().to_lowercase();
    if ["cargo.lock", "yarn.lock", "package-lock.json", "poetry.lock", "composer.lock"].contains(&&*name) {
        return Some("lock files");
    }
    let long_lines = || bytes.len() > 200 * (1 + memchr::memchr_iter(b'\n', bytes).count());
    Some(match path.extension()?.to_string_lossy().as_ref() {
        "rs" => "Rust",
        "py" | "pyi" => "Python",
        "js" | "mjs" | "cjs" if long_lines() => "minified JavaScript",
        "js" | "mjs" | "cjs" | "ts" | "jsx" | "tsx" => "JavaScript",
        "map" => "source maps",
        "answer" => "answers of registries",
        "json" | "toml" | "yml" | "yaml" => "JSON, TOML, YAML",
        "log" => "logs",
        "md" | "rst" | "txt" | "html" | "css" | "svg" | "po" => "text, HTML, CSS",
        "png" | "gif" | "jpg" | "jpeg" | "ico" | "woff" | "woff2" | "ttf" | "gz" | "mo" => "files in base64",
        _ => return None,
    })
}

#[derive(Default)]
struct Kind {
    files: usize,
    bytes: usize,
    /// False hits of each set.
    hits: [usize; SETS.len()],
}

#[derive(Default)]
struct Counted {
    kinds: BTreeMap<&'static str, Kind>,
    /// By set and rule: false hits, and how many are right.
    rules: BTreeMap<(usize, String), (usize, usize)>,
    /// Where hits of the sets with a goal stand.
    shown: Vec<String>,
}

pub fn run(args: &Args) -> Result<()> {
    let maskers = SETS.map(|(set, _)| Masker::new(&Selection::parse([set]).ok()?, &[]).ok());
    let mut counted = Counted::default();
    for (root, most) in [(&args.packages, u64::MAX), (&args.crates, FROM_CRATE)] {
        for package in sorted(root)? {
            let mut left = most;
            let mut files = Vec::new();
            gather(&package, &mut files)?;
            for path in files {
                let length = path.metadata()?.len();
                if length > left.min(FILE) {
                    continue;
                }
                left -= length;
                let name = path.strip_prefix(root).unwrap_or(&path);
                counted.file(&maskers, name, std::fs::read(&path)?)?;
            }
        }
    }
    let table = counted.table(&maskers);
    std::fs::create_dir_all(&args.dir)?;
    std::fs::write(args.dir.join("corpus.md"), &table)?;
    std::fs::write(args.dir.join("corpus-hits.txt"), counted.shown.join("\n"))?;
    println!("{table}\nWhere false hits stand: {}", args.dir.join("corpus-hits.txt").display());
    Ok(())
}

impl Counted {
    fn file(&mut self, maskers: &[Option<Masker>], name: &Path, bytes: Vec<u8>) -> Result<()> {
        use base64::Engine as _;
        let Some(kind) = kind(name, &bytes) else { return Ok(()) };
        let bytes = if kind == "files in base64" {
            let digits = base64::engine::general_purpose::STANDARD.encode(&bytes);
            format!("<img src=\"data:application/octet-stream;base64,{digits}\">\n").into_bytes()
        } else {
            bytes
        };
        let row = self.kinds.entry(kind).or_default();
        row.files += 1;
        row.bytes += bytes.len();
        for (set, masker) in maskers.iter().enumerate() {
            let Some(masker) = masker else { continue };
            let mut to = 0;
            let Ok(hits) = masker.explain(&bytes) else {
                // A limit: on its way through the gate it would be stopped, which is no less wrong.
                row.hits[set] += 1;
                self.rules.entry((set, "(stopped)".to_owned())).or_default().0 += 1;
                self.shown.push(format!("{} (stopped)\t{}", SETS[set].0, name.display()));
                continue;
            };
            for hit in hits {
                // What overlaps is one hit.
                if hit.from < to {
                    to = to.max(hit.to);
                    continue;
                }
                to = hit.to;
                let right = is_right(name, &hit.rule);
                let (wrong, rightly) = self.rules.entry((set, hit.rule.clone())).or_default();
                *(if right { rightly } else { wrong }) += 1;
                row.hits[set] += usize::from(!right);
                if SETS[set].1.is_some() && !right {
                    let (set, rule, what) =
                        (SETS[set].0, &hit.rule, around(masker, &bytes, hit.from, hit.to));
                    self.shown.push(format!(
                        "{set} {rule}\t{}:{}-{}\t{what}",
                        name.display(),
                        hit.from,
                        hit.to
                    ));
                }
            }
        }
        Ok(())
    }

    fn table(&self, maskers: &[Option<Masker>]) -> String {
        let mut out = String::from("| kind | files | MB |");
        SETS.iter().for_each(|(set, _)| out.push_str(&format!(" `{set}`, hits (a MB) |")));
        out.push_str("\n| --- | ---: | ---: | ---: | ---: | ---: |\n");
        let mut all = Kind::default();
        for (name, kind) in &self.kinds {
            line(&mut out, name, kind, maskers);
            all.files += kind.files;
            all.bytes += kind.bytes;
            all.hits.iter_mut().zip(kind.hits).for_each(|(sum, more)| *sum += more);
        }
        line(&mut out, "all", &all, maskers);
        out.push_str("\n| goal | must | measured | met |\n| --- | ---: | ---: | ---: |\n");
        for (set, (name, must)) in SETS.iter().enumerate() {
            let (Some(must), Some(_)) = (must, &maskers[set]) else { continue };
            let is = all.hits[set] as f64 / megabytes(all.bytes);
            let met = if is < *must { "yes" } else { "no" };
            writeln!(out, "| false hits of `{name}` in 1 MB | < {must} | {is:.3} | {met} |").ok();
        }
        out.push_str("\n| set | rule | false hits | right |\n| --- | --- | ---: | ---: |\n");
        let mut rules: Vec<_> = self.rules.iter().collect();
        rules.sort_by_key(|((set, _), (count, _))| (*set, std::cmp::Reverse(*count)));
        for ((set, rule), (wrong, right)) in &rules {
            writeln!(out, "| `{}` | {rule} | {wrong} | {right} |", SETS[*set].0).ok();
        }
        out
    }
}

fn megabytes(bytes: usize) -> f64 {
    (bytes as f64 / 1e6).max(1e-6)
}

fn line(out: &mut String, name: &str, kind: &Kind, maskers: &[Option<Masker>]) {
    write!(out, "| {name} | {} | {:.1} |", kind.files, megabytes(kind.bytes)).ok();
    for (set, masker) in maskers.iter().enumerate() {
        match masker {
            Some(_) => {
                let hits = kind.hits[set];
                write!(out, " {hits} ({:.3}) |", hits as f64 / megabytes(kind.bytes)).ok()
            }
            None => write!(out, " - |").ok(),
        };
    }
    out.push('\n');
}

/// Whether the list says that it is one.
fn is_right(name: &Path, rule: &str) -> bool {
    let name = name.to_string_lossy();
    TRUE.lines().filter(|line| !line.starts_with('#')).any(|line| {
        let mut fields = line.split('\t');
        let (Some(package), Some(path), Some(known)) = (fields.next(), fields.next(), fields.next()) else {
            return false;
        };
        let listed = format!("{package}/{path}");
        known == rule && (name == listed || listed.ends_with('/') && name.starts_with(&listed))
    })
}

/// What stands around a hit, itself masked.
fn around(masker: &Masker, bytes: &[u8], from: usize, to: usize) -> String {
    let part = &bytes[from.saturating_sub(AROUND)..(to + AROUND / 2).min(bytes.len())];
    let text = masker.mask(part).0.to_text().replace(['\n', '\r'], " ");
    let shape: String = bytes[from..to]
        .iter()
        .map(|b| match b {
            b'a'..=b'z' => 'a',
            b'A'..=b'Z' => 'A',
            b'0'..=b'9' => '0',
            other => char::from(*other),
        })
        .take(60)
        .collect();
    format!("{text} (of the shape {shape:?})")
}

fn gather(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_symlink() {
        return Ok(());
    }
    if path.is_dir() {
        for inner in sorted(path)? {
            gather(&inner, files)?;
        }
    } else {
        files.push(path.to_path_buf());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hits_are_counted_by_kind_and_rule_and_never_shown() {
        let token = format!("glpat-{}", "a1B2c3D4e5F6g7H8i9J0");
        let masker = Masker::new(&Selection::parse(["secrets"]).unwrap(), &[]).unwrap();
        let maskers = [Some(masker), None, None];
        let mut counted = Counted::default();
        let text = format!("let x = \"{token}\";\n{}", "// nothing\n".repeat(100));
        counted.file(&maskers, Path::new("package/lib.rs"), text.into_bytes()).unwrap();
        counted.file(&maskers, Path::new("package/unknown"), token.clone().into_bytes()).unwrap();
        let table = counted.table(&maskers);
        assert!(table.contains("| Rust | 1 |") && table.contains("| < 0.2 |"), "{table}");
        assert!(!table.contains(&token), "{table}");
        let shown = &counted.shown[0];
        assert!(shown.contains("[MASKED:") && !shown.contains("a1B2c3"), "{shown}");
    }
}
