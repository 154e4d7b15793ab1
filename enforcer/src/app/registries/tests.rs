//! Whole hosts, as trees of files.

use std::path::Path;

use crate::policy::{Fact, Facts, Policy, Protocol, Stage, Verdict, WorkloadFacts};

use super::*;

/// A host with these files below a folder that goes with it.
struct Tree {
    dir: tempfile::TempDir,
    environment: BTreeMap<String, String>,
    answers: Vec<(&'static str, &'static str)>,
}

impl Tree {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self { dir, environment: BTreeMap::new(), answers: Vec::new() }
    }

    fn written(&self) -> Result<Written, RegistriesError> {
        let ask = |program: &str, _: &[&str]| {
            let answer = self.answers.iter().find(|(name, _)| *name == program)?;
            Some(answer.1.to_owned())
        };
        let resolve = |host: &str| match host {
            "mirror.corp.test" => vec!["10.1.2.3".parse().unwrap(), "fd00::5".parse().unwrap()],
            "metadata.test" => vec!["169.254.169.254".parse().unwrap()],
            "gone.test" => Vec::new(),
            _ => vec!["1.1.1.1".parse().unwrap()],
        };
        policy(&Host {
            root: self.dir.path().to_owned(),
            homes: vec![Path::new("/home/ci").to_owned()],
            environment: self.environment.clone(),
            ask: &ask,
            resolve: &resolve,
        })
    }
}

fn asks(policy: &str, method: &str, url: &str) -> Verdict {
    let policy = Policy::from_text("registries.yaml", policy).unwrap();
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_once('/').unwrap();
    let (default, protocol) = if scheme == "https" { (443, Protocol::Https) } else { (80, Protocol::Http) };
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, port.parse().unwrap()),
        None => (authority, default),
    };
    let workload = WorkloadFacts { name: "t".to_owned(), cgroup: String::new(), labels: BTreeMap::new() };
    let path = format!("/{path}");
    let facts = Facts {
        host: Fact::Known(host),
        port: Fact::Known(port),
        protocol: Fact::Known(protocol),
        method: Fact::Known(method),
        path: Fact::Known(&path),
        ..Facts::new(&workload, Stage::Http)
    };
    policy.decide(&facts).verdict
}

fn allows(policy: &str, urls: &[&str]) {
    for url in urls {
        assert_eq!(asks(policy, "GET", url), Verdict::Allow, "{url}\n{policy}");
        assert_eq!(asks(policy, "HEAD", url), Verdict::Allow, "{url}");
        assert_eq!(asks(policy, "POST", url), Verdict::Deny, "{url}");
        assert_eq!(asks(policy, "PUT", url), Verdict::Deny, "{url}");
    }
}

fn denies(policy: &str, urls: &[&str]) {
    for url in urls {
        assert_eq!(asks(policy, "GET", url), Verdict::Deny, "{url}\n{policy}");
    }
}

