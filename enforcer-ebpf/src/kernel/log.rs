//! What each program decided, for who works on them: `cargo xtask ebpf --debug`.
//!
//! A line is made in one place, a function of its own, so that the programs stay
//! small enough for the verifier of 6.1. Everything in it has a fixed length: the
//! verifier takes no buffer whose size it cannot compute.

use core::mem::transmute;

use aya_log_ebpf::log;
use aya_log_ebpf::macro_support::Level;
use enforcer_common::{Flow, FlowKey, Hook, Reason};

use super::tag::Who;

/// Programs that refuse nothing: their numbers come after those of [`Hook`].
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Place {
    Recvmsg = 64,
    Getpeername = 65,
    OwnGetsockopt = 66,
    OwnSetsockopt = 67,
}

/// What is not a refusal: the numbers come after those of [`Reason`].
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Word {
    Redirected = 64,
    Direct = 65,
    Allowed = 66,
    Own = 67,
    Restored = 68,
    Recorded = 69,
    Given = 70,
    NoRecord = 71,
    /// Packets are many: at the level of traces.
    Passed = 72,
}

const WORDS_OTHER: [&str; 9] = [
    "redirected",
    "direct",
    "allowed",
    "listens for us",
    "peer restored",
    "recorded",
    "record given",
    "no record",
    "passed",
];
const PLACES: [&str; 4] = ["recvmsg", "getpeername", "own_getsockopt", "own_setsockopt"];

/// Numbers below this are those of `Hook` and `Reason`.
const SHARED: usize = 64;
const _: () =
    assert!(Hook::from_number(SHARED as u8).is_none() && Reason::from_number(SHARED as u8).is_none());
/// A power of two, so that a mask keeps every number within the tables.
const NAMES: usize = 128;
const PROGRAM_WIDTH: usize = 14;
const WORD_WIDTH: usize = 25;

static PROGRAMS: [[u8; PROGRAM_WIDTH]; NAMES] = {
    let mut names = [[b' '; PROGRAM_WIDTH]; NAMES];
    let mut number = 0;
    while number < NAMES {
        if number < SHARED {
            if let Some(hook) = Hook::from_number(number as u8) {
                put(&mut names[number], 0, hook.as_str());
            }
        } else if number - SHARED < PLACES.len() {
            put(&mut names[number], 0, PLACES[number - SHARED]);
        }
        number += 1;
    }
    names
};

static WORDS: [[u8; WORD_WIDTH]; NAMES] = {
    let mut words = [[b' '; WORD_WIDTH]; NAMES];
    let mut number = 0;
    while number < NAMES {
        if number < SHARED {
            if let Some(reason) = Reason::from_number(number as u8) {
                let at = put(&mut words[number], 0, "refused: ");
                put(&mut words[number], at, reason.as_str());
            }
        } else if number - SHARED < WORDS_OTHER.len() {
            put(&mut words[number], 0, WORDS_OTHER[number - SHARED]);
        }
        number += 1;
    }
    words
};

/// A text that is too long does not compile.
const fn put(to: &mut [u8], from: usize, text: &str) -> usize {
    let text = text.as_bytes();
    let mut index = 0;
    while index < text.len() {
        to[from + index] = text[index];
        index += 1;
    }
    from + index
}

/// What the enforcer was told of the client at the other end.
///
/// # Safety
/// `record` is valid for a record.
#[inline(always)]
pub unsafe fn given(place: Place, record: *const Flow, client: &FlowKey) {
    // SAFETY: by the contract of this function.
    let who = unsafe { Who { tag: (*record).tag, cgroup: (*record).cgroup } };
    let word = if who.is_somebody() { Word::Given } else { Word::NoRecord };
    decided(place as u8, word as u8, who, client.addr, client.port as u16);
}

struct Line {
    who: Who,
    addr: [u32; 4],
    port: u32,
    program: u32,
    word: u32,
}

#[inline(always)]
pub fn decided(program: u8, word: u8, who: Who, addr: [u32; 4], port: u16) {
    say(&Line { who, addr, port: u32::from(port), program: u32::from(program), word: u32::from(word) });
}

#[inline(never)]
fn say(line: &Line) {
    let level = if line.word == Word::Passed as u32 { Level::Trace } else { Level::Debug };
    // SAFETY: both tables hold ASCII; a word of an address is four bytes.
    let (program, word, addr) = unsafe {
        (
            core::str::from_utf8_unchecked(&PROGRAMS[line.program as usize & (NAMES - 1)]),
            core::str::from_utf8_unchecked(&WORDS[line.word as usize & (NAMES - 1)]),
            transmute::<[u32; 4], [u8; 16]>(line.addr),
        )
    };
    log!(
        (),
        target: "enforcer_ebpf",
        level,
        "{} {} tag {} cgroup {} [{:i}]:{}",
        program,
        word,
        line.who.tag,
        line.who.cgroup,
        addr,
        line.port
    );
}
