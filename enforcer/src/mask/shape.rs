//! Patterns that need no automaton: some fixed bytes, then runs of classes with bounds.
//!
//! Most token formats are of this form (`ghp_[A-Za-z0-9]{36,255}`). What an automaton would
//! need hundreds of states for is here a part and a count in one number, and costs nothing
//! to build. A pattern whose next part cannot be told from one byte is left to the automaton.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::byteset::ByteSet;

/// The most ways in which a pattern can branch in its fixed bytes.
const BRANCHES_MAX: usize = 32;
/// The most parts of a branch.
const PARTS_MAX: usize = 127;

/// `class{min,max}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    class: ByteSet,
    min: u16,
    max: u16,
    /// Belongs to the group named `secret`.
    secret: bool,
}

/// Alternatives, each a sequence of parts; one byte is always enough to know which.
#[derive(Debug)]
pub(super) struct Shape {
    branches: Vec<Vec<Part>>,
    nodes: Vec<Node>,
    has_group: bool,
}

/// A place in the fixed bytes that several branches share.
#[derive(Debug)]
struct Node(Vec<(ByteSet, State)>);

/// Where a match stands: in a node, or in a part of a branch behind some of its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Node(u16),
    Part { branch: u8, part: u8, count: u16 },
}

const BRANCH_BIT: u32 = 1 << 31;

impl State {
    fn pack(self) -> u32 {
        match self {
            Self::Node(node) => u32::from(node),
            Self::Part { branch, part, count } => {
                BRANCH_BIT | u32::from(branch) << 23 | u32::from(part) << 16 | u32::from(count)
            }
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "the fields of `pack`, cut by masks")]
    fn unpack(packed: u32) -> Self {
        if packed & BRANCH_BIT == 0 {
            return Self::Node(packed as u16);
        }
        Self::Part {
            branch: (packed >> 23 & 0xff) as u8,
            part: (packed >> 16 & 0x7f) as u8,
            count: packed as u16,
        }
    }
}

impl Shape {
    /// The state before the first byte.
    pub(super) const START: u32 = 0;

    /// The pattern as a shape, if it is one.
    pub(super) fn new(hir: &Hir) -> Option<Self> {
        let mut branches = vec![Vec::new()];
        extend(&mut branches, hir, false)?;
        let mut shape = Self { nodes: Vec::new(), has_group: false, branches };
        for parts in &shape.branches {
            shape.has_group |= parts.iter().any(|p| p.secret);
            let ambiguous = |at: usize| {
                let part = &parts[at];
                part.min < part.max && !part.class.apart(firsts(&parts[at + 1..]))
            };
            if parts.len() > PARTS_MAX || (0..parts.len()).any(ambiguous) {
                return None;
            }
        }
        let all: Vec<usize> = (0..shape.branches.len()).collect();
        let start = shape.node(&all, 0)?;
        (start == State::Node(0)).then_some(shape)
    }

    /// The node for branches that have been alike up to a part. Children come behind it.
    fn node(&mut self, alive: &[usize], at: usize) -> Option<State> {
        if let [branch] = alive
            && at > 0
        {
            let (branch, part) = (u8::try_from(*branch).ok()?, u8::try_from(at).ok()?);
            return Some(State::Part { branch, part, count: 0 });
        }
        let index = self.nodes.len();
        self.nodes.push(Node(Vec::new()));
        let mut groups: Vec<(ByteSet, Vec<usize>)> = Vec::new();
        for &branch in alive {
            // A shared place must be a fixed one, and not the end of one of them.
            let part = *self.branches[branch].get(at)?;
            if part.min == 0 || alive.len() > 1 && (part.min, part.max) != (1, 1) {
                return None;
            }
            if let Some((_, members)) = groups.iter_mut().find(|(class, _)| *class == part.class) {
                members.push(branch);
            } else if groups.iter().all(|(class, _)| class.apart(part.class)) {
                groups.push((part.class, vec![branch]));
            } else {
                return None;
            }
        }
        for (class, members) in groups {
            let first = self.branches[members[0]].get(at)?;
            let next = if (first.min, first.max) == (1, 1) {
                self.node(&members, at + 1)?
            } else {
                State::Part { branch: u8::try_from(members[0]).ok()?, part: u8::try_from(at).ok()?, count: 1 }
            };
            self.nodes[index].0.push((class, next));
        }
        Some(State::Node(u16::try_from(index).ok()?))
    }

