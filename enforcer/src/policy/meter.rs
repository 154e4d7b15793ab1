//! What was used of the limits of rules.
//!
//! **The window slides.** It is cut into steps, and what was used is counted in the step in which
//! that was, until the whole window lies behind the end of that step:
//!
//! ```text
//!   |--------------------- window ----------------------|
//!   [ 0 ][ 1 ][ 2 ]                ...             [ 59 ][ now ]
//!     `-- given back at once when it is the 61st          `-- counted here
//! ```
//! So there is never more than the limit in any window, wherever it begins, and what was used
//! comes back at most a step (a sixtieth) too late. A fixed window would let twice as much
//! through around its edge, and so would a bucket (GCRA) that begins full. To count takes the
//! same time and room, however much there is of it.
//!
//! **Invariant**: what cannot be counted is denied. Nothing is counted of what is denied.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::workload::identity::{Assurance, Field};

use super::Policy;
use super::decision::{Decision, Durability, Reason, RuleId, Verdict, WouldDeny};
use super::facts::{Fact, IdentityFacts};
use super::limit::{Limit, Limited, Per, Unit};

/// Counters that are kept: one for each limit and whoever is counted by itself. Half of them are
/// for the host's layer, and half for those below it.
pub const MAX_COUNTERS: usize = 16_384;
/// Those of one layer below the host's, and those of whoever is counted by itself: nobody can
/// have them all.
const MAX_SHARE: usize = MAX_COUNTERS / 16;
/// Steps of a window. Whatever is used comes back a step too late at most.
const STEPS: u64 = 60;
/// The steps of a window, and the one that is now.
const SLOTS: usize = 61;
/// What nobody uses any more is looked for so often at most.
const SWEEP: Duration = Duration::from_secs(1);

/// The time since some moment; never less than before.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Who something is counted for.
#[derive(Debug, Clone, Copy)]
pub struct Payer<'a> {
    /// The workload's tag.
    pub job: u64,
    pub identity: Fact<IdentityFacts<'a>>,
}

/// Whose counter it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Whose {
    Job(u64),
    /// With its issuer: another forge may have one of that name.
    Repository(Arc<str>, Arc<str>),
    Rule,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    rule: RuleId,
    limit: Limit,
    whose: Whose,
}

/// Whose counters are bounded together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Share {
    Host,
    Below,
    Layer(Arc<str>),
    Payer(Whose),
}

/// Why something is over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is room again in this time.
    Used { used: u64, room_in: Duration },
    /// It is more than the whole limit.
    Never,
    /// See [`MAX_COUNTERS`].
    Counters,
    /// It is counted by repository, and no verified token names one.
    Nobody,
}

impl Why {
    /// How long it is so at least.
    fn lasts(&self) -> Duration {
        match self {
            Why::Used { room_in, .. } => *room_in,
            Why::Counters => Duration::ZERO,
            Why::Never | Why::Nobody => Duration::MAX,
        }
    }
}

/// What is over a limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    pub rule: RuleId,
    pub owner: Option<Arc<str>>,
    pub limit: Limit,
    pub why: Why,
}

impl Over {
    pub fn reason(&self) -> Reason {
        match self.why {
            Why::Used { .. } | Why::Never => Reason::LimitExceeded,
            Why::Counters => Reason::TooManyCounters,
            Why::Nobody => Reason::MissingFact,
        }
    }

    /// In how many seconds there is room again.
    pub fn retry_after(&self) -> Option<u64> {
        match self.why {
            Why::Used { room_in, .. } => {
                Some(room_in.as_nanos().div_ceil(1_000_000_000).try_into().unwrap_or(u64::MAX))
            }
            Why::Never | Why::Counters | Why::Nobody => None,
        }
    }
}

/// As whoever is over it reads it.
impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limit = &self.limit;
        match self.why {
            Why::Used { used, .. } => write!(
                f,
                "the limit of {limit} is reached ({used} used); there is room again in {} seconds",
                self.retry_after().unwrap_or_default()
            ),
            Why::Never => write!(f, "this alone is more than the limit of {limit}"),
            Why::Counters => write!(
                f,
                "the limit of {limit} cannot be counted now: there are too many counters; try again later"
            ),
            Why::Nobody => write!(
                f,
                "the limit of {limit} cannot be counted: no verified token says which repository this is \
                 (`enforcer job start`)"
            ),
        }
    }
}

/// What was used in the steps of one window.
struct Window {
    slots: [u64; SLOTS],
    /// The step that is now.
    step: u64,
    sum: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { slots: [0; SLOTS], step: 0, sum: 0 }
    }
}

