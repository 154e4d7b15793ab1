//! What can come of an attempt, and who makes it.

use std::fmt;

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// uid 65534 without capabilities, with `no_new_privs`, and nothing else.
    User,
    /// The same, started by the code of `enforcer run`.
    Launched,
    /// Root with the namespaces and capabilities that Docker gives.
    Container,
    /// The same with the settings that `enforcer doctor` asks for.
    ContainerSet,
    /// Root of the host, with all capabilities.
    Root,
}

impl Level {
    pub const ALL: [Self; 5] = [Self::User, Self::Launched, Self::Container, Self::ContainerSet, Self::Root];

    /// As the README calls it.
    pub fn heading(self) -> &'static str {
        [
            "An unprivileged user",
            "An unprivileged user in `enforcer run`",
            "Root in a container",
            "Root in a container, with the settings",
            "Root of the host",
        ][self as usize]
    }

    pub fn name(self) -> &'static str {
        ["user", "launched", "container", "container-set", "root"][self as usize]
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Redirected,
    /// By a program of ours, in the call or for the packet.
    Refused,
    /// By the kernel or by the settings: an untagged process of this level cannot either.
    NoRight,
    OnlyProxy,
    NotStopped,
    /// Nobody can on this kernel.
    Absent,
    /// It makes no sense at this level.
    Untried,
}

impl Outcome {
    const LETTERS: &'static str = "RHKOLN.";
    const ALL: [Self; 7] = [
        Self::Redirected,
        Self::Refused,
        Self::NoRight,
        Self::OnlyProxy,
        Self::NotStopped,
        Self::Absent,
        Self::Untried,
    ];

    /// Of the table's letter.
    pub fn of(letter: char) -> Self {
        Self::ALL[Self::LETTERS.find(letter).expect("a letter of the table")]
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redirected => "redirected",
            Self::Refused => "refused (hook)",
            Self::NoRight => "refused (rights)",
            Self::OnlyProxy => "reaches only the proxy",
            Self::NotStopped => "not stopped",
            Self::Absent => "n/a",
            Self::Untried => "-",
        })
    }
}
