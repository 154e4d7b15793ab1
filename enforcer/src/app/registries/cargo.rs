//! cargo: `config.toml`, variables, and what its cache says of registries it has used.

use std::path::{Path, PathBuf};

use super::address::Address;
use super::{Search, Tool};

pub(super) fn search(search: &mut Search<'_>) {
    let mut folders: Vec<PathBuf> = search.host.homes.iter().map(|home| home.join(".cargo")).collect();
    if let Some(home) = search.variable("CARGO_HOME").map(PathBuf::from)
        && !folders.contains(&home)
    {
        folders.push(home);
    }
    let mut found = Configured::default();
    for folder in folders.iter().map(PathBuf::as_path).chain([Path::new("/.cargo")]) {
        for name in ["config.toml", "config"] {
            found.read(search, &folder.join(name));
        }
    }
    let variables: Vec<(String, String)> = search
        .host
        .environment
        .iter()
        .filter(|(name, _)| name.starts_with("CARGO_REGISTRIES_") && name.ends_with("_INDEX"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for (name, url) in variables {
        found.add(search, &url, &format!("variable {name}"));
    }
    let mut cached = false;
    for folder in &folders {
        cached |= cache(search, folder, &found);
    }
    if !found.replaced && !cached {
        search.note(
            "cargo: its default registry is compiled in, and it cannot be asked for it: let it fetch once, which \
             fills its cache, and write this again; or name a mirror in its config.toml"
                .to_owned(),
        );
    }
}

/// What configuration says.
#[derive(Default)]
struct Configured {
    hosts: Vec<String>,
    /// Nothing is fetched from the default registry.
    replaced: bool,
}

impl Configured {
    fn read(&mut self, search: &mut Search<'_>, path: &Path) {
        let Some(text) = search.read(path) else { return };
        let source = path.display().to_string();
        let Ok(table) = text.parse::<toml::Table>() else {
            search.note(format!("cargo, {source}: not a TOML file"));
            return;
        };
        let tables = |key: &str| {
            let table = table.get(key).and_then(toml::Value::as_table);
            table.into_iter().flat_map(|table| table.iter())
        };
        for (name, of) in tables("source") {
            if name == "crates-io" && of.get("replace-with").is_some() {
                self.replaced = true;
            } else if let Some(url) = of.get("registry").and_then(toml::Value::as_str) {
                self.add(search, url, &source);
            }
        }
        for (_, of) in tables("registries") {
            if let Some(url) = of.get("index").and_then(toml::Value::as_str) {
                self.add(search, url, &source);
            }
        }
    }

    fn add(&mut self, search: &mut Search<'_>, url: &str, source: &str) {
        if search.add(Tool::Cargo, url, source)
            && let Ok((address, _)) = Address::parse(url)
        {
            self.hosts.push(address.host);
            if !url.trim().starts_with("sparse+") {
                search.note(format!(
                    "cargo, {source}: an index in git is fetched by POST, which the rules here do not allow; \
                     use the sparse index"
                ));
            }
        }
    }
}

/// cargo keeps each sparse index in a folder `HOST-HASH`, with the `config.json`
/// that says where the crates themselves are. Whether the default was there.
fn cache(search: &mut Search<'_>, home: &Path, configured: &Configured) -> bool {
    let mut default = false;
    for folder in search.entries(&home.join("registry/index")) {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some((host, _)) = name.rsplit_once('-') else { continue };
        let host = host.to_owned();
        let known = configured.hosts.contains(&host);
        if !known && configured.replaced {
            continue;
        }
        let path = folder.join("config.json");
        let Some(text) = search.read(&path) else { continue };
        let source = format!("cargo's cache, {}", path.display());
        if !known {
            search.add(Tool::Cargo, &format!("https://{host}"), &source);
            default = true;
        }
        let config = serde_json::from_str::<serde_json::Value>(&text).unwrap_or_default();
        if let Some(url) = config["dl"].as_str() {
            search.add(Tool::Cargo, &url.replace(['{', '}'], ""), &source);
        }
    }
    default
}
