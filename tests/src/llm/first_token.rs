//! How long the first character of an answer takes through the service, beside a plain relay
//! in the same run: medians of interleaved pairs.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::asker::{self, Place};
use super::relay::{self, Relay};
use super::{FakeLlm, Script};
use crate::service::Service;

const HOST: &str = "api.openai.com";
const POLICY: &str = "version: 1\nname: models\nrules:\n  - id: mask\n    when: {host: api.openai.com}\n    \
    mask: {request: [secrets], response: [secrets]}\n    addresses: [loopback]\n  \
    - id: models\n    when: {host: api.openai.com}\n    allow: true\n";

/// How an answer is asked for.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Kind {
    pub name: &'static str,
    /// By a connection of its own.
    fresh: bool,
    /// Milliseconds between two characters.
    pause_ms: u64,
}

/// Those on a connection that is there come first: it is closed when nobody uses it for a minute.
const KINDS: [Kind; 4] = [
    Kind { name: "on a connection that is there", fresh: false, pause_ms: 0 },
    Kind { name: "on a connection that is there, a character each 10 ms", fresh: false, pause_ms: 10 },
    Kind { name: "on a new connection", fresh: true, pause_ms: 0 },
    Kind { name: "the same, a character each 10 ms", fresh: true, pause_ms: 10 },
];

/// The medians of one kind.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub kind: &'static str,
    pub direct_us: f64,
    pub relay_us: f64,
    pub enforcer_us: f64,
    /// The median of the pairs' own ratios.
    pub ratio: f64,
    /// The least share of an answer's time after which its first character was there.
    pub share: f64,
}

/// What the processes beside the one that measures are, by the first word of their arguments:
/// `ask` or `relay`, and then a [`Place`].
pub fn part(words: &[String]) -> Result<()> {
    let (name, place) = words.split_first().context("ask or relay")?;
    let place = Place::parse(place)?;
    match name.as_str() {
        "ask" => asker::run(&place),
        "relay" => relay::run(&place),
        other => bail!("{other:?} is neither ask nor relay"),
    }
}

/// A process that answers a line of its input with one of its output.
struct Asker {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Asker {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let to = child.stdin.take().context("no input")?;
        let from = BufReader::new(child.stdout.take().context("no output")?);
        Ok(Self { child, to, from })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.from.read_line(&mut line)?;
        Ok(line)
    }

    /// Microseconds to the first character, and its share of the whole.
    fn ask(&mut self, kind: Kind) -> Result<(f64, f64)> {
        writeln!(self.to, "{}", if kind.fresh { "fresh" } else { "kept" })?;
        let line = self.line()?;
        let mut nanos = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(first)), Some(Ok(end))) = (nanos.next(), nanos.next()) else {
            bail!("the client said {line:?}");
        };
        Ok((first as f64 / 1e3, first as f64 / end as f64))
    }

    fn end(self) -> Result<()> {
        let Self { mut child, to, from } = self;
        drop((to, from));
        child.wait()?;
        Ok(())
    }
}

/// Measures every kind by so many triples; `client` is the command line of a program that
/// calls [`part`].
pub fn measure(client: &[&str], triples: usize) -> Result<Vec<Row>> {
    let (program, before) = client.split_first().context("no client")?;
    let script = Script { text: "The first of them is what you look for.".to_owned(), ..Script::default() };
    let (address, fake) = FakeLlm::start(script)?;
    let names: [(&str, IpAddr); 1] = [(HOST, address)];
    let service = Service::start_by(&[], &names, &fake.ca_pem, POLICY)?;
    let file = |name: &str, pem: &str| -> Result<PathBuf> {
        let path = service.dir.path().join(name);
        std::fs::write(&path, pem)?;
        Ok(path)
    };
    let outside = |part: &str, address: SocketAddr, roots: &Path| {
        let mut command = Command::new(program);
        command.args(before).arg(part).arg(HOST).arg(address.to_string()).arg(roots);
        Asker::start(command)
    };
    let roots = file("fake.pem", &fake.ca_pem)?;
    let mut direct = outside("ask", fake.address, &roots)?;
    let mut plain = outside("relay", fake.address, &roots)?;
    let relay: Relay = serde_json::from_str(&plain.line()?)?;
    let mut relayed = outside("ask", relay.address, &file("relay.pem", &relay.ca_pem)?)?;
    let mut job = service.command(&["run", "--quiet", "--", "sh", "-c"])?;
    job.arg(format!("exec {} ask {HOST} - $SSL_CERT_FILE", client.join(" ")));
    let mut enforced = Asker::start(job)?;
    let mut rows = Vec::new();
    for kind in KINDS {
        fake.pause(Duration::from_millis(kind.pause_ms));
        let triples = if kind.pause_ms > 0 { triples.div_ceil(4) } else { triples };
        let mut taken = [const { Vec::new() }; 3];
        let mut share = f64::INFINITY;
        for turn in 0..triples {
            for at in 0..3 {
                let at = (turn + at) % 3;
                let asker = [&mut direct, &mut relayed, &mut enforced].into_iter().nth(at);
                let (first, of_whole) = asker.context("no such client")?.ask(kind)?;
                taken[at].push(first);
                if at == 2 {
                    share = share.min(of_whole);
                }
            }
        }
        let ratios: Vec<f64> =
            taken[1].iter().zip(&taken[2]).map(|(relay, enforcer)| enforcer / relay).collect();
        let [direct_us, relay_us, enforcer_us] = taken.map(median);
        rows.push(Row { kind: kind.name, direct_us, relay_us, enforcer_us, ratio: median(ratios), share });
    }
    [direct, relayed, enforced, plain].into_iter().try_for_each(Asker::end)?;
    Ok(rows)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: {:.0} us directly, {:.0} us by a plain relay, {:.0} us enforced, {:.2} times the relay's",
            self.kind, self.direct_us, self.relay_us, self.enforcer_us, self.ratio
        )
    }
}

/// The rows in Markdown.
pub fn table(rows: &[Row]) -> String {
    let mut out = "Microseconds to the first character of an answer of a model, masked in both directions; the relay only ends TLS. Medians; the last column is that of the pairs' ratios.\n\n\
        | answer | direct | plain relay | enforcer | enforcer/relay |\n|---|---|---|---|---|\n"
        .to_owned();
    for row in rows {
        let Row { kind, direct_us, relay_us, enforcer_us, ratio, .. } = row;
        out.push_str(&format!(
            "| {kind} | {direct_us:.0} | {relay_us:.0} | {enforcer_us:.0} | {ratio:.2} |\n"
        ));
    }
    out
}
