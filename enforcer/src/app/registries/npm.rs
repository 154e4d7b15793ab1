//! npm: `npmrc` files and variables.

use std::path::PathBuf;

use super::{Search, Tool};

pub(super) fn search(search: &mut Search<'_>) {
    let mut files = ["/etc/npmrc", "/usr/etc/npmrc", "/usr/local/etc/npmrc"].map(PathBuf::from).to_vec();
    files.extend(search.host.homes.iter().map(|home| home.join(".npmrc")));
    for name in ["NPM_CONFIG_USERCONFIG", "NPM_CONFIG_GLOBALCONFIG"] {
        files.extend(search.variable(name).map(PathBuf::from));
    }
    let mut replaced = false;
    for path in files {
        let Some(text) = search.read(&path) else { continue };
        for (number, line) in text.lines().enumerate() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let key = key.trim();
            if key.starts_with([';', '#']) || !names_registry(key) {
                continue;
            }
            let source = format!("{} line {}", path.display(), number + 1);
            match expand(search, value.trim()) {
                Some(url) => replaced |= search.add(Tool::Npm, &url, &source) && key == "registry",
                None => search.note(format!("npm, {source}: a variable in it is not set here")),
            }
        }
    }
    let variables = search.host.environment.iter();
    let variables: Vec<(String, String)> = variables
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, value)| {
            let key = name.to_ascii_lowercase().strip_prefix("npm_config_")?.to_owned();
            names_registry(&key).then(|| (name.clone(), value.clone()))
        })
        .collect();
    for (name, url) in variables {
        let whole = name.eq_ignore_ascii_case("npm_config_registry");
        replaced |= search.add(Tool::Npm, &url, &format!("variable {name}")) && whole;
    }
    if replaced {
        return;
    }
    match (search.host.ask)("npm", &["config", "get", "registry"]) {
        Some(url) => {
            search.add(Tool::Npm, &url, "npm's own default, as `npm config get registry` says");
        }
        None => search.note("npm: no registry is configured, and there is no npm to ask".to_owned()),
    }
}

/// `registry`, or that of a scope.
fn names_registry(key: &str) -> bool {
    key == "registry" || (key.starts_with('@') && key.ends_with(":registry"))
}

/// `${NAME}` stands for a variable.
fn expand(search: &Search<'_>, value: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}')?;
        text.push_str(before);
        text.push_str(search.variable(name)?);
        rest = after;
    }
    Some(text + rest)
}
