//! Random interleavings against an oracle that keeps its own, simpler account.
//!
//! The oracle knows people by number, statements by key and attempt, and recounts a quorum
//! from all answers given. It predicts each outcome; that nothing goes out twice, too late,
//! with other bytes or without the people, is checked where a statement goes out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::*;

/// Steps in a run of the tests, each one of what could happen next; `ENFORCER_MODEL_STEPS` says
/// another number.
const STEPS: u64 = 1_000_000;
const OPEN: u64 = 20;
const RETRY: u64 = 15;
const MINUTE: u64 = 60;
const SCOPES: [Scope; 2] = [Scope::Once, Scope::Job { minutes: 1 }];

/// Whom each login belongs to; 0 is the actor, and the last login is nobody's.
const PERSON: [Option<u8>; 7] = [Some(0), Some(0), Some(1), Some(1), Some(2), Some(3), None];

struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

/// What never changes.
struct Cast {
    logins: [Account; 7],
    bounds: [[Bound; 2]; 3],
    jobs: [JobKey; 3],
    requirements: Vec<(Requirement, usize, bool)>,
    people: People,
    group: Group,
}

impl Cast {
    fn new() -> Self {
        let logins = ["actor", "actor", "ann", "ann-2", "bob", "cat", "stranger"].map(login);
        let mut logins = logins;
        logins[0] = ACTOR.clone();
        let mut people = People::default();
        for (login, person) in logins.iter().zip(PERSON) {
            if let Some(person) = person {
                people.map(login.clone(), PersonId::new(&person.to_string())).unwrap();
            }
            people.set_groups(login.clone(), [Group::new("ops")]);
        }
        let mut requirements = Vec::new();
        for quorum in 1..=3 {
            for retry in [true, false] {
                let spec = RequirementSpec {
                    open_seconds: OPEN,
                    retry_seconds: retry.then_some(RETRY),
                    ..spec(quorum)
                };
                requirements.push((Requirement::new(spec).unwrap(), quorum, retry));
            }
        }
        Self {
            logins,
            bounds: ["/a", "/b", "/a"].map(|path| [bound(path, 1), bound(path, 2)]),
            jobs: ["one", "one", "two"].map(JobKey::new),
            requirements,
            people,
            group: Group::new("ops"),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Open,
    Approved,
    Over,
}

#[derive(Clone, Copy)]
struct Right {
    once: bool,
    attempt: Option<usize>,
    until: UnixMs,
}

struct Ask {
    key: usize,
    expires: UnixMs,
    waiting: bool,
    attempt: usize,
    yes: Vec<(usize, usize)>,
    given: BTreeSet<(usize, usize)>,
    fate: Fate,
    right: Option<Right>,
    released: u32,
    /// What a decider has on their screen.
    shown: (Seen, usize),
}

struct Client {
    id: WaiterId,
    attempt: usize,
    until: UnixMs,
    away: bool,
}

struct World<'a> {
    cast: &'a Cast,
    requirement: &'a Requirement,
    quorum: usize,
    retry: bool,
    people: People,
    roles: [bool; 7],
    store: ApprovalStore<Memory>,
    now: UnixMs,
    asks: BTreeMap<ApprovalId, Ask>,
    clients: Vec<Client>,
    released: u64,
}

fn seconds(now: UnixMs, seconds: u64) -> UnixMs {
    now.after(Duration::from_secs(seconds))
}

impl<'a> World<'a> {
    fn new(cast: &'a Cast, chance: &mut Chance) -> Self {
        let (requirement, quorum, retry) = &cast.requirements[chance.below(cast.requirements.len())];
        let now = UnixMs(1_000_000);
        let store = ApprovalStore::resume(Memory::default(), State::default(), now).unwrap();
        Self {
            cast,
            requirement,
            quorum: *quorum,
            retry: *retry,
            people: cast.people.clone(),
            roles: [true; 7],
            store,
            now,
            asks: BTreeMap::new(),
            clients: Vec::new(),
            released: 0,
        }
    }

