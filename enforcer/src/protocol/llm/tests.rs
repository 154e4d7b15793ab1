//! Streams of each API, cut everywhere: what the client puts together is what masking the
//! whole text would give.

mod answers;
mod code;
mod keep;
mod kept;
mod kit;
mod requests;
