//! Which addresses are accessed: drawn before anything is measured, because drawing from a Zipf
//! distribution takes longer than a read.

use clap::ValueEnum;

/// How many addresses are drawn; then they begin again. As many as make the repetition invisible to caches.
const DRAWS: usize = 1 << 22;

/// The exponent of the Zipf distribution, as in YCSB.
const THETA: f64 = 0.99;

/// Terms of the zeta sum that are added up; the rest is an integral.
const EXACT_TERMS: u64 = 1_000_000;

/// How addresses are chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pattern {
    /// All alike.
    Uniform,
    /// Zipf with exponent 0.99, popular addresses scattered (YCSB's scrambled Zipf).
    Zipf,
}

impl Pattern {
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipf => "zipf",
        }
    }
}

/// Offsets in `span` bytes, each a multiple of the payload.
pub(crate) struct Sequence {
    items: Vec<u32>,
    payload: u64,
}

impl Sequence {
    pub fn new(pattern: Pattern, span: u64, payload: usize, seed: u64) -> Self {
        let payload = payload as u64;
        let items = (span / payload).clamp(1, u64::from(u32::MAX));
        let mut random = Random(seed.wrapping_mul(7919) + 0x1234_5678_9abc);
        let zipf = Zipf::new(items);
        let draw = |_| match pattern {
            Pattern::Uniform => random.below(items),
            Pattern::Zipf => scatter(zipf.rank(random.unit())) % items,
        };
        Self { items: (0..DRAWS).map(draw).map(|item| item as u32).collect(), payload }
    }

    /// Numbers from 0 to `items`, the small ones most often: Zipf, not scattered.
    pub fn ranks(items: u64) -> Self {
        let items = items.clamp(1, u64::from(u32::MAX));
        let (mut random, zipf) = (Random(0x1234_5678_9abc), Zipf::new(items));
        let draw = |_| zipf.rank(random.unit()).min(items - 1) as u32;
        Self { items: (0..DRAWS).map(draw).collect(), payload: 1 }
    }

    /// What `address` makes of the offsets.
    pub fn addresses(&self, address: impl Fn(u64) -> u64) -> Vec<u64> {
        self.items.iter().map(|item| address(u64::from(*item) * self.payload)).collect()
    }
}

/// Gray et al., "Quickly Generating Billion-Record Synthetic Databases", 1994; what YCSB uses.
struct Zipf {
    items: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(items: u64) -> Self {
        let exact: f64 = (1..=items.min(EXACT_TERMS)).map(|i| (i as f64).powf(-THETA)).sum();
        let (n, m) = (items as f64, EXACT_TERMS as f64);
        let rest = if n > m { (n.powf(1.0 - THETA) - m.powf(1.0 - THETA)) / (1.0 - THETA) } else { 0.0 };
        let zeta = exact + rest;
        let two = 1.0 + 0.5f64.powf(THETA);
        let eta = (1.0 - (2.0 / n).powf(1.0 - THETA)) / (1.0 - two / zeta);
        Self { items: n, zeta, eta }
    }

    /// The rank, from 0 on, that belongs to `u` from 0 to 1.
    fn rank(&self, u: f64) -> u64 {
        let uz = u * self.zeta;
        if uz < 1.0 {
            0
        } else if uz < 1.0 + 0.5f64.powf(THETA) {
            1
        } else {
            (self.items * (self.eta * u - self.eta + 1.0).powf(1.0 / (1.0 - THETA))) as u64
        }
    }
}

/// splitmix64.
pub(crate) struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(mix(seed + 1))
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }
}

/// Sends neighbouring ranks far apart.
fn scatter(rank: u64) -> u64 {
    mix(rank + 1)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(pattern: Pattern) -> Vec<f64> {
        let sequence = Sequence::new(pattern, 64 << 10, 64, 1);
        let mut counts = vec![0u32; 1024];
        for at in sequence.addresses(|at| at) {
            counts[at as usize / 64] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        counts.into_iter().map(|count| f64::from(count) / DRAWS as f64).collect()
    }

    #[test]
    fn uniform_draws_are_alike() {
        let shares = shares(Pattern::Uniform);
        assert!(shares[0] < 1.1 / 1024.0 && shares[1023] > 0.9 / 1024.0);
    }

    #[test]
    fn zipf_draws_fall_with_the_rank() {
        let shares = shares(Pattern::Zipf);
        let zeta: f64 = (1..=1024).map(|i| f64::from(i).powf(-THETA)).sum();
        // Two ranks can be scattered to one item, so shares are those of a rank or a little more.
        assert!((shares[0] * zeta - 1.0).abs() < 0.1, "{}", shares[0] * zeta);
        assert!(shares[..10].iter().sum::<f64>() > 0.35 && shares[1023] < 0.001);
    }
}
