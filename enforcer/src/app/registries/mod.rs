//! A policy for the package registries that this host is set up to use.
//!
//! No registry's name stands in this program: each comes from the configuration of
//! a tool, or from the tool itself where it was left to its default. Nothing of a
//! URL is taken over but its scheme, host, port and, for apt, a path without secrets.

mod address;
mod apt;
mod cargo;
mod npm;
mod pip;
mod render;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use address::{Address, AddressError};

/// Bytes of one configuration file; a longer one is none.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The host that is looked at.
pub struct Host<'a> {
    /// Where its file system begins.
    pub root: PathBuf,
    /// Home folders, as paths on that host.
    pub homes: Vec<PathBuf>,
    pub environment: BTreeMap<String, String>,
    /// Runs a program and gives its output; `None` if it is not there or fails.
    pub ask: &'a dyn Fn(&str, &[&str]) -> Option<String>,
    /// The addresses of a name; none if it does not resolve.
    pub resolve: &'a dyn Fn(&str) -> Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tool {
    Apt,
    Pip,
    Npm,
    Cargo,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Tool::Apt => "apt",
            Tool::Pip => "pip",
            Tool::Npm => "npm",
            Tool::Cargo => "cargo",
        }
    }
}

/// One place that a tool fetches from, and what says so.
#[derive(Debug)]
struct Registry {
    tool: Tool,
    address: Address,
    source: String,
}

/// The policy and its tests, as texts of YAML files.
#[derive(Debug)]
pub struct Written {
    pub policy: String,
    pub tests: String,
    /// What the operator should know; it stands in the policy, too.
    pub notes: Vec<String>,
    pub rules: usize,
}

/// Why there is no policy.
#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("no registry is configured on this host, and no tool names a default{}", list(.0))]
    Nothing(Vec<String>),
    #[error("the policy that was written does not load: {0}")]
    DoesNotLoad(crate::policy::PolicyError),
}

fn list(notes: &[String]) -> String {
    notes.iter().map(|note| format!("\n  {note}")).collect()
}

/// Looks at the host and writes its policy.
pub fn policy(host: &Host<'_>) -> Result<Written, RegistriesError> {
    let mut search = Search { host, found: Vec::new(), notes: Vec::new() };
    apt::search(&mut search);
    pip::search(&mut search);
    npm::search(&mut search);
    cargo::search(&mut search);
    let Search { found, notes, .. } = search;
    if found.is_empty() {
        return Err(RegistriesError::Nothing(notes));
    }
    let written = render::render(&found, notes, host.resolve);
    // What is given to the operator loads, whatever the configuration held.
    crate::policy::Policy::from_text("registries.yaml", &written.policy)
        .map_err(RegistriesError::DoesNotLoad)?;
    Ok(written)
}

/// What was found so far.
struct Search<'a> {
    host: &'a Host<'a>,
    found: Vec<Registry>,
    notes: Vec<String>,
}

impl Search<'_> {
    /// A file of the host, if it is there.
    fn read(&mut self, path: &Path) -> Option<String> {
        let real = self.real(path);
        match fs::metadata(&real) {
            Ok(found) if found.len() > MAX_FILE_BYTES => {
                self.note(format!(
                    "{} is longer than {MAX_FILE_BYTES} bytes and was not read",
                    path.display()
                ));
                return None;
            }
            Ok(found) if found.is_file() => {}
            _ => return None,
        }
        match fs::read_to_string(&real) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.note(format!("{} was not read: {error}", path.display()));
                None
            }
        }
    }

    /// The entries of a folder of the host, by name.
    fn entries(&self, path: &Path) -> Vec<PathBuf> {
        let names = fs::read_dir(self.real(path)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = names.map(|entry| path.join(entry.file_name())).collect();
        paths.sort();
        paths
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.host.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.host.environment.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Takes a URL in; whether it was one that a rule can be written for.
    fn add(&mut self, tool: Tool, url: &str, source: &str) -> bool {
        let name = tool.name();
        match Address::parse(url) {
            Ok((mut address, secret)) => {
                if secret {
                    self.note(format!(
                        "{name}, {source}: the URL holds what looks like credentials; they are not copied"
                    ));
                }
                // Other tools fetch files from elsewhere on the host of the index.
                if tool != Tool::Apt {
                    address.path = None;
                }
                self.found.push(Registry { tool, address, source: source.to_owned() });
                true
            }
            Err(AddressError::Local) => true,
            Err(error) => {
                self.note(format!("{name}, {source}: {error}"));
                false
            }
        }
    }
}
