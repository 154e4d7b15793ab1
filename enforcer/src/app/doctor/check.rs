//! What a check is, and what it found.

use serde::Serialize;

use super::host::Host;
use super::scope::Scope;

/// Who is to be held. Each can do what those before it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// A job without privileges.
    Unprivileged,
    /// Root in a container or a unit, with what Docker leaves it of capabilities.
    ContainerRoot,
    /// Root of the host: what it does is noticed, and not prevented.
    HostRoot,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Unprivileged, Self::ContainerRoot, Self::HostRoot];

    /// Its name in options and JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unprivileged => "unprivileged",
            Self::ContainerRoot => "container-root",
            Self::HostRoot => "host-root",
        }
    }
}

/// What came of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Good,
    Missing,
    /// It could not be looked at.
    Unknown,
}

/// How a finding is put right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "how", content = "lines", rename_all = "kebab-case")]
pub enum Fix {
    /// Commands for a shell of root.
    Shell(Vec<String>),
    /// Lines for the `[Service]` section of a drop-in of the unit; `enforcer scope
    /// harden` writes them.
    DropIn(Vec<String>),
}

impl Fix {
    pub fn shell(line: impl Into<String>) -> Self {
        Self::Shell(vec![line.into()])
    }

    pub fn drop_in(line: impl Into<String>) -> Self {
        Self::DropIn(vec![line.into()])
    }
}

/// What a check found.
#[derive(Clone, Debug)]
pub struct Found {
    pub state: State,
    pub text: String,
    pub fix: Vec<Fix>,
}

impl Found {
    pub fn good(text: impl Into<String>) -> Self {
        Self { state: State::Good, text: text.into(), fix: Vec::new() }
    }

    pub fn missing(text: impl Into<String>, fix: Fix) -> Self {
        Self { state: State::Missing, text: text.into(), fix: vec![fix] }
    }

    pub fn unknown(text: impl Into<String>) -> Self {
        Self { state: State::Unknown, text: text.into(), fix: Vec::new() }
    }

    /// How it could be looked at.
    pub fn with(mut self, fix: Fix) -> Self {
        self.fix.push(fix);
        self
    }
}

/// How a check looks: once for the host, or at each scope.
#[derive(Clone, Copy)]
pub enum Look {
    Host(fn(&Host) -> Found),
    Scope(fn(&Host, &Scope) -> Found),
}

/// One thing that has to hold.
#[derive(Clone, Copy)]
pub struct Check {
    /// Stable: scripts know it by this.
    pub id: &'static str,
    /// The weakest attacker for whom it matters; None is advice that decides nothing.
    pub from: Option<Level>,
    /// The techniques that are open where it does not hold.
    pub opens: &'static [&'static str],
    pub look: Look,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    Critical,
    High,
    Medium,
    Advice,
}

impl Check {
    pub fn severity(&self) -> Severity {
        match self.from {
            Some(Level::Unprivileged) => Severity::Critical,
            Some(Level::ContainerRoot) => Severity::High,
            Some(Level::HostRoot) => Severity::Medium,
            None => Severity::Advice,
        }
    }

    /// The grades that it decides: that of its weakest attacker and of all stronger ones.
    pub fn decides(&self) -> impl Iterator<Item = Level> + use<> {
        let from = self.from;
        Level::ALL.into_iter().filter(move |level| from.is_some_and(|from| *level >= from))
    }
}