/// Nanoseconds of a step, rounded up: what was used is never given back too early.
fn step_ns(limit: &Limit) -> u64 {
    (u64::from(limit.window_seconds) * 1_000_000_000).div_ceil(STEPS)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Window {
    fn slot(step: u64) -> usize {
        usize::try_from(step % SLOTS as u64).unwrap_or_default()
    }

    /// Gives back what lies a window behind.
    fn advance(&mut self, limit: &Limit, now: Duration) {
        let now = nanos(now) / step_ns(limit);
        if now <= self.step {
            return;
        }
        if now - self.step >= SLOTS as u64 {
            *self = Self { step: now, ..Self::default() };
            return;
        }
        while self.step < now {
            self.step += 1;
            let freed = std::mem::take(&mut self.slots[Self::slot(self.step)]);
            self.sum -= freed;
        }
    }

    fn add(&mut self, amount: u64) {
        // What would not fit into a number stays far over any limit.
        let amount = amount.min(u64::MAX - self.sum);
        self.slots[Self::slot(self.step)] += amount;
        self.sum += amount;
    }

    /// Why there is no room for so much more.
    fn refuses(&self, limit: &Limit, amount: u64, now: Duration) -> Option<Why> {
        if amount > limit.most {
            return Some(Why::Never);
        }
        let mut over = self.sum.saturating_add(amount).checked_sub(limit.most).filter(|over| *over > 0)?;
        let used = self.sum;
        // From the oldest step on, until enough is given back.
        for behind in (0..SLOTS as u64).rev() {
            let Some(step) = self.step.checked_sub(behind) else { continue };
            over = over.saturating_sub(self.slots[Self::slot(step)]);
            if over == 0 {
                let free = (step + SLOTS as u64).saturating_mul(step_ns(limit));
                let room_in = Duration::from_nanos(free.saturating_sub(nanos(now)));
                return Some(Why::Used { used, room_in });
            }
        }
        Some(Why::Never)
    }
}

struct Counter {
    window: Window,
    /// Who has it, if it is not of all together.
    payer: Option<Whose>,
    /// Requests that are counted in it have this, too: it stays for as long as one of them.
    pin: Arc<()>,
}

#[derive(Default)]
struct Counters {
    each: HashMap<Key, Counter>,
    /// How many counters each share has.
    shares: HashMap<Share, usize>,
    swept: Option<Duration>,
}

/// What a counter is a part of, and how many each of them may have.
fn shares(key: &Key, payer: Option<&Whose>) -> impl Iterator<Item = (Share, usize)> {
    let layer = key.rule.layer();
    let pool = if layer.is_none() { Share::Host } else { Share::Below };
    let layer = layer.map(|layer| Share::Layer(layer.into()));
    let payer = payer.cloned().map(Share::Payer);
    let small = layer.into_iter().chain(payer).map(|share| (share, MAX_SHARE));
    std::iter::once((pool, MAX_COUNTERS / 2)).chain(small)
}

impl Counters {
    fn has_room(&self, key: &Key, payer: Option<&Whose>) -> bool {
        shares(key, payer).all(|(share, most)| self.shares.get(&share).is_none_or(|has| *has < most))
    }

    /// The counter as it is now; `None` if there is no room for it.
    fn window(&mut self, line: &Line, key: &Key, now: Duration) -> Option<&mut Window> {
        if !self.each.contains_key(key) {
            let payer = line.payer.as_ref();
            if !self.has_room(key, payer) {
                self.sweep(now);
            }
            if !self.has_room(key, payer) {
                return None;
            }
            for (share, _) in shares(key, payer) {
                *self.shares.entry(share).or_default() += 1;
            }
            let pin = line.pin.get().cloned().unwrap_or_default();
            self.each.insert(key.clone(), Counter { window: Window::default(), payer: payer.cloned(), pin });
        }
        let counter = self.each.get_mut(key)?;
        line.pin.get_or_init(|| Arc::clone(&counter.pin));
        counter.window.advance(&key.limit, now);
        Some(&mut counter.window)
    }

    /// Drops what counts nothing any more.
    fn sweep(&mut self, now: Duration) {
        if self.swept.is_some_and(|swept| now < swept + SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.keep(|key, counter| {
            counter.window.advance(&key.limit, now);
            counter.window.sum > 0 || Arc::strong_count(&counter.pin) > 1
        });
    }

    fn keep(&mut self, keeps: impl FnMut(&Key, &mut Counter) -> bool) {
        let before = self.each.len();
        self.each.retain(keeps);
        if self.each.len() < before {
            self.shares.clear();
            for (key, counter) in &self.each {
                for (share, _) in shares(key, counter.payer.as_ref()) {
                    *self.shares.entry(share).or_default() += 1;
                }
            }
        }
    }
}

/// What was used of all limits, in memory: it begins anew with the process.
pub struct Meters {
    clock: Clock,
    counters: Mutex<Counters>,
}

impl Default for Meters {
    fn default() -> Self {
        let begin = Instant::now();
        Self::new(Arc::new(move || begin.elapsed()))
    }
}

/// How much of a limit is used: by whom it is used most.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Used {
    pub rule: String,
    /// As it is shown.
    pub limit: String,
    pub most: u64,
    pub used: u64,
    /// How many are counted by themselves.
    pub counted: usize,
}

impl Meters {
    pub fn new(clock: Clock) -> Self {
        Self { clock, counters: Mutex::default() }
    }

    /// What is to be counted for one request.
    pub fn account(self: &Arc<Self>, limited: &[Limited], payer: &Payer<'_>) -> Account {
        let each =
            limited.iter().flat_map(|limited| limited.limits.iter().map(move |limit| (limited, *limit)));
        let lines = each.map(|(limited, limit)| {
            let whose = whose(limit.per, payer);
            Line {
                payer: (limit.per != Per::Rule).then(|| payer.whose()),
                pin: OnceLock::new(),
                key: whose.map(|whose| Key { rule: limited.rule.clone(), limit, whose }),
                rule: limited.rule.clone(),
                owner: limited.owner.clone(),
                limit,
                audit: limited.audit,
            }
        });
        Account { meters: Arc::clone(self), lines: lines.collect(), told: AtomicBool::new(false) }
    }

    fn counters(&self) -> std::sync::MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what is counted for limits that this policy has, too.
    pub(super) fn retain(&self, policy: &Policy) {
        let limits: std::collections::HashSet<(&RuleId, Limit)> = policy.limits().collect();
        self.counters().keep(|key, _| limits.contains(&(&key.rule, key.limit)));
    }

    /// Nobody has this tag any more, nor will.
    pub fn job_ended(&self, tag: u64) {
        self.counters().keep(|key, _| key.whose != Whose::Job(tag));
    }

    /// How much is used of the limits of a policy, at most of so many.
    pub fn used(&self, policy: &Policy, most: usize) -> Vec<Used> {
        let now = (self.clock)();
        let mut counted: HashMap<(RuleId, Limit), (u64, usize)> =
            policy.limits().map(|(rule, limit)| ((rule.clone(), limit), (0, 0))).collect();
        let mut counters = self.counters();
        for (key, counter) in &mut counters.each {
            let window = &mut counter.window;
            window.advance(&key.limit, now);
            if let Some((used, count)) =
                counted.get_mut(&(key.rule.clone(), key.limit)).filter(|_| window.sum > 0)
            {
                *used = window.sum.max(*used);
                *count += 1;
            }
        }
        drop(counters);
        let told = policy.limits().filter_map(|(rule, limit)| {
            let (used, counted) = *counted.get(&(rule.clone(), limit))?;
            let rule = rule.as_str().to_owned();
            Some(Used { rule, limit: limit.to_string(), most: limit.most, used, counted })
        });
        told.take(most).collect()
    }
}

fn whose(per: Per, payer: &Payer<'_>) -> Option<Whose> {
    match per {
        Per::Job => Some(Whose::Job(payer.job)),
        Per::Rule => Some(Whose::Rule),
        Per::Repository => payer.repository(),
    }
}

impl Payer<'_> {
    fn repository(&self) -> Option<Whose> {
        // What a job says of itself could be another one each time.
        let who = self.identity.known().filter(|who| who.assurance > Assurance::Attested)?;
        let repository = who.claims.get(Field::Repository)?;
        Some(Whose::Repository(who.claims.issuer.as_str().into(), repository.into()))
    }

    /// Who has all of its counters: a repository may have many jobs.
    fn whose(&self) -> Whose {
        self.repository().unwrap_or(Whose::Job(self.job))
    }
}

