//! Configuration, and the processes that make up the service.

mod children;
pub mod config;
mod containers;
pub mod daemon;
pub mod detectors;
pub mod doctor;
mod follow;
mod hold;
pub mod holder;
mod inotify;
mod java;
mod jobs;
mod namespaces;
mod pause;
pub mod proxy;
pub mod registries;
pub mod release;
mod reload;
pub mod scopes;
pub mod signer;
mod sockets;
mod surrogates;
pub mod trust;
mod watch;
