//! The session recording.
