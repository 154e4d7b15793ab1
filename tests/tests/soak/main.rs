//! Deaths at random moments, under traffic, as many as one likes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod kills;
mod report;
mod world;
