//! What can come of an attempt, and who makes it.

use std::fmt;

/// Who tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// uid 65534 without capabilities, with `no_new_privs`, and nothing else.
    User,
    /// The same, started by the code of `enforcer run`.
    Launched,
    /// A user of its own in a unit of systemd, with what `enforcer scope harden` writes.
    Unit,
    /// Root with the namespaces and capabilities that Docker gives.
    Container,
    /// The same with the settings that `enforcer doctor` asks for.
    ContainerSet,
    /// Root of the host, with all capabilities.
    Root,
}

impl Level {
    pub const ALL: [Self; 6] =
        [Self::User, Self::Launched, Self::Unit, Self::Container, Self::ContainerSet, Self::Root];

    /// As the README calls it.
    pub fn heading(self) -> &'static str {
        [
            "An unprivileged user",
            "An unprivileged user in `enforcer run`",
            "An unprivileged user in a unit, with the settings",
            "Root in a container",
            "Root in a container, with the settings",
            "Root of the host",
        ][self as usize]
    }

    pub fn name(self) -> &'static str {
        ["user", "launched", "unit", "container", "container-set", "root"][self as usize]
    }

    /// Whether this stands for a scope, in which the service closes what was connected
    /// before, on a host with the settings that `enforcer doctor` asks for.
    pub fn is_swept(self) -> bool {
        matches!(self, Self::Unit | Self::ContainerSet)
    }

    /// Whether it has a network namespace of its own, in which nobody else is.
    pub fn is_alone(self) -> bool {
        matches!(self, Self::Unit | Self::ContainerSet)
    }

    /// Whether `kernel.yama.ptrace_scope` is set there, where the machine is the suite's own.
    pub fn wants_ptrace_scope(self) -> bool {
        !matches!(self, Self::User | Self::Container | Self::Root)
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
    /// A connection from before, which was closed when its process came under the tag.
    Closed,
    NotStopped,
    /// Nobody can on this kernel.
    Absent,
    /// It makes no sense at this level.
    Untried,
}

impl Outcome {
    const LETTERS: &'static str = "RHKOCLN.";
    const ALL: [Self; 8] = [
        Self::Redirected,
        Self::Refused,
        Self::NoRight,
        Self::OnlyProxy,
        Self::Closed,
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
            Self::Closed => "closed at tagging",
            Self::NotStopped => "not stopped",
            Self::Absent => "n/a",
            Self::Untried => "-",
        })
    }
}
