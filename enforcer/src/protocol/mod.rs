//! One folder a protocol, without I/O.

pub mod archive;
pub mod command;
pub mod dns;
pub mod git;
pub mod grpc;
pub mod http;
pub mod llm;
