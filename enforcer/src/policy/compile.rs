//! From a file's text to rules. A rule that cannot be enforced does not load.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_saphyr::{Location, Spanned};

use crate::mask::{Layer, Part, Selection, Strategy};
use crate::protocol::llm::Item;

use super::cel::{CelError, Expression};
use super::cidr::Cidr;
use super::decision::{AddressRule, AddressRules, Durability, RuleId};
use super::error::Findings;
use super::facts::Protocol;
use super::file::{
    BodySource, Chosen, DelegateSource, DurabilitySource, HoldSource, IdentityWhen, Many, MaskEntry, Mode,
    PolicyFile, RuleSource, When, each, read_yaml,
};
use super::glob::{GlobError, HostGlob, TextGlob};
use super::identity::{self, TextPart};
use super::layers::{Delegation, LayerName, Level, MAX_LAYER_RULES, MAX_LAYER_VALUES};
use super::limit::{Limit, MAX_LIMITS};
use super::requirement::{HoldStage, Requirement, RequirementSpec};
use super::rule::{Adding, Conditions, Deciding, Hold, Rule};

/// Rules of one file.
pub const MAX_RULES: usize = 10_000;
/// Values of one condition.
pub const MAX_VALUES: usize = 1_000;
/// Bytes of the name of a policy, of a rule's id, and of a method.
pub const MAX_NAME_BYTES: usize = 64;

/// Bytes of who a rule belongs to.
pub const MAX_OWNER_BYTES: usize = 128;

/// A file's rules, in their order.
pub(super) struct Compiled {
    pub name: String,
    pub mode: Mode,
    pub rules: Vec<Rule>,
}

/// Compiles a file; what is wrong stands in `findings`, all of it.
pub(super) fn compile(
    text: &str,
    layer: Option<&LayerName>,
    room: &mut Room,
    findings: &mut Findings<'_>,
) -> Option<Compiled> {
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
    if !room.rules(file.rules.value.len()) {
        let message = format!("more than {MAX_LAYER_RULES} rules in a layer below the host's");
        findings.push(&file.rules.referenced, message, None);
        return None;
    }
    let owner = file.owner.as_ref().and_then(|owner| owned(findings, owner));
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
        let compiler = Compiler { findings, at: source.referenced, layer, room };
        let mut rule = compiler.rule(&name, file.mode, &source.value);
        let own = source.value.owner.as_ref().and_then(|owner| owned(findings, owner));
        rule.owner = own.or_else(|| owner.clone());
        rules.push(rule);
        if room.is_over {
            let message = format!("more than {MAX_LAYER_VALUES} values in a layer below the host's");
            findings.push(&source.referenced, message, None);
            return None;
        }
    }
    Some(Compiled { name, mode: file.mode, rules })
}

fn is_name(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(fine)
}

/// Who a rule belongs to. It is shown to jobs, in one line.
fn owned(findings: &mut Findings<'_>, owner: &Spanned<String>) -> Option<Arc<str>> {
    let text = owner.value.trim();
    if text.is_empty() || text.len() > MAX_OWNER_BYTES || text.chars().any(char::is_control) {
        let message = format!("an owner is one line of 1 to {MAX_OWNER_BYTES} bytes");
        findings.push(&owner.referenced, message, Some("a team, an address, a channel"));
        return None;
    }
    Some(text.into())
}

/// What there may still be of a layer; the host's has no end.
pub(super) struct Room {
    rules: usize,
    values: usize,
    /// There was more than that, and it has not been read to its end.
    pub is_over: bool,
}

impl Room {
    pub fn of(layer: Option<&LayerName>) -> Self {
        let (rules, values) = match layer {
            Some(_) => (MAX_LAYER_RULES, MAX_LAYER_VALUES),
            None => (usize::MAX, usize::MAX),
        };
        Self { rules, values, is_over: false }
    }

    fn rules(&mut self, count: usize) -> bool {
        self.is_over |= count > self.rules;
        self.rules = self.rules.saturating_sub(count);
        !self.is_over
    }

