//! Chance that a test can repeat.

/// Numbers that follow from a seed (xorshift64*, Vigna 2016): good enough to choose moments and calls.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    /// Thrown from the seed in `KEY_BROKER_TEST_SEED`, or from the time; the seed is printed, so that a failure can be
    /// repeated as far as processes can.
    pub fn of_this_run() -> Self {
        let now = std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_nanos();
        let by_time = u64::try_from(now % u128::from(u64::MAX)).expect("it is less");
        let seed = std::env::var(SEED).map_or(by_time, |text| text.parse().expect("a number"));
        println!("{SEED}={seed}");
        Self::new(seed)
    }

    pub fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Less than `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }
}

const SEED: &str = "KEY_BROKER_TEST_SEED";
