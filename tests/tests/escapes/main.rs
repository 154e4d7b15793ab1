//! Every way out that is known, at every level of privilege, in every state of the
//! enforcer: what arrives at the far end of a cable decides.
//!
//! A technique is proven by an untagged process, for which it has to work; the table
//! says what comes of it in a tagged one. Any difference fails, a better outcome too,
//! so that the table stays true. `ESCAPES.md` is made of the same results.
//!
//! Needs root. `ENFORCER_ESCAPES_ALL` tries everything in the other states as well, of
//! which a sample is tried otherwise; `ENFORCER_ESCAPES_SEED` repeats one.
//! `ENFORCER_ESCAPES_ONLY` names techniques, with commas between: nothing else is tried.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(unsafe_code, reason = "what a child does between fork and exec")]

mod arena;
mod committed;
mod grades;
mod outcome;
mod reload;
mod scene;
mod spawn;
mod table;
mod unit;

use std::collections::BTreeSet;

use arena::{Arena, State};
use enforcer::app::doctor::{self, CHECKS, Check};
use outcome::{Level, Outcome};

/// What gets out without the second tier is what `enforcer doctor` says of such a host.
#[test]
fn doctor_knows_what_is_not_stopped() {
    let of = |wanted: fn(&Check) -> bool| {
        let checks = CHECKS.iter().filter(|check| wanted(check));
        checks.flat_map(|check| check.opens).copied().collect::<BTreeSet<&str>>()
    };
    let by_lsm = of(|check| check.id == "bpf-lsm");
    let by_settings = of(|check| check.from == Some(doctor::Level::Unprivileged));
    for technique in table::TECHNIQUES.iter().flat_map(|group| group.iter()) {
        for kernel in ["6.1", "6.12", "6.18"] {
            let open =
                |level| technique.expected(kernel, false, level, State::Enforcing) == Outcome::NotStopped;
            assert!(!open(Level::Root) || by_lsm.contains(technique.name), "{}: {kernel}", technique.name);
            assert!(
                !open(Level::User) || by_settings.contains(technique.name),
                "{}: {kernel}",
                technique.name
            );
        }
    }
}

#[test]
fn enforcing_user() {
    Arena::all(State::Enforcing, Level::User);
}

#[test]
fn enforcing_launched() {
    Arena::all(State::Enforcing, Level::Launched);
}

#[test]
fn enforcing_unit() {
    Arena::all(State::Enforcing, Level::Unit);
}

#[test]
fn enforcing_container() {
    Arena::all(State::Enforcing, Level::Container);
}

#[test]
fn enforcing_container_set() {
    Arena::all(State::Enforcing, Level::ContainerSet);
}

#[test]
fn enforcing_root() {
    Arena::all(State::Enforcing, Level::Root);
}

#[test]
fn proxy_down() {
    Level::ALL.iter().for_each(|level| Arena::sample(State::Down, *level));
}

#[test]
fn reload_running() {
    Level::ALL.iter().for_each(|level| Arena::sample(State::Reload, *level));
}