struct Line {
    /// `None`: it is not known who it is counted for.
    key: Option<Key>,
    /// Who has the counter, if it is not of all together.
    payer: Option<Whose>,
    /// Set once there was a counter.
    pin: OnceLock<Arc<()>>,
    rule: RuleId,
    owner: Option<Arc<str>>,
    limit: Limit,
    audit: bool,
}

impl Line {
    fn over(&self, why: Why) -> Over {
        Over { rule: self.rule.clone(), owner: self.owner.clone(), limit: self.limit, why }
    }
}

/// So much of a unit.
struct Charge {
    unit: Unit,
    /// For so much there has to be room.
    room: u64,
    /// So much of it is taken now.
    amount: u64,
}

/// The counters that one request is counted in.
pub struct Account {
    meters: Arc<Meters>,
    lines: Vec<Line>,
    told: AtomicBool,
}

/// What is known of how large a request is when it comes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Size {
    /// Bytes of its head, which go out at once.
    pub head: u64,
    /// Bytes of its body, if it says so.
    pub body: u64,
}

impl Account {
    /// Whether anything of this unit is counted.
    pub fn counts(&self, unit: Unit) -> bool {
        self.lines.iter().any(|line| line.limit.unit == unit)
    }

    /// Whether anything is denied for being over a limit of this unit.
    pub fn enforces(&self, unit: Unit) -> bool {
        self.lines.iter().any(|line| line.limit.unit == unit && !line.audit)
    }

