//! The local API on Unix sockets.
