//! GB/s of each engine on each text, all of them in turns.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::clock;
use super::engines::{Engine, Engines};
use super::texts::{self, Kind, Text};

#[derive(clap::Args)]
pub struct LoopArgs {
    #[arg(long, value_enum, default_value = "llm")]
    kind: Kind,
    #[arg(long, value_enum, default_value = "ours")]
    engine: Engine,
    /// With a secret in every 4 KiB
    #[arg(long)]
    secrets: bool,
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
}

/// One engine on one text, and nothing else, until the time is over: `perf record` it.
pub fn profiled(args: &LoopArgs) -> Result<()> {
    let engines = Engines::new()?;
    let [clean, with] = texts::both(args.kind, &engines.masker)?;
    let text = if args.secrets { with } else { clean };
    let until = Instant::now() + Duration::from_secs_f64(args.seconds);
    let mut best = f64::MAX;
    while Instant::now() < until {
        let (bytes, found) = timed(&engines, args.engine, &text, &mut best)?;
        println!("{:.3} GB/s, {found} found in {bytes} bytes", 1.0 / best);
    }
    Ok(())
}

/// Runs once, and keeps the least ns a byte.
fn timed(engines: &Engines, engine: Engine, text: &Text, best: &mut f64) -> Result<(usize, usize)> {
    let mut done = Ok((0, 0));
    let ns = clock::taken(|| done = engines.run(engine, text));
    let (bytes, found) = done?;
    *best = best.min(ns as f64 / bytes as f64);
    Ok((bytes, found))
}

/// What was measured, by engine, text and whether secrets stand in it.
#[derive(Default, Serialize)]
pub struct Speeds(Vec<Speed>);

#[derive(Serialize)]
pub struct Speed {
    engine: Engine,
    kind: &'static str,
    secrets: bool,
    pub gigabytes: f64,
    /// Matches in 1 MiB.
    pub found: f64,
    /// Secrets that were put into 1 MiB.
    pub planted: f64,
}

impl Speeds {
    pub fn of(&self, engine: Engine, kind: Kind, secrets: bool) -> Option<&Speed> {
        self.0.iter().find(|it| it.engine == engine && it.kind == kind.name() && it.secrets == secrets)
    }

    #[cfg(test)]
    pub fn add(&mut self, engine: Engine, kind: Kind, secrets: bool, gigabytes: f64) {
        let kind = kind.name();
        self.0.push(Speed { engine, kind, secrets, gigabytes, found: 0.0, planted: 0.0 });
    }
}

/// Every engine on every text, so many times, and the best of it.
pub fn measure(engines: &Engines, repetitions: usize) -> Result<Speeds> {
    let mut texts = Vec::new();
    for kind in Kind::ALL {
        texts.extend(texts::both(kind, &engines.masker)?);
    }
    let mut best: BTreeMap<(usize, Engine), (f64, usize, usize)> = BTreeMap::new();
    for repetition in 0..repetitions {
        for (at, text) in texts.iter().enumerate() {
            for engine in Engine::ALL {
                // The slowest way says the same each time.
                if engine == Engine::Loop && repetition > 1 {
                    continue;
                }
                let slot = best.entry((at, engine)).or_insert((f64::MAX, 0, 0));
                (slot.1, slot.2) = timed(engines, engine, text, &mut slot.0)?;
            }
        }
    }
    let speeds = best.into_iter().map(|((at, engine), (best, bytes, found))| {
        let mebibytes = |bytes: usize| bytes as f64 / f64::from(1 << 20);
        Speed {
            engine,
            kind: texts[at].kind.name(),
            secrets: texts[at].secrets,
            gigabytes: 1.0 / best,
            found: found as f64 / mebibytes(bytes),
            planted: texts[at].planted as f64 / mebibytes(texts[at].bytes),
        }
    });
    Ok(Speeds(speeds.collect()))
}
