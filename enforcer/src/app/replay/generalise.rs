//! From the paths that were seen to the globs of a rule.

use std::collections::{BTreeMap, BTreeSet};

/// Paths of one rule; beyond it, those of a folder become one.
pub const MAX_PATHS: usize = 64;
/// Files of one folder, beyond which they become `*`, if there are too many paths.
const MAX_FILES: usize = 8;
/// Digits of a number, or of a hexadecimal text, that is another one the next time.
const LONG_NUMBER: usize = 6;
const LONG_HEX: usize = 16;

/// Globs that match all of these canonical paths, and as little else as can be. What is
/// another one each time (hashes, UUIDs, long numbers) and what a glob cannot say is `*`.
/// No glob is wider than a folder of the first level.
pub fn globs(paths: &BTreeSet<&str>) -> BTreeSet<String> {
    let mut globs: BTreeSet<String> = paths.iter().map(|path| settled(path)).collect();
    if globs.len() > MAX_PATHS {
        globs = by_folder(&globs, MAX_FILES, "*");
    }
    // The deepest folders first, as long as there are too many.
    while globs.len() > MAX_PATHS {
        let fewer = deepest(&globs);
        if fewer == globs {
            break;
        }
        globs = fewer;
    }
    let wide: Vec<String> =
        globs.iter().filter_map(|glob| glob.strip_suffix("**")).map(str::to_owned).collect();
    globs.retain(|glob| !wide.iter().any(|folder| glob.starts_with(folder) && glob.len() > folder.len() + 2));
    globs
}

/// The same path with what changes as `*`.
fn settled(path: &str) -> String {
    let segments = path.split('/').map(|segment| if changes(segment) { "*" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

fn changes(segment: &str) -> bool {
    let hex = segment.bytes().filter(u8::is_ascii_hexdigit).count();
    let digits = segment.bytes().all(|byte| byte.is_ascii_digit());
    let is_id = hex + segment.bytes().filter(|byte| *byte == b'-').count() == segment.len()
        && hex >= LONG_HEX
        && segment.bytes().any(|byte| byte.is_ascii_digit());
    is_id
        || digits && segment.len() >= LONG_NUMBER
        || segment.contains(['*', '?', '[', ']', '{', '}', '\\', '#'])
}

fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Folders below the first level with more files than so many become one glob.
fn by_folder(globs: &BTreeSet<String>, more_than: usize, glob: &str) -> BTreeSet<String> {
    let mut folders: BTreeMap<&str, usize> = BTreeMap::new();
    for path in globs {
        *folders.entry(split(path).0).or_default() += 1;
    }
    let folded = |path: &String| {
        let (folder, _) = split(path);
        if !folder.is_empty() && folders[folder] > more_than {
            format!("{folder}/{glob}")
        } else {
            path.clone()
        }
    };
    globs.iter().map(folded).collect()
}

/// What lies in the deepest folders becomes `**`.
fn deepest(globs: &BTreeSet<String>) -> BTreeSet<String> {
    let depth = |path: &str| path.matches('/').count();
    let most = globs.iter().map(|path| depth(path)).max().unwrap_or_default();
    if most < 2 {
        return globs.clone();
    }
    let shorter = |path: &String| {
        if depth(path) < most {
            return path.clone();
        }
        let (folder, file) = split(path);
        // `/a/b/**` is of the folder `/a`, one level up.
        let up = if file == "**" { split(folder).0 } else { folder };
        if up.is_empty() { path.clone() } else { format!("{up}/**") }
    };
    globs.iter().map(shorter).collect()
}
