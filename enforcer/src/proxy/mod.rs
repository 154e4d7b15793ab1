//! Accepting, planning and carrying one connection.
