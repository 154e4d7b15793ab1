//! Which detectors and exact values a rule turns on, and what is done with what they find.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    detectors, error::MaskError, masker::by_surroundings, names::ENCODED, part::Part, strategy::Strategy,
};

/// All built-in token formats and every registered exact value.
pub const SET_SECRETS: &str = "secrets";
/// Personal data: e-mail addresses, card numbers, IBANs.
pub const SET_PII: &str = "pii";
/// Addresses of chains and keys of wallets.
pub const SET_FINANCIAL: &str = "financial";
/// Ids that states give to people. Only if named.
pub const SET_NATIONAL: &str = "national";
/// Orders to a model and commands that hide what they do. Only if named.
pub const SET_THREATS: &str = "threats";
/// Names of accounts, and of customers at a vendor. Only if named.
pub const SET_ACCOUNTS: &str = "accounts";
/// Every registered exact value, and no pattern.
pub const SET_EXACT: &str = "exact";
/// What looks like a credential, but nothing knows it; off unless it is named.
pub const SET_ENTROPY: &str = "entropy";
/// One registered exact value: `exact:NAME`.
const EXACT_PREFIX: &str = "exact:";
/// Everything there is, but for what has to be named.
const ALL: &str = "all";
/// The names of all sets.
const SETS: [&str; 9] = [
    ALL,
    SET_SECRETS,
    SET_PII,
    SET_EXACT,
    SET_FINANCIAL,
    SET_NATIONAL,
    SET_THREATS,
    SET_ACCOUNTS,
    SET_ENTROPY,
];

/// What may well stand in honest texts is looked for only where it is asked for.
const BEYOND: [&str; 4] = [SET_THREATS, SET_NATIONAL, SET_ACCOUNTS, SET_ENTROPY];

/// What is to be masked. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// Everything there is, by placeholders: all detectors and all exact values.
    All,
    /// Nothing.
    #[default]
    None,
    /// What each rule of a policy asks for. All of them take part: of what they say about one
    /// match the strictest counts, so that a rule never opens what another one closes.
    Entities(BTreeSet<Layer>),
}

/// What one rule asks for: of its own words the most specific counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    names: BTreeMap<String, Strategy>,
    parts: BTreeMap<Part, Strategy>,
    /// Whether a name stands among them for what `all` is not: what has to be named.
    beyond: bool,
}

impl Layer {
    /// Adds a set, an entity, a rule's name or `exact:NAME`, if there is one.
    pub fn name(&mut self, name: &str, strategy: Strategy) -> Result<(), MaskError> {
        if !known(name) {
            return Err(unknown(name));
        }
        let slot = self.names.entry(name.to_owned()).or_insert(strategy);
        *slot = strategy.max(*slot);
        self.beyond |= is_beyond(name);
        Ok(())
    }

    /// Adds a part of a message: masked as a whole, or with [`Strategy::Observe`] left alone.
    pub fn part(&mut self, part: Part, strategy: Strategy) {
        let slot = self.parts.entry(part).or_insert(strategy);
        *slot = strategy.max(*slot);
    }

    fn first(&self, names: &[&str]) -> Option<Strategy> {
        names.iter().find_map(|name| self.names.get(*name)).copied()
    }

    fn is_empty(&self) -> bool {
        self.names.is_empty() && self.parts.is_empty()
    }

    /// Whether it asks for nothing that placeholders for `all` are not.
    fn is_within_all(&self) -> bool {
        self.parts.is_empty() && !self.beyond && self.names.values().all(|s| *s <= Strategy::Placeholder)
    }

    /// The same without what it says of parts.
    fn of_names(&self) -> Self {
        Self { names: self.names.clone(), parts: BTreeMap::new(), beyond: self.beyond }
    }
}

impl From<Layer> for Selection {
    fn from(layer: Layer) -> Self {
        let everything = layer.names.get(ALL) == Some(&Strategy::Placeholder);
        match layer.is_empty() {
            true => Self::None,
            false if everything && layer.names.len() == 1 && layer.parts.is_empty() => Self::All,
            false => Self::Entities(BTreeSet::from([layer])),
        }
    }
}

impl Selection {
    /// Everything there is to be found, also what has to be named, each by itself: what is only
    /// told hides nothing that it overlaps with.
    pub fn observing_all() -> Self {
        let names = SETS.iter().map(|set| ((*set).to_owned(), Strategy::Observe)).collect();
        Self::Entities(BTreeSet::from([Layer { names, beyond: true, ..Layer::default() }]))
    }

