//! apt: `sources.list` in one-line and deb822 form (sources.list(5)), mirror lists
//! (apt-transport-mirror(1)).

use std::path::Path;

use super::{Search, Tool};

pub(super) fn search(search: &mut Search<'_>) {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_path_buf()];
    files.extend(search.entries(Path::new("/etc/apt/sources.list.d")));
    for path in files {
        let Some(text) = (match path.extension().and_then(|extension| extension.to_str()) {
            Some("list" | "sources") => search.read(&path),
            _ => None,
        }) else {
            continue;
        };
        let uris = if path.extension().is_some_and(|extension| extension == "sources") {
            deb822(&text)
        } else {
            one_line(&text)
        };
        for (line, uri) in uris {
            add(search, &uri, &format!("{} line {line}", path.display()));
        }
    }
}

fn add(search: &mut Search<'_>, uri: &str, source: &str) {
    let Some(list) = uri.strip_prefix("mirror") else {
        search.add(Tool::Apt, uri, source);
        return;
    };
    if let Some(path) = list.strip_prefix("+file:") {
        let path = Path::new("/").join(path.trim_start_matches('/'));
        let text = search.read(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            if let Some(uri) = line.split_whitespace().next().filter(|uri| !uri.starts_with('#')) {
                search.add(Tool::Apt, uri, &format!("{} line {}", path.display(), number + 1));
            }
        }
        return;
    }
    let uri = match list.strip_prefix('+') {
        Some(uri) => uri.to_owned(),
        None => format!("http{list}"),
    };
    search.add(Tool::Apt, &uri, source);
    search.note(format!("apt, {source}: a list of mirrors that is fetched; add rules for those in it"));
}

/// `deb [options] URI suite components`
fn one_line(text: &str) -> Vec<(usize, String)> {
    let uri = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim();
        let rest = line.strip_prefix("deb-src").or_else(|| line.strip_prefix("deb"))?;
        let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
        let rest = match rest.strip_prefix('[') {
            Some(options) => options.split_once(']')?.1,
            None => rest,
        };
        rest.split_whitespace().next().map(str::to_owned)
    };
    text.lines().enumerate().filter_map(|(number, line)| Some((number + 1, uri(line)?))).collect()
}

/// Stanzas of fields; a line that begins with a blank belongs to the field before.
fn deb822(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut stanza: Vec<(usize, String)> = Vec::new();
    let (mut enabled, mut field) = (true, String::new());
    for (number, line) in text.lines().chain([""]).enumerate() {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            if enabled {
                found.append(&mut stanza);
            }
            stanza.clear();
            (enabled, field) = (true, String::new());
            continue;
        }
        let value = match line.split_once(':') {
            Some((name, value)) if !line.starts_with([' ', '\t']) => {
                field = name.trim().to_ascii_lowercase();
                value
            }
            _ => line,
        };
        match field.as_str() {
            "uris" => stanza.extend(value.split_whitespace().map(|uri| (number + 1, uri.to_owned()))),
            "enabled" => {
                enabled = !["no", "false", "0", "off", "without", "disable"]
                    .contains(&value.trim().to_ascii_lowercase().as_str());
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_give_their_uris_and_lines() {
        let text = "# deb http://no.test/ x y\ndeb [ arch=amd64 signed-by=/a b.gpg ] https://a.test/x s c # z\n\
                    deb-src\thttp://b.test s c\ndebug http://no.test s\ndeb cdrom:[D]/ s c\ndeb [broken\n";
        let uris = [(2, "https://a.test/x"), (3, "http://b.test"), (5, "cdrom:[D]/")];
        assert_eq!(one_line(text), uris.map(|(line, uri)| (line, uri.to_owned())));
        let text = "Types: deb\n# a remark\nURIs: http://a.test/x\n  https://b.test\nSuites: s\n\n\
                    Enabled: no\nURIs: http://no.test\n\nuris: http://c.test http://d.test";
        let uris =
            [(3, "http://a.test/x"), (4, "https://b.test"), (10, "http://c.test"), (10, "http://d.test")];
        assert_eq!(deb822(text), uris.map(|(line, uri)| (line, uri.to_owned())));
    }
}
