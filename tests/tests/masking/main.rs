//! Known secrets in whatever form and in whatever pieces: nothing of them comes out.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod evasions;
mod fuzz;
mod random;
mod transport;