#[test]
fn every_tools_configuration_counts() {
    let tree = Tree::new(&[
        ("etc/apt/sources.list", "deb http://old.test/debian stable main\n"),
        ("etc/apt/sources.list.d/a.sources", "Types: deb\nURIs: https://new.test/debian\nSuites: s\n"),
        ("etc/apt/sources.list.d/m.list", "deb mirror+file:/etc/apt/mirrors.txt stable main\n"),
        ("etc/apt/mirrors.txt", "# mirrors\nhttps://third.test/debian\tpriority:1\n"),
        ("etc/apt/sources.list.d/x.list.save", "deb http://saved.test/ s c\n"),
        ("etc/pip.conf", "[global]\nindex_url = https://pip.test:8443/simple\n"),
        ("home/ci/.config/pip/pip.conf", "[install]\nfind-links =\n  https://links.test/x\n  /opt/wheels\n"),
        ("home/ci/.config/uv/uv.toml", "[[index]]\nname = \"a\"\nurl = \"https://uv.test/simple\"\n"),
        ("home/ci/.npmrc", "; no\nregistry=https://npm.test/\n@corp:registry = \"https://scope.test/n/\"\n"),
        (
            "home/ci/.cargo/config.toml",
            "[source.crates-io]\nreplace-with = \"m\"\n[source.m]\nregistry = \"sparse+https://crates.test/index/\"\n\
             [registries.own]\nindex = \"sparse+https://own.test/\"\n",
        ),
        (
            "home/ci/.cargo/registry/index/crates.test-0123/config.json",
            r#"{"dl": "https://dl.test/{crate}/{version}"}"#,
        ),
        ("home/ci/.cargo/registry/index/unused.test-0123/config.json", r#"{"dl": "https://unused.test/x"}"#),
    ]);
    let Written { policy, tests, notes, rules } = tree.written().unwrap();
    assert_eq!(notes, Vec::<String>::new());
    assert_eq!(rules, 11);
    allows(
        &policy,
        &[
            "http://old.test/debian/dists/x",
            "https://new.test/debian/x",
            "https://third.test/debian/x",
            "https://pip.test:8443/simple/x/",
            "https://pip.test:8443/packages/x.whl",
            "https://links.test/y",
            "https://uv.test/simple/x",
            "https://npm.test/x",
            "https://scope.test/x/-/x.tgz",
            "https://crates.test/index/config.json",
            "https://own.test/config.json",
            "https://dl.test/x/1.0.0",
        ],
    );
    denies(
        &policy,
        &[
            "http://old.test/other",
            "http://new.test/debian/x",
            "https://pip.test/simple/x/",
            "http://saved.test/x",
            "https://unused.test/x",
            "https://third.test.evil.test/debian/x",
        ],
    );
    assert!(policy.contains("  # From /etc/apt/sources.list line 1\n"), "{policy}");
    assert_eq!(tests.lines().count(), 1 + 3 * rules, "{tests}");
}

#[test]
fn tools_that_are_left_to_their_defaults_are_asked() {
    let mut tree = Tree::new(&[(
        "home/ci/.cargo/registry/index/index.test-0123/config.json",
        r#"{"dl": "https://dl.test/crates"}"#,
    )]);
    tree.answers =
        vec![("python3", "https://pypi.test/simple\nhttps://files.test\n"), ("npm", "https://npm.test/\n")];
    let written = tree.written().unwrap();
    allows(
        &written.policy,
        &[
            "https://pypi.test/simple/x/",
            "https://files.test/x",
            "https://npm.test/x",
            "https://index.test/x",
        ],
    );
    allows(&written.policy, &["https://dl.test/crates"]);
    // A variable takes the place of the default.
    tree.environment.insert("PIP_INDEX_URL".to_owned(), "https://own.test/simple".to_owned());
    tree.environment.insert("npm_config_registry".to_owned(), "https://own.test:8081/".to_owned());
    let written = tree.written().unwrap();
    allows(&written.policy, &["https://own.test/simple/x/", "https://own.test:8081/x"]);
    denies(&written.policy, &["https://pypi.test/simple/x/", "https://npm.test/x"]);
}

#[test]
fn a_host_that_says_nothing_gets_no_policy_but_says_why() {
    let error = Tree::new(&[]).written().unwrap_err().to_string();
    for tool in ["pip:", "npm:", "cargo:"] {
        assert!(error.contains(tool), "{error}");
    }
}

#[test]
fn no_credential_is_copied() {
    let password = ["s3cr3t", "p4ss"].concat();
    let key = ["a1b2c3d4e5", "f6a7b8c9d0"].concat();
    let mut tree = Tree::new(&[
        (
            "etc/apt/sources.list",
            &format!("deb https://u:{password}@a.test/debian s c\ndeb https://b.test/{key}/d s c\n"),
        ),
        ("etc/pip.conf", &format!("[global]\nindex-url = https://u:{password}@p.test/{key}/simple\n")),
        (
            "etc/npmrc",
            &format!("registry=https://n.test/?t={key}\n//n.test/:_authToken={key}\n@x:registry=${{NO}}\n"),
        ),
        ("home/ci/.cargo/config.toml", &format!("[registries.x]\nindex = \"git+ssh://{key}@h.test/x\"\n")),
    ]);
    tree.environment.insert("UV_INDEX".to_owned(), format!("own=https://u:{password}@u.test/simple"));
    let written = tree.written().unwrap();
    let all = format!("{}{}{:?}", written.policy, written.tests, written.notes);
    assert!(!all.contains(&password) && !all.contains(&key), "{all}");
    allows(
        &written.policy,
        &[
            "https://a.test/debian/x",
            "https://b.test/x/d",
            "https://p.test/x",
            "https://n.test/x",
            "https://u.test/x",
        ],
    );
    assert!(
        written.notes.iter().any(|note| note.contains("npmrc line 3: a variable")),
        "{:?}",
        written.notes
    );
    assert!(written.notes.iter().any(|note| note.contains("not an http")), "{:?}", written.notes);
}

#[test]
fn addresses_are_named_only_where_they_are_not_public() {
    let tree = Tree::new(&[(
        "etc/apt/sources.list",
        "deb http://mirror.corp.test/d s c\ndeb http://10.9.9.9/d s c\ndeb http://[fd00::7]:81/d s c\n\
         deb http://public.test/d s c\ndeb http://metadata.test/d s c\ndeb http://gone.test/d s c\n",
    )]);
    let written = tree.written().unwrap();
    assert!(written.policy.contains("addresses: [\"10.1.2.3\", \"fd00::5\"]"), "{}", written.policy);
    assert!(written.policy.contains("addresses: [\"10.9.9.9\"]"), "{}", written.policy);
    assert!(written.policy.contains("addresses: [\"fd00::7\"]"), "{}", written.policy);
    assert_eq!(written.policy.matches("addresses: [").count(), 3);
    assert!(!written.policy.contains("169.254.169.254\"]"));
    for about in ["metadata.test is at", "gone.test does not resolve"] {
        assert!(written.notes.iter().any(|note| note.contains(about)), "{:?}", written.notes);
    }
}
