//! From the parser's tree to typed nodes, or what is wrong with it.

use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, SourceInfo, operators,
};

use super::facts::{self, Fact, ListFact, LlmPart, MapFact, TextFact};
use super::node::{Compare, Cond, List, Math, Num, Part, Presence, Quantifier, Range, Text};
use super::{
    CelError, MAX_CEL_DEPTH, MAX_CEL_LOOPS, MAX_CEL_PATTERN_BYTES, MAX_CEL_PATTERN_COMPILED_BYTES, Needs,
    scan,
};

/// An expression of any type.
enum Typed {
    Cond(Cond),
    Text(Text),
    Num(Num),
    Texts(List),
    Nums(Vec<Num>),
    Map(MapFact),
    /// The beginning of the name of a fact.
    Group(&'static str),
}

impl Typed {
    fn kind(&self) -> &'static str {
        match self {
            Typed::Cond(_) => "true or false",
            Typed::Text(_) => "a text",
            Typed::Num(_) => "a number",
            Typed::Texts(_) => "a list of texts",
            Typed::Nums(_) => "a list of numbers",
            Typed::Map(_) => "a map",
            Typed::Group(_) => "a group of facts",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Element {
    Text,
    Num,
}

const FUNCTIONS: &str = "there are size, has, int, string, contains, startsWith, endsWith, matches, split, \
                         lowerAscii, upperAscii, exists, exists_one and all";

/// What the outermost `&&` join, and what the expression looks at.
pub fn check(text: &str, tree: &IdedExpr, source: &SourceInfo) -> Result<(Vec<Cond>, Needs), CelError> {
    let mut checker = Checker { text, source, depth: 0, scopes: Vec::new(), needs: Needs::default() };
    let cond = checker.cond(tree)?;
    let conds = match cond {
        Cond::And(conds) => conds,
        cond => vec![cond],
    };
    Ok((conds, checker.needs))
}

struct Checker<'a> {
    text: &'a str,
    source: &'a SourceInfo,
    depth: usize,
    /// Variables of loops, the outermost first.
    scopes: Vec<(String, Element)>,
    needs: Needs,
}

type Checked<T> = Result<T, CelError>;

impl Checker<'_> {
    fn wrong<T>(&self, at: &IdedExpr, message: impl Into<String>) -> Checked<T> {
        Err(CelError::new(self.offset(at), message))
    }

    /// Where an expression begins. What a call or a selection was parsed from is its
    /// operator; what it is applied to comes before.
    fn offset(&self, at: &IdedExpr) -> usize {
        let mut first = at;
        loop {
            first = match &first.expr {
                Expr::Select(select) => &select.operand,
                Expr::Call(call) => match (&call.target, call.args.first()) {
                    (Some(target), _) => target,
                    (None, Some(arg)) if !call.func_name.starts_with(|c: char| c.is_alphabetic()) => arg,
                    _ => break,
                },
                Expr::Comprehension(all) => &all.iter_range,
                _ => break,
            };
        }
        let start = self.source.offset_for(first.id).map_or(0, |(start, _)| start);
        self.text.floor_char_boundary(usize::try_from(start).unwrap_or(0))
    }

    fn cond(&mut self, at: &IdedExpr) -> Checked<Cond> {
        match self.typed(at)? {
            Typed::Cond(cond) => Ok(cond),
            other => self.wanted(at, "true or false", &other),
        }
    }

    fn text(&mut self, at: &IdedExpr) -> Checked<Text> {
        match self.typed(at)? {
            Typed::Text(text) => Ok(text),
            other => self.wanted(at, "a text", &other),
        }
    }

    fn num(&mut self, at: &IdedExpr) -> Checked<Num> {
        match self.typed(at)? {
            Typed::Num(num) => Ok(num),
            other => self.wanted(at, "a number", &other),
        }
    }

    fn wanted<T>(&self, at: &IdedExpr, wanted: &str, got: &Typed) -> Checked<T> {
        let error = CelError::new(self.offset(at), format!("this is {}, not {wanted}", got.kind()));
        Err(match got {
            Typed::Group(group) => {
                error.help(format!("`{group}` has the fields {}", facts::names(Some(group))))
            }
            Typed::Texts(_) => error.help(
                "a header or a parameter may be there more than once: \
                                           `LIST.exists(v, v == \"x\")`, `\"x\" in LIST`, `LIST[0]`",
            ),
            _ => error,
        })
    }

