//! Random secrets in random forms on random ways. `cargo xtask soak --only mask` makes
//! millions of cases; one in a hundred of them is tried with every change.
//!
//! A batch has its own secrets, known to one masker. Its number and the seed choose all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use enforcer::mask::{ExactValue, MaskError, Masker, Selection};
use enforcer::secret::Secret;
use enforcer_tests::chance::Chance;
use enforcer_tests::forms::{self, Class, Form, Given};
use serde::Serialize;

use crate::transport::Transport;

/// Cases with every change.
const CASES: usize = 100_000;
const SEED: u64 = 20_261_121;
/// Secrets and cases of a batch.
const SECRETS: usize = 48;
const BATCH: usize = 1_000;
/// So many failures are shown in full.
const SHOWN: usize = 20;

const ALNUM: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const DIGITS64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8] = b"0123456789abcdef";
const WIDE: &[char] = &['\u{e4}', '\u{f1}', '\u{416}', '\u{4f60}', '\u{1f511}', 'q', 'Z', '7', '-'];
const BEFORE: &[&str] = &[" ", "\"", "=", ": ", "\n", "'", ">", "\": \""];
const BEHIND: &[&str] = &[" ", "\"", "\n", "<", ",", ";", "'", "\"}\n"];
const WORDS: &[&str] = &[
    "the ",
    "token",
    " of ",
    "a job",
    " is\n",
    "value, ",
    "{\"name\":\"x\",",
    "<p>",
    "12 ",
    "\u{fc}ber ",
    "id=3D7 ",
];

/// A secret of some kind: 8 to 200 bytes, now and then up to 8 KiB.
fn secret(chance: &mut Chance) -> Vec<u8> {
    let length = if chance.one_in(200) { chance.between(200, 8_192) } else { chance.between(8, 200) };
    let printable: Vec<u8> = (b'!'..=b'~').collect();
    let mut made = match chance.below(9) {
        0 | 1 => chance.bytes_of(ALNUM, length),
        2 => chance.bytes_of(DIGITS64, length),
        3 | 4 => chance.bytes_of(&printable, length),
        5 => {
            let characters: String = (0..length / 4 + 8).map(|_| chance.pick(WIDE)).collect();
            characters.into_bytes()
        }
        // What escapes are made of, and what is left out between them.
        6 => chance.bytes_of(b"\\%&=#;xu{}[]()/\"\x1b\r\0\n0123469ADnrt", length),
        // A key in lines, padded.
        7 => {
            let lines = chance.bytes_of(DIGITS64, length.min(7_000));
            let lines: Vec<&[u8]> = lines.chunks(chance.between(8, 64)).collect();
            [&lines.join(&b'\n'), &b"==\n-----END KEY-----"[..]].concat()
        }
        _ => (0..length).map(|_| chance.next().to_le_bytes()[0]).collect(),
    };
    if chance.one_in(12) {
        made = chance.bytes_of(HEX, length);
    }
    // White space around it is not part of a registered value.
    for end in [0, made.len() - 1] {
        if made[end].is_ascii_whitespace() {
            made[end] = b'x';
        }
    }
    made
}

struct Batch {
    masker: Masker,
    secrets: Vec<Vec<u8>>,
}

impl Batch {
    fn new(chance: &mut Chance) -> Self {
        let known = |it: &Vec<u8>| ExactValue::new("known", &Secret::new(it.clone()));
        let (mut secrets, mut values) = (Vec::new(), Vec::new());
        while secrets.len() < SECRETS {
            let made = secret(chance);
            match known(&made) {
                Ok(value) => {
                    values.push(value);
                    secrets.push(made);
                }
                // Of these nearly nothing is left when their escapes are undone.
                Err(error) => assert!(matches!(error, MaskError::TooLittle { .. }), "{error}"),
            }
        }
        let masker = Masker::new(&Selection::parse(["exact"]).unwrap(), &values).unwrap();
        Self { masker, secrets }
    }
}

/// What came of the cases of one form.
#[derive(Default, Serialize)]
struct Count {
    cases: usize,
    /// The secret was readable in what came out.
    missed: usize,
    /// Nothing came out, or not all.
    stopped: usize,
}

#[derive(Default)]
struct Counts {
    forms: BTreeMap<&'static str, Count>,
    ways: BTreeMap<Transport, usize>,
    /// Why streams were stopped.
    stops: BTreeSet<String>,
    shown: Vec<String>,
}

fn text_around(chance: &mut Chance, most: usize) -> String {
    (0..chance.below(most)).map(|_| chance.pick(WORDS)).collect()
}

