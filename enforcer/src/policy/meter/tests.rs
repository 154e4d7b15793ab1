//! Exact at the edge, wherever a window begins, and however many ask at once.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::policy::{Facts, Policy, PolicyStore, Protocol, Stage, WorkloadFacts};
use crate::workload::identity::Claims;

/// A clock that stands until it is set, in milliseconds.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Hand {
    fn clock(&self) -> Clock {
        let hand = self.clone();
        Arc::new(move || Duration::from_millis(hand.0.load(Ordering::Relaxed)))
    }

    fn set(&self, ms: u64) {
        self.0.store(ms, Ordering::Relaxed);
    }
}

fn limit(most: u64, window_seconds: u32, per: Per) -> Limit {
    Limit { unit: Unit::Requests, most, window_seconds, per }
}

fn limited(rule: &str, audit: bool, limits: &[Limit]) -> Limited {
    Limited { rule: RuleId::new(None, "p", rule), owner: None, audit, limits: limits.into() }
}

fn job(job: u64) -> Payer<'static> {
    Payer { job, identity: Fact::Absent }
}

fn one(meters: &Arc<Meters>, limited: &Limited, payer: &Payer<'_>) -> Result<Option<Over>, Over> {
    meters.account(std::slice::from_ref(limited), payer).take(Unit::Requests, 1)
}

#[test]
fn so_many_pass_and_the_next_one_does_not_until_there_is_room() {
    let hand = Hand::default();
    hand.set(1_234_567);
    let meters = Arc::new(Meters::new(hand.clock()));
    let rule = limited("r", false, &[limit(3, 60, Per::Job)]);
    for _ in 0..3 {
        assert_eq!(one(&meters, &rule, &job(1)), Ok(None));
    }
    let over = one(&meters, &rule, &job(1)).unwrap_err();
    let Why::Used { used: 3, room_in } = over.why else { panic!("{over:?}") };
    assert!(room_in > Duration::from_secs(60) - Duration::from_secs(1) && room_in <= Duration::from_secs(61));
    // Another job has its own.
    assert_eq!(one(&meters, &rule, &job(2)), Ok(None));
    let room_in = u64::try_from(room_in.as_millis()).unwrap();
    hand.set(1_234_567 + room_in - 1);
    assert!(one(&meters, &rule, &job(1)).is_err());
    hand.set(1_234_567 + room_in);
    for want in [true, true, true, false] {
        assert_eq!(one(&meters, &rule, &job(1)).is_ok(), want);
    }
}

#[test]
fn no_window_has_more_than_the_limit_wherever_it_begins() {
    for seed in 0..40_u64 {
        let hand = Hand::default();
        let meters = Arc::new(Meters::new(hand.clock()));
        let (window_ms, most) = ([1_000, 7_000, 60_000][usize::try_from(seed % 3).unwrap()], 1 + seed % 9);
        let seconds = u32::try_from(window_ms / 1_000).unwrap();
        let rule = limited("r", false, &[limit(most, seconds, Per::Rule)]);
        let (mut state, mut now, mut passed) = (seed + 1, 0, Vec::new());
        for _ in 0..2_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Most of a window at once, too: what was used at its beginning must still be there.
            let steps = [0, 1, 7, window_ms / 61, window_ms / 2, window_ms * 58 / 60, window_ms - 1];
            now += steps[usize::try_from((state >> 33) % 7).unwrap()];
            hand.set(now);
            match one(&meters, &rule, &job(1)) {
                Ok(_) => passed.push(now),
                Err(over) => {
                    // It comes back a step after the window at the latest.
                    let Why::Used { room_in, .. } = over.why else { panic!() };
                    assert!(room_in.as_millis() <= u128::from(window_ms + window_ms / 60 + 1), "{room_in:?}");
                }
            }
        }
        let most = usize::try_from(most).unwrap();
        assert!(passed.len() > most, "{seed}: nothing came back");
        for pair in passed.windows(most + 1) {
            assert!(pair[most] - pair[0] >= window_ms, "{seed}: {pair:?} in {window_ms}");
        }
    }
}

