//! Who people are: which logins belong to one person, and what groups each login has now.
//!
//! A `People` is what is known at one moment. It is handed in with every question and
//! every answer, so that a role that was taken away counts at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::policy::Group;

/// One login. The caller has verified it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Account {
    /// At a forge: its host and the login, in lower case, as forges compare them.
    Forge { host: Arc<str>, login: Arc<str> },
    /// At an identity provider: issuer and subject, which are case sensitive.
    Subject { issuer: Arc<str>, subject: Arc<str> },
}

impl Account {
    pub fn forge(host: &str, login: &str) -> Self {
        Account::Forge { host: host.to_lowercase().into(), login: login.to_lowercase().into() }
    }

    pub fn subject(issuer: &str, subject: &str) -> Self {
        Account::Subject { issuer: issuer.into(), subject: subject.into() }
    }

    /// The login, or the subject, without where it is one.
    pub fn name(&self) -> &str {
        match self {
            Account::Forge { login: name, .. } | Account::Subject { subject: name, .. } => name,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Account::Forge { host, login } => write!(f, "{login}@{host}"),
            Account::Subject { issuer, subject } => write!(f, "{subject} of {issuer}"),
        }
    }
}

/// A person of the people map.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PersonId(Arc<str>);

impl PersonId {
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }
}

/// One login is said to belong to two people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{account} belongs to two people in the people map; let it stand once")]
pub struct TwoPeople {
    account: Account,
}

/// All logins that are known at one moment.
#[derive(Debug, Clone, Default)]
pub struct People {
    accounts: BTreeMap<Account, Entry>,
}

#[derive(Debug, Clone, Default)]
struct Entry {
    person: Option<PersonId>,
    groups: BTreeSet<Group>,
}

/// Who an answer counts for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Voter<'a> {
    Person(&'a PersonId),
    /// A login that the people map does not know.
    Login(&'a Account),
}

impl People {
    /// Says that a login belongs to a person.
    pub fn map(&mut self, account: Account, person: PersonId) -> Result<(), TwoPeople> {
        let entry = self.accounts.entry(account.clone()).or_default();
        match &entry.person {
            Some(other) if *other != person => Err(TwoPeople { account }),
            _ => {
                entry.person = Some(person);
                Ok(())
            }
        }
    }

    /// Says what groups a login has now, in place of those that it had.
    pub fn set_groups(&mut self, account: Account, groups: impl IntoIterator<Item = Group>) {
        self.accounts.entry(account).or_default().groups = groups.into_iter().collect();
    }

    pub fn person(&self, account: &Account) -> Option<&PersonId> {
        self.accounts.get(account)?.person.as_ref()
    }

    /// The person that a login belongs to, or the login if nobody has said so.
    pub fn voter<'a>(&'a self, account: &'a Account) -> Voter<'a> {
        self.person(account).map_or(Voter::Login(account), Voter::Person)
    }

    pub fn groups(&self, account: &Account) -> impl Iterator<Item = &Group> {
        self.accounts.get(account).into_iter().flat_map(|entry| &entry.groups)
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        self.accounts.keys()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_of_a_forge_are_one_in_any_case() {
        assert_eq!(Account::forge("GitHub.com", "Alice"), Account::forge("github.com", "alice"));
        assert_ne!(Account::subject("https://idp", "Alice"), Account::subject("https://idp", "alice"));
    }

    #[test]
    fn a_login_belongs_to_one_person() {
        let mut people = People::default();
        let login = Account::forge("f", "a");
        people.map(login.clone(), PersonId::new("ann")).unwrap();
        people.map(login.clone(), PersonId::new("ann")).unwrap();
        let two = people.map(Account::forge("F", "A"), PersonId::new("bob"));
        assert_eq!(two, Err(TwoPeople { account: login.clone() }));
        assert_eq!(people.person(&login), Some(&PersonId::new("ann")));
    }

    #[test]
    fn groups_are_replaced_not_added() {
        let mut people = People::default();
        let login = Account::subject("i", "s");
        people.set_groups(login.clone(), [Group::new("a"), Group::new("b")]);
        people.set_groups(login.clone(), [Group::new("b")]);
        assert_eq!(people.groups(&login).collect::<Vec<_>>(), [&Group::new("b")]);
        assert_eq!(people.voter(&login), Voter::Login(&login));
    }
}