    /// Checks the names against what there is. `all` is everything; no name is nothing.
    pub fn parse<I, S>(names: I) -> Result<Self, MaskError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut layer = Layer::default();
        for name in names {
            layer.name(name.as_ref(), Strategy::Placeholder)?;
        }
        Ok(if layer.names.contains_key(ALL) && !layer.beyond { Self::All } else { layer.into() })
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: &Self) -> Self {
        let everything = || {
            let names = BTreeMap::from([(ALL.to_owned(), Strategy::Placeholder)]);
            Layer { names, ..Layer::default() }
        };
        match (self, other) {
            (Self::All, Self::All) => Self::All,
            (mine, Self::None) => mine,
            (Self::None, theirs) => theirs.clone(),
            (Self::All, Self::Entities(layers)) if layers.iter().all(Layer::is_within_all) => Self::All,
            (Self::Entities(layers), Self::All) if layers.iter().all(Layer::is_within_all) => Self::All,
            (Self::All, Self::Entities(layers)) => {
                Self::Entities(layers.iter().cloned().chain([everything()]).collect())
            }
            (Self::Entities(mut layers), Self::All) => {
                layers.insert(everything());
                Self::Entities(layers)
            }
            (Self::Entities(mut mine), Self::Entities(theirs)) => {
                mine.extend(theirs.iter().cloned());
                Self::Entities(mine)
            }
        }
    }

    /// Whether nothing is selected.
    pub fn is_none(&self) -> bool {
        match self {
            Self::All => false,
            Self::None => true,
            Self::Entities(layers) => layers.iter().all(Layer::is_empty),
        }
    }

    /// What is done with what a detector finds; `None` if it is off.
    pub(super) fn of_detector(&self, rule: &str, set: &str, entity: &str) -> Option<Strategy> {
        if BEYOND.contains(&set) {
            return match self {
                Self::All => None,
                _ => self.strictest(&[rule, entity, set]),
            };
        }
        self.strictest(&[rule, entity, set, ALL])
    }

    /// What is done with the exact value of this name; `None` if it is not looked for.
    pub(super) fn of_exact(&self, entity: &str) -> Option<Strategy> {
        let named = format!("{EXACT_PREFIX}{entity}");
        self.strictest(&[&named, entity, SET_EXACT, SET_SECRETS, ALL])
    }

    fn strictest(&self, names: &[&str]) -> Option<Strategy> {
        match self {
            Self::All => Some(Strategy::Placeholder),
            Self::None => None,
            Self::Entities(layers) => layers.iter().filter_map(|layer| layer.first(names)).max(),
        }
    }

    /// What of this is about exact values.
    #[must_use]
    pub fn exact_part(&self) -> Self {
        let part = |layer: &Layer| {
            let mut names = layer.names.clone();
            names.retain(|name, _| !detectors::all().any(|d| d.entity == *name || d.rule == *name));
            let set = layer.first(&[SET_EXACT, SET_SECRETS, ALL]);
            names.retain(|name, _| ![SET_PII, SET_SECRETS, ALL].contains(&name.as_str()));
            names.extend(set.map(|strategy| (SET_EXACT.to_owned(), strategy)));
            Layer { names, ..Layer::default() }
        };
        match self {
            Self::None => Self::None,
            Self::All => Self::Entities(BTreeSet::from([Layer {
                names: BTreeMap::from([(SET_EXACT.to_owned(), Strategy::Placeholder)]),
                ..Layer::default()
            }])),
            Self::Entities(layers) => Self::Entities(layers.iter().map(part).collect()),
        }
    }

    /// The parts of a message that are masked as a whole, each with the strictest that is said
    /// of it.
    pub fn parts(&self) -> BTreeMap<&Part, Strategy> {
        let mut parts = BTreeMap::new();
        for (part, strategy) in self.said_of_parts().filter(|(_, strategy)| *strategy != Strategy::Observe) {
            let slot = parts.entry(part).or_insert(strategy);
            *slot = strategy.max(*slot);
        }
        // Of a cookie that is masked by itself nothing stays where all of them are masked together.
        let cookies = parts.iter().filter(|(part, _)| part.is_cookie()).map(|(_, strategy)| *strategy).max();
        for (_, strategy) in parts.iter_mut().filter(|(part, _)| part.has_cookies()) {
            if cookies.is_some_and(|cookies| cookies > *strategy) {
                *strategy = (*strategy).max(Strategy::Placeholder);
            }
        }
        parts
    }

    /// The parts that at least one rule leaves alone, and what is masked in them all the same:
    /// what the other rules ask for.
    pub fn exempt(&self) -> BTreeMap<&Part, Selection> {
        let Self::Entities(layers) = self else { return BTreeMap::new() };
        let exempt = self.said_of_parts().filter(|(_, strategy)| *strategy == Strategy::Observe);
        exempt
            .map(|(part, _)| {
                let others = layers.iter().filter(|l| l.parts.get(part) != Some(&Strategy::Observe));
                // Who leaves the field alone says nothing of the cookies that others name in it.
                let cookies = |layer: &Layer| {
                    let named = layer.parts.iter().filter(|(other, strategy)| {
                        part.has_cookies() && other.is_cookie() && **strategy != Strategy::Observe
                    });
                    named.map(|(other, strategy)| (other.clone(), *strategy)).collect()
                };
                let kept = |layer: &Layer| Layer { parts: cookies(layer), ..layer.of_names() };
                (part, Self::of_layers(others.map(kept)))
            })
            .collect()
    }

    /// What rules that do not name this part ask for, if any of it is stricter than what is done with
    /// the part: that is to be seen in it all the same.
    pub fn stricter_beside(&self, part: &Part, strategy: Strategy) -> Option<Self> {
        let Self::Entities(layers) = self else { return None };
        let beside = layers.iter().filter(|layer| !layer.parts.contains_key(part));
        let stricter = |layer: &&Layer| layer.names.values().any(|other| *other > strategy);
        let beside = Self::of_layers(beside.filter(stricter).map(Layer::of_names));
        (!beside.is_none()).then_some(beside)
    }

    fn of_layers(layers: impl Iterator<Item = Layer>) -> Self {
        let layers: BTreeSet<Layer> = layers.filter(|layer| !layer.is_empty()).collect();
        if layers.is_empty() { Self::None } else { Self::Entities(layers) }
    }

    fn said_of_parts(&self) -> impl Iterator<Item = (&Part, Strategy)> {
        let layers = match self {
            Self::Entities(layers) => Some(layers),
            Self::All | Self::None => None,
        };
        layers.into_iter().flatten().flat_map(|layer| &layer.parts).map(|(part, strategy)| (part, *strategy))
    }
}

