//! Graceful and immediate shutdown with a deadline.