    /// Time passes for the oracle.
    fn settle(&mut self) {
        let now = self.now;
        for (id, ask) in &mut self.asks {
            let mine = |client: &Client| client.id.approval() == *id;
            if ask.fate == Fate::Open {
                for client in self.clients.iter_mut().filter(|client| mine(client)) {
                    client.away |= client.until <= now;
                }
                let turned = self.clients.iter().any(|client| mine(client) && client.away);
                let mut here = self.clients.iter().filter(|client| mine(client) && !client.away).peekable();
                if ask.expires <= now {
                    ask.fate = Fate::Over;
                } else if ask.waiting && turned && self.retry {
                    ask.waiting = false;
                } else if ask.waiting {
                    match here.peek().map(|first| first.attempt) {
                        None => ask.fate = Fate::Over,
                        Some(first) if here.all(|client| client.attempt != ask.attempt) => {
                            ask.attempt = first;
                            ask.yes.clear();
                        }
                        Some(_) => {}
                    }
                }
            }
            ask.right = ask.right.filter(|right| {
                let mut here = self.clients.iter().filter(|client| mine(client) && !client.away);
                right.until > now && right.attempt.is_none_or(|at| here.any(|client| client.attempt == at))
            });
        }
    }

    fn eligible(&self, who: usize) -> bool {
        self.roles[who] && PERSON[who].is_some_and(|person| person != 0)
    }

    fn persons(&self, logins: impl Iterator<Item = usize>) -> usize {
        logins.filter(|who| self.eligible(*who)).map(|who| PERSON[who]).collect::<BTreeSet<_>>().len()
    }

    /// A statement goes out: the one place where the promises are checked.
    fn out(&mut self, permit: &Permit, key: usize, attempt: usize) {
        assert_eq!(permit.exact(), self.cast.bounds[key][attempt].exact());
        let ask = self.asks.get_mut(&permit.approval()).unwrap();
        let right = ask.right.unwrap();
        assert_eq!((ask.fate, ask.key), (Fate::Approved, key));
        assert!(right.until > self.now && right.attempt.is_none_or(|only| only == attempt));
        ask.released += 1;
        self.released += 1;
        if right.once {
            assert_eq!(ask.released, 1);
            ask.right = None;
        }
    }

    fn submit(&mut self, chance: &mut Chance) {
        let (key, attempt) = (chance.below(3), chance.below(2));
        let (class, hold) = [(Class::Pip, 10), (Class::Httpx, 3)][chance.below(2)];
        let bound = self.cast.bounds[key][attempt];
        let job = self.cast.jobs[key].clone();
        let s = Submission { job, class, ..submission(self.requirement, bound) };
        let covered = self.asks.values().any(|ask| {
            ask.key == key && ask.fate == Fate::Approved && ask.right.is_some_and(|r| r.attempt.is_none())
        });
        let possible = self.persons(0..PERSON.len()) >= self.quorum;
        let open =
            self.asks.iter().find(|(_, ask)| ask.key == key && ask.fate == Fate::Open).map(|(id, _)| *id);
        match self.store.submit(&s, &self.people, self.now).unwrap() {
            Submitted::Pass(permit) => {
                assert!(covered);
                self.out(&permit, key, attempt);
            }
            Submitted::Refused(refusal) => {
                assert!(!covered && !possible, "{refusal:?}");
            }
            Submitted::Wait { waiter, until, asked } => {
                assert!(!covered && possible);
                let id = waiter.approval();
                if asked {
                    assert!(open.is_none());
                    let ask = Ask {
                        key,
                        expires: seconds(self.now, OPEN),
                        waiting: true,
                        attempt,
                        yes: Vec::new(),
                        given: BTreeSet::new(),
                        fate: Fate::Open,
                        right: None,
                        released: 0,
                        shown: (self.store.get(id).unwrap().seen, attempt),
                    };
                    self.asks.insert(id, ask);
                } else {
                    assert_eq!(open, Some(id));
                }
                assert_eq!(until, seconds(self.now, hold).min(self.asks[&id].expires));
                self.clients.push(Client { id: waiter, attempt, until, away: false });
            }
            Submitted::Later { .. } => panic!("everybody is held"),
        }
    }

    fn some_ask(&self, chance: &mut Chance) -> Option<ApprovalId> {
        let keys: Vec<&ApprovalId> = self.asks.keys().collect();
        (!keys.is_empty()).then(|| *keys[chance.below(keys.len())])
    }