    fn values(&mut self, count: usize) -> bool {
        self.is_over |= count > self.values;
        self.values = self.values.saturating_sub(count);
        !self.is_over
    }
}

struct Compiler<'a, 'b> {
    findings: &'a mut Findings<'b>,
    at: Location,
    /// None: the host's.
    layer: Option<&'a LayerName>,
    room: &'a mut Room,
}

impl Compiler<'_, '_> {
    fn rule(mut self, policy: &str, mode: Mode, source: &RuleSource) -> Rule {
        let deciding = self.deciding(source);
        let adding = self.adding(source);
        let when = self.conditions(&source.when);
        let adds = adding.is_any();
        if deciding.is_none() && source.hold.is_none() && source.delegate.is_none() && !adds {
            self.findings.push(
                &self.at,
                "the rule has no effect",
                Some("add `allow: true`, `deny: \"why\"`, `hold: {...}`, `passthrough: true`, `mask: {...}` or `observe: true`"),
            );
        }
        if matches!(deciding, Some(Deciding::Passthrough)) {
            self.passthrough(source, adds, &when);
        }
        let tool = self.about_answers(source, &when);
        let limits = self.limits(source, tool);
        if self.layer.is_some() && source.addresses.is_some() {
            let help = "write them into the host's rule: the one that allows, or that delegates";
            self.findings.push(&self.at, "only the host's layer opens `addresses`", Some(help));
        }
        let open = when.cel.is_some() || when.identity.is_some();
        let opens = matches!(deciding, Some(Deciding::Allow | Deciding::Delegate(_)));
        if open && !adding.addresses.is_empty() && !opens {
            // Where an expression cannot be evaluated, or nobody has said who the job is, a rule that
            // does not allow counts.
            let help = "write `allow: true` in this rule, or the hosts in `host`";
            self.findings.push(
                &self.at,
                "`addresses` under a condition on `cel` or `identity` need `allow: true`",
                Some(help),
            );
        }
        let id = RuleId::new(self.layer.map(LayerName::as_str), policy, &source.id.value);
        let mut rule = Rule::new(id, source.mode.unwrap_or(mode), when, (deciding, adding), tool);
        rule.limits = limits;
        rule
    }

    /// How much a rule lets through. A request is counted when it comes: what is no request, or
    /// is denied, or nobody reads, is none.
    fn limits(&mut self, source: &RuleSource, tool: Option<Item>) -> Arc<[Limit]> {
        let Some(limits) = &source.limits else { return Arc::default() };
        let at = &limits.referenced;
        if source.allow.is_none() {
            let help = "limits say how much of what `allow: true` lets through there may be";
            self.findings.push(at, "only a rule that allows has `limits`", Some(help));
        }
        if let Some(tool) = tool {
            let help = "put them into the rule that allows the request";
            let message = format!("a rule about {} cannot have `limits`", tool.several());
            self.findings.push(at, message, Some(help));
        }
        for (protocol, at) in source.when.protocol.iter().flat_map(each) {
            if !matches!(protocol, Protocol::Http | Protocol::Https) {
                let message = format!("nothing of the protocol {protocol} is counted");
                self.findings.push(&at, message, Some("only requests are: `http` and `https`"));
            }
        }
        let all = each(limits);
        if all.is_empty() || all.len() > MAX_LIMITS {
            self.findings.push(at, format!("a rule has 1 to {MAX_LIMITS} limits"), None);
        }
        let mut read = Vec::with_capacity(all.len().min(MAX_LIMITS));
        for (limit, at) in all {
            match Limit::read(limit) {
                Ok(limit) if read.contains(&limit) => {
                    self.findings.push(&at, "the same limit stands there twice", None);
                }
                Ok(limit) => read.push(limit),
                Err(message) => self.findings.push(&at, message, None),
            }
        }
        read.into()
    }

