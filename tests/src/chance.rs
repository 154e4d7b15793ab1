//! What is chosen at random, and by a seed again.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// SplitMix64: small, and good enough to choose moments and values.
pub struct Chance {
    pub seed: u64,
    state: u64,
}

impl Chance {
    /// By this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, state: seed }
    }

    /// By the seed in the environment, or another one each time.
    #[expect(clippy::new_without_default, reason = "it reads the environment and the clock")]
    pub fn new() -> Self {
        let given = std::env::var("ENFORCER_SOAK_SEED").ok().map(|seed| seed.parse().unwrap());
        let seed = given.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            u64::from(now.subsec_nanos())
        });
        Self::seeded(seed)
    }

    /// Any number.
    #[expect(clippy::should_implement_trait, reason = "there is always a next one")]
    pub fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than this, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    /// From the first to the second, both included.
    pub fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// So many bytes, each one of these.
    pub fn bytes_of(&mut self, alphabet: &[u8], count: usize) -> Vec<u8> {
        (0..count).map(|_| self.pick(alphabet)).collect()
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.next().is_multiple_of(many)
    }

    /// One of them; they are shuffled.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = self.next() % (at as u64 + 1);
            items.swap(at, usize::try_from(other).unwrap());
        }
    }

    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.next() % items.len() as u64).unwrap()]
    }

    /// Less than this.
    pub fn moment(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.next() % u64::try_from(longest.as_micros()).unwrap())
    }
}

#[test]
fn a_seed_chooses_the_same_again() {
    let run = || {
        let mut chance = Chance::seeded(7);
        let mut order = [0, 1, 2, 3];
        chance.shuffle(&mut order);
        (order, chance.pick(&[1, 2, 3]), chance.one_in(3), chance.moment(Duration::from_secs(1)))
    };
    assert_eq!(run(), run());
    let mut chance = Chance::seeded(8);
    assert!((0..100).any(|_| chance.one_in(2)) && !(0..100).all(|_| chance.one_in(2)));
}