#[test]
fn of_many_at_once_exactly_so_many_pass() {
    let meters = Arc::new(Meters::default());
    let limits = [limit(1_000, 3_600, Per::Job), limit(1_700, 3_600, Per::Rule)];
    let rule = limited("r", false, &limits);
    let passed = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (meters, rule, passed) = (&meters, &rule, &passed);
            scope.spawn(move || {
                for _ in 0..500 {
                    let ok = one(meters, rule, &job(thread % 2)).is_ok();
                    passed.fetch_add(u64::from(ok), Ordering::Relaxed);
                }
            });
        }
    });
    // Of each job 1,000 at most, and of both together 1,700.
    assert_eq!(passed.load(Ordering::Relaxed), 1_700);
}

#[test]
fn nothing_is_taken_of_one_limit_if_another_has_no_room() {
    let meters = Arc::new(Meters::default());
    let rule = limited("r", false, &[limit(5, 60, Per::Job), limit(1, 60, Per::Rule)]);
    assert!(one(&meters, &rule, &job(1)).is_ok());
    for _ in 0..9 {
        assert_eq!(one(&meters, &rule, &job(1)).unwrap_err().limit.most, 1);
    }
    let alone = limited("r", false, &[limit(5, 60, Per::Job)]);
    for want in [true, true, true, true, false] {
        assert_eq!(one(&meters, &alone, &job(1)).is_ok(), want);
    }
}

#[test]
fn a_rule_in_audit_mode_tells_and_lets_go() {
    let meters = Arc::new(Meters::default());
    let rule = limited("r", true, &[limit(1, 60, Per::Job)]);
    assert_eq!(one(&meters, &rule, &job(1)), Ok(None));
    for used in 1..4 {
        let would = one(&meters, &rule, &job(1)).unwrap().unwrap();
        assert!(matches!(would.why, Why::Used { used: told, .. } if told == used), "{would:?}");
    }
}

#[test]
fn more_than_the_whole_limit_never_fits() {
    let meters = Arc::new(Meters::default());
    let rule = [limited("r", false, &[limit(10, 60, Per::Job)])];
    let account = meters.account(&rule, &job(1));
    let over = account.take(Unit::Requests, 11).unwrap_err();
    assert_eq!((over.why, over.retry_after()), (Why::Never, None));
    assert_eq!(account.take(Unit::Requests, 10), Ok(None));
    // What was used all the same stays far over it, and no number overflows.
    account.add(Unit::Requests, u64::MAX);
    account.add(Unit::Requests, u64::MAX);
    assert!(account.take(Unit::Requests, 1).is_err());
}

#[test]
fn a_repository_is_counted_by_a_verified_token_alone() {
    let meters = Arc::new(Meters::default());
    let rule = limited("r", false, &[limit(1, 60, Per::Repository)]);
    let claims = |repository: &str, issuer: &str| Claims {
        issuer: issuer.to_owned(),
        texts: [(Field::Repository, repository.to_owned())].into(),
        ..Claims::default()
    };
    let ask = |claims: &Claims, assurance| {
        let identity = Fact::Known(IdentityFacts { claims, assurance });
        one(&meters, &rule, &Payer { job: 1, identity }).map_err(|over| over.why)
    };
    let (ours, theirs, other) = (claims("a/b", "i"), claims("a/c", "i"), claims("a/b", "j"));
    for _ in 0..2 {
        assert_eq!(ask(&ours, Assurance::Attested), Err(Why::Nobody));
        assert_eq!(ask(&Claims::default(), Assurance::Oidc), Err(Why::Nobody));
        assert_eq!(one(&meters, &rule, &job(1)).unwrap_err().why, Why::Nobody);
    }
    for claims in [&ours, &theirs, &other] {
        assert_eq!(ask(claims, Assurance::Oidc), Ok(None));
        assert!(matches!(ask(claims, Assurance::Oidc), Err(Why::Used { used: 1, .. })));
    }
}

