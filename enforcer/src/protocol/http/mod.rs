//! HTTP as far as it needs no I/O of its own.

pub mod canonical;
pub mod coding;
pub mod strict;
