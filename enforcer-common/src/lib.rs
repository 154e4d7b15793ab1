//! What the kernel half and the user space half share: map layouts, option
//! numbers, and the matching functions that both the programs and the tests on
//! the host call.
//!
//! Every structure is `repr(C)` without padding, so that a map value read by
//! user space is exactly what a program wrote. Addresses are four words in
//! network byte order, IPv4 as `::ffff:a.b.c.d`; ports are in host byte order.
#![no_std]

mod layout;
mod matching;

pub use layout::*;
pub use matching::*;