    fn decide(&mut self, chance: &mut Chance) {
        let Some(id) = self.some_ask(chance) else { return };
        let who = chance.below(PERSON.len());
        let (scope, no) = (chance.below(4) / 3, chance.below(12) == 0);
        let eligible = self.eligible(who);
        let ask = self.asks.get_mut(&id).unwrap();
        // Most look again before they answer.
        self.store.tick(self.now).unwrap();
        if chance.below(4) > 0
            && let Some(approval) = self.store.get(id)
        {
            ask.shown = (approval.seen, ask.attempt);
        }
        let says = if no { Says::Reject } else { Says::Approve(SCOPES[scope]) };
        let by = &self.cast.logins[who];
        let answer = Answer { approval: id, seen: ask.shown.0, by, says, reason: None };
        let decided = self.store.decide(&answer, &self.people, self.now).unwrap();
        if ask.fate != Fate::Open {
            assert!(matches!(decided, Decided::Ignored(Ignored::Late) | Decided::Unknown), "{decided:?}");
        } else if ask.shown.1 != ask.attempt {
            assert_eq!(decided, Decided::Ignored(Ignored::Changed));
        } else if !eligible {
            assert!(matches!(decided, Decided::Ignored(Ignored::NotEligible(_))), "{decided:?}");
        } else if no {
            assert_eq!(decided, Decided::Rejected);
            ask.fate = Fate::Over;
        } else {
            ask.yes.retain(|(by, _)| *by != who);
            ask.yes.push((who, scope));
            ask.given.insert((who, scope));
            let yes = ask.yes.clone();
            let have = self.persons(yes.iter().map(|(who, _)| *who));
            let approved = is_approved(decided);
            assert_eq!(approved, have >= self.quorum, "{decided:?}");
            if approved {
                let once = yes.iter().any(|(who, scope)| self.eligible(*who) && *scope == 0);
                self.approved(id, once);
            }
        }
    }

    fn approved(&mut self, id: ApprovalId, once: bool) {
        let ask = self.asks.get_mut(&id).unwrap();
        ask.fate = Fate::Approved;
        let until = match (once, ask.waiting) {
            (true, true) => ask.expires,
            (true, false) => seconds(self.now, RETRY),
            (false, _) => seconds(self.now, MINUTE),
        };
        ask.right = Some(Right { once, attempt: (once && ask.waiting).then_some(ask.attempt), until });
    }

    fn break_glass(&mut self, chance: &mut Chance) {
        let Some(id) = self.some_ask(chance) else { return };
        let Some(seen) = self.store.get(id).map(|approval| approval.seen) else { return };
        let root = MaskedText::fixed("root");
        let decided = self.store.break_glass(id, seen, &root, &root, self.now).unwrap();
        assert_eq!(is_approved(decided), self.asks[&id].fate == Fate::Open);
        if is_approved(decided) {
            self.approved(id, true);
        }
    }

    fn take(&mut self, chance: &mut Chance) {
        if self.clients.is_empty() {
            return;
        }
        let at = chance.below(self.clients.len());
        let (id, attempt, away) = (self.clients[at].id, self.clients[at].attempt, self.clients[at].away);
        let ask = &self.asks[&id.approval()];
        let (key, fate, right) = (ask.key, ask.fate, ask.right);
        let other = chance.below(12) == 0;
        let bytes = self.cast.bounds[key][if other { 1 - attempt } else { attempt }].exact();
        let covered = right.is_some_and(|right| right.attempt.is_none_or(|only| only == attempt));
        match self.store.take(id, bytes, self.now).unwrap() {
            Taken::Release(permit) => {
                assert!(!away && !other && covered);
                self.out(&permit, key, attempt);
            }
            Taken::Wait { .. } => {
                assert!(!away && !other && fate == Fate::Open);
                return;
            }
            Taken::Denied(denial) => {
                let released = !away && !other && fate == Fate::Approved && covered;
                assert!(!released && (away || other || fate != Fate::Open), "{denial:?}");
            }
        }
        self.clients.remove(at);
    }

    fn gone(&mut self, chance: &mut Chance) {
        if !self.clients.is_empty() {
            let client = self.clients.remove(chance.below(self.clients.len()));
            self.store.gone(client.id, self.now).unwrap();
        }
    }