fn known(name: &str) -> bool {
    SETS.contains(&name)
        || name.strip_prefix(EXACT_PREFIX).is_some_and(|rest| !rest.is_empty())
        || all_names().any(|(rule, set, entity)| [rule, set, entity].contains(&name))
}

/// Whether a set, an entity or a rule has to be named by itself.
fn is_beyond(name: &str) -> bool {
    BEYOND.contains(&name)
        || all_names().any(|(rule, set, entity)| BEYOND.contains(&set) && [rule, entity].contains(&name))
}

/// The names of all rules, with their sets and entities.
pub(super) fn all_names() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let named = detectors::all().map(|d| (&*d.rule, &*d.set, &*d.entity));
    named.chain(by_surroundings()).chain([ENCODED])
}

fn unknown(name: &str) -> MaskError {
    let entities: BTreeSet<&str> = all_names().map(|(_, _, entity)| entity).collect();
    let mut sets: BTreeSet<&str> = all_names().map(|(_, set, _)| set).collect();
    sets.extend(SETS);
    let sets = sets.into_iter().collect::<Vec<_>>().join(", ");
    MaskError::UnknownName {
        name: name.to_owned(),
        sets: format!("{sets}, {EXACT_PREFIX}NAME"),
        entities: entities.into_iter().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(names: &[(&str, Strategy)]) -> Selection {
        let mut layer = Layer::default();
        for (name, strategy) in names {
            layer.name(name, *strategy).unwrap();
        }
        layer.into()
    }

    #[test]
    fn names_are_checked_and_listed() {
        assert_eq!(Selection::parse::<_, &str>([]).unwrap(), Selection::None);
        assert_eq!(Selection::parse(["pii", "all"]).unwrap(), Selection::All);
        let some = Selection::parse(["pii", "GITHUB_TOKEN", "exact:DEPLOY_KEY"]).unwrap();
        assert!(some.of_detector("", "pii", "EMAIL").is_some());
        assert!(some.of_detector("", "secrets", "GITHUB_TOKEN").is_some());
        assert!(some.of_detector("", "secrets", "JWT").is_none());
        assert!(some.of_exact("DEPLOY_KEY").is_some() && some.of_exact("OTHER").is_none());
        let error = Selection::parse(["GITHUB_TOKNE"]).unwrap_err().to_string();
        assert!(error.contains("GITHUB_TOKNE") && error.contains("GITHUB_TOKEN"), "{error}");
        assert!(error.contains("secrets"), "{error}");
    }

    #[test]
    fn union_adds() {
        let pii = Selection::parse(["pii"]).unwrap();
        let both = pii.clone().union(&Selection::parse(["secrets"]).unwrap());
        assert!(both.of_detector("", "pii", "EMAIL").is_some() && both.of_exact("X").is_some());
        assert_eq!(pii.clone().union(&Selection::None), pii);
        assert_eq!(Selection::None.union(&pii), pii);
        assert_eq!(pii.union(&Selection::All), Selection::All);
    }

    /// In whatever order: what has to be named is not in `all`.
    #[test]
    fn everything_takes_nothing_away() {
        let names: Vec<_> = all_names().collect();
        let mut any: Vec<&str> =
            names.iter().flat_map(|(rule, set, entity)| [*rule, *set, *entity]).collect();
        any.extend(SETS);
        any.retain(|name| !name.is_empty());
        any.sort_unstable();
        any.dedup();
        for name in any {
            let mine = layer(&[(name, Strategy::Placeholder)]);
            for both in [mine.clone().union(&Selection::All), Selection::All.union(&mine)] {
                for (rule, set, entity) in &names {
                    let (alone, together) =
                        (mine.of_detector(rule, set, entity), both.of_detector(rule, set, entity));
                    assert!(together >= alone, "{name}: {rule} {set} {entity}: {alone:?} {together:?}");
                }
            }
        }
        let parsed = Selection::parse(["all", SET_NATIONAL]).unwrap();
        assert!(parsed.of_detector("", SET_NATIONAL, "").is_some() && parsed.of_exact("X").is_some());
    }

    #[test]
    fn in_one_rule_the_most_specific_counts_and_among_rules_the_strictest() {
        let mine = layer(&[("secrets", Strategy::Deny), ("JWT", Strategy::Observe), ("all", Strategy::Drop)]);
        assert_eq!(mine.of_detector("", "secrets", "JWT"), Some(Strategy::Observe));
        assert_eq!(mine.of_detector("", "secrets", "GITHUB_TOKEN"), Some(Strategy::Deny));
        assert_eq!(mine.of_detector("", "pii", "EMAIL"), Some(Strategy::Drop));
        assert_eq!(mine.of_exact("X"), Some(Strategy::Deny));
        let both = mine.clone().union(&Selection::parse(["secrets"]).unwrap());
        assert_eq!(both.of_detector("", "secrets", "JWT"), Some(Strategy::Placeholder));
        assert_eq!(both.of_detector("", "secrets", "GITHUB_TOKEN"), Some(Strategy::Deny));
        let all = mine.union(&Selection::All);
        assert_eq!(all.of_detector("", "secrets", "JWT"), Some(Strategy::Placeholder));
        assert_eq!(all.of_exact("X"), Some(Strategy::Deny), "`all` of another rule opens nothing");
        let twice = layer(&[("JWT", Strategy::Deny), ("JWT", Strategy::Observe)]);
        assert_eq!(twice.of_detector("", "secrets", "JWT"), Some(Strategy::Deny));
    }

    #[test]
    fn the_exact_part_is_about_exact_values_and_as_strict() {
        assert!(Selection::None.exact_part().is_none());
        assert_eq!(Selection::All.exact_part(), Selection::parse(["exact"]).unwrap());
        for (names, strict) in [
            (&[("secrets", Strategy::Deny), ("pii", Strategy::Drop)][..], Some(Strategy::Deny)),
            (&[("pii", Strategy::Drop), ("JWT", Strategy::Deny)], None),
            (&[("exact:A", Strategy::Drop), ("secrets", Strategy::Deny)], Some(Strategy::Drop)),
        ] {
            let part = layer(names).exact_part();
            assert_eq!(part.of_exact("A"), strict);
            assert_eq!(part.of_detector("", "secrets", "JWT"), None);
            assert_eq!(part.of_detector("", "pii", "EMAIL"), None);
        }
    }

    #[test]
    fn a_part_that_one_rule_leaves_alone_is_masked_by_the_others() {
        let key = Part::parse("header", "x-api-key").unwrap();
        let mut mine = Layer::default();
        mine.name("secrets", Strategy::Placeholder).unwrap();
        mine.part(key.clone(), Strategy::Observe);
        let mine = Selection::from(mine);
        assert_eq!(mine.exempt(), BTreeMap::from([(&key, Selection::None)]));
        assert!(mine.parts().is_empty());
        let pii = Selection::parse(["pii"]).unwrap();
        let both = mine.clone().union(&pii);
        assert_eq!(both.exempt(), BTreeMap::from([(&key, pii)]));
        let mut always = Layer::default();
        always.part(key.clone(), Strategy::Drop);
        let both = mine.union(&always.into());
        assert_eq!(both.parts(), BTreeMap::from([(&key, Strategy::Drop)]));
    }
}
