//! What is tried, and what has to come of it.
//!
//! A letter for each level (an unprivileged user, the same in `enforcer run`, a user of its
//! own in a unit with the settings, root in a container, the same with the settings, root
//! of the host):
//! `R` redirected, `H` refused by a hook, `K` refused to untagged processes of the level
//! too, `O` reaches the proxy and no more, `C` closed when it was tagged, `L` not stopped,
//! `N` nobody can on this kernel, `.` makes no sense there.

mod host;
mod options;
mod packets;
mod streams;

use crate::arena::State;
use crate::outcome::{Level, Outcome};
use crate::scene::Scene;

pub const TECHNIQUES: &[&[Technique]] = &[streams::ALL, options::ALL, packets::ALL, host::ALL];

/// The peer by each of its addresses.
pub const P4: &str = "10.77.0.2:4444";
pub const P6: &str = "[fd77::2]:4444";
pub const MAPPED: &str = "[::ffff:10.77.0.2]:4444";
/// Somewhere behind the peer.
pub const BEHIND: &str = "192.0.2.1:4444";
pub const BEHIND6: &str = "[2001:db8::1]:4444";

pub struct Technique {
    pub name: &'static str,
    pub scene: Scene,
    /// For the probe.
    pub args: &'static [&'static str],
    want: &'static str,
    /// Where it is otherwise: a kernel's series, `lsm`, or both with a `+` between. The
    /// most exact one counts.
    other: [(&'static str, &'static str); 5],
}

pub const fn tech(name: &'static str, args: &'static [&'static str], want: &'static str) -> Technique {
    Technique { name, scene: Scene::Alone, args, want, other: [("", ""); 5] }
}

impl Technique {
    pub const fn scene(mut self, scene: Scene) -> Self {
        self.scene = scene;
        self
    }

    /// What comes of it elsewhere than on the host: on a kernel, with the tier `lsm`, or both.
    pub const fn on(mut self, place: &'static str, want: &'static str) -> Self {
        let mut free = 0;
        while !self.other[free].0.is_empty() {
            free += 1;
        }
        self.other[free] = (place, want);
        self
    }

    pub fn expected(&self, kernel: &str, lsm: bool, level: Level, state: State) -> Outcome {
        let both = format!("{kernel}+lsm");
        let places = if lsm { vec![both.as_str(), "lsm", kernel] } else { vec![kernel] };
        let found = places.iter().find_map(|place| self.other.iter().find(|(key, _)| key == place));
        let letters = found.map_or(self.want, |(_, letters)| letters);
        let outcome = Outcome::of(letters.chars().nth(level as usize).expect("a letter for each level"));
        match (state, outcome) {
            // Nobody is there: the connection is refused.
            (State::Down, Outcome::Redirected | Outcome::OnlyProxy) => Outcome::Refused,
            (_, outcome) => outcome,
        }
    }
}
