//! From registries to the texts of a policy and its tests.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::app::yaml::{plain, quoted};
use crate::policy::AddressRules;
use crate::proxy::resolve::{self, Special};

use super::{Registry, Tool, Written};

const HEAD: &str = "\
# Fetching packages, as this host is set up to do it. Written by
# `enforcer policy init registries`; the file is yours to change.
";

/// Registries that one rule is for: the same tool and the same host.
#[derive(Default)]
struct Rule {
    /// Empty: any path.
    paths: BTreeSet<String>,
    any_path: bool,
    sources: Vec<String>,
}

type Key<'a> = (Tool, &'a str, u16, bool);

pub(super) fn render(
    found: &[Registry],
    mut notes: Vec<String>,
    addresses_of: &dyn Fn(&str) -> Vec<IpAddr>,
) -> Written {
    let mut rules: BTreeMap<Key<'_>, Rule> = BTreeMap::new();
    for Registry { tool, address, source } in found {
        let rule = rules.entry((*tool, &address.host, address.port, address.tls)).or_default();
        if !rule.sources.contains(source) {
            rule.sources.push(source.clone());
        }
        match &address.path {
            Some(path) => _ = rule.paths.insert(path.clone()),
            None => rule.any_path = true,
        }
    }
    let (mut policy, mut tests) = (String::new(), String::from("tests:\n"));
    let mut number = 0;
    let mut of = None;
    for (key, rule) in &rules {
        number = if of == Some(key.0) { number + 1 } else { 1 };
        of = Some(key.0);
        let addresses = special(key.1, addresses_of, &mut notes);
        one_rule(&mut policy, &format!("{}-{number}", key.0.name()), key, rule, &addresses);
        one_test(&mut tests, key, rule);
    }
    let mut head = HEAD.to_owned();
    for note in &notes {
        head += &format!("#\n# Note: {}\n", plain(note));
    }
    let policy = format!("{head}version: 1\nname: registries\nrules:\n{policy}");
    Written { policy, tests, notes, rules: rules.len() }
}

fn one_rule(out: &mut String, id: &str, key: &Key<'_>, rule: &Rule, addresses: &[IpAddr]) {
    let (_, host, port, tls) = key;
    for source in &rule.sources {
        *out += &format!("  # From {}\n", plain(source));
    }
    let protocol = if *tls { "https" } else { "http" };
    *out += &format!(
        "  - id: {id}\n    when:\n      host: {}\n      port: {port}\n      protocol: {protocol}\n      method: [GET, HEAD]\n",
        quoted(host)
    );
    if !rule.any_path {
        let paths: Vec<String> = rule.paths.iter().map(|path| quoted(&format!("{path}/**"))).collect();
        *out += &format!("      path: [{}]\n", paths.join(", "));
    }
    out.push_str("    allow: true\n");
    if !addresses.is_empty() {
        let list: Vec<String> = addresses.iter().map(|address| quoted(&address.to_string())).collect();
        *out += &format!(
            "    # Not public: what the name resolved to when this was written.\n    addresses: [{}]\n",
            list.join(", ")
        );
    }
}

fn one_test(out: &mut String, (tool, host, port, tls): &Key<'_>, rule: &Rule) {
    let protocol = if *tls { "https" } else { "http" };
    let path = if rule.any_path { "" } else { rule.paths.first().map_or("", String::as_str) };
    let mut case = |what: &str, host: &str, method: &str, verdict: &str| {
        let name = quoted(&format!("{} {what} {host}", tool.name()));
        let (host, path) = (quoted(host), quoted(&format!("{path}/package")));
        *out += &format!(
            "  - {{name: {name}, request: {{host: {host}, port: {port}, protocol: {protocol}, method: {method}, \
             path: {path}}}, verdict: {verdict}}}\n"
        );
    };
    case("fetches from", host, "GET", "allow");
    case("does not publish at", host, "POST", "deny");
    if host.parse::<IpAddr>().is_err() {
        case("does not fetch from", &format!("{host}.invalid"), "GET", "deny");
    }
}

/// Addresses of a host that are dialled only if a rule names them.
fn special(host: &str, addresses_of: &dyn Fn(&str) -> Vec<IpAddr>, notes: &mut Vec<String>) -> Vec<IpAddr> {
    let addresses = match host.parse::<IpAddr>() {
        Ok(address) => vec![address],
        Err(_) => addresses_of(host),
    };
    if addresses.is_empty() {
        notes.push(format!("{host} does not resolve here; if it is not public, its rule needs `addresses`"));
    }
    let mut named = BTreeSet::new();
    for address in addresses {
        match resolve::check(address, &AddressRules::default()) {
            Ok(()) => {}
            Err(Special::Private | Special::Loopback | Special::Reserved) => {
                _ = named.insert(address.to_canonical())
            }
            Err(why) => notes.push(format!("{host} is at {address}: {}; no rule names that", why.reason())),
        }
    }
    named.into_iter().collect()
}
