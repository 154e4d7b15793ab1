//! Accepting, planning and carrying one connection.

pub mod admission;
pub mod limits;
pub mod prefixed;

pub use limits::Limits;
