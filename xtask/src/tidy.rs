//! Layers and lengths: what a reviewer would count by hand.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run::root;

/// The longest a source file may be, in lines.
const MAX_FILE_LINES: usize = 600;

/// The longest a function may be, in lines, its head included.
const MAX_FUNCTION_LINES: usize = 70;

/// Fails with every finding printed.
pub fn all() -> Result<()> {
    let root = root();
    let layers = layers(&root)?;
    let mut findings = Vec::new();
    for folder in ["enforcer", "enforcer-common", "enforcer-ebpf", "xtask", "tests", "bench"] {
        for file in sources(&root.join(folder)).with_context(|| folder.to_owned())? {
            let text = fs::read_to_string(&file)?;
            let name = file.strip_prefix(&root).unwrap_or(&file).to_path_buf();
            lengths(&name, &text, &mut findings);
            functions(&name, &text, &mut findings);
            uses(&name, &text, &layers, &mut findings);
        }
    }
    for finding in &findings {
        eprintln!("tidy: {finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    println!("tidy: layers and lengths hold");
    Ok(())
}

/// The modules of `enforcer` in the order in which lib.rs lists them.
fn layers(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join("enforcer/src/lib.rs")).context("enforcer/src/lib.rs")?;
    Ok(text
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .map(str::to_owned)
        .collect())
}

fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(sources(&path)?);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

fn lengths(name: &Path, text: &str, findings: &mut Vec<String>) {
    let lines = text.lines().count();
    if lines > MAX_FILE_LINES {
        findings.push(format!("{} has {lines} lines, more than {MAX_FILE_LINES}", name.display()));
    }
}

/// As rustfmt lays them out: a function ends at the brace that stands as far to
/// the right as its head.
fn functions(name: &Path, text: &str, findings: &mut Vec<String>) {
    let mut open: Vec<(usize, usize)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words = line.trim_start();
        if is_head(words) && !words.ends_with(['}', ';']) {
            open.push((indent, number));
        } else if words == "}"
            && let Some((_, head)) = open.pop_if(|(at, _)| *at == indent)
        {
            let lines = number - head + 1;
            if lines > MAX_FUNCTION_LINES {
                let at = format!("{}:{}", name.display(), head + 1);
                findings.push(format!("{at}: a function of {lines} lines, more than {MAX_FUNCTION_LINES}"));
            }
        }
    }
}

fn is_head(words: &str) -> bool {
    let before = words.split("fn ").next().unwrap_or_default();
    let qualifier = |word: &str| {
        ["pub", "async", "const", "unsafe", "extern", "\"C\""].contains(&word) || word.starts_with("pub(")
    };
    words.contains("fn ") && before.split_whitespace().all(|word| qualifier(word) || word.ends_with(')'))
}

/// A module may use only modules that stand before it in lib.rs.
fn uses(name: &Path, text: &str, layers: &[String], findings: &mut Vec<String>) {
    let Ok(inner) = name.strip_prefix("enforcer/src") else { return };
    let Some(own) = inner.components().next().map(|c| c.as_os_str().to_string_lossy().into_owned()) else {
        return;
    };
    let Some(rank) = layers.iter().position(|layer| *layer == own) else { return };
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("crate::") {
            let used: String =
                line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if layers.iter().position(|layer| *layer == used).is_some_and(|other| other > rank) {
                findings.push(format!("{}:{}: `{own}` uses `{used}`", name.display(), number + 1));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_to_the_right_is_found() {
        let layers = ["net", "proxy"].map(str::to_owned);
        let mut findings = Vec::new();
        uses(Path::new("enforcer/src/net/mod.rs"), "use crate::proxy::X;", &layers, &mut findings);
        assert_eq!(findings.len(), 1);
        uses(Path::new("enforcer/src/proxy/mod.rs"), "use crate::net::X;", &layers, &mut findings);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn a_function_may_have_the_limit_and_no_line_more() {
        for head in ["fn f() {", "pub(in crate::a) const unsafe fn f() {", "pub async fn f(\n    a: u8,\n) {"]
        {
            for (lines, found) in [(MAX_FUNCTION_LINES, 0), (MAX_FUNCTION_LINES + 1, 1)] {
                let body = "    x();\n".repeat(lines - head.lines().count() - 1);
                let text = format!("impl A {{\n{head}\n{body}}}\n}}\n").replace('\n', "\n    ");
                let mut findings = Vec::new();
                functions(Path::new("a.rs"), &text, &mut findings);
                assert_eq!(findings.len(), found, "{head} {lines}");
            }
        }
    }

    #[test]
    fn a_file_may_have_the_limit_and_no_line_more() {
        let mut findings = Vec::new();
        lengths(Path::new("a.rs"), &"x\n".repeat(MAX_FILE_LINES), &mut findings);
        assert!(findings.is_empty());
        lengths(Path::new("a.rs"), &"x\n".repeat(MAX_FILE_LINES + 1), &mut findings);
        assert_eq!(findings.len(), 1);
    }
}
