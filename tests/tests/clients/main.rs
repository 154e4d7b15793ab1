//! Stock clients as jobs, unmodified: what `enforcer run` provides is all they get.
//!
//! `matrix` runs each client twice, with mounts and variables and with the mounts
//! alone, and holds the README's table to what it saw. A client is one [`Client`] in
//! `CLIENTS`; `ENFORCER_WRITE_TABLE=1` writes the table anew.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod llm;
mod matrix;
mod packages;
mod streams;
mod suggest;
mod transfer;
mod trust;
mod world;
