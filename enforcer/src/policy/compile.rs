//! From a file's text to rules. A rule that cannot be enforced does not load.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_saphyr::Location;

use crate::mask::{Layer, Part, Selection, Strategy};

use super::cidr::Cidr;
use super::decision::{AddressRule, AddressRules, Durability, RuleId};
use super::error::Findings;
use super::file::{
    BodySource, Chosen, DurabilitySource, Many, MaskEntry, Mode, PolicyFile, RuleSource, When, each,
    read_yaml,
};
use super::glob::{GlobError, HostGlob, TextGlob};
use super::rule::{Adding, Conditions, Deciding, Rule};

/// Rules of one file.
pub const MAX_RULES: usize = 10_000;
/// Values of one condition.
pub const MAX_VALUES: usize = 1_000;
/// Bytes of the name of a policy, of a rule's id, and of a method.
pub const MAX_NAME_BYTES: usize = 64;

/// A file's rules, in their order.
pub(super) struct Compiled {
    pub name: String,
    pub mode: Mode,
    pub rules: Vec<Rule>,
}

/// Compiles a file; what is wrong stands in `findings`, all of it.
pub(super) fn compile(text: &str, findings: &mut Findings<'_>) -> Option<Compiled> {
    let file: PolicyFile = read_yaml(text, findings)?;
    if file.version.value != 1 {
        findings.push(
            &file.version.referenced,
            "this is no version of the policy format",
            Some("write `version: 1`"),
        );
    }
    let name = file.name.value;
    if !is_name(&name) {
        findings.push(&file.name.referenced, "a policy's name has letters, digits, `-`, `_` and `.`", None);
    }
    if file.rules.value.len() > MAX_RULES {
        findings.push(&file.rules.referenced, format!("more than {MAX_RULES} rules"), None);
        return None;
    }
    let mut ids = BTreeSet::new();
    let mut rules = Vec::with_capacity(file.rules.value.len());
    for source in &file.rules.value {
        let id = &source.value.id;
        if !is_name(&id.value) {
            findings.push(&id.referenced, "a rule's id has letters, digits, `-`, `_` and `.`", None);
        }
        if !ids.insert(id.value.clone()) {
            findings.push(&id.referenced, format!("another rule has the id `{}`", id.value), None);
        }
        let compiler = Compiler { findings, at: source.referenced };
        rules.push(compiler.rule(&name, file.mode, &source.value));
    }
    Some(Compiled { name, mode: file.mode, rules })
}

fn is_name(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(fine)
}

struct Compiler<'a, 'b> {
    findings: &'a mut Findings<'b>,
    at: Location,
}

impl Compiler<'_, '_> {
    fn rule(mut self, policy: &str, mode: Mode, source: &RuleSource) -> Rule {
        let deciding = self.deciding(source);
        let adding = self.adding(source);
        let when = self.conditions(&source.when);
        let adds = !adding.request_mask.is_none()
            || !adding.response_mask.is_none()
            || adding.observe
            || adding.inspect
            || adding.durability == Durability::Fsync
            || !adding.addresses.is_empty();
        if deciding.is_none() && !adds {
            self.findings.push(
                &self.at,
                "the rule has no effect",
                Some("add `allow: true`, `deny: \"why\"`, `passthrough: true`, `mask: {...}` or `observe: true`"),
            );
        }
        if matches!(deciding, Some(Deciding::Passthrough)) {
            self.passthrough(source, adds);
        }
        Rule {
            id: RuleId::new(policy, &source.id.value),
            mode: source.mode.unwrap_or(mode),
            when,
            deciding,
            adding,
        }
    }

    fn deciding(&mut self, source: &RuleSource) -> Option<Deciding> {
        for (effect, name) in [(&source.allow, "allow"), (&source.passthrough, "passthrough")] {
            if let Some(effect) = effect.as_ref().filter(|effect| !effect.value) {
                let help = "leave it out, or write `deny: \"why\"`";
                self.findings.push(&effect.referenced, format!("`{name}: false` says nothing"), Some(help));
            }
        }
        let found: Vec<Deciding> = [
            source.allow.as_ref().map(|_| Deciding::Allow),
            source.deny.as_ref().map(|message| Deciding::Deny(Arc::from(message.value.as_str()))),
            source.passthrough.as_ref().map(|_| Deciding::Passthrough),
        ]
        .into_iter()
        .flatten()
        .collect();
        if found.len() > 1 {
            self.findings.push(&self.at, "the rule has more than one of allow, deny and passthrough", None);
        }
        found.into_iter().next()
    }

    fn passthrough(&mut self, source: &RuleSource, adds: bool) {
        let when = &source.when;
        if when.host.is_none() {
            let help = "name the hosts whose TLS connections are to pass unread";
            self.findings.push(&self.at, "passthrough needs a host", Some(help));
        }
        if when.method.is_some() || when.path.is_some() {
            self.findings.push(
                &self.at,
                "passthrough cannot depend on a method or a path: nobody reads them",
                None,
            );
        }
        if adds && (source.mask.is_some() || source.body.is_some()) {
            self.findings.push(&self.at, "what passes unread cannot be masked or inspected", None);
        }
    }