    fn typed(&mut self, at: &IdedExpr) -> Checked<Typed> {
        self.depth += 1;
        if self.depth > MAX_CEL_DEPTH {
            return Err(scan::too_deep(self.offset(at)));
        }
        let typed = match &at.expr {
            Expr::Literal(literal) => self.literal(at, literal),
            Expr::Ident(name) => self.ident(at, name),
            Expr::Select(select) => self.select(at, &select.operand, &select.field, select.test),
            Expr::Call(call) => self.call(at, call),
            Expr::List(list) => self.list(at, list),
            Expr::Comprehension(all) => self.comprehension(at, all),
            Expr::Map(_) | Expr::Struct(_) => self.wrong(at, "no maps or messages can be written here"),
            Expr::Unspecified => self.wrong(at, "this is no expression"),
        };
        self.depth -= 1;
        typed
    }

    fn literal(&self, at: &IdedExpr, literal: &LiteralValue) -> Checked<Typed> {
        Ok(match literal {
            LiteralValue::Boolean(value) => Typed::Cond(Cond::Const(*value.inner())),
            LiteralValue::Int(value) => Typed::Num(Num::Const(*value.inner())),
            LiteralValue::String(value) => Typed::Text(Text::Const(value.inner().into())),
            LiteralValue::Bytes(_) | LiteralValue::Double(_) | LiteralValue::UInt(_) | LiteralValue::Null => {
                return self
                    .wrong(at, "no fact is of this type: write a text, a whole number, true or false");
            }
        })
    }

    fn ident(&mut self, at: &IdedExpr, name: &str) -> Checked<Typed> {
        if let Some(index) = self.scopes.iter().rposition(|(known, _)| known == name) {
            return Ok(match self.scopes[index].1 {
                Element::Text => Typed::Text(Text::Var(index)),
                Element::Num => Typed::Num(Num::Var(index)),
            });
        }
        if let Some(fact) = Fact::named(name) {
            return Ok(self.fact(fact));
        }
        if let Some(group) = facts::is_group(name) {
            return Ok(Typed::Group(group));
        }
        Err(self.no_fact(at, &shortened(name), "there are", None))
    }

    fn no_fact(&self, at: &IdedExpr, name: &str, has: &str, group: Option<&str>) -> CelError {
        let meant = facts::near(name).map(|near| format!("did you mean `{near}`? ")).unwrap_or_default();
        CelError::new(self.offset(at), format!("there is no fact `{name}`"))
            .help(format!("{meant}{has} {}", facts::names(group)))
    }

    fn fact(&mut self, fact: Fact) -> Typed {
        match fact {
            Fact::Text(TextFact::Method) => self.needs.method = true,
            Fact::Text(TextFact::Path) => self.needs.path = true,
            Fact::Map(MapFact::Query) => self.needs.query = true,
            Fact::Map(MapFact::Headers) => self.needs.headers = true,
            Fact::Text(TextFact::Assurance) => (self.needs.identity, self.needs.assurance) = (true, true),
            Fact::Text(TextFact::Llm(LlmPart::Name | LlmPart::Arguments)) | Fact::List(ListFact::Effects) => {
                self.needs.tool = true;
            }
            Fact::List(ListFact::Findings) => self.needs.findings = true,
            Fact::Text(TextFact::Llm(LlmPart::Language | LlmPart::Code))
            | Fact::List(ListFact::CodeEffects) => {
                self.needs.code = true;
            }
            Fact::Text(TextFact::Llm(LlmPart::Provider)) => self.needs.provider = true,
            Fact::Text(TextFact::Llm(LlmPart::Model)) => self.needs.model = true,
            Fact::Text(TextFact::Identity(_)) | Fact::Protected | Fact::List(_) => self.needs.identity = true,
            _ => {}
        }
        match fact {
            Fact::Text(fact) => Typed::Text(Text::Fact(fact)),
            Fact::Port => Typed::Num(Num::Port),
            Fact::Protected => Typed::Cond(Cond::Protected),
            Fact::List(list) => Typed::Texts(List::Fact(list)),
            Fact::Map(map) => Typed::Map(map),
        }
    }

