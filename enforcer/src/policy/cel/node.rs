//! An expression after its types were checked.

use super::facts::{ListFact, MapFact, TextFact};

/// Something that is true or false.
#[derive(Debug, Clone)]
pub enum Cond {
    Const(bool),
    /// Whether the ref of the job is protected.
    Protected,
    Not(Box<Cond>),
    And(Vec<Cond>),
    Or(Vec<Cond>),
    If(Box<(Cond, Cond, Cond)>),
    Same(Box<(Cond, Cond)>),
    Text(Compare, Box<(Text, Text)>),
    Num(Compare, Box<(Num, Num)>),
    SameLists(Box<(List, List)>),
    Part(Part, Box<(Text, Text)>),
    Matches(Box<Text>, Box<regex::bytes::Regex>),
    /// Sorted.
    OneOf(Box<Text>, Box<[Box<str>]>),
    InTexts(Box<(Text, List)>),
    InNums(Box<Num>, Vec<Num>),
    HasKey(MapFact, Box<Text>),
    /// Whether the fact exists at all.
    Exists(Presence),
    Loop(Quantifier, Range, Box<Cond>),
}

impl Cond {
    /// Whether it compares a request's path with a text that is known when the policy is loaded.
    pub fn compares_path(&self) -> bool {
        let (Cond::Text(Compare::Equal, two) | Cond::Part(_, two)) = self else { return false };
        matches!(
            &**two,
            (Text::Fact(TextFact::Path), Text::Const(_)) | (Text::Const(_), Text::Fact(TextFact::Path))
        )
    }

    /// What a request's path begins with if this is true.
    pub fn path_begins(&self) -> &str {
        let equal = matches!(self, Cond::Text(Compare::Equal, _));
        let (Cond::Text(Compare::Equal, two) | Cond::Part(Part::StartsWith, two)) = self else { return "" };
        match &**two {
            (Text::Fact(TextFact::Path), Text::Const(text)) => text,
            (Text::Const(text), Text::Fact(TextFact::Path)) if equal => text,
            _ => "",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Contains,
    StartsWith,
    EndsWith,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Text(TextFact),
    Port,
    Protected,
    List(ListFact),
    Map(MapFact),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quantifier {
    Exists,
    ExistsOne,
    All,
}

#[derive(Debug, Clone)]
pub enum Range {
    Texts(List),
    Nums(Vec<Num>),
}

#[derive(Debug, Clone)]
pub enum Text {
    Const(Box<str>),
    Fact(TextFact),
    /// The variable of a loop, counted from the outermost.
    Var(usize),
    Label(Box<Text>),
    At(Box<(List, Num)>),
    Joined(Box<(Text, Text)>),
    Lower(Box<Text>),
    Upper(Box<Text>),
    Number(Box<Num>),
    If(Box<(Cond, Text, Text)>),
}

/// Lists of texts.
#[derive(Debug, Clone)]
pub enum List {
    Const(Vec<Text>),
    Fact(ListFact),
    Values(MapFact, Box<Text>),
    Keys(MapFact),
    Split(Box<Text>, Box<str>),
}

#[derive(Debug, Clone)]
pub enum Num {
    Const(i64),
    Port,
    Var(usize),
    /// Characters.
    TextSize(Box<Text>),
    ListSize(Box<List>),
    MapSize(MapFact),
    Parsed(Box<Text>),
    Negated(Box<Num>),
    Math(Math, Box<(Num, Num)>),
    If(Box<(Cond, Num, Num)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Math {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}
