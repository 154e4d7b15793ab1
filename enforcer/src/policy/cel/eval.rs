//! Evaluation: Kleene's logic over values, facts that are not known, and failures.

use std::borrow::Cow;
use std::fmt;

use crate::policy::facts::{Fact, Told, ToolFacts};
use crate::policy::identity::{self, TextPart, Unseen};
use crate::policy::known::Known;
use crate::workload::identity::{Assurance, Claims};

use super::facts::{self as names, ListFact, LlmPart, MapFact, TextFact};
use super::node::{Compare, Cond, List, Math, Num, Part, Presence, Quantifier, Range, Text};
use super::{MAX_CEL_COST, MAX_CEL_TEXT_BYTES, Needs, Reading};

/// Why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Short {
    /// It depends on this fact, which may still become known.
    Unknown(&'static str),
    Failed(Failure),
}

/// Why there will be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Absent(&'static str),
    /// A body cannot be read for it, or not in one way only.
    Unclear(&'static str),
    /// Less than a token says it, and the expression does not say that this is enough.
    Unproven(&'static str, Assurance),
    NoKey(&'static str),
    NotText(&'static str),
    TooMany,
    Range,
    Division,
    Overflow,
    Number,
    TooLong,
    Cost,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Absent(fact) => write!(f, "there is no `{fact}` here"),
            Failure::Unclear(fact) => write!(f, "what `{fact}` is cannot be read, or not in one way only"),
            Failure::Unproven(fact, assurance) => write!(
                f,
                "`{fact}` is known by `{assurance}` alone, and the expression does not ask for `identity.assurance`"
            ),
            Failure::NoKey(map) => write!(f, "`{map}` has no such key"),
            Failure::NotText(map) => write!(f, "a value in `{map}` is not UTF-8"),
            Failure::TooMany => f.write_str("the query has too many parameters"),
            Failure::Range => f.write_str("the list has no such element"),
            Failure::Division => f.write_str("a division by zero"),
            Failure::Overflow => f.write_str("a number is too large"),
            Failure::Number => f.write_str("a text is no number"),
            Failure::TooLong => write!(f, "a text is longer than {MAX_CEL_TEXT_BYTES} bytes"),
            Failure::Cost => write!(f, "it takes more than {MAX_CEL_COST} steps"),
        }
    }
}

type Value<T> = Result<T, Short>;

fn failed<T>(why: Failure) -> Value<T> {
    Err(Short::Failed(why))
}

/// What has no value, if another part of an `&&` or `||` has none either: what may still
/// become known comes first.
fn worse(one: Option<Short>, other: Short) -> Short {
    match (one, other) {
        (Some(one @ Short::Unknown(_)), _) => one,
        (_, other @ Short::Unknown(_)) => other,
        (Some(one), _) => one,
        (None, other) => other,
    }
}

#[derive(Clone)]
enum Item<'a> {
    Text(Cow<'a, str>),
    Num(i64),
}

/// One evaluation.
pub struct Eval<'a> {
    known: &'a Known<'a>,
    reading: Reading,
    needs: Needs,
    left: u32,
    vars: Vec<Item<'a>>,
}

impl<'a> Eval<'a> {
    pub fn new(known: &'a Known<'a>, reading: Reading, needs: Needs) -> Self {
        Self { known, reading, needs, left: MAX_CEL_COST, vars: Vec::new() }
    }

    fn charge(&mut self, bytes: usize) -> Value<()> {
        let cost = u32::try_from(bytes / 32).unwrap_or(u32::MAX).saturating_add(1);
        let left = self.left.checked_sub(cost);
        // What has run out stays out: the other side of an `||` does not begin again.
        self.left = left.unwrap_or(0);
        if left.is_none() { failed(Failure::Cost) } else { Ok(()) }
    }

    pub fn all(&mut self, conds: impl IntoIterator<Item = &'a Cond>) -> Value<bool> {
        self.until(false, conds)
    }

    /// `stop` if one of them is, whatever the others are; else what has no value; else
    /// the contrary.
    fn until(&mut self, stop: bool, conds: impl IntoIterator<Item = &'a Cond>) -> Value<bool> {
        let mut short = None;
        for cond in conds {
            match self.cond(cond) {
                Ok(value) if value == stop => return Ok(stop),
                Ok(_) => {}
                Err(other) => short = Some(worse(short, other)),
            }
        }
        short.map_or(Ok(!stop), Err)
    }