    /// Takes so much of each limit of a unit, or of none if one of them has no room for it. What
    /// a rule in audit mode would not have let through is told, and taken.
    pub fn take(&self, unit: Unit, amount: u64) -> Result<Option<Over>, Over> {
        self.charge(&[Charge { unit, room: amount, amount }])
    }

    /// The same if there is room for more than is taken now.
    pub fn take_of(&self, unit: Unit, room: u64, amount: u64) -> Result<Option<Over>, Over> {
        self.charge(&[Charge { unit, room, amount }])
    }

    fn charge(&self, charges: &[Charge]) -> Result<Option<Over>, Over> {
        let now = (self.meters.clock)();
        let mut counters = self.meters.counters();
        let (mut would, mut denied): (_, Option<Over>) = (None, None);
        for charge in charges {
            for line in self.lines.iter().filter(|line| line.limit.unit == charge.unit) {
                let why = match &line.key {
                    None => Some(Why::Nobody),
                    Some(key) => match counters.window(line, key, now) {
                        None => Some(Why::Counters),
                        Some(window) => window.refuses(&line.limit, charge.room, now),
                    },
                };
                match why.map(|why| line.over(why)) {
                    None => {}
                    Some(over) if line.audit => would = would.or(Some(over)),
                    // There is room when the last of them has some.
                    Some(over) if denied.as_ref().is_some_and(|one| one.why.lasts() >= over.why.lasts()) => {}
                    Some(over) => denied = Some(over),
                }
            }
        }
        if let Some(over) = denied {
            return Err(over);
        }
        for charge in charges {
            self.enter(&mut counters, charge.unit, charge.amount, now);
        }
        Ok(would)
    }

    /// Whether it is the first time that something is told.
    pub fn tells(&self) -> bool {
        !self.told.swap(true, Ordering::Relaxed)
    }

    /// Counts what was used already, whether there is room for it or not.
    pub fn add(&self, unit: Unit, amount: u64) {
        let now = (self.meters.clock)();
        self.enter(&mut self.meters.counters(), unit, amount, now);
    }

    fn enter(&self, counters: &mut Counters, unit: Unit, amount: u64, now: Duration) {
        for line in self.lines.iter().filter(|line| line.limit.unit == unit) {
            let Some(key) = &line.key else { continue };
            // The job has ended since, or there is no such limit any more.
            if line.pin.get().is_some() && !counters.each.contains_key(key) {
                continue;
            }
            if let Some(window) = counters.window(line, key, now) {
                window.add(amount);
            }
        }
    }

    /// Takes one request of what policy allows, and its head; the decision says whether there was
    /// room for all that is known to come.
    #[must_use]
    pub fn request(&self, decision: Decision, size: Size) -> Decision {
        let charges = [
            Charge { unit: Unit::Requests, room: 1, amount: 1 },
            Charge { unit: Unit::BytesUp, room: size.head.saturating_add(size.body), amount: size.head },
            Charge { unit: Unit::BytesDown, room: 1, amount: 0 },
            Charge { unit: Unit::Tokens, room: 1, amount: 0 },
        ];
        match self.charge(&charges) {
            Ok(None) => decision,
            Ok(Some(over)) => decision.would_be_over(&over),
            Err(over) => decision.over(over),
        }
    }
}

impl Decision {
    /// Denied, since it is over a limit.
    fn over(self, over: Over) -> Self {
        Self {
            verdict: Verdict::Deny,
            reason: over.reason(),
            rule: Some(over.rule.clone()),
            owner: over.owner.clone(),
            message: Some(over.to_string().into()),
            durability: Durability::Fsync,
            hold: None,
            tools: false,
            audit: None,
            over: Some(Box::new(over)),
            ..self
        }
    }

    fn would_be_over(mut self, over: &Over) -> Self {
        self.audit.get_or_insert_with(|| WouldDeny {
            rule: Some(over.rule.clone()),
            reason: over.reason(),
            message: Some(over.to_string().into()),
        });
        self
    }
}

#[cfg(test)]
mod tests;