    /// Whether a group says which part of the match is the secret.
    pub(super) fn has_group(&self) -> bool {
        self.has_group
    }

    /// Goes on with `hay[from..]`: the state then, the end of the longest match so far,
    /// and whether nothing that follows can change it.
    pub(super) fn run(&self, hay: &[u8], from: usize, state: u32) -> (u32, Option<usize>, bool) {
        let mut state = State::unpack(state);
        let mut end = None;
        let mut at = from;
        loop {
            match state {
                State::Node(node) => {
                    let Some(&byte) = hay.get(at) else { return (state.pack(), end, false) };
                    let next = self.nodes[usize::from(node)].0.iter().find(|(class, _)| class.has(byte));
                    let Some((_, next)) = next else { return (state.pack(), end, true) };
                    state = *next;
                    at += 1;
                }
                State::Part { branch, part, count } => {
                    let parts = &self.branches[usize::from(branch)];
                    let (over, part, count, next) = walk(parts, usize::from(part), count, hay, at, &mut end);
                    let part = u8::try_from(part).unwrap_or(u8::MAX);
                    debug_assert!(over || next == hay.len());
                    return (State::Part { branch, part, count }.pack(), end, over);
                }
            }
        }
    }

    /// The part of the match that the group names.
    pub(super) fn group(&self, hay: &[u8], start: usize, end: usize) -> Option<(usize, usize)> {
        let mut state = State::Node(0);
        let mut at = start;
        while let State::Node(node) = state {
            let byte = hay.get(at)?;
            state = self.nodes[usize::from(node)].0.iter().find(|(class, _)| class.has(*byte))?.1;
            at += 1;
        }
        let State::Part { branch, .. } = state else { return None };
        let mut at = start;
        let (mut from, mut to) = (None, start);
        for part in &self.branches[usize::from(branch)] {
            let run = hay[at..end].iter().take(usize::from(part.max)).take_while(|b| part.class.has(**b));
            let next = at + run.count();
            if part.secret {
                from.get_or_insert(at);
                to = next;
            }
            at = next;
        }
        Some((from?, to))
    }
}

/// Goes through the parts of one branch; also the state in which the bytes ended.
fn walk(
    parts: &[Part],
    mut index: usize,
    mut count: u16,
    hay: &[u8],
    mut at: usize,
    end: &mut Option<usize>,
) -> (bool, usize, u16, usize) {
    loop {
        let Some(part) = parts.get(index) else {
            *end = Some(at);
            return (true, index, count, at);
        };
        let room = usize::from(part.max - count);
        let rest = &hay[at..];
        let run = rest.iter().take(room).take_while(|b| part.class.has(**b)).count();
        at += run;
        count += u16::try_from(run).unwrap_or(0);
        let enough = count >= part.min;
        if enough && parts[index + 1..].iter().all(|p| p.min == 0) {
            *end = Some(at);
        }
        if count == part.max {
            index += 1;
            count = 0;
        } else if at == hay.len() {
            return (false, index, count, at);
        } else if enough {
            index += 1;
            count = 0;
        } else {
            return (true, index, count, at);
        }
    }
}

/// What the first byte behind these parts' beginning can be.
fn firsts(parts: &[Part]) -> ByteSet {
    let mut set = ByteSet::NONE;
    for part in parts {
        set = set.or(part.class);
        if part.min > 0 {
            break;
        }
    }
    set
}

