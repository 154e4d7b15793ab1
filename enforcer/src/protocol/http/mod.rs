//! HTTP.

pub mod canonical;
pub mod coding;
pub mod request;
pub mod sniff;
pub mod strict;
