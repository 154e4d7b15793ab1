//! Whether enough distinct people agree.
//!
//! Each person takes one place, in whatever groups: with "one of security and one of
//! release" somebody in both still is one person. Who gets which place is found by
//! augmenting paths, so that nobody is counted in a place that another one needs.

use std::collections::{BTreeMap, BTreeSet};

use super::people::{Account, People, Voter};
use super::terms::Terms;
use crate::policy::{Group, Need};

/// Why an answer does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotEligible {
    #[error("the job is theirs, or its commit")]
    Party,
    #[error("the people map does not know them")]
    Unmapped,
    #[error("the people map does not know whose job or whose commit it is")]
    PartyUnmapped,
    #[error("they are in none of the groups that are asked, or not any more")]
    NoGroup,
}

/// Who answers with this login, if that counts now.
pub fn standing<'a>(
    terms: &Terms,
    people: &'a People,
    account: &'a Account,
) -> Result<Voter<'a>, NotEligible> {
    let voter = people.voter(account);
    if terms.parties().any(|party| party == account || people.voter(party) == voter) {
        return Err(NotEligible::Party);
    }
    if terms.excludes_self {
        if matches!(voter, Voter::Login(_)) {
            return Err(NotEligible::Unmapped);
        }
        parties_are_known(terms, people)?;
    }
    let asked = |group: &Group| terms.needs.iter().any(|need| need.groups.contains(group));
    if people.groups(account).any(asked) { Ok(voter) } else { Err(NotEligible::NoGroup) }
}

/// Nobody can be shown not to be somebody who is not known.
pub fn parties_are_known(terms: &Terms, people: &People) -> Result<(), NotEligible> {
    let unmapped = |party: &Account| people.person(party).is_none();
    if terms.excludes_self && (terms.actor.is_none() || terms.parties().any(unmapped)) {
        return Err(NotEligible::PartyUnmapped);
    }
    Ok(())
}

/// How many of the needed places are taken by those who answer with these logins.
pub fn places<'a>(
    terms: &Terms,
    people: &'a People,
    accounts: impl IntoIterator<Item = &'a Account>,
) -> usize {
    // What a person has by one login counts together with what they have by another.
    let mut voters: BTreeMap<Voter<'a>, BTreeSet<&Group>> = BTreeMap::new();
    for account in accounts {
        if let Ok(voter) = standing(terms, people, account) {
            voters.entry(voter).or_default().extend(people.groups(account));
        }
    }
    let voters: Vec<BTreeSet<&Group>> = voters.into_values().collect();
    let slots: Vec<&Need> =
        terms.needs.iter().flat_map(|need| std::iter::repeat_n(need, need.people)).collect();
    let mut seated: Vec<Option<usize>> = vec![None; voters.len()];
    (0..slots.len()).filter(|slot| seat(*slot, &slots, &voters, &mut seated, &mut BTreeSet::new())).count()
}