/// Appends an expression to every branch.
fn extend(branches: &mut Vec<Vec<Part>>, hir: &Hir, secret: bool) -> Option<()> {
    match hir.kind() {
        HirKind::Empty => {}
        HirKind::Literal(literal) => {
            for &byte in &literal.0 {
                push(branches, Part { class: ByteSet::NONE.with(&[byte]), min: 1, max: 1, secret });
            }
        }
        HirKind::Class(_) => push(branches, Part { class: single(hir)?, min: 1, max: 1, secret }),
        HirKind::Repetition(repetition) => {
            let (min, max) = (u16::try_from(repetition.min).ok()?, u16::try_from(repetition.max?).ok()?);
            if !repetition.greedy || max == 0 {
                return None;
            }
            push(branches, Part { class: single(&repetition.sub)?, min, max, secret });
        }
        HirKind::Capture(capture) => {
            let named = capture.name.as_deref() == Some("secret");
            extend(branches, &capture.sub, secret || named)?;
        }
        HirKind::Concat(all) => all.iter().try_for_each(|each| extend(branches, each, secret))?,
        HirKind::Alternation(all) => {
            if branches.len() * all.len() > BRANCHES_MAX {
                return None;
            }
            let before = std::mem::take(branches);
            for each in all {
                let mut with = before.clone();
                extend(&mut with, each, secret)?;
                branches.append(&mut with);
            }
        }
        HirKind::Look(_) => return None,
    }
    (branches.len() <= BRANCHES_MAX).then_some(())
}

fn push(branches: &mut [Vec<Part>], part: Part) {
    for branch in branches {
        branch.push(part);
    }
}

/// The bytes of an expression that is one byte long.
fn single(hir: &Hir) -> Option<ByteSet> {
    match hir.kind() {
        HirKind::Literal(literal) if literal.0.len() == 1 => Some(ByteSet::NONE.with(&literal.0)),
        HirKind::Class(Class::Bytes(class)) => {
            Some(class.iter().fold(ByteSet::NONE, |set, range| set.range(range.start(), range.end())))
        }
        HirKind::Class(Class::Unicode(class)) => class.iter().try_fold(ByteSet::NONE, |set, range| {
            let (first, last) = (u8::try_from(range.start()).ok()?, u8::try_from(range.end()).ok()?);
            (last < 0x80).then(|| set.range(first, last))
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(pattern: &str) -> Option<Shape> {
        let hir = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build().parse(pattern);
        Shape::new(&hir.unwrap())
    }

    fn ends(pattern: &str, text: &str) -> Option<usize> {
        let shape = shape(pattern).unwrap();
        let whole = shape.run(text.as_bytes(), 0, Shape::START).1;
        for cut in 0..=text.len() {
            let (state, first, over) = shape.run(&text.as_bytes()[..cut], 0, Shape::START);
            let second = if over { None } else { shape.run(text.as_bytes(), cut, state).1 };
            assert_eq!(second.or(first), whole, "{pattern} {text} {cut}");
        }
        whole
    }

    #[test]
    fn a_shape_matches_what_its_pattern_says() {
        let token = "gh[pousr]_[A-Za-z0-9]{4,6}";
        assert_eq!(ends(token, "ghp_abcd"), Some(8));
        assert_eq!(ends(token, "ghr_abcdefgh"), Some(10));
        assert_eq!(ends(token, "ghx_abcd"), None);
        assert_eq!(ends(token, "ghp_abc"), None);
        assert_eq!(ends("[a-z]{2}={0,2}", "ab==="), Some(4));
        assert_eq!(ends("gl(?:pat|rt|rtr|ptt)-[a-z]{2}", "glrtr-abc"), Some(8));
        assert_eq!(ends("gl(?:pat|rt|rtr|ptt)-[a-z]{2}", "glrt-abc"), Some(7));
        assert_eq!(ends("(?:live|test)_[0-9]{1,3}x?", "test_12x"), Some(8));
        assert_eq!(ends(r"a\.[a-z]{1,3}(?:\.|-)[0-9]{2}", "a.bc-12"), Some(7));
    }

    #[test]
    fn the_group_is_found_again() {
        let shape = shape("(?i:key)[= ]{1,3}(?<secret>[0-9]{2,4}z?)").unwrap();
        assert_eq!(shape.group(b"xKEY= 123z", 1, 10), Some((6, 10)));
    }

    #[test]
    fn what_one_byte_does_not_decide_is_no_shape() {
        for pattern in ["[a-z]{1,3}b", "(?:ab|[a-c]d)x", "(?:a{1,2}|ab)c", "(?:ab){2}", "a|ab"] {
            assert!(shape(pattern).is_none(), "{pattern}");
        }
    }
}