/// One case; says what went wrong.
fn case(batch: &Batch, forms: &[Form], chance: &mut Chance, counts: &mut Counts) -> Option<String> {
    let secret = chance.pick(&batch.secrets.iter().collect::<Vec<_>>());
    let before = text_around(chance, 40) + chance.pick(BEFORE);
    let behind = chance.pick(BEHIND).to_owned() + &text_around(chance, 40);
    let given = Given { secret, around: [before.as_bytes(), behind.as_bytes()] };
    let (form, body) = loop {
        let form = &forms[chance.below(forms.len())];
        if let Some(body) = form.body(&given, chance) {
            break (form, body);
        }
    };
    let way = chance.pick(&Transport::ALL);
    let came = way.carry(&batch.masker, &body, chance);
    let count = counts.forms.entry(form.name).or_default();
    count.cases += 1;
    *counts.ways.entry(way).or_default() += 1;
    let mut late = false;
    if let Some(why) = came.stopped {
        late = matches!(why, MaskError::TooLate { .. });
        count.stopped += 1;
        counts.stops.insert(why.to_string());
    }
    if !late && !form.shows(&came.out, secret) && !form.shows_beginning(&came.out, before.as_bytes(), secret)
    {
        return None;
    }
    count.missed += 1;
    let [secret, body, out] = [secret, &body, &came.out].map(|it| String::from_utf8_lossy(it).into_owned());
    Some(format!("{}, {way:?}: of {secret:?} in {body:?} this came out: {out:?}", form.name))
}

fn batch(seed: u64, number: usize, cases: usize, forms: &[Form], all: &Mutex<Counts>) {
    // Another one for each batch, and the same for the same number.
    let mut chance = Chance::seeded(seed.wrapping_mul(0x9e37_79b9) ^ (number as u64) << 20);
    let batch = Batch::new(&mut chance);
    let mut counts = Counts::default();
    for at in 0..cases {
        if let Some(wrong) = case(&batch, forms, &mut chance, &mut counts) {
            counts.shown.push(format!("batch {number}, case {at}: {wrong}"));
        }
    }
    let mut all = all.lock().unwrap();
    for (name, count) in counts.forms {
        let sum = all.forms.entry(name).or_default();
        sum.cases += count.cases;
        sum.missed += count.missed;
        sum.stopped += count.stopped;
    }
    for (way, count) in counts.ways {
        *all.ways.entry(way).or_default() += count;
    }
    all.stops.extend(counts.stops);
    let room = SHOWN.saturating_sub(all.shown.len());
    for wrong in counts.shown.into_iter().take(room) {
        // Who waits for millions need not wait for their end.
        println!("missed: {wrong}");
        all.shown.push(wrong);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn no_random_secret_comes_out_in_any_form_on_any_way() {
    let seed = number("ENFORCER_SOAK_SEED").unwrap_or(SEED);
    let cases = number("ENFORCER_SOAK_CASES").map_or(CASES, |it| usize::try_from(it).unwrap());
    let first = number("ENFORCER_SOAK_BATCH").map_or(0, |it| usize::try_from(it).unwrap());
    let forms = forms::all();
    let all = Mutex::new(Counts::default());
    let next = AtomicUsize::new(first);
    let last = cases.div_ceil(BATCH);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= last {
                        return;
                    }
                    batch(seed, at, BATCH.min(cases - at * BATCH), &forms, &all);
                    if (at + 1).is_multiple_of(500) {
                        let seconds = begun.elapsed().as_secs();
                        let missed: usize = all.lock().unwrap().forms.values().map(|form| form.missed).sum();
                        println!(
                            "soak: batch {} of {last} after {seconds} s, {missed} missed; \
                             ENFORCER_SOAK_BATCH={at} goes on",
                            at + 1
                        );
                    }
                }
            });
        }
    });
    let counts = all.into_inner().unwrap();
    for (name, Count { cases, missed, stopped }) in &counts.forms {
        println!("{name}: {cases} cases, {missed} missed, {stopped} stopped");
    }
    counts.stops.iter().for_each(|why| println!("stopped: {why}"));
    if let Some(path) = std::env::var_os("ENFORCER_SOAK_JSON") {
        let report = serde_json::json!({"seed": seed, "forms": counts.forms, "ways": counts.ways});
        std::fs::write(path, serde_json::to_string_pretty(&report).unwrap() + "\n").unwrap();
    }
    assert!(counts.shown.is_empty(), "seed {seed}: {} are shown above", counts.shown.len());
    for count in counts.forms.values() {
        assert!(count.stopped * 100 <= count.cases, "more than one in a hundred is stopped");
    }
    assert!(cases < 50_000 || counts.forms.len() == forms.len(), "a form was never tried");
}

#[test]
fn what_is_known_only_in_half_is_seen_as_a_miss() {
    // The oracle: a body that nobody masks shows its secret in every form.
    let mut chance = Chance::seeded(1);
    for form in forms::all().iter().filter(|form| form.class != Class::BlockOrFlag) {
        let secret = b"0123456789abcdefghijklmnopqrstuv";
        let given = Given { secret, around: [b" ", b" "] };
        let body = form.body(&given, &mut chance).unwrap();
        assert!(form.shows(&body, secret), "{}", form.name);
        assert!(!form.shows(b"[MASKED:KNOWN]", secret), "{}", form.name);
        let begun = [b" ", secret.get(..1).unwrap(), b"[MASKED:KNOWN] "].concat();
        assert_eq!(form.shows_beginning(&begun, b" ", secret), form.is_replaced_whole(), "{}", form.name);
        assert!(!form.shows_beginning(b" [MASKED:KNOWN] ", b" ", secret), "{}", form.name);
    }
}