    pub fn cond(&mut self, cond: &'a Cond) -> Value<bool> {
        self.charge(0)?;
        match cond {
            Cond::Const(value) => Ok(*value),
            Cond::Protected => self.protected(),
            Cond::Not(cond) => self.cond(cond).map(|value| !value),
            Cond::And(conds) => self.until(false, conds),
            Cond::Or(conds) => self.until(true, conds),
            Cond::If(three) => {
                let (cond, yes, no) = &**three;
                if self.cond(cond)? { self.cond(yes) } else { self.cond(no) }
            }
            Cond::Same(two) => Ok(self.cond(&two.0)? == self.cond(&two.1)?),
            Cond::Text(compare, two) => {
                let (left, right) = (self.text(&two.0)?, self.text(&two.1)?);
                self.charge(left.len().min(right.len()))?;
                Ok(compared(*compare, &*left, &*right))
            }
            Cond::Num(compare, two) => {
                let (left, right) = (self.num(&two.0)?, self.num(&two.1)?);
                Ok(compared(*compare, &left, &right))
            }
            Cond::SameLists(two) => {
                let left = self.list(&two.0)?.into_iter().collect::<Value<Vec<_>>>()?;
                let right = self.list(&two.1)?.into_iter().collect::<Value<Vec<_>>>()?;
                Ok(left == right)
            }
            Cond::Part(part, two) => {
                let (text, part_of) = (self.text(&two.0)?, self.text(&two.1)?);
                self.charge(text.len())?;
                Ok(match part {
                    Part::Contains => text.contains(&*part_of),
                    Part::StartsWith => text.starts_with(&*part_of),
                    Part::EndsWith => text.ends_with(&*part_of),
                })
            }
            Cond::Matches(text, regex) => {
                let text = self.text(text)?;
                if text.len() > MAX_CEL_TEXT_BYTES {
                    return failed(Failure::TooLong);
                }
                // Linear in the text, with a larger factor than any other operation.
                self.charge(text.len() * 8)?;
                Ok(regex.is_match(text.as_bytes()))
            }
            Cond::OneOf(text, sorted) => {
                let text = self.text(text)?;
                self.charge(text.len())?;
                Ok(sorted.binary_search_by(|one| (**one).cmp(&*text)).is_ok())
            }
            Cond::InTexts(two) => self.in_texts(&two.0, &two.1),
            Cond::InNums(num, nums) => {
                let wanted = self.num(num)?;
                let mut found = false;
                for num in nums {
                    found |= self.num(num)? == wanted;
                }
                Ok(found)
            }
            Cond::HasKey(map, key) => self.has_key(*map, key),
            Cond::Exists(presence) => self.exists(*presence),
            Cond::Loop(quantifier, range, body) => self.each(*quantifier, range, body),
        }
    }

    fn in_texts(&mut self, text: &'a Text, list: &'a List) -> Value<bool> {
        let wanted = self.text(text)?;
        let mut short = None;
        for one in self.list(list)? {
            match one {
                Ok(one) => {
                    self.charge(one.len().min(wanted.len()))?;
                    if one == wanted {
                        return Ok(true);
                    }
                }
                Err(other) => short = Some(worse(short, other)),
            }
        }
        short.map_or(Ok(false), Err)
    }

    fn exists(&self, presence: Presence) -> Value<bool> {
        let fact = match presence {
            Presence::Text(fact) => self.text_fact(fact).map(|_| ()),
            Presence::Port => self.port().map(|_| ()),
            Presence::Protected => self.protected().map(|_| ()),
            Presence::List(list @ (ListFact::Effects | ListFact::CodeEffects)) => {
                self.tool(names::Fact::List(list).name()).map(|_| ())
            }
            Presence::List(ListFact::Findings) => self.findings().map(|_| ()),
            Presence::List(list) => self.claims(names::Fact::List(list).name()).map(|_| ()),
            Presence::Map(map) => self.map(map),
        };
        match fact {
            Ok(()) => Ok(true),
            Err(Short::Failed(Failure::Absent(_) | Failure::Unproven(..))) => Ok(false),
            Err(short) => Err(short),
        }
    }