    fn adding(&mut self, source: &RuleSource) -> Adding {
        let (request, response) = source
            .mask
            .as_ref()
            .map_or((None, None), |mask| (mask.value.request.as_ref(), mask.value.response.as_ref()));
        Adding {
            request_mask: self.selection(request),
            response_mask: self.selection(response),
            observe: source.observe.as_ref().is_some_and(|observe| observe.value),
            inspect: source.body == Some(BodySource::Inspect),
            durability: match source.durability {
                Some(DurabilitySource::Fsync) => Durability::Fsync,
                Some(DurabilitySource::PageCache) | None => Durability::PageCache,
            },
            addresses: self.addresses(source.addresses.as_ref()),
        }
    }

    fn selection(&mut self, entries: Option<&Many<MaskEntry>>) -> Selection {
        let Some(entries) = entries else { return Selection::None };
        let mut layer = Layer::default();
        for (entry, at) in each(entries) {
            let added = match entry {
                MaskEntry::Name(name) => {
                    layer.name(name, Strategy::Placeholder).map_err(|error| error.to_string())
                }
                MaskEntry::Chosen(chosen) => chose(&mut layer, chosen),
            };
            if let Err(message) = added {
                self.findings.push(&at, message, None);
            }
        }
        layer.into()
    }

    fn addresses(&mut self, source: Option<&Many<String>>) -> AddressRules {
        let Some(source) = source else { return AddressRules::default() };
        let mut rules = Vec::new();
        for (text, at) in each(source) {
            match text.as_str() {
                "loopback" => rules.push(AddressRule::Loopback),
                "private" => rules.push(AddressRule::Private),
                text => match text.parse::<Cidr>() {
                    Ok(cidr) => rules.push(AddressRule::Network(cidr)),
                    Err(error) => {
                        self.findings.push(
                            &at,
                            error.to_string(),
                            Some("`loopback`, `private`, or a network"),
                        );
                    }
                },
            }
        }
        rules.into_iter().collect()
    }

    fn conditions(&mut self, when: &When) -> Conditions {
        let workload = &when.workload;
        Conditions {
            name: self.values(workload.name.as_ref(), |text| TextGlob::parse(text).map_err(told)),
            cgroup: self.values(workload.cgroup.as_ref(), |text| TextGlob::parse(text).map_err(told)),
            labels: workload
                .labels
                .iter()
                .map(|(key, globs)| {
                    (key.clone(), self.values(Some(globs), |text| TextGlob::parse(text).map_err(told)))
                })
                .collect(),
            host: self.values(when.host.as_ref(), |text| HostGlob::parse(text).map_err(told)),
            port: self.values(when.port.as_ref(), |port| match port {
                0 => Err("no connection has the port 0".to_owned()),
                port => Ok(*port),
            }),
            protocol: self.values(when.protocol.as_ref(), |protocol| Ok(*protocol)),
            method: self.values(when.method.as_ref(), |text| method(text)),
            path: self.values(when.path.as_ref(), |text| TextGlob::parse_path(text).map_err(told)),
        }
    }

    /// An empty list would hold for nothing or for everything, as one reads it.
    fn values<T, U>(&mut self, source: Option<&Many<T>>, parse: impl Fn(&T) -> Result<U, String>) -> Vec<U> {
        let Some(source) = source else { return Vec::new() };
        let all = each(source);
        if all.is_empty() || all.len() > MAX_VALUES {
            let message = format!("a condition has between 1 and {MAX_VALUES} values");
            self.findings.push(&source.referenced, message, None);
            return Vec::new();
        }
        let mut values = Vec::with_capacity(all.len());
        for (value, at) in all {
            match parse(value) {
                Ok(value) => values.push(value),
                Err(message) => self.findings.push(&at, message, None),
            }
        }
        values
    }
}

/// Adds what is masked in another way than by a placeholder, or by where it stands.
fn chose(layer: &mut Layer, chosen: &Chosen) -> Result<(), String> {
    let names: Vec<&String> = [&chosen.set, &chosen.entity, &chosen.rule].into_iter().flatten().collect();
    match (names.as_slice(), &chosen.select) {
        ([name], None) => layer.name(name, chosen.strategy).map_err(|error| error.to_string()),
        ([], Some(parts)) if parts.len() == 1 => {
            for (kind, name) in parts {
                match kind.as_str() {
                    // The value of a variable of the job is registered under its name.
                    "env" => {
                        let name = format!("exact:{name}");
                        layer.name(&name, chosen.strategy).map_err(|error| error.to_string())?;
                    }
                    "column" => {
                        return Err(
                            "no protocol that is understood has columns yet; use json or form".to_owned()
                        );
                    }
                    kind => {
                        let part = Part::parse(kind, name)?;
                        if chosen.strategy == Strategy::Observe && part.is_in_body() {
                            return Err(format!(
                                "`observe` leaves alone a header, a cookie or a parameter of the query, not a {kind} part"
                            ));
                        }
                        layer.part(part, chosen.strategy);
                    }
                }
            }
            Ok(())
        }
        _ => Err("write one of set, entity, rule and select, as in {entity: EMAIL, strategy: surrogate} \
                  or {select: {header: x-api-key}, strategy: observe}"
            .to_owned()),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn told(error: GlobError) -> String {
    error.to_string()
}

/// Methods are case-sensitive (RFC 9110, 9.1); one in lower case is a slip.
fn method(text: &str) -> Result<String, String> {
    let fine = |byte: u8| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_');
    if text.is_empty() || text.len() > MAX_NAME_BYTES || !text.bytes().all(fine) {
        return Err("a method is written in capitals: GET, POST".to_owned());
    }
    Ok(text.to_owned())
}