/// Finds somebody for a place, moving others to places that they can take as well. As deep
/// as there are places, which `MAX_QUORUM` limits.
fn seat(
    slot: usize,
    slots: &[&Need],
    voters: &[BTreeSet<&Group>],
    seated: &mut [Option<usize>],
    tried: &mut BTreeSet<usize>,
) -> bool {
    let Some(need) = slots.get(slot) else { return false };
    for (who, groups) in voters.iter().enumerate() {
        if !groups.iter().any(|group| need.groups.contains(*group)) || !tried.insert(who) {
            continue;
        }
        let free = match seated.get(who).copied().flatten() {
            None => true,
            Some(other) => seat(other, slots, voters, seated, tried),
        };
        if free {
            if let Some(place) = seated.get_mut(who) {
                *place = Some(slot);
            }
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::super::people::PersonId;
    use super::*;
    use crate::policy::Offers;

    fn login(name: &str) -> Account {
        Account::subject("idp", name)
    }

    fn terms(needs: &[(usize, &[&str])]) -> Terms {
        let need = |(people, groups): &(usize, &[&str])| Need {
            people: *people,
            groups: groups.iter().map(|group| Group::new(group)).collect(),
        };
        Terms {
            needs: needs.iter().map(need).collect(),
            excludes_self: true,
            actor: Some(login("actor")),
            authors: Vec::new(),
            retry_seconds: None,
            offers: Offers::default(),
        }
    }

    /// Each with a login of the same name.
    fn people(list: &[(&str, &[&str])]) -> People {
        let mut people = People::default();
        people.map(login("actor"), PersonId::new("actor")).unwrap();
        for (name, groups) in list {
            people.map(login(name), PersonId::new(name)).unwrap();
            people.set_groups(login(name), groups.iter().map(|group| Group::new(group)));
        }
        people
    }

    fn taken(terms: &Terms, people: &People, names: &[&str]) -> usize {
        let logins: Vec<Account> = names.iter().map(|name| login(name)).collect();
        places(terms, people, &logins)
    }

    #[test]
    fn one_person_in_two_groups_takes_one_place() {
        let people = people(&[("a", &["sec", "rel"]), ("b", &["rel"]), ("c", &["sec"])]);
        let terms = terms(&[(1, &["sec"]), (1, &["rel"])]);
        assert_eq!(taken(&terms, &people, &["a"]), 1);
        assert_eq!(taken(&terms, &people, &["a", "a"]), 1);
        assert_eq!(taken(&terms, &people, &["a", "b"]), 2);
        assert_eq!(taken(&terms, &people, &["a", "c"]), 2);
        assert_eq!(taken(&terms, &people, &["b"]), 1);
    }

    #[test]
    fn who_can_take_two_places_leaves_the_one_that_another_needs() {
        let people = people(&[("a", &["x", "y"]), ("b", &["x"]), ("c", &["y", "z"])]);
        let terms = terms(&[(1, &["x"]), (1, &["y"]), (1, &["z"])]);
        assert_eq!(taken(&terms, &people, &["a", "b", "c"]), 3);
        assert_eq!(taken(&terms, &people, &["a", "b"]), 2);
    }

    #[test]
    fn two_logins_of_a_person_are_one_person_with_the_groups_of_both() {
        let mut people = people(&[("a", &["x"]), ("b", &["y"])]);
        people.map(login("a2"), PersonId::new("a")).unwrap();
        people.set_groups(login("a2"), [Group::new("y")]);
        let terms = terms(&[(1, &["x"]), (1, &["y"])]);
        assert_eq!(taken(&terms, &people, &["a", "a2"]), 1);
        assert_eq!(taken(&terms, &people, &["a", "b"]), 2);
    }

    #[test]
    fn parties_never_count_by_whatever_login() {
        let mut people = people(&[("a", &["x"]), ("actor", &["x"]), ("author", &["x"])]);
        people.map(login("actor-at-work"), PersonId::new("actor")).unwrap();
        people.set_groups(login("actor-at-work"), [Group::new("x")]);
        let mut terms = terms(&[(1, &["x"])]);
        terms.authors = vec![login("author")];
        for excludes_self in [true, false] {
            terms.excludes_self = excludes_self;
            for party in ["actor", "actor-at-work", "author"] {
                assert_eq!(standing(&terms, &people, &login(party)), Err(NotEligible::Party), "{party}");
            }
            assert_eq!(taken(&terms, &people, &["actor", "actor-at-work", "author"]), 0);
            assert_eq!(taken(&terms, &people, &["actor", "a"]), 1);
        }
    }

    #[test]
    fn who_is_not_mapped_counts_only_where_the_rule_lets_them() {
        let mut people = people(&[("a", &["x"])]);
        people.set_groups(login("stranger"), [Group::new("x")]);
        let mut terms = terms(&[(1, &["x"])]);
        assert_eq!(standing(&terms, &people, &login("stranger")), Err(NotEligible::Unmapped));
        terms.actor = Some(login("unknown-actor"));
        assert_eq!(standing(&terms, &people, &login("a")), Err(NotEligible::PartyUnmapped));
        terms.actor = None;
        assert_eq!(standing(&terms, &people, &login("a")), Err(NotEligible::PartyUnmapped));
        terms.actor = Some(login("actor"));
        terms.authors = vec![login("unknown-author")];
        assert_eq!(standing(&terms, &people, &login("a")), Err(NotEligible::PartyUnmapped));
        terms.excludes_self = false;
        assert!(standing(&terms, &people, &login("a")).is_ok());
        assert!(standing(&terms, &people, &login("stranger")).is_ok());
        // The actor stays out, mapped or not.
        terms.actor = Some(login("stranger"));
        assert_eq!(standing(&terms, &people, &login("stranger")), Err(NotEligible::Party));
    }

    #[test]
    fn a_group_that_is_not_asked_gives_nothing() {
        let people = people(&[("admin", &["admins"]), ("nobody", &[])]);
        let terms = terms(&[(1, &["x"])]);
        for name in ["admin", "nobody"] {
            assert_eq!(standing(&terms, &people, &login(name)), Err(NotEligible::NoGroup), "{name}");
        }
    }

    #[test]
    fn as_many_places_as_there_can_be() {
        use crate::policy::MAX_QUORUM;
        let names: Vec<String> = (0..MAX_QUORUM).map(|n| format!("p{n}")).collect();
        let list: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), ["x"].as_slice())).collect();
        let people = people(&list);
        let terms = terms(&[(MAX_QUORUM, &["x"])]);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(taken(&terms, &people, &names), MAX_QUORUM);
        assert_eq!(taken(&terms, &people, &names[1..]), MAX_QUORUM - 1);
    }
}