    fn select(&mut self, at: &IdedExpr, operand: &IdedExpr, field: &str, test: bool) -> Checked<Typed> {
        match self.typed(operand)? {
            Typed::Group(group) => {
                let full = format!("{group}.{field}");
                if let Some(inner) = facts::is_group(&full).filter(|_| !test) {
                    return Ok(Typed::Group(inner));
                }
                let Some(fact) = Fact::named(&full) else {
                    let name = format!("{group}.{}", shortened(field));
                    return Err(self.no_fact(at, &name, &format!("`{group}` has"), Some(group)));
                };
                let found = self.fact(fact);
                Ok(match fact {
                    _ if !test => found,
                    Fact::Text(fact) => Typed::Cond(Cond::Exists(Presence::Text(fact))),
                    Fact::Port => Typed::Cond(Cond::Exists(Presence::Port)),
                    Fact::Protected => Typed::Cond(Cond::Exists(Presence::Protected)),
                    Fact::List(list) => Typed::Cond(Cond::Exists(Presence::List(list))),
                    Fact::Map(map) => Typed::Cond(Cond::Exists(Presence::Map(map))),
                })
            }
            Typed::Map(map) => {
                let key = self.key(at, map, Text::Const(field.into()))?;
                Ok(if test { Typed::Cond(Cond::HasKey(map, Box::new(key))) } else { value(map, key) })
            }
            other => self.wrong(at, format!("{} has no field `{}`", other.kind(), shortened(field))),
        }
    }

    /// Names of header fields are in small letters on the way (RFC 9113, 8.2.1), and in
    /// the facts; one that is put together cannot be looked at before.
    fn key(&self, at: &IdedExpr, map: MapFact, key: Text) -> Checked<Text> {
        match (map, key) {
            (MapFact::Headers, Text::Const(name)) => Ok(Text::Const(name.to_ascii_lowercase().into())),
            (MapFact::Headers, key) if !matches!(key, Text::Var(_) | Text::Lower(_)) => {
                self.wrong(at, "the name of a header is written as it is: `http.headers[\"accept\"]`")
            }
            (_, key) => Ok(key),
        }
    }

    fn list(&mut self, at: &IdedExpr, list: &ListExpr) -> Checked<Typed> {
        let mut texts = Vec::new();
        let mut nums = Vec::new();
        for element in &list.elements {
            match self.typed(element)? {
                Typed::Text(text) => texts.push(text),
                Typed::Num(num) => nums.push(num),
                other => return self.wrong(element, format!("{} cannot be in a list", other.kind())),
            }
        }
        match (texts.is_empty(), nums.is_empty()) {
            (true, true) => self.wrong(at, "an empty list holds nothing"),
            (false, true) => Ok(Typed::Texts(List::Const(texts))),
            (true, false) => Ok(Typed::Nums(nums)),
            (false, false) => self.wrong(at, "a list holds texts or numbers, not both"),
        }
    }

