//! Who is logged in: kept here alone, and known to a browser by a random number.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::secret::SecretText;

use super::limits::{LOGINS, LOGINS_OF_ONE};
use super::ticket::random_text;

/// What somebody may do; each may what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    Viewer,
    Approver,
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Viewer => "viewer",
            Role::Approver => "approver",
            Role::Admin => "admin",
        })
    }
}

/// What an issuer said of somebody, verified.
#[derive(Debug, Clone)]
pub struct Person {
    pub subject: String,
    /// For their own eyes.
    pub name: String,
    pub groups: Vec<String>,
    /// The ID token, which each vote carries.
    pub token: SecretText,
    /// When nobody accepts it any more, in seconds since 1970.
    pub ends: u64,
}

/// One login.
#[derive(Debug)]
pub struct Login {
    pub person: Person,
    pub role: Role,
    /// Stands in each form of theirs, and is known to nobody else.
    pub csrf: String,
}

struct Kept {
    login: Arc<Login>,
    begun: Instant,
    used: Instant,
}

/// All logins. Only hashes of the numbers are kept, so that looking one up tells nothing by
/// the time that it takes.
pub struct Logins {
    session: Duration,
    idle: Duration,
    kept: HashMap<[u8; 32], Kept>,
}

impl Logins {
    pub fn new(session: Duration, idle: Duration) -> Self {
        Self { session, idle, kept: HashMap::new() }
    }

    /// A new login, under a number that nobody had before.
    pub fn open(
        &mut self,
        person: Person,
        role: Role,
        now: Instant,
    ) -> Result<String, aws_lc_rs::error::Unspecified> {
        let (number, csrf) = (random_text()?, random_text()?);
        self.forget(now);
        let subject = person.subject.clone();
        self.make_room(LOGINS_OF_ONE, |kept| kept.login.person.subject == subject);
        self.make_room(LOGINS, |_| true);
        let login = Arc::new(Login { person, role, csrf });
        self.kept.insert(key(&number), Kept { login, begun: now, used: now });
        Ok(number)
    }

    /// Whose number this is. `touch`: they are there, and not only a page that asks by itself.
    pub fn find(&mut self, number: &str, touch: bool, now: Instant) -> Option<Arc<Login>> {
        self.forget(now);
        let kept = self.kept.get_mut(&key(number))?;
        if touch {
            kept.used = now;
        }
        Some(Arc::clone(&kept.login))
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.kept.len()
    }

    pub fn close(&mut self, number: &str) {
        self.kept.remove(&key(number));
    }

    fn forget(&mut self, now: Instant) {
        let (session, idle) = (self.session, self.idle);
        self.kept.retain(|_, kept| {
            now.duration_since(kept.begun) < session && now.duration_since(kept.used) < idle
        });
    }

    /// Until there is room for one more of these.
    fn make_room(&mut self, limit: usize, counts: impl Fn(&Kept) -> bool) {
        while self.kept.values().filter(|kept| counts(kept)).count() >= limit {
            let oldest = self.kept.iter().filter(|(_, kept)| counts(kept)).min_by_key(|(_, kept)| kept.used);
            let Some(key) = oldest.map(|(key, _)| *key) else { return };
            self.kept.remove(&key);
        }
    }
}

fn key(number: &str) -> [u8; 32] {
    *blake3::hash(number.as_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(subject: &str) -> Person {
        Person {
            subject: subject.to_owned(),
            name: subject.to_owned(),
            groups: Vec::new(),
            token: SecretText::new("t".to_owned()),
            ends: 0,
        }
    }

    fn logins() -> (Logins, Instant) {
        (Logins::new(Duration::from_secs(100), Duration::from_secs(10)), Instant::now())
    }

    #[test]
    fn a_login_ends_by_its_age_and_by_idleness() {
        let (mut logins, begun) = logins();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let number = logins.open(person("ann"), Role::Viewer, begun).unwrap();
        // A page that asks by itself keeps nobody logged in.
        assert!(logins.find(&number, false, at(9)).is_some());
        assert!(logins.find(&number, false, at(10)).is_none());
        let number = logins.open(person("ann"), Role::Viewer, begun).unwrap();
        for second in (0..100).step_by(9) {
            assert!(logins.find(&number, true, at(second)).is_some(), "{second}");
        }
        assert!(logins.find(&number, true, at(100)).is_none());
    }

    #[test]
    fn numbers_are_new_and_another_one_is_nobodys() {
        let (mut logins, now) = logins();
        let one = logins.open(person("ann"), Role::Viewer, now).unwrap();
        let two = logins.open(person("ann"), Role::Viewer, now).unwrap();
        assert_ne!(one, two);
        assert_eq!(one.len(), 43);
        for other in ["", "x", &one[1..], &format!("{one}x")] {
            assert!(logins.find(other, true, now).is_none(), "{other}");
        }
        logins.close(&one);
        assert!(logins.find(&one, true, now).is_none() && logins.find(&two, true, now).is_some());
    }

    #[test]
    fn who_logs_in_too_often_loses_their_own_oldest_login_and_nobody_elses() {
        let (mut logins, now) = logins();
        let other = logins.open(person("bob"), Role::Viewer, now).unwrap();
        let at = |second| now + Duration::from_millis(second);
        let of_ann: Vec<String> = (0..=LOGINS_OF_ONE)
            .map(|turn| logins.open(person("ann"), Role::Viewer, at(turn as u64)).unwrap())
            .collect();
        assert!(logins.find(&of_ann[0], true, at(50)).is_none());
        assert!(of_ann[1..].iter().all(|number| logins.find(number, true, at(50)).is_some()));
        assert!(logins.find(&other, true, at(50)).is_some());
        for turn in 0..LOGINS {
            logins.open(person(&turn.to_string()), Role::Viewer, at(60)).unwrap();
        }
        assert_eq!(logins.kept.len(), LOGINS);
    }
}