    /// Whether a rule is about the tool calls of answers, or the blocks of code in them. They are
    /// judged when they have been put together: then the request has gone out, and only they can
    /// still be kept back.
    fn about_answers(&mut self, source: &RuleSource, when: &Conditions) -> Option<Item> {
        let needs = when.cel.as_ref().map(|expression| expression.needs()).unwrap_or_default();
        let item = match (needs.tool, needs.code) {
            (false, false) => return None,
            (true, false) => Item::Tool,
            (false, true) => Item::Code,
            (true, true) => {
                let message = "a rule is about tool calls or about blocks of code";
                let help = "write two rules: one with `llm.tool`, one with `llm.code`";
                self.findings.push(&self.at, message, Some(help));
                Item::Code
            }
        };
        if needs.findings {
            let help = "put `findings` into a rule of its own, which is then about requests";
            self.findings.push(&self.at, format!("of {} there are no `findings`", item.one()), Some(help));
        }
        let beside = [
            (source.passthrough.is_some(), "passthrough"),
            (source.mask.is_some(), "mask"),
            (source.body.is_some(), "body"),
            (source.durability.is_some(), "durability"),
            (source.addresses.is_some(), "addresses"),
            (source.delegate.is_some(), "delegate"),
        ];
        for (_, effect) in beside.into_iter().filter(|(there, _)| *there) {
            let message = format!("a rule about {} cannot have `{effect}`", item.several());
            let help = "it allows, denies, holds or observes a part of an answer; what is done to the request \
                        stands in another rule";
            self.findings.push(&self.at, message, Some(help));
        }
        for (protocol, at) in source.when.protocol.iter().flat_map(each) {
            if !matches!(protocol, Protocol::Http | Protocol::Https) {
                let message = format!("nothing of the protocol {protocol} has {} in it", item.one());
                self.findings.push(&at, message, Some("only answers of `http` and `https` have"));
            }
        }
        Some(item)
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
            source.hold.as_ref().and_then(|hold| self.hold(hold, &source.when)),
            source.delegate.as_ref().and_then(|delegate| self.delegate(delegate)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let effects = [source.allow.is_some(), source.deny.is_some(), source.passthrough.is_some()];
        let others = [source.hold.is_some(), source.delegate.is_some()];
        if effects.into_iter().chain(others).filter(|there| *there).count() > 1 {
            self.findings.push(
                &self.at,
                "the rule has more than one of allow, deny, hold, passthrough and delegate",
                None,
            );
        }
        found.into_iter().next()
    }

    /// What lies with another has to lie below.
    fn delegate(&mut self, source: &Spanned<DelegateSource>) -> Option<Deciding> {
        let delegation = match &source.value {
            DelegateSource::To(to) => Delegation { to: *to, passthrough: false },
            DelegateSource::Chosen(chosen) => Delegation { to: chosen.to, passthrough: chosen.passthrough },
        };
        let below = match self.layer.map(LayerName::level) {
            None => true,
            Some(level) => level == Level::Organization && delegation.to == Level::Repository,
        };
        if !below {
            let message = format!("the layer of a {} is not below this one", delegation.to.as_str());
            let help =
                "the host delegates to an organization or a repository, an organization to a repository";
            self.findings.push(&source.referenced, message, Some(help));
            return None;
        }
        Some(Deciding::Delegate(delegation))
    }

    /// A request is held; of nothing else there is a whole that people could look at, and
    /// nobody could be asked in its protocol.
    fn hold(&mut self, hold: &Spanned<HoldSource>, when: &When) -> Option<Deciding> {
        let at = &hold.referenced;
        for (protocol, at) in when.protocol.iter().flat_map(each) {
            if !matches!(protocol, Protocol::Http | Protocol::Https) {
                let message = format!("nothing of the protocol {protocol} can be held");
                self.findings.push(&at, message, Some("only requests can: `http` and `https`"));
            }
        }
        let source = &hold.value;
        let stages = match (&source.needs, &source.stages) {
            (Some(needs), None) => {
                vec![HoldStage { environment: None, reference: None, needs: needs.clone() }]
            }
            (None, Some(stages)) => stages.clone(),
            (None, None) => {
                let help = "as in `needs: [{people: 2, groups: [release]}]`, or `stages` with their own";
                self.findings.push(at, "`hold` says nothing of who has to agree", Some(help));
                return None;
            }
            (Some(_), Some(_)) => {
                let help = "a stage without `environment` and `ref` is for all others";
                self.findings.push(at, "`hold` has either `needs` or `stages`", Some(help));
                return None;
            }
        };
        let spec = RequirementSpec {
            stages,
            excludes_self: source.excludes_self,
            open_seconds: source.open_seconds,
            hold_seconds: source.hold_seconds,
            retry_seconds: source.retry_seconds,
            keep_alive: source.keep_alive,
            offers: source.offers,
        };
        match Requirement::new(spec) {
            Ok(requirement) => Some(Deciding::Hold(Arc::new(Hold {
                message: source.message.as_deref().map(Arc::from),
                requirement: Arc::new(requirement),
            }))),
            Err(error) => {
                self.findings.push(at, error.to_string(), None);
                None
            }
        }
    }

    fn passthrough(&mut self, source: &RuleSource, adds: bool, compiled: &Conditions) {
        let when = &source.when;
        if when.host.is_none() {
            let help = "name the hosts whose TLS connections are to pass unread";
            self.findings.push(&self.at, "passthrough needs a host", Some(help));
        }
        let needs = compiled.cel.as_ref().map(|expression| expression.needs()).unwrap_or_default();
        if when.method.is_some() || when.path.is_some() || needs.http() {
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
        if let Some(mask) =
            source.mask.as_ref().filter(|mask| mask.value.request.is_none() && mask.value.response.is_none())
        {
            let help = "name what is masked in `request`, in `response`, or in both";
            self.findings.push(&mask.referenced, "`mask` masks nothing", Some(help));
        }
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
            identity: when.identity.as_ref().map(|source| Box::new(self.identity(source))),
            cel: when.cel.as_ref().and_then(|source| self.expression(source)),
        }
    }

    fn identity(&mut self, source: &Spanned<IdentityWhen>) -> identity::Conditions {
        use crate::workload::identity::{Assurance, Field};
        let when = &source.value;
        let globs = |text: &String| TextGlob::parse(text).map_err(told);
        let mut compiled = identity::Conditions {
            assurance: self.values(when.assurance.as_ref(), |assurance| Ok(*assurance)),
            provider: self.values(when.provider.as_ref(), |provider| Ok(*provider)),
            protected: when.protected,
            texts: Vec::new(),
            groups: self.values(when.groups.as_ref(), globs),
            roles: self.values(when.roles.as_ref(), globs),
        };
        for (part, source) in [
            (TextPart::Issuer, &when.issuer),
            (TextPart::Subject, &when.subject),
            (TextPart::Of(Field::Repository), &when.repository),
            (TextPart::Of(Field::RepositoryId), &when.repository_id),
            (TextPart::Of(Field::Ref), &when.r#ref),
            (TextPart::Of(Field::Environment), &when.environment),
            (TextPart::Of(Field::Event), &when.event),
            (TextPart::Of(Field::Workflow), &when.workflow),
            (TextPart::Of(Field::Actor), &when.actor),
        ] {
            if let Some(source) = source {
                compiled.texts.push((part, self.values(Some(source), globs)));
            }
        }
        let nobody =
            !compiled.assurance.is_empty() && compiled.assurance.iter().all(|it| *it == Assurance::None);
        if !compiled.asks_who() && compiled.assurance.is_empty() {
            let help = "for every job that a token has shown, write `assurance: oidc`";
            self.findings.push(&source.referenced, "`identity` asks for nothing", Some(help));
        }
        if compiled.asks_who() && nobody {
            let help = "leave the other conditions out, or name another assurance";
            let message = "of a job of the assurance `none` nothing else is known";
            self.findings.push(&source.referenced, message, Some(help));
        }
        compiled
    }

    fn expression(&mut self, source: &Spanned<String>) -> Option<Box<Expression>> {
        match Expression::parse(&source.value) {
            Ok(expression) => Some(Box::new(expression)),
            Err(CelError { offset, message, help }) => {
                let place = (source.value.as_str(), offset);
                self.findings.push_within(&source.referenced, place, message, help.as_deref());
                None
            }
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
        if !self.room.values(all.len()) {
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
