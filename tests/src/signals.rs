//! What the tests' own process does with signals, which those that it starts inherit.
#![allow(unsafe_code, reason = "signal(2) has no safe form, since a handler may do anything")]

use anyhow::Result;
use nix::sys::signal::{SigHandler, Signal, signal};

/// A shell starts what is in the background with these ignored; tests are about them.
pub fn as_in_the_foreground() -> Result<()> {
    for which in [Signal::SIGINT, Signal::SIGQUIT] {
        // SAFETY: no handler is set.
        unsafe { signal(which, SigHandler::SigDfl) }?;
    }
    Ok(())
}
