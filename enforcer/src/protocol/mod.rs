//! One folder a protocol, without I/O.
