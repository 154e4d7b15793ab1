//! `enforcer`: an egress enforcer for CI hosts and AI coding agents.
//!
//! The modules stand in layer order: each may use only what stands above it in
//! this list. `cargo xtask tidy` fails on a use in the other direction.
#![deny(unsafe_code)]

pub mod net;
pub mod secret;
pub mod drain;
pub mod telemetry;
pub mod mask;
pub mod tls;
pub mod outgoing;
pub mod workload;
pub mod protocol;
pub mod policy;
pub mod session;
pub mod approval;
pub mod gate;
pub mod proxy;
pub mod kernel;
pub mod launch;
pub mod admin;
pub mod app;
pub mod cli;
