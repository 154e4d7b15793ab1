//! Addresses, sockets and every socket option that is set or read.