    fn each(&mut self, quantifier: Quantifier, range: &'a Range, body: &'a Cond) -> Value<bool> {
        let items: Vec<Value<Item<'a>>> = match range {
            Range::Texts(list) => self.list(list)?.into_iter().map(|one| one.map(Item::Text)).collect(),
            Range::Nums(nums) => nums.iter().map(|num| self.num(num).map(Item::Num)).collect(),
        };
        let (mut short, mut held) = (None, 0_usize);
        for item in items {
            let value = item.and_then(|item| {
                self.vars.push(item);
                let value = self.cond(body);
                self.vars.pop();
                value
            });
            match (value, quantifier) {
                (Ok(true), Quantifier::Exists) => return Ok(true),
                (Ok(false), Quantifier::All) => return Ok(false),
                (Ok(holds), _) => held += usize::from(holds),
                (Err(other), _) => short = Some(worse(short, other)),
            }
        }
        match (short, quantifier) {
            (Some(short), _) => Err(short),
            (None, Quantifier::Exists) => Ok(false),
            (None, Quantifier::All) => Ok(true),
            (None, Quantifier::ExistsOne) => Ok(held == 1),
        }
    }

    fn text(&mut self, text: &'a Text) -> Value<Cow<'a, str>> {
        self.charge(0)?;
        match text {
            Text::Const(text) => Ok(Cow::Borrowed(text)),
            Text::Fact(fact) => self.text_fact(*fact),
            Text::Var(at) => match self.vars.get(*at) {
                Some(Item::Text(text)) => {
                    let text = text.clone();
                    self.charge(text.len())?;
                    Ok(text)
                }
                _ => failed(Failure::Range),
            },
            Text::Label(key) => {
                let key = self.text(key)?;
                let label = self.known.facts.workload.labels.get(&*key);
                label.map_or(failed(Failure::NoKey("workload.labels")), |label| Ok(Cow::Borrowed(label)))
            }
            Text::At(two) => {
                let (list, at) = (self.list(&two.0)?, self.num(&two.1)?);
                let found = usize::try_from(at).ok().and_then(|at| list.into_iter().nth(at));
                found.unwrap_or(failed(Failure::Range))
            }
            Text::Joined(two) => {
                let (left, right) = (self.text(&two.0)?, self.text(&two.1)?);
                if left.len() + right.len() > MAX_CEL_TEXT_BYTES {
                    return failed(Failure::TooLong);
                }
                self.charge(left.len() + right.len())?;
                Ok(left + right)
            }
            Text::Lower(text) => {
                let text = self.text(text)?;
                self.charge(text.len())?;
                Ok(Cow::Owned(text.to_ascii_lowercase()))
            }
            Text::Upper(text) => {
                let text = self.text(text)?;
                self.charge(text.len())?;
                Ok(Cow::Owned(text.to_ascii_uppercase()))
            }
            Text::Number(num) => Ok(Cow::Owned(self.num(num)?.to_string())),
            Text::If(three) => {
                let (cond, yes, no) = &**three;
                if self.cond(cond)? { self.text(yes) } else { self.text(no) }
            }
        }
    }

    fn num(&mut self, num: &'a Num) -> Value<i64> {
        self.charge(0)?;
        match num {
            Num::Const(value) => Ok(*value),
            Num::Port => self.port(),
            Num::Var(at) => match self.vars.get(*at) {
                Some(Item::Num(num)) => Ok(*num),
                _ => failed(Failure::Range),
            },
            Num::TextSize(text) => {
                let text = self.text(text)?;
                self.charge(text.len())?;
                count(text.chars().count())
            }
            Num::ListSize(list) => count(self.list(list)?.len()),
            Num::MapSize(map) => match map {
                MapFact::Labels => count(self.known.facts.workload.labels.len()),
                MapFact::Query | MapFact::Headers => count(self.keys(*map)?.len()),
            },
            Num::Parsed(text) => {
                let text = self.text(text)?;
                text.parse().map_err(|_| Short::Failed(Failure::Number))
            }
            Num::Negated(num) => self.num(num)?.checked_neg().map_or(failed(Failure::Overflow), Ok),
            Num::Math(math, two) => {
                let (left, right) = (self.num(&two.0)?, self.num(&two.1)?);
                let value = match math {
                    Math::Add => left.checked_add(right),
                    Math::Subtract => left.checked_sub(right),
                    Math::Multiply => left.checked_mul(right),
                    Math::Divide | Math::Remainder if right == 0 => return failed(Failure::Division),
                    Math::Divide => left.checked_div(right),
                    Math::Remainder => left.checked_rem(right),
                };
                value.map_or(failed(Failure::Overflow), Ok)
            }
            Num::If(three) => {
                let (cond, yes, no) = &**three;
                if self.cond(cond)? { self.num(yes) } else { self.num(no) }
            }
        }
    }

    fn list(&mut self, list: &'a List) -> Value<Vec<Value<Cow<'a, str>>>> {
        self.charge(0)?;
        let found: Vec<_> = match list {
            List::Const(texts) => texts.iter().map(|text| self.text(text)).collect(),
            List::Fact(list @ (ListFact::Effects | ListFact::CodeEffects)) => {
                let effects = self.tool(names::Fact::List(*list).name())?.effects;
                effects.iter().map(|effect| Ok(Cow::Borrowed(effect.as_str()))).collect()
            }
            List::Fact(ListFact::Findings) => {
                self.findings()?.iter().map(|entity| Ok(Cow::Borrowed(entity.as_str()))).collect()
            }
            List::Fact(list) => {
                let claims = self.claims(names::Fact::List(*list).name())?;
                let texts = match list {
                    ListFact::Groups => &claims.groups,
                    ListFact::Roles | ListFact::Effects | ListFact::CodeEffects | ListFact::Findings => {
                        &claims.roles
                    }
                };
                texts.iter().map(|text| Ok(Cow::Borrowed(text.as_str()))).collect()
            }
            List::Values(map, key) => {
                let key = self.text(key)?;
                self.values(*map, &key)?
            }
            List::Keys(map) => self.keys(*map)?.into_iter().map(|key| Ok(Cow::Borrowed(key))).collect(),
            List::Split(text, at) => {
                let text = self.text(text)?;
                self.charge(text.len() * 4)?;
                match text {
                    Cow::Borrowed(text) => text.split(&**at).map(|part| Ok(Cow::Borrowed(part))).collect(),
                    Cow::Owned(text) => {
                        text.split(&**at).map(|part| Ok(Cow::Owned(part.to_owned()))).collect()
                    }
                }
            }
        };
        self.charge(found.len() * 8)?;
        Ok(found)
    }

    fn has_key(&mut self, map: MapFact, key: &'a Text) -> Value<bool> {
        let key = self.text(key)?;
        match map {
            MapFact::Labels => Ok(self.known.facts.workload.labels.contains_key(&*key)),
            MapFact::Query | MapFact::Headers => match self.values(map, &key) {
                Ok(_) => Ok(true),
                Err(Short::Failed(Failure::NoKey(_))) => Ok(false),
                Err(short) => Err(short),
            },
        }
    }

    /// Whether the map is known.
    fn map(&self, map: MapFact) -> Value<()> {
        match map {
            MapFact::Labels => Ok(()),
            MapFact::Query => fact(&self.known.facts.query, name(map)).map(|_| ()),
            MapFact::Headers => fact(&self.known.facts.headers, name(map)).map(|_| ()),
        }
    }

    /// The values of a key; there is at least one.
    fn values(&self, map: MapFact, key: &str) -> Value<Vec<Value<Cow<'a, str>>>> {
        self.map(map)?;
        let text = |value: Option<&'a str>| match value {
            Some(value) => Ok(Cow::Borrowed(value)),
            None => failed(Failure::NotText(name(map))),
        };
        let found: Vec<_> = match map {
            MapFact::Labels => {
                let label = self.known.facts.workload.labels.get(key);
                label.into_iter().map(|label| text(Some(label))).collect()
            }
            MapFact::Query => {
                let parameters =
                    self.known.parameters(self.reading.split).ok_or(Short::Failed(Failure::TooMany))?;
                let values = parameters.get(key).map(Vec::as_slice).unwrap_or_default();
                values.iter().map(|value| text(value.as_deref())).collect()
            }
            MapFact::Headers => {
                let headers = fact(&self.known.facts.headers, name(map))?;
                let values = headers.get_all(key).iter();
                values.map(|value| text(std::str::from_utf8(value.as_bytes()).ok())).collect()
            }
        };
        if found.is_empty() { failed(Failure::NoKey(name(map))) } else { Ok(found) }
    }

    fn keys(&self, map: MapFact) -> Value<Vec<&'a str>> {
        self.map(map)?;
        Ok(match map {
            MapFact::Labels => self.known.facts.workload.labels.keys().map(String::as_str).collect(),
            MapFact::Query => {
                let parameters =
                    self.known.parameters(self.reading.split).ok_or(Short::Failed(Failure::TooMany))?;
                parameters.keys().map(String::as_str).collect()
            }
            MapFact::Headers => {
                let headers = fact(&self.known.facts.headers, name(map))?;
                headers.keys().map(http::HeaderName::as_str).collect()
            }
        })
    }

    fn port(&self) -> Value<i64> {
        fact(&self.known.facts.port, "destination.port").map(|port| i64::from(*port))
    }

    fn claims(&self, name: &'static str) -> Value<&'a Claims> {
        identity::seen(self.known.facts.identity, self.needs.assurance).map_err(|unseen| match unseen {
            Unseen::Unknown => Short::Unknown(name),
            Unseen::Nobody => Short::Failed(Failure::Absent(name)),
            Unseen::Unproven(assurance) => Short::Failed(Failure::Unproven(name, assurance)),
        })
    }

    fn identity(&self, part: TextPart, name: &'static str) -> Value<&'a str> {
        part.of(self.claims(name)?).map_or(failed(Failure::Absent(name)), Ok)
    }

    fn tool(&self, name: &'static str) -> Value<&'a ToolFacts<'a>> {
        fact(&self.known.facts.tool, name)
    }

    fn llm(&self, part: LlmPart, name: &'static str) -> Value<&'a str> {
        match part {
            LlmPart::Provider if !self.needs.answer() => {
                return fact(&self.known.provider(self.reading.plain), name).copied();
            }
            LlmPart::Model if !self.needs.answer() => return self.model(name),
            _ => {}
        }
        let tool = self.tool(name)?;
        match part {
            LlmPart::Provider => Ok(tool.provider),
            LlmPart::Model => tool.model.map_or(failed(Failure::Absent(name)), Ok),
            LlmPart::Name | LlmPart::Language => Ok(tool.name),
            LlmPart::Arguments | LlmPart::Code => Ok(tool.arguments),
        }
    }

    /// The model that a request asks for, in one reading.
    fn model(&self, name: &'static str) -> Value<&'a str> {
        match *fact(&self.known.facts.body.models, name)? {
            Told::These(models) => {
                models.get(self.reading.model).map_or(failed(Failure::Absent(name)), |model| Ok(model))
            }
            Told::Unclear => failed(Failure::Unclear(name)),
        }
    }

    fn findings(&self) -> Value<&'a [String]> {
        let name = names::Fact::List(ListFact::Findings).name();
        match *fact(&self.known.facts.body.findings, name)? {
            Told::These(entities) => Ok(entities),
            Told::Unclear => failed(Failure::Unclear(name)),
        }
    }

    fn protected(&self) -> Value<bool> {
        let name = names::Fact::Protected.name();
        self.claims(name)?.ref_protected.map_or(failed(Failure::Absent(name)), Ok)
    }

    fn text_fact(&self, wanted: TextFact) -> Value<Cow<'a, str>> {
        let known = self.known;
        let facts = known.facts;
        let name = names::Fact::Text(wanted).name();
        Ok(Cow::Borrowed(match wanted {
            TextFact::Name => facts.workload.name.as_str(),
            TextFact::Cgroup => facts.workload.cgroup.as_str(),
            TextFact::Identity(part) => self.identity(part, name)?,
            TextFact::Llm(part) => self.llm(part, name)?,
            TextFact::Assurance => fact(&identity::assurance(facts.identity), name)?.as_str(),
            TextFact::Host => fact(&facts.host, name)?,
            TextFact::Protocol => fact(&facts.protocol, name)?.as_str(),
            TextFact::Stage => fact(&known.stage, name)?.as_str(),
            TextFact::Method => match &known.upper {
                Some(upper) if self.reading.upper => upper,
                _ => fact(&facts.method, name)?,
            },
            TextFact::Path => match &known.plain {
                Some(plain) if self.reading.plain => plain,
                _ => fact(&known.path, name)?,
            },
        }))
    }
}

fn name(map: MapFact) -> &'static str {
    names::Fact::Map(map).name()
}

fn fact<'f, T>(fact: &'f Fact<T>, name: &'static str) -> Value<&'f T> {
    match fact {
        Fact::Known(value) => Ok(value),
        Fact::Unknown => Err(Short::Unknown(name)),
        Fact::Absent => failed(Failure::Absent(name)),
    }
}

fn count(count: usize) -> Value<i64> {
    i64::try_from(count).map_err(|_| Short::Failed(Failure::Overflow))
}

fn compared<T: Ord + ?Sized>(compare: Compare, left: &T, right: &T) -> bool {
    let order = left.cmp(right);
    match compare {
        Compare::Equal => order.is_eq(),
        Compare::Unequal => order.is_ne(),
        Compare::Less => order.is_lt(),
        Compare::LessOrEqual => order.is_le(),
        Compare::Greater => order.is_gt(),
        Compare::GreaterOrEqual => order.is_ge(),
    }
}