#[test]
fn counters_are_bounded_and_what_nobody_uses_any_more_makes_room() {
    let hand = Hand::default();
    let meters = Arc::new(Meters::new(hand.clock()));
    let rule = limited("r", false, &[limit(1, 60, Per::Job)]);
    for tag in 0..MAX_COUNTERS as u64 / 2 {
        assert_eq!(one(&meters, &rule, &job(tag)), Ok(None));
    }
    let over = one(&meters, &rule, &job(u64::MAX)).unwrap_err();
    assert_eq!((over.why, over.reason()), (Why::Counters, Reason::TooManyCounters));
    assert!(matches!(one(&meters, &rule, &job(7)).unwrap_err().why, Why::Used { .. }));
    hand.set(62_000);
    assert_eq!(one(&meters, &rule, &job(u64::MAX)), Ok(None));
    assert_eq!(meters.counters().each.len(), 1);
    assert!(meters.counters().shares.values().all(|has| *has == 1));
}

#[test]
fn a_job_that_has_ended_leaves_no_counter() {
    let meters = Arc::new(Meters::default());
    let rule = limited("r", false, &[limit(9, 86_400, Per::Job)]);
    for tag in 0..MAX_COUNTERS as u64 {
        let account = meters.account(std::slice::from_ref(&rule), &job(tag));
        assert_eq!(account.take(Unit::Requests, 1), Ok(None), "{tag}");
        meters.job_ended(tag);
        // Its answer breaks off behind it.
        account.add(Unit::Requests, 1);
    }
    assert_eq!(meters.counters().each.len(), 0);
}

#[test]
fn neither_a_layer_nor_a_payer_can_have_all_counters() {
    let meters = Arc::new(Meters::default());
    let limits = [limit(9, 86_400, Per::Job)];
    let of = |layer: Option<&str>, rule: &str| Limited {
        rule: RuleId::new(layer, "p", rule),
        ..limited("r", false, &limits)
    };
    let share = MAX_SHARE as u64;
    let fits = |rule: &Limited, tag| match one(&meters, rule, &job(tag)) {
        Ok(_) => true,
        Err(over) => {
            assert_eq!(over.why, Why::Counters);
            false
        }
    };
    // One layer after the other, until those below have their half.
    for layer in 0..9 {
        let rule = of(Some(&format!("hub/org/{layer}")), "r");
        for tag in 0..share {
            assert_eq!(fits(&rule, layer * share + tag), layer < 8, "{layer} {tag}");
        }
        assert!(!fits(&rule, u64::MAX - layer));
    }
    // The host's rules are counted all the same, but not as many of one job.
    for number in 0..=share {
        let fit = fits(&of(None, &format!("r{number}")), u64::MAX);
        assert_eq!(fit, number < share, "{number}");
    }
    assert!(fits(&of(None, "r0"), 1));
    // Jobs of one repository have one share together.
    let claims = Claims {
        issuer: "i".to_owned(),
        texts: [(Field::Repository, "a/b".to_owned())].into(),
        ..Claims::default()
    };
    let identity = Fact::Known(IdentityFacts { claims: &claims, assurance: Assurance::Oidc });
    for tag in 0..=share {
        let took = one(&meters, &of(None, "s"), &Payer { job: 2_000_000 + tag, identity });
        assert_eq!(took.is_ok(), tag < share, "{tag}");
    }
}

#[test]
fn a_counter_stays_for_a_request_that_is_counted_in_it() {
    let hand = Hand::default();
    let meters = Arc::new(Meters::new(hand.clock()));
    let rule = limited("r", false, &[Limit { unit: Unit::Tokens, ..limit(9, 60, Per::Job) }]);
    let ask = |tag| meters.account(std::slice::from_ref(&rule), &job(tag));
    let running = ask(0);
    assert_eq!(running.take_of(Unit::Tokens, 1, 0), Ok(None));
    for tag in 1..MAX_COUNTERS as u64 / 2 {
        assert_eq!(ask(tag).take_of(Unit::Tokens, 1, 0), Ok(None));
    }
    hand.set(5_000);
    assert_eq!(ask(u64::MAX).take_of(Unit::Tokens, 1, 0), Ok(None));
    assert_eq!(meters.counters().each.len(), 2);
    running.add(Unit::Tokens, 9);
    assert!(ask(0).take(Unit::Tokens, 1).is_err());
}

