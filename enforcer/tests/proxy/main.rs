//! The proxy on loopback: a client that knows nothing of it, an upstream that
//! knows nothing of it, and no kernel.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod archives;
mod bodies;
mod certificates;
mod evasions;
mod findings;
mod holds;
mod http1_vectors;
mod identity;
mod inside;
mod kit;
mod limbo;
mod limits;
mod llm;
mod masking;
mod pseudo_headers;
mod requests;
mod tools;
