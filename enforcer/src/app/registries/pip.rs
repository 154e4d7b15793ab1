//! pip and uv: configuration files and variables.

use std::path::{Path, PathBuf};

use super::{Search, Tool};

/// Prints the default index and the host of its files, as pip's source has them.
/// Isolated: nothing of the working folder or of a user is imported.
const DEFAULT: &[&str] = &[
    "-I",
    "-c",
    "from pip._internal.models.index import PyPI as p; print(p.simple_url); print('https://' + p.file_storage_domain)",
];

pub(super) fn search(search: &mut Search<'_>) {
    let mut replaced = false;
    for path in files(search) {
        let Some(text) = search.read(&path) else { continue };
        for (line, key, value) in ini(&text) {
            if ["index-url", "extra-index-url", "find-links"].contains(&key.as_str()) {
                let source = format!("{} line {line}", path.display());
                replaced |= add(search, &value, &source) && key == "index-url";
            }
        }
    }
    for (name, replaces) in [
        ("PIP_INDEX_URL", true),
        ("PIP_EXTRA_INDEX_URL", false),
        ("PIP_FIND_LINKS", false),
        ("UV_INDEX_URL", false),
        ("UV_DEFAULT_INDEX", false),
        ("UV_INDEX", false),
        ("UV_EXTRA_INDEX_URL", false),
        ("UV_FIND_LINKS", false),
    ] {
        if let Some(value) = search.variable(name).map(str::to_owned) {
            replaced |= add(search, &value, &format!("variable {name}")) && replaces;
        }
    }
    uv(search);
    if replaced {
        return;
    }
    let Some(answer) = (search.host.ask)("python3", DEFAULT) else {
        search.note("pip: no index is configured, and there is no pip to ask for its default".to_owned());
        return;
    };
    for url in answer.lines() {
        search.add(Tool::Pip, url, "pip's own default, as it says");
    }
}

fn files(search: &Search<'_>) -> Vec<PathBuf> {
    let mut files = vec![PathBuf::from("/etc/pip.conf"), PathBuf::from("/etc/xdg/pip/pip.conf")];
    for home in &search.host.homes {
        files.extend([home.join(".pip/pip.conf"), home.join(".config/pip/pip.conf")]);
    }
    let named = [("XDG_CONFIG_HOME", "pip/pip.conf"), ("VIRTUAL_ENV", "pip.conf"), ("PIP_CONFIG_FILE", "")];
    for (name, rest) in named {
        if let Some(value) = search.variable(name) {
            files.push(if rest.is_empty() { PathBuf::from(value) } else { Path::new(value).join(rest) });
        }
    }
    files.dedup();
    files
}

/// Several values stand beside each other; uv puts a name before some.
fn add(search: &mut Search<'_>, values: &str, source: &str) -> bool {
    let mut all = !values.trim().is_empty();
    for value in values.split([' ', '\t', '\n', ',']).filter(|value| !value.is_empty()) {
        let url = match value.split_once('=') {
            Some((name, url)) if !name.contains(['/', ':']) => url,
            _ => value,
        };
        all &= search.add(Tool::Pip, url, source);
    }
    all
}

/// Keys with their lines and values, whatever their section.
fn ini(text: &str) -> Vec<(usize, String, String)> {
    let mut found: Vec<(usize, String, String)> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.trim_start().starts_with(['#', ';', '[']) {
            continue;
        }
        if line.starts_with([' ', '\t'])
            && let Some((_, _, value)) = found.last_mut()
        {
            value.push(' ');
            value.push_str(line.trim());
        } else if let Some((key, value)) = line.split_once(['=', ':']) {
            let key = key.trim().to_ascii_lowercase().replace('_', "-");
            found.push((number + 1, key, value.trim().to_owned()));
        }
    }
    found
}

fn uv(search: &mut Search<'_>) {
    let mut files = vec![PathBuf::from("/etc/uv/uv.toml")];
    files.extend(search.host.homes.iter().map(|home| home.join(".config/uv/uv.toml")));
    for path in files {
        let Some(text) = search.read(&path) else { continue };
        let source = path.display().to_string();
        let Ok(table) = text.parse::<toml::Table>() else {
            search.note(format!("uv, {source}: not a TOML file"));
            continue;
        };
        let inner = table.get("pip").and_then(toml::Value::as_table);
        for table in [Some(&table), inner].into_iter().flatten() {
            for key in ["index-url", "extra-index-url", "find-links", "index"] {
                for value in table.get(key).map(each).unwrap_or_default() {
                    let url = value.get("url").unwrap_or(value);
                    if let Some(url) = url.as_str() {
                        search.add(Tool::Pip, url, &source);
                    }
                }
            }
        }
    }
}

fn each(value: &toml::Value) -> Vec<&toml::Value> {
    match value {
        toml::Value::Array(values) => values.iter().collect(),
        one => vec![one],
    }
}