    fn job_ends(&mut self, chance: &mut Chance) {
        let key = chance.below(3);
        let job = &self.cast.jobs[key];
        self.store.job_ended(job, self.now).unwrap();
        for ask in self.asks.values_mut().filter(|ask| self.cast.jobs[ask.key] == *job) {
            ask.right = None;
            if ask.fate == Fate::Open {
                ask.fate = Fate::Over;
            }
        }
    }

    /// The process dies; of what was not on disk, some is lost.
    fn crash(&mut self, chance: &mut Chance) {
        let (synced, all) = {
            let tape = self.store.log.tape();
            (tape.synced, tape.events.len())
        };
        let kept = synced + chance.below(all - synced + 1);
        let log = self.store.log.clone();
        self.store = log.reopen(kept, self.now);
        self.clients.clear();
        let mut lost = Vec::new();
        for (id, ask) in &mut self.asks {
            ask.right = ask.right.filter(|right| right.attempt.is_none());
            assert_eq!(self.store.grant(*id).is_some(), ask.right.is_some(), "grants stay");
            let Some(found) = self.store.get(*id) else {
                assert!(ask.fate != Fate::Approved);
                lost.push(*id);
                continue;
            };
            assert_eq!(matches!(found.standing, Standing::Approved(_)), ask.fate == Fate::Approved);
            if found.standing.is_pending() {
                assert!(ask.fate == Fate::Open && !ask.waiting && found.applies == Applies::Retry);
                // The last answers may be lost, and none is there that nobody gave.
                let answer = |vote: &Vote| {
                    let who = self.cast.logins.iter().position(|login| *login == vote.by).unwrap();
                    (who, usize::from(vote.scope != Scope::Once))
                };
                ask.yes = found.votes.iter().map(answer).collect();
                assert!(ask.yes.iter().all(|yes| ask.given.contains(yes)));
            } else if ask.fate == Fate::Open {
                ask.fate = Fate::Over;
            }
        }
        lost.iter().for_each(|id| drop(self.asks.remove(id)));
    }

    fn step(&mut self, chance: &mut Chance) {
        self.settle();
        match chance.below(32) {
            0..8 => self.submit(chance),
            8..19 => self.decide(chance),
            19..25 => self.take(chance),
            25..27 => {
                let who = chance.below(PERSON.len());
                self.roles[who] = !self.roles[who];
                let groups = self.roles[who].then(|| self.cast.group.clone());
                self.people.set_groups(self.cast.logins[who].clone(), groups);
            }
            27..29 => {
                self.now = seconds(self.now, [1, 3, 7, 10, 21][chance.below(5)]);
                if chance.below(2) == 0 {
                    self.settle();
                    self.store.tick(self.now).unwrap();
                }
            }
            29 => self.gone(chance),
            30 => self.crash(chance),
            _ => match chance.below(4) {
                0 => self.break_glass(chance),
                1 => self.job_ends(chance),
                _ => self.submit(chance),
            },
        }
    }
}

/// Walks with one seed after another, `stride` apart: how many steps, and what went out.
fn walk(cast: &Cast, first: u64, stride: u64, wanted: u64) -> (u64, u64) {
    let (mut steps, mut released, mut seed) = (0, 0, first);
    while steps < wanted {
        let mut chance = Chance(seed);
        let mut world = World::new(cast, &mut chance);
        let length = 8 + chance.below(40);
        for _ in 0..length {
            world.step(&mut chance);
        }
        steps += u64::try_from(length).unwrap();
        released += world.released;
        seed += stride;
    }
    (steps, released)
}

#[test]
fn nothing_goes_out_but_what_people_let_go() {
    let wanted = std::env::var("ENFORCER_MODEL_STEPS").ok().and_then(|n| n.parse().ok()).unwrap_or(STEPS);
    let cast = Cast::new();
    let threads = std::thread::available_parallelism().map_or(1, |n| u64::try_from(n.get()).unwrap());
    let walked: Vec<_> = std::thread::scope(|scope| {
        let cast = &cast;
        let walk = |first| scope.spawn(move || walk(cast, first, threads, wanted.div_ceil(threads)));
        let walks: Vec<_> = (1..=threads).map(walk).collect();
        walks.into_iter().map(|walk| walk.join().unwrap()).collect()
    });
    let (steps, released) = walked.into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    // A model in which nothing happens would prove nothing.
    assert!(released > steps / 200, "{released} of {steps}");
}
