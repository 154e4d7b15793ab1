//! Configuration, and the processes that make up the service.

pub mod config;
pub mod daemon;
pub mod jobs;
pub mod proxy;

pub mod signer;
pub mod trust;
