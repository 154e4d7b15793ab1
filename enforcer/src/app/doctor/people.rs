//! Users and groups of a host, and what the mode of a file gives them.

use std::io;

use super::host::{Access, Host, Meta};

/// A user, as a process has it.
#[derive(Clone, Debug)]
pub struct Person {
    pub name: String,
    pub uid: u32,
    /// The first is the user's own.
    pub groups: Vec<(u32, String)>,
    pub home: String,
}

/// Who has nothing but what everybody has.
const NOBODY: u32 = 65534;

impl Person {
    /// Somebody without a group that would give anything.
    pub fn anybody() -> Self {
        Self {
            name: "nobody".to_owned(),
            uid: NOBODY,
            groups: vec![(NOBODY, "nogroup".to_owned())],
            home: "/nonexistent".to_owned(),
        }
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|(_, name)| name == group)
    }

    /// What the mode says, as the kernel reads it: the first class that fits decides.
    pub fn has(&self, meta: Meta, access: Access) -> bool {
        if self.is_root() {
            return true;
        }
        let shift = if meta.uid == self.uid {
            6
        } else if self.groups.iter().any(|(gid, _)| *gid == meta.gid) {
            3
        } else {
            0
        };
        meta.mode >> shift & access as u32 != 0
    }
}

impl Host {
    /// A user by its name or number; None if there is no such user.
    pub fn person(&self, name: &str) -> io::Result<Option<Person>> {
        let number = name.parse::<u32>().ok();
        let passwd = self.text("/etc/passwd")?.unwrap_or_default();
        let found = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let [login, _, uid, gid, _, home, ..] = fields[..] else { return None };
            let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
            (login == name || number == Some(uid)).then(|| (login.to_owned(), uid, gid, home.to_owned()))
        });
        let (name, uid, gid, home) = match found {
            Some(found) => found,
            // One of a directory service.
            None if self.is_this() => match nix::unistd::User::from_name(name)? {
                Some(user) => {
                    (user.name, user.uid.as_raw(), user.gid.as_raw(), user.dir.display().to_string())
                }
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let mut groups = vec![(gid, String::new())];
        for (group, id, members) in self.groups()? {
            if id == gid {
                groups[0].1 = group;
            } else if members.contains(&name) {
                groups.push((id, group));
            }
        }
        Ok(Some(Person { name, uid, groups, home }))
    }

    /// Name, number and members of each group.
    pub fn groups(&self) -> io::Result<Vec<(String, u32, Vec<String>)>> {
        let text = self.text("/etc/group")?.unwrap_or_default();
        let group = |line: &str| {
            let fields: Vec<&str> = line.split(':').collect();
            let [name, _, gid, members] = fields[..] else { return None };
            let members = members.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
            Some((name.to_owned(), gid.parse().ok()?, members))
        };
        Ok(text.lines().filter_map(group).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let meta = |mode, uid, gid| Meta { mode, uid, gid, is_dir: false, is_socket: true };
        let person = Person {
            name: "ci".into(),
            uid: 7,
            groups: vec![(7, "ci".into()), (9, "g".into())],
            home: String::new(),
        };
        for (mode, uid, gid, may) in [
            (0o600, 7, 0, true),
            (0o066, 7, 9, false),
            (0o060, 0, 9, true),
            (0o606, 0, 9, false),
            (0o006, 0, 0, true),
            (0o660, 0, 0, false),
        ] {
            assert_eq!(person.has(meta(mode, uid, gid), Access::Write), may, "{mode:o} {uid} {gid}");
        }
    }
}
