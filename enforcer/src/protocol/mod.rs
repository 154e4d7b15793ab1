//! One folder a protocol, without I/O.

pub mod dns;
pub mod http;