#[test]
fn who_comes_again_when_told_to_passes() {
    let hand = Hand::default();
    let meters = Arc::new(Meters::new(hand.clock()));
    // The first one has room again long before the second.
    let rule = limited("r", false, &[limit(1, 7, Per::Job), limit(1, 60, Per::Job)]);
    let short = limited("s", false, &[limit(1, 7, Per::Job)]);
    for (rule, at) in [(&short, 0), (&rule, 200_000)] {
        hand.set(at);
        assert_eq!(one(&meters, rule, &job(1)), Ok(None));
        hand.set(at + 116);
        let seconds = one(&meters, rule, &job(1)).unwrap_err().retry_after().unwrap();
        hand.set(at + 116 + seconds * 1_000);
        assert_eq!(one(&meters, rule, &job(1)), Ok(None), "after {seconds} seconds");
    }
}

const RULES: &str = "version: 1\nname: p\nrules:\n  - {id: r, when: {host: a.test}, allow: true, limits: {requests: 2, window: 1h}}\n";

fn asked(store: &PolicyStore) -> Decision {
    let workload = WorkloadFacts::default();
    let facts = Facts {
        host: Fact::Known("a.test"),
        port: Fact::Known(443),
        protocol: Fact::Known(Protocol::Https),
        method: Fact::Known("GET"),
        path: Fact::Known("/"),
        ..Facts::new(&workload, Stage::Http)
    };
    let decision = store.current().decide(&facts);
    let account = store.meters().account(&decision.limits, &job(1));
    account.request(decision, Size::default())
}

#[test]
fn a_reload_keeps_what_was_used_of_a_limit_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(dir.path().join("p.yaml"), text).unwrap();
    write(RULES);
    let (store, opened) = PolicyStore::open(dir.path(), None);
    opened.unwrap();
    let first = asked(&store);
    assert_eq!((first.verdict, first.over), (Verdict::Allow, None));
    // Something else has changed.
    write(&RULES.replace("host: a.test", "host: [a.test, b.test]"));
    store.reload().unwrap();
    assert_eq!(asked(&store).verdict, Verdict::Allow);
    let denied = asked(&store);
    assert_eq!((denied.verdict, denied.reason), (Verdict::Deny, Reason::LimitExceeded));
    assert_eq!(denied.durability, Durability::Fsync);
    assert!(denied.message.unwrap().contains("2 requests in 1h for each job is reached (2 used)"));
    let used = store.hits().limits;
    assert_eq!((used.len(), used[0].used, used[0].counted, used[0].rule.as_str()), (1, 2, 1, "p/r"));
    // Another limit is another one, and so is the old one when it comes back.
    for text in [RULES.replace("requests: 2", "requests: 1"), RULES.to_owned()] {
        write(&text);
        store.reload().unwrap();
        assert_eq!(asked(&store).verdict, Verdict::Allow, "{text}");
    }
    write(&RULES.replace("host: a.test}", "host: a.test}, mode: audit"));
    store.reload().unwrap();
    asked(&store);
    let would = asked(&store);
    assert_eq!((would.verdict, would.audit.unwrap().reason), (Verdict::Allow, Reason::LimitExceeded));
}

#[test]
fn what_has_no_limits_is_counted_nowhere() {
    let policy = Policy::from_text("p.yaml", "version: 1\nname: p\nrules: [{id: r, allow: true}]\n").unwrap();
    let store = PolicyStore::fixed(policy);
    assert_eq!(asked(&store).limits, Vec::new());
    assert_eq!(store.meters().counters().each.len(), 0);
}
