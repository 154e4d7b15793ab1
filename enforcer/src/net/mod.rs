//! Addresses, sockets and every socket option that is set or read.
//!
//! An address says what it is the address of: a client's is not a listener's,
//! and neither is where the client wanted to go.

pub mod ipc;
pub mod sys;

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub SocketAddr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

address!(
    /// Where a tagged process wanted to go, as the kernel recorded it. A
    /// v4-mapped destination is given as IPv4.
    OrigDst
);
address!(
    /// Where a connection came from, as `accept(2)` gave it.
    ClientAddr
);
address!(
    /// Where one of our own listeners stands.
    ListenAddr
);
