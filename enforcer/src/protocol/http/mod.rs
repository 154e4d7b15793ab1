//! HTTP.

pub mod coding;
