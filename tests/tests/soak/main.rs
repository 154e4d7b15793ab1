//! Deaths at random moments, and reloads, under traffic, as many as one likes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kills;
mod reloads;
mod report;
mod world;