    fn call(&mut self, at: &IdedExpr, call: &CallExpr) -> Checked<Typed> {
        match (call.target.as_deref(), call.func_name.as_str(), call.args.as_slice()) {
            (None, operators::LOGICAL_AND, args) => self.joined(args, true),
            (None, operators::LOGICAL_OR, args) => self.joined(args, false),
            (None, operators::LOGICAL_NOT, [one]) => Ok(Typed::Cond(Cond::Not(Box::new(self.cond(one)?)))),
            (None, operators::CONDITIONAL, [cond, yes, no]) => self.conditional(cond, yes, no),
            (None, operators::NEGATE, [one]) => Ok(Typed::Num(Num::Negated(Box::new(self.num(one)?)))),
            (None, operators::IN, [one, list]) => self.is_in(one, list).map(Typed::Cond),
            (None, operators::INDEX, [of, index]) => self.index(at, of, index),
            (None, name, [left, right]) if compare(name).is_some() => {
                let compare = compare(name).unwrap_or(Compare::Equal);
                self.compared(at, compare, left, right).map(Typed::Cond)
            }
            (None, name, [left, right]) if math(name).is_some() => {
                let math = math(name).unwrap_or(Math::Add);
                self.calculated(at, math, left, right)
            }
            (Some(of), "size", []) | (None, "size", [of]) => self.size(of).map(Typed::Num),
            (None, "int", [of]) => Ok(Typed::Num(Num::Parsed(Box::new(self.text(of)?)))),
            (None, "string", [of]) => Ok(Typed::Text(Text::Number(Box::new(self.num(of)?)))),
            (Some(of), "contains", [part]) => self.part(at, Part::Contains, of, part),
            (Some(of), "startsWith", [part]) => self.part(at, Part::StartsWith, of, part),
            (Some(of), "endsWith", [part]) => self.part(at, Part::EndsWith, of, part),
            (Some(of), "matches", [pattern]) | (None, "matches", [of, pattern]) => self.matches(of, pattern),
            (Some(of), "lowerAscii", []) => Ok(Typed::Text(Text::Lower(Box::new(self.text(of)?)))),
            (Some(of), "upperAscii", []) => Ok(Typed::Text(Text::Upper(Box::new(self.text(of)?)))),
            (Some(of), "split", [by]) => match self.text(by)? {
                Text::Const(by) if !by.is_empty() => {
                    Ok(Typed::Texts(List::Split(Box::new(self.text(of)?), by)))
                }
                _ => self.wrong(by, "what a text is split at is written out, and not empty"),
            },
            (_, name, _) => {
                let message = match FUNCTIONS.contains(name) {
                    true => format!("`{}` is not used so", shortened(name)),
                    false => format!("there is no function `{}`", shortened(name)),
                };
                Err(CelError::new(self.offset(at), message).help(FUNCTIONS))
            }
        }
    }

    /// Joined as one list, however the parser has balanced it.
    fn joined(&mut self, args: &[IdedExpr], and: bool) -> Checked<Typed> {
        let mut conds = Vec::new();
        for arg in args {
            match self.cond(arg)? {
                Cond::And(more) if and => conds.extend(more),
                Cond::Or(more) if !and => conds.extend(more),
                cond => conds.push(cond),
            }
        }
        Ok(Typed::Cond(if and { Cond::And(conds) } else { Cond::Or(conds) }))
    }

