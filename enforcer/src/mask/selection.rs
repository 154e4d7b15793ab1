//! Which detectors and exact values a rule turns on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{detectors, error::MaskError};

/// All built-in token formats and every registered exact value.
pub const SET_SECRETS: &str = "secrets";
/// Personal data: e-mail addresses, card numbers, IBANs.
pub const SET_PII: &str = "pii";
/// Every registered exact value, and no pattern.
pub const SET_EXACT: &str = "exact";
/// One registered exact value: `exact:NAME`.
const EXACT_PREFIX: &str = "exact:";

/// What is to be masked. The default is nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Selection {
    /// Everything there is: all detectors and all exact values.
    All,
    /// Nothing.
    #[default]
    None,
    /// Names of sets and of entities, checked by [`Selection::parse`].
    Entities(BTreeSet<String>),
}

impl Selection {
    /// Checks the names against what there is. `all` is everything; no name is nothing.
    pub fn parse<I, S>(names: I) -> Result<Self, MaskError>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut wanted = BTreeSet::new();
        for name in names {
            let name = name.as_ref();
            if name == "all" {
                return Ok(Self::All);
            }
            if !known(name) {
                return Err(unknown(name));
            }
            wanted.insert(name.to_owned());
        }
        Ok(if wanted.is_empty() { Self::None } else { Self::Entities(wanted) })
    }

    /// Both together.
    #[must_use]
    pub fn union(self, other: &Self) -> Self {
        match (self, other) {
            (Self::All, _) | (_, Self::All) => Self::All,
            (mine, Self::None) => mine,
            (Self::None, theirs) => theirs.clone(),
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
            Self::Entities(names) => names.is_empty(),
        }
    }

    /// Whether a detector of this entity in this set is on.
    pub(super) fn has_detector(&self, set: &str, entity: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Entities(names) => names.contains(set) || names.contains(entity),
        }
    }

    /// Whether the exact value of this name is looked for.
    pub(super) fn has_exact(&self, entity: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Entities(names) => {
                names.contains(SET_SECRETS)
                    || names.contains(SET_EXACT)
                    || names.contains(entity)
                    || names.contains(&format!("{EXACT_PREFIX}{entity}"))
            }
        }
    }
}

fn known(name: &str) -> bool {
    [SET_SECRETS, SET_PII, SET_EXACT].contains(&name)
        || name.strip_prefix(EXACT_PREFIX).is_some_and(|rest| !rest.is_empty())
        || detectors::all().any(|d| d.entity == name)
}

fn unknown(name: &str) -> MaskError {
    let entities: BTreeSet<&str> = detectors::all().map(|d| d.entity.as_ref()).collect();
    MaskError::UnknownName {
        name: name.to_owned(),
        sets: format!("all, {SET_SECRETS}, {SET_PII}, {SET_EXACT}, {EXACT_PREFIX}NAME"),
        entities: entities.into_iter().collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_listed() {
        assert_eq!(Selection::parse::<_, &str>([]).unwrap(), Selection::None);
        assert_eq!(Selection::parse(["pii", "all"]).unwrap(), Selection::All);
        let some = Selection::parse(["pii", "GITHUB_TOKEN", "exact:DEPLOY_KEY"]).unwrap();
        assert!(some.has_detector("pii", "EMAIL"));
        assert!(some.has_detector("secrets", "GITHUB_TOKEN"));
        assert!(!some.has_detector("secrets", "JWT"));
        assert!(some.has_exact("DEPLOY_KEY") && !some.has_exact("OTHER"));
        let error = Selection::parse(["GITHUB_TOKNE"]).unwrap_err().to_string();
        assert!(error.contains("GITHUB_TOKNE") && error.contains("GITHUB_TOKEN"), "{error}");
        assert!(error.contains("secrets"), "{error}");
    }

    #[test]
    fn union_adds() {
        let pii = Selection::parse(["pii"]).unwrap();
        let both = pii.clone().union(&Selection::parse(["secrets"]).unwrap());
        assert!(both.has_detector("pii", "EMAIL") && both.has_exact("X"));
        assert_eq!(pii.clone().union(&Selection::None), pii);
        assert_eq!(Selection::None.union(&pii), pii);
        assert_eq!(pii.union(&Selection::All), Selection::All);
    }
}