    fn conditional(&mut self, cond: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Checked<Typed> {
        let cond = self.cond(cond)?;
        Ok(match (self.typed(yes)?, self.typed(no)?) {
            (Typed::Cond(one), Typed::Cond(other)) => Typed::Cond(Cond::If(Box::new((cond, one, other)))),
            (Typed::Text(one), Typed::Text(other)) => Typed::Text(Text::If(Box::new((cond, one, other)))),
            (Typed::Num(one), Typed::Num(other)) => Typed::Num(Num::If(Box::new((cond, one, other)))),
            (_, other) => {
                return self.wanted(
                    no,
                    "of the same type as before `:`, a text, a number, true or false",
                    &other,
                );
            }
        })
    }

    fn compared(
        &mut self,
        at: &IdedExpr,
        compare: Compare,
        left: &IdedExpr,
        right: &IdedExpr,
    ) -> Checked<Cond> {
        let equality = matches!(compare, Compare::Equal | Compare::Unequal);
        let same = |cond| if compare == Compare::Equal { cond } else { Cond::Not(Box::new(cond)) };
        Ok(match (self.typed(left)?, self.typed(right)?) {
            (Typed::Text(one), Typed::Text(other)) => {
                if equality {
                    self.can_be(right, &one, &other)?;
                    self.can_be(left, &other, &one)?;
                }
                Cond::Text(compare, Box::new((one, other)))
            }
            (Typed::Num(one), Typed::Num(other)) => Cond::Num(compare, Box::new((one, other))),
            (Typed::Cond(one), Typed::Cond(other)) if equality => same(Cond::Same(Box::new((one, other)))),
            (Typed::Texts(one), Typed::Texts(other)) if equality => {
                same(Cond::SameLists(Box::new((one, other))))
            }
            (one, other) => {
                let message = format!("{} cannot be compared with {}", one.kind(), other.kind());
                return match one {
                    Typed::Texts(_) | Typed::Group(_) => self.wanted(left, "comparable with that", &one),
                    _ => self.wrong(at, message),
                };
            }
        })
    }

    /// A comparison that is never true is a slip, and a rule with it does not do what it
    /// seems to do.
    fn can_be(&self, at: &IdedExpr, fact: &Text, value: &Text) -> Checked<()> {
        let (Text::Fact(fact), Text::Const(value)) = (fact, value) else { return Ok(()) };
        match facts::never(*fact, value) {
            None => Ok(()),
            Some(why) => self.never(at, *fact, value, why),
        }
    }

    fn never<T>(&self, at: &IdedExpr, fact: TextFact, value: &str, why: String) -> Checked<T> {
        let message = format!("`{}` is never {:?}", Fact::Text(fact).name(), shortened(value));
        Err(CelError::new(self.offset(at), message).help(why))
    }

    fn calculated(&mut self, at: &IdedExpr, math: Math, left: &IdedExpr, right: &IdedExpr) -> Checked<Typed> {
        Ok(match (self.typed(left)?, self.typed(right)?) {
            (Typed::Num(one), Typed::Num(other)) => Typed::Num(Num::Math(math, Box::new((one, other)))),
            (Typed::Text(one), Typed::Text(other)) if math == Math::Add => {
                Typed::Text(Text::Joined(Box::new((one, other))))
            }
            (one, other) => {
                return self
                    .wrong(at, format!("one cannot calculate with {} and {}", one.kind(), other.kind()));
            }
        })
    }

    fn is_in(&mut self, one: &IdedExpr, list: &IdedExpr) -> Checked<Cond> {
        Ok(match (self.typed(one)?, self.typed(list)?) {
            (Typed::Text(text), Typed::Texts(List::Const(values))) => {
                for value in &values {
                    self.can_be(list, &text, value)?;
                }
                let written = |value: &Text| match value {
                    Text::Const(value) => Some(value.clone()),
                    _ => None,
                };
                match values.iter().map(written).collect::<Option<Vec<_>>>() {
                    Some(mut sorted) => {
                        sorted.sort();
                        Cond::OneOf(Box::new(text), sorted.into())
                    }
                    None => Cond::InTexts(Box::new((text, List::Const(values)))),
                }
            }
            (Typed::Text(text), Typed::Texts(found)) => {
                if let (Text::Const(value), List::Fact(fact)) = (&text, &found)
                    && let Some(why) = facts::never_in(*fact, value)
                {
                    let message =
                        format!("{:?} is never in `{}`", shortened(value), Fact::List(*fact).name());
                    return Err(CelError::new(self.offset(one), message).help(why));
                }
                Cond::InTexts(Box::new((text, found)))
            }
            (Typed::Text(key), Typed::Map(map)) => Cond::HasKey(map, Box::new(self.key(one, map, key)?)),
            (Typed::Num(num), Typed::Nums(nums)) => Cond::InNums(Box::new(num), nums),
            (what, other) => {
                return self.wrong(list, format!("{} is never in {}", what.kind(), other.kind()));
            }
        })
    }

    fn index(&mut self, at: &IdedExpr, of: &IdedExpr, index: &IdedExpr) -> Checked<Typed> {
        match self.typed(of)? {
            Typed::Map(map) => {
                let key = self.text(index)?;
                let key = self.key(index, map, key)?;
                Ok(value(map, key))
            }
            Typed::Texts(list) => Ok(Typed::Text(Text::At(Box::new((list, self.num(index)?))))),
            other => self.wrong(at, format!("{} has no elements", other.kind())),
        }
    }

    fn size(&mut self, of: &IdedExpr) -> Checked<Num> {
        Ok(match self.typed(of)? {
            Typed::Text(text) => Num::TextSize(Box::new(text)),
            Typed::Texts(list) => Num::ListSize(Box::new(list)),
            Typed::Nums(nums) => Num::Const(i64::try_from(nums.len()).unwrap_or(i64::MAX)),
            Typed::Map(map) => Num::MapSize(map),
            other => return self.wrong(of, format!("{} has no size", other.kind())),
        })
    }

    fn part(&mut self, at: &IdedExpr, part: Part, of: &IdedExpr, wanted: &IdedExpr) -> Checked<Typed> {
        let text = self.text(of)?;
        let wanted_text = self.text(wanted)?;
        if let (Text::Fact(fact), Text::Const(value)) = (&text, &wanted_text)
            && let Some(why) = facts::never_holds(*fact, value)
        {
            return self.never(at, *fact, value, why);
        }
        Ok(Typed::Cond(Cond::Part(part, Box::new((text, wanted_text)))))
    }

    fn matches(&mut self, of: &IdedExpr, pattern: &IdedExpr) -> Checked<Typed> {
        let text = self.text(of)?;
        let Text::Const(source) = self.text(pattern)? else {
            return self.wrong(
                pattern,
                "the pattern of `matches` is written out: it is compiled when the policy is loaded",
            );
        };
        if source.len() > MAX_CEL_PATTERN_BYTES {
            return self.wrong(pattern, format!("the pattern is longer than {MAX_CEL_PATTERN_BYTES} bytes"));
        }
        // Classes are of ASCII, as in RE2, on which CEL's patterns are based.
        let built = regex::bytes::RegexBuilder::new(&source)
            .unicode(false)
            .nest_limit(u32::try_from(MAX_CEL_DEPTH).unwrap_or(u32::MAX))
            .size_limit(MAX_CEL_PATTERN_COMPILED_BYTES)
            .dfa_size_limit(4 * MAX_CEL_PATTERN_COMPILED_BYTES)
            .build();
        match built {
            Ok(regex) => Ok(Typed::Cond(Cond::Matches(Box::new(text), Box::new(regex)))),
            Err(regex::Error::CompiledTooBig(_)) => self.wrong(
                pattern,
                format!("the compiled pattern needs more than {MAX_CEL_PATTERN_COMPILED_BYTES} bytes"),
            ),
            Err(error) => {
                let message = error.to_string();
                let message = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.wrong(pattern, format!("the pattern is not valid: {message}"))
            }
        }
    }

    fn comprehension(&mut self, at: &IdedExpr, all: &ComprehensionExpr) -> Checked<Typed> {
        let Some((quantifier, body)) = quantified(all) else {
            return Err(CelError::new(self.offset(at), "`map` and `filter` are not known here")
                .help("use exists, exists_one or all"));
        };
        if self.scopes.len() == MAX_CEL_LOOPS {
            return self.wrong(at, format!("more than {MAX_CEL_LOOPS} loops stand in one another"));
        }
        let (range, element) = match self.typed(&all.iter_range)? {
            Typed::Texts(list) => (Range::Texts(list), Element::Text),
            Typed::Map(map) => (Range::Texts(List::Keys(map)), Element::Text),
            Typed::Nums(nums) => (Range::Nums(nums), Element::Num),
            other => return self.wrong(&all.iter_range, format!("{} has no elements", other.kind())),
        };
        self.scopes.push((all.iter_var.clone(), element));
        let body = self.cond(body);
        self.scopes.pop();
        Ok(Typed::Cond(Cond::Loop(quantifier, range, Box::new(body?))))
    }
}

fn value(map: MapFact, key: Text) -> Typed {
    match map {
        MapFact::Labels => Typed::Text(Text::Label(Box::new(key))),
        MapFact::Query | MapFact::Headers => Typed::Texts(List::Values(map, Box::new(key))),
    }
}

/// Which macro the parser has made this of, and what was asked of each element.
fn quantified(all: &ComprehensionExpr) -> Option<(Quantifier, &IdedExpr)> {
    let Expr::Call(step) = &all.loop_step.expr else { return None };
    match (&all.accu_init.expr, step.func_name.as_str(), step.args.as_slice()) {
        (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, body]) => {
            Some((Quantifier::Exists, body))
        }
        (Expr::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, body]) => {
            Some((Quantifier::All, body))
        }
        (Expr::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [body, _, _]) => {
            Some((Quantifier::ExistsOne, body))
        }
        _ => None,
    }
}

fn compare(operator: &str) -> Option<Compare> {
    Some(match operator {
        operators::EQUALS => Compare::Equal,
        operators::NOT_EQUALS => Compare::Unequal,
        operators::LESS => Compare::Less,
        operators::LESS_EQUALS => Compare::LessOrEqual,
        operators::GREATER => Compare::Greater,
        operators::GREATER_EQUALS => Compare::GreaterOrEqual,
        _ => return None,
    })
}

fn math(operator: &str) -> Option<Math> {
    Some(match operator {
        operators::ADD => Math::Add,
        operators::SUBSTRACT => Math::Subtract,
        operators::MULTIPLY => Math::Multiply,
        operators::DIVIDE => Math::Divide,
        operators::MODULO => Math::Remainder,
        _ => return None,
    })
}

/// A name of the author's, for a message of one line.
fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}
